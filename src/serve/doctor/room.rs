//! Free space where overlays and leases are written.

use super::Visit;
use super::finding::{Area, Finding};
use crate::limits::{DOCTOR_SPACE_LOW, DOCTOR_SPACE_NONE};

pub(super) fn look(visit: &mut Visit<'_>) {
    let about = visit.state.display().to_string();
    let state = visit.state.clone();
    visit.aside(Area::Space, &about, move |told| {
        // One that is not there yet will be below the first above it that is.
        let above = state.ancestors().find(|path| path.exists());
        let about = state.display().to_string();
        told.found(match rustix::fs::statvfs(above.unwrap_or(&state)) {
            Err(error) => {
                Finding::unknown(Area::Space, about, format!("it can't be asked: {error}"))
            }
            Ok(facts) => judged(
                about,
                facts.f_bavail.saturating_mul(facts.f_frsize),
                facts.f_blocks.saturating_mul(facts.f_frsize),
                (facts.f_favail, facts.f_files),
            ),
        });
    });
}

fn judged(about: String, free: u64, all: u64, (left, files): (u64, u64)) -> Finding {
    let mib = |bytes: u64| bytes / (1024 * 1024);
    let what = format!("{} MiB of {} MiB are free", mib(free), mib(all));
    let advice = "make room: `cowherd overlay list` shows what each takes, `cowherd overlay reset` \
                  gives it back; --overlay-limit bounds what one machine may take";
    if free < DOCTOR_SPACE_NONE {
        let what = format!("{what}: machines get errors when they write");
        return Finding::wrong(Area::Space, about, what).advised(advice);
    }
    // File systems that make them as they go have no number of them.
    if files > 0 && left < files / 100 {
        let what = format!("{left} of {files} inodes are left");
        return Finding::warning(Area::Space, about, what)
            .advised("each overlay takes seven: remove files, or those that are not needed");
    }
    if free < DOCTOR_SPACE_LOW {
        return Finding::warning(Area::Space, about, what).advised(advice);
    }
    Finding::fine(Area::Space, about, what)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn little_room_is_a_warning_and_none_is_wrong() {
        let level = |free, left| judged("state".to_owned(), free, 1 << 40, (left, 1000)).level;
        assert_eq!(level(DOCTOR_SPACE_LOW, 500), Level::Fine);
        assert_eq!(level(DOCTOR_SPACE_LOW - 1, 500), Level::Warning);
        assert_eq!(level(DOCTOR_SPACE_NONE - 1, 500), Level::Wrong);
        assert_eq!(level(DOCTOR_SPACE_LOW, 3), Level::Warning);
        let btrfs = judged("state".to_owned(), DOCTOR_SPACE_LOW, 1 << 40, (0, 0));
        assert_eq!(btrfs.level, Level::Fine);
    }
}
