//! Export names: `image[+generation][@client]`.
//!
//! Invariant: parsing what [`ExportName`] displays gives the same value back.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::name::{Name, NameError};

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

/// The number of a generation, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(u32);

impl Generation {
    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl FromStr for Generation {
    type Err = NoGeneration;

    /// One spelling for each number, so that two names never mean the same generation.
    fn from_str(text: &str) -> Result<Self, NoGeneration> {
        if text.starts_with(['+', '0']) {
            return Err(NoGeneration);
        }
        text.parse().map(Self).map_err(|_| NoGeneration)
    }
}

/// A text that is not the number of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a generation is a number from 1 to 4294967295 without leading zeros")]
pub struct NoGeneration;

fn parse_generation(text: &str) -> Result<u32, ExportNameError> {
    let generation: Generation = text.parse()?;
    Ok(generation.get())
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
    #[error("bad generation after '+': {0}")]
    Generation(#[from] NoGeneration),
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
