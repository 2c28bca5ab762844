//! The sessions of people on this machine, each kept in a file of its own: a daemon that is started
//! anew knows which of them are open. A file for all would be replaced at each login and logout,
//! and ext4 brings a file to the disk that replaces another one.

use crate::agent::keep;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use xos_base::{Error, Millis};

/// Most sessions of one person at a time.
const PERSON_MAX: usize = 256;
/// What the name of the file of a session that PAM closed ends with.
const CLOSED: &str = "closed";

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Session {
    /// The account.
    pub(super) uid: u32,
    /// The process that leads it.
    pub(super) pid: u32,
    /// When that was started, as the kernel counts: another process may have its id later.
    pub(super) started: u64,
    /// The PAM service.
    pub(super) service: String,
    /// When it was opened.
    pub(super) opened: Millis,
    /// Of the kernel: process ids of an earlier one mean nothing.
    pub(super) boot: String,
    /// Whether PAM closed it; its leader still has something to do.
    #[serde(skip)]
    pub(super) closed: bool,
}

impl Session {
    /// The session's name.
    pub(super) fn name(&self) -> String {
        format!("{}-{}-{}", self.uid, self.pid, self.started)
    }
}

#[derive(Default)]
struct Held {
    sessions: BTreeMap<String, Session>,
    /// Since when a person has none any more, of whom something may still run.
    idle: BTreeMap<u32, Millis>,
}

impl Held {
    /// Whether a person has as many sessions as one may.
    fn is_full(&self, uid: u32) -> bool {
        self.sessions.values().filter(|s| s.uid == uid).count() >= PERSON_MAX
    }
}

/// All sessions.
pub(in crate::agent) struct Sessions {
    folder: PathBuf,
    boot: String,
    held: Mutex<Held>,
}

impl Sessions {
    /// Reads what an earlier daemon left in `folder`; sessions of before the machine's start are
    /// none.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when the folder cannot be read.
    pub(in crate::agent) fn open(folder: &Path, boot: &str) -> Result<Sessions, Error> {
        keep::own_folder(folder, 0o700)?;
        let fail = |e: io::Error| Error::internal(format!("cannot read {}: {e}", folder.display()));
        let mut held = Held::default();
        for entry in fs::read_dir(folder).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            match read(&path, boot) {
                Some(session) => {
                    held.sessions.insert(session.name(), session);
                }
                None => {
                    tracing::info!(path = %path.display(), "no session of now: its file goes");
                    fs::remove_file(&path).map_err(fail)?;
                }
            }
        }
        Ok(Sessions { folder: folder.to_owned(), boot: boot.to_owned(), held: Mutex::new(held) })
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, session: &Session) -> PathBuf {
        let path = self.folder.join(session.name());
        if session.closed { path.with_extension(CLOSED) } else { path }
    }

    /// A session that begins now.
    pub(super) fn begin(
        &self,
        uid: u32,
        process: (u32, u64),
        service: &str,
        now: Millis,
    ) -> Session {
        let (pid, started) = process;
        let (service, boot) = (service.to_owned(), self.boot.clone());
        Session { uid, pid, started, service, opened: now, boot, closed: false }
    }

    /// A session begins; one of the same name is the same.
    ///
    /// # Errors
    /// [`xos_base::Kind::Limited`] when the person has too many.
    pub(super) fn add(&self, session: Session) -> Result<(), Error> {
        let mut held = self.lock();
        if held.is_full(session.uid) {
            return Err(Error::new(
                xos_base::Kind::Limited,
                format!("this machine holds {PERSON_MAX} sessions of one person"),
            )
            .hint("end some of them"));
        }
        held.idle.remove(&session.uid);
        told(write(&self.path(&session), &session));
        held.sessions.insert(session.name(), session);
        Ok(())
    }

    /// PAM closed a session; the session, when it was open.
    pub(super) fn close(&self, name: &str) -> Option<Session> {
        let mut held = self.lock();
        let session = held.sessions.get_mut(name).filter(|s| !s.closed)?;
        let open = self.path(session);
        session.closed = true;
        told(fs::rename(open, self.path(session)));
        Some(session.clone())
    }

    /// Forgets the sessions whose leaders are gone, by `leads`, and gives those of them that
    /// nobody closed.
    pub(super) fn sweep(&self, now: Millis, leads: impl Fn(&Session) -> bool) -> Vec<Session> {
        let mut held = self.lock();
        let gone: Vec<String> =
            held.sessions.iter().filter(|(_, s)| !leads(s)).map(|(n, _)| n.clone()).collect();
        let gone: Vec<Session> = gone.iter().filter_map(|n| held.sessions.remove(n)).collect();
        for session in &gone {
            told(fs::remove_file(self.path(session)));
            if !held.sessions.values().any(|s| s.uid == session.uid) {
                held.idle.insert(session.uid, now);
            }
        }
        gone.into_iter().filter(|s| !s.closed).collect()
    }

    /// Whether no further session of a person would be taken.
    pub(super) fn full(&self, uid: u32) -> bool {
        self.lock().is_full(uid)
    }

    /// Those that are open.
    pub(super) fn all_open(&self) -> Vec<Session> {
        self.lock().sessions.values().filter(|s| !s.closed).cloned().collect()
    }

    /// Whether a person has an open session.
    pub(super) fn has(&self, uid: u32) -> bool {
        self.lock().sessions.values().any(|s| s.uid == uid && !s.closed)
    }

    /// Whether any session of the person has a leader, open or just closed.
    pub(super) fn is_led(&self, uid: u32) -> bool {
        self.lock().sessions.values().any(|s| s.uid == uid)
    }

    /// Since when a person has no session; `None`: they have one, or had none since this daemon
    /// runs.
    pub(super) fn idle_since(&self, uid: u32) -> Option<Millis> {
        self.lock().idle.get(&uid).copied()
    }

    /// Nothing of a person runs any more.
    pub(super) fn settled(&self, uid: u32) {
        self.lock().idle.remove(&uid);
    }

    /// What is left of a person's sessions is to be counted from `now` on, if it is not yet.
    pub(super) fn mark_idle(&self, uid: u32, now: Millis) {
        self.lock().idle.entry(uid).or_insert(now);
    }
}

