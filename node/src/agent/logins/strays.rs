//! Holds what runs of suspended members outside of units and sessions: what cron or at started, or
//! came there in any other way. It is moved into a group of the person's own and stopped there;
//! what they run in a cluster is stopped in the groups that it has. What cannot be stopped so is
//! stopped by a signal.

use super::groups::{self, Groups, text_of};
use super::processes;
use crate::agent::keep;
use crate::cgroup::{CgroupError, EnvelopeCgroup};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use xos_base::Error;

/// How often all processes are looked at: those that are not held yet may start others.
const ROUNDS_MAX: u32 = 64;
/// From which look on they are stopped by a signal before they are moved, which takes longer: they
/// start others faster than they are moved.
const SIGNAL_FROM: u32 = 8;
/// How many are held between two looks.
const ROUND_MAX: usize = 512;

/// What was stopped by a signal, to be let go on; kept in a file.
pub(super) struct Strays {
    path: PathBuf,
    stopped: Mutex<BTreeSet<Stopped>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stopped {
    uid: u32,
    pid: i32,
    /// As the kernel counts: another process may have its id later.
    started: Option<u64>,
    /// It runs in a cluster: it goes on when its person may act, signed in or not.
    #[serde(default)]
    cluster: bool,
}

/// Whose processes are held.
#[derive(Clone, Copy)]
pub(super) struct Whom<'a> {
    /// All of them: outside of units and clusters.
    pub(super) of: &'a BTreeSet<u32>,
    /// Those of them who may not act at all: what they run in clusters is held as well.
    pub(super) suspended: &'a BTreeSet<u32>,
}

/// A process that is to be held.
struct Stray {
    is: Stopped,
    /// This very process, or one that is gone.
    held: OwnedFd,
    /// It was stopped by a signal before.
    rests: bool,
    /// The group of the program in a cluster to which it belongs.
    program: Option<EnvelopeCgroup>,
}

impl Stray {
    /// The process `pid`, if it is wholly one of these users' and nothing holds it.
    fn look(groups: &Groups, mountinfo: &str, who: Whom<'_>, pid: i32) -> Option<Stray> {
        let Whom { of, suspended } = who;
        processes::owner(pid).filter(|uid| of.contains(uid))?;
        // Held before it is looked at: what is read then is this process's.
        let held = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        let uid = processes::owner(pid).filter(|uid| of.contains(uid))?;
        let (thread, rests) = processes::thread(pid)?;
        let list = text_of(&format!("/proc/{pid}/task/{thread}/cgroup")).ok()?;
        let started = processes::started(pid.unsigned_abs());
        let cluster = groups.in_cluster(mountinfo, &list);
        let program = groups.program(mountinfo, &list);
        let stray = Stray { is: Stopped { uid, pid, started, cluster }, held, rests, program };
        let clusters = !suspended.contains(&uid);
        (!groups.holds(uid, mountinfo, &list, clusters)).then_some(stray)
    }

    fn send(&self, signal: Signal) {
        if let Err(error) = pidfd_send_signal(&self.held, signal) {
            // It is gone, or the next look finds it again.
            tracing::debug!(pid = self.is.pid, %error, "no signal");
        }
    }

    /// Whether it stands still.
    fn hold(&self, groups: &Groups, mountinfo: &str) -> Result<groups::Stopped, CgroupError> {
        let pid = self.is.pid;
        if let Some(program) = &self.program {
            return groups::stop(program, self.is.uid);
        }
        if self.is.cluster {
            // Elsewhere its agent would not find it.
            let (doing, path) = ("find the program of a process", format!("/proc/{pid}/cgroup"));
            let source = std::io::ErrorKind::NotFound.into();
            return Err(CgroupError::Io { doing, path: path.into(), source });
        }
        groups.hold(self.is.uid, pid)?;
        // Its id may have been another's by then, whose process began where its parent is.
        let is_anothers = || processes::owner(pid) != Some(self.is.uid);
        if processes::has_ended(&self.held)
            && is_anothers()
            && let Some(parent) = processes::parent(pid)
        {
            tracing::error!(pid, "a process was held by mistake: it goes back to its parent");
            groups.put_to(pid, parent, mountinfo)?;
        }
        Ok(groups::Stopped::Yes)
    }
}

