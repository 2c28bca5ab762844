//! Puts in force where members stand whose processes are not in envelopes: their sessions, what
//! they run in a cluster, what cron and at run for them, what they left behind.

use super::groups::{self, Groups};
use super::processes::{self, Ending, Left};
use super::strays::{Strays, Whom};
use crate::agent::units::in_background;
use crate::agent::{Agent, keep, machine};
use crate::cgroup::Cgroups;
use crate::spec::{Carries, Limits};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use xos_api::vom::AccountState;
use xos_base::Error;

/// Most processes that the log names of those that do not end.
const TOLD_MAX: usize = 8;

/// What holds members' processes that are in no unit: on nodes to which they sign in, and on those
/// of clusters.
pub(in crate::agent) struct Holding {
    pub(super) groups: Groups,
    strays: Strays,
    /// Held while somebody is moved into a group, and while one is removed.
    pub(super) moving: tokio::sync::Mutex<()>,
}

impl Holding {
    /// Reads what an earlier daemon left below `folder`. `limits`: of what all sessions of a person
    /// have together.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when that cannot be read.
    pub(super) fn open(folder: &Path, cgroups: Cgroups, limits: Limits) -> Result<Holding, Error> {
        let own = folder.join("logins");
        keep::own_folder(&own, 0o700)?;
        let groups = Groups::open(cgroups, limits, own.join("held.json"))?;
        let (strays, moving) = (Strays::open(own.join("stopped.json")), Default::default());
        Ok(Holding { groups, strays, moving })
    }
}

/// Whom an enforcement concerns beside the groups of sessions.
struct Others {
    /// Who is held.
    held: BTreeSet<u32>,
    /// Who of them is suspended.
    suspended: BTreeSet<u32>,
    /// Whose systemd slice ends, and who is not let go on before that.
    ended: BTreeSet<u32>,
}

impl Agent {
    /// Ends every process that runs under the uid of a member who is no more, and those that carry
    /// what was taken from a member. Whether none is left.
    pub(in crate::agent) async fn end_those_who_left(&self) -> bool {
        match self.end_left().await {
            Ok(all) => all,
            Err(error) => {
                tracing::error!(%error, "processes that are to end may go on");
                false
            }
        }
    }

    async fn end_left(&self) -> Result<bool, Error> {
        let fault = |e: std::io::Error| Error::internal(format!("cannot end processes: {e}"));
        let running = self.running().await?;
        // The machine's own users stay, whatever number they have.
        let local = machine::local_uids()?;
        let taken = self.taken();
        let mut ending = Ending::default();
        {
            let (now, vos) = (self.now(), self.lock_vos());
            for (uid, groups) in running.iter().filter(|(uid, _)| !local.contains(*uid)) {
                let left = vos.left_gids(*uid);
                if vos.has_left(*uid, now) {
                    ending.users.insert(*uid);
                } else if taken.iter().any(|(of, _)| of == uid) {
                    ending.beside_units.insert(*uid);
                }
                if !left.is_disjoint(groups) {
                    ending.groups.insert(*uid, left);
                }
            }
        }
        let uids = ending.users.iter().chain(&ending.beside_units).chain(ending.groups.keys());
        self.note_processes(&uids.copied().collect());
        if !ending.is_empty() {
            tracing::info!(?ending, "ending what runs of members who are no more, or have less");
            let holding = self.holding.clone();
            let end = move || processes::end_all(&ending, |pid| in_unit(holding.as_deref(), pid));
            let left = in_background(end).await?.map_err(fault)?;
            if !left.is_empty() {
                tell_left(&left);
                return Ok(false);
            }
        }
        // No more than what was ended is forgotten: something else may have been taken meanwhile.
        if let Some(logins) = &self.logins {
            let ended =
                |uid, carries: &Carries| taken.iter().any(|(u, c)| *u == uid && c == carries);
            logins.carried.retain(|uid, carries| !ended(uid, carries));
        }
        Ok(true)
    }

    /// What sessions carry that was taken from their member since they began.
    fn taken(&self) -> Vec<(u32, Carries)> {
        let Some(logins) = &self.logins else { return Vec::new() };
        let vos = self.lock_vos();
        logins.carried.which(|uid, carries| vos.was_taken(uid, carries))
    }

