//! Where the processes of people's sessions are: a control group for each person, or what systemd
//! made for them.

mod programs;

pub(super) use programs::{Stopped, stop};

use crate::agent::cluster::GROUP as CLUSTER_GROUP;
use crate::agent::keep;
use crate::cgroup::discover::{Hierarchy, MOUNTINFO_BYTES_MAX, Version, hierarchies};
use crate::cgroup::{CgroupError, Cgroups, EnvelopeCgroup};
use crate::spec::Limits;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use xos_base::Error;

/// What the names of people's groups begin with; the uid follows.
const PREFIX: &str = "login-";
/// The same of the groups in which is held what is of no session and no unit.
const HELD: &str = "held-";

/// The groups of people's sessions.
pub(in crate::agent) struct Groups {
    cgroups: Cgroups,
    limits: Limits,
    /// The uids whose systemd slices are held because this program said so; kept in a file.
    held: Mutex<BTreeSet<u32>>,
    path: PathBuf,
}

impl Groups {
    /// Groups below `cgroups`; `path` is where it is kept whose slices are held.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when that cannot be read.
    pub(in crate::agent) fn open(
        cgroups: Cgroups,
        limits: Limits,
        path: PathBuf,
    ) -> Result<Groups, Error> {
        let held = keep::read(&path)?.unwrap_or_default();
        Ok(Groups { cgroups, limits, held: Mutex::new(held), path })
    }

    fn of(&self, uid: u32) -> Result<EnvelopeCgroup, CgroupError> {
        self.named(PREFIX, uid)
    }

    fn named(&self, prefix: &str, uid: u32) -> Result<EnvelopeCgroup, CgroupError> {
        let name = format!("{prefix}{uid}").parse();
        let name = name.map_err(|_| CgroupError::NoController("sessions"))?;
        Ok(self.cgroups.envelope(&name))
    }

    /// Where what is of no session of a person and of no unit is held: only stopped there, and in
    /// all other hierarchies left where it is.
    fn held(&self, uid: u32) -> Result<EnvelopeCgroup, CgroupError> {
        let group = self.named(HELD, uid)?.stopping();
        group.ok_or(CgroupError::NoController("running (freezer)"))
    }

    /// The groups of a person, as far as they are there: of sessions and of what is held beside
    /// them.
    fn there(&self, uid: u32) -> Result<Vec<EnvelopeCgroup>, CgroupError> {
        let all = [Some(self.of(uid)?), self.named(HELD, uid)?.stopping()];
        Ok(all.into_iter().flatten().filter(EnvelopeCgroup::is_there).collect())
    }

    /// Moves a process into the person's group, unless systemd has put it into the person's own
    /// slice, where it can be stopped and which has the same limits: it stays there then. Another
    /// user's, from which they came by `su`, is neither theirs to be limited in nor stopped with
    /// them. Whether it was moved.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unavailable`] when it cannot be held.
    pub(super) fn enter(&self, uid: u32, pid: u32) -> Result<bool, Error> {
        let fault = |e: &dyn std::fmt::Display| {
            Error::unavailable(format!("this machine cannot hold the session: {e}"))
                .hint("tell the machine's administrator")
        };
        let list = text_of(&format!("/proc/{pid}/cgroup")).map_err(|e| fault(&e))?;
        let mountinfo = text_of("/proc/self/mountinfo").map_err(|e| fault(&e))?;
        if in_own_slice(uid, &mountinfo, &list) {
            return Ok(false);
        }
        let group = self.of(uid).map_err(|e| fault(&e))?;
        group.create(&self.limits).map_err(|e| fault(&e))?;
        group.take(pid).map_err(|e| fault(&e))?;
        Ok(true)
    }

    /// The people who have a group of sessions.
    ///
    /// # Errors
    /// [`CgroupError`] when they cannot be listed.
    pub(super) fn uids(&self) -> Result<BTreeSet<u32>, CgroupError> {
        self.with(PREFIX)
    }

    fn with(&self, prefix: &str) -> Result<BTreeSet<u32>, CgroupError> {
        let names = self.cgroups.names(prefix)?;
        Ok(names.iter().filter_map(|n| n.strip_prefix(prefix)?.parse().ok()).collect())
    }

    /// The people who have a group of any kind, or a program in a cluster that stands still.
    ///
    /// # Errors
    /// [`CgroupError`] when they cannot be listed.
    pub(super) fn all(&self) -> Result<BTreeSet<u32>, CgroupError> {
        let mut all = self.uids()?;
        all.extend(self.with(HELD)?);
        all.extend(self.paused()?);
        Ok(all)
    }

