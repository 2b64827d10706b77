//! Sockets against real peers: fast, slow, broken and gone.

use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::thread;

use super::*;
use crate::disk::ImageMapping;
use crate::io::{Pool, run, spawn, yield_now};
use crate::limits;
use crate::units::ByteRange;

/// What the other end does, whatever the kind of socket.
trait Peer: Read + Write + Send + 'static {}

impl<T: Read + Write + Send + 'static> Peer for T {}

type Pair = (Socket, Box<dyn Peer>);

fn unix() -> Pair {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Socket::new(ours.into()).unwrap(), Box::new(theirs))
}

/// Both ends have small buffers, so that sends soon have to wait.
fn tcp() -> Pair {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    SockRef::from(&listener)
        .set_recv_buffer_size(65_536)
        .unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    SockRef::from(&ours).set_send_buffer_size(65_536).unwrap();
    (Socket::new(ours.into()).unwrap(), Box::new(theirs))
}

fn on_both(test: impl Fn(Pair)) {
    test(unix());
    test(tcp());
}

/// Polls once, and finds the future waiting.
async fn starts<F: Future>(future: &mut Pin<Box<F>>) {
    poll_fn(|context| {
        assert!(future.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
}

fn pattern(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

fn image(bytes: &[u8]) -> (std::fs::File, Arc<ImageMapping>) {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    let mapping = Arc::new(ImageMapping::new(&file, bytes.len()).unwrap());
    (file, mapping)
}

fn buffer_with(pool: &Pool, bytes: &[u8]) -> Buffer {
    let mut buffer = pool.take(bytes.len()).unwrap();
    buffer.as_mut_slice().copy_from_slice(bytes);
    buffer
}

/// Reads all, in steps that fit no boundary of the sender.
fn read_slowly(mut peer: Box<dyn Peer>) -> Vec<u8> {
    let (mut all, mut step) = (Vec::new(), [0; 7777]);
    loop {
        match peer.read(&mut step).unwrap() {
            0 => return all,
            count => all.extend(&step[..count]),
        }
    }
}

/// 3600 segments of all kinds, 23 MB in all, and the same as plain bytes.
fn mixed_gather(pool: &Pool) -> (Gather, Vec<u8>) {
    let bytes = pattern(1_000_000);
    let (_, mapping) = image(&bytes);
    let shared = Rc::new(buffer_with(pool, &bytes[..100_000]));
    let (mut gather, mut expected) = (Gather::new(), Vec::new());
    for turn in 0..900_u32 {
        let header = [turn.to_be_bytes(); 4].concat();
        gather.push_header(header.clone().try_into().unwrap());
        expected.extend(header);
        let start = turn as usize * 1009 % 900_000;
        let range = ByteRange::new(start as u64, 4096 + u64::from(turn)).unwrap();
        gather.push_mapped(mapping.clone(), range).unwrap();
        expected.extend(&bytes[start..][..range.len_usize()]);
        let start = turn as usize * 77;
        let range = start..start + 13_001;
        gather.push_buffer(shared.clone(), range.clone()).unwrap();
        expected.extend(&bytes[range]);
        let zeros = 100 * u64::from(turn % 200);
        gather.push_zeros(zeros);
        expected.resize(expected.len() + usize::try_from(zeros).unwrap(), 0);
    }
    (gather, expected)
}

#[test]
fn a_mixed_gather_beyond_every_limit_arrives_as_it_was() {
    on_both(|(socket, peer)| {
        let (mut gather, expected) = mixed_gather(&Pool::new());
        assert!(gather.len_bytes() > 4 * limits::GATHER_BYTES_MAX);
        let reader = thread::spawn(|| read_slowly(peer));
        run(async move {
            socket.send(&mut gather).await.unwrap();
            assert!(gather.is_empty());
        })
        .unwrap();
        assert!(reader.join().unwrap() == expected);
    });
}

#[test]
fn a_send_waits_for_a_peer_that_does_not_read_yet() {
    on_both(|(socket, peer)| {
        let (mut gather, expected) = mixed_gather(&Pool::new());
        run(async move {
            let mut sending = Box::pin(socket.send(&mut gather));
            starts(&mut sending).await;
            let reader = thread::spawn(|| read_slowly(peer));
            sending.await.unwrap();
            drop(socket);
            assert!(reader.join().unwrap() == expected);
        })
        .unwrap();
    });
}

#[test]
fn a_gather_is_used_again_after_a_send() {
    on_both(|(socket, peer)| {
        run(async {
            let mut gather = Gather::new();
            for number in 0..3 {
                gather.push_header([number; 16]);
                socket.send(&mut gather).await.unwrap();
            }
        })
        .unwrap();
        drop(socket);
        assert_eq!(read_slowly(peer), [[0; 16], [1; 16], [2; 16]].concat());
    });
}

#[test]
fn a_dropped_send_keeps_its_memory_until_the_kernel_is_done() {
    on_both(|(socket, peer)| {
        let pool = Pool::new();
        let bytes = pattern(limits::POOL_KEPT_BUFFER_MAX);
        let mut gather = Gather::new();
        let len = bytes.len();
        gather
            .push_buffer(buffer_with(&pool, &bytes), 0..len)
            .unwrap();
        run(async {
            let mut sending = Box::pin(socket.send(&mut gather));
            starts(&mut sending).await;
            yield_now().await;
            drop(sending);
            assert_eq!(pool.idle_bytes(), 0, "back in the pool too early");
            while pool.idle_bytes() == 0 {
                yield_now().await;
            }
        })
        .unwrap();
        assert!(gather.is_empty());
        let got = read_slowly(peer);
        assert!(got.len() < len && got == bytes[..got.len()]);
    });
}

#[test]
fn a_send_that_is_pending_at_the_end_of_the_runtime_gives_its_memory_back() {
    on_both(|(socket, _peer)| {
        let pool = Pool::new();
        let buffer = pool.take(limits::POOL_KEPT_BUFFER_MAX).unwrap();
        let range = 0..buffer.len();
        run(async {
            spawn(async move {
                let mut gather = Gather::new();
                gather.push_buffer(buffer, range).unwrap();
                socket.send(&mut gather).await
            });
            yield_now().await;
        })
        .unwrap();
        assert_eq!(pool.idle_bytes(), limits::POOL_KEPT_BUFFER_MAX);
    });
}

#[test]
fn a_truncated_image_is_its_own_error_and_says_what_was_sent() {
    on_both(|(socket, peer)| {
        let bytes = pattern(1 << 20);
        let (file, mapping) = image(&bytes);
        file.set_len(8192).unwrap();
        let mut gather = Gather::new();
        gather.push_header([b'h'; 16]);
        let all = ByteRange::between(0, bytes.len() as u64);
        gather.push_mapped(mapping, all).unwrap();
        let whole = gather.len_bytes();
        let reader = thread::spawn(|| read_slowly(peer));
        let error = run(socket.send(&mut gather)).unwrap().unwrap_err();
        drop(socket);
        let got = reader.join().unwrap();
        let SendError::ImageUnreadable { sent } = error else {
            panic!("{error}");
        };
        let expected = [&[b'h'; 16], &bytes[..8192]].concat();
        assert_eq!(sent, got.len() as u64);
        assert!(got == expected[..got.len()]);
        assert_eq!(gather.len_bytes(), whole - sent);
    });
}

#[test]
fn nothing_of_an_image_is_sent_once_it_has_changed() {
    on_both(|(socket, mut peer)| {
        let bytes = pattern(50_000_000);
        let (_file, mapping) = image(&bytes);
        let error = run(async {
            let mut gather = Gather::new();
            let all = ByteRange::between(0, bytes.len() as u64);
            gather.push_mapped(mapping.clone(), all).unwrap();
            let mut sending = Box::pin(socket.send(&mut gather));
            starts(&mut sending).await;
            mapping.disown();
            // There is room again; nothing of the image may take it.
            let reader = thread::spawn(move || peer.read_to_end(&mut Vec::new()));
            let error = sending.await.unwrap_err();
            socket.shutdown(Shutdown::Both).unwrap();
            (error, reader.join().unwrap().unwrap() as u64)
        });
        let (error, got) = error.unwrap();
        let SendError::ImageUnreadable { sent } = error else {
            panic!("{error}");
        };
        assert!(sent == got && got < bytes.len() as u64, "{sent} {got}");
    });
}

#[test]
fn a_peer_that_is_gone_breaks_the_connection_not_the_process() {
    on_both(|(socket, peer)| {
        drop(peer);
        let error = run(async {
            let mut gather = Gather::new();
            loop {
                gather.push_header([0; 16]);
                if let Err(error) = socket.send(&mut gather).await {
                    return error;
                }
            }
        });
        let error = error.unwrap();
        assert!(matches!(error, SendError::Connection { .. }), "{error}");
    });
}

#[test]
fn shutdown_ends_a_pending_send() {
    on_both(|(socket, _peer)| {
        run(async {
            let mut gather = Gather::new();
            gather.push_zeros(50_000_000);
            let sending = socket.clone();
            let task = spawn(async move { sending.send(&mut gather).await });
            yield_now().await;
            socket.shutdown(Shutdown::Both).unwrap();
            let error = task.await.unwrap().unwrap_err();
            assert!(matches!(error, SendError::Connection { .. }), "{error}");
        })
        .unwrap();
    });
}

#[test]
fn a_receive_appends_to_what_is_there() {
    on_both(|(socket, mut peer)| {
        run(async {
            let mut receiving = Box::pin(socket.receive(ReceiveBuffer::with_leftover(b"left ")));
            starts(&mut receiving).await;
            peer.write_all(b"right").unwrap();
            let (count, mut buffer) = receiving.await;
            assert_eq!(count.unwrap(), 5);
            assert_eq!(buffer.filled(), b"left right");
            assert_eq!(socket.try_receive(&mut buffer).unwrap(), None);
            drop(peer);
            let (count, mut buffer) = socket.receive(buffer).await;
            assert_eq!(count.unwrap(), 0);
            assert_eq!(socket.try_receive(&mut buffer).unwrap(), Some(0));
        })
        .unwrap();
    });
}

#[test]
fn a_full_receive_buffer_is_an_error_and_not_the_end_of_the_stream() {
    let (socket, _peer) = unix();
    let mut full = ReceiveBuffer::with_leftover(&vec![1; limits::RECEIVE_BUFFER]);
    let error = socket.try_receive(&mut full).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let (result, full) = run(socket.receive(full)).unwrap();
    assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert!(full.is_full());
}

#[test]
fn a_stream_longer_than_the_buffer_passes_through_it() {
    on_both(|(socket, mut peer)| {
        let bytes = pattern(1_000_000);
        let sent = bytes.clone();
        let writer = thread::spawn(move || peer.write_all(&sent).unwrap());
        let got = run(async {
            let (mut got, mut buffer) = (Vec::<u8>::new(), ReceiveBuffer::new());
            loop {
                let count;
                (count, buffer) = socket.receive(buffer).await;
                if count.unwrap() == 0 {
                    return got;
                }
                // Leave a part, as a parser does with a request that is not complete.
                let take = buffer.filled().len().min(40_000);
                got.extend(&buffer.filled()[..take]);
                buffer.consume(take);
                if got.len() + buffer.filled().len() == bytes.len() {
                    got.extend(buffer.filled());
                    return got;
                }
            }
        });
        writer.join().unwrap();
        assert!(got.unwrap() == bytes);
    });
}

#[test]
fn receive_exact_collects_many_small_writes() {
    on_both(|(socket, mut peer)| {
        let bytes = pattern(300_000);
        let sent = bytes.clone();
        run(async {
            let buffer = Pool::new().take(310_000).unwrap();
            let mut receiving = Box::pin(socket.receive_exact(buffer, 5..300_005));
            starts(&mut receiving).await;
            let writer = thread::spawn(move || {
                sent.chunks(997)
                    .for_each(|part| peer.write_all(part).unwrap());
                peer.write_all(b"next").unwrap();
                peer
            });
            let (result, buffer) = receiving.await;
            result.unwrap();
            assert!(buffer.as_slice()[5..300_005] == bytes);
            assert_eq!(buffer.as_slice()[..5], [0; 5]);
            assert!(buffer.as_slice()[300_005..].iter().all(|byte| *byte == 0));
            let _peer = writer.join().unwrap();
            let (_, rest) = socket.receive(ReceiveBuffer::new()).await;
            assert_eq!(rest.filled(), b"next");
        })
        .unwrap();
    });
}

#[test]
fn receive_exact_reports_a_stream_that_ends_too_early() {
    on_both(|(socket, mut peer)| {
        peer.write_all(&[1; 10]).unwrap();
        drop(peer);
        let buffer = Pool::new().take(11).unwrap();
        let (result, _) = run(socket.receive_exact(buffer, 0..11)).unwrap();
        assert_eq!(result.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    });
}

#[test]
fn receive_exact_refuses_a_range_outside_the_buffer() {
    let (socket, _peer) = unix();
    let buffer = Pool::new().take(11).unwrap();
    let (result, _) = run(socket.receive_exact(buffer, 0..12)).unwrap();
    assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn shutdown_ends_a_pending_receive_like_the_end_of_the_stream() {
    on_both(|(socket, _peer)| {
        run(async {
            let mut receiving = Box::pin(socket.receive(ReceiveBuffer::new()));
            starts(&mut receiving).await;
            yield_now().await;
            socket.shutdown(Shutdown::Read).unwrap();
            assert_eq!(receiving.await.0.unwrap(), 0);
        })
        .unwrap();
    });
}

#[test]
fn a_receive_that_is_ended_takes_nothing_from_the_stream() {
    on_both(|(socket, mut peer)| {
        let received = run(async move {
            let mut waiting = Box::pin(socket.receive(ReceiveBuffer::new()));
            starts(&mut waiting).await;
            socket.end_receive().await;
            let (result, buffer) = waiting.await;
            let errno = result.unwrap_err().raw_os_error();
            assert_eq!(errno, Some(libc::ECANCELED));
            // Nothing waits: nothing is ended.
            socket.end_receive().await;
            peer.write_all(b"later").unwrap();
            let (result, buffer) = socket.receive(buffer).await;
            result.unwrap();
            buffer.filled().to_vec()
        });
        assert_eq!(received.unwrap(), b"later");
    });
}

#[test]
fn a_dropped_receive_ends_the_connection() {
    on_both(|(socket, mut peer)| {
        let pool = Pool::new();
        run(async {
            let buffer = pool.take(4096).unwrap();
            let mut receiving = Box::pin(socket.receive_exact(buffer, 0..4096));
            starts(&mut receiving).await;
            drop(receiving);
            assert_eq!(pool.idle_bytes(), 0, "back in the pool too early");
            while pool.idle_bytes() == 0 {
                yield_now().await;
            }
        })
        .unwrap();
        assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
    });
}

#[test]
fn shutdown_of_an_ended_connection_is_no_error() {
    on_both(|(socket, peer)| {
        drop(peer);
        socket.shutdown(Shutdown::Both).unwrap();
        socket.shutdown(Shutdown::Both).unwrap();
    });
}

#[test]
fn a_nonblocking_descriptor_is_waited_on() {
    let (ours, mut peer) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let socket = Socket::new(ours.into()).unwrap();
    run(async {
        let mut receiving = Box::pin(socket.receive(ReceiveBuffer::new()));
        starts(&mut receiving).await;
        yield_now().await;
        starts(&mut receiving).await;
        peer.write_all(b"late").unwrap();
        assert_eq!(receiving.await.1.filled(), b"late");
    })
    .unwrap();
}

#[test]
fn a_datagram_socket_is_refused() {
    let (ours, _theirs) = UnixDatagram::pair().unwrap();
    let error = Socket::new(ours.into()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn tcp_options_are_set_and_pass_over_a_unix_socket() {
    on_both(|(socket, _peer)| {
        socket.set_nodelay().unwrap();
        socket.set_keepalive(Duration::from_secs(30)).unwrap();
    });
    let (socket, _peer) = tcp();
    socket.set_nodelay().unwrap();
    socket.set_keepalive(Duration::from_secs(30)).unwrap();
    let options = SockRef::from(&socket);
    assert!(options.tcp_nodelay().unwrap() && options.keepalive().unwrap());
    assert_eq!(
        options.tcp_keepalive_time().unwrap(),
        Duration::from_secs(30)
    );
}

/// A mapped image of 8 MiB whose pages are on a disk and not in memory; `None` where files are
/// never anywhere but in memory.
fn cold_image() -> Option<(std::fs::File, Arc<ImageMapping>)> {
    let (file, mapping) = image(&pattern(8 << 20));
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    if mapping.resident(ByteRange::between(0, 8 << 20)).unwrap() {
        println!("SKIPPED: files here are never out of memory");
        return None;
    }
    Some((file, mapping))
}

/// Sends `range` of the image; how often the shard's thread waited for a page meanwhile.
fn faults_of_sending(mapping: &Arc<ImageMapping>, range: ByteRange) -> i64 {
    let (socket, peer) = tcp();
    let reader = thread::spawn(|| read_slowly(peer));
    let mut gather = Gather::new();
    gather.push_mapped(mapping.clone(), range).unwrap();
    let before = residency::major_faults();
    run(async move { socket.send(&mut gather).await.unwrap() }).unwrap();
    let faults = residency::major_faults() - before;
    let expected =
        pattern(8 << 20)[range.start().try_into().unwrap()..][..range.len_usize()].to_vec();
    assert!(reader.join().unwrap() == expected);
    faults
}

#[test]
fn a_large_send_of_evicted_pages_does_not_make_the_shard_wait_for_them() {
    let Some((_file, mapping)) = cold_image() else {
        return;
    };
    let range = ByteRange::between(1 << 20, 6 << 20);
    assert_eq!(faults_of_sending(&mapping, range), 0);
    assert!(mapping.is_doubted());
}

#[test]
fn a_small_send_of_evicted_pages_waits_for_them_and_is_remembered() {
    let Some((_file, mapping)) = cold_image() else {
        return;
    };
    let range = ByteRange::between(1 << 20, (1 << 20) + 4096);
    assert!(faults_of_sending(&mapping, range) > 0);
    assert!(mapping.is_doubted());
}

#[test]
fn a_small_send_behind_one_that_waited_does_not_wait_for_evicted_pages() {
    let Some((_file, mapping)) = cold_image() else {
        return;
    };
    let (socket, peer) = tcp();
    let reader = thread::spawn(|| read_slowly(peer));
    let mut first = Gather::new();
    // A warm part of the image, which is only sent at once: more than the socket takes.
    let (_other, warm) = image(&pattern(8 << 20));
    let whole = ByteRange::between(0, 8 << 20);
    first.push_mapped(warm, whole).unwrap();
    let mut second = Gather::new();
    let range = ByteRange::between(1 << 20, (1 << 20) + 4096);
    second.push_mapped(mapping, range).unwrap();
    let faults = run(async move {
        socket.send(&mut first).await.unwrap();
        let before = residency::major_faults();
        socket.send(&mut second).await.unwrap();
        residency::major_faults() - before
    });
    assert_eq!(faults.unwrap(), 0);
    assert_eq!(reader.join().unwrap().len(), (8 << 20) + 4096);
}

#[test]
fn pages_that_can_not_be_brought_in_fail_the_send_and_do_not_hold_it_up() {
    let (file, mapping) = image(&pattern(1 << 20));
    file.set_len(0).unwrap();
    let (socket, _peer) = unix();
    let mut gather = Gather::new();
    gather
        .push_mapped(mapping, ByteRange::between(0, 1 << 20))
        .unwrap();
    let sent = run(async move { socket.send(&mut gather).await }).unwrap();
    assert!(matches!(sent, Err(SendError::ImageUnreadable { sent: 0 })));
}
