//! What two servers say to each other in a take-over: messages <-> bytes.
//!
//! A message is a head of 12 bytes, a text in JSON, and bytes that have no form in JSON. The head
//! is the word `CWHO`, the length of the text and the length of the bytes, both big endian. The
//! descriptors that belong to a message come with its first byte.
//!
//! Invariants: no length that was received sizes a buffer before it was compared with its limit;
//! what is not understood is an error, since half a take-over is none.

use serde::{Deserialize, Serialize};

use crate::limits::{TAKEOVER_BYTES_MAX, TAKEOVER_TEXT_MAX};
use crate::status::timelines::Saved;

/// The version of all that is below. The two servers refuse each other where they know different
/// ones: a test holds the bytes against it.
pub const FORMAT: u32 = 2;

const MAGIC: [u8; 4] = *b"CWHO";

/// Bytes of a head.
pub const HEAD_BYTES: usize = 12;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "says", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Message {
    /// Of the old one: a socket that it serves on, with its descriptor.
    Door(Door),
    /// Of the old one: an image that sessions use.
    Image(UsedImage),
    /// Of the old one: that was all for now.
    Shown,
    /// Of the new one: it has prepared all it could, and wants the rest.
    Freeze,
    /// Of the old one: a session that has stopped, with its descriptor and what came for it and was
    /// not begun.
    Session(Session),
    /// Of the old one: what is known of some machines and their boots.
    Seen(Saved),
    /// Of the old one: that was all, with the lock of the state directory.
    All {
        /// Machines that have been switched on and not seen to.
        boots: Vec<String>,
    },
    /// Of the new one: it has opened everything and has begun nothing.
    Prepared,
    /// Of the old one: all is yours. Who has taken this off the socket is the server from then on.
    Yours,
    /// Of the new one: it serves.
    Serving,
    /// Of either: it goes no further.
    Refused {
        /// One line for people.
        why: String,
    },
}

/// A socket that the old server serves on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "for", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Door {
    /// NBD.
    Nbd {
        /// Systemd opened it.
        is_inherited: bool,
    },
    /// `cowherd overlay`.
    Control,
    /// TFTP.
    Tftp,
    /// HTTP.
    Http,
    /// One socket of DHCP on an interface.
    Dhcp {
        /// The index of the interface.
        interface: u32,
        /// Beside another server.
        is_proxy: bool,
        /// Which socket.
        role: Role,
    },
    /// The echoes that DHCP asks for.
    Echo,
}

/// Which socket of DHCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The port of servers.
    Server,
    /// The port of boot servers.
    Boot,
    /// Frames to network cards.
    Cards,
    /// Questions by ARP.
    Arp,
    /// Packets by the kernel's routes.
    Routed,
    /// What others are sent.
    Ear,
}

/// An image that sessions use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsedImage {
    /// Its name.
    pub name: String,
    /// Its generation.
    pub generation: u32,
    /// Where it was opened, as text: a path that is none is not found.
    pub path: String,
    /// What it was known by.
    pub identity: String,
}

/// A session that has stopped between two requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// Its image.
    pub image: UsedImage,
    /// Whose overlay, and how it is kept; `None` for the bare image.
    pub overlay: Option<(String, Kept)>,
    /// What was agreed on.
    pub terms: Terms,
    /// The peer, for people.
    pub peer: String,
    /// Whether it waits for those of its overlay before it.
    pub is_successor: bool,
    /// What is known of its overlay; `None` where that was closed.
    pub voucher: Option<Vouched>,
    /// What came for it and was not begun.
    #[serde(skip)]
    pub leftover: Vec<u8>,
}

/// What the old server says of an overlay that it did not close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vouched {
    /// Which overlay.
    pub uuid: [u8; 16],
    /// The live journal.
    pub generation: u64,
    /// Where the next record goes in it.
    pub offset: u64,
    /// The number of the last frame before that.
    pub frame: u64,
    /// The last flush that ended.
    pub epoch: u64,
    /// The checksum of the last frame.
    pub checksum: u32,
    /// What was acknowledged is in the notes.
    pub is_noted: bool,
}

/// How long an overlay is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kept {
    /// Until it is reset.
    Persistent,
    /// For a boot.
    Ephemeral,
}

