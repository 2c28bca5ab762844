//! Puts in force where members stand: what the core says of them, and the end of memberships that
//! end by themselves.

use super::Agent;
use crate::spec::EnvelopeSpec;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use xos_api::vom::{AccountState, VoAccounts};
use xos_base::{Error, Millis, VoId};

/// First pause after work that did not obey.
const AGAIN_MIN: Duration = Duration::from_secs(1);
/// Longest pause until it is told again.
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// How long one enforcement waits for shims: what is outside of units must not wait for one that
/// does not answer.
const UNITS_MAX: Duration = Duration::from_millis(1500);
/// How often memberships are looked at while none is said to end: clocks may be set.
const LOOK_EVERY: Duration = Duration::from_secs(600);

/// How often it is looked what was started under the uids of members who are held, or have expired:
/// cron, at and systemd start something whenever they were told to.
const STRAYS_EVERY: Duration = Duration::from_secs(3);

impl Agent {
    /// Takes a list of accounts, or a part of one. What it says is in force when this returns, also
    /// when it could not be kept.
    pub(super) async fn take_accounts(&self, part: VoAccounts) -> Result<(), Error> {
        let whole = {
            let mut gathering = self.gathering.lock().unwrap_or_else(PoisonError::into_inner);
            gathering.take(part)
        };
        let Some(accounts) = whole else { return Ok(()) };
        let narrower = AtomicBool::new(false);
        let apply = || {
            let (mut vos, vo) = (self.lock_vos(), accounts.vo.clone());
            narrower.store(vos.apply(accounts), Ordering::Relaxed);
            self.watcher.may_act(&vo, vos.members(&vo, self.now()));
            self.told.store(true, Ordering::SeqCst);
        };
        let enforce = async {
            self.enforce().await;
            // What was held and goes on needs a ticket of the new epoch, and the next membership
            // to end may be another one.
            self.accounts_changed.send_modify(|n| *n += 1);
        };
        let file = || self.kept.write(&self.vos);
        let kept = first_in_force(apply, enforce, [&file, &|| self.write_accounts()]).await;
        if narrower.into_inner() {
            // Whoever signed in just now has the groups of the former file: a second look.
            self.unruly.store(true, Ordering::SeqCst);
            self.accounts_changed.send_modify(|n| *n += 1);
        }
        kept
    }

    /// The core says that this node knows the accounts of all VOs: now it is heard, and not before.
    /// Whoever lets a stream begin and cuts it would else prolong the lease of what is known.
    pub(super) async fn told_all(&self) {
        let back = {
            let (mut vos, now) = (self.lock_vos(), self.now());
            // Under the lock of the accounts: else their lease could end once more at once.
            self.hear();
            let back = vos.told_all();
            for vo in &back {
                self.watcher.may_act(vo, vos.members(vo, now));
            }
            back
        };
        if !back.is_empty() {
            tracing::info!(?back, "the core is heard: what was held goes on");
            self.enforce().await;
            self.accounts_changed.send_modify(|n| *n += 1);
        }
    }

    /// Tells all work where its member stands.
    async fn enforce(&self) {
        let state = |uid| {
            // Before the core has told anything, who is not in an old file may be in the new one.
            let nobody = self.told.load(Ordering::SeqCst).then_some(AccountState::Ended);
            self.lock_vos().state_of(uid, self.now()).or(nobody)
        };
        let of_unit = |spec: &EnvelopeSpec| {
            let (uid, carries) = (spec.account.uid, spec.carries.as_ref());
            let taken = carries.is_some_and(|c| self.lock_vos().was_taken(uid, c));
            if taken {
                self.note_taken_envelope(spec);
            }
            if taken { Some(AccountState::Ended) } else { state(uid) }
        };
        let taken = self.taken_sessions();
        let of_sessions =
            |uid: u32| if taken.contains(&uid) { Some(AccountState::Ended) } else { state(uid) };
        // Units first: what they leave counts as theirs. Then what is held, which on v1 ends only
        // once it is let go.
        let told = tokio::time::timeout(UNITS_MAX, self.units.enforce(of_unit)).await;
        let obeyed = told.unwrap_or_else(|_| {
            tracing::error!("a shim does not answer: its units are told again");
            false
        });
        let held = self.hold_sessions(of_sessions).await;
        let out = self.end_those_who_left().await;
        self.unruly.store(!(obeyed && out && held), Ordering::SeqCst);
        self.note_standings(state);
    }

