//! Who may open what: the one place that decides it.
//!
//! A question goes through three gates, each of which can say no:
//! 1. the lists of `[nbd]`, or of the command line: who may open anything at all;
//! 2. the lists of `[image.NAME]`, and whether it is for TLS only;
//! 3. the overlay: promise 5, "one client's bytes are reachable only as that client".
//!
//! Invariants: pure, and without a default that opens what a rule closed; every no names its rule.

mod network;
mod spelling;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use crate::name::{Name, NameError};

pub use network::{Network, NetworkError};
pub use spelling::{is_of_a_peer, name_of};

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Over TCP, from this address.
    Ip(IpAddr),
    /// Over a unix socket.
    Local,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => write!(f, "{}", address.to_canonical()),
            Self::Local => f.write_str("a unix socket"),
        }
    }
}

/// Who asks, as far as the connection tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Where it comes from.
    pub peer: Peer,
    /// Whether and how it is encrypted.
    pub tls: Option<Secured>,
}

/// What TLS says of a caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secured {
    /// The name in its certificate, which was found good; `None` where it showed none.
    pub certificate: Option<String>,
}

impl Caller {
    /// A caller without TLS.
    #[must_use]
    pub const fn plain(peer: Peer) -> Self {
        Self { peer, tls: None }
    }

    /// The name in its certificate.
    #[must_use]
    pub fn certificate(&self) -> Option<&str> {
        self.tls.as_ref()?.certificate.as_deref()
    }
}

/// Some callers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Those with an address in this network.
    Network(Network),
    /// Those that come over a unix socket.
    Local,
    /// The one with the address, or the certificate, of this client.
    Client(Name),
}

/// What the entry is written as.
const LOCAL: &str = "unix";

impl FromStr for Entry {
    type Err = EntryError;

    fn from_str(text: &str) -> Result<Self, EntryError> {
        match text.strip_prefix('@') {
            Some(name) => Ok(Self::Client(name.parse().map_err(EntryError::Client)?)),
            None if text == LOCAL => Ok(Self::Local),
            None => Ok(Self::Network(text.parse().map_err(EntryError::Network)?)),
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) => network.fmt(f),
            Self::Local => f.write_str(LOCAL),
            Self::Client(name) => write!(f, "@{name}"),
        }
    }
}

/// Why a text stands for no callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message is its variant's description")]
pub enum EntryError {
    #[error("bad client name after '@': {0}")]
    Client(NameError),
    #[error("{0}; clients of unix sockets are \"unix\", a client is \"@NAME\"")]
    Network(NetworkError),
}

/// Who may and who may not. What is denied is so even if it is allowed, too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// Empty means everybody.
    pub allow: Vec<Entry>,
    /// Exceptions.
    pub deny: Vec<Entry>,
}

impl List {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }

    /// Why not, if so.
    fn refusal(&self, who: Who<'_>, of: &str) -> Option<String> {
        let meant = |entry: &&Entry| who.is_in(entry);
        if let Some(entry) = self.deny.iter().find(meant) {
            return Some(format!("`deny` of {of} has {entry}"));
        }
        let open = self.allow.is_empty() || self.allow.iter().any(|entry| who.is_in(entry));
        (!open).then(|| format!("`allow` of {of} does not have it"))
    }
}

/// What is said of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageRule {
    /// Who may open it.
    pub list: List,
    /// Only over TLS.
    pub tls: bool,
}

/// What is said of a client's overlay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientRule {
    /// Whoever has it is the client.
    pub address: Option<Ipv4Addr>,
    /// Who else may open its overlay.
    pub allow: Vec<Entry>,
    /// Only with its certificate.
    pub certificate: bool,
}

/// All rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Who may open anything.
    pub everywhere: List,
    /// By name of the image.
    pub images: HashMap<Name, ImageRule>,
    /// By name of the client.
    pub clients: HashMap<Name, ClientRule>,
}

/// A no, and the rule that says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// Not for this caller.
    Policy(String),
    /// Not without TLS.
    TlsRequired(String),
}

