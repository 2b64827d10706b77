//! What machines load before they have a disk: files by name, menus, and command lines of kernels.
//!
//! - [`files`] opens files below a root.
//! - [`loader`] makes images of GRUB with the tools of the host.
//! - [`inside`] reads files out of the file system of a disk.
//! - [`grub`] writes menus, and [`cmdline`] the command lines in them. Both do no I/O.

pub mod cmdline;
pub mod files;
pub mod grub;
pub mod inside;
pub mod loader;
