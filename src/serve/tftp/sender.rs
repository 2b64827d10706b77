//! One transfer on a socket of its own.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;
use std::pin::Pin;
use std::time::Instant;

use tokio::net::UdpSocket;
use tokio::time::{Sleep, sleep_until};

use super::source::Source;
use crate::io::Conversation;
use crate::limits::{TFTP_BLOCK_MAX, TFTP_BLOCK_MIN};
use crate::status::FileStep;
use crate::tftp::terms::agree;
use crate::tftp::transfer::{Outcome, Transfer, Transmit};
use crate::tftp::wire::{DATA_HEADER, ErrorCode, Packet, Request, data_header, error, oack};

/// Bytes of the longest packet that a client has reason to send here.
const PACKET_MAX: usize = 512;

/// Bytes that IPv4 and UDP put before a packet of TFTP.
const HEADERS: usize = 28;

/// A socket that is connected to one client.
#[derive(Debug)]
pub(super) struct Line {
    conversation: Conversation,
    client: SocketAddrV4,
}

impl Line {
    /// A new port on our address `own`.
    ///
    /// RFC 1350, section 4: what comes from another port is "erroneously sent from somewhere else",
    /// and its sender is to be told. The kernel does so here, by ICMP, since the socket is
    /// connected.
    pub(super) async fn between(own: Ipv4Addr, client: SocketAddrV4) -> io::Result<Self> {
        let socket = UdpSocket::bind((own, 0)).await?;
        socket.connect(client).await?;
        let conversation = socket.into();
        Ok(Self {
            conversation,
            client,
        })
    }

    pub(super) const fn client(&self) -> SocketAddrV4 {
        self.client
    }

    /// Sends a packet. One that can't be sent is as good as one that was lost.
    pub(super) async fn send(&self, packet: &[u8]) {
        let _ = self.conversation.send(packet).await;
    }

    /// The largest block that goes to the client in one piece.
    fn block_max(&self) -> u16 {
        let most = self.conversation.packet_max().unwrap_or(usize::MAX);
        let block = most.saturating_sub(HEADERS + DATA_HEADER);
        let block = u16::try_from(block).unwrap_or(u16::MAX);
        block.clamp(TFTP_BLOCK_MIN, TFTP_BLOCK_MAX)
    }
}

/// A transfer, its file and its client.
#[derive(Debug)]
pub(super) struct Sender {
    line: Line,
    source: Source,
    transfer: Transfer,
    begun: Instant,
    /// It rings no later than the transfer's deadline.
    alarm: Pin<Box<Sleep>>,
    /// Packets that are sent together.
    packets: Vec<u8>,
}

impl Sender {
    pub(super) fn new(line: Line, source: Source, request: &Request<'_>) -> Self {
        let size = Some(source.size()).filter(|_| source.is_octets());
        let begun = Instant::now();
        let terms = agree(request, size, line.block_max());
        Self {
            transfer: Transfer::new(terms, source.size(), begun.elapsed()),
            packets: Vec::new(),
            alarm: Box::pin(sleep_until(begun.into())),
            line,
            source,
            begun,
        }
    }

    /// Sends the file at `path` to its end, and logs how that was. `None` where we failed.
    pub(super) async fn run(mut self, path: &str) -> (Option<Outcome>, FileStep) {
        let client = self.line.client;
        match self.send_all().await {
            Ok(outcome) => {
                self.report(path, outcome);
                (Some(outcome), self.step(outcome))
            }
            Err(error) => {
                tracing::warn!("tftp: {client}: {path}: {error}");
                let lost = wire_error("the file can't be read any more");
                self.line.send(&lost).await;
                (None, self.failed(error.to_string()))
            }
        }
    }

    /// What it means for the boot that it is a part of.
    fn step(&self, outcome: Outcome) -> FileStep {
        match outcome {
            Outcome::Complete | Outcome::Unconfirmed => FileStep::Sent(self.source.size()),
            Outcome::Probed | Outcome::Refused(_) => FileStep::Probed,
            Outcome::GaveUp => self.failed("the machine did not answer any more".to_owned()),
        }
    }

