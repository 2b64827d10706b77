//! The client's side of a handshake: greeting, GO, transmission. Pure.
//!
//! Structured replies are not asked for: the kernel reads simple ones only.
//!
//! Invariants: no byte behind the end of the handshake is taken; a length of the server is compared
//! with its limit before it sizes anything.

use thiserror::Error;

use super::export::Export;
use crate::limits::{NBD_OPTION_MAX, NBD_OPTIONS_PER_HANDSHAKE};
use crate::nbd::wire::{
    BlockSizes, ClientFlags, InfoQuery, InfoType, OPTION_HEADER, OPTION_REPLY_HEADER, OptionCode,
    OptionHeader, OptionReplyHeader, ReplyType, ServerGreeting, TransmissionFlags, text,
};

/// Why there is no export at the end.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HandshakeError {
    /// What answers speaks something else.
    #[error("what answers is no NBD server")]
    NoServer,
    /// It speaks the protocol of before 2012.
    #[error("the server knows no options (it speaks oldstyle NBD): it is too old")]
    TooOld,
    /// It does not know GO.
    #[error("the server does not know the option GO: it is too old")]
    NoGo,
    /// The export is there over TLS only.
    #[error(
        "the server gives the export over TLS only, which the kernel does not speak: let it give \
         the export to this machine's address without"
    )]
    Tls,
    /// The server does not want to.
    #[error("the server refuses the export: {0}")]
    Refused(String),
    /// What it sends makes no sense.
    #[error("the server broke the protocol: {0}")]
    Broken(&'static str),
}

#[derive(Debug)]
enum State {
    Greeting,
    Reply,
    Data(OptionReplyHeader),
    Over,
}

/// A handshake for one export.
#[derive(Debug)]
pub struct Handshake {
    name: String,
    state: State,
    transmit: Option<Vec<u8>>,
    replies_left: u32,
    /// Size and flags, when they were told.
    essentials: Option<(u64, TransmissionFlags)>,
    own_name: Option<String>,
    description: Option<String>,
    block_sizes: Option<BlockSizes>,
}

impl Handshake {
    /// A handshake for the export of this name, with nothing received yet.
    #[must_use]
    pub const fn new(name: String) -> Self {
        Self {
            name,
            state: State::Greeting,
            transmit: None,
            replies_left: NBD_OPTIONS_PER_HANDSHAKE,
            essentials: None,
            own_name: None,
            description: None,
            block_sizes: None,
        }
    }

    /// How many bytes are to be received before [`handle_bytes`](Self::handle_bytes) is called
    /// again; 0 at the end.
    #[must_use]
    pub fn wanted(&self) -> usize {
        match &self.state {
            State::Greeting => ServerGreeting::BYTES,
            State::Reply => OPTION_REPLY_HEADER,
            // It was compared with its limit when it came.
            State::Data(header) => usize::try_from(header.length).unwrap_or(0),
            State::Over => 0,
        }
    }

