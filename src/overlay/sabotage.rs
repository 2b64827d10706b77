//! Rules broken on purpose, so that tests can show that they would notice.
//!
//! Builds without debug assertions have none of this. In the others a test has to choose one, for
//! its own thread.

/// A rule that is broken. The numbers are those of the table in ARCHITECTURE.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// R2: a flush writes its records before its data is durable.
    JournalBeforeData,
    /// R5: a freed block may be punched before its record is durable.
    PunchBeforeRecord,
    /// R5: a block is punched although it was written again while its record was not yet on its
    /// way.
    PunchRewrittenOpen,
    /// R5: a block is punched although it was written again while its record was on its way.
    PunchRewrittenSealed,
    /// R5: a block is punched although it was written again since its record is durable.
    PunchRewrittenReady,
    /// R5: a freed block may be punched until a write to it has ended.
    PunchUntilWritten,
    /// R5: a block may be written while it is being punched.
    WriteWhilePunching,
    /// R6: a checkpoint has changes of after the flush that asked for it.
    LateFreeze,
    /// R6: the older journal is used again before the checkpoint that replaces it is there.
    EarlyReuse,
    /// R7: a checkpoint is believed without a look at its checksums.
    UncheckedCheckpoint,
    /// R8: any whole frame is believed, whatever chain it belongs to.
    AnyFrame,
    /// R8: the first bad frame is the end, whatever comes behind it.
    HoleIsEnd,
    /// R12: changes that share a block do not wait for each other.
    NoTurns,
    /// R13: a change is acknowledged before it is noted.
    LateNote,
    /// R13: notes of an earlier boot of the host count.
    NotesOfAnyBoot,
    /// R13: a file of notes gets its turn before a flush has covered what is in it.
    EarlyTurn,
    /// R14: what is taken over counts as flushed.
    VouchedIsClean,
    /// R14: a server vouches for an overlay with a flush under way.
    HastyVoucher,
    /// R9: a failed sync is told once and forgotten.
    NoPoison,
}

#[cfg(debug_assertions)]
thread_local! {
    static CHOSEN: std::cell::Cell<Option<Sabotage>> = const { std::cell::Cell::new(None) };
}

/// Breaks a rule on this thread from now on, or none.
#[cfg(debug_assertions)]
pub fn choose(sabotage: Option<Sabotage>) {
    CHOSEN.set(sabotage);
}

/// Does nothing in this build.
#[cfg(not(debug_assertions))]
pub const fn choose(_: Option<Sabotage>) {}

/// The rule that is broken on this thread.
#[cfg(debug_assertions)]
#[must_use]
pub fn chosen() -> Option<Sabotage> {
    CHOSEN.get()
}

/// The rule that is broken: none in this build.
#[cfg(not(debug_assertions))]
#[must_use]
pub const fn chosen() -> Option<Sabotage> {
    None
}

/// Whether this rule is broken.
#[inline]
pub(super) fn breaks(sabotage: Sabotage) -> bool {
    chosen() == Some(sabotage)
}