    /// Stops (`true`) or continues what is in a person's groups, without what they run in clusters.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub(super) fn freeze(&self, uid: u32, frozen: bool) -> Result<(), CgroupError> {
        self.there(uid)?.iter().try_for_each(|group| group.freeze(frozen))
    }

    /// Whether a process is one of those that run in a cluster, by the same texts as
    /// [`Groups::holds`].
    pub(super) fn in_cluster(&self, mountinfo: &str, list: &str) -> bool {
        let place = self.cgroups.place(mountinfo, list);
        place.and_then(|place| self.cgroups.name_at(&place)).is_some_and(|n| n == CLUSTER_GROUP)
    }

    /// Whether a process of a person is where it is stopped with them: with their units, in a group
    /// of theirs, or in their slice of systemd. By the texts of `/proc/self/mountinfo` and of its
    /// `cgroup`. `clusters`: whether what they run in a cluster may go on.
    pub(super) fn holds(&self, uid: u32, mountinfo: &str, list: &str, clusters: bool) -> bool {
        if in_own_slice(uid, mountinfo, list) {
            return true;
        }
        let Some(place) = self.cgroups.place(mountinfo, list) else { return false };
        self.cgroups.name_at(&place).is_some_and(|name| {
            if name == CLUSTER_GROUP {
                let stopped = |group: EnvelopeCgroup| programs::is_stopped(&group);
                return clusters || self.program_at(&place).is_some_and(stopped);
            }
            let kinds = [PREFIX, HELD];
            let others = kinds.iter().any(|kind| name.starts_with(kind));
            !others || kinds.iter().any(|kind| name == format!("{kind}{uid}"))
        })
    }

    /// Whether a process is in a unit. Its group is made by this program, so that nobody else can put
    /// a process there.
    pub(super) fn has_unit(&self, pid: i32) -> bool {
        let texts = text_of("/proc/self/mountinfo")
            .and_then(|mounts| Ok((mounts, text_of(&format!("/proc/{pid}/cgroup"))?)));
        let Ok((mountinfo, list)) = texts else { return false };
        let place = self.cgroups.place(&mountinfo, &list);
        let name = place.and_then(|place| self.cgroups.name_at(&place));
        // Programs of a cluster are no units: nobody else would end them.
        let other = |name: &str| {
            [PREFIX, HELD].iter().any(|p| name.starts_with(p)) || name == CLUSTER_GROUP
        };
        name.is_some_and(|name| !other(&name))
    }

    /// Moves a process into the group in which what is of no session is held, which is stopped. One
    /// that is gone is no error.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub(super) fn hold(&self, uid: u32, pid: i32) -> Result<(), CgroupError> {
        let group = self.held(uid)?;
        if !group.is_there() {
            group.make()?;
            let limited = group.parts.iter().any(|p| p.controllers.contains("pids"));
            if limited && let Err(error) = group.limit(&self.limits) {
                // To be held is more.
                tracing::warn!(uid, %error, "what is held has no limits once it goes on");
            }
        }
        group.freeze(true)?;
        match group.take(pid.unsigned_abs()) {
            Err(CgroupError::Io { source, .. }) if source.raw_os_error() == Some(libc::ESRCH) => {
                Ok(())
            }
            taken => taken,
        }
    }

    /// Moves a process to where another one is.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub(super) fn put_to(&self, pid: i32, other: i32, mountinfo: &str) -> Result<(), CgroupError> {
        let list = text_of(&format!("/proc/{other}/cgroup")).unwrap_or_default();
        let Some(place) = self.cgroups.place(mountinfo, &list) else { return Ok(()) };
        let path = place.join("cgroup.procs");
        let doing = "put a process back into it";
        fs::write(&path, pid.to_string()).map_err(|source| CgroupError::Io { doing, path, source })
    }

    /// Removes the groups of what was held in which nothing is any more.
    ///
    /// # Errors
    /// [`CgroupError`] when they cannot be listed.
    pub(super) fn clear(&self) -> Result<(), CgroupError> {
        for uid in self.with(HELD)? {
            for part in self.held(uid)?.parts {
                // The kernel removes none in which something is.
                if let Err(error) = fs::remove_dir(&part.dir) {
                    tracing::debug!(uid, %error, "something is held there");
                }
            }
        }
        Ok(())
    }

    /// Whether nothing is in a person's group of sessions.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub(super) fn is_empty(&self, uid: u32) -> Result<bool, CgroupError> {
        Ok(self.of(uid)?.processes()?.is_empty())
    }

    /// Ends a person's sessions with all that they left, and removes their group.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub(super) fn end_sessions(&self, uid: u32) -> Result<(), CgroupError> {
        let group = self.of(uid)?;
        group.kill()?;
        group.remove()
    }

    /// Ends what is in a person's groups, and their programs that stand still, without waiting for
    /// it.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub(super) fn kill(&self, uid: u32) -> Result<(), CgroupError> {
        self.there(uid)?.iter().try_for_each(EnvelopeCgroup::kill)?;
        self.end_paused(uid)
    }

    /// Ends what is in a person's groups, and removes them, and their programs that stand still.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub(super) fn end(&self, uid: u32) -> Result<(), CgroupError> {
        self.end_paused(uid)?;
        for group in self.there(uid)? {
            group.kill()?;
            // What hid from the list of the group's processes dies only when it is not stopped.
            group.stopping().map_or(Ok(()), |group| group.freeze(false))?;
            group.remove()?;
        }
        Ok(())
    }

    /// Stops the systemd slices of those whom `holds` names, and continues what this program
    /// stopped of others. Where systemd has no control groups of version 2 there is nothing to do.
    ///
    /// # Errors
    /// Why one does not obey; the others are told.
    pub(super) fn hold_slices(&self, holds: impl Fn(u32) -> bool) -> Result<(), Error> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let mut result = Ok(());
        for (uid, switch) in slices()? {
            let hold = holds(uid);
            if !hold && !held.contains(&uid) {
                continue;
            }
            match fs::write(&switch, if hold { "1" } else { "0" }) {
                Ok(()) if hold => held.insert(uid),
                Ok(()) => held.remove(&uid),
                // It went meanwhile.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => held.remove(&uid),
                Err(e) => {
                    let path = switch.display();
                    result = Err(Error::internal(format!("cannot write {path}: {e}")));
                    continue;
                }
            };
        }
        let text = serde_json::to_string(&*held)
            .map_err(|e| Error::internal(format!("cannot encode who is held: {e}")))?;
        keep::write_text(&self.path, &text, 0o600)?;
        result
    }
}

