//! The bare responder of `bench/compare`: what NBD over a socket costs with no server behind it.
//! Built by `rustc -O`, with nothing but the standard library.
//!
//!     bare PORT FILE
//!
//! The file is read into memory once. Every connection has a thread, which answers all requests
//! that have come with one gathered write, READs from that memory; payloads of WRITE are dropped,
//! and FLUSH does nothing. So it is a ceiling and no server: it checks its peers to stay alive.

use std::io::{self, IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

const INPUT: usize = 1 << 20;
/// As many answers go out in one call: two slices each, of the 1024 that the kernel takes.
const ANSWERS: usize = 256;
const REQUEST: usize = 28;
const READ: u8 = 0;
const WRITE: u8 = 1;
const DISCONNECT: u8 = 2;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, port, file] = arguments.as_slice() else {
        panic!("see the head of the source");
    };
    let image = Arc::new(std::fs::read(file)?);
    let listener = TcpListener::bind(("127.0.0.1", port.parse().expect("a port")))?;
    for stream in listener.incoming() {
        let (stream, image) = (stream?, Arc::clone(&image));
        std::thread::spawn(move || {
            // A client that leaves without a word ends its thread, no more.
            let _ = serve(stream, &image);
        });
    }
    Ok(())
}

fn serve(mut stream: TcpStream, image: &[u8]) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if negotiate(&mut stream, image.len() as u64)? {
        transmit(&mut stream, image)?;
    }
    Ok(())
}

fn word<const N: usize>(stream: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Leads the handshake; whether requests follow. HAS_FLAGS, SEND_FLUSH, SEND_FUA, SEND_TRIM and
/// CAN_MULTI_CONN are offered.
fn negotiate(stream: &mut TcpStream, size: u64) -> io::Result<bool> {
    let flags = 0b1_0010_1101_u16;
    stream.write_all(b"NBDMAGICIHAVEOPT\0\x03")?;
    let no_zeroes = word::<4>(stream)?[3] & 2 != 0;
    loop {
        let _magic: [u8; 8] = word(stream)?;
        let option = u32::from_be_bytes(word(stream)?);
        let mut data = vec![0; u32::from_be_bytes(word(stream)?).min(8192) as usize];
        stream.read_exact(&mut data)?;
        let reply = |kind: u32, data: &[u8]| {
            let mut bytes = 0x0003_e889_0455_65a9_u64.to_be_bytes().to_vec();
            for number in [option, kind, data.len() as u32] {
                bytes.extend_from_slice(&number.to_be_bytes());
            }
            bytes.extend_from_slice(data);
            bytes
        };
        match option {
            1 => {
                let mut bytes = size.to_be_bytes().to_vec();
                bytes.extend_from_slice(&flags.to_be_bytes());
                bytes.resize(if no_zeroes { 10 } else { 134 }, 0);
                stream.write_all(&bytes)?;
                return Ok(true);
            }
            2 => return Ok(false),
            6 | 7 => {
                let mut info = vec![0, 0];
                info.extend_from_slice(&size.to_be_bytes());
                info.extend_from_slice(&flags.to_be_bytes());
                stream.write_all(&[reply(3, &info), reply(1, &[])].concat())?;
                if option == 7 {
                    return Ok(true);
                }
            }
            _ => stream.write_all(&reply(0x8000_0001, &[]))?,
        }
    }
}

/// What has come and was not looked at, at `begin..end`; and how much of a payload is to go yet.
struct Inbox {
    bytes: Vec<u8>,
    begin: usize,
    end: usize,
    payload: usize,
    /// The WRITE that the payload belongs to.
    written: Option<[u8; REQUEST]>,
}

impl Inbox {
    /// Waits for more; false at the end of the stream.
    fn fill(&mut self, stream: &mut TcpStream) -> io::Result<bool> {
        self.bytes.copy_within(self.begin..self.end, 0);
        (self.begin, self.end) = (0, self.end - self.begin);
        let more = stream.read(&mut self.bytes[self.end..])?;
        self.end += more;
        Ok(more > 0)
    }

    /// The next whole request, with its payload come and dropped; `None` until more has come.
    fn next(&mut self) -> Option<[u8; REQUEST]> {
        if self.written.is_none() {
            let request = *self.bytes[self.begin..self.end].first_chunk()?;
            self.begin += REQUEST;
            if request[7] != WRITE {
                return Some(request);
            }
            self.payload = number(&request[24..28]);
            self.written = Some(request);
        }
        let here = self.payload.min(self.end - self.begin);
        self.begin += here;
        self.payload -= here;
        self.written.take_if(|_| self.payload == 0)
    }
}

fn number(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// Answers all that has come, until the client goes.
fn transmit(stream: &mut TcpStream, image: &[u8]) -> io::Result<()> {
    let mut inbox = Inbox {
        bytes: vec![0; INPUT],
        begin: 0,
        end: 0,
        payload: 0,
        written: None,
    };
    let mut answers = Vec::with_capacity(ANSWERS);
    while inbox.fill(stream)? {
        while let Some(request) = inbox.next() {
            let mut header = *b"\x67\x44\x66\x98\0\0\0\0\0\0\0\0\0\0\0\0";
            header[8..].copy_from_slice(&request[8..16]);
            let data = match request[7] {
                READ => image.get(number(&request[16..24])..),
                DISCONNECT => return Ok(()),
                _ => Some(&[][..]),
            };
            let data = data.and_then(|rest| match request[7] {
                READ => rest.get(..number(&request[24..28])),
                _ => Some(rest),
            });
            let Some(data) = data else {
                return Err(io::ErrorKind::InvalidInput.into());
            };
            answers.push((header, data));
            if answers.len() == ANSWERS {
                send(stream, &mut answers)?;
            }
        }
        send(stream, &mut answers)?;
    }
    Ok(())
}

/// Sends all answers, by one call where the socket takes them.
fn send(stream: &mut TcpStream, answers: &mut Vec<([u8; 16], &[u8])>) -> io::Result<()> {
    let slices = answers
        .iter()
        .flat_map(|(header, data)| [&header[..], data]);
    let mut slices: Vec<_> = slices
        .filter(|part| !part.is_empty())
        .map(IoSlice::new)
        .collect();
    let mut left = slices.as_mut_slice();
    while !left.is_empty() {
        let sent = stream.write_vectored(left)?;
        IoSlice::advance_slices(&mut left, sent);
    }
    answers.clear();
    Ok(())
}
