//! State directories on a real file system.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn state() -> (tempfile::TempDir, StateDir) {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(&dir.path().join("deep/state")).unwrap();
    (dir, state)
}

fn arch() -> Name {
    Name::new("arch").unwrap()
}

fn identity() -> Identity {
    Identity {
        size: 1 << 20,
        mtime_ns: 1_700_000_000_500_000_000,
        sample_crc: 7,
    }
}

fn default(xdg: Option<&str>, home: Option<&str>) -> PathBuf {
    default_path(xdg.map(OsString::from), home.map(OsString::from))
}

#[test]
fn the_default_is_the_users_state_or_the_systems() {
    let home = Some("/users/a");
    assert_eq!(default(Some("/x"), home), Path::new("/x/cowherd"));
    let users = Path::new("/users/a/.local/state/cowherd");
    for unset in [None, Some(""), Some("relative")] {
        assert_eq!(default(unset, home), users);
    }
    for homeless in [None, Some(""), Some("/")] {
        assert_eq!(default(None, homeless), Path::new("/var/lib/cowherd"));
    }
}

#[test]
fn new_directories_are_private() {
    let (_dir, state) = state();
    let mode = state.path().metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_second_server_is_told_who_holds_the_directory() {
    let (_dir, first) = state();
    let message = StateDir::open(first.path()).unwrap_err().to_string();
    let pid = format!("(process {})", std::process::id());
    assert!(message.contains(&pid), "{message}");
    assert!(message.contains("--state"), "{message}");
}

#[test]
fn the_lock_goes_with_its_server() {
    let (_dir, first) = state();
    let path = first.path().to_owned();
    drop(first);
    StateDir::open(&path).unwrap();
}

#[test]
fn a_file_in_the_way_is_told_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "").unwrap();
    for path in [path.clone(), path.join("below")] {
        let message = StateDir::open(&path).unwrap_err().to_string();
        assert!(message.contains("--state"), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn permission_and_read_only_errors_say_what_to_do() {
    let told = |kind: io::ErrorKind| StateError::new(Path::new("/x"), kind.into()).to_string();
    assert!(told(io::ErrorKind::PermissionDenied).contains("no permission"));
    assert!(told(io::ErrorKind::ReadOnlyFilesystem).contains("read-only"));
}

#[test]
fn a_directory_that_can_not_be_made_is_told_in_one_line() {
    let message = StateDir::open(Path::new("/proc/cowherd/state"))
        .unwrap_err()
        .to_string();
    assert!(message.starts_with("state /proc/cowherd"), "{message}");
}

#[test]
fn overlays_lie_below_image_and_generation() {
    let (_dir, state) = state();
    let path = state.overlays_of(&arch(), 3);
    assert_eq!(path, state.path().join("overlays/arch+3"));
}

#[test]
fn an_identity_is_recorded_and_recognised() {
    let (_dir, state) = state();
    state.bind_identity(&arch(), 1, &identity()).unwrap();
    let recorded = state.overlays_of(&arch(), 1).join(IDENTITY);
    assert_eq!(
        std::fs::read_to_string(recorded).unwrap(),
        identity().to_text()
    );
    state.bind_identity(&arch(), 1, &identity()).unwrap();
}

#[test]
fn another_image_of_the_name_is_refused() {
    let (_dir, state) = state();
    state.bind_identity(&arch(), 1, &identity()).unwrap();
    let other = Identity {
        sample_crc: 8,
        ..identity()
    };
    let error = state.bind_identity(&arch(), 1, &other).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("under another name"), "{message}");
    assert!(
        !message.contains('\n') && !message.contains("touch"),
        "{message}"
    );
    state.bind_identity(&arch(), 2, &other).unwrap();
}

#[test]
fn an_image_with_another_time_gets_the_advice_to_touch_it() {
    let (_dir, state) = state();
    state.bind_identity(&arch(), 1, &identity()).unwrap();
    let other = Identity {
        mtime_ns: 1,
        ..identity()
    };
    let error = state.bind_identity(&arch(), 1, &other).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("`touch -d @1700000000.500000000`"),
        "{message}"
    );
}

#[test]
fn a_record_cut_short_by_a_crash_is_made_anew() {
    let (_dir, state) = state();
    let directory = state.overlays_of(&arch(), 1);
    durable::create_dirs(&directory).unwrap();
    std::fs::write(directory.join(".identity.tmp"), "cowh").unwrap();
    state.bind_identity(&arch(), 1, &identity()).unwrap();
    assert!(!directory.join(".identity.tmp").exists());
}

#[test]
fn a_damaged_record_is_refused() {
    let (_dir, state) = state();
    state.bind_identity(&arch(), 1, &identity()).unwrap();
    let recorded = state.overlays_of(&arch(), 1).join(IDENTITY);
    std::fs::write(recorded, [0xff; 8192]).unwrap();
    let error = state.bind_identity(&arch(), 1, &identity()).unwrap_err();
    assert!(matches!(error, StateError::BadIdentity { .. }), "{error}");
}

#[test]
fn overlays_without_a_record_are_refused() {
    let (_dir, state) = state();
    durable::create_dirs(&state.overlays_of(&arch(), 1).join("studio-3")).unwrap();
    let error = state.bind_identity(&arch(), 1, &identity()).unwrap_err();
    assert!(matches!(error, StateError::NoIdentity(_)), "{error}");
}
