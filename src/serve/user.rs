//! Giving up privileges, once what takes them is open.
//!
//! Invariant: this happens while there is one thread. The kernel keeps users and capabilities for
//! each thread, and later threads have those of the one that starts them.

use std::io;

use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{
    CapabilitySet, capabilities, set_capabilities, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use super::options::Failure;

/// Becomes `user`, where that is said; else gives up the capabilities for the network, where it is
/// not root that has them.
pub(super) fn give_up_privileges(user: Option<&str>) -> Result<(), Failure> {
    let is_root = geteuid().is_root();
    let account = user.map(account).transpose()?;
    match account.filter(|account| account.uid != geteuid()) {
        Some(account) if is_root => {
            become_user(&account).map_err(|error| failed("the rights of root", &error))
        }
        Some(_) => Err(Failure::failed(format!(
            "user {}: only root can become another user; start cowherd as root, or as that user",
            user.unwrap_or_default()
        ))),
        // Root owns much, with or without capabilities.
        None if is_root => Ok(()),
        None => {
            give_up_network().map_err(|error| failed("the capabilities for the network", &error))
        }
    }
}

/// Whether the system knows a user.
pub(super) fn check(name: &str) -> Result<(), Failure> {
    account(name).map(drop)
}

fn failed(what: &str, error: &io::Error) -> Failure {
    Failure::failed(format!("cannot give up {what}: {error}"))
}

/// A user as the system knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Account {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

fn account(name: &str) -> Result<Account, Failure> {
    let read = |path: &str| {
        let text = std::fs::read(path);
        let text = text.map_err(|error| Failure::failed(format!("{path}: {error}")))?;
        Ok::<_, Failure>(String::from_utf8_lossy(&text).into_owned())
    };
    account_in(name, &read("/etc/passwd")?, &read("/etc/group")?).ok_or_else(|| {
        Failure::usage(format!(
            "user {name}: there is none in /etc/passwd; make it, or take `user` out of the config"
        ))
    })
}

/// The account of a name in the texts of passwd(5) and group(5).
fn account_in(name: &str, passwd: &str, group: &str) -> Option<Account> {
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    let entry = passwd
        .lines()
        .map(fields)
        .find(|entry| entry.first().is_some_and(|of| of == name));
    let entry = entry?;
    let number = |field: &String| field.parse().ok().filter(|number| *number != u32::MAX);
    let (uid, gid) = (
        entry.get(2).and_then(number)?,
        entry.get(3).and_then(number)?,
    );
    let mut groups = vec![gid];
    for entry in group.lines().map(fields) {
        let [_, _, number, members] = &entry[..] else {
            continue;
        };
        if members.split(',').any(|member| member == name) {
            groups.extend(number.parse::<u32>());
        }
    }
    groups.dedup();
    Some(Account {
        uid: Uid::from_raw(uid),
        gid: Gid::from_raw(gid),
        groups: groups.into_iter().map(Gid::from_raw).collect(),
    })
}

/// Groups first: who is no longer root can't change them.
fn become_user(account: &Account) -> io::Result<()> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other("there are other threads already"));
    }
    let Account { uid, gid, groups } = account;
    set_thread_groups(groups)?;
    set_thread_res_gid(*gid, *gid, *gid)?;
    set_thread_res_uid(*uid, *uid, *uid)?;
    Ok(())
}

fn give_up_network() -> io::Result<()> {
    let network =
        CapabilitySet::NET_BIND_SERVICE | CapabilitySet::NET_RAW | CapabilitySet::NET_ADMIN;
    let mut sets = capabilities(None)?;
    if !sets.permitted.intersects(network) {
        return Ok(());
    }
    sets.effective.remove(network);
    sets.permitted.remove(network);
    sets.inheritable.remove(network);
    set_capabilities(None, sets)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nherd:x:123:456::/:/sbin/nologin\n\
                          odd:x:-1:4294967295::/:\ncut:x:1\n";
    const GROUP: &str = "root:x:0:\ndisk:x:6:other,herd\nherd:x:456:\nbad\nno:x:7:herd2\n";

    #[test]
    fn an_account_has_its_own_group_and_those_it_is_a_member_of() {
        let account = account_in("herd", PASSWD, GROUP).unwrap();
        assert_eq!((account.uid.as_raw(), account.gid.as_raw()), (123, 456));
        let groups: Vec<_> = account.groups.iter().map(|group| group.as_raw()).collect();
        assert_eq!(groups, [456, 6]);
    }

    #[test]
    fn what_is_no_account_is_none() {
        for name in ["", "nobody-here", "odd", "cut", "herd:x"] {
            assert_eq!(account_in(name, PASSWD, GROUP), None, "{name}");
        }
    }
}