/// The session of a file; `None`: not one of this boot, or cut off when the machine or its daemon
/// died while it was written.
fn read(path: &Path, boot: &str) -> Option<Session> {
    let read = keep::read::<Session>(path);
    let mut session = read.ok().flatten().filter(|s| s.boot == boot)?;
    session.closed = path.extension().is_some_and(|e| e == CLOSED);
    Some(session)
}

fn write(path: &Path, session: &Session) -> io::Result<()> {
    let text = serde_json::to_vec(session)?;
    let mut how = OpenOptions::new();
    how.write(true).create(true).truncate(true).mode(0o600).open(path)?.write_all(&text)
}

/// A full disk keeps nobody out.
fn told(kept: io::Result<()>) {
    if let Err(error) = kept {
        tracing::error!(%error, "a restart of xosd would not know what became of a session");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(all: &Sessions, uid: u32, pid: u32) -> Session {
        all.begin(uid, (pid, 5), "sshd", Millis(1))
    }

    /// If it failed, a restart of the daemon would end people's tickets, or leave what they ran.
    #[test]
    fn a_restart_knows_the_sessions_and_a_reboot_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sessions");
        let first = Sessions::open(&path, "boot").unwrap();
        first.add(session(&first, 7, 100)).unwrap();
        first.add(session(&first, 7, 101)).unwrap();
        assert_eq!(first.close("7-100-5").map(|s| s.pid), Some(100));
        assert_eq!(first.close("7-100-5"), None, "closed once");
        assert_eq!(first.close("7-999-5"), None);
        let again = Sessions::open(&path, "boot").unwrap();
        assert_eq!(again.close("7-100-5"), None, "closed before the restart");
        assert!(again.has(7) && !again.has(8));
        let open: Vec<u32> = again.all_open().iter().map(|s| s.pid).collect();
        assert_eq!(open, [101], "what PAM closed is open no more");
        let gone = again.sweep(Millis(50), |s| s.pid == 100);
        assert_eq!(gone.iter().map(|s| s.pid).collect::<Vec<_>>(), [101], "nobody closed it");
        assert!(!again.has(7) && again.is_led(7) && again.idle_since(7).is_none());
        assert!(again.sweep(Millis(60), |_| false).is_empty());
        assert_eq!((again.is_led(7), again.idle_since(7)), (false, Some(Millis(60))));
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "their files are left");
        again.add(session(&again, 7, 102)).unwrap();
        assert_eq!(again.idle_since(7), None, "they are back");
        fs::write(path.join("7-103-5"), "{\"uid\":7,").unwrap();
        let after = Sessions::open(&path, "boot").unwrap();
        assert!(after.is_led(7) && !path.join("7-103-5").exists(), "a crash while it was written");
        assert!(!Sessions::open(&path, "other").unwrap().has(7));
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    }

    /// If it failed, one person could fill the daemon's memory and its disk.
    #[test]
    fn one_person_has_so_many_and_others_still_come_in() {
        let dir = tempfile::tempdir().unwrap();
        let all = Sessions::open(&dir.path().join("s"), "boot").unwrap();
        for pid in 0..PERSON_MAX {
            all.add(session(&all, 7, u32::try_from(pid).unwrap())).unwrap();
        }
        assert!(all.full(7) && !all.full(8));
        assert_eq!(all.add(session(&all, 7, 9999)).unwrap_err().kind, xos_base::Kind::Limited);
        all.add(session(&all, 8, 9999)).unwrap();
    }
}
