//! What is done for a share in the background: bring the offer to the VO's home, follow the VO's
//! log, tell the home when the share ends.

use crate::Inner;
use crate::live::Live;
use crate::log::{self, Chain, LogFault};
use crate::registry::{Appended, Grave};
use crate::served::Todo;
use crate::state::Vo;
use futures_util::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use xos_api::vom::{Change, LogItem, RecordOffer, RecordWithdrawal, Terms, VoLog};
use xos_base::{Error, Kind, Millis, VoId};

/// The first pause after a failure.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// The longest pause between attempts.
pub const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// How long the home may be silent before the stream is opened anew: it sends beats.
const SILENCE_MAX: Duration = Duration::from_secs(70);
/// How often the time at which the home was heard is written down.
const HEARD_EVERY: Duration = Duration::from_secs(60);

/// Why following a log ended.
enum Ended {
    /// Try again after a pause.
    Again(Error),
    /// Try again at once.
    Now,
    /// The log cannot be believed. Nothing of it was taken; what the home says later may hold.
    Fault(LogFault),
}

impl From<Error> for Ended {
    fn from(e: Error) -> Ended {
        Ended::Again(e)
    }
}

/// How long to wait before attempt `attempt` (from 0): doubled each time, up to [`BACKOFF_MAX`],
/// and spread by a third, so that sites which lost the same home do not return in step.
pub fn backoff(attempt: u32, seed: u64) -> Duration {
    let full = BACKOFF_FIRST.saturating_mul(1u32 << attempt.min(16)).min(BACKOFF_MAX);
    // SplitMix64, Steele, Lea and Flood 2014: spreads seed and attempt evenly.
    let mut z = seed.wrapping_add(u64::from(attempt).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    let part = u32::try_from(z % 1000).unwrap_or(0);
    full - full / 3 * part / 1000
}

/// Works for one share until nothing is to be done.
pub(crate) async fn run(inner: Arc<Inner>, vo: VoId) {
    let seed = seed(&inner, &vo);
    let mut changed = inner.shares.changed();
    let mut trusted = inner.trust.changes();
    let mut attempt = 0;
    loop {
        changed.mark_unchanged();
        trusted.mark_unchanged();
        let done = match inner.todo(&vo) {
            Todo::Rest => {
                if changed.changed().await.is_err() {
                    return;
                }
                attempt = 0;
                continue;
            }
            Todo::Offer(terms) => deliver(&inner, &vo, terms).await.map_err(Ended::from),
            Todo::Withdraw(version, reason) => {
                tell(&inner, &vo, version, reason).await.map_err(Ended::from)
            }
            Todo::Follow => {
                let before = progress(&inner, &vo);
                let other_work = async {
                    while changed.changed().await.is_ok() && inner.todo(&vo) == Todo::Follow {}
                };
                let ended = tokio::select! {
                    ended = follow(&inner, &vo) => ended,
                    () = other_work => Ok(()),
                };
                let now = progress(&inner, &vo);
                // Who says a beat before each bad entry is not asked the faster for it.
                let better = match ended {
                    Err(Ended::Fault(_)) => now.0 > before.0,
                    _ => now != before,
                };
                if better {
                    attempt = 0;
                }
                ended
            }
        };
        let pause = backoff(attempt, seed);
        match done {
            Ok(()) | Err(Ended::Now) => {
                attempt = 0;
                continue;
            }
            Err(Ended::Again(error)) => {
                tracing::warn!(%vo, %error, ?pause, "work for a share will be tried again");
                inner.set_trouble(&vo, Some(error.to_string()));
            }
            Err(Ended::Fault(fault)) => disbelieve(&inner, &vo, &fault, pause),
        }
        attempt = attempt.saturating_add(1);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = changed.changed() => {}
            // The home may have signed by a key that is known only now.
            _ = trusted.changed() => {}
        }
    }
}

/// How far a VO's log is known here, and when its home was last heard.
fn progress(inner: &Inner, vo: &VoId) -> (u64, Option<Millis>) {
    let live = inner.vos.one(vo);
    (live.as_ref().map_or(0, |l| l.read().number), live.map(|l| l.heard()))
}

