//! The DHCP packets of a capture: pcap files (libpcap's, not pcapng) of Ethernet, Linux "cooked"
//! and bare IP.
//!
//! Invariant: whatever a file holds, reading it takes memory for one packet.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddrV4};

use thiserror::Error;

use crate::limits::CAPTURED_PACKET_MAX;

/// A UDP datagram to a port of DHCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    /// Which of the capture, from 1.
    pub(super) number: u64,
    /// Milliseconds since the first packet.
    pub(super) millis: u64,
    pub(super) from: SocketAddrV4,
    pub(super) to: SocketAddrV4,
    pub(super) payload: Vec<u8>,
}

/// Why a capture can't be read.
#[derive(Debug, Error)]
pub(super) enum CaptureError {
    #[error("{0}")]
    Read(#[from] io::Error),
    #[error("a pcapng file; make a pcap file of it with: editcap -F pcap IN OUT")]
    Pcapng,
    #[error("no pcap file; make one with: tcpdump -w FILE port 67 or port 68 or port 4011")]
    NoCapture,
    #[error("packets of link type {0}, which are not read here; capture on an Ethernet interface")]
    LinkType(u32),
    #[error("packet {0} is said to have {1} bytes: the file is damaged")]
    Length(u64, u32),
}

/// How packets begin.
#[derive(Clone, Copy, Debug)]
enum Link {
    Ethernet,
    Cooked,
    Bare,
}

/// Reads a capture packet by packet.
#[derive(Debug)]
pub(super) struct Reader<R> {
    from: R,
    is_big: bool,
    /// Parts of a second in the second number of a time, for one millisecond.
    per_milli: u64,
    link: Link,
    number: u64,
    first: Option<u64>,
}

/// Bytes of the header of a file, and of that of a packet.
const FILE_HEAD: usize = 24;
const PACKET_HEAD: usize = 16;

impl<R: Read> Reader<R> {
    pub(super) fn new(mut from: R) -> Result<Self, CaptureError> {
        let mut head = [0; FILE_HEAD];
        if !filled(&mut from, &mut head)? {
            return Err(CaptureError::NoCapture);
        }
        // draft-ietf-opsawg-pcap: the magic number tells the order of bytes and the unit of times.
        let (is_big, per_milli) = match head {
            [0xa1, 0xb2, 0xc3, 0xd4, ..] => (true, 1000),
            [0xd4, 0xc3, 0xb2, 0xa1, ..] => (false, 1000),
            [0xa1, 0xb2, 0x3c, 0x4d, ..] => (true, 1_000_000),
            [0x4d, 0x3c, 0xb2, 0xa1, ..] => (false, 1_000_000),
            [0x0a, 0x0d, 0x0d, 0x0a, ..] => return Err(CaptureError::Pcapng),
            _ => return Err(CaptureError::NoCapture),
        };
        let [.., a, b, c, d] = head;
        // The upper bits may tell of checksums at the end of frames.
        let link = match number(is_big, [a, b, c, d]) & 0xffff {
            1 => Link::Ethernet,
            113 => Link::Cooked,
            101 => Link::Bare,
            other => return Err(CaptureError::LinkType(other)),
        };
        Ok(Self {
            from,
            is_big,
            per_milli,
            link,
            number: 0,
            first: None,
        })
    }

    /// The next packet of DHCP; `None` at the end, which may cut a packet off.
    pub(super) fn next_dhcp(&mut self) -> Result<Option<Packet>, CaptureError> {
        while let Some((millis, bytes)) = self.next_packet()? {
            if let Some((from, to, payload)) = datagram(self.link, &bytes) {
                return Ok(Some(Packet {
                    number: self.number,
                    millis,
                    from,
                    to,
                    payload: payload.to_vec(),
                }));
            }
        }
        Ok(None)
    }

    fn next_packet(&mut self) -> Result<Option<(u64, Vec<u8>)>, CaptureError> {
        let mut head = [0; PACKET_HEAD];
        if !filled(&mut self.from, &mut head)? {
            return Ok(None);
        }
        self.number += 1;
        let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = head;
        let seconds = u64::from(number(self.is_big, [a, b, c, d]));
        let parts = u64::from(number(self.is_big, [e, f, g, h]));
        let length = number(self.is_big, [i, j, k, l]);
        let size = usize::try_from(length).unwrap_or(usize::MAX);
        if size > CAPTURED_PACKET_MAX {
            return Err(CaptureError::Length(self.number, length));
        }
        let mut bytes = vec![0; size];
        if !filled(&mut self.from, &mut bytes)? {
            return Ok(None);
        }
        let millis = seconds * 1000 + parts / self.per_milli;
        let first = *self.first.get_or_insert(millis);
        Ok(Some((millis.saturating_sub(first), bytes)))
    }
}

/// Fills `bytes`; whether there were as many.
fn filled(from: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn number(is_big: bool, bytes: [u8; 4]) -> u32 {
    match is_big {
        true => u32::from_be_bytes(bytes),
        #[allow(
            clippy::little_endian_bytes,
            reason = "the file says in which order it is"
        )]
        false => u32::from_le_bytes(bytes),
    }
}

/// EtherTypes.
const IPV4: [u8; 2] = [8, 0];
const VLANS: [[u8; 2]; 2] = [[0x81, 0], [0x88, 0xa8]];

