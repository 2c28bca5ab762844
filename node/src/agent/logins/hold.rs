//! Puts in force where members stand whose processes are not in envelopes: their sessions, what
//! cron and at run for them, what they left behind.

use super::{Logins, processes};
use crate::agent::units::in_background;
use crate::agent::{Agent, machine};
use std::collections::BTreeSet;
use std::sync::Arc;
use xos_api::vom::AccountState;
use xos_base::Error;

impl Agent {
    /// Ends every process that runs under the uid of a member who is no more. Whether none is left.
    pub(in crate::agent) async fn end_those_who_left(&self) -> bool {
        match self.end_left().await {
            Ok(all) => all,
            Err(error) => {
                tracing::error!(%error, "processes of members who are no more may go on");
                false
            }
        }
    }

    async fn end_left(&self) -> Result<bool, Error> {
        let fault = |e: std::io::Error| Error::internal(format!("cannot list processes: {e}"));
        let running = in_background(processes::users).await?.map_err(fault)?;
        let left: BTreeSet<u32> = {
            let (now, vos) = (self.now(), self.lock_vos());
            running.into_iter().filter(|uid| vos.has_left(*uid, now)).collect()
        };
        let mut of = BTreeSet::new();
        for uid in left {
            // The machine's own users stay, whatever number they have.
            if !machine::is_local(uid)? {
                of.insert(uid);
            }
        }
        if of.is_empty() {
            return Ok(true);
        }
        tracing::info!(uids = ?of, "ending what runs of members who are no more");
        for uid in &of {
            self.note_member("end_processes", *uid);
        }
        let ended = in_background(move || processes::end_all(&of)).await?.map_err(fault)?;
        if !ended {
            tracing::error!("processes of members who are no more stay");
        }
        Ok(ended)
    }

    /// The uids of members who have sessions here, or something that is held.
    pub(in crate::agent) fn session_uids(&self) -> BTreeSet<u32> {
        let Some(logins) = &self.logins else { return BTreeSet::new() };
        logins.groups.all().unwrap_or_else(|error| {
            tracing::error!(%error, "whose sessions there are is not known");
            BTreeSet::new()
        })
    }

    /// Holds the sessions of members who are suspended and all that runs under their uids besides
    /// units, lets the others' go on, and ends those of who is no more. `state` says of a uid where
    /// its member stands; `None`: nothing is done. Whether all of it was done.
    pub(in crate::agent) async fn hold_sessions(
        &self,
        state: impl Fn(u32) -> Option<AccountState>,
    ) -> bool {
        let Some(logins) = self.logins.clone() else { return true };
        let _moving = logins.moving.lock().await;
        let uids = match logins.groups.all() {
            Ok(uids) => uids,
            Err(error) => {
                tracing::error!(%error, "sessions cannot be held or ended");
                return false;
            }
        };
        let orders: Vec<_> = uids.into_iter().filter_map(|u| Some((u, state(u)?))).collect();
        let suspended = self.lock_vos().suspended(self.now());
        let own = logins.clone();
        match in_background(move || obeyed(&own, orders, suspended)).await {
            Ok(all) => all,
            Err(error) => {
                tracing::error!(%error, "sessions were not told where their members stand");
                false
            }
        }
    }
}

fn obeyed(
    logins: &Arc<Logins>,
    orders: Vec<(u32, AccountState)>,
    mut suspended: BTreeSet<u32>,
) -> bool {
    let mut all = true;
    for (uid, state) in orders {
        let done = match state {
            AccountState::Active => logins.groups.freeze(uid, false),
            AccountState::Suspended => logins.groups.freeze(uid, true),
            AccountState::Ended => logins.groups.end(uid),
        };
        if let Err(error) = done {
            tracing::error!(uid, %error, "the sessions of a member do not obey");
            all = false;
        }
    }
    match machine::local_uids() {
        // The machine's own users go on, whatever number they have.
        Ok(local) => suspended.retain(|uid| !local.contains(uid)),
        Err(error) => {
            tracing::error!(%error, "what is outside of sessions is not held");
            return false;
        }
    }
    if let Err(error) = logins.groups.hold_slices(|uid| suspended.contains(&uid)) {
        tracing::error!(%error, "a session that systemd holds does not obey");
        all = false;
    }
    logins.strays.resume(|uid| suspended.contains(&uid));
    match logins.strays.hold_all(&logins.groups, &suspended) {
        Ok(held) => all && held,
        Err(error) => {
            tracing::error!(%error, "what cron or at started of suspended members may go on");
            false
        }
    }
}
