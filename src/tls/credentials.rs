//! Certificates and keys, read from PEM files.
//!
//! Invariant: what was read fits together, or is not used at all.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use thiserror::Error;

use super::channel::{Channel, TlsError};

/// Where the credentials are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The server's certificate, and those that lead from it to one that clients trust.
    pub certificate: PathBuf,
    /// The key of the certificate.
    pub key: PathBuf,
    /// The certificates that sign those of clients; `None` asks no client for one.
    pub client_ca: Option<PathBuf>,
}

/// What is wrong with the files, in one line.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "each message is its variant's description")]
pub enum CredentialsError {
    #[error("{}: {reason}; check [tls] in the config file", path.display())]
    Unreadable {
        path: PathBuf,
        reason: rustls::pki_types::pem::Error,
    },
    #[error("{}: has no certificate in PEM form", .0.display())]
    Empty(PathBuf),
    #[error("{}: not the certificate of {}, or not one to be used: {reason}",
            certificate.display(), key.display())]
    Unusable {
        certificate: PathBuf,
        key: PathBuf,
        reason: rustls::Error,
    },
    #[error("{}: no certificates to check clients by: {reason}", path.display())]
    ClientCa { path: PathBuf, reason: String },
}

/// What a server shows, and what it asks of clients. Cheap to clone.
#[derive(Clone)]
pub struct Credentials {
    config: Arc<ServerConfig>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Keys are in there.
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads the files.
    ///
    /// # Errors
    /// Which file is wrong, and how.
    pub fn read(files: &Files) -> Result<Self, CredentialsError> {
        let chain = certificates(&files.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(unreadable(&files.key))?;
        let verifier = files.client_ca.as_deref().map(verifier).transpose()?;
        let unusable = |reason| CredentialsError::Unusable {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            reason,
        };
        // "NBD implementations supporting TLS MUST support TLS version 1.2, SHOULD support any
        // later versions."
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .map_err(unusable)?;
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(unusable)?;
        // A session that is resumed would not have its certificate looked at again.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self {
            config: Arc::new(config),
        })
    }

    /// A new connection.
    ///
    /// # Errors
    /// What rustls says.
    pub fn accept(&self) -> Result<Channel, TlsError> {
        Ok(Channel::new(ServerConnection::new(Arc::clone(
            &self.config,
        ))?))
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let read = CertificateDer::pem_file_iter(path).map_err(unreadable(path))?;
    let certificates: Result<Vec<_>, _> = read.collect();
    let certificates = certificates.map_err(unreadable(path))?;
    match certificates.is_empty() {
        true => Err(CredentialsError::Empty(path.to_owned())),
        false => Ok(certificates),
    }
}

fn unreadable(path: &Path) -> impl Fn(rustls::pki_types::pem::Error) -> CredentialsError {
    |reason| CredentialsError::Unreadable {
        path: path.to_owned(),
        reason,
    }
}

/// Lets in whoever has a certificate that one of those in the file has signed.
fn verifier(path: &Path) -> Result<Arc<dyn ClientCertVerifier>, CredentialsError> {
    let refused = |reason: String| CredentialsError::ClientCa {
        path: path.to_owned(),
        reason,
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        let added = roots.add(certificate);
        added.map_err(|error| refused(error.to_string()))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| refused(error.to_string()))
}
