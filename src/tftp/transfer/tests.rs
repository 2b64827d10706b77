//! Transfers in virtual time, to clients that are good, odd, or behind a bad network.

use proptest::prelude::*;

use super::*;

const START: Duration = Duration::from_secs(1000);

fn terms(block: u16, window: u16) -> Terms {
    let agreed = vec![(b"windowsize".to_vec(), window.into())];
    Terms {
        block,
        window,
        timeout: None,
        agreed: if window > 1 { agreed } else { Vec::new() },
    }
}

/// A transfer past its options.
fn sending(block: u16, window: u16, size: u64) -> Transfer {
    let mut transfer = Transfer::new(terms(block, window), size, START);
    if window > 1 {
        assert_eq!(transfer.poll_transmit(), Some(Transmit::Oack));
        transfer.handle_ack(START, 0);
    }
    transfer
}

fn sent(transfer: &mut Transfer) -> Vec<u64> {
    let mut blocks = Vec::new();
    while let Some(Transmit::Blocks(range)) = transfer.poll_transmit() {
        blocks.extend(range);
    }
    blocks
}

#[test]
fn without_options_the_first_block_goes_out_at_once() {
    let mut transfer = sending(512, 1, 600);
    assert_eq!(sent(&mut transfer), [1]);
    transfer.handle_ack(START, 1);
    assert_eq!(sent(&mut transfer), [2]);
    transfer.handle_ack(START, 2);
    assert_eq!(transfer.outcome(), Some(Outcome::Complete));
}

#[test]
fn a_file_of_whole_blocks_ends_with_an_empty_one() {
    for (size, last) in [(0, 0..0), (511, 0..511), (512, 512..512), (513, 512..513)] {
        let transfer = sending(512, 1, size);
        assert_eq!(transfer.bytes_of(transfer.blocks()), last, "{size}");
    }
}

#[test]
fn options_are_told_until_the_client_agrees() {
    let mut transfer = Transfer::new(terms(512, 4), 5000, START);
    assert_eq!(transfer.poll_transmit(), Some(Transmit::Oack));
    assert_eq!(transfer.poll_transmit(), None);
    transfer.handle_timeout(transfer.poll_timeout().unwrap());
    assert_eq!(transfer.poll_transmit(), Some(Transmit::Oack));
    transfer.handle_ack(START, 0);
    assert_eq!(sent(&mut transfer), [1, 2, 3, 4]);
}

#[test]
fn a_client_that_only_asks_is_no_failure() {
    for code in [ErrorCode::OPTIONS, ErrorCode::UNDEFINED] {
        let mut transfer = Transfer::new(terms(512, 4), 5000, START);
        transfer.poll_transmit();
        transfer.handle_error(code);
        assert_eq!(transfer.outcome(), Some(Outcome::Probed));
    }
}

#[test]
fn a_client_that_stops_in_the_middle_has_refused() {
    let mut transfer = sending(512, 4, 50_000);
    sent(&mut transfer);
    transfer.handle_error(ErrorCode::UNDEFINED);
    let refused = Outcome::Refused(ErrorCode::UNDEFINED);
    assert_eq!(transfer.outcome(), Some(refused));
    assert_eq!(transfer.poll_timeout(), None);
}

#[test]
fn copies_of_an_ack_send_nothing_twice() {
    let mut transfer = sending(512, 1, 50_000);
    sent(&mut transfer);
    transfer.handle_ack(START, 1);
    assert_eq!(sent(&mut transfer), [2]);
    transfer.handle_ack(START, 1);
    transfer.handle_ack(START, 0);
    assert_eq!(sent(&mut transfer), Vec::<u64>::new());
}

#[test]
fn a_window_goes_on_from_the_block_that_a_client_has() {
    let mut transfer = sending(512, 8, 50_000);
    assert_eq!(sent(&mut transfer), [1, 2, 3, 4, 5, 6, 7, 8]);
    transfer.handle_ack(START, 3);
    assert_eq!(sent(&mut transfer), [4, 5, 6, 7, 8, 9, 10, 11]);
}

#[test]
fn a_window_whose_first_block_was_lost_is_sent_again_once() {
    let mut transfer = sending(512, 4, 50_000);
    sent(&mut transfer);
    transfer.handle_ack(START, 4);
    assert_eq!(sent(&mut transfer), [5, 6, 7, 8]);
    transfer.handle_ack(START, 4);
    assert_eq!(sent(&mut transfer), [5, 6, 7, 8]);
    transfer.handle_ack(START, 4);
    assert_eq!(sent(&mut transfer), Vec::<u64>::new());
}

