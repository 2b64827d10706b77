//! The boundary to TLS: nothing that a client sends before it has agreed on keys is taken for an
//! option that TLS protects.

use std::sync::OnceLock;

use cowherd::nbd::handshake::{End, Event, Handshake, TlsMode, Violation};
use cowherd::nbd::{Described, Refusal};
use cowherd::tls::{Channel, Credentials, Files, Reading};

use super::Input;

/// Of a server with a certificate of its own, made once.
fn credentials() -> &'static Credentials {
    static MADE: OnceLock<Credentials> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]);
        let made = made.expect("a certificate");
        let certificate = folder.path().join("server.pem");
        let key = folder.path().join("server.key");
        std::fs::write(&certificate, made.cert.pem()).expect("room");
        std::fs::write(&key, made.signing_key.serialize_pem()).expect("room");
        let files = Files {
            certificate,
            key,
            client_ca: None,
        };
        Credentials::read(&files).expect("what was just written")
    })
}

fn find(name: &str) -> Result<Described, Refusal> {
    Err(Refusal::Unknown(name.to_owned()))
}

/// A server's end, driven as `serve` does it.
struct Server {
    handshake: Handshake,
    received: Vec<u8>,
    channel: Option<Channel>,
}

impl Server {
    /// Takes a piece of the stream; false where the connection is over.
    fn receive(&mut self, piece: &[u8]) -> bool {
        if self.channel.is_some() {
            return self.decrypt(piece);
        }
        self.received.extend_from_slice(piece);
        loop {
            let taken = self.handshake.handle_bytes(&self.received);
            self.received.drain(..taken);
            while self.handshake.poll_transmit().is_some() {}
            match self.handshake.poll_event() {
                None => return true,
                Some(Event::List) => self.handshake.handle_listing(&Ok(Vec::new())),
                Some(Event::Describe { name }) => self.handshake.handle_described(find(&name)),
                Some(Event::Open { name }) => self.handshake.handle_opened(find(&name)),
                Some(Event::StartTls) => {
                    assert!(
                        self.received.is_empty(),
                        "bytes that came before TLS are left"
                    );
                    self.channel = Some(credentials().accept().expect("a channel"));
                    return true;
                }
                Some(Event::Closed(end)) => {
                    let behind = End::Violation(Violation::BehindStartTls);
                    assert!(end != behind || !piece.is_empty());
                    return false;
                }
                Some(Event::Finished(..)) => panic!("there is no export"),
            }
        }
    }

    fn decrypt(&mut self, piece: &[u8]) -> bool {
        // No option is taken, however much of one comes.
        assert_eq!(self.handshake.handle_bytes(piece), 0);
        assert_eq!(self.handshake.poll_event(), None);
        assert_eq!(self.handshake.poll_transmit(), None);
        let channel = self.channel.as_mut().expect("TLS was started");
        let outcome = channel.handle_received(piece);
        let mut alert = Vec::new();
        channel.poll_transmit(&mut alert);
        assert!(channel.is_handshaking(), "keys were agreed on by chance");
        let reading = channel.read(&mut [0; 64]);
        assert!(
            !matches!(reading, Reading::Bytes(_)),
            "bytes that nobody encrypted"
        );
        assert!(alert.len() < 64 * 1024);
        outcome.is_ok_and(|taken| taken == piece.len())
    }
}

/// See the module.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input(data);
    let mode = [TlsMode::Selective, TlsMode::Required][usize::from(input.byte() % 2)];
    let mut server = Server {
        handshake: Handshake::new().with_tls(mode),
        received: Vec::new(),
        channel: None,
    };
    // Each piece has its length before it: what comes with STARTTLS and what comes behind differ.
    loop {
        let length = usize::from(input.byte());
        let piece = input.bytes(length);
        if piece.is_empty() || !server.receive(piece) {
            return;
        }
    }
}
