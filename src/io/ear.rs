//! Hears UDP datagrams to a port without having the port: whoever has it gets them all the same.
//!
//! It takes the right to raw sockets, as a packet socket does.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use tokio::io::unix::AsyncFd;

use super::datagram::watch;
use super::packet::{Packets, udp_datagram};

/// Which datagrams of a port are heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hears {
    /// Those to everybody.
    Broadcasts,
    /// Those to everybody, and those to this host.
    All,
}

/// An ear on one port of one interface.
#[derive(Debug)]
pub struct EarSocket(OwnedFd);

impl EarSocket {
    /// Opens it.
    ///
    /// # Errors
    /// What the kernel says; `PermissionDenied` without the right to raw sockets.
    pub fn open(interface: u32, port: u16, hears: Hears) -> io::Result<Self> {
        // Nothing may come in before the filter is there: first that, then the binding.
        Packets::open_filtered(interface, &filter(port, hears)).map(Self)
    }

    /// One that another process has opened.
    #[must_use]
    pub const fn passed(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Watches it. Inside of a runtime only.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn watched(self) -> io::Result<Ear> {
        watch(self.0).map(Ear)
    }
}

/// An [`EarSocket`] that a runtime watches.
#[derive(Debug)]
pub struct Ear(AsyncFd<OwnedFd>);

/// Bytes of a packet that are read; longer ones are cut.
pub const EAR_BYTES: usize = 2048;

impl Ear {
    /// Waits for a datagram; who sent it, and what it says.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn hear<'a>(
        &self,
        packet: &'a mut [u8; EAR_BYTES],
    ) -> io::Result<(SocketAddrV4, &'a [u8])> {
        loop {
            let mut ready = self.0.readable().await?;
            let read = ready.try_io(|descriptor| {
                let flags = rustix::net::RecvFlags::DONTWAIT;
                let read = rustix::net::recv(descriptor, &mut packet[..], flags);
                read.map_err(io::Error::from)
            });
            let Ok(read) = read else { continue };
            let (length, _) = read?;
            if let Some((from, inside)) = udp_datagram(packet.get(..length).unwrap_or_default()) {
                return Ok((from, packet.get(inside).unwrap_or_default()));
            }
        }
    }
}

impl AsFd for Ear {
    /// The descriptor, for another process.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// linux/filter.h: where a filter finds what the kernel knows of a packet beside its bytes.
const KIND_OF_PACKET: u32 = (-0x1000_i32 + 4).cast_unsigned();
/// linux/if_packet.h: to this host is 0, to everybody 1, and what is for others, or ours, above.
const TO_EVERYBODY: u32 = 1;

/// A filter in the kernel, so that no other traffic of the interface is copied. Offsets are of the
/// IPv4 header.
fn filter(port: u16, hears: Hears) -> [libc::sock_filter; 11] {
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let (load_word, load_half, load_byte) = (0x20, 0x28, 0x30);
    let (load_head_length, load_half_behind_head) = (0xb1, 0x48);
    let (if_equal, if_greater, if_bits, end) = (0x15, 0x25, 0x45, 0x06);
    [
        step(load_word, 0, 0, KIND_OF_PACKET),
        match hears {
            Hears::Broadcasts => step(if_equal, 0, 8, TO_EVERYBODY),
            Hears::All => step(if_greater, 8, 0, TO_EVERYBODY),
        },
        step(load_byte, 0, 0, 9),
        step(if_equal, 0, 6, 17),
        // All fragments but the first have no ports.
        step(load_half, 0, 0, 6),
        step(if_bits, 4, 0, 0x1fff),
        step(load_head_length, 0, 0, 0),
        step(load_half_behind_head, 0, 0, 2),
        step(if_equal, 0, 1, u32::from(port)),
        step(end, 0, 0, u32::MAX),
        step(end, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_jump_of_the_filter_is_to_its_end() {
        for hears in [Hears::Broadcasts, Hears::All] {
            let steps = filter(67, hears);
            for (index, step) in steps.iter().enumerate() {
                let longest = usize::from(step.jt.max(step.jf));
                assert!(
                    longest == 0 || index + 1 + longest == steps.len() - 1,
                    "{index}"
                );
            }
        }
    }
}
