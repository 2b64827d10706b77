//! What a server says of an export, and whether two servers mean the same disk. Pure.

use std::fmt;

use crate::nbd::wire::{BlockSizes, TransmissionFlags};

/// An export, as a server describes it at the end of a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Bytes of the disk.
    pub size: u64,
    /// What can be done with it.
    pub flags: TransmissionFlags,
    /// The server's own name for it, which tells its generation, where the server has one.
    pub name: Option<String>,
    /// What the server says of the disk beside its name.
    pub description: Option<String>,
    /// Sizes of requests that work.
    pub block_sizes: Option<BlockSizes>,
}

/// Why an export is not the one that the device was attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    what: &'static str,
    was: String,
    is: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, was, is } = self;
        write!(f, "its {what} was {was} and is {is} now")
    }
}

impl Export {
    /// Whether requests that were meant for this disk may be sent to `now`.
    ///
    /// # Errors
    /// What is different.
    pub fn continued_by(&self, now: &Self) -> Result<(), Difference> {
        let differ = |what, was: String, is: String| {
            if was == is {
                Ok(())
            } else {
                Err(Difference { what, was, is })
            }
        };
        differ("size", self.size.to_string(), now.size.to_string())?;
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
        differ("name", text(&self.name), text(&now.name))?;
        differ("identity", text(&self.description), text(&now.description))?;
        // The kernel keeps the flags that the device was attached with.
        let flags = |flags| format!("{:?}", kernels(flags));
        differ("set of flags", flags(self.flags), flags(now.flags))
    }

    /// Whether the kernel may use several connections at a time.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        self.flags.contains(TransmissionFlags::CAN_MULTI_CONN)
    }

    /// Whether nothing may be written.
    #[must_use]
    pub const fn is_read_only(&self) -> bool {
        self.flags.contains(TransmissionFlags::READ_ONLY)
    }
}

/// Those flags that decide what the kernel sends.
fn kernels(flags: TransmissionFlags) -> TransmissionFlags {
    let all = [
        TransmissionFlags::READ_ONLY,
        TransmissionFlags::SEND_FLUSH,
        TransmissionFlags::SEND_FUA,
        TransmissionFlags::SEND_TRIM,
        TransmissionFlags::SEND_WRITE_ZEROES,
        TransmissionFlags::CAN_MULTI_CONN,
    ];
    let set = all.into_iter().filter(|flag| flags.contains(*flag));
    set.fold(TransmissionFlags::NONE, TransmissionFlags::with)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export() -> Export {
        Export {
            size: 1 << 30,
            flags: TransmissionFlags::HAS_FLAGS.with(TransmissionFlags::SEND_FLUSH),
            name: Some("disk+1@a".to_owned()),
            description: Some("overlay 1f".to_owned()),
            block_sizes: None,
        }
    }

    fn complaint(now: &Export) -> String {
        export().continued_by(now).unwrap_err().to_string()
    }

    #[test]
    fn the_same_export_goes_on() {
        assert_eq!(export().continued_by(&export()), Ok(()));
    }

    #[test]
    fn another_size_is_another_disk() {
        let size = 1 << 29;
        let now = Export { size, ..export() };
        let said = "its size was 1073741824 and is 536870912 now";
        assert_eq!(complaint(&now), said);
    }

    #[test]
    fn another_generation_is_another_disk() {
        let name = Some("disk+2@a".to_owned());
        let now = Export { name, ..export() };
        assert_eq!(complaint(&now), "its name was disk+1@a and is disk+2@a now");
    }

    #[test]
    fn another_overlay_is_another_disk() {
        let description = None;
        let now = Export {
            description,
            ..export()
        };
        let said = "its identity was overlay 1f and is unknown now";
        assert_eq!(complaint(&now), said);
    }

    #[test]
    fn a_disk_that_can_no_longer_be_written_is_not_gone_on_with() {
        let flags = export().flags.with(TransmissionFlags::READ_ONLY);
        let now = Export { flags, ..export() };
        assert!(complaint(&now).starts_with("its set of flags was SEND_FLUSH"));
    }

    #[test]
    fn flags_that_the_kernel_knows_nothing_of_may_change() {
        let flags = export().flags.with(TransmissionFlags::SEND_CACHE);
        let now = Export { flags, ..export() };
        assert_eq!(export().continued_by(&now), Ok(()));
    }
}