/// Plays a whole transfer to a client that answers every block it does not expect with its last ACK
/// again, as EDK2 does; the n-th packet to it comes so often as `copies` says. How many were sent.
fn to_edk2(window: u16, blocks: u64, copies: impl Fn(u64) -> usize) -> u64 {
    let mut transfer = sending(8, window, (blocks - 1) * 8);
    let (mut has, mut unacked, mut count) = (0, 0, 0);
    let mut wire = std::collections::VecDeque::new();
    let mut now = START;
    while transfer.outcome().is_none() {
        for block in sent(&mut transfer) {
            count += 1;
            wire.extend(std::iter::repeat_n(block, copies(count)));
        }
        let Some(block) = wire.pop_front() else {
            now = transfer.poll_timeout().unwrap();
            transfer.handle_timeout(now);
            continue;
        };
        let is_next = block == has + 1;
        if is_next {
            has = block;
            unacked += 1;
        }
        if !is_next || unacked == window || has == blocks {
            unacked = 0;
            transfer.handle_ack(now, u16::try_from(has).unwrap());
        }
    }
    assert_eq!((transfer.outcome(), has), (Some(Outcome::Complete), blocks));
    count
}

#[test]
fn a_block_that_is_lost_has_one_window_sent_again_and_not_all_that_follow() {
    for window in [2, 4, 16, 64] {
        for lost in 1..=u64::from(window) + 1 {
            let count = to_edk2(window, 2000, |packet| usize::from(packet != lost));
            assert!(
                count <= 2000 + u64::from(window),
                "{window}, {lost}: {count}"
            );
        }
    }
}

#[test]
fn a_block_that_comes_twice_has_at_most_one_window_sent_again() {
    for window in [1, 2, 4, 16, 64] {
        for doubled in 1..=u64::from(window) + 1 {
            let count = to_edk2(window, 2000, |packet| 1 + usize::from(packet == doubled));
            let again = if window == 1 { 0 } else { u64::from(window) };
            assert!(count <= 2000 + again, "{window}, {doubled}: {count}");
        }
    }
}

#[test]
fn a_client_that_names_a_long_timeout_is_not_waited_for_much_longer_than_others() {
    let minutes = Terms {
        timeout: Some(Duration::from_secs(255)),
        ..terms(512, 1)
    };
    let mut transfer = Transfer::new(minutes, 5000, START);
    let mut last = START;
    while let Some(deadline) = transfer.poll_timeout() {
        last = deadline;
        transfer.handle_timeout(deadline);
    }
    assert_eq!(last, START + Duration::from_secs(510));
}

#[test]
fn an_ack_of_long_ago_or_of_nothing_changes_nothing() {
    let mut transfer = sending(512, 4, 50_000);
    sent(&mut transfer);
    transfer.handle_ack(START, 4);
    assert_eq!(sent(&mut transfer), [5, 6, 7, 8]);
    for number in [3, 0, 9, 65_535] {
        transfer.handle_ack(START, number);
        assert_eq!(sent(&mut transfer), Vec::<u64>::new(), "{number}");
    }
    assert_eq!(transfer.delivered(), 4 * 512);
}

#[test]
fn blocks_past_65535_go_on_from_0() {
    let mut transfer = sending(8, 1, 8 * 200_000);
    for block in 1..=200_001_u64 {
        assert_eq!(sent(&mut transfer), [block]);
        let [.., high, low] = block.to_be_bytes();
        transfer.handle_ack(START, u16::from_be_bytes([high, low]));
    }
    assert_eq!(transfer.outcome(), Some(Outcome::Complete));
}

#[test]
fn a_silent_client_is_given_up_in_bounded_time() {
    let mut transfer = sending(512, 1, 50_000);
    let mut tries = 0;
    while let Some(deadline) = transfer.poll_timeout() {
        tries += sent(&mut transfer).len();
        transfer.handle_timeout(deadline);
        assert!(deadline < START + Duration::from_secs(120));
    }
    assert_eq!(tries, TFTP_TRIES_MAX as usize + 1);
    assert_eq!(transfer.outcome(), Some(Outcome::GaveUp));
}

#[test]
fn a_last_ack_that_was_lost_is_not_a_failure() {
    let mut transfer = sending(512, 1, 100);
    while let Some(deadline) = transfer.poll_timeout() {
        sent(&mut transfer);
        transfer.handle_timeout(deadline);
    }
    assert_eq!(transfer.outcome(), Some(Outcome::Unconfirmed));
}

#[test]
fn a_client_that_names_a_timeout_is_asked_again_after_just_that() {
    let second = Duration::from_secs(1);
    let told = Terms {
        timeout: Some(6 * second),
        ..terms(512, 1)
    };
    let mut transfer = Transfer::new(told, 5000, START);
    assert_eq!(transfer.poll_timeout(), Some(START + 6 * second));
    transfer.handle_timeout(START + 6 * second);
    assert_eq!(transfer.poll_timeout(), Some(START + 12 * second));
}

