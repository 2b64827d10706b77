//! Certificates made by `tools/make-certificates`, and TLS clients that show them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tempfile::TempDir;

use super::{Tool, require};

/// A folder with an authority, the server's certificate, and those of some clients.
pub(crate) struct Certificates {
    folder: TempDir,
}

impl Certificates {
    /// None, loudly, where the machine has no openssl.
    pub(crate) fn new(clients: &[&str]) -> Option<Self> {
        if !require(&["openssl"]) {
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let certificates = Self { folder };
        certificates.make(clients);
        Some(certificates)
    }

    /// Makes the server's certificate, and those of these clients, anew.
    pub(crate) fn make(&self, clients: &[&str]) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/make-certificates");
        Tool::new(script).arg(self.folder.path()).args(clients).ok();
    }

    /// A file in the folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `[tls]` of a config file, with certificates of clients asked for.
    pub(crate) fn config(&self, mode: &str) -> String {
        let file = |name| self.file(name).display().to_string();
        format!(
            "[tls]\nmode = \"{mode}\"\ncertificate = \"{}\"\nkey = \"{}\"\nclient_ca = \"{}\"\n",
            file("server-cert.pem"),
            file("server-key.pem"),
            file("ca-cert.pem")
        )
    }

    /// A TLS client that shows the certificate of `client`, or none.
    pub(crate) fn client(&self, client: Option<&str>) -> ClientConnection {
        let mut roots = RootCertStore::empty();
        let authority = certificate(&self.file("ca-cert.pem"));
        roots.add(authority).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS 1.2 and 1.3")
            .with_root_certificates(roots);
        let config = match client {
            None => builder.with_no_client_auth(),
            Some(client) => {
                let folder = self.file(client);
                let chain = vec![certificate(&folder.join("client-cert.pem"))];
                let key = PrivateKeyDer::from_pem_file(folder.join("client-key.pem"));
                builder
                    .with_client_auth_cert(chain, key.expect("a key"))
                    .expect("a key that fits")
            }
        };
        let name = ServerName::try_from("localhost").expect("a name");
        ClientConnection::new(Arc::new(config), name).expect("a client")
    }

    /// The server's certificate as it is in its file.
    pub(crate) fn of_server(&self) -> Vec<u8> {
        certificate(&self.file("server-cert.pem")).to_vec()
    }
}

fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).expect("a certificate")
}
