//! One transfer on a socket of its own.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;
use std::time::Instant;

use tokio::net::UdpSocket;
use tokio::time::timeout_at;

use super::source::Source;
use crate::status::FileStep;
use crate::tftp::terms::agree;
use crate::tftp::transfer::{Outcome, Transfer, Transmit};
use crate::tftp::wire::{DATA_HEADER, ErrorCode, Packet, Request, data_header, error, oack};

/// Bytes of the longest packet that a client has reason to send here.
const PACKET_MAX: usize = 512;

/// A socket that is connected to one client.
#[derive(Debug)]
pub(super) struct Line {
    socket: UdpSocket,
    client: SocketAddrV4,
}

impl Line {
    /// A new port on our address `own`.
    pub(super) async fn between(own: Ipv4Addr, client: SocketAddrV4) -> io::Result<Self> {
        let socket = UdpSocket::bind((own, 0)).await?;
        socket.connect(client).await?;
        Ok(Self { socket, client })
    }

    pub(super) const fn client(&self) -> SocketAddrV4 {
        self.client
    }

    /// Sends a packet. One that can't be sent is as good as one that was lost.
    pub(super) async fn send(&self, packet: &[u8]) {
        let _ = self.socket.send(packet).await;
    }
}

/// A transfer, its file and its client.
#[derive(Debug)]
pub(super) struct Sender {
    line: Line,
    source: Source,
    transfer: Transfer,
    begun: Instant,
    packet: Vec<u8>,
}

impl Sender {
    pub(super) fn new(line: Line, source: Source, request: &Request<'_>, block_max: u16) -> Self {
        let size = Some(source.size()).filter(|_| source.is_octets());
        let begun = Instant::now();
        let terms = agree(request, size, block_max);
        Self {
            transfer: Transfer::new(terms, source.size(), begun.elapsed()),
            packet: Vec::new(),
            line,
            source,
            begun,
        }
    }

    /// Sends the file at `path` to its end, and logs how that was.
    pub(super) async fn run(mut self, path: &str) -> FileStep {
        let client = self.line.client;
        match self.send_all().await {
            Ok(outcome) => {
                self.report(path, outcome);
                self.step(outcome)
            }
            Err(error) => {
                tracing::warn!("tftp: {client}: {path}: {error}");
                let lost = wire_error("the file can't be read any more");
                self.line.send(&lost).await;
                self.failed(error.to_string())
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
        for block in blocks {
            let range = self.transfer.bytes_of(block);
            if self.source.get(&range).is_none() {
                self.source.fetch(range.start).await?;
            }
            let bytes = self.source.get(&range).unwrap_or_default();
            self.packet.clear();
            self.packet.extend_from_slice(&data_header(block));
            self.packet.extend_from_slice(bytes);
            self.line.send(&self.packet).await;
        }
        Ok(())
    }

    /// Waits for the client, but not past `deadline`.
    async fn wait(&mut self, deadline: Instant) {
        let mut packet = [0; PACKET_MAX];
        let received = timeout_at(deadline.into(), self.line.socket.recv(&mut packet)).await;
        let now = self.begun.elapsed();
        match received {
            Err(_) => self.transfer.handle_timeout(now),
            // ICMP says that the client's port is gone.
            Ok(Err(_)) => self.transfer.handle_gone(),
            Ok(Ok(length)) => match Packet::read(packet.get(..length).unwrap_or_default()) {
                Ok(Packet::Ack(number)) => self.transfer.handle_ack(now, number),
                Ok(Packet::Error(code, _)) => self.transfer.handle_error(code),
                _ => {}
            },
        }
    }
}

fn wire_error(why: &str) -> Vec<u8> {
    error(ErrorCode::UNDEFINED, why)
}

const _: () = assert!(DATA_HEADER == 4);
