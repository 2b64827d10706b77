//! What only the host can tell or give: its boot, the time, random bytes, descriptors, addresses.

use std::net::Ipv4Addr;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::options::Failure;
use crate::dhcp::Moment;
use crate::io::interface;

/// The present boot of the host; an ephemeral overlay ends with it.
pub(super) fn boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    // Without /proc every start of the server counts as a boot: ephemeral overlays end sooner.
    parse_uuid(text.trim()).unwrap_or_else(random)
}

/// The time since the host booted, its sleep included.
pub(super) fn moment() -> Moment {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let millis = u64::try_from(time.tv_nsec / 1_000_000).unwrap_or_default();
    Moment(seconds * 1000 + millis)
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

/// Bytes that nothing else has.
pub(super) fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    // The pool of the kernel is ready long before any service starts, and 16 bytes never come
    // short.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    bytes
}

/// Allows as many open files as the administrator does: a client needs four or five.
pub(super) fn raise_file_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, most) {
        tracing::warn!("the limit on open files stays low ({error}): few clients will be served");
    }
}

/// The kernel does not say which interfaces there are.
pub(super) fn no_interfaces(error: std::io::Error) -> Failure {
    Failure::failed(format!("network interfaces: {error}"))
}

/// The interface has no address, or not the one that it is said to have: not yet, perhaps.
pub(super) fn no_address(interface: &str, said: Option<Ipv4Addr>) -> Failure {
    let is_there = match interface::exists(interface) {
        Ok(is_there) => is_there,
        Err(error) => return no_interfaces(error),
    };
    Failure::not_yet(match (is_there, said) {
        (false, _) => {
            format!("interface {interface}: there is none; check [network] in the config")
        }
        (true, Some(said)) => {
            format!("interface {interface} does not have the address {said}; check [network]")
        }
        (true, None) => {
            format!("interface {interface} has no IPv4 address; give it one before cowherd starts")
        }
    })
}

/// Bytes of memory that are free, or can be made so without writing anything; 0 where nobody tells.
pub(super) fn available_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    parse_available(&text).unwrap_or(0)
}

/// proc_meminfo(5): "MemAvailable (since Linux 3.14)", in kB.
fn parse_available(text: &str) -> Option<u64> {
    let mut lines = text.lines();
    let rest = lines.find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<_> = text.chars().filter(|&c| c != '-').collect();
    let mut bytes = [0; 16];
    if digits.len() != 32 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(&pair.iter().collect::<String>(), 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_id_is_read_from_its_text() {
        let bytes = parse_uuid("00010203-0405-0607-0809-0a0b0c0d0eff").unwrap();
        assert_eq!(
            bytes,
            [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]
        );
        assert_eq!(parse_uuid("no such thing"), None);
    }

    #[test]
    fn the_boot_id_stays_the_same() {
        assert_eq!(boot_id(), boot_id());
    }

    #[test]
    fn memory_is_told_in_kilobytes() {
        let text = "MemTotal:       24689764 kB\nMemAvailable:   19000000 kB\n";
        assert_eq!(parse_available(text), Some(19_000_000 * 1024));
        for other in [
            "",
            "MemAvailable: 5",
            "MemAvailable: 18446744073709551615 kB",
        ] {
            assert_eq!(parse_available(other), None);
        }
        assert!(available_memory() > 0);
    }

    #[test]
    fn random_bytes_differ() {
        assert_ne!(random(), random());
    }
}