/// What a handshake ended with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// Bytes of the disk.
    pub size: u64,
    /// It can't be written.
    pub read_only: bool,
    /// Several connections are one.
    pub multi_conn: bool,
    /// How messages are framed.
    pub headers: Headers,
    /// Numbers of the contexts that were agreed on.
    pub contexts: Vec<u32>,
}

/// How messages of NBD are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Headers {
    /// Simple replies.
    Simple,
    /// Replies in chunks.
    Structured,
    /// Lengths of 64 bits.
    Extended,
}

/// Why bytes are no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoMessage {
    /// Something else is there.
    #[error("it does not begin as a message does")]
    Magic,
    /// It is larger than any message.
    #[error("it is larger than any message")]
    TooLarge,
    /// It can't be understood.
    #[error("it can't be understood: {0}")]
    Text(String),
}

/// How long the parts of a message are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the text.
    pub text: usize,
    /// Bytes behind it.
    pub bytes: usize,
}

impl Head {
    /// What a head says.
    ///
    /// # Errors
    /// It is none, or of something that is too large.
    pub fn read(head: [u8; HEAD_BYTES]) -> Result<Self, NoMessage> {
        let [m0, m1, m2, m3, t0, t1, t2, t3, b0, b1, b2, b3] = head;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(NoMessage::Magic);
        }
        let length = |bytes, most| {
            let length = usize::try_from(u32::from_be_bytes(bytes)).unwrap_or(usize::MAX);
            (length <= most)
                .then_some(length)
                .ok_or(NoMessage::TooLarge)
        };
        Ok(Self {
            text: length([t0, t1, t2, t3], TAKEOVER_TEXT_MAX)?,
            bytes: length([b0, b1, b2, b3], TAKEOVER_BYTES_MAX)?,
        })
    }
}

impl Message {
    /// The message as it is sent.
    ///
    /// # Errors
    /// It is too large.
    pub fn write(&self) -> Result<Vec<u8>, NoMessage> {
        let text = serde_json::to_vec(self).map_err(|error| NoMessage::Text(error.to_string()))?;
        let bytes = match self {
            Self::Session(session) => &session.leftover[..],
            _ => &[],
        };
        if text.len() > TAKEOVER_TEXT_MAX || bytes.len() > TAKEOVER_BYTES_MAX {
            return Err(NoMessage::TooLarge);
        }
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
        let parts = [&MAGIC[..], &length(&text), &length(bytes), &text, bytes];
        Ok(parts.concat())
    }

    /// The message of a text and what was behind it.
    ///
    /// # Errors
    /// It can't be understood.
    pub fn read(text: &[u8], bytes: Vec<u8>) -> Result<Self, NoMessage> {
        let message = serde_json::from_slice(text);
        let mut message = message.map_err(|error| NoMessage::Text(error.to_string()))?;
        match &mut message {
            Self::Session(session) => session.leftover = bytes,
            _ if !bytes.is_empty() => return Err(NoMessage::Text("bytes too many".to_owned())),
            _ => {}
        }
        Ok(message)
    }

