//! Messages of the kernel.

use super::{
    ATTRIBUTE_HEADER, CONTROL, GENERIC_HEADER, GROUP, MESSAGE_HEADER, NLMSG_ERROR, TYPE_MASK,
    aligned, control, device,
};

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// What was asked under this number is done, or the kernel's error number says why not.
    Done {
        /// The number of the request.
        sequence: u32,
        /// 0 where it went well.
        error: i32,
    },
    /// The numbers of the family of the devices.
    Family(Family),
    /// A device is attached.
    Connected {
        /// Its number.
        index: u32,
    },
    /// A device of which something is known.
    Status {
        /// Its number.
        index: u32,
        /// Whether it is attached.
        connected: bool,
    },
    /// A connection of a device has died.
    LinkDead {
        /// The number of the device.
        index: u32,
    },
    /// Something that means nothing here.
    Other,
}

/// The numbers that the kernel gave the family of the devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// The type of its messages.
    pub id: u16,
    /// The group that hears of dead connections, where there is one.
    pub group: Option<u32>,
}

/// The messages in what was received at once, up to the first that is cut off. `family` is the
/// number of the devices' family, where it is known already.
pub fn incoming(family: Option<u16>, bytes: &[u8]) -> impl Iterator<Item = Incoming> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (message, behind) = cut_message(rest)?;
        rest = behind;
        Some(message.read(family))
    })
}

struct Message<'a> {
    kind: u16,
    sequence: u32,
    body: &'a [u8],
}

fn cut_message(bytes: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let (length, header) = number(bytes)?;
    let length = usize::try_from(length).ok()?;
    let (kind, header) = short_number(header)?;
    let (_flags, header) = short_number(header)?;
    let (sequence, _) = number(header)?;
    let body = bytes.get(MESSAGE_HEADER..length)?;
    // The last one need not be padded.
    let behind = bytes.get(aligned(length)..).unwrap_or_default();
    let message = Message {
        kind,
        sequence,
        body,
    };
    Some((message, behind))
}

impl Message<'_> {
    fn read(&self, family: Option<u16>) -> Incoming {
        let known = match self.kind {
            NLMSG_ERROR => self.done(),
            CONTROL => self.generic(|command, attributes| match command {
                control::NEW_FAMILY => new_family(attributes),
                _ => None,
            }),
            kind if Some(kind) == family => self.generic(of_device),
            _ => None,
        };
        known.unwrap_or(Incoming::Other)
    }

    /// "struct nlmsgerr { int error; /* Negative errno or 0 for acknowledgments */ ..."
    fn done(&self) -> Option<Incoming> {
        let (raw, _) = self.body.split_first_chunk::<4>()?;
        Some(Incoming::Done {
            sequence: self.sequence,
            error: i32::from_ne_bytes(*raw).saturating_neg(),
        })
    }

    fn generic(&self, of: impl FnOnce(u8, &[u8]) -> Option<Incoming>) -> Option<Incoming> {
        let (header, attributes) = self.body.split_first_chunk::<GENERIC_HEADER>()?;
        let [command, ..] = *header;
        of(command, attributes)
    }
}

fn new_family(attributes: &[u8]) -> Option<Incoming> {
    let (id, _) = short_number(find(attributes, control::FAMILY_ID)?)?;
    let groups = find(attributes, control::GROUPS).unwrap_or_default();
    let ours = each(groups).find(|(_, group)| {
        let name = find(group, control::GROUP_NAME).unwrap_or_default();
        name.strip_suffix(&[0]) == Some(GROUP.as_bytes())
    });
    let group = ours.and_then(|(_, group)| Some(number(find(group, control::GROUP_ID)?)?.0));
    Some(Incoming::Family(Family { id, group }))
}

fn of_device(command: u8, attributes: &[u8]) -> Option<Incoming> {
    let index = || Some(number(find(attributes, device::INDEX)?)?.0);
    match command {
        device::CONNECT => Some(Incoming::Connected { index: index()? }),
        device::LINK_DEAD => Some(Incoming::LinkDead { index: index()? }),
        device::STATUS => {
            // One device was asked for, so there is one at most.
            let list = find(attributes, device::DEVICE_LIST)?;
            let item = find(list, device::LIST_ITEM)?;
            let connected = find(item, device::LIST_CONNECTED)?;
            Some(Incoming::Status {
                index: number(find(item, device::LIST_INDEX)?)?.0,
                connected: connected.first() != Some(&0),
            })
        }
        _ => None,
    }
}

/// The attributes with their types, up to the first that is cut off.
fn each(attributes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = attributes;
    std::iter::from_fn(move || {
        let (length, header) = short_number(rest)?;
        let (kind, _) = short_number(header)?;
        let length = usize::from(length);
        let value = rest.get(ATTRIBUTE_HEADER..length)?;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some((kind & TYPE_MASK, value))
    })
}

fn find(attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut found = each(attributes).filter(|(kind, _)| *kind == wanted);
    found.next().map(|(_, value)| value)
}

fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (raw, rest) = bytes.split_first_chunk()?;
    Some((u32::from_ne_bytes(*raw), rest))
}

fn short_number(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (raw, rest) = bytes.split_first_chunk()?;
    Some((u16::from_ne_bytes(*raw), rest))
}
