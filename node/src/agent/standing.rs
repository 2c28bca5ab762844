//! Puts in force where members stand: what the core says of them, and the end of memberships that
//! end by themselves.

use super::{Agent, keep};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use xos_api::vom::{AccountState, VoAccounts};
use xos_base::Error;

/// First pause after work that did not obey.
const AGAIN_MIN: Duration = Duration::from_secs(1);
/// Longest pause until it is told again.
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// How often memberships are looked at while none is said to end: clocks may be set.
const LOOK_EVERY: Duration = Duration::from_secs(600);

impl Agent {
    /// Takes a list of accounts, or a part of one. What it says is in force when this returns, also
    /// when it could not be kept.
    pub(super) async fn take_accounts(&self, part: VoAccounts) -> Result<(), Error> {
        let whole = {
            let mut gathering = self.gathering.lock().unwrap_or_else(PoisonError::into_inner);
            gathering.take(part)
        };
        let Some(accounts) = whole else { return Ok(()) };
        let apply = || {
            let (mut vos, vo) = (self.lock_vos(), accounts.vo.clone());
            vos.apply(accounts);
            if let Some(view) = vos.vo(&vo) {
                self.watcher.vo_changed(&vo, view);
            }
            self.told.store(true, Ordering::SeqCst);
        };
        let enforce = async {
            self.enforce().await;
            // What was held and goes on needs a ticket of the new epoch, and the next membership
            // to end may be another one.
            self.accounts_changed.send_modify(|n| *n += 1);
        };
        let file = || keep::write(&self.folder.join("vos.json"), &*self.lock_vos());
        first_in_force(apply, enforce, [&file, &|| self.write_accounts()]).await
    }

    /// Tells all work where its member stands.
    async fn enforce(&self) {
        let state = |uid| {
            // Before the core has told anything, who is not in an old file may be in the new one.
            let nobody = self.told.load(Ordering::SeqCst).then_some(AccountState::Ended);
            self.lock_vos().state_of(uid, self.now()).or(nobody)
        };
        let obeyed = self.units.enforce(state).await;
        self.unruly.store(!obeyed, Ordering::SeqCst);
    }

    async fn stand(&self) {
        self.enforce().await;
        if self.units.look_again().await {
            self.enforce().await;
        }
    }

    /// Tells again what did not obey, and ends what memberships leave behind that end by
    /// themselves, until `stop`.
    pub(super) async fn keep_standing(self: Arc<Agent>, stop: CancellationToken) {
        let mut changed = self.accounts_changed.subscribe();
        let mut pause = AGAIN_MIN;
        let (mut due, mut looked) = (Duration::ZERO, self.now());
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(due) => {
                    looked = self.now();
                    // A shim that hangs must not hold up the end of this daemon.
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = self.stand() => {}
                    }
                }
                told = changed.changed() => if told.is_err() { return },
            }
            due = if self.unruly.load(Ordering::SeqCst) {
                let longer = (pause * 2).min(AGAIN_MAX);
                std::mem::replace(&mut pause, longer)
            } else {
                pause = AGAIN_MIN;
                let next = self.lock_vos().next_expiry(looked);
                next.map_or(LOOK_EVERY, |at| at.since(self.now()).min(LOOK_EVERY))
            };
        }
    }
}

/// What the core says counts before it is kept: a full disk, which a unit can bring about, must not
/// hold up its suspension. Tells the first that could not be kept.
async fn first_in_force(
    apply: impl FnOnce(),
    enforce: impl Future<Output = ()>,
    keep: [&(dyn Fn() -> Result<(), Error> + Sync); 2],
) -> Result<(), Error> {
    apply();
    enforce.await;
    let [first, second] = keep.map(|keep| keep());
    first.and(second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[tokio::test]
    async fn what_cannot_be_kept_is_in_force_all_the_same() {
        // wrong: who fills the node's disk could not be suspended
        let done = Mutex::new(Vec::new());
        let note = |what| done.lock().unwrap().push(what);
        let full = || {
            note("vos");
            Err(Error::internal("no space left"))
        };
        let names = || {
            note("names");
            Ok(())
        };
        let enforce = async { note("enforced") };
        let said = first_in_force(|| note("applied"), enforce, [&full, &names]).await;
        assert_eq!(said.unwrap_err().message, "no space left");
        assert_eq!(*done.lock().unwrap(), ["applied", "enforced", "vos", "names"]);
    }
}
