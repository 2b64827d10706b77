//! A server's end against a client's end of rustls, without a socket between them.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;

/// A folder with the certificates of one authority.
struct Authority {
    folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "herd CA");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        let authority = Self { folder, issuer };
        authority.sign("server", &["server"], &["localhost"]);
        authority
    }

    /// Makes `file.pem` and `file.key` of somebody with these names.
    fn sign(&self, file: &str, common: &[&str], dns: &[&str]) {
        let dns: Vec<_> = dns.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(dns).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for name in common {
            params.distinguished_name.push(DnType::CommonName, *name);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{file}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{file}.key")), key.serialize_pem()).unwrap();
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn files(&self, client_ca: bool) -> Files {
        Files {
            certificate: self.path("server.pem"),
            key: self.path("server.key"),
            client_ca: client_ca.then(|| self.path("ca.pem")),
        }
    }

    fn accept(&self, client_ca: bool) -> Channel {
        let credentials = Credentials::read(&self.files(client_ca)).unwrap();
        credentials.accept().unwrap()
    }

    /// A client that trusts this authority and shows the certificate `file`.
    fn client(&self, file: Option<&str>) -> ClientConnection {
        let mut roots = RootCertStore::empty();
        roots.add(certificate(&self.path("ca.pem"))).unwrap();
        let builder =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let config = match file {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let key = PrivateKeyDer::from_pem_file(self.path(&format!("{file}.key"))).unwrap();
                let chain = vec![certificate(&self.path(&format!("{file}.pem")))];
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let name = ServerName::try_from("localhost").unwrap();
        ClientConnection::new(Arc::new(config), name).unwrap()
    }
}

fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

/// Both ends, and what each has said to the other.
struct Pair {
    server: Channel,
    client: ClientConnection,
    /// What the server has read.
    heard: Vec<u8>,
}

impl Pair {
    fn new(server: Channel, client: ClientConnection) -> Self {
        let heard = Vec::new();
        Self {
            server,
            client,
            heard,
        }
    }

    /// Carries everything over, `piece` bytes at a time, until both are silent.
    fn settle(&mut self, piece: usize) -> Result<(), TlsError> {
        loop {
            let mut to_client = Vec::new();
            self.server.poll_transmit(&mut to_client);
            let mut to_server = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut to_server).unwrap();
            }
            if to_client.is_empty() && to_server.is_empty() {
                return Ok(());
            }
            let mut to_client = &to_client[..];
            while !to_client.is_empty() {
                self.client.read_tls(&mut to_client).unwrap();
                self.client.process_new_packets()?;
            }
            for bytes in to_server.chunks(piece) {
                self.serve(bytes)?;
            }
        }
    }

    /// The server receives `bytes`, and reads what there is whenever it must.
    fn serve(&mut self, mut bytes: &[u8]) -> Result<(), TlsError> {
        while !bytes.is_empty() {
            let taken = self.server.handle_received(bytes)?;
            bytes = &bytes[taken..];
            let mut buffer = [0; 1000];
            while let Reading::Bytes(count) = self.server.read(&mut buffer) {
                self.heard.extend_from_slice(&buffer[..count]);
            }
        }
        Ok(())
    }
}

fn name_of(common: &[&str], dns: &[&str]) -> Result<Option<String>, TlsError> {
    let authority = Authority::new();
    authority.sign("client", common, dns);
    let mut pair = Pair::new(authority.accept(true), authority.client(Some("client")));
    pair.settle(usize::MAX)?;
    assert!(!pair.server.is_handshaking());
    pair.server.certificate_name()
}

#[test]
fn a_client_is_known_by_the_common_name_of_its_certificate() {
    let name = name_of(&["studio-3"], &["other.example.org"]).unwrap();
    assert_eq!(name.as_deref(), Some("studio-3"));
}

#[test]
fn without_a_common_name_the_only_dns_name_counts() {
    let name = name_of(&[], &["studio-3"]).unwrap();
    assert_eq!(name.as_deref(), Some("studio-3"));
}

#[test]
fn a_certificate_with_no_one_name_is_nobodys() {
    for dns in [&[][..], &["a", "b"]] {
        assert!(matches!(name_of(&[], dns), Err(TlsError::Nameless)));
    }
}