/// Notes a log that cannot be believed; told loudly once, not at every try.
fn disbelieve(inner: &Inner, vo: &VoId, fault: &LogFault, pause: Duration) {
    let text = format!("its log cannot be believed: {fault}");
    if inner.set_trouble(vo, Some(text)) {
        tracing::error!(%vo, %fault, ?pause, "the VO's log cannot be believed: nothing of it was \
            taken, it is asked for again; ask the administrator of its home site");
    } else {
        tracing::debug!(%vo, %fault, ?pause, "the VO's log still cannot be believed");
    }
}

fn seed(inner: &Inner, vo: &VoId) -> u64 {
    let text = log::hash(&format!("{}/{vo}", inner.site));
    u64::from_str_radix(text.get(..16).unwrap_or_default(), 16).unwrap_or_default()
}

/// Brings an offer to the VO's home, once.
///
/// # Errors
/// What may pass. What will not is noted at the share, and is no error.
pub(crate) async fn deliver(inner: &Inner, vo: &VoId, terms: Terms) -> Result<(), Error> {
    let version = terms.version;
    let r = RecordOffer { vo: vo.clone(), terms };
    let refused = match inner.homes.offer(&vo.site(), r).await {
        Ok(()) => None,
        Err(e) if passes(&e) => return Err(e),
        Err(e) => Some(e.to_string()),
    };
    inner.set_trouble(vo, None);
    let told = inner.shares.change(&inner.registry, vo, |served| {
        let Some(mut next) = served.filter(|s| s.told < version).cloned() else { return Ok(None) };
        next.told = version;
        if refused.is_some() {
            next.offers.remove(&version);
            next.refused = refused;
        }
        Ok(Some(next))
    });
    told.await
}

/// Whether a failure may pass by itself.
fn passes(e: &Error) -> bool {
    matches!(e.kind, Kind::Unavailable | Kind::Internal | Kind::Limited | Kind::Unauthenticated)
}

/// Tells the VO's home that the share ended.
async fn tell(inner: &Inner, vo: &VoId, version: u32, reason: String) -> Result<(), Error> {
    let r = RecordWithdrawal { vo: vo.clone(), version, reason };
    match inner.homes.withdraw(&vo.site(), r).await {
        Ok(()) => {}
        Err(e) if passes(&e) => return Err(e),
        // The home does not know of the share: there is nothing to end.
        Err(e) => tracing::warn!(%vo, error = %e, "the VO's home does not take the withdrawal"),
    }
    let told = inner.shares.change(&inner.registry, vo, |served| {
        let Some(mut next) = served.cloned() else { return Ok(None) };
        match &mut next.withdrawn {
            Some(w) if next.last == version => w.told = true,
            _ => return Ok(None),
        }
        next.told = version;
        Ok(Some(next))
    });
    told.await
}

async fn follow(inner: &Arc<Inner>, vo: &VoId) -> Result<(), Ended> {
    let after = inner.vos.one(vo).map_or(0, |l| l.read().number);
    let mut items = inner.homes.log(&vo.site(), VoLog { vo: vo.clone(), after }).await?;
    let mut noted = inner.vos.one(vo).map(|l| l.heard()).unwrap_or_default();
    loop {
        let item = match tokio::time::timeout(SILENCE_MAX, items.next()).await {
            Err(_) => return Err(Error::unavailable("the VO's home is silent").into()),
            Ok(None) => return Err(Error::unavailable("the VO's home closed the log").into()),
            Ok(Some(item)) => item?,
        };
        match item {
            LogItem::Entry { jws } => take(inner, vo, &jws).await?,
            LogItem::Erased { jws } => return erased(inner, vo, jws).await,
            LogItem::Beat { number } => {
                let have = inner.vos.one(vo).map_or(0, |l| l.read().number);
                if number < have {
                    return Err(Ended::Fault(LogFault::Fork(number)));
                }
                if number > have {
                    return Err(Ended::Now); // Entries were lost: ask for them again.
                }
            }
        }
        inner.set_trouble(vo, None);
        let now = inner.clock.now();
        if let Some(live) = inner.vos.one(vo) {
            if live.read().erased {
                return inner.bury_live(&live).await.map_err(Ended::from);
            }
            live.hear(now, inner.clock.up());
            if now.since(noted) >= HEARD_EVERY || now < noted {
                inner.registry.note_heard(vo, now).await?;
                noted = now;
            }
        }
        if inner.todo(vo) != Todo::Follow {
            return Ok(());
        }
    }
}

