//! A view of the machine that is one test's own. The tests of pam-xos use this file too.

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;
use std::path::Path;
use std::thread;

/// Runs `test` in a thread with its own mount namespace, or says why it cannot.
pub(crate) fn in_own_namespace(test: impl FnOnce() + Send + 'static) {
    if !geteuid().is_root() {
        println!("skipped: making a mount namespace needs root");
        return;
    }
    let thread = thread::spawn(move || {
        if let Err(errno) = unshare(CloneFlags::CLONE_NEWNS) {
            println!("skipped: this kernel gives no mount namespace: {errno}");
            return;
        }
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        test();
    });
    thread.join().unwrap();
}

/// Shows a file or folder at another place, which must be there.
pub(crate) fn bind(from: &Path, to: &Path) {
    let none = None::<&str>;
    mount(Some(from), to, none, MsFlags::MS_BIND | MsFlags::MS_REC, none).unwrap();
}

/// Covers a folder with an empty one, in which set-user-id bits count.
pub(crate) fn tmpfs(at: &Path) {
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some("mode=755")).unwrap();
}
