//! What is kept by which name, and words about sessions that are none.

use std::net::{TcpListener, UdpSocket};

use super::*;

#[test]
fn a_socket_is_kept_under_its_purpose_and_its_address() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap().port();
    let is_inherited = false;
    let name = door_name(&Door::Nbd { is_inherited }, &tcp.into()).unwrap();
    assert_eq!(name, format!("kept.nbd.127.0.0.1.{port}"));
    assert_eq!(door_of(&name), Some(Door::Nbd { is_inherited }));
    let udp = UdpSocket::bind("[::1]:0").unwrap();
    let name = door_name(&Door::Tftp, &udp.into()).unwrap();
    assert!(
        name.starts_with("kept.tftp....1..") && !name.contains(':'),
        "{name}"
    );
    assert_eq!(door_of(&name), Some(Door::Tftp));
}

#[test]
fn what_the_manager_opened_itself_is_not_ours() {
    assert!(!is_ours("cowherd.socket") && !is_ours("unknown"));
    assert!(is_ours(SESSIONS) && is_ours(&session_name(7)));
    assert_eq!(session_of(&session_name(7)), Some(7));
    assert_eq!(session_of(SESSIONS), None);
}

fn words(bytes: &[u8]) -> OwnedFd {
    let file = File::from(memfd_create("test", MemfdFlags::CLOEXEC).unwrap());
    file.write_all_at(bytes, 0).unwrap();
    file.into()
}

#[test]
fn machines_that_begin_to_boot_are_remembered() {
    let boots = vec!["a".to_owned()];
    let words = words_of(&[], boots.clone()).unwrap();
    let (doors, left) = sorted(vec![(SESSIONS.to_owned(), words)]);
    assert!(doors.is_empty() && left.sessions.is_empty());
    assert_eq!(left.boots, boots);
}

#[test]
fn words_that_make_no_sense_close_what_they_are_about() {
    let other = (FORMAT + 1).to_be_bytes();
    let mut cut = FORMAT.to_be_bytes().to_vec();
    cut.extend(&Message::Shown.write().unwrap()[..5]);
    for bytes in [&b""[..], &other, &cut, b"\0\0\0\x02nonsense of any kind"] {
        let stored = vec![(SESSIONS.to_owned(), words(bytes))];
        assert!(sorted(stored).1.sessions.is_empty());
    }
}
