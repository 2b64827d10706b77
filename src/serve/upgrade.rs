//! What connections are offered of TLS.

use crate::config::{TlsConfig, TlsNeed};
use crate::nbd::handshake::TlsMode;
use crate::tls::{Credentials, CredentialsError};

/// How one connection may be encrypted.
#[derive(Clone, Debug, Default)]
pub(super) struct Upgrade {
    pub(super) mode: TlsMode,
    /// There where the mode is not off.
    pub(super) credentials: Option<Credentials>,
}

impl Upgrade {
    /// Reads what the config names.
    pub(super) fn read(config: Option<&TlsConfig>) -> Result<Self, CredentialsError> {
        let Some(TlsConfig { need, files }) = config else {
            return Ok(Self::default());
        };
        let mode = match need {
            TlsNeed::Off => return Ok(Self::default()),
            TlsNeed::Selective => TlsMode::Selective,
            TlsNeed::Required => TlsMode::Required,
        };
        let credentials = Some(Credentials::read(files)?);
        Ok(Self { mode, credentials })
    }
}
