//! What client and server have agreed on beyond the plain protocol: headers and contexts.

use super::wire::CommandFlags;

/// How the messages of the transmission phase are framed; each form can do what the one before can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Headers {
    /// Simple replies only.
    #[default]
    Simple,
    /// Replies in chunks, after STRUCTURED_REPLY.
    Structured,
    /// Lengths of 64 bits both ways, after EXTENDED_HEADERS, which implies chunks: "this option
    /// takes precedence over structured replies".
    Extended,
}

impl Headers {
    /// Whether replies come in chunks, and so may carry more than the data of a read.
    #[must_use]
    pub const fn have_chunks(self) -> bool {
        matches!(self, Self::Structured | Self::Extended)
    }
}

/// A kind of description of blocks that a client may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Context {
    /// Holes and zeros, as the protocol document defines them.
    Allocation,
    /// Which blocks are the client's own.
    Overlay,
}

impl Context {
    /// All there are, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Allocation, Self::Overlay];

    /// Its name: a namespace, a colon, a leaf.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allocation => "base:allocation",
            // "`x-*`, where `*` can be replaced by an arbitrary string not containing colons, for
            // local experiments": there is no registered namespace for us.
            Self::Overlay => "x-cowherd:overlay",
        }
    }

    /// Its number on the wire, "each with a unique metadata context ID".
    #[must_use]
    pub const fn id(self) -> u32 {
        match self {
            Self::Allocation => 1,
            Self::Overlay => 2,
        }
    }

    const fn bit(self) -> u8 {
        1 << self.id()
    }
}

/// A set of contexts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Contexts(u8);

impl Contexts {
    /// No context.
    pub const NONE: Self = Self(0);

    /// All there are.
    #[must_use]
    pub fn all() -> Self {
        Context::ALL.into_iter().collect()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `context` is one of them.
    #[must_use]
    pub const fn contains(self, context: Context) -> bool {
        self.0 & context.bit() != 0
    }

    /// Those of the set, in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = Context> {
        let is_in = move |context: &Context| self.contains(*context);
        Context::ALL.into_iter().filter(is_in)
    }

    /// The one of the set with the number `id`.
    #[must_use]
    pub fn with_id(self, id: u32) -> Option<Context> {
        self.iter().find(|context| context.id() == id)
    }
}

impl FromIterator<Context> for Contexts {
    fn from_iter<I: IntoIterator<Item = Context>>(contexts: I) -> Self {
        let bits = contexts.into_iter().map(Context::bit);
        Self(bits.fold(0, |all, bit| all | bit))
    }
}

/// What the transmission phase goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreed {
    /// How messages are framed.
    pub headers: Headers,
    /// Which contexts BLOCK_STATUS tells of; none unless replies come in chunks.
    pub contexts: Contexts,
}

impl Agreed {
    /// Whether BLOCK_STATUS may carry the contexts that are wanted: "Servers MUST NOT set this bit
    /// unless the client negotiates extended headers", and it makes sense only where there are
    /// contexts to choose from.
    #[must_use]
    pub fn has_status_payload(self) -> bool {
        self.headers == Headers::Extended && !self.contexts.is_empty()
    }

    /// The flag that says in an extended header that a payload follows: "only valid if extended
    /// headers were negotiated".
    #[must_use]
    pub const fn payload_flag(self) -> CommandFlags {
        match self.headers {
            Headers::Extended => CommandFlags::PAYLOAD_LEN,
            Headers::Simple | Headers::Structured => CommandFlags::NONE,
        }
    }
}
