//! The groups of what people run in a cluster. The agent makes them, one for each program, and all
//! that it says of a program goes by them: what it may use, what it used, what is left of it. Here
//! they are stopped and let go on where they are, and nothing leaves them. The agent stops programs
//! by signals, so that neither undoes what the other did.

use super::{CLUSTER_GROUP, Groups};
use crate::agent::logins::processes;
use crate::cgroup::discover::Version;
use crate::cgroup::{CgroupError, EnvelopeCgroup};
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// Whether a program stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::agent::logins) enum Stopped {
    /// It does, or is gone.
    Yes,
    /// It is being made or saved, which has to end first.
    Later,
}

impl Groups {
    /// That of a cluster, as far as it is for stopping; `None`: the machine has none for that.
    fn cluster(&self) -> Option<EnvelopeCgroup> {
        self.cgroups.envelope(&CLUSTER_GROUP.parse().ok()?).stopping()
    }

    /// That of the program to which a process belongs, by where the process is.
    pub(super) fn program_at(&self, place: &Path) -> Option<EnvelopeCgroup> {
        let cluster = self.cluster()?;
        let below = place.strip_prefix(&cluster.parts.first()?.dir).ok()?;
        let name = below.components().next()?.as_os_str().to_str()?;
        is_programs(name).then(|| cluster.child(name))
    }

    /// The same by the texts of [`Groups::holds`].
    pub(in crate::agent::logins) fn program(
        &self,
        mountinfo: &str,
        list: &str,
    ) -> Option<EnvelopeCgroup> {
        self.program_at(&self.cgroups.place(mountinfo, list)?)
    }

    /// The programs that stand still, and whose they are.
    fn stopped(&self) -> Result<Vec<(EnvelopeCgroup, BTreeSet<u32>)>, CgroupError> {
        let Some(cluster) = self.cluster().filter(EnvelopeCgroup::is_there) else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        for name in cluster.names()?.iter().filter(|name| is_programs(name)) {
            let group = cluster.child(name);
            if is_stopped(&group) {
                let all = match group.processes() {
                    Err(e) if is_gone(&e) => continue,
                    all => all?,
                };
                let users = all.into_iter().filter_map(processes::owner).collect();
                found.push((group, users));
            }
        }
        Ok(found)
    }

    /// The people of whom a program stands still.
    ///
    /// # Errors
    /// [`CgroupError`] when they cannot be listed.
    pub(super) fn paused(&self) -> Result<BTreeSet<u32>, CgroupError> {
        Ok(self.stopped()?.into_iter().flat_map(|(_, users)| users).collect())
    }

    /// Lets all programs go on but those of whom `holds` names.
    ///
    /// # Errors
    /// Why one does not obey; the others are told.
    pub(in crate::agent::logins) fn resume(
        &self,
        holds: impl Fn(u32) -> bool,
    ) -> Result<(), CgroupError> {
        let mut result = Ok(());
        for (group, users) in self.stopped()? {
            if !users.into_iter().any(&holds) {
                match group.freeze(false) {
                    Err(e) if is_gone(&e) => {}
                    done => result = result.and(done),
                }
            }
        }
        result
    }

    /// Ends the programs of a person that stand still. What they leave is for the agent.
    pub(super) fn end_paused(&self, uid: u32) -> Result<(), CgroupError> {
        let of = self.stopped()?.into_iter().filter(|(_, users)| users.contains(&uid));
        for (group, _) in of {
            match group.kill().and_then(|()| group.freeze(false)) {
                Err(e) if is_gone(&e) => {}
                done => done?,
            }
        }
        Ok(())
    }
}

/// Whether a group below the cluster's is called as that of a program's copy, `<tree>.<epoch>`: the
/// agent has one of its own beside them.
fn is_programs(name: &str) -> bool {
    let number = |text: &str| text.parse::<u64>().is_ok();
    name.split_once('.').is_some_and(|(tree, epoch)| number(tree) && number(epoch))
}

/// Stops a program of a person.
///
/// # Errors
/// [`CgroupError`].
pub(in crate::agent::logins) fn stop(
    group: &EnvelopeCgroup,
    uid: u32,
) -> Result<Stopped, CgroupError> {
    if is_stopped(group) {
        return Ok(Stopped::Yes);
    }
    let stopped = || -> Result<Stopped, CgroupError> {
        if is_worked_at(group, uid)? {
            return Ok(Stopped::Later);
        }
        group.freeze(true)?;
        // Who began that meanwhile would wait for the program until its time is over.
        if is_worked_at(group, uid)? {
            group.freeze(false)?;
            return Ok(Stopped::Later);
        }
        Ok(Stopped::Yes)
    };
    match stopped() {
        Err(e) if is_gone(&e) => Ok(Stopped::Yes),
        stopped => stopped,
    }
}

/// Whether something in a program's group is not the person's own, or is traced by such: CRIU, or
/// who helps it.
fn is_worked_at(group: &EnvelopeCgroup, uid: u32) -> Result<bool, CgroupError> {
    let strange = |pid: i32| processes::thread(pid).is_some() && processes::owner(pid) != Some(uid);
    let all = group.processes()?;
    Ok(all.into_iter().any(|pid| strange(pid) || processes::tracer(pid).is_some_and(strange)))
}

/// Whether a group was told to stand still.
pub(super) fn is_stopped(group: &EnvelopeCgroup) -> bool {
    group.parts.iter().any(|part| {
        let switch = match part.version {
            Version::V1 => "freezer.self_freezing",
            Version::V2 => "cgroup.freeze",
        };
        fs::read_to_string(part.dir.join(switch)).is_ok_and(|text| text.trim() == "1")
    })
}

/// Whether an error only says that the agent removed a group meanwhile.
fn is_gone(error: &CgroupError) -> bool {
    let gone = |e: &std::io::Error| {
        e.kind() == ErrorKind::NotFound || e.raw_os_error() == Some(libc::ENODEV)
    };
    matches!(error, CgroupError::Io { source, .. } if gone(source))
}
