//! Whose programs are saved and made, and looking at files with their rights.

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Error, Result};

/// A person's account on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The user.
    pub uid: u32,
    /// The user's own group.
    pub gid: u32,
    /// All groups, the user's own with them.
    pub gids: BTreeSet<u32>,
}

impl Person {
    /// An account with its own group and further ones.
    pub fn new(uid: u32, gid: u32, groups: &[u32]) -> Person {
        Person { uid, gid, gids: groups.iter().copied().chain([gid]).collect() }
    }

    /// Does `work` among `mounts` (a mount namespace; `None`: this process's), with files as the
    /// person may use them, in a thread of its own, which ends with that.
    ///
    /// The thread stays root's, so that the person can send it no signal: only what files are
    /// judged by changes (setfsuid(2)), and with it root's rights on files go.
    pub(super) fn among<T: Send>(
        &self,
        mounts: Option<&File>,
        work: impl FnOnce() -> Result<T> + Send,
    ) -> Result<T> {
        let working = || {
            if let Some(mounts) = mounts {
                // A thread that shares its working folder with others cannot leave its mounts.
                unshare(CloneFlags::CLONE_FS)?;
                setns(mounts, CloneFlags::CLONE_NEWNS)?;
            }
            self.files()?;
            work()
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("person".to_owned());
            let ended = thread.spawn_scoped(scope, working)?.join();
            ended.unwrap_or_else(|_| Err(Error::other("the thread of a person died")))
        })
    }

    /// Has this thread's files judged by the person's rights.
    fn files(&self) -> Result<()> {
        let groups: Vec<rustix::process::Gid> =
            self.gids.iter().map(|gid| rustix::process::Gid::from_raw(*gid)).collect();
        rustix::thread::set_thread_groups(&groups)?;
        let (user, group) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        setfsgid(group);
        setfsuid(user);
        // They say nothing of failures, but what was before (setfsuid(2)).
        if setfsgid(group) != group || setfsuid(user) != user {
            return Err(Error::other("files cannot be judged by the person's rights"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Access, AtFlags, CWD, accessat};

    #[test]
    fn files_are_judged_by_the_persons_rights_and_then_not() {
        // wrong: a program would be given files that its person cannot open, or this one lose its
        // own rights
        if !rustix::process::getuid().is_root() {
            return println!("skipped: needs root");
        }
        let person = Person::new(70_001, 70_001, &[70_005]);
        let may = |path: &'static str, access: Access| {
            person.among(None, || Ok(accessat(CWD, path, access, AtFlags::EACCESS).is_ok()))
        };
        assert!(may("/etc/passwd", Access::READ_OK).unwrap());
        assert!(!may("/etc/passwd", Access::WRITE_OK).unwrap());
        assert!(!may("/etc/shadow", Access::READ_OK).unwrap());
        accessat(CWD, "/etc/shadow", Access::READ_OK | Access::WRITE_OK, AtFlags::EACCESS).unwrap();
    }
}
