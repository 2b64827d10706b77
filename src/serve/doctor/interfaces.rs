//! Network interfaces that the config names.

use super::Visit;
use super::finding::{Area, Finding};
use crate::config::OwnNetwork;
use crate::io::interface::{self, InterfaceAddress};

pub(super) fn look(visit: &mut Visit<'_>) {
    let all = match interface::addresses() {
        Ok(all) => all,
        Err(error) => {
            let what = format!("the kernel does not tell of them: {error}");
            return visit.found(Finding::unknown(Area::Interfaces, "all", what));
        }
    };
    let names = visit.config.network.interfaces.clone();
    let said = visit.config.network.address.map(|(address, _)| address);
    let mut own = Vec::new();
    for name in &names {
        let of_it: Vec<_> = all.iter().filter(|one| one.interface == *name).collect();
        let chosen = of_it
            .iter()
            .find(|one| said.is_none_or(|said| said == one.address));
        visit.found(match chosen {
            Some(found) => judged(found),
            None => absent(name, &of_it, said),
        });
        own.extend(chosen.map(|found| OwnNetwork {
            interface: found.interface.clone(),
            address: found.address,
            prefix: found.prefix,
        }));
    }
    fit(visit, &own, names.len());
}

/// One that has the address that it is to have.
fn judged(found: &InterfaceAddress) -> Finding {
    let name = found.interface.as_str();
    let address = format!("{}/{}", found.address, found.prefix);
    if !found.is_up {
        let what = format!("it has the address {address} and is down");
        return Finding::wrong(Area::Interfaces, name, what).advised(format!(
            "run `ip link set {name} up`, and have it done at every start"
        ));
    }
    match interface::has_carrier(name) {
        Ok(false) => {
            let what = format!("it has the address {address} and no carrier: nobody hears it");
            Finding::wrong(Area::Interfaces, name, what)
                .advised("look at its cable, and at the switch")
        }
        Ok(true) | Err(_) => Finding::fine(Area::Interfaces, name, format!("up, with {address}")),
    }
}

fn absent(name: &str, has: &[&InterfaceAddress], said: Option<std::net::Ipv4Addr>) -> Finding {
    let wrong = |what: String| Finding::wrong(Area::Interfaces, name, what);
    if !matches!(interface::exists(name), Ok(true)) {
        return wrong("there is no such interface".to_owned()).advised(
            "see `ip link` for those there are, and name one as `interface` in [network]",
        );
    }
    let has: Vec<_> = has.iter().map(|one| one.address.to_string()).collect();
    match said {
        Some(said) => wrong(format!("it has not the address {said}, but {}", list(&has)))
            .advised("give it that address, or change `address` in [network] to one that it has"),
        None => wrong("it has no IPv4 address".to_owned())
            .advised("give it a fixed one before cowherd starts: machines find the server by it"),
    }
}

fn list(addresses: &[String]) -> String {
    match addresses {
        [] => "none".to_owned(),
        some => some.join(", "),
    }
}

/// Whether what DHCP is to say fits the networks that there are.
fn fit(visit: &mut Visit<'_>, own: &[OwnNetwork], wanted: usize) {
    let Some(dhcp) = &visit.config.dhcp else {
        return;
    };
    if own.len() < wanted {
        return;
    }
    if let Err(error) = dhcp.settings(own) {
        visit.found(
            Finding::wrong(Area::Interfaces, "[dhcp]", error.to_string())
                .advised("change the config to fit the interface, or the other way round"),
        );
    }
}
