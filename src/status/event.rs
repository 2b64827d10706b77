//! What is seen of a machine.

use std::net::IpAddr;

use crate::mac::MacAddress;

/// By what a machine is known in the moment that something is seen of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sign {
    /// Its network card.
    pub mac: Option<MacAddress>,
    /// Its address.
    pub address: Option<IpAddr>,
    /// Its name in the config, or what its overlay is called.
    pub name: Option<String>,
}

impl Sign {
    /// A machine of which only its address is known.
    #[must_use]
    pub const fn of_address(address: IpAddr) -> Self {
        Self {
            mac: None,
            address: Some(address),
            name: None,
        }
    }
}

/// What of a machine speaks DHCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// Its firmware.
    Firmware,
    /// iPXE, which may be its firmware or have been loaded by it.
    Ipxe,
    /// Its initramfs or its system.
    System,
}

/// Who asks for an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asker {
    /// What of the machine.
    pub speaker: Speaker,
    /// What it can run, as the config has it.
    pub architecture: Option<&'static str>,
    /// What it calls itself.
    pub hostname: Option<String>,
    /// Its vendor class.
    pub vendor: Option<String>,
}

/// How far a file has got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileStep {
    /// It was asked for, and is so large.
    Begun(u64),
    /// All of it has been sent.
    Sent(u64),
    /// The client only wanted to know how large it is, or ended it itself: EDK2 asks twice for each
    /// file, and means the second time.
    Probed,
    /// There is no such file.
    Missing,
    /// It went no further than so many bytes.
    Failed {
        /// Bytes that have arrived.
        sent: u64,
        /// What went wrong.
        why: String,
    },
}

/// Something that was seen of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It asked for an address, or what to boot.
    Asked(Asker),
    /// It was offered an address, or told what to boot.
    Offered,
    /// It has its address.
    Acknowledged,
    /// Its question got no answer.
    Ignored(String),
    /// A file on its way.
    File {
        /// Its path.
        path: String,
        /// How far it is.
        step: FileStep,
    },
    /// It has asked for this export, which is being opened.
    Opens(String),
    /// It may not have an export, or did not get to choose one.
    Refused(String),
    /// It has chosen an export.
    Connected {
        /// Which.
        export: String,
        /// It can't write to it.
        is_read_only: bool,
        /// The file that it asks for when its root is mounted; `None` means that its first write
        /// tells.
        sign: Option<String>,
    },
    /// A connection goes on that had stopped, in another process of the server maybe.
    Continued {
        /// Its export.
        export: String,
        /// It can't write to it.
        is_read_only: bool,
    },
    /// A connection has stopped, to go on later.
    Suspended,
    /// Its first read came.
    Reads,
    /// Its first read was answered.
    HasRead,
    /// Its first write was made.
    HasWritten,
    /// A connection has ended.
    Disconnected {
        /// By its own wish.
        is_clean: bool,
    },
}
