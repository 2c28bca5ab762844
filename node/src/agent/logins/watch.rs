//! Looks after what changes by itself: sessions whose leaders are gone, what runs on after them,
//! and the files for sshd.

use super::{Logins, groups, processes};
use crate::agent::Agent;
use crate::agent::units::in_background;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use xos_base::local::LoginState;
use xos_base::{Error, Millis};

/// How often sessions are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

impl Agent {
    /// Looks at sessions and writes the files for sshd, until `stop`.
    pub(in crate::agent) async fn keep_logins(self: Arc<Agent>, stop: CancellationToken) {
        let Some(logins) = self.logins.clone() else { return };
        let (mut accounts, mut sites) = (self.accounts_changed.subscribe(), self.trust.changes());
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changed = true;
        loop {
            if changed && let Err(error) = self.show(&logins) {
                tracing::error!(%error, "the files for sshd are old");
            }
            self.settle_sessions(&logins).await;
            changed = tokio::select! {
                () = stop.cancelled() => return,
                told = accounts.changed() => told.is_ok(),
                told = sites.changed() => told.is_ok(),
                _ = look.tick() => false,
            };
        }
    }

    /// Writes the files for sshd, forgets who may not come in any more, and takes from the others
    /// what is longer than a lease that became shorter.
    fn show(&self, logins: &Logins) -> Result<(), Error> {
        let now = self.now();
        let (gone, shorter): (BTreeSet<u32>, Vec<(u32, Millis)>) = {
            let vos = self.lock_vos();
            let stays = |uid: &u32| {
                let Some(found) = vos.by_uid(*uid) else { return false };
                let state = vos.state_of(*uid, now);
                let forever = Millis(u64::MAX);
                state.is_some_and(|s| {
                    logins.rules.judge(found, s, forever, now) == LoginState::Allowed {}
                })
            };
            let ends = |uid: u32| Some(self.lease(logins, &vos.by_uid(uid)?));
            let (stay, gone): (Vec<_>, Vec<_>) =
                logins.seen.all().into_iter().partition(|(uid, _)| stays(uid));
            let shorter = stay.into_iter().filter_map(|(uid, at)| Some((uid, ends(uid)?, at)));
            let shorter = shorter.filter(|(_, end, at)| end < at).map(|(uid, end, _)| (uid, end));
            (gone.into_iter().map(|(uid, _)| uid).collect(), shorter.collect())
        };
        logins.seen.retain(|uid| !gone.contains(&uid))?;
        for (uid, end) in shorter {
            logins.seen.put(uid, end)?;
        }
        self.show_authorities()?;
        self.show_principals()
    }

    async fn settle_sessions(&self, logins: &Arc<Logins>) {
        let now = self.now();
        let leads = |s: &super::sessions::Session| processes::started(s.pid) == Some(s.started);
        for session in logins.sessions.sweep(now, leads) {
            self.audit_close(&session);
        }
        logins.mandates.retain(now, |uid| logins.sessions.has(uid) || logins.streams.has(uid));
        let _moving = logins.holding.moving.lock().await;
        let all = logins.clone();
        if let Err(error) = in_background(move || end_idle(&all, now)).await {
            tracing::error!(%error, "what runs on after sessions was not looked at");
        }
    }
}

/// Ends what runs on after a person's last session, when the site wants that, and removes groups
/// that nothing is in.
fn end_idle(logins: &Logins, now: Millis) {
    let groups = &logins.holding.groups;
    let uids = match groups.uids() {
        Ok(uids) => uids,
        Err(error) => {
            tracing::error!(%error, "what runs on after sessions cannot be listed");
            return;
        }
    };
    for uid in uids.into_iter().filter(|uid| !logins.sessions.is_led(*uid)) {
        let done = match groups.is_empty(uid) {
            Ok(false) if !logins.lingered(uid, now) => continue,
            Ok(_) => groups.end_sessions(uid),
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => logins.sessions.settled(uid),
            Err(error) => tracing::error!(uid, %error, "a session's control group stays"),
        }
    }
    if let Err(error) = forget_carried(logins) {
        tracing::error!(%error, "what sessions carried is kept");
    }
    if let Err(error) = groups.clear() {
        tracing::error!(%error, "the control groups of what was held stay");
    }
}

/// Forgets what sessions carried of which nothing runs any more.
fn forget_carried(logins: &Logins) -> Result<(), Error> {
    let groups = logins.holding.groups.uids().map_err(|e| Error::internal(e.to_string()))?;
    let slices = groups::slice_uids()?;
    logins.carried.retain(|uid, _| {
        logins.sessions.is_led(uid) || groups.contains(&uid) || slices.contains(&uid)
    });
    Ok(())
}

impl Logins {
    /// Whether what a person left running is to end now.
    fn lingered(&self, uid: u32, now: Millis) -> bool {
        let Some(linger) = self.config.linger_s.map(Duration::from_secs) else { return false };
        // Of sessions before this daemon was started nobody knows the end: it counts from now on.
        self.sessions.mark_idle(uid, now);
        self.sessions.idle_since(uid).is_some_and(|at| at.plus(linger) <= now)
    }
}