    /// Suspends the VOs whose lease is over, and ends those whose grace is. Those who act by what
    /// is told to them hear of it, and of memberships that ended by themselves since `looked`.
    fn lapse(&self, looked: Millis) {
        let new = {
            let (mut vos, now) = (self.lock_vos(), self.now());
            let new = vos.lapse(self.last_heard(), now);
            let passed: Vec<VoId> = match new {
                true => vos.iter().map(|(id, _)| id.clone()).collect(),
                false => vos.passed(looked, now),
            };
            for vo in passed {
                self.watcher.may_act(&vo, vos.members(&vo, now));
            }
            new
        };
        if new {
            tracing::warn!(
                "the core is unheard for too long: sessions and units are held, and after the \
                 grace ended"
            );
            self.accounts_changed.send_modify(|n| *n += 1);
        }
    }

    async fn stand(&self, looked: Millis) {
        self.lapse(looked);
        self.enforce().await;
        if self.units.look_again().await {
            self.enforce().await;
        }
    }

    /// When a lease or grace ends next, if nothing is heard of the core.
    fn next_lapse(&self) -> Option<Millis> {
        let vos = self.lock_vos();
        vos.next_lapse(self.last_heard())
    }

    /// Tells again what did not obey, ends what memberships leave behind that end by themselves,
    /// holds what goes on after a lease and ends it after the grace, until `stop`.
    pub(super) async fn keep_standing(self: Arc<Agent>, stop: CancellationToken) {
        let mut changed = self.accounts_changed.subscribe();
        let (mut due, mut looked) = (Due::new(Instant::now()), self.now());
        let mut strays = tokio::time::interval(STRAYS_EVERY);
        strays.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(due.at) => {
                    let before = std::mem::replace(&mut looked, self.now());
                    // A shim that hangs must not hold up the end of this daemon.
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = self.stand(before) => {}
                    }
                    due.looked(Instant::now(), self.unruly.load(Ordering::SeqCst));
                }
                _ = strays.tick() => {
                    if !self.lock_vos().somebody_is_out(self.now()) {
                        continue;
                    }
                    tokio::select! {
                        () = stop.cancelled() => return,
                        done = self.look_for_strays() => {
                            if !done {
                                self.unruly.store(true, Ordering::SeqCst);
                                due.disobeyed(Instant::now());
                            }
                        }
                    }
                }
                told = changed.changed() => {
                    if told.is_err() {
                        return;
                    }
                    if self.unruly.load(Ordering::SeqCst) {
                        due.disobeyed(Instant::now());
                    }
                }
            }
            let expiry = self.lock_vos().next_expiry(looked);
            for at in [expiry, self.next_lapse()].into_iter().flatten() {
                due.within(Instant::now(), at.since(self.now()));
            }
        }
    }
}

/// When all work is looked at next. What happens meanwhile brings that nearer and never puts it
/// off: where accounts change all the time it would not be looked at again at all.
struct Due {
    at: Instant,
    /// Whether that is because some work did not obey.
    again: bool,
    /// The pause before the next look, if some work does not obey.
    pause: Duration,
}

impl Due {
    fn new(now: Instant) -> Due {
        Due { at: now, again: false, pause: AGAIN_MIN }
    }

    /// All work was looked at.
    fn looked(&mut self, now: Instant, unruly: bool) {
        self.at = now + if unruly { self.pause } else { LOOK_EVERY };
        self.pause = if unruly { (self.pause * 2).min(AGAIN_MAX) } else { AGAIN_MIN };
        self.again = unruly;
    }

    /// Some work did not obey when accounts changed.
    fn disobeyed(&mut self, now: Instant) {
        if !self.again {
            self.again = true;
            self.within(now, self.pause);
        }
    }

    /// It is to be looked at within `wait`.
    fn within(&mut self, now: Instant, wait: Duration) {
        self.at = self.at.min(now + wait.min(LOOK_EVERY));
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

    #[test]
    fn a_busy_grid_does_not_put_off_the_next_look() {
        // wrong: a shim that did not obey once would not be told again, and units whose state is
        // not clear would stay so, while accounts change all the time
        let start = Instant::now();
        let after = |s| start + Duration::from_secs(s);
        let mut due = Due::new(start);
        assert_eq!(due.at, start);
        for (look, wait) in [(0, 1), (1, 2), (3, 4), (7, 8), (15, 16), (31, 30)] {
            due.looked(after(look), true);
            assert_eq!(due.at, after(look + wait), "it does not obey");
            for change in 1..=wait {
                due.disobeyed(after(look + change));
                due.within(after(look + change), Duration::from_secs(600));
            }
            assert_eq!(due.at, after(look + wait), "changes put it off");
        }
        due.looked(after(61), false);
        assert_eq!(due.at, after(661));
        due.within(after(70), Duration::from_secs(500));
        assert_eq!(due.at, after(570), "a membership ends");
        due.disobeyed(after(80));
        assert_eq!(due.at, after(81), "the pause begins anew");
        due.disobeyed(after(81));
        assert_eq!(due.at, after(81));
    }

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
