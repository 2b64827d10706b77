//! Whether machines find their disks in the network where they find their kernels.

use std::net::IpAddr;

use super::listen::BoundAddress;
use super::service::Doors;

/// What is wrong where they don't.
pub(super) const OUT_OF_REACH: &str =
    "machines get their kernels from here, and NBD listens where none of them is";

/// What to do then.
pub(super) const ADVICE: &str = "write an address of the machines' network as `listen` in [nbd], \
                                 such as [\"0.0.0.0:10809\"]";

/// Whether boot files are served to the network, and disks to this host alone.
pub(super) fn is_out_of_reach(
    disks: impl IntoIterator<Item = IpAddr>,
    files: impl IntoIterator<Item = IpAddr>,
) -> bool {
    let mut disks = disks.into_iter().peekable();
    let has_disks = disks.peek().is_some();
    let mut files = files.into_iter();
    has_disks && disks.all(|ip| ip.is_loopback()) && files.any(|ip| !ip.is_loopback())
}

/// Warns of it, once.
pub(super) fn warn(doors: &Doors) {
    let disks = doors.bound.iter().filter_map(|bound| match &bound.address {
        BoundAddress::Tcp(address) => Some(address.ip()),
        BoundAddress::Unix(_) => None,
    });
    let tftp = doors.tftp.iter().flat_map(|opened| opened.addresses());
    let http = doors.http.iter().flat_map(|opened| opened.addresses());
    if is_out_of_reach(disks, tftp.chain(http).map(IpAddr::V4)) {
        tracing::warn!("{OUT_OF_REACH}: {ADVICE}");
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const NEAR: Ipv4Addr = Ipv4Addr::LOCALHOST;
    const FAR: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

    #[test]
    fn kernels_for_the_network_without_a_disk_there_are_told_of() {
        let is = |disks: &[Ipv4Addr], files: &[Ipv4Addr]| {
            let ip = |all: &[Ipv4Addr]| all.iter().copied().map(IpAddr::V4).collect::<Vec<_>>();
            is_out_of_reach(ip(disks), ip(files))
        };
        assert!(is(&[NEAR], &[NEAR, FAR]));
        for (disks, files) in [
            (&[NEAR, FAR][..], &[FAR][..]),
            (&[NEAR], &[NEAR]),
            (&[NEAR], &[]),
            // On sockets of unix alone.
            (&[], &[FAR]),
        ] {
            assert!(!is(disks, files), "{disks:?} {files:?}");
        }
    }
}
