//! `[network]`, `[dhcp]`, `[group.NAME]`, and what `[client.NAME]` has for them.
//!
//! What the file says alone is checked when it is read; what depends on the addresses of the
//! interfaces is checked by [`DhcpConfig::settings`], whose mistakes have their lines too.

mod fit;
pub(super) mod form;
#[cfg(test)]
mod tests;
mod value;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{ConfigError, Mistake};
use super::file::Tables;
use super::value::{Located, Several};
use crate::dhcp::boot::{BootConfig, Mode, Platform};
use crate::dhcp::settings::{Machine, Told, Unknown, is_ours};
use crate::dhcp::wire::code;
use form::{Boot, Client, Dhcp, Group, Words};
use value::{Cidr, OwnAddress, Range};

/// What the file says of DHCP, as far as it can be checked without looking at interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhcpConfig {
    mode: Mode,
    /// At least one.
    interfaces: Vec<Located<String>>,
    address: Option<Located<OwnAddress>>,
    ranges: Vec<Located<Range>>,
    relayed: Vec<Relayed>,
    told: Told,
    machines: Vec<LocatedMachine>,
    boot: BootConfig,
    unknown: Unknown,
    probe: bool,
    routers: Vec<Router>,
    source: Source,
}

/// `[dhcp.network.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Relayed {
    network: Located<Cidr>,
    ranges: Vec<Located<Range>>,
    told: Told,
}

/// A router that machines are told of, and where the file says so.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Router {
    address: Located<Ipv4Addr>,
    of: RouterOf,
}

/// Whose router it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RouterOf {
    /// That of the networks of our interfaces.
    Ours,
    /// That of this network behind a relay.
    Relayed(Cidr),
    /// That of clients, which are in any network that is served.
    Clients,
}

/// A machine, and where its address stands.
#[derive(Clone, Debug, PartialEq, Eq)]
struct LocatedMachine {
    machine: Machine,
    at: usize,
}

/// The file, for the lines of late mistakes.
#[derive(Clone, Debug, Default)]
struct Source {
    path: PathBuf,
    text: Arc<str>,
}

/// What is said counts, not where.
impl PartialEq for Source {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Source {}

/// An address of ours on an interface that DHCP is served on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnNetwork {
    /// The name of the interface.
    pub interface: String,
    /// Our address there.
    pub address: Ipv4Addr,
    /// Bits of its network.
    pub prefix: u32,
}

impl DhcpConfig {
    /// Whether addresses are ours to give.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// The interfaces to serve on; at least one.
    pub fn interfaces(&self) -> impl Iterator<Item = &str> {
        self.interfaces.iter().map(|name| name.value.as_str())
    }

    /// Whether it is served in the same way on the same interfaces as by `other`.
    #[must_use]
    pub fn is_where(&self, other: &Self) -> bool {
        let of = |config: &Self| (config.mode, config.address());
        of(self) == of(other) && self.interfaces().eq(other.interfaces())
    }

    /// Which of our addresses on the interface is meant, where the file says so.
    #[must_use]
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.address.as_ref().map(|address| address.value.address)
    }

    /// The network that we are on, where the file alone says it all.
    #[must_use]
    pub fn said_network(&self) -> Option<OwnNetwork> {
        let address = self.address.as_ref()?.value;
        Some(OwnNetwork {
            interface: self.interfaces.first()?.value.clone(),
            address: address.address,
            prefix: address.prefix?,
        })
    }

    /// Whether files are served by HTTP at our address `server`.
    #[must_use]
    pub fn has_http_at(&self, server: Ipv4Addr) -> bool {
        self.boot.http_port(server).is_some()
    }

    pub(super) fn set_source(&mut self, path: &Path, text: &str) {
        self.source = Source {
            path: path.to_owned(),
            text: text.into(),
        };
    }

    fn in_file(&self, mistake: Mistake) -> ConfigError {
        mistake.in_file(&self.source.path, &self.source.text)
    }
}

