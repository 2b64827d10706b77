//! Names of images and clients.
//!
//! Invariant: a [`Name`] is safe as the name of a directory: it is never empty, `.` or `..`, and
//! holds no `/`.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

use crate::limits::NAME_MAX;

/// The name of an image or a client: `[A-Za-z0-9._-]+`, at most [`NAME_MAX`] bytes, not purely
/// numeric, not starting with a dot. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// Checks `text` and makes a name of it.
    ///
    /// # Errors
    /// Which rule `text` breaks.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if let Some(bad) = text.chars().find(|&c| !is_allowed(c)) {
            return Err(NameError::Character(bad));
        }
        if text.len() > NAME_MAX {
            return Err(NameError::TooLong(text.len()));
        }
        // Names become directories: this rules out `.` and `..`, and keeps our own hidden files
        // apart.
        if text.starts_with('.') {
            return Err(NameError::LeadingDot);
        }
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(NameError::Numeric);
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

/// Why a text is no name. The sentences may go to a client, so they are short whatever the text
/// was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing at all.
    #[error("it is empty")]
    Empty,
    /// More than [`NAME_MAX`] bytes; holds how many there were.
    #[error("it has {0} bytes, and at most {NAME_MAX} are allowed")]
    TooLong(usize),
    /// Holds a character outside the allowed set.
    #[error("it holds {0:?}, and only letters, digits, '.', '_' and '-' are allowed")]
    Character(char),
    /// Starts with a dot.
    #[error("it starts with a dot")]
    LeadingDot,
    /// Digits only.
    #[error("it is purely numeric")]
    Numeric,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_never_a_way_out_of_its_directory() {
        for bad in ["..", ".", ".hidden", "a/b", "a\0b", "a b", "é"] {
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_purely_numeric_name_is_refused() {
        assert_eq!(Name::new("2024"), Err(NameError::Numeric));
        assert!(Name::new("2024-1").is_ok());
    }

    #[test]
    fn a_name_has_at_most_64_bytes() {
        assert!(Name::new(&"a".repeat(64)).is_ok());
        assert_eq!(Name::new(&"a".repeat(65)), Err(NameError::TooLong(65)));
    }
}
