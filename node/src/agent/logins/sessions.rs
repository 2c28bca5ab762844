//! The sessions of people on this machine, kept in a file: a daemon that is started anew knows
//! which of them are open.

use crate::agent::keep;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use xos_base::{Error, Millis};

/// Most sessions of one person at a time.
const PERSON_MAX: usize = 256;

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
    /// Whether PAM closed it; its leader still has something to do.
    pub(super) closed: bool,
}

impl Session {
    /// The session's name.
    pub(super) fn name(&self) -> String {
        format!("{}-{}-{}", self.uid, self.pid, self.started)
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// Of the kernel: process ids of an earlier one mean nothing.
    boot: String,
    sessions: Vec<Session>,
}

#[derive(Default)]
struct Held {
    sessions: BTreeMap<String, Session>,
    /// Since when a person has none any more, of whom something may still run.
    idle: BTreeMap<u32, Millis>,
}

/// All sessions.
pub(in crate::agent) struct Sessions {
    path: PathBuf,
    boot: String,
    held: Mutex<Held>,
}

impl Sessions {
    /// Reads what an earlier daemon left; sessions of before the machine's start are none.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when the file cannot be read.
    pub(in crate::agent) fn open(path: PathBuf, boot: &str) -> Result<Sessions, Error> {
        let kept: Kept = keep::read(&path)?.unwrap_or_default();
        let mut held = Held::default();
        if kept.boot == boot {
            held.sessions = kept.sessions.into_iter().map(|s| (s.name(), s)).collect();
        }
        Ok(Sessions { path, boot: boot.to_owned(), held: Mutex::new(held) })
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file is of use until the next start of the machine only: it is not brought to the disk.
    /// Where it cannot be written, a person can be in and out all the same.
    fn keep(&self, held: &Held) {
        let kept =
            Kept { boot: self.boot.clone(), sessions: held.sessions.values().cloned().collect() };
        let written = serde_json::to_string(&kept)
            .map_err(|e| Error::internal(format!("cannot encode sessions: {e}")))
            .and_then(|text| keep::write_text(&self.path, &text, 0o600));
        if let Err(error) = written {
            tracing::error!(%error, "a restart of xosd would not know of all sessions");
        }
    }

    /// A session begins; one of the same name is the same.
    ///
    /// # Errors
    /// [`xos_base::Kind::Limited`] when the person has too many.
    pub(super) fn add(&self, session: Session) -> Result<(), Error> {
        let mut held = self.lock();
        if held.sessions.values().filter(|s| s.uid == session.uid).count() >= PERSON_MAX {
            return Err(Error::new(
                xos_base::Kind::Limited,
                format!("this machine holds {PERSON_MAX} sessions of one person"),
            )
            .hint("end some of them"));
        }
        held.idle.remove(&session.uid);
        held.sessions.insert(session.name(), session);
        self.keep(&held);
        Ok(())
    }

    /// PAM closed a session; the session, when it was open.
    pub(super) fn close(&self, name: &str) -> Option<Session> {
        let mut held = self.lock();
        let session = held.sessions.get_mut(name).filter(|s| !s.closed)?;
        session.closed = true;
        let closed = session.clone();
        self.keep(&held);
        Some(closed)
    }

    /// Forgets the sessions whose leaders are gone, by `leads`, and gives those of them that
    /// nobody closed.
    pub(super) fn sweep(&self, now: Millis, leads: impl Fn(&Session) -> bool) -> Vec<Session> {
        let mut held = self.lock();
        let gone: Vec<String> =
            held.sessions.iter().filter(|(_, s)| !leads(s)).map(|(n, _)| n.clone()).collect();
        let gone: Vec<Session> = gone.iter().filter_map(|n| held.sessions.remove(n)).collect();
        for session in &gone {
            if !held.sessions.values().any(|s| s.uid == session.uid) {
                held.idle.insert(session.uid, now);
            }
        }
        if !gone.is_empty() {
            self.keep(&held);
        }
        gone.into_iter().filter(|s| !s.closed).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn session(uid: u32, pid: u32) -> Session {
        Session { uid, pid, started: 5, service: "sshd".into(), opened: Millis(1), closed: false }
    }

    /// If it failed, a restart of the daemon would end people's tickets, or leave what they ran.
    #[test]
    fn a_restart_knows_the_sessions_and_a_reboot_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sessions.json");
        let first = Sessions::open(path.clone(), "boot").unwrap();
        first.add(session(7, 100)).unwrap();
        first.add(session(7, 101)).unwrap();
        assert_eq!(first.close("7-100-5").map(|s| s.pid), Some(100));
        assert_eq!(first.close("7-100-5"), None, "closed once");
        assert_eq!(first.close("7-999-5"), None);
        let again = Sessions::open(path.clone(), "boot").unwrap();
        assert!(again.has(7) && !again.has(8));
        let gone = again.sweep(Millis(50), |s| s.pid == 100);
        assert_eq!(gone.iter().map(|s| s.pid).collect::<Vec<_>>(), [101], "nobody closed it");
        assert!(!again.has(7) && again.is_led(7) && again.idle_since(7).is_none());
        assert!(again.sweep(Millis(60), |_| false).is_empty());
        assert_eq!((again.is_led(7), again.idle_since(7)), (false, Some(Millis(60))));
        again.add(session(7, 102)).unwrap();
        assert_eq!(again.idle_since(7), None, "they are back");
        assert!(!Sessions::open(path, "other").unwrap().has(7));
    }

    /// If it failed, one person could fill the daemon's memory and its file.
    #[test]
    fn one_person_has_so_many_and_others_still_come_in() {
        let dir = tempfile::tempdir().unwrap();
        let all = Sessions::open(dir.path().join("s"), "boot").unwrap();
        for pid in 0..PERSON_MAX {
            all.add(session(7, u32::try_from(pid).unwrap())).unwrap();
        }
        assert_eq!(all.add(session(7, 9999)).unwrap_err().kind, xos_base::Kind::Limited);
        all.add(session(8, 9999)).unwrap();
    }
}