/// All that the file says of DHCP. `None` where it is off.
pub(super) fn check(
    network: form::Network,
    dhcp: Option<Dhcp>,
    groups: &Tables<Group>,
    clients: &Tables<Client>,
    http: &[SocketAddrV4],
) -> Result<Option<DhcpConfig>, Mistake> {
    check_network(&network)?;
    let Some(dhcp) = dhcp else {
        return check_unused(groups, clients).map(|()| None);
    };
    let mode = dhcp.mode.as_ref().map(|mode| *mode.get_ref());
    let mode_at = dhcp.mode.as_ref().map_or(0, |mode| mode.span().start);
    let mode = match mode.unwrap_or_default() {
        form::Mode::Off => return Ok(None),
        form::Mode::Server => Mode::Server,
        form::Mode::Proxy => Mode::Proxy,
    };
    let interfaces = network.interface.0.into_iter();
    let interfaces: Vec<_> = interfaces
        .map(|Located { value, at }| Located { value: value.0, at })
        .collect();
    if interfaces.is_empty() {
        let what = "[dhcp] needs `interface` in [network]: it is served nowhere else";
        return Err(Mistake::new(mode_at, what));
    }
    let usual = BootConfig {
        http: http.to_vec(),
        ..BootConfig::default()
    };
    let boot = merged(&usual, dhcp.boot.as_ref());
    let config = DhcpConfig {
        mode,
        interfaces,
        routers: routers(&dhcp, groups, clients),
        address: network.address,
        ranges: ranges(dhcp.range.as_ref()),
        told: told(&dhcp.words())?,
        machines: machines(clients, groups, &boot)?,
        boot,
        unknown: dhcp.unknown.unwrap_or_default(),
        probe: dhcp.probe.unwrap_or(true),
        relayed: relayed(dhcp.network.unwrap_or_default())?,
        source: Source::default(),
    };
    config.check_alone()?;
    Ok(Some(config))
}

fn check_network(network: &form::Network) -> Result<(), Mistake> {
    let mut seen = Vec::new();
    for name in &network.interface.0 {
        if seen.contains(&&name.value) {
            let what = format!("interface {} is there already", name.value.0);
            return Err(Mistake::new(name.at, what));
        }
        seen.push(&name.value);
    }
    match &network.address {
        Some(address) if seen.len() > 1 => Err(Mistake::new(
            address.at,
            "`address` in [network] is for one `interface`; with several, each has its own",
        )),
        _ => Ok(()),
    }
}

/// Without DHCP a group must still be one that is there.
fn check_unused(groups: &Tables<Group>, clients: &Tables<Client>) -> Result<(), Mistake> {
    machines(clients, groups, &BootConfig::default()).map(drop)
}

fn ranges(said: Option<&Several<Range>>) -> Vec<Located<Range>> {
    said.map(|ranges| ranges.0.clone()).unwrap_or_default()
}

fn routers(dhcp: &Dhcp, groups: &Tables<Group>, clients: &Tables<Client>) -> Vec<Router> {
    let of_dhcp = [(RouterOf::Ours, dhcp.words())].into_iter();
    let relayed = dhcp.network.iter().flatten().filter_map(|(_, table)| {
        let network = table.address.as_ref()?.value;
        Some((RouterOf::Relayed(network), table.words()))
    });
    let groups = groups.values().map(Group::words);
    let clients = clients.values().map(Client::words);
    let clients = groups
        .chain(clients)
        .map(|words| (RouterOf::Clients, words));
    let all = of_dhcp.chain(relayed).chain(clients);
    all.flat_map(|(of, words)| {
        let said = words.router.0.into_iter();
        said.map(move |address| Router { address, of })
    })
    .collect()
}

fn relayed(tables: Tables<form::Relayed>) -> Result<Vec<Relayed>, Mistake> {
    let networks = tables.into_iter().map(|(name, table)| {
        let network = table.address.clone().ok_or_else(|| {
            let what = format!(
                "[dhcp.network.{}] needs its `address`, as in \"10.78.0.0/24\"",
                name.value
            );
            Mistake::new(name.at, what)
        })?;
        Ok(Relayed {
            network,
            ranges: ranges(table.range.as_ref()),
            told: told(&table.words())?,
        })
    });
    networks.collect()
}

/// Codes that have a key of their own.
const NAMED: &[(u8, &str)] = &[
    (code::ROUTER, "router"),
    (code::DNS, "dns"),
    (code::DOMAIN, "domain"),
    (code::NTP, "ntp"),
];

fn told(words: &Words) -> Result<Told, Mistake> {
    for code in words.options.keys() {
        let number = code.value.0;
        if is_ours(number) {
            let what = format!("option {number} is set by cowherd itself, or must not be sent");
            return Err(Mistake::new(code.at, what));
        }
        if let Some((_, key)) = NAMED.iter().find(|(named, _)| *named == number) {
            let what = format!("option {number} has a key of its own: `{key}`");
            return Err(Mistake::new(code.at, what));
        }
    }
    let options = words.options.iter();
    Ok(Told {
        routers: words.router.values(),
        dns: words.dns.values(),
        domain: words.domain.as_ref().map(|name| name.value.0.clone()),
        ntp: words.ntp.values(),
        lease: words.lease.as_ref().map(|lease| lease.value.0),
        options: options
            .map(|(code, value)| (code.value.0, value.0.clone()))
            .collect(),
    })
}

