//! What machines load before they have a disk: files by name, menus, and command lines of kernels.
//!
//! - [`files`] opens files below a root.
//! - [`loader`] makes images of GRUB with the tools of the host.
//! - [`inside`] reads files out of the file system of a disk.
//! - [`menu`] is what a machine may choose from; [`grub`], [`ipxe`] and [`pxelinux`] write it for
//!   boot loaders, and [`cmdline`] the command lines in it. [`lookup`] knows by which names boot
//!   loaders ask for their menus; [`template`] is for menus that an admin writes. None of these
//!   does I/O.
//! - [`signed`] finds the programs that Secure Boot takes.

pub mod cmdline;
pub mod files;
pub mod grub;
pub mod inside;
pub mod ipxe;
pub mod loader;
pub mod lookup;
pub mod menu;
pub mod pxelinux;
pub mod signed;
pub mod template;
