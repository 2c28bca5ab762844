//! `~/.xos` while somebody swaps it for a link: what cannot be shown by one look before and after.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use xos::cli::home::Home;
use xos_base::{Error, Kind};

/// Longest that a swap is waited for, in tries.
const TRIES_MAX: u32 = 200_000;
/// What the thief planted; nothing of the person's is so large.
const PLANTED: u32 = u32::MAX;

/// Ends the swapping, also when a test fails: its thread is waited for.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Swaps two names until `done`: at each moment one is there and one is not, and never neither.
fn swap(a: &Path, b: &Path, done: &AtomicBool) {
    while !done.load(Ordering::SeqCst) {
        renameat2(AT_FDCWD, a, AT_FDCWD, b, RenameFlags::RENAME_EXCHANGE).unwrap();
    }
}

/// How often something went well, and how often it was refused.
#[derive(Default)]
struct Seen {
    well: u32,
    refused: u32,
}

impl Seen {
    fn count<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        match result {
            Ok(value) => {
                self.well += 1;
                Some(value)
            }
            Err(e) => {
                assert_eq!(e.kind, Kind::Denied, "{e}");
                self.refused += 1;
                None
            }
        }
    }

    fn is_both(&self) -> bool {
        self.well > 100 && self.refused > 100
    }
}

/// Writes and reads `name` in the home at `root/xos`, while `root/{swapped}` is a link to
/// `root/elsewhere` half of the time.
fn raced(root: &Path, swapped: &str, name: &str, planted: &str) {
    let (home, elsewhere) = (Home::new(&root.join("xos")), root.join("elsewhere"));
    home.write(name, &0u32).unwrap();
    // As good as the person's own in every way but the link.
    std::fs::create_dir_all(elsewhere.join(planted).parent().unwrap()).unwrap();
    std::fs::write(elsewhere.join(planted), PLANTED.to_string()).unwrap();
    let mut path = elsewhere.join(planted);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    while path.pop() && path.starts_with(&elsewhere) {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).unwrap();
    }
    let link = root.join("link");
    symlink(&elsewhere, &link).unwrap();
    let (done, mut wrote, mut read) = (AtomicBool::new(false), Seen::default(), Seen::default());
    thread::scope(|scope| {
        let _stop = Stop(&done);
        scope.spawn(|| swap(&root.join(swapped), &link, &done));
        let mut last = 0;
        let tried = (1..TRIES_MAX).find(|n| {
            if wrote.count(home.write(name, n)).is_some() {
                last = *n;
            }
            if let Some(found) = read.count(home.read::<u32>(name)) {
                assert_eq!(found, Some(last), "it is not what was written last");
            }
            wrote.is_both() && read.is_both()
        });
        assert!(tried.is_some(), "there was no race: nothing was shown");
    });
    let kept = std::fs::read_to_string(elsewhere.join(planted)).unwrap();
    assert_eq!(kept, PLANTED.to_string(), "a key went through the link");
    let folder = elsewhere.join(planted);
    let left = std::fs::read_dir(folder.parent().unwrap()).unwrap().count();
    assert_eq!(left, 1, "something was left on the other side of the link");
}

/// If it failed, whoever may write where a person keeps the folder, as in `/tmp`, would get the
/// person's keys, or give them another's.
#[test]
fn a_home_that_is_swapped_for_a_link_is_never_followed() {
    let dir = tempfile::tempdir().unwrap();
    raced(dir.path(), "xos", "login.json", "login.json");
}

/// If it failed, the same could be done with a folder inside.
#[test]
fn a_folder_inside_that_is_swapped_for_a_link_is_never_followed() {
    let dir = tempfile::tempdir().unwrap();
    raced(dir.path(), "xos/vo", "vo/demo.rennes/token.json", "demo.rennes/token.json");
}
