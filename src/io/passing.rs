//! Bytes together with open descriptors, between two processes of one host.
//!
//! Invariants: descriptors arrive with the first byte that they were sent with; those that are
//! received are closed on exec, and closed by whoever gets them too many.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Descriptors that go with one message.
pub const PASSED_TOGETHER_MAX: usize = 8;

const CONTROL_BYTES: usize = rustix::cmsg_space!(ScmRights(PASSED_TOGETHER_MAX));

/// Sends all of `bytes`, and `descriptors` with the first of them, over a unix socket.
///
/// # Errors
/// What the kernel says; `InvalidInput` for too many descriptors, or some without any bytes.
pub fn send_passing(
    socket: impl AsFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let has_too_many = descriptors.len() > PASSED_TOGETHER_MAX;
    if has_too_many || (bytes.is_empty() && !descriptors.is_empty()) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
    let mut rest = bytes;
    while !rest.is_empty() {
        let mut control = SendAncillaryBuffer::new(&mut space);
        if rest.len() == bytes.len() && !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        match sendmsg(
            &socket,
            &[IoSlice::new(rest)],
            &mut control,
            SendFlags::NOSIGNAL,
        ) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A descriptor that this process was started with, for whoever was told its number and has told
/// nobody else.
#[must_use]
pub fn inherited_descriptor(number: RawFd) -> OwnedFd {
    // SAFETY: whoever starts a process says by LISTEN_FDS which descriptors are its own. listenfd
    // gives each of these numbers away once, and nothing else of the process knows them.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Receives some bytes, at least one but at the end of the stream, and adds the descriptors that
/// come with them to `descriptors`.
///
/// # Errors
/// What the kernel says; `ConnectionReset` where the peer has ended with bytes of ours unread.
pub fn receive_passing(
    socket: &UnixStream,
    into: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
    loop {
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(into)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = match recvmsg(socket, &mut parts, &mut control, flags) {
            Err(Errno::INTR) => continue,
            other => other?,
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                descriptors.extend(passed);
            }
        }
        return match received.flags.contains(ReturnFlags::CTRUNC) {
            true => Err(io::Error::other("a descriptor could not be received")),
            false => Ok(received.bytes),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_descriptor_arrives_with_the_bytes_that_it_was_sent_with() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut left, right) = UnixStream::pair().unwrap();
        send_passing(&ours, b"none", &[]).unwrap();
        send_passing(&ours, b"one", &[right.as_fd()]).unwrap();
        drop(right);
        let (mut bytes, mut passed) = ([0; 4], Vec::new());
        assert_eq!(
            receive_passing(&theirs, &mut bytes, &mut passed).unwrap(),
            4
        );
        assert!(passed.is_empty());
        assert_eq!(
            receive_passing(&theirs, &mut bytes, &mut passed).unwrap(),
            3
        );
        let mut right = UnixStream::from(passed.pop().unwrap());
        left.write_all(b"x").unwrap();
        right.read_exact(&mut bytes[..1]).unwrap();
        assert_eq!(bytes[0], b'x');
    }

    /// The point of no return of a take-over is told apart by this.
    #[test]
    fn a_peer_that_ends_with_bytes_unread_is_told_from_one_that_has_read_them() {
        let ended = |read: usize| {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            send_passing(&ours, b"word", &[]).unwrap();
            theirs.read_exact(&mut vec![0; read]).unwrap();
            drop(theirs);
            let got = receive_passing(&ours, &mut [0; 1], &mut Vec::new());
            got.map_err(|error| error.kind())
        };
        assert_eq!(ended(4), Ok(0));
        for read in 0..4 {
            assert_eq!(ended(read), Err(io::ErrorKind::ConnectionReset));
        }
    }

    #[test]
    fn more_descriptors_than_fit_are_not_sent() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let many = vec![ours.as_fd(); PASSED_TOGETHER_MAX + 1];
        assert!(send_passing(&ours, b"x", &many).is_err());
        assert!(send_passing(&ours, b"", &many[..1]).is_err());
    }
}
