//! Each rule of the order of writes, broken on purpose: the explorer must notice.

use cowherd::overlay::sabotage::Sabotage;
use cowherd::units::BlockIndex;

use super::disk::Leak;
use super::explore::Effort;
use super::history::{History, Op, Start, Work};
use super::machine::Haste;
use super::regressions::{Freed, punched_while_it_is_written, rewritten};
use super::run::{Setting, first_failure, run};

/// Histories that are tried before a broken rule counts as unnoticed.
const HISTORIES: u64 = 150;

/// The explorer finds a history that fails with `broken` and not without it.
#[track_caller]
fn bites(broken: Setting) {
    let Some((seed, history, failure)) = first_failure(1, HISTORIES, broken) else {
        panic!("{HISTORIES} histories did not notice {broken:?}");
    };
    println!("noticed by seed {seed}: {}\n{history}", failure.what);
    let sound = Setting {
        leak: None,
        haste: None,
        sabotage: None,
        ..broken
    };
    assert!(run(&history, sound).is_ok(), "it fails anyway:\n{history}");
}

#[track_caller]
fn leak_is_noticed(leak: Leak) {
    bites(Setting {
        leak: Some(leak),
        ..Setting::sound(Effort::QUICK)
    });
}

#[track_caller]
fn haste_is_noticed(haste: Haste) {
    bites(Setting {
        haste: Some(haste),
        ..Setting::sound(Effort::QUICK)
    });
}

/// This story fails where the rule is broken, and is fine where it is not.
#[track_caller]
fn story_notices(sabotage: Sabotage, story: &[Op]) {
    let story = History::of_steps(Start::Nothing, story);
    notices(sabotage, &story, Setting::sound(Effort::QUICK));
}

#[track_caller]
fn notices(sabotage: Sabotage, story: &History, sound: Setting) {
    if let Err(failure) = run(story, sound) {
        panic!("it fails anyway: {}\n{story}", failure.what);
    }
    let broken = Setting {
        sabotage: Some(sabotage),
        ..sound
    };
    let failure = run(story, broken).expect_err("it is not noticed");
    println!("noticed at step {}: {}", failure.step, failure.what);
}

#[track_caller]
fn sabotage_is_noticed(sabotage: Sabotage) {
    bites(Setting {
        sabotage: Some(sabotage),
        ..Setting::sound(Effort::QUICK)
    });
}

#[test]
fn r1_a_map_that_learns_of_a_write_before_it_is_written_is_noticed() {
    haste_is_noticed(Haste::Publish);
}

#[test]
fn r12_changes_that_do_not_wait_for_their_turn_are_noticed() {
    sabotage_is_noticed(Sabotage::NoTurns);
}

#[test]
fn r2_records_that_are_written_before_the_data_are_noticed() {
    sabotage_is_noticed(Sabotage::JournalBeforeData);
}

#[test]
fn r2_a_flush_that_does_not_sync_the_data_is_noticed() {
    leak_is_noticed(Leak::Data);
}

#[test]
fn r2_a_flush_that_does_not_sync_the_journal_is_noticed() {
    leak_is_noticed(Leak::Journal);
}

#[test]
fn r3_fua_that_is_answered_without_a_flush_is_noticed() {
    haste_is_noticed(Haste::Fua);
}

#[test]
fn r4_a_flush_that_shares_the_sync_of_an_earlier_one_is_noticed() {
    haste_is_noticed(Haste::Join);
}

#[test]
fn r5_a_punch_before_the_record_is_durable_is_noticed() {
    sabotage_is_noticed(Sabotage::PunchBeforeRecord);
}

#[test]
fn r5_a_punch_of_a_block_that_was_written_again_is_noticed() {
    sabotage_is_noticed(Sabotage::PunchRewrittenReady);
    story_notices(Sabotage::PunchRewrittenReady, &rewritten(Freed::Durable));
}

/// Histories meet these by luck, so there is a story for each.
#[test]
fn r5_a_punch_of_a_block_written_again_before_its_record_is_noticed() {
    story_notices(Sabotage::PunchRewrittenOpen, &rewritten(Freed::Unrecorded));
}

#[test]
fn r5_a_punch_of_a_block_written_again_beside_its_record_is_noticed() {
    story_notices(Sabotage::PunchRewrittenSealed, &rewritten(Freed::OnItsWay));
}

