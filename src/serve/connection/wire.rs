//! The stream of a handshake: plain at first, and through TLS once that was started.
//!
//! Invariant: what came before TLS was started is never among what comes after.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Failed, Stream};
use crate::tls::{Channel, Reading};

/// Bytes that one read of a handshake takes at most.
const READ_BYTES: usize = 16 * 1024;

/// A stream, and what encrypts it.
pub(super) struct Wire<S> {
    stream: S,
    channel: Option<Channel>,
}

impl<S: Stream> Wire<S> {
    pub(super) const fn new(stream: S) -> Self {
        let channel = None;
        Self { stream, channel }
    }

    /// Sends all of `bytes`.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), Failed> {
        match &mut self.channel {
            None => self.stream.write_all(bytes).await?,
            Some(channel) => {
                channel.write(bytes);
                self.transmit().await?;
            }
        }
        Ok(())
    }

    /// Waits for bytes and appends what comes of them, perhaps nothing, to `into`.
    pub(super) async fn receive(&mut self, into: &mut Vec<u8>) -> Result<(), Failed> {
        let mut buffer = [0; READ_BYTES];
        let count = match self.stream.read(&mut buffer).await? {
            0 => return Err(Failed::Left),
            count => count,
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        match &mut self.channel {
            None => into.extend_from_slice(bytes),
            Some(channel) => decrypt(channel, bytes, into)?,
        }
        Ok(())
    }

    /// Agrees with the client on keys; from then on all is encrypted.
    /// What comes with the last of them is in `into`.
    pub(super) async fn start_tls(
        &mut self,
        channel: Channel,
        into: &mut Vec<u8>,
    ) -> Result<&Channel, Failed> {
        self.channel = Some(channel);
        into.clear();
        while self.channel.as_ref().is_some_and(Channel::is_handshaking) {
            let received = self.receive(into).await;
            // Also what is wrong, if anything is.
            self.transmit().await?;
            received?;
        }
        self.channel.as_ref().ok_or(Failed::Left)
    }

    async fn transmit(&mut self) -> Result<(), Failed> {
        let mut bytes = Vec::new();
        if let Some(channel) = &mut self.channel {
            channel.poll_transmit(&mut bytes);
        }
        Ok(self.stream.write_all(&bytes).await?)
    }

    /// Says good-bye.
    pub(super) async fn close(&mut self) {
        if let Some(channel) = &mut self.channel {
            channel.close();
        }
        // A client that is gone does not mind.
        let _ = self.transmit().await;
        let _ = self.stream.shutdown().await;
    }

    /// The bare socket, and what encrypts it.
    pub(super) fn into_parts(self) -> std::io::Result<(std::os::fd::OwnedFd, Option<Channel>)> {
        Ok((self.stream.into_descriptor()?, self.channel))
    }
}

fn decrypt(channel: &mut Channel, mut bytes: &[u8], into: &mut Vec<u8>) -> Result<(), Failed> {
    let mut buffer = [0; READ_BYTES];
    loop {
        let taken = channel.handle_received(bytes)?;
        bytes = bytes.get(taken..).unwrap_or_default();
        let mut read = 0;
        loop {
            match channel.read(&mut buffer) {
                Reading::Bytes(count) => {
                    into.extend_from_slice(buffer.get(..count).unwrap_or_default());
                    read += count;
                }
                Reading::Nothing => break,
                Reading::End => return Err(Failed::Left),
            }
        }
        if bytes.is_empty() || taken + read == 0 {
            return Ok(());
        }
    }
}
