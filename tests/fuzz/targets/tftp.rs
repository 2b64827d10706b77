//! Any request, and then any packets and silences, to a server of one file.
//!
//! Promises: what is granted was asked for and is no more than that; no block is sent that there is
//! none of, nor more than a window behind what was acknowledged; without windows, a block is sent
//! again only when nobody answered; every transfer ends.

use std::collections::BTreeMap;
use std::time::Duration;

use cowherd::limits::{TFTP_BLOCK_MAX, TFTP_BLOCK_MIN, TFTP_WINDOW_MAX};
use cowherd::tftp::name::path_of;
use cowherd::tftp::terms::{Terms, agree};
use cowherd::tftp::transfer::{Outcome, Transfer, Transmit};
use cowherd::tftp::wire::{self, Packet, Request};

use super::Input;

/// A transfer, and what is known of it without its help.
struct Watched {
    transfer: Transfer,
    window: u64,
    now: Duration,
    /// How often each block was sent.
    sent: BTreeMap<u64, u64>,
    timeouts: u64,
}

fn check_terms(request: &Request<'_>, terms: &Terms) {
    let number = |value: &[u8]| std::str::from_utf8(value).ok()?.parse::<u64>().ok();
    for (name, granted) in &terms.agreed {
        let same = request.options.iter().filter(|(own, _)| own == name);
        let asked = same.filter_map(|(_, value)| number(value)).max();
        let asked = asked.expect("it was asked for");
        let is_size = name.eq_ignore_ascii_case(b"tsize");
        assert!(
            is_size || *granted <= asked,
            "{name:?}: {granted} for {asked}"
        );
    }
    let packet = wire::oack(&terms.agreed);
    assert!(
        packet.len() <= 2048,
        "as long as the request at most, and its numbers"
    );
    assert!(terms.window >= 1 && terms.window <= TFTP_WINDOW_MAX);
    assert!(terms.block >= TFTP_BLOCK_MIN && terms.block <= TFTP_BLOCK_MAX);
}

impl Watched {
    fn poll(&mut self) {
        let mut turns = 0;
        while let Some(transmit) = self.transfer.poll_transmit() {
            turns += 1;
            assert!(turns < 10, "it sends without an end");
            let Transmit::Blocks(blocks) = transmit else {
                continue;
            };
            assert!(blocks.end - blocks.start <= self.window);
            for block in blocks {
                assert!((1..=self.transfer.blocks()).contains(&block));
                let range = self.transfer.bytes_of(block);
                assert!(range.end - range.start <= u64::from(self.transfer.terms().block));
                *self.sent.entry(block).or_default() += 1;
            }
        }
        let last = self.sent.keys().last().copied().unwrap_or_default();
        let has = self.transfer.delivered() / u64::from(self.transfer.terms().block);
        assert!(
            last <= has + 1 + self.window,
            "{last} is far ahead of {has}"
        );
        if self.window == 1 {
            let most = self.sent.values().max().copied().unwrap_or_default();
            assert!(most <= 1 + self.timeouts, "sent {most} times");
        }
    }

    /// Silence to the end: it gives up in bounded time.
    fn abandon(&mut self) {
        let begun = self.now;
        while let Some(deadline) = self.transfer.poll_timeout() {
            self.timeouts += 1;
            self.transfer.handle_timeout(deadline);
            self.now = deadline;
            self.poll();
        }
        assert!(self.now - begun < Duration::from_secs(1000));
        assert!(self.transfer.outcome().is_some());
    }
}

/// `size[3] request-length[2] request`, and then for each event: what it is, and a number or a
/// datagram.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input(data);
    let [a, b, c] = input.array();
    let size = u64::from(u32::from_be_bytes([0, a, b, c]));
    let length = usize::from(u16::from_be_bytes(input.array()));
    let Ok(Packet::Read(request)) = Packet::read(input.bytes(length)) else {
        return;
    };
    if let Ok(path) = path_of(request.name) {
        let is_plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        assert!(path.split('/').all(is_plain), "{path:?}");
    }
    let terms = agree(&request, Some(size), TFTP_BLOCK_MAX);
    check_terms(&request, &terms);
    let mut watched = Watched {
        window: terms.window.into(),
        transfer: Transfer::new(terms, size, Duration::ZERO),
        now: Duration::ZERO,
        sent: BTreeMap::new(),
        timeouts: 0,
    };
    watched.poll();
    while !input.0.is_empty() && watched.transfer.outcome().is_none() {
        let [what, value] = input.array();
        watched.now += Duration::from_millis(u64::from(value));
        let now = watched.now;
        let last = watched.sent.keys().last().copied().unwrap_or_default();
        match what % 4 {
            // The last block that was sent, or one shortly before it.
            0 => {
                let block = last.saturating_sub(u64::from(value % 8));
                watched.transfer.handle_ack(now, (block & 0xffff) as u16);
            }
            1 => {
                let number = u16::from_be_bytes(input.array());
                watched.transfer.handle_ack(now, number);
            }
            2 => {
                watched.now = watched.transfer.poll_timeout().unwrap_or(now).max(now);
                watched.timeouts += 1;
                watched.transfer.handle_timeout(watched.now);
            }
            _ => match Packet::read(input.bytes(usize::from(value) % 8)) {
                Ok(Packet::Ack(number)) => watched.transfer.handle_ack(now, number),
                Ok(Packet::Error(code, _)) => watched.transfer.handle_error(code),
                _ => {}
            },
        }
        watched.poll();
    }
    watched.abandon();
    if watched.transfer.outcome() == Some(Outcome::Complete) {
        assert_eq!(watched.transfer.delivered(), size);
    }
}
