//! Export names: `image[+generation][@client]`.
//!
//! Invariants:
//! - A [`Name`] is safe as the name of a directory: it is never empty, `.` or `..`, and holds no
//!   `/`.
//! - Parsing what [`ExportName`] displays gives the same value back.

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

/// What an NBD client asked for. What it left out is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ExportName {
    /// The image; `None` is the default image.
    pub image: Option<Name>,
    /// The generation, counted from 1; `None` is the current one.
    pub generation: Option<u32>,
    /// The client the overlay belongs to; `None` leaves that to the peer's address.
    pub client: Option<Name>,
}

impl FromStr for ExportName {
    type Err = ExportNameError;

    fn from_str(text: &str) -> Result<Self, ExportNameError> {
        // Debian's initramfs puts a `/` before the name it was given.
        let text = text.strip_prefix('/').unwrap_or(text);
        let (disk, client) = split_optional(text, '@');
        let (image, generation) = split_optional(disk, '+');
        Ok(Self {
            image: match image {
                "" => None,
                image => Some(Name::new(image).map_err(ExportNameError::Image)?),
            },
            generation: generation.map(parse_generation).transpose()?,
            client: client
                .map(Name::new)
                .transpose()
                .map_err(ExportNameError::Client)?,
        })
    }
}

fn split_optional(text: &str, mark: char) -> (&str, Option<&str>) {
    match text.split_once(mark) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

/// One spelling for each number, so that two names never mean the same generation.
fn parse_generation(text: &str) -> Result<u32, ExportNameError> {
    if text.starts_with(['+', '0']) {
        return Err(ExportNameError::Generation);
    }
    text.parse().map_err(|_| ExportNameError::Generation)
}

impl fmt::Display for ExportName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(image) = &self.image {
            write!(f, "{image}")?;
        }
        if let Some(generation) = self.generation {
            write!(f, "+{generation}")?;
        }
        if let Some(client) = &self.client {
            write!(f, "@{client}")?;
        }
        Ok(())
    }
}

/// Why a text is no export name, in words for the client that sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ExportNameError {
    /// The part before `+` and `@`.
    #[error("bad image name: {0}")]
    Image(NameError),
    /// The part after `+`.
    #[error("bad generation: after '+' comes a number from 1 to 4294967295 without leading zeros")]
    Generation,
    /// The part after `@`.
    #[error("bad client name after '@': {0}")]
    Client(NameError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> Option<Name> {
        Some(Name::new(text).unwrap())
    }

    fn check(text: &str, image: Option<Name>, generation: Option<u32>, client: Option<Name>) {
        let wanted = ExportName {
            image,
            generation,
            client,
        };
        assert_eq!(text.parse(), Ok(wanted), "{text:?}");
    }

    fn refused(text: &str) -> String {
        text.parse::<ExportName>().unwrap_err().to_string()
    }

    #[test]
    fn every_part_may_be_left_out() {
        check("", None, None, None);
        check("arch", name("arch"), None, None);
        check("arch@studio-3", name("arch"), None, name("studio-3"));
        check("@a", None, None, name("a"));
        check("+7", None, Some(7), None);
        let all = "arch+2@52-54-00-12-34-56";
        check(all, name("arch"), Some(2), name("52-54-00-12-34-56"));
    }

    #[test]
    fn one_leading_slash_is_dropped() {
        check("/arch", name("arch"), None, None);
        check("/", None, None, None);
        assert!(refused("//arch").contains("'/'"));
    }

    #[test]
    fn a_generation_has_one_spelling() {
        for bad in ["0", "01", "+1", "-1", "", " 1", "1x", "4294967296", "1+1"] {
            assert!(
                refused(&format!("arch+{bad}")).contains("generation"),
                "{bad}"
            );
        }
        check("arch+4294967295", name("arch"), Some(u32::MAX), None);
    }

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

    #[test]
    fn an_empty_client_is_refused() {
        assert!(refused("arch@").contains("client"));
        assert!(refused("arch@a@b").contains("'@'"));
    }

    fn names() -> impl Strategy<Value = Name> {
        "[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}".prop_filter_map("numeric", |text| Name::new(&text).ok())
    }

    fn option_name() -> impl Strategy<Value = Option<Name>> {
        proptest::option::of(names())
    }

    fn export_names() -> impl Strategy<Value = ExportName> {
        let generation = proptest::option::of(1..=u32::MAX);
        (option_name(), generation, option_name()).prop_map(|(image, generation, client)| {
            ExportName {
                image,
                generation,
                client,
            }
        })
    }

    proptest! {
        #[test]
        fn parsing_undoes_display(export in export_names()) {
            prop_assert_eq!(export.to_string().parse(), Ok(export));
        }

        #[test]
        fn any_text_is_parsed_or_refused_in_a_short_sentence(text in any::<String>()) {
            if let Err(error) = text.parse::<ExportName>() {
                prop_assert!(error.to_string().len() < 160);
            }
        }
    }
}
