//! What is wrong with a boot, and what to do, in words.

use super::Stage;
use super::boot::{Boot, Passage};

/// Why a boot gets no further, as far as that can be told from what it did last.
#[must_use]
pub fn problem(boot: &Boot) -> String {
    match boot.newest() {
        None => "nothing has been seen of this boot".to_owned(),
        Some(newest) => match (&newest.failure, newest.ended) {
            (Some(failure), _) => failed(newest, failure),
            (None, None) => unfinished(newest),
            (None, Some(_)) => waits_after(boot, newest),
        },
    }
}

fn failed(passage: &Passage, failure: &str) -> String {
    let Passage { stage, detail, .. } = passage;
    match stage {
        Stage::Discover | Stage::Offer | Stage::Ack | Stage::DhcpAgain => {
            format!("its DHCP request got no answer: {failure}")
        }
        Stage::Loader | Stage::Config | Stage::Kernel | Stage::Initramfs => {
            format!("{}, {detail}: {failure}", stage.title())
        }
        Stage::Connect | Stage::FirstRead | Stage::Mounted => {
            format!("it was not given its disk: {failure}")
        }
    }
}

/// It was begun, and nothing came of it.
fn unfinished(passage: &Passage) -> String {
    let Passage { stage, detail, .. } = passage;
    match stage {
        Stage::Discover => "its DISCOVER got no offer: see the log with --verbose for the rules \
                            that were gone by, or ask `cowherd explain`"
            .to_owned(),
        Stage::FirstRead => "its first read waits for our disk: look at the health of the disk \
                             that the image is on"
            .to_owned(),
        Stage::Connect => format!(
            "it asks for {detail}, whose overlay is not open yet: `cowherd overlay` works on it, \
             or the disk of the state directory does not answer (see `dmesg`)"
        ),
        Stage::Loader | Stage::Config | Stage::Kernel | Stage::Initramfs => format!(
            "{}, {detail}, is on its way and does not arrive: look for a firewall that lets the \
             request through and not the answers, which come from another port",
            stage.title()
        ),
        _ => format!("{} was begun and not ended", stage.title()),
    }
}

/// Its requests wait for a disk of ours.
#[must_use]
pub fn held_up(boot: &Boot) -> String {
    let what = match boot.has(Stage::FirstRead) {
        true => "its requests wait",
        false => "its first read waits",
    };
    let export = boot.export.as_deref().unwrap_or("its export");
    format!(
        "{what} for our disk, which does not answer: look at the health of the disks that image \
         and overlay of {export} are on, at the network behind them, and at what `dmesg` says"
    )
}

/// All it began was done; the next step is the machine's.
fn waits_after(boot: &Boot, passage: &Passage) -> String {
    let export = boot.export.as_deref().unwrap_or("its disk");
    match passage.stage {
        Stage::Discover => "it asked for an address and was not answered".to_owned(),
        Stage::Offer => "it was made an offer and did not take it: another DHCP server may have \
                         been quicker, or the offer does not reach it"
            .to_owned(),
        Stage::Ack => "it has an address and asked for no boot loader: look whether its firmware \
                       boots from the network, and whether UDP port 69 (or TCP 80) is open on the \
                       way"
        .to_owned(),
        Stage::Loader => "its boot loader was loaded and asked for no menu: Secure Boot may have \
                          refused it, or it asks another server"
            .to_owned(),
        Stage::Config => {
            "it has its menu and asked for no kernel: the menu may wait for somebody, \
                          or its image has no `kernel` in the config"
                .to_owned()
        }
        Stage::Kernel => "it has its kernel and asked for no initramfs: see `initrd` of its image \
                          in the config, and its screen"
            .to_owned(),
        Stage::Initramfs => "kernel and initramfs were loaded, and nothing was heard of it since: \
                             the kernel may have stopped (see its screen), or the initramfs lacks \
                             the driver of its network card"
            .to_owned(),
        Stage::DhcpAgain => "its initramfs has an address and opened no disk: nbd-client may be \
                             missing in the initramfs, or the command line names another server or \
                             port"
            .to_owned(),
        Stage::Connect => format!(
            "it has opened {export} and reads nothing: the nbd module may be missing in its \
             initramfs"
        ),
        Stage::FirstRead => reads_only(boot, export),
        Stage::Mounted => "its root is mounted".to_owned(),
    }
}

/// It has read, and there is no sign of a mounted root.
fn reads_only(boot: &Boot, export: &str) -> String {
    match &boot.sign {
        None => format!(
            "it reads {export} and has not written: its root may be mounted read-only, or its boot \
             hangs after the initramfs (see its screen)"
        ),
        Some(sign) => format!(
            "it reads {export} and has not asked for /{sign}, which tells that its root is \
             mounted: its boot hangs after the initramfs (see its screen), or nothing in its \
             system asks"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::At;

    #[test]
    fn every_stage_has_words_of_its_own_for_what_comes_after_it() {
        let mut said: Vec<_> = Stage::ALL
            .into_iter()
            .map(|stage| {
                let mut boot = Boot::new(At(0));
                boot.reach(At(0), stage);
                problem(&boot)
            })
            .collect();
        said.sort();
        said.dedup();
        assert_eq!(said.len(), Stage::ALL.len());
    }

    #[test]
    fn a_failure_is_told_with_what_it_was_about() {
        let mut boot = Boot::new(At(0));
        boot.begin(At(0), Stage::Kernel).detail = "disk/arch+1/kernel".to_owned();
        boot.fail(At(1), Stage::Kernel, "there is no such file".to_owned());
        assert_eq!(
            problem(&boot),
            "kernel, disk/arch+1/kernel: there is no such file"
        );
    }
}
