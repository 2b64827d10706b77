//! Which process has a port, as far as the kernel tells.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use rustix::process::Pid;

/// What a port is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }

    const fn tables(self) -> [&'static str; 2] {
        match self {
            Self::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
            Self::Udp => ["/proc/net/udp", "/proc/net/udp6"],
        }
    }
}

/// A process that has a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) pid: Pid,
    pub(super) name: String,
}

/// Who has the port that `address` can't be bound for. `None` where that can't be seen.
pub(super) fn of(transport: Transport, address: SocketAddr) -> Option<Owner> {
    let mut inodes = Vec::new();
    for table in transport.tables() {
        let text = std::fs::read_to_string(table).unwrap_or_default();
        inodes.extend(inodes_in(&text, transport, address));
    }
    inodes.iter().find_map(|inode| owner_of(*inode))
}

/// proc(5): "sl  local_address rem_address   st ... uid  timeout inode".
fn inodes_in(table: &str, transport: Transport, address: SocketAddr) -> Vec<u64> {
    let of_line = |line: &str| {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let local = local_address(words.get(1)?)?;
        // 0A: LISTEN.
        let is_open = transport == Transport::Udp || *words.get(3)? == "0A";
        let inode = words.get(9)?.parse().ok()?;
        (is_open && stands_in_the_way(local, address)).then_some(inode)
    };
    table.lines().skip(1).filter_map(of_line).collect()
}

fn stands_in_the_way(local: SocketAddr, wanted: SocketAddr) -> bool {
    let is_all = local.ip().is_unspecified() || wanted.ip().is_unspecified();
    local.port() == wanted.port() && (is_all || local.ip() == wanted.ip())
}

/// An address as the kernel prints it: words of four bytes in the order of this host, in hex.
fn local_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let word = address.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(word, 16).ok()?.swap_bytes())
    };
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from_bits(word(0)?)),
        32 => {
            let mut bits = 0_u128;
            for at in 0..4 {
                bits = bits << 32 | u128::from(word(at)?);
            }
            let ip = Ipv6Addr::from_bits(bits);
            ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4)
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// The process that has the socket with this inode among its descriptors.
fn owner_of(inode: u64) -> Option<Owner> {
    let wanted = format!("socket:[{inode}]");
    let processes = std::fs::read_dir("/proc").ok()?;
    processes.filter_map(Result::ok).find_map(|process| {
        let pid = Pid::from_raw(process.file_name().to_str()?.parse().ok()?)?;
        has(&process.path(), &wanted).then(|| Owner {
            pid,
            name: name_of(&process.path()),
        })
    })
}

fn has(process: &Path, socket: &str) -> bool {
    let Ok(descriptors) = std::fs::read_dir(process.join("fd")) else {
        // It has ended, or is not ours to look into.
        return false;
    };
    descriptors.filter_map(Result::ok).any(|descriptor| {
        let link = std::fs::read_link(descriptor.path());
        link.is_ok_and(|link| link.as_os_str() == socket)
    })
}

fn name_of(process: &Path) -> String {
    let name = std::fs::read(process.join("comm")).unwrap_or_default();
    crate::status::text::harmless_bytes(name.trim_ascii_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn addresses_are_read_as_the_kernel_prints_them() {
        // The words are in the order of this host, which is little-endian where this is tested.
        if cfg!(target_endian = "big") {
            return;
        }
        assert_eq!(
            local_address("0100007F:2A39"),
            "127.0.0.1:10809".parse().ok()
        );
        assert_eq!(
            local_address("00000000000000000000000001000000:0045"),
            "[::1]:69".parse().ok()
        );
        assert_eq!(local_address("nonsense"), None);
        assert_eq!(local_address("01:1"), None);
    }

    #[test]
    fn who_has_a_port_is_found() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
        let (tcp_at, udp_at) = (tcp.local_addr().unwrap(), udp.local_addr().unwrap());
        let own = rustix::process::getpid();
        assert_eq!(of(Transport::Tcp, tcp_at).unwrap().pid, own);
        let near = SocketAddr::new("127.0.0.1".parse().unwrap(), udp_at.port());
        assert_eq!(of(Transport::Udp, near).unwrap().pid, own);
        let other = SocketAddr::new("127.0.0.2".parse().unwrap(), tcp_at.port());
        assert_eq!(of(Transport::Tcp, other), None);
    }
}
