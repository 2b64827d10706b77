//! Single values of the file: texts that are parsed, each with its place for messages.

use std::fmt::Display;
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use toml::Spanned;

/// A value written as a string, and the byte of the file where it stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) at: usize,
}

impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for Located<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Spanned::<String>::deserialize(deserializer)?;
        let value = text.get_ref().parse();
        Ok(Self {
            value: value.map_err(|why| D::Error::custom(format!("{:?}: {why}", text.get_ref())))?,
            at: text.span().start,
        })
    }
}

/// A part of the file that this version can't serve, whatever it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unserved {
    pub(super) at: usize,
}

impl<'de> Deserialize<'de> for Unserved {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Spanned::<serde::de::IgnoredAny>::deserialize(deserializer)?;
        let at = value.span().start;
        Ok(Self { at })
    }
}