#[test]
fn without_an_authority_for_clients_nobody_is_asked_for_a_certificate() {
    let authority = Authority::new();
    authority.sign("client", &["studio-3"], &[]);
    let mut pair = Pair::new(authority.accept(false), authority.client(Some("client")));
    pair.settle(usize::MAX).unwrap();
    assert_eq!(pair.server.certificate_name().unwrap(), None);
}

#[test]
fn a_client_without_a_certificate_is_turned_away_where_one_is_needed() {
    let authority = Authority::new();
    let mut pair = Pair::new(authority.accept(true), authority.client(None));
    assert!(pair.settle(usize::MAX).is_err());
    // The client is told why.
    let mut alert = Vec::new();
    pair.server.poll_transmit(&mut alert);
    assert!(!alert.is_empty());
}

#[test]
fn a_certificate_of_another_authority_is_turned_away() {
    let (authority, other) = (Authority::new(), Authority::new());
    other.sign("client", &["studio-3"], &[]);
    for name in ["client.pem", "client.key"] {
        std::fs::copy(other.path(name), authority.path(name)).unwrap();
    }
    let mut pair = Pair::new(authority.accept(true), authority.client(Some("client")));
    assert!(pair.settle(usize::MAX).is_err());
}

#[test]
fn an_end_without_good_bye_and_one_with_it_are_told_apart_from_silence() {
    let authority = Authority::new();
    let mut pair = Pair::new(authority.accept(false), authority.client(None));
    pair.settle(usize::MAX).unwrap();
    assert_eq!(pair.server.read(&mut [0; 9]), Reading::Nothing);
    pair.client.send_close_notify();
    pair.settle(usize::MAX).unwrap();
    assert_eq!(pair.server.read(&mut [0; 9]), Reading::End);
}

#[test]
fn files_that_do_not_fit_are_named() {
    let authority = Authority::new();
    let message = |files: &Files| Credentials::read(files).unwrap_err().to_string();
    let good = authority.files(true);
    let absent = Files {
        key: authority.path("absent"),
        ..good.clone()
    };
    assert!(message(&absent).contains("absent"));
    authority.sign("other", &["x"], &[]);
    let foreign = Files {
        key: authority.path("other.key"),
        ..good.clone()
    };
    assert!(message(&foreign).contains("server.pem"));
    let empty = Files {
        client_ca: Some(authority.path("server.key")),
        ..good
    };
    assert!(message(&empty).contains("no certificate"));
}

/// A pair whose handshake is over.
fn connected() -> Pair {
    let authority = Authority::new();
    let mut pair = Pair::new(authority.accept(false), authority.client(None));
    pair.settle(usize::MAX).unwrap();
    pair
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_said_is_heard_however_it_is_cut(
        lengths in proptest::collection::vec(1..70_000_usize, 1..6),
        piece in prop_oneof![1..50_usize, 1..40_000_usize],
    ) {
        let mut pair = connected();
        let mut said = Vec::new();
        for length in lengths {
            let bytes: Vec<u8> = (0..=255).cycle().skip(said.len() % 251).take(length).collect();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let count = pair.client.writer().write(rest).unwrap();
                rest = &rest[count..];
                pair.settle(piece).unwrap();
            }
            said.extend_from_slice(&bytes);
            pair.server.write(&bytes);
            let mut cipher = Vec::new();
            pair.server.poll_transmit(&mut cipher);
            let mut cipher = &cipher[..];
            let mut echoed = Vec::new();
            while !cipher.is_empty() {
                pair.client.read_tls(&mut cipher).unwrap();
                pair.client.process_new_packets().unwrap();
                let mut buffer = vec![0; 100_000];
                while let Ok(count @ 1..) = pair.client.reader().read(&mut buffer) {
                    echoed.extend_from_slice(&buffer[..count]);
                }
            }
            prop_assert!(echoed == bytes);
        }
        prop_assert!(pair.heard == said);
    }

    #[test]
    fn what_is_no_tls_is_an_error_and_never_heard(
        bytes in proptest::collection::vec(any::<u8>(), 1..2000),
    ) {
        let mut server = Authority::new().accept(false);
        // Some beginnings of records only wait for more.
        let taken = server.handle_received(&bytes);
        prop_assert!(taken.is_err() || server.is_handshaking());
        prop_assert_eq!(server.read(&mut [0; 10]), Reading::Nothing);
    }
}