    /// What is to be sent now, if anything.
    pub const fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.transmit.take()
    }

    /// Takes as many bytes as were [wanted](Self::wanted); the export, once it is there.
    ///
    /// # Errors
    /// Why there will be none.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Result<Option<Export>, HandshakeError> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Greeting => self.greeted(bytes).map(|()| None),
            State::Reply => self.replied(bytes),
            State::Data(header) => self.told(header, bytes),
            State::Over => Ok(None),
        }
    }

    fn greeted(&mut self, bytes: &[u8]) -> Result<(), HandshakeError> {
        let whole = bytes.try_into().map_err(|_| HandshakeError::NoServer)?;
        let greeting = ServerGreeting::from_bytes(whole).ok_or(HandshakeError::NoServer)?;
        if !greeting.fixed_newstyle {
            return Err(HandshakeError::TooOld);
        }
        // "the client MUST NOT set any other flags" than those that the server has set.
        let flags = ClientFlags {
            fixed_newstyle: true,
            no_zeroes: greeting.no_zeroes,
        };
        let query = InfoQuery {
            name: self.name.clone(),
            infos: vec![InfoType::NAME, InfoType::DESCRIPTION, InfoType::BLOCK_SIZE],
        };
        let data = query.to_bytes();
        let header = OptionHeader {
            code: OptionCode::GO,
            length: u32::try_from(data.len()).unwrap_or(u32::MAX),
        };
        let header: [u8; OPTION_HEADER] = header.to_bytes();
        self.transmit = Some([&flags.to_bytes()[..], &header, &data].concat());
        self.state = State::Reply;
        Ok(())
    }

    fn replied(&mut self, bytes: &[u8]) -> Result<Option<Export>, HandshakeError> {
        let broken = || HandshakeError::Broken("a reply does not begin as replies do");
        let whole = bytes.try_into().map_err(|_| broken())?;
        let header = OptionReplyHeader::from_bytes(whole).ok_or_else(broken)?;
        if header.option != OptionCode::GO {
            let what = "a reply to an option that was not sent";
            return Err(HandshakeError::Broken(what));
        }
        let length = usize::try_from(header.length).unwrap_or(usize::MAX);
        if length > NBD_OPTION_MAX {
            return Err(HandshakeError::Broken("a reply is too long"));
        }
        self.replies_left = self
            .replies_left
            .checked_sub(1)
            .ok_or(HandshakeError::Broken("there is no end to its replies"))?;
        if length == 0 {
            return self.told(header, &[]);
        }
        self.state = State::Data(header);
        Ok(None)
    }

    fn told(
        &mut self,
        header: OptionReplyHeader,
        data: &[u8],
    ) -> Result<Option<Export>, HandshakeError> {
        match header.kind {
            ReplyType::ACK => return self.agreed().map(Some),
            ReplyType::INFO => self.informed(data)?,
            ReplyType::ERR_UNSUP => return Err(HandshakeError::NoGo),
            ReplyType::ERR_TLS_REQD => return Err(HandshakeError::Tls),
            kind if kind.is_error() => return Err(refused(kind, data)),
            // "The client MUST ignore" what it does not know.
            _ => {}
        }
        self.state = State::Reply;
        Ok(None)
    }

    fn informed(&mut self, data: &[u8]) -> Result<(), HandshakeError> {
        let short = || HandshakeError::Broken("a fact about the export is cut short");
        let (kind, fact) = data.split_first_chunk().ok_or_else(short)?;
        match InfoType::from_wire(u16::from_be_bytes(*kind)) {
            InfoType::EXPORT => self.essentials = Some(essentials(fact).ok_or_else(short)?),
            InfoType::BLOCK_SIZE => self.block_sizes = Some(block_sizes(fact).ok_or_else(short)?),
            InfoType::NAME => self.own_name = Some(string(fact)?),
            InfoType::DESCRIPTION => self.description = Some(string(fact)?),
            _ => {}
        }
        Ok(())
    }

    /// "the server MUST send at least one NBD_REP_INFO, with an NBD_INFO_EXPORT information type".
    fn agreed(&mut self) -> Result<Export, HandshakeError> {
        let missing = HandshakeError::Broken("it does not tell the size of the export");
        let (size, flags) = self.essentials.ok_or(missing)?;
        Ok(Export {
            size,
            flags,
            name: self.own_name.take(),
            description: self.description.take(),
            block_sizes: self.block_sizes,
        })
    }
}

fn refused(kind: ReplyType, data: &[u8]) -> HandshakeError {
    let message = String::from_utf8_lossy(data);
    // It goes to a terminal and to the kernel's log: one line of it, without escapes.
    let message: String = message
        .chars()
        .take_while(|char| *char != '\n')
        .filter(|char| !char.is_control())
        .take(200)
        .collect();
    HandshakeError::Refused(if message.is_empty() {
        format!("{kind:?}")
    } else {
        message
    })
}

fn string(fact: &[u8]) -> Result<String, HandshakeError> {
    let broken = |_| HandshakeError::Broken("a name or description is no text");
    text(fact).map(ToOwned::to_owned).map_err(broken)
}

fn essentials(fact: &[u8]) -> Option<(u64, TransmissionFlags)> {
    let (size, flags) = fact.split_first_chunk()?;
    let flags = u16::from_be_bytes(flags.try_into().ok()?);
    Some((
        u64::from_be_bytes(*size),
        TransmissionFlags::from_wire(flags),
    ))
}

fn block_sizes(fact: &[u8]) -> Option<BlockSizes> {
    let (numbers, rest) = fact.as_chunks::<4>();
    let [minimum, preferred, maximum] = *numbers else {
        return None;
    };
    rest.is_empty().then(|| BlockSizes {
        minimum: u32::from_be_bytes(minimum),
        preferred: u32::from_be_bytes(preferred),
        maximum: u32::from_be_bytes(maximum),
    })
}

#[cfg(test)]
mod tests;
