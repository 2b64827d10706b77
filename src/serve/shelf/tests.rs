//! Which image is opened, which is found again, and which is refused.

use std::fs;
use std::time::{Duration, Instant};

use super::*;
use crate::units::ByteRange;

struct Scene {
    dir: tempfile::TempDir,
    state: Arc<StateDir>,
    shelf: Shelf,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = Arc::new(StateDir::open(&dir.path().join("state")).unwrap());
        Self {
            shelf: Shelf::new(Some(&state), true).unwrap(),
            state,
            dir,
        }
    }

    /// A file of `letter`, made at the first time.
    fn file(&self, letter: u8) -> PathBuf {
        let path = self.dir.path().join(char::from(letter).to_string());
        if !path.exists() {
            fs::write(&path, vec![letter; 4096 * usize::from(letter - b'a' + 1)]).unwrap();
        }
        path
    }

    /// `arch` with these generations, the last of which is current.
    fn arch(&self, files: &[(u32, u8)]) -> ImageSource {
        let files = files.iter();
        let files: BTreeMap<_, _> = files.map(|&(n, letter)| (n, self.file(letter))).collect();
        ImageSource {
            name: Name::new("arch").unwrap(),
            current: *files.keys().last().unwrap(),
            files,
            boot: None,
        }
    }

    fn open(&mut self, files: &[(u32, u8)]) -> Result<Images, Failure> {
        let source = self.arch(files);
        self.shelf.open(&[source])
    }

    #[track_caller]
    fn refused(&mut self, files: &[(u32, u8)], words: &[&str]) {
        let message = self.open(files).unwrap_err().to_string();
        for word in words {
            assert!(message.contains(word), "{word:?} is missing in {message}");
        }
    }
}

fn image(images: &Images, generation: Option<u32>) -> Arc<Image> {
    let arch = images.get(None).unwrap();
    Arc::clone(arch.get(generation).unwrap().1)
}

/// Waits until nobody has it open: the watch may just be looking at it.
fn closed(image: &Weak<Image>) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while image.strong_count() > 0 {
        assert!(Instant::now() < deadline, "it is still open");
        std::thread::yield_now();
    }
}

#[test]
fn a_new_generation_is_current_and_the_old_one_stays_what_it_is() {
    let mut scene = Scene::new();
    let before = scene.open(&[(1, b'a')]).unwrap();
    let after = scene.open(&[(1, b'a'), (2, b'b')]).unwrap();
    assert_eq!(image(&after, None).size(), 2 * 4096);
    assert!(Arc::ptr_eq(&image(&before, None), &image(&after, Some(1))));
}

#[test]
fn a_generation_that_is_named_no_more_is_closed_with_its_last_user() {
    let mut scene = Scene::new();
    let before = scene.open(&[(1, b'a')]).unwrap();
    let used = Arc::downgrade(&image(&before, None));
    let after = scene.open(&[(2, b'b')]).unwrap();
    assert!(after.get(None).unwrap().get(Some(1)).is_err());
    assert!(used.strong_count() > 0);
    drop(before);
    closed(&used);
}

#[test]
fn a_generation_that_sessions_still_use_is_found_again() {
    let mut scene = Scene::new();
    let used = image(&scene.open(&[(1, b'a')]).unwrap(), None);
    scene.open(&[(2, b'b')]).unwrap();
    let again = scene.open(&[(1, b'a'), (2, b'b')]).unwrap();
    assert!(Arc::ptr_eq(&used, &image(&again, Some(1))));
}

#[test]
fn the_same_generation_with_another_file_is_refused() {
    let mut scene = Scene::new();
    let used = scene.open(&[(1, b'a')]).unwrap();
    scene.refused(&[(1, b'b')], &["arch+1", "another file", "`generation`"]);
    // Nor does it help to take it out for a moment.
    scene.open(&[(2, b'c')]).unwrap();
    scene.refused(&[(1, b'b'), (2, b'c')], &["arch+1", "another file"]);
    let image = Arc::downgrade(&image(&used, None));
    drop(used);
    closed(&image);
    // Now its overlays stand against it.
    scene.refused(&[(1, b'b'), (2, b'c')], &["arch", "overlays"]);
}

