//! What an NFS server has to export for the roots of the config.

use std::fmt::Write;
use std::net::Ipv4Addr;

use super::super::options::Failure;
use super::subject::own_network;
use crate::config::{Config, NfsRoot};

/// Whose form the exports have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NfsServer {
    /// The kernel's: lines of exports(5).
    Kernel,
    /// nfs-ganesha: blocks `EXPORT`.
    Ganesha,
}

/// The exports of all roots.
pub(super) fn text(
    config: &Config,
    server: Option<Ipv4Addr>,
    kind: NfsServer,
) -> Result<String, Failure> {
    if config.nfs.is_empty() {
        return Err(Failure::usage(
            "there is no [nfs.NAME] in the config: see cowherd.toml(5)",
        ));
    }
    let own = own_network(&config.network);
    let clients = match (own, server) {
        (Ok((address, Some(prefix))), _) => network(address, prefix),
        (Err(failure), None) => return Err(failure),
        (Ok((_, None)) | Err(_), _) => {
            return Err(Failure::usage(
                "the network of the machines is not known: say it in [network], as in address = \
                 \"10.77.0.1/24\"",
            ));
        }
    };
    let mut out = String::new();
    for (nth, root) in config.nfs.iter().enumerate() {
        let text = match kind {
            NfsServer::Kernel => kernel(root, &clients),
            NfsServer::Ganesha => ganesha(root, &clients, nth + 1),
        };
        out.push_str(&text);
    }
    Ok(out)
}

fn network(address: Ipv4Addr, prefix: u32) -> String {
    let mask = u32::MAX.checked_shl(32 - prefix.min(32)).unwrap_or(0);
    let first = Ipv4Addr::from_bits(address.to_bits() & mask);
    format!("{first}/{prefix}")
}

/// exports(5). The root of a machine is owned by its root, which must not become nobody.
fn kernel(root: &NfsRoot, clients: &str) -> String {
    let access = if root.is_writable { "rw" } else { "ro" };
    let NfsRoot { name, path, .. } = root;
    format!("# {name}\n{path} {clients}({access},sync,no_root_squash,no_subtree_check)\n")
}

fn ganesha(root: &NfsRoot, clients: &str, id: usize) -> String {
    let access = if root.is_writable { "RW" } else { "RO" };
    let NfsRoot { name, path, .. } = root;
    let mut out = format!("# {name}\nEXPORT {{\n");
    for line in [
        &format!("Export_Id = {id};"),
        &format!("Path = \"{path}\";"),
        &format!("Pseudo = \"{path}\";"),
        "Protocols = 3, 4;",
        "Transports = UDP, TCP;",
        "SecType = sys;",
        "Squash = No_Root_Squash;",
        "Access_Type = None;",
        &format!("CLIENT {{ Clients = {clients}; Access_Type = {access}; }}"),
        "FSAL { Name = VFS; }",
    ] {
        // Nothing can fail in writing to a String.
        let _ = writeln!(out, "    {line}");
    }
    out.push_str("}\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::cmdline::NfsInitramfs;
    use crate::config::NetworkConfig;
    use crate::name::Name;

    fn config(prefix: Option<u32>) -> Config {
        let root = NfsRoot {
            name: Name::new("debian").unwrap(),
            server: None,
            path: "/srv/nfs/debian".to_owned(),
            options: None,
            is_writable: false,
            files: "/srv/nfs/debian".into(),
            kernel: "vmlinuz".to_owned(),
            initrds: Vec::new(),
            initramfs: NfsInitramfs::None,
            words: Vec::new(),
            title: None,
        };
        Config {
            nfs: vec![root],
            network: NetworkConfig {
                interfaces: Vec::new(),
                address: Some(([10, 77, 3, 1].into(), prefix)),
            },
            ..Config::default()
        }
    }

    #[test]
    fn the_kernel_s_server_gets_a_line_for_the_network_of_the_machines() {
        assert_eq!(
            text(&config(Some(16)), None, NfsServer::Kernel).unwrap(),
            "# debian\n/srv/nfs/debian 10.77.0.0/16(ro,sync,no_root_squash,no_subtree_check)\n"
        );
        let mut writable = config(Some(24));
        writable.nfs[0].is_writable = true;
        let line = text(&writable, None, NfsServer::Kernel).unwrap();
        assert!(line.contains(" 10.77.3.0/24(rw,"), "{line}");
    }

    #[test]
    fn ganesha_gets_a_block() {
        let block = text(&config(Some(24)), None, NfsServer::Ganesha).unwrap();
        for line in [
            "EXPORT {",
            "    Export_Id = 1;",
            "    Path = \"/srv/nfs/debian\";",
            "    CLIENT { Clients = 10.77.3.0/24; Access_Type = RO; }",
            "}",
        ] {
            assert!(block.lines().any(|there| there == line), "{line}\n{block}");
        }
    }

    #[test]
    fn a_network_that_nobody_knows_is_not_guessed() {
        let server = Some(Ipv4Addr::LOCALHOST);
        for server in [None, server] {
            let failure = text(&config(None), server, NfsServer::Kernel).unwrap_err();
            assert!(failure.to_string().contains("10.77.0.1/24"), "{failure}");
        }
        assert!(text(&Config::default(), None, NfsServer::Kernel).is_err());
    }
}
