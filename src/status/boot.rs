//! One boot: one pass of a machine from its DHCPDISCOVER to a mounted root.
//!
//! Invariants:
//! - A stage stands in a boot once, however often it was tried; the stages are in their order.
//! - A stage that was reached stays so: what goes wrong later does not undo it.

use serde::{Deserialize, Serialize};

use super::{At, Stage};

/// A stage of one boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// Which.
    pub stage: Stage,
    /// When it was first tried.
    pub began: At,
    /// When it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<At>,
    /// Bytes that were sent for it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes: u64,
    /// What it was about: a file, an export.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Why it was not done, so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// How often it was tried.
    #[serde(default)]
    pub tries: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// One boot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// When it began.
    pub began: At,
    /// When the machine was last heard of in it.
    pub last: At,
    /// Its stages, in their order.
    pub passages: Vec<Passage>,
    /// What it boots from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<String>,
    /// It can't write there, so that its first read is all that can be seen.
    #[serde(default)]
    pub is_read_only: bool,
    /// The file that it asks for when its root is mounted; its first write tells without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sign: Option<String>,
    /// Its firmware is iPXE.
    #[serde(default)]
    pub by_ipxe: bool,
    /// When its last connection ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<At>,
    /// That end was its own wish.
    #[serde(default)]
    pub is_clean: bool,
    /// When the next one began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<At>,
    /// How often it has connected again.
    #[serde(default)]
    pub reconnects: u32,
}

impl Boot {
    /// One that begins now.
    #[must_use]
    pub fn new(now: At) -> Self {
        Self {
            began: now,
            last: now,
            ..Self::default()
        }
    }

    /// A stage of it, if it was tried.
    #[must_use]
    pub fn passage(&self, stage: Stage) -> Option<&Passage> {
        self.passages.iter().find(|passage| passage.stage == stage)
    }

    /// Whether a stage was done.
    #[must_use]
    pub fn has(&self, stage: Stage) -> bool {
        self.passage(stage)
            .is_some_and(|passage| passage.ended.is_some())
    }

    /// The last stage that was done.
    #[must_use]
    pub fn reached(&self) -> Option<&Passage> {
        let mut done = self.passages.iter().rev();
        done.find(|passage| passage.ended.is_some())
    }

    /// The last stage that was tried.
    #[must_use]
    pub fn newest(&self) -> Option<&Passage> {
        self.passages.last()
    }

    /// Whether it has asked for its disk, and was neither given nor refused it.
    pub(super) fn is_opening(&self) -> bool {
        let is_begun = |passage: &Passage| passage.ended.is_none() && passage.failure.is_none();
        self.passage(Stage::Connect).is_some_and(is_begun)
    }

    /// The last stage whose end is what a boot is for.
    #[must_use]
    pub const fn goal(&self) -> Stage {
        match self.is_read_only && self.sign.is_none() {
            true => Stage::FirstRead,
            false => Stage::Mounted,
        }
    }

    /// Whether a root is mounted, as far as that can be seen.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.has(self.goal())
    }

    /// How long a stage took: since the one before it was done. `None` where it was not done, or is
    /// the first.
    #[must_use]
    pub fn took(&self, stage: Stage) -> Option<u64> {
        let ended = self.passage(stage)?.ended?;
        let mut before = self.passages.iter().rev();
        let before = before.find(|other| other.stage < stage && other.ended.is_some())?;
        Some(ended.since(before.ended?))
    }

    /// How long all of it took, once it is up.
    #[must_use]
    pub fn took_in_all(&self) -> Option<u64> {
        let goal = self.passage(self.goal())?;
        Some(goal.ended?.since(self.began))
    }

    /// A stage is tried, perhaps not for the first time.
    pub(super) fn begin(&mut self, now: At, stage: Stage) -> &mut Passage {
        self.last = now;
        let place = match self.place(stage) {
            Ok(place) => place,
            Err(place) => {
                let passage = Passage {
                    stage,
                    began: now,
                    ended: None,
                    bytes: 0,
                    detail: String::new(),
                    failure: None,
                    tries: 0,
                };
                self.passages.insert(place, passage);
                place
            }
        };
        let passage = &mut self.passages[place];
        passage.tries = passage.tries.saturating_add(1);
        passage
    }

    /// A stage is done. Of one that has several parts, the last before the next stage counts.
    pub(super) fn reach(&mut self, now: At, stage: Stage) -> &mut Passage {
        self.last = now;
        let is_past = self.reached().is_some_and(|last| last.stage > stage);
        if self.place(stage).is_err() {
            self.begin(now, stage);
        }
        let place = self.place(stage).unwrap_or_default();
        let passage = &mut self.passages[place];
        if !is_past || passage.ended.is_none() {
            passage.ended = Some(now);
        }
        passage.failure = None;
        passage
    }

    /// A stage did not work, this time.
    pub(super) fn fail(&mut self, now: At, stage: Stage, why: String) {
        if self.place(stage).is_err() {
            self.begin(now, stage);
        }
        self.last = now;
        let place = self.place(stage).unwrap_or_default();
        let passage = &mut self.passages[place];
        if passage.ended.is_none() {
            passage.failure = Some(why);
        }
    }

    /// Where a stage is, or would be.
    fn place(&self, stage: Stage) -> Result<usize, usize> {
        self.passages
            .binary_search_by_key(&stage, |passage| passage.stage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_kept_in_their_order_whenever_they_come() {
        let mut boot = Boot::new(At(0));
        boot.reach(At(5), Stage::Kernel);
        boot.reach(At(1), Stage::Discover);
        let stages: Vec<_> = boot.passages.iter().map(|passage| passage.stage).collect();
        assert_eq!(stages, [Stage::Discover, Stage::Kernel]);
        assert_eq!(boot.took(Stage::Kernel), Some(4));
        assert_eq!(boot.took(Stage::Discover), None);
    }

    #[test]
    fn a_failure_does_not_undo_what_was_done() {
        let mut boot = Boot::new(At(0));
        boot.fail(At(1), Stage::Loader, "lost".to_owned());
        assert!(!boot.has(Stage::Loader));
        boot.reach(At(2), Stage::Loader);
        boot.fail(At(3), Stage::Loader, "lost".to_owned());
        assert_eq!(boot.passage(Stage::Loader).unwrap().failure, None);
        assert!(boot.has(Stage::Loader));
    }

    #[test]
    fn of_several_parts_the_last_before_the_next_stage_counts() {
        let mut boot = Boot::new(At(0));
        boot.reach(At(1), Stage::Loader);
        boot.reach(At(4), Stage::Loader);
        boot.reach(At(6), Stage::Config);
        boot.reach(At(9), Stage::Loader);
        assert_eq!(boot.passage(Stage::Loader).unwrap().ended, Some(At(4)));
    }

    #[test]
    fn one_that_cannot_write_is_up_when_it_has_read() {
        let mut boot = Boot::new(At(10));
        boot.reach(At(30), Stage::FirstRead);
        assert!(!boot.is_up());
        boot.is_read_only = true;
        assert!(boot.is_up());
        assert_eq!(boot.took_in_all(), Some(20));
    }
}
