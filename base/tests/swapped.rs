//! The account file while somebody swaps it for what is theirs.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::unwrap_used)]

use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::os::unix::fs::{chown, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use xos_base::accounts::{AccountsBuilder, AccountsError, AccountsFile, Owner, User};

/// Longest that a swap is waited for, in tries.
const TRIES_MAX: u32 = 10_000_000;
const UID: u32 = 1_900_000_007;

/// An account file with one user, under a number that is the same in all.
fn with(name: &str, path: &Path) {
    let mut builder = AccountsBuilder::new(1);
    let (gid, home, shell) = (1_900_000_001, "/home/x", "/bin/sh");
    builder.user(User { name, uid: UID, gid, gecos: "", home, shell }).unwrap();
    builder.write_atomic(path).unwrap();
}

/// One that belongs to somebody else than root.
fn theirs(path: &Path) {
    with("eve.demo.rennes", path);
    chown(path, Some(70_001), None).unwrap();
}

/// Ends the swapping, also when a test fails: its thread is waited for.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Looks up the user at `path` while that is swapped with `other`, which is not to be believed.
fn raced(path: &Path, other: &Path) {
    let file = AccountsFile::new(path.to_owned(), Owner::Root);
    let (done, mut roots, mut refused) = (AtomicBool::new(false), 0, 0);
    thread::scope(|scope| {
        let _stop = Stop(&done);
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                renameat_with(CWD, path, CWD, other, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let tried = (0..TRIES_MAX).find(|_| {
            match file.current() {
                Ok(mapped) => {
                    let found = mapped.view().user_by_uid(UID).unwrap();
                    assert_eq!(found.map(|u| u.name), Some("ann.demo.rennes"));
                    roots += 1;
                }
                Err(AccountsError::NotTrusted { .. }) => refused += 1,
                Err(e) => panic!("{e}"),
            }
            roots > 100 && refused > 100
        });
        assert!(tried.is_some(), "there was no race: nothing was shown");
    });
}

/// If it failed, whoever gets a link or a file of theirs into the place of the account file for a
/// moment would be any user that they like.
#[test]
fn what_is_not_roots_is_never_read_however_it_is_swapped() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root to give files away");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("accounts"), dir.path().join("other"));
    let target = dir.path().join("target");
    theirs(&target);
    with("ann.demo.rennes", &path);
    symlink(&target, &other).unwrap();
    raced(&path, &other);
    with("ann.demo.rennes", &path);
    theirs(&other);
    raced(&path, &other);
}