/// What a network does to a packet: how many copies of it arrive, and how much later.
#[derive(Clone, Copy, Debug)]
struct Fate {
    copies: usize,
    delay: u64,
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = (
        prop_oneof![6 => Just(1_usize), 2 => Just(0), 1 => Just(2)],
        1..40_u64,
    )
        .prop_map(|(copies, delay)| Fate { copies, delay });
    prop::collection::vec(fate, 1..400)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A block arrives at the client.
    Block(u64),
    /// An ACK arrives at the server.
    Ack(u64),
    /// The client has waited long enough for the n-th time it began to wait.
    ClientTimeout(u64),
}

/// A client as RFC 7440 has it, and the network between.
struct World {
    transfer: Transfer,
    events: std::collections::BTreeSet<(Duration, u64, Event)>,
    fates: std::iter::Cycle<std::vec::IntoIter<Fate>>,
    numbers: u64,
    /// The last block of the client's file.
    has: u64,
    /// Blocks since its last ACK.
    unacked: u64,
    gap_told: bool,
    waits: u64,
    is_done: bool,
}

impl World {
    fn at(&mut self, moment: Duration, event: Event) {
        self.numbers += 1;
        self.events.insert((moment, self.numbers, event));
    }

    fn deliver(&mut self, now: Duration, event: Event) {
        let fate = self.fates.next().unwrap();
        for copy in 0..fate.copies as u64 {
            self.at(now + Duration::from_millis(fate.delay * (copy + 1)), event);
        }
    }

    fn ack(&mut self, now: Duration) {
        self.unacked = 0;
        self.deliver(now, Event::Ack(self.has));
        self.waits += 1;
        self.at(
            now + Duration::from_millis(1500),
            Event::ClientTimeout(self.waits),
        );
    }

    fn receive(&mut self, now: Duration, block: u64) {
        if block != self.has + 1 {
            // Told once, until it goes on: a client need not do more.
            if !std::mem::replace(&mut self.gap_told, true) {
                self.ack(now);
            }
            return;
        }
        self.has = block;
        self.gap_told = false;
        self.unacked += 1;
        self.is_done |= block == self.transfer.blocks();
        if self.is_done || self.unacked >= u64::from(self.transfer.terms().window) {
            self.ack(now);
        }
    }

    fn blocks(&self) -> u32 {
        u32::try_from(self.transfer.blocks()).unwrap()
    }

    fn flush(&mut self, now: Duration) {
        for block in sent(&mut self.transfer) {
            self.deliver(now, Event::Block(block));
        }
    }

    /// Runs to the end of the transfer.
    fn run(&mut self) {
        self.flush(START);
        while let Some(deadline) = self.transfer.poll_timeout() {
            let first = self.events.first().copied();
            let Some((now, number, event)) = first.filter(|(at, ..)| *at < deadline) else {
                self.transfer.handle_timeout(deadline);
                self.flush(deadline);
                continue;
            };
            self.events.remove(&(now, number, event));
            match event {
                Event::Block(block) => self.receive(now, block),
                Event::Ack(block) => {
                    let [.., high, low] = block.to_be_bytes();
                    self.transfer
                        .handle_ack(now, u16::from_be_bytes([high, low]));
                }
                Event::ClientTimeout(wait) if wait == self.waits && !self.is_done => self.ack(now),
                Event::ClientTimeout(_) => {}
            }
            self.flush(now);
            // For each block no more than all tries.
            let bound = TFTP_PATIENCE_MAX * (TFTP_TRIES_MAX + 1) * (self.blocks() + 1);
            assert!(now < START + bound, "bounded time");
        }
    }
}

proptest! {
    #[test]
    fn behind_a_bad_network_a_file_arrives_whole_or_is_given_up(
        fates in fates(),
        window in 1..10_u16,
        size in 0..3000_u64,
    ) {
        let mut world = World {
            transfer: sending(8, window, size),
            events: Default::default(),
            fates: fates.into_iter().cycle(),
            numbers: 0,
            has: 0,
            unacked: 0,
            gap_told: false,
            waits: 0,
            is_done: false,
        };
        world.run();
        match world.transfer.outcome() {
            Some(Outcome::Complete) => prop_assert!(world.is_done),
            Some(Outcome::Unconfirmed | Outcome::GaveUp) => {}
            other => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn no_sequence_of_acks_and_timeouts_sends_what_is_not_there(
        acks in prop::collection::vec((any::<u16>(), any::<bool>()), 0..200),
        window in 1..70_u16,
        size in 0..100_000_u64,
    ) {
        let mut transfer = sending(8, window, size);
        let mut now = START;
        for (number, is_timeout) in acks {
            for block in sent(&mut transfer) {
                prop_assert!((1..=transfer.blocks()).contains(&block));
            }
            now += Duration::from_millis(100);
            match is_timeout {
                true => transfer.handle_timeout(now),
                false => transfer.handle_ack(now, number),
            }
        }
    }
}
