//! HTTP for boot loaders, with no I/O: what is answered to a request for a file.
//!
//! Bytes and connections are hyper's business. This decides which part of a file goes out, under
//! which status and headers.
//!
//! Invariants:
//! - Every answer with a body says how long that is: GRUB takes nothing else, and no chunks.
//! - No answer sends a client elsewhere: some firmware follows no redirect.

mod range;
pub mod target;

use std::ops::Range;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};

use range::Asked;

/// What is known of a file before any of it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File<'a> {
    /// Its path.
    pub path: &'a str,
    /// Its size in bytes.
    pub size: u64,
    /// What changes whenever it does: an entity tag without its quotes.
    pub tag: Option<String>,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// Headers, the length among them.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The bytes of the file that go with it.
    pub bytes: Range<u64>,
}

/// The methods that are served, as in `Allow`.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD");

impl Answer {
    /// To a request for no file, or for nothing that is done here.
    #[must_use]
    pub fn without_file(status: StatusCode) -> Self {
        let mut headers = Vec::new();
        // RFC 9110, section 8.6: in a 304 that would be the length of what is not sent.
        if status != StatusCode::NOT_MODIFIED {
            headers.push((header::CONTENT_LENGTH, HeaderValue::from(0)));
        }
        // RFC 9110, section 15.5.6: "The origin server MUST generate an Allow header field in a
        // 405 response".
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.push((header::ALLOW, METHODS));
        }
        Self {
            status,
            headers,
            bytes: 0..0,
        }
    }

    /// To a request for `file` that asked for it with `headers`. HEAD is answered as GET would be;
    /// hyper leaves the bytes out.
    #[must_use]
    pub fn with_file(file: &File<'_>, method: &Method, headers: &HeaderMap) -> Self {
        let tag = file.tag.as_ref().map(|tag| format!("\"{tag}\""));
        let tag = tag.as_deref();
        let mut answer = match precondition(headers, tag) {
            Some(status) => Self::without_file(status),
            None => Self::with_bytes(file, asked(method, headers, file.size, tag)),
        };
        if let Some(tag) = tag.and_then(|tag| HeaderValue::from_str(tag).ok()) {
            answer.headers.push((header::ETAG, tag));
        }
        answer
    }

    fn with_bytes(file: &File<'_>, asked: Asked) -> Self {
        let size = file.size;
        let (status, bytes, place) = match asked {
            Asked::All => (StatusCode::OK, 0..size, None),
            Asked::Part(part) => {
                let place = format!("bytes {}-{}/{size}", part.start, part.end - 1);
                (StatusCode::PARTIAL_CONTENT, part, Some(place))
            }
            Asked::Nothing => {
                let place = format!("bytes */{size}");
                (StatusCode::RANGE_NOT_SATISFIABLE, 0..0, Some(place))
            }
        };
        let length = HeaderValue::from(bytes.end - bytes.start);
        let mut headers = vec![
            (header::CONTENT_LENGTH, length),
            (header::ACCEPT_RANGES, HeaderValue::from_static("bytes")),
        ];
        if status != StatusCode::RANGE_NOT_SATISFIABLE {
            let kind = HeaderValue::from_static(content_type(file.path));
            headers.push((header::CONTENT_TYPE, kind));
        }
        if let Some(place) = place.and_then(|place| HeaderValue::try_from(place).ok()) {
            headers.push((header::CONTENT_RANGE, place));
        }
        Self {
            status,
            headers,
            bytes,
        }
    }
}

/// The part of the file that is asked for.
fn asked(method: &Method, headers: &HeaderMap, size: u64, tag: Option<&str>) -> Asked {
    // RFC 9110, section 14.2: "A server MUST ignore a Range header field received with a request
    // method that is unrecognized or for which range handling is not defined".
    let range = headers.get(header::RANGE).filter(|_| method == Method::GET);
    // Section 13.1.5: without a strong validator that matches, "ignore the Range header field".
    let is_of_this = |said: &HeaderValue| tag.is_some_and(|tag| said.as_bytes() == tag.as_bytes());
    match (range, headers.get(header::IF_RANGE)) {
        (Some(range), None) => Asked::read(range.as_bytes(), size),
        (Some(range), Some(said)) if is_of_this(said) => Asked::read(range.as_bytes(), size),
        _ => Asked::All,
    }
}

/// RFC 9110, section 13.2.2: what is answered instead of the file, where a condition fails. Times
/// are not compared, since none is told.
fn precondition(headers: &HeaderMap, tag: Option<&str>) -> Option<StatusCode> {
    let names_it = |name: HeaderName| {
        let mut lines = headers.get_all(name).iter().peekable();
        lines.peek()?;
        let elements = lines.filter_map(|line| line.to_str().ok());
        let mut elements = elements.flat_map(|line| line.split(',')).map(str::trim);
        Some(elements.any(|said| {
            let said = said.strip_prefix("W/").unwrap_or(said);
            said == "*" || Some(said) == tag
        }))
    };
    if names_it(header::IF_MATCH) == Some(false) {
        return Some(StatusCode::PRECONDITION_FAILED);
    }
    (names_it(header::IF_NONE_MATCH) == Some(true)).then_some(StatusCode::NOT_MODIFIED)
}

