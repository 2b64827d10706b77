//! Which addresses are served while those of interfaces change.

use super::*;

/// A socket that every address can have but those of 10.99.
#[derive(Debug)]
struct Fake(SocketAddrV4);

impl Post for Fake {
    const NAME: &'static str = "fake";
    const DOOR: Door = Door::Tftp;

    fn bind(address: SocketAddrV4, _: &mut Given) -> Result<Self, Failure> {
        match address.ip().octets() {
            [10, 99, ..] => Err(Failure::failed("refused")),
            _ => Ok(Self(address)),
        }
    }

    fn address(&self) -> io::Result<SocketAddrV4> {
        Ok(self.0)
    }

    fn share(&self) -> io::Result<OwnedFd> {
        Ok(std::fs::File::open("/dev/null")?.into())
    }
}

fn has(interface: &str, address: &str) -> InterfaceAddress {
    InterfaceAddress {
        interface: interface.to_owned(),
        index: 1,
        address: address.parse().unwrap(),
        prefix: 24,
        is_up: true,
    }
}

fn network(interfaces: &[&str]) -> NetworkConfig {
    NetworkConfig {
        interfaces: interfaces.iter().map(|&name| name.to_owned()).collect(),
        address: None,
    }
}

/// Sockets as they are after looks at interfaces that have these addresses.
fn after(network: &NetworkConfig, looks: &[&[InterfaceAddress]]) -> Vec<String> {
    let serve = |_: Fake| Ok(Box::pin(std::future::pending()) as Serving);
    let mut posts = Posts {
        posted: Posted::new(Door::Tftp),
        serve: Box::new(serve),
        doors: JoinSet::new(),
        tasks: Vec::new(),
        refused: Vec::new(),
    };
    for all in looks {
        posts.look(all, network, 69);
    }
    let posted = posts.posted.all();
    assert_eq!(posted.len(), posts.tasks.len());
    posted.iter().map(|(own, _)| own.to_string()).collect()
}

#[tokio::test]
async fn the_addresses_of_interfaces_are_served_and_no_others() {
    let all = [
        has("lo", "127.0.0.1"),
        has("lan0", "10.77.0.1"),
        has("lan1", "10.78.0.1"),
        has("wan0", "192.0.2.1"),
        has("lan0", "10.77.1.1"),
    ];
    let both = network(&["lan0", "lan1"]);
    let expected = ["10.77.0.1:69", "10.77.1.1:69", "10.78.0.1:69"];
    assert_eq!(after(&both, &[&all, &all]), expected);
    let one = NetworkConfig {
        address: Some(([10, 77, 1, 1].into(), None)),
        ..network(&["lan0"])
    };
    assert_eq!(after(&one, &[&all]), ["10.77.1.1:69"]);
}

#[tokio::test]
async fn an_address_that_is_gone_keeps_its_socket_until_there_is_another() {
    let (first, second) = ([has("lan0", "10.77.0.1")], [has("lan0", "10.77.0.2")]);
    let network = network(&["lan0"]);
    assert_eq!(after(&network, &[&first, &[]]), ["10.77.0.1:69"]);
    assert_eq!(after(&network, &[&first, &[], &first]), ["10.77.0.1:69"]);
    assert_eq!(after(&network, &[&first, &second]), ["10.77.0.2:69"]);
    let refused = [has("lan0", "10.99.0.1")];
    assert_eq!(after(&network, &[&first, &refused]), ["10.77.0.1:69"]);
}

#[tokio::test]
async fn an_address_that_another_interface_has_now_is_served_no_more() {
    let moved = [has("wan0", "10.77.0.1")];
    let network = network(&["lan0"]);
    let looks: [&[_]; 2] = [&[has("lan0", "10.77.0.1")], &moved];
    assert!(after(&network, &looks).is_empty());
}

#[test]
fn an_interface_without_an_address_may_have_one_later() {
    let listen = Listen::OnInterfaces(network(&["no-such-one"]), 69);
    let failure = addresses(&listen).unwrap_err();
    assert!(failure.may_pass() && failure.to_string().contains("no-such-one"));
    let listen = Listen::OnInterfaces(network(&["lo"]), 69);
    let local = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 69);
    assert!(addresses(&listen).unwrap().contains(&local));
}
