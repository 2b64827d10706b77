//! The form of `[network]`, `[dhcp]` and `[group]`: one struct a table, one field a key.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::Deserialize;
use toml::Spanned;

use super::super::file::Tables;
use super::super::value::{Located, Several};
use super::value::{
    BootFile, Cidr, Domain, InterfaceName, Lease, OptionCode, OptionValue, OwnAddress, Range,
};
use crate::dhcp::settings::Unknown;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Network {
    #[serde(default)]
    pub(super) interface: Several<InterfaceName>,
    pub(super) address: Option<Located<OwnAddress>>,
}

impl Network {
    /// What others than DHCP go by.
    pub(in crate::config) fn checked(&self) -> crate::config::NetworkConfig {
        let interfaces = self.interface.values().into_iter();
        let address = self.address.as_ref().map(|address| address.value);
        crate::config::NetworkConfig {
            interfaces: interfaces.map(|name| name.0).collect(),
            address: address.map(|own| (own.address, own.prefix)),
        }
    }
}

/// Who gives addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum Mode {
    #[default]
    Server,
    Proxy,
    Off,
}

/// Options of replies, as the keys of one table say them.
#[derive(Clone, Debug, Default)]
pub(in crate::config) struct Words {
    pub(super) router: Several<Ipv4Addr>,
    pub(super) dns: Several<Ipv4Addr>,
    pub(super) domain: Option<Located<Domain>>,
    pub(super) ntp: Several<Ipv4Addr>,
    pub(super) lease: Option<Located<Lease>>,
    pub(super) options: BTreeMap<Located<OptionCode>, OptionValue>,
}

/// Tables that say options of replies beside their other keys. serde's own `flatten` would lose
/// the places of values and the refusal of unknown keys.
macro_rules! tables_with_words {
    ($($table:ident { $($field:ident: $type:ty),* $(,)? })*) => {$(
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(in crate::config) struct $table {
            $(pub(in crate::config) $field: $type,)*
            #[serde(default)]
            router: Several<Ipv4Addr>,
            #[serde(default)]
            dns: Several<Ipv4Addr>,
            domain: Option<Located<Domain>>,
            #[serde(default)]
            ntp: Several<Ipv4Addr>,
            lease: Option<Located<Lease>>,
            #[serde(default)]
            options: BTreeMap<Located<OptionCode>, OptionValue>,
        }

        impl $table {
            /// What it says of options of replies.
            pub(super) fn words(&self) -> Words {
                Words {
                    router: self.router.clone(),
                    dns: self.dns.clone(),
                    domain: self.domain.clone(),
                    ntp: self.ntp.clone(),
                    lease: self.lease.clone(),
                    options: self.options.clone(),
                }
            }
        }
    )*};
}

tables_with_words! {
    Dhcp {
        mode: Option<Spanned<Mode>>,
        range: Option<Several<Range>>,
        unknown: Option<Unknown>,
        probe: Option<bool>,
        boot: Option<Boot>,
        network: Option<Tables<Relayed>>,
    }
    Relayed {
        address: Option<Located<Cidr>>,
        range: Option<Several<Range>>,
    }
    Group {
        boot: Option<Boot>,
        menu: Option<crate::config::menu::Menu>,
    }
    Client {
        certificate: Option<Spanned<bool>>,
        allow: Option<Vec<Located<crate::access::Entry>>>,
        mac: Option<Located<crate::mac::MacAddress>>,
        client_identifier: Option<Located<super::value::Identifier>>,
        uuid: Option<Located<super::value::Uuid>>,
        address: Option<Located<Ipv4Addr>>,
        group: Option<Located<crate::name::Name>>,
        boot: Option<Boot>,
        image: Option<Located<crate::name::Name>>,
        overlay: Option<crate::config::Keep>,
        menu: Option<crate::config::menu::Menu>,
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Boot {
    pub(super) secure_boot: Option<bool>,
    pub(super) ipxe: Option<Located<BootFile>>,
    #[serde(default)]
    pub(super) files: Files,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Files {
    pub(super) bios: Option<Located<BootFile>>,
    pub(super) ia32: Option<Located<BootFile>>,
    pub(super) x64: Option<Located<BootFile>>,
    pub(super) arm32: Option<Located<BootFile>>,
    pub(super) arm64: Option<Located<BootFile>>,
    pub(super) riscv64: Option<Located<BootFile>>,
    pub(super) loongarch64: Option<Located<BootFile>>,
}