impl Strays {
    /// Reads what an earlier daemon stopped by signals.
    pub(super) fn open(path: PathBuf) -> Strays {
        let stopped = keep::read(&path).unwrap_or_else(|error| {
            // Cut short by a power loss, which ended them.
            tracing::warn!(%error, "what was stopped by a signal is not known");
            None
        });
        Strays { path, stopped: Mutex::new(stopped.unwrap_or_default()) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<Stopped>> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of whom something is stopped by a signal.
    pub(super) fn uids(&self) -> BTreeSet<u32> {
        self.lock().iter().map(|s| s.uid).collect()
    }

    fn keep(&self, stopped: &BTreeSet<Stopped>) {
        let written = serde_json::to_string(stopped)
            .map_err(|e| Error::internal(format!("cannot encode what is stopped: {e}")))
            .and_then(|text| keep::write_text(&self.path, &text, 0o600));
        if let Err(error) = written {
            tracing::error!(%error, "a restart of xosd would not let go on all that it stopped");
        }
    }

    /// Holds every process of these users that is in no unit, until a look finds none that is not.
    /// Whether all are in groups that are stopped.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when processes cannot be listed.
    pub(super) fn hold_all(&self, groups: &Groups, who: Whom<'_>) -> Result<bool, Error> {
        let of = who.of;
        let fault = |e: std::io::Error| Error::internal(format!("cannot list processes: {e}"));
        if of.is_empty() {
            return Ok(true);
        }
        let mountinfo = text_of("/proc/self/mountinfo")?;
        // What is being made or saved: the next search finds it again.
        let mut later = BTreeSet::new();
        for round in 0..ROUNDS_MAX {
            let found = processes::pids().map_err(fault)?;
            let found = found.filter_map(|pid| Stray::look(groups, &mountinfo, who, pid));
            // What could not be moved is tried again once.
            let stays = |s: &Stray| round > 0 && self.lock().contains(&s.is);
            let found = found.filter(|s| !stays(s) && !later.contains(&s.is));
            let found: Vec<Stray> = found.take(ROUND_MAX).collect();
            if found.is_empty() {
                return Ok(later.is_empty() && !self.lock().iter().any(|s| of.contains(&s.uid)));
            }
            // A program's group holds all of it at once.
            let signals = |s: &Stray| round >= SIGNAL_FROM && !s.rests && s.program.is_none();
            for stray in found.iter().filter(|s| signals(s)) {
                stray.send(Signal::STOP);
            }
            for stray in &found {
                if !self.hold(groups, &mountinfo, stray, signals(stray)) {
                    later.insert(stray.is);
                }
            }
        }
        tracing::error!(uids = ?of, "members who are suspended start processes too fast");
        Ok(false)
    }

    /// Holds one; `signalled`: it was sent a stop for that. Whether it was possible now.
    fn hold(&self, groups: &Groups, mountinfo: &str, stray: &Stray, signalled: bool) -> bool {
        match stray.hold(groups, mountinfo) {
            Ok(groups::Stopped::Later) => return false,
            Ok(groups::Stopped::Yes) => {
                // The group stops it from now on.
                if self.forget(&stray.is) || signalled {
                    stray.send(Signal::CONT);
                }
            }
            Err(error) => {
                let (uid, pid) = (stray.is.uid, stray.is.pid);
                tracing::error!(uid, pid, %error, "a process is stopped by a signal only");
                stray.send(Signal::STOP);
                let mut stopped = self.lock();
                if stopped.insert(stray.is) {
                    self.keep(&stopped);
                }
            }
        }
        true
    }

    fn forget(&self, one: &Stopped) -> bool {
        let mut stopped = self.lock();
        let was = stopped.remove(one);
        if was {
            self.keep(&stopped);
        }
        was
    }

    /// Lets go on what was stopped by a signal, of whom `holds` does not name: by uid, and whether
    /// it runs in a cluster.
    pub(super) fn resume(&self, holds: impl Fn(u32, bool) -> bool) {
        let mut stopped = self.lock();
        let there = |s: &Stopped| processes::started(s.pid.unsigned_abs()) == s.started;
        let over: Vec<Stopped> =
            stopped.iter().filter(|s| !holds(s.uid, s.cluster) || !there(s)).copied().collect();
        for one in &over {
            let held = Pid::from_raw(one.pid).and_then(|p| pidfd_open(p, PidfdFlags::empty()).ok());
            if let Some(held) = held
                && there(one)
                && let Err(error) = pidfd_send_signal(&held, Signal::CONT)
            {
                tracing::warn!(pid = one.pid, %error, "what was stopped does not go on");
            }
            stopped.remove(one);
        }
        if !over.is_empty() {
            self.keep(&stopped);
        }
    }
}

#[cfg(test)]
mod tests;