/// The UDP datagram in a packet, where it is one to a port of DHCP.
fn datagram(link: Link, packet: &[u8]) -> Option<(SocketAddrV4, SocketAddrV4, &[u8])> {
    let ip = match link {
        Link::Bare => packet,
        Link::Cooked => of_type(packet.get(14..)?)?,
        Link::Ethernet => of_type(packet.get(12..)?)?,
    };
    let (head, _) = ip.split_first_chunk::<20>()?;
    let [
        first,
        _,
        long,
        short,
        _,
        _,
        flags,
        offset,
        _,
        protocol,
        _,
        _,
        a,
        b,
        c,
        d,
        e,
        f,
        g,
        h,
    ] = *head;
    let is_whole = flags & 0x3f == 0 && offset == 0;
    if first >> 4 != 4 || protocol != 17 || !is_whole {
        return None;
    }
    // What is behind the packet fills up a short frame.
    let ip = ip.get(..usize::from(u16::from_be_bytes([long, short])))?;
    let udp = ip.get(usize::from(first & 15) * 4..)?;
    let (ports, payload) = udp.split_first_chunk::<8>()?;
    let [from, from_low, to, to_low, length, length_low, ..] = *ports;
    let length = usize::from(u16::from_be_bytes([length, length_low]));
    let payload = payload.get(..length.checked_sub(8)?)?;
    let from = SocketAddrV4::new([a, b, c, d].into(), u16::from_be_bytes([from, from_low]));
    let to = SocketAddrV4::new(
        Ipv4Addr::from([e, f, g, h]),
        u16::from_be_bytes([to, to_low]),
    );
    [67, 68, 4011]
        .contains(&to.port())
        .then_some((from, to, payload))
}

/// What follows an EtherType, and tags of virtual networks before it, where that is IPv4.
fn of_type(mut rest: &[u8]) -> Option<&[u8]> {
    // Two tags is all there is.
    for _ in 0..3 {
        let (kind, behind) = rest.split_first_chunk::<2>()?;
        if *kind == IPV4 {
            return Some(behind);
        }
        rest = VLANS.contains(kind).then(|| behind.get(2..)).flatten()?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet of DHCP on Ethernet with this payload.
    fn frame(tags: &[u8], payload: &[u8]) -> Vec<u8> {
        let udp = u16::try_from(8 + payload.len()).unwrap();
        let mut frame = vec![0xff; 12];
        frame.extend(tags);
        frame.extend(IPV4);
        frame.extend([0x45, 0]);
        frame.extend((udp + 20).to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255]);
        frame.extend([0, 68, 0, 67]);
        frame.extend(udp.to_be_bytes());
        frame.extend([0, 0]);
        frame.extend(payload);
        frame
    }

    /// A capture of these packets, one a second.
    fn capture(packets: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![0xa1, 0xb2, 0xc3, 0xd4, 0, 2, 0, 4];
        bytes.extend([0; 12]);
        bytes.extend([0, 0, 0, 1]);
        for (second, packet) in (5_u32..).zip(packets) {
            let length = u32::try_from(packet.len()).unwrap().to_be_bytes();
            bytes.extend([second.to_be_bytes(), [0; 4], length, length].concat());
            bytes.extend(packet);
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<(u64, u64, Vec<u8>)>, CaptureError> {
        let mut reader = Reader::new(bytes)?;
        let mut all = Vec::new();
        while let Some(packet) = reader.next_dhcp()? {
            assert_eq!(packet.to.port(), 67);
            all.push((packet.number, packet.millis, packet.payload));
        }
        Ok(all)
    }

    #[test]
    fn packets_of_dhcp_are_found_among_others() {
        let tagged = frame(&[0x81, 0, 0, 7], b"two");
        let packets = [frame(&[], b"one"), vec![7; 60], tagged, Vec::new()];
        let found = read(&capture(&packets)).unwrap();
        let expected = [(1, 0, b"one".to_vec()), (3, 2000, b"two".to_vec())];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_fills_up_a_short_frame_is_not_of_the_datagram() {
        let mut padded = frame(&[], b"one");
        padded.extend([0; 20]);
        assert_eq!(read(&capture(&[padded])).unwrap()[0].2, b"one");
    }

    #[test]
    fn a_capture_that_is_cut_short_ends_there() {
        let whole = capture(&[frame(&[], b"one"), frame(&[], b"two")]);
        for length in FILE_HEAD..whole.len() {
            assert!(read(&whole[..length]).unwrap().len() < 2, "{length}");
        }
    }

    #[test]
    fn a_length_that_no_packet_has_takes_no_memory() {
        let mut bytes = capture(&[frame(&[], b"one")]);
        bytes[FILE_HEAD + 8..FILE_HEAD + 12].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff]);
        assert!(matches!(read(&bytes), Err(CaptureError::Length(1, _))));
    }

    #[test]
    fn other_files_are_told_apart() {
        assert!(matches!(read(b""), Err(CaptureError::NoCapture)));
        assert!(matches!(read(&[7; 100]), Err(CaptureError::NoCapture)));
        let pcapng = [&[0x0a, 0x0d, 0x0d, 0x0a][..], &[0; 40]].concat();
        assert!(matches!(read(&pcapng), Err(CaptureError::Pcapng)));
        let mut wifi = capture(&[]);
        wifi[FILE_HEAD - 1] = 105;
        assert!(matches!(read(&wifi), Err(CaptureError::LinkType(105))));
    }

    proptest::proptest! {
        #[test]
        fn any_packet_is_a_datagram_or_not(packet: Vec<u8>, at in 0_usize..64, byte: u8) {
            let mut near = frame(&[], &packet);
            if let Some(place) = near.get_mut(at) {
                *place = byte;
            }
            for link in [Link::Ethernet, Link::Cooked, Link::Bare] {
                let _ = datagram(link, &packet);
                let _ = datagram(link, &near);
            }
        }
    }
}
