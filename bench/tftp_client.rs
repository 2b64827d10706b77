//! The clients of `bench/tftp`: they fetch one file by TFTP, many at a time, and compare every
//! block with it. Built by `rustc -O`, with nothing but the standard library.
//!
//!     tftp_client SERVER:PORT NAME FILE CLIENTS OPTION VALUE...
//!
//! Printed are the seconds that it took all of them, the window that was agreed on, and how often
//! one of them had to ask again.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

struct Outcome {
    window: u16,
    repeats: u32,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, server, name, file, clients, options @ ..] = arguments.as_slice() else {
        panic!("see the head of the source");
    };
    let server: SocketAddr = server.parse().expect("an address and a port");
    let file = std::fs::read(file).expect("a file to compare with");
    let clients: usize = clients.parse().expect("a number");
    let mut request = [b"\0\x01", name.as_bytes(), b"\0octet\0"].concat();
    for word in options {
        request.extend_from_slice(word.as_bytes());
        request.push(0);
    }
    let (file, request) = (&file, &request);
    let begun = Instant::now();
    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients)
            .map(|_| scope.spawn(move || fetch(server, request, file)))
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.map(|outcome| outcome.expect("a whole file")).collect()
    });
    let took = begun.elapsed().as_secs_f64();
    let window = outcomes.iter().map(|outcome| outcome.window).min();
    let repeats: u32 = outcomes.iter().map(|outcome| outcome.repeats).sum();
    println!("{took:.4} {} {repeats}", window.unwrap_or(1));
}

fn fetch(server: SocketAddr, request: &[u8], file: &[u8]) -> Outcome {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a port");
    let patience = Some(Duration::from_secs(1));
    socket.set_read_timeout(patience).expect("a time is no 0");
    let mut packet = [0; 65536];
    let mut repeats = 0;
    let mut receive = |last: &[u8], to: SocketAddr, packet: &mut [u8]| {
        loop {
            match socket.recv_from(packet) {
                Ok(received) => return received,
                Err(_) if repeats < 100 => {
                    repeats += 1;
                    socket.send_to(last, to).expect("sent");
                }
                Err(error) => panic!("{error}"),
            }
        }
    };
    socket.send_to(request, server).expect("sent");
    let (length, line) = receive(request, server, &mut packet);
    let (mut block, mut window) = (512, 1_u16);
    let mut waiting = match packet[1] {
        3 => Some(length),
        6 => {
            for (name, value) in options(&packet[2..length]) {
                match name.as_str() {
                    "blksize" => block = usize::from(value),
                    "windowsize" => window = value,
                    _ => {}
                }
            }
            socket.send_to(&[0, 4, 0, 0], line).expect("sent");
            None
        }
        _ => panic!("{}", String::from_utf8_lossy(&packet[4..length])),
    };
    let (mut number, mut at, mut unanswered) = (0_u16, 0, 0);
    loop {
        let ack = [[0, 4], number.to_be_bytes()].concat();
        let length = match waiting.take() {
            Some(length) => length,
            None => receive(&ack, line, &mut packet).0,
        };
        if packet[1] != 3 || packet[2..4] != number.wrapping_add(1).to_be_bytes() {
            // Of before a repetition; or behind a gap, which its silence tells of.
            continue;
        }
        let data = &packet[4..length];
        assert!(file[at..].starts_with(data), "other bytes at {at}");
        at += data.len();
        number = number.wrapping_add(1);
        unanswered += 1;
        let is_last = data.len() < block;
        if unanswered == window || is_last {
            unanswered = 0;
            let ack = [[0, 4], number.to_be_bytes()].concat();
            socket.send_to(&ack, line).expect("sent");
        }
        if is_last {
            assert_eq!(at, file.len(), "the file was cut short");
            return Outcome { window, repeats };
        }
    }
}

fn options(bytes: &[u8]) -> Vec<(String, u16)> {
    let words: Vec<_> = bytes.split(|&byte| byte == 0).collect();
    let text = |word: &[u8]| String::from_utf8_lossy(word).to_ascii_lowercase();
    let pairs = words.chunks_exact(2).map(|pair| (text(pair[0]), text(pair[1])));
    pairs.map(|(name, value)| (name, value.parse().unwrap_or(0))).collect()
}
