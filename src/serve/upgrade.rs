//! What connections are offered of TLS. It can be exchanged while they are made.
//!
//! Invariant: a connection keeps what it was offered when it began.

use std::sync::{PoisonError, RwLock};

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

/// The offer of the moment.
#[derive(Debug)]
pub(super) struct Upgrades {
    current: RwLock<Upgrade>,
}

impl Upgrades {
    pub(super) fn new(first: Upgrade) -> Self {
        Self {
            current: RwLock::new(first),
        }
    }

    /// What a connection that begins now is offered.
    pub(super) fn now(&self) -> Upgrade {
        let current = self.current.read();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on this is offered.
    pub(super) fn replace(&self, next: Upgrade) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
    }
}
