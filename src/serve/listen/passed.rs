//! Sockets that another server listens on, for the one that takes over from it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;

use socket2::{Domain, SockRef};

use super::{
    Bound, BoundAddress, ListenAddress, ListenError, Listener, SocketFile, bind_host, bind_tcp,
    bind_unix, prepare,
};

/// A socket that was passed to us.
///
/// # Errors
/// It is nothing to accept connections on.
pub(in crate::serve) fn of_passed(socket: OwnedFd, is_inherited: bool) -> io::Result<Bound> {
    let (listener, address) = match SockRef::from(&socket).domain()? {
        Domain::UNIX => {
            let unix = std::os::unix::net::UnixListener::from(socket);
            let path = unix.local_addr()?.as_pathname().map(Path::to_owned);
            (Listener::Unix(unix), BoundAddress::Unix(path))
        }
        _ => {
            let tcp = std::net::TcpListener::from(socket);
            let address = BoundAddress::Tcp(tcp.local_addr()?);
            (Listener::Tcp(tcp), address)
        }
    };
    match prepare(&listener)? {
        true => Ok(Bound {
            listener,
            address,
            // It is the other server's as long as that is there.
            socket_file: None,
            is_inherited,
        }),
        false => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// Listens on every address that `address` stands for, with a socket of `passed` where there is
/// one.
///
/// # Errors
/// As [`bind`](super::bind).
pub(in crate::serve) fn bind_or_take(
    address: &ListenAddress,
    passed: &mut Vec<Bound>,
) -> Result<Vec<Bound>, ListenError> {
    match address {
        ListenAddress::Tcp { host, port } => bind_host(host, *port, |address| {
            match take(passed, |bound| is_of(bound, address)) {
                Some(bound) => Ok(bound),
                None => bind_tcp(address, of_port(passed, address.port())),
            }
        }),
        ListenAddress::Unix(path) => {
            let is_it = |bound: &BoundAddress| match bound {
                BoundAddress::Unix(Some(other)) => other == path,
                _ => false,
            };
            Ok(vec![match take(passed, is_it) {
                Some(bound) => bound,
                None => bind_unix(path)?,
            }])
        }
    }
}

fn take(passed: &mut Vec<Bound>, is_it: impl Fn(&BoundAddress) -> bool) -> Option<Bound> {
    let mut all = passed.iter();
    let found = all.position(|bound| !bound.is_inherited && is_it(&bound.address))?;
    Some(passed.swap_remove(found))
}

/// The sockets that are on a port. Those of systemd stay when the other server is gone.
fn of_port(passed: &[Bound], port: u16) -> impl Iterator<Item = SockRef<'_>> {
    let passed = passed.iter().filter(|bound| !bound.is_inherited);
    passed.filter_map(move |bound| match (&bound.listener, &bound.address) {
        (Listener::Tcp(tcp), BoundAddress::Tcp(address)) => {
            (address.port() == port).then(|| SockRef::from(tcp))
        }
        _ => None,
    })
}

/// Binds a socket where `others` may be in the way, on an address that has this one in it or is in
/// it. They are those of the server that is taken over from, and go with it.
///
/// # Errors
/// What the kernel says: somebody else may be in the way, too.
pub(in crate::serve) fn beside<'a, T>(
    others: impl Iterator<Item = SockRef<'a>>,
    bind: impl Fn(bool) -> io::Result<T>,
) -> io::Result<T> {
    let refused = match bind(false) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => error,
        done => return done,
    };
    let others: Vec<_> = others.collect();
    if others.is_empty() {
        return Err(refused);
    }
    // socket(7), SO_REUSEPORT: all sockets must have it, and one user have made them all. The more
    // exact address counts, so each goes on to hear what is meant for it alone.
    let allow = |shares| {
        let mut all = others.iter();
        all.try_for_each(|other| other.set_reuse_port(shares))
    };
    allow(true)?;
    let bound = bind(true);
    // For this one, and for nobody who comes later.
    allow(false)?;
    bound
}