#[test]
fn another_file_in_the_same_place_is_refused() {
    let mut scene = Scene::new();
    let used = scene.open(&[(1, b'a')]).unwrap();
    fs::rename(scene.file(b'b'), scene.file(b'a')).unwrap();
    scene.refused(&[(1, b'a')], &["arch+1", "another file", "8192"]);
    // As a generation of its own it is welcome.
    let after = scene.open(&[(2, b'a')]).unwrap();
    assert_eq!(image(&after, None).size(), 8192);
    drop(used);
}

#[test]
fn a_file_that_has_only_moved_is_the_same_generation() {
    let mut scene = Scene::new();
    let before = scene.open(&[(1, b'a')]).unwrap();
    fs::rename(scene.file(b'a'), scene.dir.path().join("c")).unwrap();
    let after = scene.open(&[(1, b'c')]).unwrap();
    assert!(Arc::ptr_eq(&image(&before, None), &image(&after, None)));
    let name = Name::new("arch").unwrap();
    let recorded = scene.state.image_path(&name, 1).unwrap().unwrap();
    assert!(recorded.ends_with("c"), "{recorded:?}");
}

#[test]
fn a_file_that_is_away_is_no_matter_where_nothing_is_to_be_opened() {
    let mut scene = Scene::new();
    let _used = scene.open(&[(1, b'a')]).unwrap();
    let source = scene.arch(&[(1, b'a')]);
    fs::remove_file(scene.file(b'a')).unwrap();
    scene.shelf.open(&[source]).unwrap();
}

#[test]
fn what_is_opened_in_vain_leaves_no_traces() {
    let mut scene = Scene::new();
    let mut source = scene.arch(&[(1, b'a')]);
    source.current = 2;
    source.files.insert(2, "/nonexistent".into());
    scene.shelf.open(&[source]).unwrap_err();
    assert!(!scene.state.path().join("overlays").exists());
    assert!(scene.shelf.books.is_empty());
}

#[test]
fn changes_are_told_in_words() {
    let mut scene = Scene::new();
    let before = scene.open(&[(1, b'a'), (2, b'b')]).unwrap();
    assert_eq!(before.changes(&before), Vec::<String>::new());
    let after = scene.open(&[(2, b'b'), (3, b'c')]).unwrap();
    let lines = before.changes(&after).join("\n");
    for words in [
        "arch+3 is served",
        "12288 bytes",
        "gets arch+3",
        "arch+1 can't be opened",
    ] {
        assert!(lines.contains(words), "{words:?} is missing in {lines}");
    }
    assert!(!lines.contains("arch+2"), "{lines}");
}

#[test]
fn what_boots_read_is_remembered_of_each_generation_by_itself() {
    let mut scene = Scene::new();
    let first = image(&scene.open(&[(1, b'a')]).unwrap(), None);
    let set = first.boot_set().unwrap();
    set.note(ByteRange::between(0, 1));
    let (file, read) = (scene.state.boot_set(first.name(), 1), set.ranges());
    fs::write(file, set.to_bytes(first.identity())).unwrap();
    scene.shelf = Shelf::new(Some(&scene.state), true).unwrap();
    let both = scene.open(&[(1, b'a'), (2, b'b')]).unwrap();
    let ranges = |generation| {
        let image = image(&both, Some(generation));
        image.boot_set().unwrap().ranges()
    };
    assert_eq!(ranges(1), read);
    assert_eq!(ranges(2), []);
}

#[test]
fn nothing_is_remembered_where_that_is_not_wanted() {
    let mut scene = Scene::new();
    scene.shelf = Shelf::new(Some(&scene.state), false).unwrap();
    let images = scene.open(&[(1, b'a')]).unwrap();
    assert!(image(&images, None).boot_set().is_none());
}