    /// How many descriptors come with it.
    #[must_use]
    pub const fn descriptors(&self) -> usize {
        match self {
            Self::Door(_) | Self::Session(_) | Self::All { .. } => 1,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(bytes: &[u8]) -> Result<Message, NoMessage> {
        let (head, rest) = bytes.split_first_chunk().ok_or(NoMessage::Magic)?;
        let Head { text, bytes } = Head::read(*head)?;
        let parts = rest.split_at_checked(text).ok_or(NoMessage::TooLarge)?;
        let bytes = parts.1.get(..bytes).ok_or(NoMessage::TooLarge)?;
        Message::read(parts.0, bytes.to_vec())
    }

    fn session(leftover: Vec<u8>) -> Message {
        Message::Session(Session {
            image: UsedImage {
                name: "disk".to_owned(),
                generation: 2,
                path: "/disk.img".to_owned(),
                identity: "x\n".to_owned(),
            },
            overlay: Some(("a".to_owned(), Kept::Ephemeral)),
            terms: Terms {
                size: 1 << 40,
                read_only: false,
                multi_conn: true,
                headers: Headers::Extended,
                contexts: vec![1, 2],
            },
            peer: "10.0.0.1:5".to_owned(),
            is_successor: true,
            voucher: Some(Vouched {
                uuid: [7; 16],
                generation: 3,
                offset: 1024,
                frame: 12,
                epoch: 9,
                checksum: 77,
                is_noted: true,
            }),
            leftover,
        })
    }

    /// Whoever changes these lines changes [`FORMAT`].
    #[test]
    fn the_form_of_messages_has_not_changed() {
        let lines = [
            (
                Message::Door(Door::Dhcp {
                    interface: 3,
                    is_proxy: true,
                    role: Role::Ear,
                }),
                r#"{"says":"door","for":"dhcp","interface":3,"is_proxy":true,"role":"ear"}"#,
            ),
            (
                Message::Door(Door::Nbd { is_inherited: true }),
                r#"{"says":"door","for":"nbd","is_inherited":true}"#,
            ),
            (Message::Freeze, r#"{"says":"freeze"}"#),
            (
                Message::Seen(Saved::default()),
                r#"{"says":"seen","version":0,"machines":[]}"#,
            ),
            (
                Message::All {
                    boots: vec!["a".to_owned()],
                },
                r#"{"says":"all","boots":["a"]}"#,
            ),
            (
                session(b"left".to_vec()),
                concat!(
                    r#"{"says":"session","image":{"name":"disk","generation":2,"#,
                    r#""path":"/disk.img","identity":"x\n"},"overlay":["a","ephemeral"],"#,
                    r#""terms":{"size":1099511627776,"read_only":false,"multi_conn":true,"#,
                    r#""headers":"extended","contexts":[1,2]},"peer":"10.0.0.1:5","#,
                    r#""is_successor":true,"voucher":{"uuid":[7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7],"#,
                    r#""generation":3,"offset":1024,"frame":12,"epoch":9,"checksum":77,"#,
                    r#""is_noted":true}}"#
                ),
            ),
        ];
        assert_eq!(FORMAT, 2);
        for (message, line) in lines {
            let written = message.write().unwrap();
            let text = String::from_utf8_lossy(&written[HEAD_BYTES..]).into_owned();
            assert_eq!(text.strip_suffix("left").unwrap_or(&text), line);
            assert_eq!(parse(&written), Ok(message));
        }
    }

    #[test]
    fn what_is_larger_than_any_message_is_neither_sent_nor_received() {
        assert!(session(vec![0; TAKEOVER_BYTES_MAX]).write().is_ok());
        let large = session(vec![0; TAKEOVER_BYTES_MAX + 1]);
        assert_eq!(large.write(), Err(NoMessage::TooLarge));
        let mut head = *b"CWHO\0\0\0\0\xff\xff\xff\xff";
        assert_eq!(Head::read(head), Err(NoMessage::TooLarge));
        head[4..8].copy_from_slice(&[0xff; 4]);
        assert_eq!(Head::read(head), Err(NoMessage::TooLarge));
        assert_eq!(Head::read([0; 12]), Err(NoMessage::Magic));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in ["", "{}", r#"{"says":"dance"}"#, r#"{"says":"all"}"#, "7"] {
            assert!(
                Message::read(text.as_bytes(), Vec::new()).is_err(),
                "{text}"
            );
        }
        let text = br#"{"says":"yours"}"#;
        assert_eq!(Message::read(text, Vec::new()), Ok(Message::Yours));
        assert!(Message::read(text, vec![1]).is_err());
    }

    proptest! {
        #[test]
        fn a_session_comes_back_as_it_was_sent(
            leftover in proptest::collection::vec(any::<u8>(), 0..300),
            peer in ".*",
            size: u64,
        ) {
            let Message::Session(mut sent) = session(leftover) else { return Ok(()) };
            sent.peer = peer;
            sent.terms.size = size;
            let sent = Message::Session(sent);
            prop_assert_eq!(parse(&sent.write().unwrap()), Ok(sent));
        }

        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
            let _ = Message::read(&bytes, Vec::new());
        }

        #[test]
        fn a_message_that_is_damaged_does_no_harm(at in 0..400usize, with: u8) {
            let mut bytes = session(b"left".to_vec()).write().unwrap();
            let at = at % bytes.len();
            bytes[at] = with;
            let _ = parse(&bytes);
        }
    }
}