/// Any port is as good as another where none was said.
fn is_of(bound: &BoundAddress, wanted: SocketAddr) -> bool {
    let BoundAddress::Tcp(bound) = bound else {
        return false;
    };
    bound.ip() == wanted.ip() && (wanted.port() == 0 || bound.port() == wanted.port())
}

/// From now on the files of sockets that were passed go with this server, and not with the other.
pub(in crate::serve) fn own_files<'a>(
    bound: impl Iterator<Item = &'a BoundAddress>,
) -> Vec<SocketFile> {
    let paths = bound.filter_map(|address| match address {
        BoundAddress::Unix(path) => path.as_deref(),
        BoundAddress::Tcp(_) => None,
    });
    // One that was removed meanwhile is nobody's.
    paths
        .filter_map(|path| SocketFile::made(path).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(bound: Bound) -> Bound {
        of_passed(bound.share().unwrap(), false).unwrap()
    }

    fn bound(text: &str) -> Bound {
        super::super::bind(&text.parse().unwrap())
            .unwrap()
            .remove(0)
    }

    #[test]
    fn a_socket_that_was_passed_is_taken_for_its_address_and_for_no_other() {
        let first = passed(bound("127.0.0.1:0"));
        let BoundAddress::Tcp(address) = first.address else {
            panic!("no address");
        };
        let mut all = vec![first];
        let asked = |text: &str| text.parse::<ListenAddress>().unwrap();
        let other = bind_or_take(&asked("[::1]:0"), &mut all).unwrap();
        assert_ne!(other[0].address, BoundAddress::Tcp(address));
        let same = bind_or_take(&asked(&address.to_string()), &mut all).unwrap();
        assert_eq!(same[0].address, BoundAddress::Tcp(address));
        assert!(all.is_empty());
    }

    #[test]
    fn an_address_is_had_beside_a_socket_that_was_passed_and_has_it_too() {
        for (old, new) in [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "0.0.0.0")] {
            let first = bound(&format!("{old}:0"));
            let BoundAddress::Tcp(address) = first.address else {
                panic!("no address");
            };
            let asked: ListenAddress = format!("{new}:{}", address.port()).parse().unwrap();
            let refused = bind_or_take(&asked, &mut Vec::new()).unwrap_err();
            assert!(matches!(refused, ListenError::InUse(_)), "{refused}");
            let mut all = vec![passed(first)];
            let one = bind_or_take(&asked, &mut all).unwrap();
            assert_eq!(
                one[0].address.to_string(),
                format!("nbd://{new}:{}/", address.port())
            );
            assert_eq!(all.len(), 1, "it is another socket");
            let refused = bind_or_take(&asked, &mut Vec::new()).unwrap_err();
            assert!(matches!(refused, ListenError::InUse(_)), "{refused}");
        }
    }

    #[test]
    fn a_free_port_is_the_one_that_was_had_before() {
        let mut all = vec![passed(bound("127.0.0.1:0"))];
        let address = all[0].address.clone();
        let same = bind_or_take(&"127.0.0.1:0".parse().unwrap(), &mut all).unwrap();
        assert_eq!(same[0].address, address);
    }

    #[test]
    fn the_file_of_a_socket_that_was_passed_stays_until_it_is_owned() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        let text = format!("unix:{}", path.display());
        let mut first = bound(&text);
        let mut all = vec![of_passed(first.share().unwrap(), false).unwrap()];
        let taken = bind_or_take(&text.parse().unwrap(), &mut all).unwrap();
        std::mem::forget(first.socket_file.take());
        let address = taken[0].address.clone();
        drop(taken);
        assert!(path.exists());
        drop(own_files([&address].into_iter()));
        assert!(!path.exists());
    }

    #[test]
    fn what_does_not_listen_is_not_taken() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(of_passed(one.into(), false).is_err());
    }
}