/// Verifies, checks, stores and applies one entry.
async fn take(inner: &Arc<Inner>, vo: &VoId, jws: &str) -> Result<(), Ended> {
    let entry = log::open(&inner.trust, vo, jws).map_err(Ended::Fault)?;
    let Some(live) = inner.vos.one(vo) else {
        return begin(inner, vo, jws, &entry).await;
    };
    match live.take(&inner.registry, &entry, jws).await? {
        Ok(()) => {
            inner.note_taken(&entry);
            inner.grown(&live);
            Ok(())
        }
        Err(LogFault::Gap { .. }) => Err(Ended::Now),
        Err(fault) => Err(Ended::Fault(fault)),
    }
}

/// The VO is no more, and its log neither: its last entry is enough when it can be the last one of
/// what is known here, since only the home signs it, and no VO gets the id again.
async fn erased(inner: &Arc<Inner>, vo: &VoId, jws: String) -> Result<(), Ended> {
    let entry = log::open(&inner.trust, vo, &jws).map_err(Ended::Fault)?;
    if entry.change != (Change::VoErased {}) {
        return Err(Ended::Fault(LogFault::Malformed));
    }
    let now = inner.clock.now();
    if entry.time > now {
        let text =
            format!("{vo} is erased at {} by its home's clock; it is {now} here", entry.time);
        return Err(Ended::Again(Error::unavailable(text)));
    }
    let mut volumes = Vec::new();
    if let Some(live) = inner.vos.one(vo) {
        let state = live.read();
        if entry.number <= state.number {
            return Err(Ended::Fault(LogFault::Fork(entry.number)));
        }
        state.may_end_by(&entry).map_err(|fault| {
            let number = entry.number;
            Ended::Fault(LogFault::Change { number, violation: fault.into() })
        })?;
        volumes.extend(state.volumes.iter().cloned());
    }
    let (number, at) = (entry.number, entry.time);
    let grave = Grave { vo: vo.clone(), number, at, volumes, jws, clean: false };
    inner.bury(grave).await.map_err(Ended::from)
}

/// The first entry of a VO that was not known here.
async fn begin(
    inner: &Arc<Inner>,
    vo: &VoId,
    jws: &str,
    entry: &xos_api::vom::Entry,
) -> Result<(), Ended> {
    let mut chain = Chain::start();
    match chain.follows(entry) {
        Ok(()) => {}
        Err(LogFault::Gap { .. }) => return Err(Ended::Now),
        Err(fault) => return Err(Ended::Fault(fault)),
    }
    let state = Vo::found(entry)
        .map_err(|violation| Ended::Fault(LogFault::Change { number: 1, violation }))?;
    let live = match inner.registry.append(vo, 1, jws).await? {
        Appended::Yes => {
            chain.advance(entry, jws);
            Live::new(state, chain, 0, inner.clock.now())
        }
        // Another core of this site was faster.
        Appended::Taken => {
            let (state, chain, checkpointed) = inner.registry.load(vo).await?;
            Live::new(state, chain, checkpointed, inner.clock.now())
        }
    };
    let live = inner.vos.add(live);
    inner.grown(&live);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_are_bounded_and_differ() {
        // Without the bound a site would return hours after its home; without the spread, all at
        // once.
        assert!(backoff(0, 1) <= BACKOFF_FIRST);
        for attempt in [7, 20, u32::MAX] {
            let pause = backoff(attempt, 3);
            assert!(pause <= BACKOFF_MAX && pause >= BACKOFF_MAX / 3 * 2, "{pause:?}");
        }
        assert_ne!(backoff(9, 1), backoff(9, 2));
    }
}
