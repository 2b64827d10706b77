//! Whose address it is, as far as the kernel knows from having spoken to it.

use std::net::IpAddr;

use crate::mac::MacAddress;

/// The network card behind `address`; `None` where this host has not spoken to it lately.
pub(super) fn mac_of(address: IpAddr) -> Option<MacAddress> {
    // This file is made by the kernel when it is read, and waits for no disk.
    find(&std::fs::read_to_string("/proc/net/arp").ok()?, address)
}

/// proc_net(5): "Each line has the form: IP address, HW type, Flags, HW address, Mask, Device".
fn find(table: &str, address: IpAddr) -> Option<MacAddress> {
    let of_line = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let is_its = words.next()?.parse() == Ok(address);
        let mac = words.nth(2)?.parse().ok()?;
        is_its.then_some(mac)
    };
    table.lines().skip(1).find_map(of_line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_found_by_its_address() {
        let table = "\
IP address       HW type     Flags       HW address            Mask     Device
10.0.0.10        0x1         0x2         52:54:00:00:00:0a     *        lan0
10.0.0.1         0x1         0x2         52:54:00:00:00:01     *        lan0
10.0.0.2         0x1         0x0         00:00:00:00:00:00     *        lan0
";
        let of = |last: u8| find(table, IpAddr::from([10, 0, 0, last]));
        assert_eq!(of(1), Some(MacAddress([0x52, 0x54, 0, 0, 0, 1])));
        assert_eq!(of(2), None, "it did not answer");
        assert_eq!(of(3), None);
    }
}