    /// Those some session of whom carries what was taken from them since it began.
    pub(in crate::agent) fn taken_sessions(&self) -> BTreeSet<u32> {
        self.taken().into_iter().map(|(uid, _)| uid).collect()
    }

    /// The uids of members who have sessions here, or something that is held.
    pub(in crate::agent) fn session_uids(&self) -> BTreeSet<u32> {
        let Some(holding) = &self.holding else { return BTreeSet::new() };
        holding.groups.all().unwrap_or_else(|error| {
            tracing::error!(%error, "whose sessions there are is not known");
            BTreeSet::new()
        })
    }

    /// Who is held of those under whose uid something runs here, or is in their group.
    async fn held_here(
        &self,
        uids: &BTreeSet<u32>,
        slices: &BTreeSet<u32>,
    ) -> Result<BTreeSet<u32>, Error> {
        let running = self.running().await?;
        let strays = self.holding.iter().flat_map(|holding| holding.strays.uids());
        let here = running.into_keys().chain(strays).chain(uids.iter().chain(slices).copied());
        Ok(self.lock_vos().held(here, self.now()))
    }

    /// Those of them who are suspended, and not only kept from signing in.
    fn suspended(&self, of: &BTreeSet<u32>) -> BTreeSet<u32> {
        let (now, vos) = (self.now(), self.lock_vos());
        let is = |uid: &u32| vos.state_of(*uid, now) == Some(AccountState::Suspended);
        of.iter().copied().filter(is).collect()
    }

    /// The users of all processes, and the groups that those of each are in.
    async fn running(&self) -> Result<BTreeMap<u32, BTreeSet<u32>>, Error> {
        let fault = |e: std::io::Error| Error::internal(format!("cannot list processes: {e}"));
        in_background(processes::users).await?.map_err(fault)
    }

    /// Looks for what was started under the uids of members who are held, or are no more by time
    /// alone: holds or ends it. Whether all of it was done.
    pub(in crate::agent) async fn look_for_strays(&self) -> bool {
        let ended = self.end_those_who_left().await;
        let Some(holding) = self.holding.clone() else { return ended };
        let _moving = holding.moving.lock().await;
        let held = async {
            let mut held = self.held_here(&BTreeSet::new(), &BTreeSet::new()).await?;
            let local = machine::local_uids()?;
            held.retain(|uid| !local.contains(uid));
            let (own, suspended) = (holding.clone(), self.suspended(&held));
            let hold =
                move || own.strays.hold_all(&own.groups, Whom { of: &held, suspended: &suspended });
            in_background(hold).await?
        };
        match held.await {
            Ok(held) => held && ended,
            Err(error) => {
                tracing::error!(%error, "what was started of members who are held may go on");
                false
            }
        }
    }

    /// Holds the sessions of members who are suspended, or whom rules do not let sign in, and all
    /// that runs under their uids besides units, lets the others' go on, and ends those of who is
    /// no more. `state` says of a uid where its member stands; `None`: nothing is done. Whether all
    /// of it was done.
    pub(in crate::agent) async fn hold_sessions(
        &self,
        state: impl Fn(u32) -> Option<AccountState>,
    ) -> bool {
        let Some(holding) = self.holding.clone() else { return true };
        let _moving = holding.moving.lock().await;
        let found = holding.groups.all().map_err(|e| Error::internal(e.to_string()));
        let found = found.and_then(|uids| Ok((uids, groups::slice_uids()?)));
        let (uids, slices) = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(%error, "sessions cannot be held or ended");
                return false;
            }
        };
        let held = match self.held_here(&uids, &slices).await {
            Ok(held) => held,
            Err(error) => {
                tracing::error!(%error, "who is to be held is not known");
                return false;
            }
        };
        let stands = |uid: u32| match state(uid)? {
            AccountState::Active if held.contains(&uid) => Some((uid, AccountState::Suspended)),
            stands => Some((uid, stands)),
        };
        let orders: Vec<_> = uids.into_iter().filter_map(stands).collect();
        let taken = self.taken_sessions();
        self.note_taken_sessions(&taken);
        let ended = {
            let (now, vos) = (self.now(), self.lock_vos());
            // Never by `state`: it takes the machine's own users for members who are no more.
            let ends = |uid: &u32| vos.has_left(*uid, now) || taken.contains(uid);
            slices.into_iter().chain(holding.strays.uids()).filter(ends).collect()
        };
        let suspended = self.suspended(&held);
        let others = Others { held, suspended, ended };
        let own = holding.clone();
        match in_background(move || obeyed(&own, orders, others)).await {
            Ok(all) => all,
            Err(error) => {
                tracing::error!(%error, "sessions were not told where their members stand");
                false
            }
        }
    }
}

