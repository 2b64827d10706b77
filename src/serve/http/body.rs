//! The bytes of an answer, read from the disk piece by piece as the client takes them.

use std::io;
use std::net::SocketAddrV4;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::task::JoinHandle;

use crate::boot::files::Content;
use crate::limits::HTTP_PIECE;
use crate::serve::blocking::in_turn;
use crate::serve::tree::{Ends, Tree};
use crate::status::FileStep;

/// A part of a file, on its way.
#[derive(Debug)]
pub(super) struct Body {
    /// `None` where there are no bytes, or none that can be read any more.
    content: Option<Content>,
    /// What is not sent yet.
    rest: Range<u64>,
    /// The next piece.
    reading: Option<JoinHandle<io::Result<Bytes>>>,
    report: Option<Report>,
}

/// What is told of an answer when it has ended.
#[derive(Debug)]
pub(super) struct Report {
    /// Where it is noted for the timeline of the machine.
    notes: (Arc<Tree>, Ends),
    client: SocketAddrV4,
    path: String,
    is_head: bool,
    begun: Instant,
    bytes: Range<u64>,
    size: u64,
}

impl Report {
    pub(super) const fn new(
        notes: (Arc<Tree>, Ends),
        client: SocketAddrV4,
        path: String,
        is_head: bool,
        begun: Instant,
    ) -> Self {
        Self {
            notes,
            client,
            path,
            is_head,
            begun,
            bytes: 0..0,
            size: 0,
        }
    }

    fn note(&self, step: FileStep) {
        let (tree, ends) = &self.notes;
        tree.note(*ends, &self.path, step);
    }

    /// All up to `end` was handed over.
    fn tell(&self, end: u64) {
        let Self { client, path, .. } = self;
        let (count, took) = (self.bytes.end - self.bytes.start, self.begun.elapsed());
        let took = took.as_millis();
        let sent = end - self.bytes.start;
        let is_whole = !self.is_head && sent == count;
        self.note(match is_whole {
            true => FileStep::Sent(count),
            false => FileStep::Probed,
        });
        if self.is_head {
            tracing::info!("http: {client}: {path}: asked for its size");
        } else if sent < count {
            tracing::info!(
                "http: {client}: {path}: ended by the client after {sent} of {count} bytes"
            );
        } else if count < self.size {
            let (start, size) = (self.bytes.start, self.size);
            tracing::info!(
                "http: {client}: {path}: {count} bytes from {start} of {size} in {took} ms"
            );
        } else {
            tracing::info!("http: {client}: {path}: {count} bytes in {took} ms");
        }
    }
}

impl Body {
    pub(super) const fn empty() -> Self {
        Self {
            content: None,
            rest: 0..0,
            reading: None,
            report: None,
        }
    }

    /// The bytes of `content` in `range`, and who gets them.
    pub(super) fn new(content: Content, range: Range<u64>, mut report: Report) -> Self {
        report.bytes = range.clone();
        report.size = content.size();
        Self {
            content: Some(content),
            rest: range,
            reading: None,
            report: Some(report),
        }
    }

    /// The next piece, where it is at hand or has been read. Starts to read it else.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let Some(content) = &self.content else {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        };
        let next = piece_of(&self.rest);
        if let Some(bytes) = content.at_hand(&next) {
            return Poll::Ready(Ok(bytes));
        }
        let reading = self
            .reading
            .get_or_insert_with(|| read(content.clone(), next));
        let read = ready!(Pin::new(reading).poll(context));
        self.reading = None;
        Poll::Ready(read.unwrap_or_else(|ended| Err(io::Error::other(ended))))
    }
}

/// What is sent at once of what is left.
fn piece_of(rest: &Range<u64>) -> Range<u64> {
    let end = rest.start.saturating_add(HTTP_PIECE as u64);
    rest.start..end.min(rest.end)
}

/// Reads a piece on a thread that may block.
fn read(content: Content, range: Range<u64>) -> JoinHandle<io::Result<Bytes>> {
    tokio::spawn(in_turn(move || {
        let length = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
        let mut piece = vec![0; length];
        content.read_at(&mut piece, range.start)?;
        Ok(piece.into())
    }))
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let piece = match ready!(self.poll_piece(context)) {
            Ok(piece) => piece,
            Err(error) => {
                // The connection ends with it, so the client knows that this was not all.
                if let Some(report) = self.report.take() {
                    report.note(FileStep::Failed {
                        sent: self.rest.start - report.bytes.start,
                        why: error.to_string(),
                    });
                    let Report { client, path, .. } = report;
                    tracing::warn!("http: {client}: {path}: {error}");
                }
                self.content = None;
                return Poll::Ready(Some(Err(error)));
            }
        };
        self.rest.start += piece.len() as u64;
        // The disk works while the network does.
        let next = piece_of(&self.rest);
        if let Some(content) = &self.content
            && !next.is_empty()
            && content.at_hand(&next).is_none()
        {
            self.reading = Some(read(content.clone(), next));
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.end - self.rest.start)
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(report) = self.report.take() {
            report.tell(self.rest.start);
        }
    }
}
