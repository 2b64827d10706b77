//! Single values of the file: texts that are parsed, each with its place for messages.

use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::path::PathBuf;
use std::str::FromStr;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use super::BootFile;
use crate::boot::cmdline::{BadLine, check_words};
use crate::limits::MENU_TITLE_MAX;
use crate::tftp::name::{BadName, path_of};

/// A value written as a string, and the byte of the file where it stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) at: usize,
}

impl<T: FromStr<Err: Display>> Located<T> {
    fn parse<E: Error>(text: &str, at: usize) -> Result<Self, E> {
        let value = text.parse();
        let value = value.map_err(|why| E::custom(format!("{text:?}: {why}")))?;
        Ok(Self { value, at })
    }
}

impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for Located<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Spanned::<String>::deserialize(deserializer)?;
        Self::parse(text.get_ref(), text.span().start)
    }
}

/// What is one value or a list of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Several<T>(pub(super) Vec<Located<T>>);

impl<T> Default for Several<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Clone> Several<T> {
    /// The values alone.
    pub(super) fn values(&self) -> Vec<T> {
        self.0.iter().map(|located| located.value.clone()).collect()
    }
}

impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for Several<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let found = Spanned::<OneOrMore<T>>::deserialize(deserializer)?;
        let at = found.span().start;
        Ok(Self(match found.into_inner() {
            OneOrMore::One(text) => vec![Located::parse(&text, at)?],
            OneOrMore::More(list) => list,
        }))
    }
}

/// Where is listened: nothing where nothing is said, and at least one place where something is.
#[derive(Clone, Debug)]
pub(super) struct Places<T>(pub(super) Several<T>);

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self(Several::default())
    }
}

impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for Places<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let places = Several::deserialize(deserializer)?;
        match places.0.is_empty() {
            false => Ok(Self(places)),
            true => Err(D::Error::custom(
                "`listen` is empty: leave it out for the default, or name an address",
            )),
        }
    }
}

/// A text, or a list whose elements know their places.
pub(super) enum OneOrMore<T> {
    One(String),
    More(Vec<Located<T>>),
}

impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for OneOrMore<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrMoreVisitor(PhantomData))
    }
}

struct OneOrMoreVisitor<T>(PhantomData<T>);

impl<'de, T: FromStr<Err: Display>> Visitor<'de> for OneOrMoreVisitor<T> {
    type Value = OneOrMore<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a list of texts")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(OneOrMore::One(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(OneOrMore::More(values))
    }
}

/// Before the path of a file that is not in the image.
const OF_HOST: &str = "host:";

/// Why no file is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadBootFile {
    #[error(transparent)]
    Inside(#[from] BadName),
    #[error("write the whole path of a file of the host, as in host:/srv/boot/vmlinuz")]
    Relative,
}

/// The path of a file on an NFS server, without a slash before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BootPath(pub(super) String);

impl FromStr for BootPath {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        path_of(text.as_bytes()).map(Self)
    }
}

/// A file that a machine loads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Loaded(pub(super) BootFile);

impl FromStr for Loaded {
    type Err = BadBootFile;

    fn from_str(text: &str) -> Result<Self, BadBootFile> {
        match text.strip_prefix(OF_HOST).map(PathBuf::from) {
            Some(path) if path.is_absolute() => Ok(Self(BootFile::OfHost(path))),
            Some(_) => Err(BadBootFile::Relative),
            None => Ok(Self(BootFile::Inside(path_of(text.as_bytes())?))),
        }
    }
}

/// The words of a kernel's command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line(pub(super) Vec<String>);

impl FromStr for Line {
    type Err = BadLine;

    fn from_str(text: &str) -> Result<Self, BadLine> {
        let words = text.split_ascii_whitespace().map(str::to_owned);
        check_words(words.collect()).map(Self)
    }
}

/// What people read in a menu.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Title(pub(super) String);

/// Why a text is no title.
#[derive(Debug, thiserror::Error)]
#[error(
    "a title has at most {MENU_TITLE_MAX} bytes, at least one letter and no control characters"
)]
pub(super) struct NoTitle;

impl FromStr for Title {
    type Err = NoTitle;

    fn from_str(text: &str) -> Result<Self, NoTitle> {
        let fits = text.len() <= MENU_TITLE_MAX && !text.trim().is_empty();
        match fits && !text.contains(char::is_control) {
            true => Ok(Self(text.to_owned())),
            false => Err(NoTitle),
        }
    }
}
