//! What the simulated disk keeps, loses and refuses.

use super::*;

fn disk() -> SimDisk {
    let disk = SimDisk::default();
    disk.create_dir(Path::new("/d")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

/// A file `/d/f` of one durable page of ones.
fn file(disk: &SimDisk) -> SimFile {
    let file = disk.create(Path::new("/d/f"), 4096).unwrap();
    file.write_at(&[1; 4096], 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    file
}

fn content(disk: &SimDisk, name: &str) -> Vec<u8> {
    (*disk.map(&Path::new("/d").join(name)).unwrap())
        .as_ref()
        .to_vec()
}

#[test]
fn what_was_synced_survives_any_crash() {
    let disk = disk();
    file(&disk);
    let moment = disk.moment();
    assert_eq!(moment.combinations(), 1);
    assert_eq!(content(&moment.crash(&mut |_| 0), "f"), [1; 4096]);
}

#[test]
fn each_sector_of_an_unsynced_write_is_old_or_new() {
    let disk = disk();
    file(&disk).write_at(&[2; 1024], 0).unwrap();
    let moment = disk.moment();
    assert_eq!(moment.combinations(), 4);
    let mut first = true;
    let torn = moment.crash(&mut |_| usize::from(std::mem::take(&mut first)));
    assert_eq!(content(&torn, "f")[..512], [2; 512]);
    assert_eq!(content(&torn, "f")[512..1024], [1; 512]);
}

#[test]
fn a_sector_written_twice_may_be_what_the_first_write_left() {
    let disk = disk();
    let file = file(&disk);
    file.write_at(&[2; 512], 0).unwrap();
    file.write_at(&[3; 100], 0).unwrap();
    let moment = disk.moment();
    assert_eq!(moment.combinations(), 3);
    assert_eq!(content(&moment.crash(&mut |_| 1), "f")[..512], [2; 512]);
}

#[test]
fn a_write_into_a_hole_may_leave_garbage() {
    let disk = disk();
    let file = disk.create(Path::new("/d/f"), 8192).unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    file.write_at(&[2; 512], 4096).unwrap();
    let moment = disk.moment();
    assert_eq!(moment.combinations(), 3);
    let left = content(&moment.crash(&mut |choice| choice.options() - 1), "f");
    assert!(left[4096] != 0 && left[4096] != 2);
}

#[test]
fn a_name_survives_without_its_content_and_content_not_without_its_name() {
    let disk = disk();
    let file = disk.create(Path::new("/d/f"), 512).unwrap();
    file.write_at(&[7; 512], 0).unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    assert_eq!(
        content(&disk.moment().crash(&mut |_| 0), "f"),
        Vec::<u8>::new()
    );
    let other = disk.create(Path::new("/d/g"), 512).unwrap();
    other.sync().unwrap();
    let crashed = disk.moment().crash(&mut |_| 0);
    assert!(crashed.open(Path::new("/d/g")).is_err());
}

#[test]
fn a_rename_that_was_not_synced_may_not_have_happened() {
    let disk = disk();
    file(&disk);
    disk.rename(Path::new("/d/f"), Path::new("/d/g")).unwrap();
    let moment = disk.moment();
    let undone = moment.crash(&mut |_| 0);
    assert_eq!(undone.list(Path::new("/d")).unwrap(), ["f"]);
    let done = moment.crash(&mut |_| 1);
    assert_eq!(done.list(Path::new("/d")).unwrap(), ["g"]);
}

#[test]
fn a_punch_reads_as_zeros_and_gives_its_page_back() {
    let disk = disk();
    let file = file(&disk);
    let used = disk.pages_used();
    file.punch(ByteRange::between(0, 4096)).unwrap();
    assert_eq!(content(&disk, "f"), [0; 4096]);
    assert_eq!(disk.pages_used(), used - 1);
    assert_eq!(content(&disk.moment().crash(&mut |_| 0), "f"), [1; 4096]);
}

#[test]
fn a_failed_sync_loses_writes_and_calls_them_clean() {
    let disk = disk();
    let file = file(&disk);
    file.write_at(&[2; 4096], 0).unwrap();
    disk.fail(disk.calls() + 1, Fault::Io);
    assert!(file.sync().is_err());
    assert_eq!(content(&disk, "f"), [2; 4096]);
    file.sync().unwrap();
    let left = content(&disk.moment().crash(&mut |_| 1), "f");
    assert!(left.contains(&1) && left.contains(&2));
}

#[test]
fn what_a_failed_sync_has_lost_is_seen_once_the_cache_is_dropped() {
    let disk = disk();
    let file = file(&disk);
    file.write_at(&[2; 4096], 0).unwrap();
    disk.fail(disk.calls() + 1, Fault::Io);
    assert!(file.sync().is_err());
    file.forget_cached().unwrap();
    assert_eq!(
        content(&disk, "f"),
        content(&disk.moment().crash(&mut |_| 0), "f")
    );
    assert!(content(&disk, "f").contains(&1));
}

#[test]
fn a_page_written_again_takes_along_what_a_failed_sync_left_in_it() {
    let disk = disk();
    let file = file(&disk);
    file.write_at(&[2; 4096], 0).unwrap();
    disk.fail(disk.calls() + 1, Fault::Io);
    assert!(file.sync().is_err());
    file.write_at(&[3; 512], 0).unwrap();
    file.sync().unwrap();
    let left = content(&disk.moment().crash(&mut |_| 0), "f");
    assert_eq!(left[..512], [3; 512]);
    assert_eq!(left[512..], [2; 3584]);
}

#[test]
fn a_full_disk_takes_what_needs_no_new_page() {
    let disk = disk();
    let file = file(&disk);
    disk.set_full(true);
    file.write_at(&[2; 4096], 0).unwrap();
    let error = file.write_at(&[3; 10], 4096).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    disk.set_full(false);
    file.write_at(&[3; 10], 4096).unwrap();
}

#[test]
fn short_and_interrupted_calls_are_done_again_by_whoever_wants_all() {
    let disk = disk();
    let file = file(&disk);
    let next = disk.calls() + 1;
    disk.fail(next, Fault::Short);
    disk.fail(next + 1, Fault::Interrupted);
    file.write_at(&[2; 4096], 0).unwrap();
    assert_eq!(content(&disk, "f"), [2; 4096]);
}

#[test]
fn handles_of_a_killed_process_are_dead() {
    let disk = disk();
    let file = file(&disk);
    let next = disk.restart();
    assert!(file.write_at(&[9], 0).is_err());
    assert!(disk.list(Path::new("/d")).is_err());
    assert_eq!(content(&next, "f"), [1; 4096]);
}

#[test]
fn a_file_made_anew_may_keep_its_old_size_after_a_crash() {
    let disk = disk();
    file(&disk);
    disk.create(Path::new("/d/f"), 512).unwrap();
    let moment = disk.moment();
    assert_eq!(content(&moment.crash(&mut |_| 0), "f"), [1; 4096]);
    assert_eq!(
        content(&moment.crash(&mut |choice| choice.calls.len()), "f"),
        [0; 512]
    );
}
