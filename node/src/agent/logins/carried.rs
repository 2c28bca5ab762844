//! Which roles the sessions of a person carry, those of credentials, also of sessions that left
//! something running. Sessions of one person cannot be told apart once their leaders are gone, so
//! that a role which is withdrawn ends all of the person's on this machine. Kept in a file: a
//! daemon that is started anew knows it.

use crate::agent::keep;
use crate::spec::Carries;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use xos_base::Error;

/// Most sets of roles of one person that are told apart.
const PERSON_MAX: usize = 64;

type Kept = BTreeMap<u32, Vec<Carries>>;

/// What the sessions of all people carry.
pub(super) struct Carried {
    path: PathBuf,
    boot: String,
    kept: Mutex<Kept>,
}

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Of the kernel: what ran under an earlier one runs no more.
    boot: String,
    carried: Kept,
}

impl Carried {
    /// Reads what an earlier daemon left.
    pub(super) fn open(path: PathBuf, boot: &str) -> Carried {
        let file = keep::read::<File>(&path).unwrap_or_else(|error| {
            // Cut short by a power loss, after which no session runs.
            tracing::warn!(%error, "which roles sessions carry is not known");
            None
        });
        let kept = file.filter(|f| f.boot == boot).map(|f| f.carried).unwrap_or_default();
        Carried { path, boot: boot.to_owned(), kept: Mutex::new(kept) }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, kept: &Kept) {
        let file = File { boot: self.boot.clone(), carried: kept.clone() };
        let written = serde_json::to_string(&file)
            .map_err(|e| Error::internal(format!("cannot encode what sessions carry: {e}")))
            .and_then(|text| keep::write_text(&self.path, &text, 0o600));
        if let Err(error) = written {
            tracing::error!(%error, "a restart of xosd would not know which roles sessions carry");
        }
    }

    /// A session begins; one without roles carries nothing.
    pub(super) fn add(&self, uid: u32, carries: Carries) {
        if carries.roles.is_empty() {
            return;
        }
        let mut kept = self.lock();
        let of = kept.entry(uid).or_default();
        let alike = of.iter().position(|c| c.roles == carries.roles);
        let full = of.len() >= PERSON_MAX;
        match alike.or(full.then_some(0)) {
            None => of.push(carries),
            Some(at) => {
                let Some(known) = of.get_mut(at) else { return };
                if alike.is_some() && known.epoch <= carries.epoch {
                    return;
                }
                // The older epoch ends whenever the newer does; of too many, too much ends.
                known.epoch = known.epoch.min(carries.epoch);
                let new = carries.roles.into_iter().filter(|r| !known.roles.contains(r));
                let new: Vec<_> = new.collect();
                known.roles.extend(new);
            }
        }
        self.keep(&kept);
    }

    /// What `is` names, and whose it is.
    pub(super) fn which(&self, is: impl Fn(u32, &Carries) -> bool) -> Vec<(u32, Carries)> {
        let kept = self.lock();
        let all = kept.iter().flat_map(|(uid, all)| all.iter().map(move |c| (*uid, c)));
        all.filter(|(uid, c)| is(*uid, c)).map(|(uid, c)| (uid, c.clone())).collect()
    }

    /// Forgets what `stays` does not name.
    pub(super) fn retain(&self, stays: impl Fn(u32, &Carries) -> bool) {
        let mut kept = self.lock();
        let before = kept.clone();
        kept.retain(|uid, all| {
            all.retain(|c| stays(*uid, c));
            !all.is_empty()
        });
        if *kept != before {
            self.keep(&kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use xos_base::Epoch;

    fn carries(epoch: u64, roles: &[&str]) -> Carries {
        let roles = roles.iter().map(|r| r.parse().unwrap()).collect();
        Carries { epoch: Epoch(epoch), groups: Vec::new(), roles }
    }

    fn uids(of: &Carried, is: impl Fn(u32, &Carries) -> bool) -> Vec<u32> {
        of.which(is).into_iter().map(|(uid, _)| uid).collect()
    }

    fn open(dir: &Path, boot: &str) -> Carried {
        Carried::open(dir.join("carried.json"), boot)
    }

    /// If it failed, shells of a role that was withdrawn would go on after a restart of the daemon,
    /// or people without it would lose theirs.
    #[test]
    fn a_restart_knows_which_roles_sessions_carry() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path(), "boot");
        first.add(7, carries(4, &["pilot"]));
        first.add(7, carries(5, &["pilot"]));
        first.add(7, carries(5, &["clerk"]));
        first.add(8, carries(4, &[]));
        let again = open(dir.path(), "boot");
        let pilot = |_: u32, c: &Carries| c.roles.iter().any(|r| r.as_str() == "pilot");
        assert_eq!(uids(&again, pilot), [7]);
        // The one of before counts: it ends with whatever was taken since.
        assert_eq!(uids(&again, |_, c| c.epoch < Epoch(5)), [7]);
        again.retain(|uid, c| !pilot(uid, c));
        let last = open(dir.path(), "boot");
        assert!(uids(&last, pilot).is_empty());
        assert_eq!(uids(&last, |_, _| true), [7], "another session's role");
        assert!(uids(&open(dir.path(), "other"), |_, _| true).is_empty(), "another start");
    }

    /// If it failed, one person could fill the daemon's memory, or hide a role by many others.
    #[test]
    fn one_person_has_so_many_and_no_role_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let all = open(dir.path(), "boot");
        for n in 0..=PERSON_MAX {
            all.add(7, carries(4, &[&format!("r{n}")]));
        }
        let last = format!("r{PERSON_MAX}");
        let has_last = |_: u32, c: &Carries| c.roles.iter().any(|r| r.as_str() == last);
        assert_eq!(uids(&all, has_last), [7]);
        assert_eq!(all.lock()[&7].len(), PERSON_MAX);
    }
}