#[test]
fn r5_a_punch_of_a_block_whose_write_is_under_way_is_noticed() {
    sabotage_is_noticed(Sabotage::PunchUntilWritten);
    story_notices(
        Sabotage::PunchUntilWritten,
        &punched_while_it_is_written(2, 1),
    );
}

#[test]
fn r5_a_write_to_a_block_that_is_being_punched_is_noticed() {
    sabotage_is_noticed(Sabotage::WriteWhilePunching);
}

#[test]
fn r6_a_checkpoint_of_what_came_after_its_flush_is_noticed() {
    sabotage_is_noticed(Sabotage::LateFreeze);
}

#[test]
fn r6_a_journal_that_is_used_again_before_the_checkpoint_is_there_is_noticed() {
    sabotage_is_noticed(Sabotage::EarlyReuse);
}

#[test]
fn r6_a_checkpoint_that_is_named_before_it_is_durable_is_noticed() {
    leak_is_noticed(Leak::Checkpoint);
}

#[test]
fn r6_a_checkpoint_whose_name_is_not_synced_is_noticed() {
    leak_is_noticed(Leak::CheckpointName);
}

#[test]
fn r8_recovery_that_believes_the_page_cache_is_noticed() {
    leak_is_noticed(Leak::Opening);
}

#[test]
fn r8_a_journal_that_goes_on_into_an_older_one_is_noticed() {
    sabotage_is_noticed(Sabotage::AnyFrame);
}

#[test]
fn r10_a_new_overlay_whose_files_are_not_synced_is_noticed() {
    leak_is_noticed(Leak::NewFiles);
}

#[test]
fn r10_a_new_overlay_whose_names_are_not_synced_is_noticed() {
    leak_is_noticed(Leak::NewNames);
}

#[test]
fn r10_a_new_overlay_whose_own_name_is_not_synced_is_noticed() {
    leak_is_noticed(Leak::NewOverlay);
}

#[track_caller]
fn noted_sabotage_is_noticed(sabotage: Sabotage) {
    bites(Setting {
        sabotage: Some(sabotage),
        ..Setting::noted(Effort::LIGHT)
    });
}

#[track_caller]
fn noted_story_notices(sabotage: Sabotage, start: Start, story: &[Op]) {
    let story = History::of_steps(start, story);
    notices(sabotage, &story, Setting::noted(Effort::LIGHT));
}

fn write(block: u64) -> Op {
    Op::Write {
        range: BlockIndex(block).bytes(),
        fua: false,
    }
}

#[test]
fn r13_a_change_that_is_noted_after_it_is_acknowledged_is_noticed() {
    noted_sabotage_is_noticed(Sabotage::LateNote);
}

#[test]
fn r13_notes_that_count_after_a_power_loss_are_noticed() {
    noted_sabotage_is_noticed(Sabotage::NotesOfAnyBoot);
}

#[test]
fn r13_notes_that_are_overwritten_before_a_flush_has_ended_are_noticed() {
    let story = [write(2), Op::Flush, write(3), Op::Kill];
    noted_story_notices(Sabotage::EarlyTurn, Start::Nothing, &story);
}

#[test]
fn r14_an_overlay_that_counts_as_flushed_when_it_is_taken_over_is_noticed() {
    let durable = [write(2), Op::Flush, Op::Drain];
    // The map knows nothing of the second write.
    let rest = [write(2), Op::HandOver, Op::Flush, Op::Drain];
    let story = [&durable[..], &rest].concat();
    noted_story_notices(Sabotage::VouchedIsClean, Start::Nothing, &story);
}

/// The name of a checkpoint was in the page cache only when the server parted with the overlay.
#[test]
fn r14_a_voucher_for_an_overlay_with_a_checkpoint_under_way_is_noticed() {
    let (range, fua) = (BlockIndex(2).bytes(), true);
    let calls = |work, calls| Op::Advance { work, calls };
    let (write, flush) = (Op::Write { range, fua }, calls(Work::Flush, 9));
    let mut story = vec![write, flush, calls(Work::Checkpoint, 4), Op::HandOver];
    for block in 3..9 {
        let range = BlockIndex(block).bytes();
        story.extend([Op::Write { range, fua }, flush]);
    }
    noted_story_notices(Sabotage::HastyVoucher, Start::Owed, &story);
}
