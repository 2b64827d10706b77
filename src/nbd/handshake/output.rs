//! What a handshake sends and tells, in the order in which it comes about.

use super::states::State;
use super::{End, Event, TlsMode, Violation};
use crate::nbd::wire::{OptionCode, OptionReply, ReplyType};

/// What is to be sent and told, and what all states have to know.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) bytes: Vec<u8>,
    event: Option<Event>,
    pub(super) shutting_down: bool,
    pub(super) tls: TlsMode,
}

impl Output {
    pub(super) fn new(first: &[u8]) -> Self {
        Self {
            bytes: first.to_vec(),
            event: None,
            shutting_down: false,
            tls: TlsMode::Off,
        }
    }

    pub(super) fn take_bytes(&mut self) -> Option<Vec<u8>> {
        (!self.bytes.is_empty()).then(|| std::mem::take(&mut self.bytes))
    }

    pub(super) const fn take_event(&mut self) -> Option<Event> {
        self.event.take()
    }

    pub(super) fn reply(&mut self, option: OptionCode, reply: OptionReply<'_>) {
        reply.append_to(option, &mut self.bytes);
    }

    pub(super) fn refuse(&mut self, option: OptionCode, kind: ReplyType, message: &str) {
        self.reply(option, OptionReply::Error { kind, message });
    }

    pub(super) fn ask(&mut self, event: Event, waiting: State) -> State {
        self.event = Some(event);
        waiting
    }

    pub(super) fn end(&mut self, event: Event) -> State {
        self.ask(event, State::Over)
    }

    pub(super) fn close(&mut self, end: End) -> State {
        self.end(Event::Closed(end))
    }

    pub(super) fn violation(&mut self, violation: Violation) -> State {
        self.close(End::Violation(violation))
    }
}
