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
        let ended = in_background(move || processes::end_all(&of)).await?.map_err(fault)?;
        if !ended {
            tracing::error!("processes of members who are no more stay");
        }
        Ok(ended)
    }

    /// Holds the sessions of members who are suspended, or whom rules do not let sign in, and all
    /// that runs under their uids besides units, lets the others' go on, and ends those of who is
    /// no more. `state` says of a uid where its member stands; `None`: nothing is done. Whether all
    /// of it was done.
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
        let held = self.lock_vos().held(self.now());
        let stands = |uid: u32| match state(uid)? {
            AccountState::Active if held.contains(&uid) => Some((uid, AccountState::Suspended)),
            stands => Some((uid, stands)),
        };
        let orders: Vec<_> = uids.into_iter().filter_map(stands).collect();
        let own = logins.clone();
        match in_background(move || obeyed(&own, orders, held)).await {
            Ok(all) => all,
            Err(error) => {
                tracing::error!(%error, "sessions were not told where their members stand");
                false
            }
        }
    }
}

fn obeyed(logins: &Arc<Logins>, orders: Vec<(u32, AccountState)>, mut held: BTreeSet<u32>) -> bool {
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
        Ok(local) => held.retain(|uid| !local.contains(uid)),
        Err(error) => {
            tracing::error!(%error, "what is outside of sessions is not held");
            return false;
        }
    }
    if let Err(error) = logins.groups.hold_slices(|uid| held.contains(&uid)) {
        tracing::error!(%error, "a session that systemd holds does not obey");
        all = false;
    }
    logins.strays.resume(|uid| held.contains(&uid));
    match logins.strays.hold_all(&logins.groups, &held) {
        Ok(whole) => all && whole,
        Err(error) => {
            tracing::error!(%error, "what cron or at started of members who are held may go on");
            false
        }
    }
}