impl Denial {
    /// The rule, for the log.
    #[must_use]
    pub fn rule(&self) -> &str {
        match self {
            Self::Policy(rule) | Self::TlsRequired(rule) => rule,
        }
    }
}

/// A caller and the client whose address it has.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// What the connection tells.
    pub caller: &'a Caller,
    /// Who is known to have the address of the caller: by config or by lease.
    pub holder: Option<&'a Name>,
}

impl Who<'_> {
    fn is_in(self, entry: &Entry) -> bool {
        match (entry, self.caller.peer) {
            (Entry::Network(network), Peer::Ip(address)) => network.contains(address),
            (Entry::Local, Peer::Local) => true,
            (Entry::Client(name), _) => self.is(name),
            _ => false,
        }
    }

    /// Whether the caller is this client. A certificate says more than an address does.
    fn is(self, name: &Name) -> bool {
        match self.caller.certificate() {
            Some(certified) => certified == name.as_str(),
            None => self.holder == Some(name),
        }
    }
}

impl Rules {
    /// Gate 1: whether `who` may open anything at all.
    ///
    /// # Errors
    /// The rule that says no.
    pub fn may_connect(&self, who: Who<'_>) -> Result<(), Denial> {
        let refusal = self.everywhere.refusal(who, "[nbd]");
        refusal.map_or(Ok(()), |rule| Err(Denial::Policy(rule)))
    }

    /// Gates 1 and 2: whether `who` may know of the image.
    ///
    /// # Errors
    /// The rule that says no.
    pub fn may_see(&self, who: Who<'_>, image: &Name) -> Result<(), Denial> {
        self.may_connect(who)?;
        let Some(rule) = self.images.get(image) else {
            return Ok(());
        };
        let of = format!("[image.{image}]");
        match rule.list.refusal(who, &of) {
            Some(refusal) => Err(Denial::Policy(refusal)),
            None if rule.tls && who.caller.tls.is_none() => {
                Err(Denial::TlsRequired(format!("`tls` of {of}")))
            }
            None => Ok(()),
        }
    }

    /// All gates: whether `who` may open the image as `client`.
    ///
    /// # Errors
    /// The rule that says no.
    pub fn may_open(&self, who: Who<'_>, image: &Name, client: &Name) -> Result<(), Denial> {
        self.may_see(who, image)?;
        let rule = self.clients.get(client);
        if let Some(certified) = who.caller.certificate() {
            // Whoever proves to be somebody is nobody else.
            return match certified == client.as_str() {
                true => Ok(()),
                false => Err(Denial::Policy(format!(
                    "its certificate is that of {certified:?}, not of {client}"
                ))),
            };
        }
        if rule.is_some_and(|rule| rule.certificate) {
            let why = format!("`certificate` of [client.{client}]");
            return Err(match who.caller.tls {
                Some(_) => Denial::Policy(why),
                None => Denial::TlsRequired(why),
            });
        }
        owner_refusal(rule, who, client).map_or(Ok(()), |rule| Err(Denial::Policy(rule)))
    }
}

/// Gate 3 for callers without a certificate: why the overlay is not theirs, if so.
fn owner_refusal(rule: Option<&ClientRule>, who: Who<'_>, client: &Name) -> Option<String> {
    if who.is(client) || name_of(&who.caller.peer) == *client {
        return None;
    }
    if is_of_a_peer(client) {
        return Some(format!("{client} is whoever has that address"));
    }
    let rule = rule?;
    if rule.allow.iter().any(|entry| who.is_in(entry)) {
        return None;
    }
    match (rule.address, rule.allow.is_empty()) {
        (None, true) => None,
        // Who reaches a unix socket of ours was let in by the modes of its directory.
        (Some(_), true) if who.caller.peer == Peer::Local => None,
        (Some(address), true) => Some(format!("[client.{client}] has address {address}")),
        (_, false) => Some(format!("`allow` of [client.{client}] does not have it")),
    }
}
