//! Strings: "a sequence of UTF-8 code points, which is not NUL terminated, MUST NOT contain NUL
//! characters, SHOULD be no longer than 256 bytes and MUST be no longer than 4096 bytes."

use crate::limits::NBD_STRING_MAX;

/// What makes bytes no string of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// More bytes than the protocol allows.
    #[error("the name is longer than 4096 bytes")]
    TooLong,
    /// Not UTF-8.
    #[error("the name is not UTF-8")]
    NotUtf8,
    /// A NUL character is in it.
    #[error("the name holds a NUL character")]
    Nul,
}

/// `bytes` as a string of the protocol.
///
/// # Errors
/// The first rule that is broken.
pub fn text(bytes: &[u8]) -> Result<&str, TextError> {
    if bytes.len() > NBD_STRING_MAX {
        return Err(TextError::TooLong);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| TextError::NotUtf8)?;
    if text.contains('\0') {
        return Err(TextError::Nul);
    }
    Ok(text)
}

/// As much of a string of ours as the protocol lets us send, in whole characters and up to a NUL.
#[must_use]
pub fn clipped(text: &str) -> &str {
    let text = text.split('\0').next().unwrap_or_default();
    let longest = text.len().min(NBD_STRING_MAX);
    let end = (0..=longest).rev().find(|&end| text.is_char_boundary(end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}
