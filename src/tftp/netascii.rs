//! Text as RFC 764 has it: lines end with CR LF, a CR by itself is CR NUL.

/// The bytes that stand for `text` on the wire.
#[must_use]
pub fn encode(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for &byte in text {
        match byte {
            b'\n' => bytes.extend_from_slice(b"\r\n"),
            b'\r' => bytes.extend_from_slice(b"\r\0"),
            other => bytes.push(other),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_lines_are_two_bytes() {
        assert_eq!(encode(b"a\nb\r\nc\r"), b"a\r\nb\r\0\r\nc\r\0");
    }
}
