//! The work on one overlay. It blocks on the disk: not for the threads of the server.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::answer::{self, Blocks, Checked, Committed, Entry, Facts, Mode};
use super::{Progress, Reporter, failed};
use crate::disk::{RealDisk, usage};
use crate::export::merge::merge;
use crate::image::Image;
use crate::overlay::inspect::{self, Disagreement, Finding, Severity, View};
use crate::overlay::{OverlayMode, remove};
use crate::serve::catalog::VolumeKey;
use crate::serve::options::Failure;
use crate::serve::shard::{Held, Live};
use crate::units::BLOCK_SIZE;

/// One overlay, and where it is.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) key: VolumeKey,
    pub(super) dir: PathBuf,
    /// The present boot of the host.
    pub(super) boot_id: [u8; 16],
}

/// How the work is alone with an overlay, or that it is not.
#[derive(Debug)]
pub(super) enum Hold {
    /// No server runs.
    NoServer,
    /// The server holds it back from clients, or has it in use.
    Server(Held),
}

impl Hold {
    fn live(&self) -> Option<&Live> {
        match self {
            Self::NoServer | Self::Server(Held::Alone(_)) => None,
            Self::Server(Held::Live(live)) => Some(live),
        }
    }

    /// Whether a client has the overlay open.
    pub(super) fn is_live(&self) -> bool {
        self.live().is_some()
    }
}

impl Site {
    /// What it is, or why that can't be told.
    pub(super) fn entry(&self, hold: &Hold) -> Entry {
        let facts = self.facts(hold);
        Entry {
            overlay: self.key.to_string(),
            problem: facts.as_ref().err().cloned(),
            facts: facts.ok(),
        }
    }

    fn facts(&self, hold: &Hold) -> Result<Facts, String> {
        let in_use = hold.live().map(|live| live.users.clone());
        let view = self.view(hold)?;
        self.facts_of(&view, in_use).map_err(|e| e.to_string())
    }

    fn view(&self, hold: &Hold) -> Result<View<RealDisk>, String> {
        if let Some(live) = hold.live() {
            return Ok(live.view.clone());
        }
        let seen = inspect::look(&RealDisk, &self.dir).map_err(|error| error.to_string())?;
        seen.ok_or_else(|| "it is gone".to_owned())
    }

    fn facts_of(&self, view: &View<RealDisk>, in_use: Option<Vec<String>>) -> io::Result<Facts> {
        let usage = usage(&self.dir, inspect::is_record)?;
        let counts = view.map.counts();
        let client = inspect::last_client(&RealDisk, &self.dir);
        Ok(Facts {
            mode: match view.header.mode {
                OverlayMode::Persistent => Mode::Persistent,
                OverlayMode::Ephemeral => Mode::Ephemeral,
            },
            expired: self.is_expired(view.header.mode, view.header.boot_id),
            disk_bytes: view.header.base.size,
            space_bytes: usage.space,
            blocks: Blocks {
                bytes: BLOCK_SIZE,
                present: counts.present,
                zero: counts.zero,
            },
            created: view.header.created,
            written: usage.written,
            last_client: client
                .map(|inspect::LastClient { peer, at }| answer::LastClient { peer, at }),
            checkpoint: inspect::checkpoint_generation(&RealDisk, &self.dir)?,
            journal: answer::Journal {
                generation: view.journal.generation,
                used: view.journal.used as u64,
                size: view.journal.size as u64,
            },
            in_use,
            poison: view.poison.as_deref().map(str::to_owned),
        })
    }

    fn is_expired(&self, mode: OverlayMode, boot_id: [u8; 16]) -> bool {
        mode == OverlayMode::Ephemeral && boot_id != self.boot_id
    }

    /// Checks all that has a checksum, and the map against the data file.
    ///
    /// Of an overlay in use: its header, and its map as the server has it. Its journals and
    /// checkpoints change under a reader, so they are left to a check when it is closed.
    pub(super) fn check(&self, hold: &Hold, report: &Reporter) -> (Checked, Disagreement) {
        let (mut findings, view) = match hold.live() {
            Some(live) => (
                inspect::check_header(&RealDisk, &self.dir),
                Some(live.view.clone()),
            ),
            None => inspect::check_records(&RealDisk, &self.dir),
        };
        let mut found = Disagreement::default();
        if let Some(view) = &view {
            match self.compare(view, report) {
                Ok(disagreement) => found = disagreement,
                Err(error) => findings.push(Finding::Unread(error)),
            }
        }
        let mut checked = self.checked(findings, hold.is_live());
        if let Some(poison) = view.and_then(|view| view.poison) {
            checked
                .problems
                .push(format!("it takes no more writes: {poison}"));
        }
        (checked, found)
    }