/// UEFI 2.10, section 24.7.5: firmware knows by the type what it has loaded.
fn content_type(path: &str) -> &'static str {
    let ending = path.rsplit_once('.').map(|(_, ending)| ending);
    match ending.map(str::to_ascii_lowercase).as_deref() {
        Some("efi") => "application/efi",
        Some("iso") => "application/vnd.efi-iso",
        Some("img") => "application/vnd.efi-img",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> File<'static> {
        File {
            path: "boot/core.efi",
            size: 1000,
            tag: Some("a-1".to_owned()),
        }
    }

    /// What is answered to a GET with these headers: status, bytes, and one more header.
    fn get(headers: &[(HeaderName, &'static str)], shown: &HeaderName) -> (u16, u64, String) {
        with(&Method::GET, headers, shown)
    }

    fn with(
        method: &Method,
        headers: &[(HeaderName, &'static str)],
        shown: &HeaderName,
    ) -> (u16, u64, String) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_static(value));
        }
        let answer = Answer::with_file(&file(), method, &map);
        let value = answer.headers.iter().find(|(name, _)| name == shown);
        let value = value.map(|(_, value)| value.to_str().unwrap().to_owned());
        let length = answer
            .headers
            .iter()
            .find(|(name, _)| name == header::CONTENT_LENGTH);
        let count = answer.bytes.end - answer.bytes.start;
        let said = length.map(|(_, length)| length.to_str().unwrap().to_owned());
        assert_eq!(said, (answer.status != 304).then(|| count.to_string()));
        (answer.status.as_u16(), count, value.unwrap_or_default())
    }

    #[test]
    fn the_whole_file_is_sent_with_its_length_type_and_tag() {
        assert_eq!(get(&[], &header::ETAG), (200, 1000, "\"a-1\"".to_owned()));
        let kind = "application/efi".to_owned();
        assert_eq!(get(&[], &header::CONTENT_TYPE), (200, 1000, kind));
        let units = "bytes".to_owned();
        assert_eq!(get(&[], &header::ACCEPT_RANGES), (200, 1000, units));
    }

    #[test]
    fn a_part_is_sent_as_a_part() {
        let place = "bytes 10-999/1000".to_owned();
        let part = [(header::RANGE, "bytes=10-")];
        assert_eq!(get(&part, &header::CONTENT_RANGE), (206, 990, place));
    }

    #[test]
    fn a_part_behind_the_end_is_refused_with_the_size() {
        let place = "bytes */1000".to_owned();
        let part = [(header::RANGE, "bytes=1000-")];
        assert_eq!(get(&part, &header::CONTENT_RANGE), (416, 0, place));
    }

    #[test]
    fn a_head_request_has_no_parts() {
        let part = [(header::RANGE, "bytes=10-")];
        let none = String::new();
        let whole = (200, 1000, none);
        assert_eq!(with(&Method::HEAD, &part, &header::CONTENT_RANGE), whole);
    }

    #[test]
    fn a_part_of_another_file_is_the_whole_of_this_one() {
        for (tag, status) in [
            ("\"a-1\"", 206),
            ("\"b\"", 200),
            ("W/\"a-1\"", 200),
            ("x", 200),
        ] {
            let part = [(header::RANGE, "bytes=10-"), (header::IF_RANGE, tag)];
            assert_eq!(get(&part, &header::ETAG).0, status, "{tag}");
        }
    }

    #[test]
    fn what_the_client_has_is_not_sent_again() {
        for (tags, status) in [
            ("\"a-1\"", 304),
            ("\"b\", W/\"a-1\"", 304),
            ("*", 304),
            ("\"b\"", 200),
        ] {
            let condition = [(header::IF_NONE_MATCH, tags)];
            assert_eq!(get(&condition, &header::ETAG).0, status, "{tags}");
        }
    }

    #[test]
    fn another_file_than_is_meant_is_not_sent() {
        for (tags, status) in [("\"a-1\"", 200), ("*", 200), ("\"b\"", 412)] {
            let condition = [(header::IF_MATCH, tags)];
            assert_eq!(get(&condition, &header::ETAG).0, status, "{tags}");
        }
    }

    #[test]
    fn a_file_without_a_tag_is_always_sent_whole() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_static("bytes=0-1"));
        headers.insert(header::IF_RANGE, HeaderValue::from_static("\"a\""));
        let file = File {
            tag: None,
            ..file()
        };
        let answer = Answer::with_file(&file, &Method::GET, &headers);
        assert_eq!((answer.status, answer.bytes), (StatusCode::OK, 0..1000));
    }

    #[test]
    fn another_method_is_told_which_there_are() {
        let answer = Answer::without_file(StatusCode::METHOD_NOT_ALLOWED);
        assert!(answer.headers.contains(&(header::ALLOW, METHODS)));
        let length = (header::CONTENT_LENGTH, HeaderValue::from(0));
        assert!(answer.headers.contains(&length));
    }

    #[test]
    fn firmware_is_told_what_it_loads() {
        for (path, kind) in [
            ("a/grub.EFI", "application/efi"),
            ("a.iso", "application/vnd.efi-iso"),
            ("a.img", "application/vnd.efi-img"),
            ("vmlinuz-6.1.0", "application/octet-stream"),
            ("kernel", "application/octet-stream"),
        ] {
            assert_eq!(content_type(path), kind, "{path}");
        }
    }
}
