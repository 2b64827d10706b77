//! What is kept and for whom, over a disk whose file system is too small to be one.

use tempfile::TempDir;

use super::*;
use crate::serve::poll_once::now;

fn image() -> (TempDir, Arc<Image>) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("disk.img");
    std::fs::write(&path, [7; 8192]).unwrap();
    let image = Arc::new(Image::open(&path).unwrap());
    (home, image)
}

fn wanted(path: &str) -> Wanted {
    Wanted {
        export: "disk".to_owned(),
        place: Whereabouts::default(),
        path: path.to_owned(),
        is_named: true,
    }
}

/// Keeps a file of `size` bytes under `path`.
fn keep(disks: &Disks, image: &Arc<Image>, path: &str, file: Bytes) {
    let mut slots = lock(&disks.slots);
    slots.uses += 1;
    let kept = Kept {
        file: Some(file),
        blocks: Arc::default(),
        used: slots.uses,
    };
    *lock(&slots.slot(image, &wanted(path)).kept) = Some(kept);
}

fn kept(disks: &Disks) -> Vec<String> {
    let slots = lock(&disks.slots);
    let held = slots.all.iter().filter(|slot| lock(&slot.kept).is_some());
    held.map(|slot| slot.path.clone()).collect()
}

fn zeros(size: usize) -> Bytes {
    vec![0; size].into()
}

/// With memory for so many blocks.
fn small(blocks: usize) -> Disks {
    Disks {
        memory: Arc::new(Semaphore::new(blocks)),
        ..Disks::default()
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().build().unwrap().block_on(test)
}

#[test]
fn what_was_asked_for_the_longest_time_ago_goes_first() {
    let (_home, image) = image();
    let disks = Disks::default();
    for path in ["a", "b", "c"] {
        keep(&disks, &image, path, zeros(10));
    }
    let slot = lock(&disks.slots).slot(&image, &wanted("a"));
    let look = Look::from(crate::export::snapshot::Snapshot::new(
        Arc::clone(&image),
        None,
    ));
    assert!(disks.kept_for(&slot, &look).is_some());
    lock(&disks.slots).shrink_to(20);
    assert_eq!(kept(&disks), ["a", "c"]);
    lock(&disks.slots).shrink_to(9);
    assert!(kept(&disks).is_empty());
}

#[test]
fn files_of_an_image_that_is_gone_go_with_it() {
    let disks = Disks::default();
    let (_home, gone) = image();
    keep(&disks, &gone, "a", zeros(10));
    drop(gone);
    let (_home, there) = image();
    keep(&disks, &there, "b", zeros(10));
    assert_eq!(kept(&disks), ["b"]);
}

#[test]
fn a_file_of_one_image_is_not_that_of_another() {
    let disks = Disks::default();
    let ((_home, one), (_other, another)) = (image(), image());
    keep(&disks, &one, "a", zeros(10));
    let slot = lock(&disks.slots).slot(&another, &wanted("a"));
    assert!(lock(&slot.kept).is_none());
}

#[test]
fn a_file_waits_for_room_until_another_was_sent() {
    run(async {
        let disks = small(2);
        let first = filled(vec![1; 4097], disks.room(4097).await.unwrap());
        let mut second = Box::pin(disks.room(1));
        assert!(now(second.as_mut()).is_none());
        // Whoever has a part of it has all of it.
        let part = first.slice(..1);
        drop(first);
        assert!(now(second.as_mut()).is_none());
        drop(part);
        assert_eq!(second.await.unwrap().num_permits(), 1);
    });
}

#[test]
fn files_that_are_only_kept_make_room() {
    run(async {
        let (_home, image) = image();
        let disks = small(2);
        let file = filled(vec![1; 4097], disks.room(4097).await.unwrap());
        keep(&disks, &image, "a", file);
        let share = now(disks.room(8192)).unwrap();
        assert_eq!(share.unwrap().num_permits(), 2);
        assert!(kept(&disks).is_empty());
    });
}

/// A disk with a FAT on it that has one file.
fn disk_with_file(bytes: &[u8]) -> (TempDir, Arc<Image>) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("fat.img");
    let mut disk = std::fs::File::options();
    let disk = disk.read(true).write(true).create_new(true);
    let mut disk = disk.open(&path).unwrap();
    disk.set_len(2 << 20).unwrap();
    fatfs::format_volume(&mut disk, fatfs::FormatVolumeOptions::new()).unwrap();
    let fat = fatfs::FileSystem::new(&mut disk, fatfs::FsOptions::new()).unwrap();
    let mut file = fat.root_dir().create_file("file").unwrap();
    io::Write::write_all(&mut file, bytes).unwrap();
    drop(file);
    fat.unmount().unwrap();
    (home, Arc::new(Image::open(&path).unwrap()))
}

#[test]
fn a_file_has_its_room_before_it_is_read() {
    let (_home, image) = disk_with_file(&[5; 10_000]);
    let look = || {
        Look::from(crate::export::snapshot::Snapshot::new(
            Arc::clone(&image),
            None,
        ))
    };
    let read =
        |disks: &Disks| match read_out(Arc::new(look()), &wanted("file"), disks, None).unwrap() {
            Reading::Done(file, _) => Ok(file.expect("a file").len()),
            Reading::NeedsRoom(bytes) => Err(bytes),
        };
    let disks = small(2);
    assert_eq!(read(&disks), Err(10_000));
    assert_eq!(disks.memory.available_permits(), 2);
    run(async {
        let disks = Arc::new(small(3));
        let file = Arc::clone(&disks).read(look(), wanted("file")).await;
        let file = file.unwrap().unwrap();
        assert_eq!((file.len(), disks.memory.available_permits()), (10_000, 0));
    });
}

#[test]
fn blocks_that_are_read_are_noted() {
    let (_home, image) = image();
    let look = Look::from(crate::export::snapshot::Snapshot::new(image, None));
    let traced = Traced {
        look: Arc::new(look),
        seen: Mutex::new(Some(RangeSet::new())),
    };
    traced.read_at(&mut [0; 2], 4095).unwrap();
    traced.read_at(&mut [], 8192).unwrap();
    let seen = lock(&traced.seen).take();
    assert_eq!(seen.unwrap().iter().collect::<Vec<_>>(), [&(0..2)]);
}