    fn failed(&self, why: String) -> FileStep {
        FileStep::Failed {
            sent: self.transfer.delivered(),
            why,
        }
    }

    fn report(&self, path: &str, outcome: Outcome) {
        let (client, took) = (self.line.client, self.begun.elapsed().as_millis());
        let (size, sent) = (self.source.size(), self.transfer.delivered());
        match outcome {
            Outcome::Complete => {
                tracing::info!("tftp: {client}: {path}: {size} bytes in {took} ms");
            }
            Outcome::Probed => tracing::info!("tftp: {client}: {path}: asked for its size"),
            Outcome::Unconfirmed => tracing::info!(
                "tftp: {client}: {path}: {size} bytes in {took} ms, the last not confirmed"
            ),
            Outcome::Refused(ErrorCode(code)) => tracing::info!(
                "tftp: {client}: {path}: ended by the client after {sent} of {size} bytes (error \
                 {code})"
            ),
            Outcome::GaveUp => tracing::warn!(
                "tftp: {client}: {path}: given up after {sent} of {size} bytes: no answer"
            ),
        }
    }

    async fn send_all(&mut self) -> io::Result<Outcome> {
        loop {
            while let Some(transmit) = self.transfer.poll_transmit() {
                match transmit {
                    Transmit::Oack => {
                        let packet = oack(&self.transfer.terms().agreed);
                        self.line.send(&packet).await;
                    }
                    Transmit::Blocks(blocks) => self.send_blocks(blocks).await?,
                }
            }
            match (self.transfer.outcome(), self.transfer.poll_timeout()) {
                (None, Some(deadline)) => self.wait(self.begun + deadline).await,
                (outcome, _) => return Ok(outcome.unwrap_or(Outcome::GaveUp)),
            }
        }
    }

    async fn send_blocks(&mut self, blocks: Range<u64>) -> io::Result<()> {
        self.packets.clear();
        for block in blocks {
            let range = self.transfer.bytes_of(block);
            if self.source.get(&range).is_none() {
                self.source.fetch(range.start).await?;
            }
            let bytes = self.source.get(&range).unwrap_or_default();
            self.packets.extend_from_slice(&data_header(block));
            self.packets.extend_from_slice(bytes);
        }
        let length = DATA_HEADER + usize::from(self.transfer.terms().block);
        // As in `Line::send`.
        let conversation = &mut self.line.conversation;
        let _ = conversation.send_many(&self.packets, length).await;
        Ok(())
    }

    /// Waits for the client, but not past `deadline`.
    async fn wait(&mut self, deadline: Instant) {
        let mut packet = [0; PACKET_MAX];
        let received = self.receive(&mut packet, deadline).await;
        let now = self.begun.elapsed();
        match received {
            None => self.transfer.handle_timeout(now),
            // ICMP says that the client's port is gone.
            Some(Err(_)) => self.transfer.handle_gone(),
            Some(Ok(length)) => match Packet::read(packet.get(..length).unwrap_or_default()) {
                Ok(Packet::Ack(number)) => self.transfer.handle_ack(now, number),
                Ok(Packet::Error(code, _)) => self.transfer.handle_error(code),
                _ => {}
            },
        }
    }

    /// The next packet, or nothing at `deadline`.
    async fn receive(&mut self, packet: &mut [u8], deadline: Instant) -> Option<io::Result<usize>> {
        // Deadlines move on with every packet. To set an alarm each time would take longer than to
        // see that it is too early when it rings.
        if deadline < self.alarm.deadline().into_std() {
            self.alarm.as_mut().reset(deadline.into());
        }
        loop {
            tokio::select! {
                biased;
                received = self.line.conversation.receive(packet) => return Some(received),
                () = self.alarm.as_mut() => {}
            }
            if Instant::now() >= deadline {
                return None;
            }
            self.alarm.as_mut().reset(deadline.into());
        }
    }
}

fn wire_error(why: &str) -> Vec<u8> {
    error(ErrorCode::UNDEFINED, why)
}
