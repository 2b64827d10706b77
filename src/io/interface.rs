//! The network interfaces of this host and their IPv4 addresses.

use std::ffi::CStr;
use std::io;
use std::net::Ipv4Addr;
use std::ptr::NonNull;

/// An IPv4 address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The name of the interface.
    pub interface: String,
    /// Its index.
    pub index: u32,
    /// The address.
    pub address: Ipv4Addr,
    /// Bits of its network.
    pub prefix: u32,
    /// Whether the interface is up.
    pub is_up: bool,
}

/// All IPv4 addresses of all interfaces, those of one interface in their order.
///
/// # Errors
/// What the kernel says.
pub fn addresses() -> io::Result<Vec<InterfaceAddress>> {
    let list = List::read()?;
    Ok(list.iter().filter_map(address_of).collect())
}

/// Whether there is an interface of this name, with or without an address.
///
/// # Errors
/// What the kernel says.
pub fn exists(name: &str) -> io::Result<bool> {
    let list = List::read()?;
    Ok(list.iter().any(|entry| name_of(entry) == name))
}

/// Whether an interface hears anything: it is up and there is something at the other end.
///
/// # Errors
/// What the kernel says, or that there is no such interface.
pub fn has_carrier(name: &str) -> io::Result<bool> {
    let list = List::read()?;
    let found = list.iter().find(|entry| name_of(entry) == name);
    let flags = found.ok_or(io::ErrorKind::NotFound)?.ifa_flags;
    Ok(flags & libc::IFF_RUNNING.cast_unsigned() != 0)
}

/// What getifaddrs gives; it is freed as a whole.
struct List(Option<NonNull<libc::ifaddrs>>);

impl List {
    fn read() -> io::Result<Self> {
        let mut first = std::ptr::null_mut();
        // SAFETY: `first` is a place for one pointer, which the call fills in where it gives 0.
        match unsafe { libc::getifaddrs(&raw mut first) } {
            0 => Ok(Self(NonNull::new(first))),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &libc::ifaddrs> {
        std::iter::successors(self.0, |entry| {
            // SAFETY: every entry of the list is valid until the list is freed, which it is when
            // `self` is dropped.
            NonNull::new(unsafe { entry.as_ref() }.ifa_next)
        })
        // SAFETY: as above; the borrow of `self` keeps the list.
        .map(|entry| unsafe { entry.as_ref() })
    }
}

impl Drop for List {
    fn drop(&mut self) {
        if let Some(first) = self.0 {
            // SAFETY: it is what getifaddrs gave, and is freed once.
            unsafe { libc::freeifaddrs(first.as_ptr()) };
        }
    }
}

fn name_of(entry: &libc::ifaddrs) -> String {
    // SAFETY: getifaddrs(3): a "null-terminated interface name", valid as long as the entry is.
    let name = unsafe { CStr::from_ptr(entry.ifa_name) };
    name.to_string_lossy().into_owned()
}

fn address_of(entry: &libc::ifaddrs) -> Option<InterfaceAddress> {
    let address = ipv4(entry.ifa_addr)?;
    let mask = ipv4(entry.ifa_netmask)?;
    // SAFETY: the name is a text with a NUL behind it, as above.
    let index = unsafe { libc::if_nametoindex(entry.ifa_name) };
    Some(InterfaceAddress {
        interface: name_of(entry),
        index: Some(index).filter(|index| *index != 0)?,
        address,
        prefix: mask.to_bits().leading_ones(),
        is_up: entry.ifa_flags & libc::IFF_UP.cast_unsigned() != 0,
    })
}

/// The address that `pointer` leads to; `None` where that is none of IPv4.
fn ipv4(pointer: *const libc::sockaddr) -> Option<Ipv4Addr> {
    let pointer = NonNull::new(pointer.cast_mut())?;
    // SAFETY: getifaddrs(3): a pointer that is not null leads to a sockaddr of whatever family.
    let family = unsafe { pointer.as_ref() }.sa_family;
    if i32::from(family) != libc::AF_INET {
        return None;
    }
    // SAFETY: of this family it is a sockaddr_in; it is copied, as its alignment is not known.
    let address = unsafe {
        pointer
            .cast::<libc::sockaddr_in>()
            .as_ptr()
            .read_unaligned()
    };
    Some(Ipv4Addr::from_bits(u32::from_be(address.sin_addr.s_addr)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_has_its_address() {
        let all = addresses().unwrap();
        let loopback = all.iter().find(|one| one.address.is_loopback()).unwrap();
        assert_eq!((loopback.interface.as_str(), loopback.prefix), ("lo", 8));
        assert!(loopback.is_up && loopback.index > 0);
    }

    #[test]
    fn an_interface_that_is_not_there_is_not_there() {
        assert!(exists("lo").unwrap() && has_carrier("lo").unwrap());
        assert!(has_carrier("no-such-one").is_err());
        assert!(!exists("no-such-one").unwrap());
    }
}