/// `narrow` goes before `wide`, key by key.
fn joined(narrow: Told, wide: Told) -> Told {
    let or = |narrow: Vec<_>, wide| if narrow.is_empty() { wide } else { narrow };
    let mut options = narrow.options;
    for (code, value) in wide.options {
        if options.iter().all(|(other, _)| *other != code) {
            options.push((code, value));
        }
    }
    Told {
        routers: or(narrow.routers, wide.routers),
        dns: or(narrow.dns, wide.dns),
        domain: narrow.domain.or(wide.domain),
        ntp: or(narrow.ntp, wide.ntp),
        lease: narrow.lease.or(wide.lease),
        options,
    }
}

/// What is booted where `said` goes before `wide`, key by key.
fn merged(wide: &BootConfig, said: Option<&Boot>) -> BootConfig {
    let Some(said) = said else {
        return wide.clone();
    };
    let files = [
        (Platform::Bios, &said.files.bios),
        (Platform::Ia32, &said.files.ia32),
        (Platform::X64, &said.files.x64),
        (Platform::Arm32, &said.files.arm32),
        (Platform::Arm64, &said.files.arm64),
        (Platform::Riscv64, &said.files.riscv64),
        (Platform::LoongArch64, &said.files.loongarch64),
    ];
    let own = |(platform, file): (Platform, &Option<Located<value::BootFile>>)| {
        Some((platform, file.as_ref()?.value.0.clone()))
    };
    let mut files: Vec<_> = files.into_iter().filter_map(own).collect();
    for (platform, file) in &wide.files {
        if files.iter().all(|(other, _)| other != platform) {
            files.push((*platform, file.clone()));
        }
    }
    let script = said.ipxe.as_ref().map(|script| script.value.0.clone());
    BootConfig {
        secure_boot: said.secure_boot.unwrap_or(wide.secure_boot),
        ipxe: script.or_else(|| wide.ipxe.clone()),
        files,
        http: wide.http.clone(),
    }
}

fn machines(
    clients: &Tables<Client>,
    groups: &Tables<Group>,
    boot: &BootConfig,
) -> Result<Vec<LocatedMachine>, Mistake> {
    let mut identifiers = super::check::Taken::default();
    let mut uuids = super::check::Taken::default();
    let mut machines = Vec::new();
    for (name, client) in clients {
        let group = group_of(client, groups)?;
        let identifier = client.client_identifier.clone();
        let identifier = identifier.map(|value| identifiers.take(value, &name.value));
        let uuid = client.uuid.clone();
        let uuid = uuid.map(|value| uuids.take(value, &name.value));
        let machine = Machine {
            name: name.value.clone(),
            mac: client.mac.as_ref().map(|mac| mac.value),
            client_identifier: identifier.transpose()?.map(|identifier| identifier.0),
            uuid: uuid.transpose()?.map(|uuid| uuid.0),
            address: client.address.as_ref().map(|address| address.value),
            told: told_of(client, group)?,
            boot: boot_of(client, group, boot),
        };
        let at = client
            .address
            .as_ref()
            .map_or(name.at, |address| address.at);
        machines.push(LocatedMachine { machine, at });
    }
    Ok(machines)
}

pub(super) fn group_of<'a>(
    client: &Client,
    groups: &'a Tables<Group>,
) -> Result<Option<&'a Group>, Mistake> {
    let Some(named) = &client.group else {
        return Ok(None);
    };
    let mut groups = groups.iter();
    match groups.find(|(name, _)| name.value == named.value) {
        Some((_, group)) => Ok(Some(group)),
        None => {
            let what = format!("there is no [group.{}] in this file", named.value);
            Err(Mistake::new(named.at, what))
        }
    }
}

fn told_of(client: &Client, group: Option<&Group>) -> Result<Told, Mistake> {
    let of_group = group.map(|group| told(&group.words())).transpose()?;
    Ok(joined(told(&client.words())?, of_group.unwrap_or_default()))
}

fn boot_of(client: &Client, group: Option<&Group>, wide: &BootConfig) -> Option<BootConfig> {
    let of_group = group.and_then(|group| group.boot.as_ref());
    if client.boot.is_none() && of_group.is_none() {
        return None;
    }
    Some(merged(&merged(wide, of_group), client.boot.as_ref()))
}

/// The first address of the network that `address` is in.
fn first_of(address: Ipv4Addr, prefix: u32) -> Ipv4Addr {
    let zeros = 32_u32.saturating_sub(prefix);
    let mask = u32::MAX.checked_shl(zeros).unwrap_or(0);
    Ipv4Addr::from_bits(address.to_bits() & mask)
}
