//! What the kernel gives: io_uring, open files, memory.

use std::io;

use rustix::process::{Pid, Resource, getrlimit};

use super::Visit;
use super::finding::{Area, Finding};
use crate::limits::{CONNECTIONS_MAX, DOCTOR_FILES_MIN, DOCTOR_MEMORY_MIN};

/// Descriptors that a server has beside those of connections.
const FILES_BESIDE: u64 = 1024;

pub(super) fn look(visit: &mut Visit<'_>) {
    let ring = crate::io::run(async {}).map(drop);
    visit.found(ring_judged(ring));
    let most = match visit.server {
        Some(server) => files_of(server),
        None => getrlimit(Resource::Nofile).maximum.or(Some(u64::MAX)),
    };
    visit.found(files_judged(most));
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    visit.found(memory_judged(available(&text)));
}

fn ring_judged(ring: io::Result<()>) -> Finding {
    let about = "io_uring";
    let error = match ring {
        Ok(()) => return Finding::fine(Area::Kernel, about, "it can be used"),
        Err(error) => error,
    };
    let advice = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "allow it: `sysctl kernel.io_uring_disabled=0`, and in a container a seccomp profile \
             that lets io_uring_setup through"
        }
        io::ErrorKind::Unsupported => "use a kernel of 5.19 or newer that has io_uring",
        io::ErrorKind::OutOfMemory => {
            "raise the limit of locked memory: LimitMEMLOCK=infinity in the unit, or `ulimit -l`"
        }
        _ => "see the message of the kernel in `dmesg`",
    };
    let what = format!("it can't be used: {error}");
    Finding::wrong(Area::Kernel, about, what).advised(advice)
}

/// The limit of a process that runs: proc(5), "Max open files  1024  524288  files".
fn files_of(server: Pid) -> Option<u64> {
    let path = format!("/proc/{}/limits", server.as_raw_nonzero());
    let text = std::fs::read_to_string(path).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    let hard = line.split_ascii_whitespace().nth(1)?;
    match hard {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn files_judged(most: Option<u64>) -> Finding {
    let about = "open files";
    let Some(most) = most else {
        return Finding::unknown(Area::Kernel, about, "the limit of the server can't be seen");
    };
    let enough = CONNECTIONS_MAX as u64 + FILES_BESIDE;
    let what = format!("at most {most}, each connection takes one");
    let advice = format!("set LimitNOFILE={enough} in the unit, or `ulimit -Hn {enough}`");
    match most {
        most if most < DOCTOR_FILES_MIN => {
            Finding::wrong(Area::Kernel, about, what).advised(advice)
        }
        most if most < enough => Finding::warning(Area::Kernel, about, what).advised(advice),
        _ => Finding::fine(Area::Kernel, about, "as many as cowherd ever takes"),
    }
}

/// proc(5): "MemAvailable: An estimate of how much memory is available", in KiB.
fn available(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

fn memory_judged(available: Option<u64>) -> Finding {
    let about = "memory";
    let Some(available) = available else {
        return Finding::unknown(
            Area::Kernel,
            about,
            "the kernel does not tell how much is free",
        );
    };
    let what = format!("{} MiB are available", available / (1024 * 1024));
    if available < DOCTOR_MEMORY_MIN {
        return Finding::warning(Area::Kernel, about, what).advised(
            "images are read from memory where they are there: give the host more, or stop other \
             programs",
        );
    }
    Finding::fine(Area::Kernel, about, what)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_ring_that_is_refused_is_told_with_the_switch() {
        let refused = ring_judged(Err(io::ErrorKind::PermissionDenied.into()));
        assert_eq!(refused.level, Level::Wrong);
        assert!(refused.advice.unwrap().contains("io_uring_disabled"));
        assert_eq!(ring_judged(Ok(())).level, Level::Fine);
    }

    #[test]
    fn few_files_are_told() {
        assert_eq!(files_judged(Some(100)).level, Level::Wrong);
        assert_eq!(files_judged(Some(4096)).level, Level::Warning);
        assert_eq!(files_judged(Some(u64::MAX)).level, Level::Fine);
        assert_eq!(files_judged(None).level, Level::Unknown);
        assert!(files_of(rustix::process::getpid()).is_some());
    }

    #[test]
    fn memory_is_read_as_the_kernel_prints_it() {
        let text = "MemTotal:  100 kB\nMemAvailable:    2048 kB\n";
        assert_eq!(available(text), Some(2 << 20));
        assert_eq!(memory_judged(available(text)).level, Level::Warning);
        assert_eq!(memory_judged(None).level, Level::Unknown);
    }
}
