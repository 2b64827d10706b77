//! What is wrong with a config file, and in which line.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::limits::CONFIG_BYTES_MAX;

/// Why a config file can't be used, in one line.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "each message is its variant's description")]
pub enum ConfigError {
    #[error("{}: {reason}; check the path given to --config", path.display())]
    Unreadable {
        path: PathBuf,
        reason: std::io::Error,
    },
    #[error("{}: larger than {CONFIG_BYTES_MAX} bytes; is this the config file?", .0.display())]
    TooLarge(PathBuf),
    #[error("{}:{line}: {what}", path.display())]
    Mistake {
        path: PathBuf,
        line: usize,
        what: String,
    },
}

/// A mistake, before anybody knows in which file it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    /// The byte where it is; 0 where it is in no place.
    at: usize,
    what: String,
}

impl Mistake {
    pub(super) fn new(at: usize, what: impl Into<String>) -> Self {
        let what = what.into();
        Self { at, what }
    }

    /// Gives it its line.
    pub(super) fn in_file(self, path: &Path, text: &str) -> ConfigError {
        ConfigError::Mistake {
            path: path.to_owned(),
            line: line_of(text, self.at),
            what: self.what,
        }
    }
}

impl From<toml::de::Error> for Mistake {
    fn from(error: toml::de::Error) -> Self {
        let at = error.span().map_or(0, |span| span.start);
        // A message of several lines would be taken for several messages.
        Self::new(at, error.message().replace('\n', ", "))
    }
}

/// The line, counted from 1, that the byte `at` is in.
fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().iter().take(at);
    before.filter(|byte| **byte == b'\n').count() + 1
}