    fn compare(&self, view: &View<RealDisk>, report: &Reporter) -> io::Result<Disagreement> {
        let mut report = self.progress(report);
        let found = inspect::compare(&view.map, &view.data, &mut report)?;
        found.ok_or_else(|| io::Error::other("the check was stopped"))
    }

    fn checked(&self, findings: Vec<Finding>, in_use: bool) -> Checked {
        let mut checked = Checked {
            overlay: self.key.to_string(),
            in_use,
            problems: Vec::new(),
            warnings: Vec::new(),
            notes: Vec::new(),
        };
        add(&mut checked, findings);
        if in_use {
            let note = "it is in use: its journals and checkpoint can be checked when it is closed";
            checked.notes.push(note.to_owned());
        }
        checked
    }

    fn progress<'a>(
        &'a self,
        report: &'a Reporter,
    ) -> impl FnMut(u64, u64) -> ControlFlow<()> + 'a {
        let overlay = self.key.to_string();
        move |done, total| {
            report(&Progress {
                overlay: overlay.clone(),
                done,
                total,
            })
        }
    }

    /// Removes it.
    pub(super) fn reset(&self) -> Result<(), Failure> {
        let failed = |error| Failure::failed(format!("overlay {}: {error}", self.key));
        remove(&RealDisk, &self.dir).map_err(failed)
    }

    /// Writes image and overlay to the new file `to`.
    pub(super) fn commit(
        &self,
        image: &Path,
        to: &Path,
        report: &Reporter,
    ) -> Result<Committed, Failure> {
        let refused = |why: String| Failure::failed(format!("overlay {}: {why}", self.key));
        let view = self.view(&Hold::NoServer).map_err(refused)?;
        if self.is_expired(view.header.mode, view.header.boot_id) {
            return Err(refused(
                "it is of an earlier boot of the host, and may have lost what it was promised; \
                 reset it"
                    .to_owned(),
            ));
        }
        let opened = Image::open_as(image, self.key.image.clone()).map_err(failed)?;
        let mut report = self.progress(report);
        let merged = merge(&opened, &view, to, &mut report).map_err(failed)?;
        Ok(Committed {
            overlay: self.key.to_string(),
            image: image.to_owned(),
            file: to.to_owned(),
            bytes: merged.size,
            space_bytes: merged.space,
            shared: merged.shared,
        })
    }

    /// Removes it if it is ephemeral and of an earlier boot; whether it was.
    pub(super) fn remove_if_expired(&self) -> Result<bool, Failure> {
        let expired = self.has_expired();
        if expired {
            self.reset()?;
        }
        Ok(expired)
    }

    /// Whether it is ephemeral and of an earlier boot. One that can't be read is not: somebody may
    /// want to have a look at it.
    pub(super) fn has_expired(&self) -> bool {
        let header = inspect::header(&RealDisk, &self.dir);
        matches!(header, Ok(Some(header)) if self.is_expired(header.mode, header.boot_id))
    }
}

/// Sorts what was found by how much it matters.
pub(super) fn add(checked: &mut Checked, findings: impl IntoIterator<Item = Finding>) {
    for finding in findings {
        let list = match finding.severity() {
            Severity::Problem => &mut checked.problems,
            Severity::Warning => &mut checked.warnings,
            Severity::Note => &mut checked.notes,
        };
        list.push(finding.to_string());
    }
}

/// Leaves a note of who uses an overlay now. It is a hint for people: where it can't be written,
/// nothing is wrong.
pub(in crate::serve) fn note_client(dir: &Arc<Path>, peer: String, now: u64) {
    let client = inspect::LastClient { peer, at: now };
    if let Err(error) = inspect::note_client(&RealDisk, dir, &client) {
        tracing::debug!("{}: no note of the client: {error}", dir.display());
    }
}
