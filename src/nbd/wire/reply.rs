//! What the server says in answer to an option.

use super::{InfoType, OptionCode, OptionReplyHeader, ReplyType, TransmissionFlags, clipped};

/// Zeros after the answer to EXPORT_NAME, unless the client asked to be spared.
const EXPORT_NAME_PADDING: usize = 124;

/// The sizes of requests that work, that work best, and that are the largest, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSizes {
    /// Smallest length and alignment.
    pub minimum: u32,
    /// Length and alignment from which on requests are efficient.
    pub preferred: u32,
    /// Largest payload.
    pub maximum: u32,
}

/// One reply to an option. Strings longer than the protocol allows are cut when sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionReply<'a> {
    /// Done.
    Ack,
    /// One export of a list.
    Server {
        /// Its name.
        name: &'a str,
        /// Words about it, maybe none.
        description: &'a str,
    },
    /// Size and flags of an export.
    Export {
        /// Its bytes.
        size: u64,
        /// What it offers.
        flags: TransmissionFlags,
    },
    /// Name of an export.
    Name(&'a str),
    /// Words about an export.
    Description(&'a str),
    /// Block sizes of an export.
    BlockSizes(BlockSizes),
    /// One metadata context.
    Context {
        /// Its number; 0 in a list.
        id: u32,
        /// Its name.
        name: &'a str,
    },
    /// The option failed.
    Error {
        /// Why.
        kind: ReplyType,
        /// Why, for a human: "All error replies MAY have some data set, in which case that data is
        /// an error message string suitable for display to the user."
        message: &'a str,
    },
}

impl OptionReply<'_> {
    /// Appends the reply to what is to be sent, as an answer to `option`.
    pub fn append_to(self, option: OptionCode, out: &mut Vec<u8>) {
        let data = self.data();
        let header = OptionReplyHeader {
            option,
            kind: self.kind(),
            // Two strings of 4096 bytes are the longest there is, so this always fits.
            length: u32::try_from(data.len()).unwrap_or(u32::MAX),
        };
        out.extend_from_slice(&header.to_bytes());
        out.extend_from_slice(&data);
    }

    const fn kind(&self) -> ReplyType {
        match self {
            Self::Ack => ReplyType::ACK,
            Self::Server { .. } => ReplyType::SERVER,
            Self::Export { .. } | Self::Name(_) | Self::Description(_) | Self::BlockSizes(_) => {
                ReplyType::INFO
            }
            Self::Context { .. } => ReplyType::META_CONTEXT,
            Self::Error { kind, .. } => *kind,
        }
    }

    fn data(self) -> Vec<u8> {
        match self {
            Self::Ack => Vec::new(),
            Self::Server { name, description } => server_data(clipped(name), clipped(description)),
            Self::Export { size, flags } => {
                info_data(InfoType::EXPORT, &[&size.to_be_bytes(), &flag_bytes(flags)])
            }
            Self::Name(name) => info_data(InfoType::NAME, &[clipped(name).as_bytes()]),
            Self::Description(text) => {
                info_data(InfoType::DESCRIPTION, &[clipped(text).as_bytes()])
            }
            Self::BlockSizes(sizes) => {
                let numbers = [sizes.minimum, sizes.preferred, sizes.maximum].map(u32::to_be_bytes);
                info_data(InfoType::BLOCK_SIZE, &[numbers.as_flattened()])
            }
            Self::Context { id, name } => {
                [&id.to_be_bytes()[..], clipped(name).as_bytes()].concat()
            }
            Self::Error { message, .. } => clipped(message).as_bytes().to_vec(),
        }
    }
}

fn server_data(name: &str, description: &str) -> Vec<u8> {
    // A clipped name has 4096 bytes at most.
    let name_length = u32::try_from(name.len()).unwrap_or(u32::MAX);
    [
        &name_length.to_be_bytes(),
        name.as_bytes(),
        description.as_bytes(),
    ]
    .concat()
}

fn info_data(kind: InfoType, parts: &[&[u8]]) -> Vec<u8> {
    let mut data = kind.to_wire().to_be_bytes().to_vec();
    data.extend(parts.iter().copied().flatten());
    data
}

fn flag_bytes(flags: TransmissionFlags) -> [u8; 2] {
    flags.to_wire().to_be_bytes()
}

/// The answer to EXPORT_NAME, which has no header.
#[must_use]
pub fn export_name_answer(size: u64, flags: TransmissionFlags, no_zeroes: bool) -> Vec<u8> {
    let mut answer = [&size.to_be_bytes()[..], &flag_bytes(flags)].concat();
    // "124 bytes, zeroes (reserved) (unless NBD_FLAG_C_NO_ZEROES was negotiated by the client)"
    if !no_zeroes {
        answer.extend_from_slice(&[0; EXPORT_NAME_PADDING]);
    }
    answer
}
