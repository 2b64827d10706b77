//! Answers of HTTP: whole ones, and streams.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use tokio::sync::mpsc;

/// What an answer holds.
#[derive(Debug)]
pub(super) enum Content {
    Whole(Option<Bytes>),
    /// What comes, as it comes.
    Stream(mpsc::Receiver<Bytes>),
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(stream) => {
                let next = stream.poll_recv(context);
                next.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }
}

/// What stands in every answer. Scripts and styles come from here alone, and none stands in a page;
/// nobody may put the page into another.
const ALWAYS: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
         img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
];

/// An answer with all the headers that there always are.
pub(super) fn reply(status: StatusCode, kind: &'static str, content: Content) -> Response<Content> {
    let mut response = Response::new(content);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in ALWAYS {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    headers.insert(
        HeaderName::from_static("content-type"),
        HeaderValue::from_static(kind),
    );
    response
}

/// A text that is known already.
pub(super) fn text(kind: &'static str, text: impl Into<Bytes>) -> Response<Content> {
    reply(StatusCode::OK, kind, Content::Whole(Some(text.into())))
}

/// A value as JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response<Content> {
    // Names, numbers and sentences: nothing in them that JSON has no form for.
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    reply(
        status,
        "application/json",
        Content::Whole(Some(bytes.into())),
    )
}

/// Why it was not done, in words.
pub(super) fn refuse(status: StatusCode, why: &str) -> Response<Content> {
    json(status, &serde_json::json!({ "error": why }))
}