/// Whether a process is in a unit. What cannot be made out is not: it would escape its end.
fn in_unit(holding: Option<&Holding>, pid: i32) -> bool {
    holding.is_some_and(|h| h.groups.has_unit(pid))
}

/// Tells the administrator of processes that do not end.
fn tell_left(left: &[Left]) {
    let waiting: Vec<i32> = left.iter().filter(|l| l.waits).map(|l| l.pid).collect();
    if !waiting.is_empty() {
        let (count, pids) = (waiting.len(), &waiting[..waiting.len().min(TOLD_MAX)]);
        tracing::error!(
            count,
            ?pids,
            "processes of members who are no more, or have less, are in uninterruptible sleep \
             (state D): they end when the disk or file server that they wait for answers"
        );
    }
    let others: Vec<i32> = left.iter().filter(|l| !l.waits).map(|l| l.pid).collect();
    if !others.is_empty() {
        let (count, pids) = (others.len(), &others[..others.len().min(TOLD_MAX)]);
        tracing::error!(
            count,
            ?pids,
            "processes of members who are no more, or have less, do not end: they are ended again"
        );
    }
}

fn obeyed(holding: &Holding, orders: Vec<(u32, AccountState)>, mut others: Others) -> bool {
    let mut all = true;
    // Before anything is waited for: nobody's end takes longer for another's that is slow.
    for (uid, _) in orders.iter().filter(|(_, state)| *state == AccountState::Ended) {
        if let Err(error) = holding.groups.kill(*uid) {
            tracing::error!(uid, %error, "the sessions of a member do not end");
            all = false;
        }
    }
    // Of whom nothing is known, what stands still does so.
    let known: BTreeSet<u32> = orders.iter().map(|(uid, _)| *uid).collect();
    for (uid, state) in orders {
        let done = match state {
            AccountState::Active => holding.groups.freeze(uid, false),
            AccountState::Suspended => holding.groups.freeze(uid, true),
            AccountState::Ended => holding.groups.end(uid),
        };
        if let Err(error) = done {
            tracing::error!(uid, %error, "the sessions of a member do not obey");
            all = false;
        }
    }
    match machine::local_uids() {
        // The machine's own users go on, whatever number they have.
        Ok(local) => {
            others.held.retain(|uid| !local.contains(uid));
            others.ended.retain(|uid| !local.contains(uid));
        }
        Err(error) => {
            tracing::error!(%error, "what is outside of sessions is not held");
            return false;
        }
    }
    let Others { held, suspended, ended } = others;
    if let Err(error) = groups::end_slices(&ended) {
        tracing::error!(%error, "a session that systemd holds does not end");
        all = false;
    }
    if let Err(error) = holding.groups.hold_slices(|uid| held.contains(&uid)) {
        tracing::error!(%error, "a session that systemd holds does not obey");
        all = false;
    }
    // Who is to end is not let go on before; who may only not sign in works on in clusters.
    let stays = |uid: u32, cluster: bool| {
        let whom = if cluster { &suspended } else { &held };
        whom.contains(&uid) || ended.contains(&uid)
    };
    holding.strays.resume(stays);
    if let Err(error) = holding.groups.resume(|uid| !known.contains(&uid) || stays(uid, true)) {
        tracing::error!(%error, "programs in a cluster do not go on");
        all = false;
    }
    let who = Whom { of: &held, suspended: &suspended };
    let whole = holding.strays.hold_all(&holding.groups, who);
    if let Err(error) = holding.groups.clear() {
        tracing::error!(%error, "the control groups of what was held stay");
    }
    match whole {
        Ok(whole) => all && whole,
        Err(error) => {
            tracing::error!(%error, "what cron or at started of members who are held may go on");
            false
        }
    }
}
