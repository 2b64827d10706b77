//! The bytes of a transfer, read from the disk ahead of it.

use std::io;
use std::ops::Range;

use crate::boot::files::Content;
use crate::limits::{TFTP_READ_AHEAD, TFTP_TEXT_MAX};
use crate::serve::blocking::in_turn;
use crate::tftp::netascii;
use crate::tftp::wire::Mode;

/// Where the bytes on the wire come from.
#[derive(Debug)]
pub(super) struct Source {
    /// `None` where all of them are in memory.
    content: Option<Content>,
    size: u64,
    /// A piece of them, and where it begins.
    piece: Vec<u8>,
    start: u64,
}

impl Source {
    /// The bytes of a file in this mode. May wait for a disk: text is read as a whole.
    pub(super) fn new(content: Content, mode: Mode) -> io::Result<Self> {
        match mode {
            Mode::Octet => Ok(Self {
                size: content.size(),
                content: Some(content),
                piece: Vec::new(),
                start: 0,
            }),
            Mode::Netascii => Self::text(&content),
        }
    }

    fn text(content: &Content) -> io::Result<Self> {
        let size = usize::try_from(content.size()).ok();
        let size = size.filter(|&size| size <= TFTP_TEXT_MAX);
        let size = size.ok_or_else(|| io::Error::other("it is too large to be sent as text"))?;
        let mut text = vec![0; size];
        content.read_at(&mut text, 0)?;
        let piece = netascii::encode(&text);
        Ok(Self {
            content: None,
            size: piece.len() as u64,
            piece,
            start: 0,
        })
    }

    /// How many bytes go over the wire.
    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Whether the size may be told: that of text is not what a client will count.
    pub(super) const fn is_octets(&self) -> bool {
        self.content.is_some()
    }

    /// The bytes of `range`, where they are in memory.
    pub(super) fn get(&self, range: &Range<u64>) -> Option<&[u8]> {
        let start = range.start.checked_sub(self.start)?;
        let end = range.end.checked_sub(self.start)?;
        self.piece
            .get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
    }

    /// Brings the bytes from `start` on into memory.
    pub(super) async fn fetch(&mut self, start: u64) -> io::Result<()> {
        let Some(content) = self.content.clone() else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let length = self.size.saturating_sub(start).min(TFTP_READ_AHEAD as u64);
        let mut piece = std::mem::take(&mut self.piece);
        piece.resize(usize::try_from(length).unwrap_or(TFTP_READ_AHEAD), 0);
        // What is in memory is here sooner than another thread.
        if !content.read_now(&mut piece, start) {
            let read = move || content.read_at(&mut piece, start).map(|()| piece);
            piece = in_turn(read).await?;
        }
        self.piece = piece;
        self.start = start;
        Ok(())
    }
}
