//! Trees, written and written again.

use super::super::plan::{Planned, Source};
use super::*;

fn plan(files: &[(&str, &str)]) -> Plan {
    let files = files.iter().map(|(path, text)| Planned {
        path: (*path).to_owned(),
        source: Source::Text((*text).to_owned()),
    });
    Plan {
        files: files.collect(),
        left_out: Vec::new(),
    }
}

fn put(root: &Path, files: &[(&str, &str)]) -> Result<Outcome, Failure> {
    write(root, plan(files), &mut |_| {})
}

fn read(root: &Path, path: &str) -> Option<String> {
    fs::read_to_string(root.join(path)).ok()
}

fn states(outcome: &Outcome) -> Vec<State> {
    outcome.files.iter().map(|file| file.state).collect()
}

#[test]
fn a_tree_is_written_and_only_what_differs_is_written_again() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("new/tree");
    let outcome = put(&root, &[("disk/a/kernel", "k"), ("grub.cfg", "1")]).unwrap();
    assert_eq!(states(&outcome), [State::New, State::New]);
    assert_eq!(read(&root, "disk/a/kernel").as_deref(), Some("k"));
    let outcome = put(&root, &[("disk/a/kernel", "k"), ("grub.cfg", "2")]).unwrap();
    assert_eq!(states(&outcome), [State::Same, State::Changed]);
    assert_eq!(read(&root, "grub.cfg").as_deref(), Some("2"));
    assert!(!root.join(STAGE).exists());
}

#[test]
fn one_that_fails_leaves_nothing_behind() {
    let home = tempfile::tempdir().unwrap();
    let mut failing = plan(&[("a", "a")]);
    failing.files.push(Planned {
        path: "b".to_owned(),
        source: Source::Host {
            below: home.path().to_owned(),
            file: "nowhere".to_owned(),
        },
    });
    let root = home.path().join("tree");
    write(&root, failing, &mut |_| {}).unwrap_err();
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    fs::write(root.join("a"), "own").unwrap();
    put(&root, &[("a", "a")]).unwrap_err();
    assert_eq!(fs::read_dir(&root).unwrap().count(), 1);
}

#[test]
fn files_can_be_read_by_other_users() {
    let home = tempfile::tempdir().unwrap();
    put(home.path(), &[("a/b", "")]).unwrap();
    let mode = |path: &str| {
        let found = fs::metadata(home.path().join(path)).unwrap();
        found.permissions().mode() & 0o777
    };
    assert_eq!((mode("a"), mode("a/b")), (0o755, 0o644));
}

#[test]
fn what_is_no_more_in_the_tree_is_removed_and_nothing_else() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path();
    fs::create_dir(root.join("disk")).unwrap();
    fs::write(root.join("disk/own"), "own").unwrap();
    put(root, &[("disk/a/kernel", "k"), ("x", "x"), ("y", "y")]).unwrap();
    // One of ours that somebody has changed since is theirs.
    fs::write(root.join("y"), "own").unwrap();
    let outcome = put(root, &[("x", "x")]).unwrap();
    assert_eq!(outcome.removed, ["disk/a/kernel"]);
    assert!(!root.join("disk/a").exists());
    assert_eq!(read(root, "disk/own").as_deref(), Some("own"));
    assert_eq!(read(root, "y").as_deref(), Some("own"));
}

#[test]
fn a_file_of_somebody_s_stops_it_before_anything_is_written() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path();
    fs::write(root.join("b"), "own").unwrap();
    let failure = put(root, &[("a", "a"), ("b", "b")]).unwrap_err();
    assert!(failure.to_string().contains("move it away"), "{failure}");
    assert_eq!(read(root, "a"), None);
    assert_eq!(read(root, "b").as_deref(), Some("own"));
    fs::remove_file(root.join("b")).unwrap();
    put(root, &[("b", "b")]).unwrap();
    fs::write(root.join("b"), "own").unwrap();
    put(root, &[("b", "c")]).unwrap_err();
    assert_eq!(read(root, "b").as_deref(), Some("own"));
}

#[test]
fn links_are_not_written_through() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("tree");
    fs::create_dir(&root).unwrap();
    fs::write(home.path().join("elsewhere"), "own").unwrap();
    std::os::unix::fs::symlink("../elsewhere", root.join("a")).unwrap();
    put(&root, &[("a", "a")]).unwrap_err();
    assert_eq!(read(home.path(), "elsewhere").as_deref(), Some("own"));
}

#[test]
fn a_file_that_can_t_be_read_leaves_the_tree_as_it_is() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("tree");
    put(&root, &[("a", "1")]).unwrap();
    let mut broken = plan(&[("a", "2")]);
    broken.files.push(Planned {
        path: "kernel".to_owned(),
        source: Source::Host {
            below: home.path().to_owned(),
            file: "missing".to_owned(),
        },
    });
    let failure = write(&root, broken, &mut |_| {}).unwrap_err();
    assert!(failure.to_string().starts_with("kernel: "), "{failure}");
    assert_eq!(read(&root, "a").as_deref(), Some("1"));
    let outcome = put(&root, &[("a", "3")]).unwrap();
    assert_eq!(states(&outcome), [State::Changed]);
}

#[test]
fn a_run_that_failed_half_way_is_taken_up() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path();
    put(root, &[("a", "1"), ("b", "1")]).unwrap();
    let tree = Tree::open(root).unwrap();
    let a = tree.stage("a".to_owned(), b"2", 0).unwrap();
    let b = tree.stage("b".to_owned(), b"2", 1).unwrap();
    fs::remove_file(b.at.as_ref().unwrap()).unwrap();
    tree.finish(vec![a, b]).unwrap_err();
    assert_eq!(read(root, "a").as_deref(), Some("2"));
    let outcome = put(root, &[("a", "3"), ("b", "3")]).unwrap();
    assert_eq!(states(&outcome), [State::Changed, State::Changed]);
}

/// The list has what is about to be there before it is, so that a crash leaves no stranger.
#[test]
fn a_run_that_was_cut_is_taken_up() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path();
    put(root, &[("a", "1"), ("b", "1")]).unwrap();
    let mut tree = Tree::open(root).unwrap();
    let staged = tree.stage("a".to_owned(), b"2", 0).unwrap();
    tree.list.add("a", staged.print);
    tree.write_list().unwrap();
    drop(tree);
    // Neither the old file nor the new one is a stranger.
    let outcome = put(root, &[("a", "1"), ("b", "1")]).unwrap();
    assert_eq!(states(&outcome), [State::Same, State::Same]);
    let outcome = put(root, &[("a", "2"), ("b", "1")]).unwrap();
    assert_eq!(states(&outcome), [State::Changed, State::Same]);
}

#[test]
fn one_at_a_time_writes_a_tree() {
    let home = tempfile::tempdir().unwrap();
    let _other = Tree::open(home.path()).unwrap();
    let failure = put(home.path(), &[("a", "a")]).unwrap_err();
    assert!(failure.to_string().contains("another"), "{failure}");
}

#[test]
fn a_list_that_leads_out_of_the_tree_is_not_followed() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("tree");
    fs::create_dir(&root).unwrap();
    fs::write(home.path().join("own"), "own").unwrap();
    let sum = crc32fast::hash(b"own");
    fs::write(root.join(LIST), format!("{sum:08x} 3 ../own\n")).unwrap();
    let outcome = put(&root, &[]).unwrap();
    assert!(outcome.removed.is_empty());
    assert_eq!(read(home.path(), "own").as_deref(), Some("own"));
}
