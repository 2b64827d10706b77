//! Messages to the kernel.

use super::{
    CONTROL, FAMILY, MESSAGE_HEADER, NESTED, NLM_F_ACK, NLM_F_REQUEST, aligned, control, device,
};

/// A device that is to come to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The number of the device.
    pub index: u32,
    /// Bytes of the disk.
    pub size: u64,
    /// Bytes of a sector.
    pub block_size: u64,
    /// The transmission flags, as the server sent them.
    pub flags: u64,
    /// Seconds that requests wait for a connection when all are dead.
    pub patience: u64,
    /// What tells this disk from others; the kernel compares it at [`Reconfigure`].
    pub identifier: &'a str,
    /// Descriptors of connections that are past their handshake.
    pub sockets: &'a [i32],
}

/// A change of a device that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconfigure<'a> {
    /// The number of the device.
    pub index: u32,
    /// What was said when it came to be.
    pub identifier: &'a str,
    /// Seconds after which a request counts as lost; 0 for never.
    pub timeout: u64,
    /// Descriptors for connections that have died; those that none has died for are left.
    pub sockets: &'a [i32],
}

/// Asks which number the family of the devices has.
#[must_use]
pub fn get_family(sequence: u32) -> Vec<u8> {
    let mut message = Message::new(CONTROL, sequence, control::GET_FAMILY, control::VERSION);
    message.text(control::FAMILY_NAME, FAMILY);
    message.finish()
}

/// Attaches a device.
#[must_use]
pub fn connect(family: u16, sequence: u32, asked: &Connect<'_>) -> Vec<u8> {
    let mut message = Message::new(family, sequence, device::CONNECT, device::VERSION);
    message.number(device::INDEX, asked.index);
    message.long_number(device::SIZE_BYTES, asked.size);
    message.long_number(device::BLOCK_SIZE_BYTES, asked.block_size);
    message.long_number(device::SERVER_FLAGS, asked.flags);
    message.sockets(asked.sockets);
    message.long_number(device::DEAD_CONN_TIMEOUT, asked.patience);
    message.text(device::BACKEND_IDENTIFIER, asked.identifier);
    message.finish()
}

/// Changes a device.
#[must_use]
pub fn reconfigure(family: u16, sequence: u32, asked: &Reconfigure<'_>) -> Vec<u8> {
    let mut message = Message::new(family, sequence, device::RECONFIGURE, device::VERSION);
    message.number(device::INDEX, asked.index);
    message.text(device::BACKEND_IDENTIFIER, asked.identifier);
    message.long_number(device::TIMEOUT, asked.timeout);
    if !asked.sockets.is_empty() {
        message.sockets(asked.sockets);
    }
    message.finish()
}

/// Detaches a device.
#[must_use]
pub fn disconnect(family: u16, sequence: u32, index: u32) -> Vec<u8> {
    let mut message = Message::new(family, sequence, device::DISCONNECT, device::VERSION);
    message.number(device::INDEX, index);
    message.finish()
}

/// Asks whether a device is attached.
#[must_use]
pub fn status(family: u16, sequence: u32, index: u32) -> Vec<u8> {
    let mut message = Message::new(family, sequence, device::STATUS, device::VERSION);
    message.number(device::INDEX, index);
    message.finish()
}

/// A message that grows.
struct Message(Vec<u8>);

impl Message {
    fn new(family: u16, sequence: u32, command: u8, version: u8) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend_from_slice(&family.to_ne_bytes());
        bytes.extend_from_slice(&(NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
        bytes.extend_from_slice(&sequence.to_ne_bytes());
        // The port of the sender; the kernel has its own idea of that.
        bytes.extend_from_slice(&0_u32.to_ne_bytes());
        debug_assert_eq!(bytes.len(), MESSAGE_HEADER);
        bytes.extend_from_slice(&[command, version, 0, 0]);
        Self(bytes)
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let start = self.open(kind);
        self.0.extend_from_slice(value);
        self.close(start);
    }

    /// Begins an attribute: where it begins.
    fn open(&mut self, kind: u16) -> usize {
        let start = self.0.len();
        self.0.extend_from_slice(&[0, 0]);
        self.0.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize) {
        // An attribute longer than this does not exist here: the longest is a name of an export.
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        if let Some(field) = self.0.get_mut(start..start + 2) {
            field.copy_from_slice(&length.to_ne_bytes());
        }
        self.0.resize(aligned(self.0.len()), 0);
    }

    fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    fn long_number(&mut self, kind: u16, value: u64) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    /// "NLA_STRING": up to the first NUL; one is sent.
    fn text(&mut self, kind: u16, value: &str) {
        let text = value.split('\0').next().unwrap_or_default();
        self.attribute(kind, &[text.as_bytes(), &[0]].concat());
    }

    fn sockets(&mut self, sockets: &[i32]) {
        let list = self.open(device::SOCKETS | NESTED);
        for socket in sockets {
            let item = self.open(device::SOCKET_ITEM | NESTED);
            self.attribute(device::SOCKET_FD, &socket.to_ne_bytes());
            self.close(item);
        }
        self.close(list);
    }

    fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        if let Some(field) = self.0.get_mut(..4) {
            field.copy_from_slice(&length.to_ne_bytes());
        }
        self.0
    }
}
