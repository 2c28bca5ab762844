//! Somebody else listens in the place of `xosd`.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::unwrap_used)]

use rustix::fs::Uid;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;
use std::time::Duration;
use xos_base::local::{LocalError, MayLogin, call_at, call_other_at};

const PATIENCE: Duration = Duration::from_secs(60);

/// A socket at which another user listens.
fn theirs(path: &Path) -> UnixListener {
    let path = path.to_owned();
    let listening = thread::spawn(move || {
        let uid = Uid::from_raw(70_001);
        // Of this thread alone, which ends here.
        rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        UnixListener::bind(path).unwrap()
    });
    listening.join().unwrap()
}

/// If it failed, a user of the machine who gets a socket, or a link to one, into the place of
/// xosd's would say who may sign in, and hear who does.
#[test]
fn who_is_not_root_is_told_nothing_and_not_believed() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root to listen as another user");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let (path, link) = (dir.path().join("s"), dir.path().join("link"));
    symlink(&path, &link).unwrap();
    let listener = theirs(&path);
    let heard = thread::spawn(move || {
        let hear = |_| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            all
        };
        (0..3).map(hear).collect::<Vec<_>>()
    });
    let call = MayLogin { user: "ann".into(), service: "sshd".into(), rhost: None, tty: None };
    for refused in [
        call_at(&path, &call, PATIENCE),
        call_at(&link, &call, PATIENCE),
        call_other_at(&path, &call, PATIENCE),
    ] {
        assert!(matches!(refused, Err(LocalError::NotRoots)), "{refused:?}");
    }
    assert!(heard.join().unwrap().iter().all(Vec::is_empty), "the call was sent");
}