/// Whether a process is in the slice of a user that systemd made, where it can be stopped: in the
/// hierarchy of version 2. systemd's own of version 1 (`name=systemd`) and elogind's only name
/// sessions.
fn in_own_slice(uid: u32, mountinfo: &str, list: &str) -> bool {
    let own = |h: &Hierarchy| {
        h.version == Version::V2
            && h.own.starts_with(h.point.join(format!("user.slice/user-{uid}.slice")))
    };
    hierarchies(mountinfo, list).iter().any(own)
}

/// The text of a file of the kernel's.
///
/// # Errors
/// [`xos_base::Kind::Internal`] naming it.
pub(super) fn text_of(path: &str) -> Result<String, Error> {
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|f| f.take(MOUNTINFO_BYTES_MAX).read_to_string(&mut text))
        .map(|_| text)
        .map_err(|e| Error::internal(format!("cannot read {path}: {e}")))
}

/// The switches of systemd's slices of users (systemd.slice(5), cgroup-v2.rst), by uid.
fn slices() -> Result<BTreeMap<u32, PathBuf>, Error> {
    let all = hierarchies(&text_of("/proc/self/mountinfo")?, &text_of("/proc/self/cgroup")?);
    let mut found = BTreeMap::new();
    for h in all.iter().filter(|h| h.version == Version::V2) {
        let Ok(entries) = fs::read_dir(h.point.join("user.slice")) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let uid = name.to_str().and_then(|n| n.strip_prefix("user-")?.strip_suffix(".slice"));
            let switch = entry.path().join("cgroup.freeze");
            if let Some(uid) = uid.and_then(|n| n.parse().ok())
                && switch.exists()
            {
                found.insert(uid, switch);
            }
        }
    }
    Ok(found)
}

/// The uids that have a slice of systemd's.
///
/// # Errors
/// [`xos_base::Kind::Internal`] when the kernel does not say where those would be.
pub(super) fn slice_uids() -> Result<BTreeSet<u32>, Error> {
    Ok(slices()?.into_keys().collect())
}

/// Ends all that is in the systemd slices of these users, stopped or not. Kernels before 5.14 have
/// no such switch; then each process is ended by itself.
///
/// # Errors
/// Why one does not obey; the others are told.
pub(super) fn end_slices(of: &BTreeSet<u32>) -> Result<(), Error> {
    let mut result = Ok(());
    if of.is_empty() {
        return result;
    }
    for (uid, freeze) in slices()? {
        let switch = freeze.with_file_name("cgroup.kill");
        if !of.contains(&uid) || !switch.exists() {
            continue;
        }
        match fs::write(&switch, "1") {
            Ok(()) => {}
            // It went meanwhile.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => {
                let path = switch.display();
                result = Err(Error::internal(format!("cannot write {path}: {e}")));
            }
        }
    }
    result
}

#[cfg(test)]
mod tests;
