//! What the watch makes of everything that can happen to a served file.
//!
//! The kernel queues a notice before the call that caused it returns, so most tests need no thread.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Mutex;

use super::*;
use crate::image::{Change, ImageChanged};

const LEN: usize = 10_000;

struct Scene {
    dir: tempfile::TempDir,
    image: Arc<Image>,
    watcher: Watcher,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.img");
        std::fs::write(&path, [7; LEN]).unwrap();
        // Away from now, so that any write moves it.
        let then = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(then).unwrap();
        let image = Arc::new(Image::open(&path).unwrap());
        let mut watcher = Watcher::new();
        watcher.add(&image);
        Self {
            dir,
            image,
            watcher,
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("disk.img")
    }

    fn writer(&self) -> File {
        File::options().write(true).open(self.path()).unwrap()
    }

    fn outcome(&mut self) -> Result<(), Change> {
        self.watcher.take_notices();
        self.image
            .check()
            .map_err(|ImageChanged { change, .. }| change)
    }
}

#[test]
fn a_shortened_image_fails() {
    let mut scene = Scene::new();
    scene.writer().set_len(5000).unwrap();
    let (was, is) = (LEN as u64, 5000);
    assert_eq!(scene.outcome(), Err(Change::Size { was, is }));
}

#[test]
fn a_rewritten_image_fails() {
    let mut scene = Scene::new();
    scene.writer().write_all_at(b"other", 100).unwrap();
    assert!(matches!(scene.outcome(), Err(Change::Modified { .. })));
}

#[test]
fn a_write_that_hides_its_time_is_seen() {
    let mut scene = Scene::new();
    let writer = scene.writer();
    let before = writer.metadata().unwrap().modified().unwrap();
    writer.write_all_at(b"other", 100).unwrap();
    writer.set_modified(before).unwrap();
    assert_eq!(scene.outcome(), Err(Change::Written));
}

#[test]
fn a_touched_image_fails() {
    let mut scene = Scene::new();
    let now = std::time::SystemTime::now();
    scene.writer().set_modified(now).unwrap();
    assert!(matches!(scene.outcome(), Err(Change::Modified { .. })));
}

#[test]
fn a_renamed_image_is_served_on() {
    let mut scene = Scene::new();
    let path = scene.path();
    std::fs::rename(&path, path.with_extension("old")).unwrap();
    assert_eq!(scene.outcome(), Ok(()));
    assert!(scene.image.renamed.get().is_some());
}

#[test]
fn a_replaced_image_is_served_on_from_the_old_file() {
    let mut scene = Scene::new();
    let new = scene.path().with_extension("new");
    std::fs::write(&new, [8; LEN]).unwrap();
    std::fs::rename(&new, scene.path()).unwrap();
    assert_eq!(scene.outcome(), Ok(()));
    assert!(scene.image.renamed.get().is_some());
    let mut buf = [0; 10];
    scene.image.read(&mut buf, 0).unwrap();
    assert_eq!(buf, [7; 10]);
}

#[test]
fn writing_the_file_in_its_place_is_no_change() {
    let mut scene = Scene::new();
    let path = scene.path();
    std::fs::rename(&path, path.with_extension("old")).unwrap();
    std::fs::write(&path, b"another image").unwrap();
    assert_eq!(scene.outcome(), Ok(()));
}

#[test]
fn another_mode_or_a_second_name_is_no_change() {
    let mut scene = Scene::new();
    let path = scene.path();
    std::fs::hard_link(&path, path.with_extension("too")).unwrap();
    let mut mode = std::fs::metadata(&path).unwrap().permissions();
    mode.set_readonly(true);
    std::fs::set_permissions(&path, mode).unwrap();
    assert_eq!(scene.outcome(), Ok(()));
    assert!(scene.image.renamed.get().is_none());
}

#[test]
fn a_failed_image_stays_failed() {
    let mut scene = Scene::new();
    scene.writer().set_len(5000).unwrap();
    scene.outcome().unwrap_err();
    scene.writer().set_len(LEN as u64).unwrap();
    assert!(matches!(scene.outcome(), Err(Change::Size { .. })));
}

#[test]
fn reads_of_a_failed_image_fail() {
    let mut scene = Scene::new();
    scene.writer().set_len(5000).unwrap();
    scene.outcome().unwrap_err();
    let error = scene.image.read(&mut [0; 10], 0).unwrap_err();
    assert!(error.to_string().contains("disk changed"), "{error}");
    assert!(scene.image.read_cached(&mut [0; 10], 0).is_err());
}

#[test]
fn without_notices_the_regular_look_finds_a_change() {
    let mut scene = Scene::new();
    scene.watcher.notices = None;
    scene.writer().set_len(5000).unwrap();
    assert_eq!(scene.outcome(), Ok(()));
    scene.watcher.look();
    assert!(matches!(scene.outcome(), Err(Change::Size { .. })));
}

#[test]
fn another_image_is_unharmed() {
    let mut scene = Scene::new();
    let other = Scene::new();
    scene.watcher.add(&other.image);
    scene.writer().set_len(5000).unwrap();
    scene.outcome().unwrap_err();
    assert_eq!(other.image.check(), Ok(()));
}

#[test]
fn an_image_is_watched_no_longer_than_it_is_open() {
    let Scene {
        dir,
        image,
        mut watcher,
    } = Scene::new();
    let path = dir.path().join("disk.img");
    let second = Arc::new(Image::open_as(&path, crate::name::Name::new("two").unwrap()).unwrap());
    watcher.add(&second);
    drop(image);
    watcher.forget_closed();
    assert_eq!(watcher.images.len(), 1);
    // The same file is still watched under its other name.
    let writer = File::options().write(true).open(&path).unwrap();
    writer.set_len(5000).unwrap();
    watcher.take_notices();
    assert!(second.check().is_err());
    drop(second);
    watcher.forget_closed();
    assert!(watcher.images.is_empty());
}

/// What was logged while it was the default subscriber.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_change_is_told_once() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        let mut scene = Scene::new();
        for len in [5000, 6000, 7000] {
            scene.writer().set_len(len).unwrap();
            scene.outcome().unwrap_err();
            scene.watcher.look();
        }
    });
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text.matches("ERROR").count(), 1, "{text}");
    assert!(text.contains("its size went from 10000 to 5000 bytes"));
    assert!(text.contains("restart cowherd"));
}

#[test]
fn the_thread_sees_a_change_and_ends_at_once() {
    let scene = Scene::new();
    let watch = Watch::start().unwrap();
    watch.add(Arc::clone(&scene.image));
    scene.writer().set_len(5000).unwrap();
    let give_up = Instant::now() + Duration::from_secs(20);
    while scene.image.check().is_ok() {
        assert!(Instant::now() < give_up, "the watch saw nothing");
        std::thread::yield_now();
    }
    let asked = Instant::now();
    drop(watch);
    assert!(asked.elapsed() < IMAGE_CHECK_EVERY);
}
