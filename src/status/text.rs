//! Texts of machines, made harmless.

use std::fmt::{self, Write};

use crate::limits::STATUS_TEXT_MAX;

/// `text` without what would move a cursor, turn the direction of writing or end a line, and not
/// longer than [`STATUS_TEXT_MAX`] bytes.
#[must_use]
pub fn harmless(text: &str) -> String {
    let mut clean = String::new();
    for c in text.chars() {
        let before = clean.len();
        if is_plain(c) {
            clean.push(c);
        } else {
            // A String takes whatever is written to it.
            let _ = write!(clean, "{}", c.escape_unicode());
        }
        if clean.len() > STATUS_TEXT_MAX {
            clean.truncate(before);
            break;
        }
    }
    clean
}

/// The same of bytes that should be text.
#[must_use]
pub fn harmless_bytes(bytes: &[u8]) -> String {
    let end = bytes.len().min(STATUS_TEXT_MAX);
    harmless(&String::from_utf8_lossy(
        bytes.get(..end).unwrap_or_default(),
    ))
}

/// A text of any length that shows as what it is: as [`harmless`] has it.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a>(pub &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match is_plain(c) {
            true => f.write_char(c),
            false => write!(f, "{}", c.escape_unicode()),
        })
    }
}

/// Whether a character neither moves a cursor nor turns the writing nor ends a line.
#[must_use]
pub fn is_plain(c: char) -> bool {
    let is_direction = matches!(c,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    !(c.is_control() || is_direction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_a_cursor_or_turns_the_writing_is_spelt_out() {
        assert_eq!(
            harmless("a\x1b[2Jb\nc\u{202e}d"),
            "a\\u{1b}[2Jb\\u{a}c\\u{202e}d"
        );
        assert_eq!(harmless_bytes(b"<b>\xff"), "<b>\u{fffd}");
    }

    #[test]
    fn a_text_of_any_length_can_be_shown() {
        let long = "a\u{9b}".repeat(STATUS_TEXT_MAX);
        assert_eq!(Shown(&long).to_string(), "a\\u{9b}".repeat(STATUS_TEXT_MAX));
    }

    #[test]
    fn a_long_text_is_cut_between_two_characters() {
        let cut = harmless(&"\u{e9}".repeat(STATUS_TEXT_MAX));
        assert!(cut.len() <= STATUS_TEXT_MAX && cut.chars().all(|c| c == '\u{e9}'));
        assert_eq!(
            harmless(&"\n".repeat(STATUS_TEXT_MAX)).len() % "\\u{a}".len(),
            0
        );
    }
}
