//! A machine of QEMU with no disk at all, which boots from the network by its BIOS.

use std::process::Child;

use super::Host;

/// It, on the network of a host of its own. It is switched off when dropped.
pub(crate) struct NetBoot(Child);

impl NetBoot {
    /// Switches it on: with so many MiB, emulated.
    pub(crate) fn new(host: &Host, mac: &str, mebibytes: u32) -> Self {
        for words in [
            "link add br1 type bridge forward_delay 0",
            "link set br1 up",
            "link set lan0 master br1",
            "tuntap add tap0 mode tap",
            "link set tap0 master br1 up",
        ] {
            host.ip(words);
        }
        let words = format!(
            "-accel tcg,thread=multi,tb-size=256 -cpu qemu64 -machine q35 -m {mebibytes} \
             -display none -monitor none -serial none -no-reboot -nodefaults \
             -netdev tap,id=n,ifname=tap0,script=no,downscript=no \
             -device virtio-net-pci,netdev=n,mac={mac},bootindex=1 -device virtio-rng-pci"
        );
        let words: Vec<_> = words.split_whitespace().collect();
        Self(host.spawn("qemu-system-x86_64", &words))
    }
}

impl Drop for NetBoot {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
