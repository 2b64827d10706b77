//! The kernel's network block devices: what is asked of them, and what they tell.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use thiserror::Error;

use super::options::Device;
use super::wire::{self, Connect, Family, Incoming, Reconfigure, incoming};
use crate::io::NetlinkSocket;

/// Why the kernel did not do what it was asked.
#[derive(Debug, Error)]
pub(super) enum KernelError {
    #[error("this kernel has no network block devices: load the module with modprobe nbd")]
    NoModule,
    #[error("only root may attach and detach devices")]
    Forbidden,
    #[error("the device is attached already: see --status, or detach it with --detach")]
    Busy,
    #[error("the kernel says {0}; dmesg may know more")]
    Refused(io::Error),
    #[error("the kernel can't be asked: {0}")]
    Io(#[from] io::Error),
}

impl KernelError {
    fn of(error: i32) -> Self {
        let error = io::Error::from_raw_os_error(error);
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::Forbidden,
            io::ErrorKind::ResourceBusy => Self::Busy,
            _ => Self::Refused(error),
        }
    }
}

/// What a socket of netlink answers once where it had no room for something.
const LOST: i32 = rustix::io::Errno::NOBUFS.raw_os_error();

/// Bytes that one answer of the kernel may have.
const ANSWER_MAX: usize = 16 * 1024;

/// A way to ask the kernel.
#[derive(Debug)]
pub(super) struct Kernel {
    socket: NetlinkSocket,
    family: Family,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Kernel {
    pub(super) fn open() -> Result<Self, KernelError> {
        let mut kernel = Self {
            socket: NetlinkSocket::open()?,
            family: Family { id: 0, group: None },
            sequence: 0,
            buffer: vec![0; ANSWER_MAX],
        };
        let mut family = None;
        let asked = kernel.ask(wire::get_family, |told| {
            if let Incoming::Family(found) = told {
                family = Some(found);
            }
        });
        match (asked, family) {
            (Ok(()), Some(family)) => {
                kernel.family = family;
                Ok(kernel)
            }
            (Err(KernelError::Io(error)), _) => Err(error.into()),
            // ENOENT: nobody has registered the family.
            _ => Err(KernelError::NoModule),
        }
    }

    /// What the kernel tells by itself from now on.
    pub(super) fn news(&self) -> Result<News, KernelError> {
        let socket = NetlinkSocket::open()?;
        let group = self.family.group.ok_or(KernelError::NoModule)?;
        socket.join(group)?;
        Ok(News {
            socket,
            family: self.family.id,
        })
    }

    pub(super) fn connect(&mut self, asked: &Connect<'_>) -> Result<(), KernelError> {
        let family = self.family.id;
        self.ask(|sequence| wire::connect(family, sequence, asked), |_| {})
    }

    pub(super) fn reconfigure(&mut self, asked: &Reconfigure<'_>) -> Result<(), KernelError> {
        let family = self.family.id;
        self.ask(
            |sequence| wire::reconfigure(family, sequence, asked),
            |_| {},
        )
    }

    pub(super) fn disconnect(&mut self, device: Device) -> Result<(), KernelError> {
        let family = self.family.id;
        self.ask(
            |sequence| wire::disconnect(family, sequence, device.0),
            |_| {},
        )
    }

    pub(super) fn is_attached(&mut self, device: Device) -> Result<bool, KernelError> {
        let family = self.family.id;
        let mut attached = false;
        self.ask(
            |sequence| wire::status(family, sequence, device.0),
            |told| {
                if let Incoming::Status { index, connected } = told
                    && index == device.0
                {
                    attached = connected;
                }
            },
        )?;
        Ok(attached)
    }

    /// Asks, and hands over what is told until the kernel says that it is done.
    fn ask(
        &mut self,
        request: impl FnOnce(u32) -> Vec<u8>,
        mut tell: impl FnMut(Incoming),
    ) -> Result<(), KernelError> {
        self.sequence = self.sequence.wrapping_add(1);
        self.socket.send(&request(self.sequence))?;
        loop {
            let length = self.socket.receive(&mut self.buffer)?;
            let bytes = self.buffer.get(..length).unwrap_or_default();
            for told in incoming(Some(self.family.id), bytes) {
                match told {
                    // An answer to an earlier question that was not waited for.
                    Incoming::Done { sequence, .. } if sequence != self.sequence => {}
                    Incoming::Done { error: 0, .. } => return Ok(()),
                    Incoming::Done { error, .. } => return Err(KernelError::of(error)),
                    told => tell(told),
                }
            }
        }
    }
}

/// What the kernel tells by itself.
#[derive(Debug)]
pub(super) struct News {
    socket: NetlinkSocket,
    family: u16,
}

impl News {
    /// How many connections of `device` have died since this was asked last; `None` where some of
    /// the news was lost.
    pub(super) fn deaths(&self, device: Device) -> io::Result<Option<usize>> {
        let mut buffer = [0; 1024];
        let mut deaths = 0;
        loop {
            let length = match self.socket.receive(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Some(deaths)),
                Err(error) if error.raw_os_error() == Some(LOST) => return Ok(None),
                Err(error) => return Err(error),
            };
            let bytes = buffer.get(..length).unwrap_or_default();
            let dead = Incoming::LinkDead { index: device.0 };
            deaths += incoming(Some(self.family), bytes)
                .filter(|told| *told == dead)
                .count();
        }
    }
}

impl AsFd for News {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The device as /sys shows it, which is never on a disk.
///
/// It is kept open: the root changes when an initramfs has done its work, and from then on no path
/// leads to /sys for a process of before.
#[derive(Debug, Default)]
pub(super) struct Facts(Option<OwnedFd>);

impl Facts {
    pub(super) fn of(device: Device) -> Self {
        let path = format!("/sys/block/{device}");
        Self(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok())
    }

    fn folder(&self) -> io::Result<BorrowedFd<'_>> {
        let folder = self.0.as_ref().map(AsFd::as_fd);
        folder.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn open(&self, name: &str, how: OFlags) -> io::Result<File> {
        let how = how | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.folder()?, name, how, Mode::empty())?;
        Ok(File::from(file))
    }

    /// Whether the device is attached, as far as /sys tells; `true` where there is no /sys.
    pub(super) fn seem_attached(&self) -> bool {
        self.0.is_none() || self.open("pid", OFlags::RDONLY).is_ok()
    }

    /// Bytes of the device as it is.
    pub(super) fn size(&self) -> Option<u64> {
        let text = io::read_to_string(self.open("size", OFlags::RDONLY).ok()?).ok()?;
        let sectors: u64 = text.trim().parse().ok()?;
        sectors.checked_mul(512)
    }

    /// Looks at requests of the device after this time; see `resident` for what that does.
    pub(super) fn set_request_time(&self, milliseconds: u128) -> io::Result<()> {
        let mut file = self.open("queue/io_timeout", OFlags::WRONLY)?;
        file.write_all(milliseconds.to_string().as_bytes())
    }
}
