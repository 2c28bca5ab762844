//! Barriers of volumes: what makes capabilities count no more before they lapse.
//!
//! An MRC raises a volume's barrier when a folder is closed to those who may have files below it
//! open. OSDs and clients wait here for the news ([`Barriers`]), so that no connection to them is
//! needed; what an OSD says that it knows is its confirmation.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use xtreemfs_proto::dir::{Barrier, BarriersReply, BarriersRequest};
use xtreemfs_proto::{Errno, RpcError};

use crate::dir::{Dir, DirConnection};

/// Longest time that a peer is let wait for news.
pub const WAIT_MAX: Duration = Duration::from_secs(60);
/// From one barrier of a volume to the next: all who have files open renew their capabilities at
/// each, which no person may make them do without a pause.
pub const PAUSE: Duration = Duration::from_secs(1);
/// From one barrier of a member in a volume to their next while they go on and on: it begins with
/// [`PAUSE`], and doubles each time.
pub const OWNERS_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Most VOs, and most volumes, of one request: who has more asks in parts.
pub const ASKED_MAX: usize = 1024;
/// Members whose pauses are remembered before those who are quiet are forgotten.
const PACES_MAX: usize = 1024;

/// The barrier of one volume.
#[derive(Debug)]
struct Held {
    vo: String,
    /// As told to peers, and when.
    told: u64,
    at: Option<Instant>,
    /// As raised last; told once the pause is over.
    raised: u64,
}

/// All barriers, and who goes by which.
#[derive(Debug, Default)]
struct State {
    /// By volume.
    held: BTreeMap<String, Held>,
    /// By OSD and volume.
    known: HashMap<String, BTreeMap<String, u64>>,
    /// By volume and member.
    paces: HashMap<(String, u32), Pace>,
}

/// How fast a member raises barriers.
#[derive(Debug)]
struct Pace {
    /// When their last one is told.
    last: Instant,
    /// From that one to the next.
    pause: Duration,
}

impl Pace {
    /// How long a further one is kept back. What comes before the last is told goes with it.
    fn next(&mut self, now: Instant) -> Duration {
        if self.last <= now {
            let due = (self.last + self.pause).max(now);
            let doubled = (self.pause * 2).min(OWNERS_PAUSE_MAX);
            self.pause = if self.is_quiet(now) { PAUSE } else { doubled };
            self.last = due;
        }
        self.last - now
    }

    fn is_quiet(&self, now: Instant) -> bool {
        now >= self.last + self.pause * 2
    }
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Barriers {
    state: Mutex<State>,
    /// Changes when a barrier is told, or an OSD says what it knows.
    told: watch::Sender<u64>,
    heard: watch::Sender<u64>,
}

impl Default for Barriers {
    fn default() -> Self {
        let (told, heard) = (watch::Sender::new(0), watch::Sender::new(0));
        Self { state: Mutex::default(), told, heard }
    }
}

impl Barriers {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a barrier, raised by a member or nobody; gives how long it is yet to be kept back, if
    /// it is a new one.
    fn raise(&self, barrier: &Barrier, by: Option<u32>, now: Instant) -> Option<Duration> {
        let mut state = self.lock();
        let State { held, paces, .. } = &mut *state;
        let held = held.entry(barrier.volume.clone()).or_insert_with(|| Held {
            vo: barrier.vo.clone(),
            told: 0,
            at: None,
            raised: 0,
        });
        if barrier.number <= held.raised {
            return None;
        }
        held.raised = barrier.number;
        let left = held.left(now).unwrap_or_default();
        let Some(member) = by else { return Some(left) };
        if paces.len() >= PACES_MAX {
            paces.retain(|_, pace| !pace.is_quiet(now));
        }
        let theirs = match paces.entry((barrier.volume.clone(), member)) {
            Entry::Occupied(mut pace) => pace.get_mut().next(now),
            Entry::Vacant(none) => {
                none.insert(Pace { last: now, pause: PAUSE });
                Duration::ZERO
            }
        };
        Some(left.max(theirs))
    }

    /// Tells what was kept back, if it is the time.
    fn tell(&self, volume: &str, now: Instant) {
        let mut state = self.lock();
        let Some(held) = state.held.get_mut(volume) else { return };
        if held.raised > held.told && held.left(now).is_none() {
            (held.told, held.at) = (held.raised, Some(now));
            drop(state);
            self.told.send_modify(|n| *n = n.wrapping_add(1));
        }
    }

    /// Notes what an OSD goes by in the VOs that it asks about.
    fn note(&self, osd: &str, request: &BarriersRequest) {
        let vos: BTreeSet<&str> = request.vos.iter().map(String::as_str).collect();
        let mut state = self.lock();
        let State { held, known: all, .. } = &mut *state;
        let goes_by = all.entry(osd.to_owned()).or_default();
        // It may ask about others in another part.
        goes_by.retain(|volume, _| {
            held.get(volume).is_some_and(|held| !vos.contains(held.vo.as_str()))
        });
        let known = request.known.iter().filter(|barrier| held.contains_key(&barrier.volume));
        goes_by.extend(known.map(|barrier| (barrier.volume.clone(), barrier.number)));
        drop(state);
        self.heard.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// What is higher than a peer knows.
    fn newer(&self, request: &BarriersRequest) -> Vec<Barrier> {
        let vos: BTreeSet<&str> = request.vos.iter().map(String::as_str).collect();
        let known: BTreeMap<&str, u64> =
            request.known.iter().map(|known| (known.volume.as_str(), known.number)).collect();
        let state = self.lock();
        let newer = state.held.iter().filter(|(volume, held)| {
            let known = known.get(volume.as_str()).copied().unwrap_or(0);
            held.told > known && vos.contains(held.vo.as_str())
        });
        let barrier = |(volume, held): (&String, &Held)| Barrier {
            vo: held.vo.clone(),
            volume: volume.clone(),
            number: held.told,
        };
        newer.take(ASKED_MAX).map(barrier).collect()
    }

    /// Those of `osds` that do not go by a barrier yet.
    fn behind(&self, volume: &str, number: u64, osds: &[String]) -> Vec<String> {
        let state = self.lock();
        let goes_by = |osd: &&String| {
            let known = state.known.get(*osd).and_then(|known| known.get(volume));
            known.is_some_and(|known| *known >= number)
        };
        osds.iter().filter(|osd| !goes_by(osd)).cloned().collect()
    }

    /// Forgets the OSDs that are not remembered any more.
    fn retain(&self, remembered: impl Fn(&str) -> bool) {
        self.lock().known.retain(|osd, _| remembered(osd));
    }
}

impl Held {
    /// How long the next barrier is to be kept back.
    fn left(&self, now: Instant) -> Option<Duration> {
        let due = self.at? + PAUSE;
        (due > now).then(|| due - now)
    }
}

impl Dir {
    /// Tells those who wait that older capabilities of a volume count no more: at once, or when the
    /// pause after the one before is over, in the volume, and of the member who raised it.
    /// Raising it to what it is does nothing. To be called within a tokio runtime.
    pub fn raise_barrier(self: &Arc<Self>, barrier: &Barrier, by: Option<u32>) {
        match self.barriers.raise(barrier, by, Instant::now()) {
            None => {}
            Some(left) if left.is_zero() => self.barriers.tell(&barrier.volume, Instant::now()),
            Some(left) => {
                let (dir, volume) = (self.clone(), barrier.volume.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(left).await;
                    dir.barriers.tell(&volume, Instant::now());
                });
            }
        }
    }

    /// Whether a barrier of this volume was raised since the start.
    pub fn has_barrier(&self, volume: &str) -> bool {
        self.barriers.lock().held.contains_key(volume)
    }

    /// Waits until every OSD at which a capability of the VO may count still goes by a barrier, and
    /// those in `also`; gives those that do not within `patience`.
    pub async fn confirmed(
        &self,
        barrier: &Barrier,
        also: &[String],
        patience: Duration,
    ) -> Vec<String> {
        let until = Instant::now() + patience;
        let mut heard = self.barriers.heard.subscribe();
        loop {
            heard.borrow_and_update();
            let mut osds = self.lock().may_serve(&barrier.vo, self.clock.now_ms());
            osds.extend_from_slice(also);
            osds.sort();
            osds.dedup();
            let behind = self.barriers.behind(&barrier.volume, barrier.number, &osds);
            if behind.is_empty() || !matches!(timeout_at(until, heard.changed()).await, Ok(Ok(())))
            {
                return behind;
            }
        }
    }
}

impl DirConnection {
    /// Answers when there is something new, or when the time is up.
    pub(super) async fn barriers(
        &self,
        request: &BarriersRequest,
    ) -> Result<BarriersReply, RpcError> {
        if request.vos.len() > ASKED_MAX || request.known.len() > ASKED_MAX {
            let text =
                format!("about {ASKED_MAX} VOs and volumes may be asked at once: ask in parts");
            return Err(RpcError::errno(Errno::EINVAL, text));
        }
        let barriers = &self.dir.barriers;
        let mut told = barriers.told.subscribe();
        if request.osd {
            self.dir.lists_osd(&self.peer.id)?;
            barriers.note(&self.peer.id, request);
            let now_ms = self.dir.clock.now_ms();
            barriers.retain(|osd| self.dir.lock().remembers_osd(osd, now_ms));
        }
        let until = Instant::now() + Duration::from_millis(request.wait_ms).min(WAIT_MAX);
        loop {
            told.borrow_and_update();
            let newer = barriers.newer(request);
            if !newer.is_empty() || !matches!(timeout_at(until, told.changed()).await, Ok(Ok(()))) {
                return Ok(BarriersReply { barriers: newer });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn barrier(number: u64) -> Barrier {
        Barrier { vo: "demo".into(), volume: "home".into(), number }
    }

    fn asked(vo: &str, known: u64) -> BarriersRequest {
        BarriersRequest { vos: vec![vo.into()], known: vec![barrier(known)], ..Default::default() }
    }

    /// If it failed, a member who closes folders again and again would make everybody's node renew
    /// all its capabilities as fast as the network goes; or a closing would never be told.
    #[test]
    fn a_volumes_barriers_have_a_pause_between_them() {
        let (barriers, now) = (Barriers::default(), Instant::now());
        assert_eq!(barriers.raise(&barrier(3), None, now), Some(Duration::ZERO));
        barriers.tell("home", now);
        assert_eq!(barriers.raise(&barrier(3), None, now), None, "it is told already");
        assert_eq!(barriers.newer(&asked("demo", 0)), [barrier(3)]);
        assert!(barriers.newer(&asked("demo", 3)).is_empty());
        assert!(barriers.newer(&asked("other", 0)).is_empty(), "another VO's");
        let left = barriers.raise(&barrier(4), None, now).unwrap();
        barriers.raise(&barrier(5), None, now);
        barriers.tell("home", now);
        assert!(barriers.newer(&asked("demo", 3)).is_empty(), "too soon");
        barriers.tell("home", now + left);
        assert_eq!(barriers.newer(&asked("demo", 3)), [barrier(5)]);
        barriers.raise(&barrier(4), None, now + left);
        assert!(barriers.newer(&asked("demo", 5)).is_empty(), "it never falls");
    }

    /// If it failed, a person who closes a folder would be told that it is closed everywhere while
    /// an OSD still serves others.
    #[test]
    fn an_osd_is_behind_until_it_says_that_it_is_not() {
        let barriers = Barriers::default();
        barriers.raise(&barrier(3), None, Instant::now());
        let osds = ["a".to_owned(), "b".to_owned()];
        assert_eq!(barriers.behind("home", 3, &osds), osds);
        barriers.note("a", &asked("demo", 3));
        barriers.note("b", &asked("demo", 2));
        assert_eq!(barriers.behind("home", 3, &osds), ["b"]);
        barriers.note("b", &asked("demo", 4));
        assert!(barriers.behind("home", 3, &osds).is_empty());
        let part = BarriersRequest { known: Vec::new(), ..asked("other", 0) };
        barriers.note("b", &part);
        assert!(barriers.behind("home", 3, &osds).is_empty(), "it asked about others");
        barriers.retain(|osd| osd == "a");
        assert_eq!(barriers.behind("home", 3, &osds), ["b"]);
    }

    /// If it failed, one member who closes and opens a folder without end would make everybody's
    /// node renew once a second for ever; or would hold up what another one closes.
    #[test]
    fn who_goes_on_and_on_waits_ever_longer_and_nobody_else_does() {
        let (barriers, mut now) = (Barriers::default(), Instant::now());
        let (mut number, mut waits) = (0, Vec::new());
        let mut raise = |by, now| {
            number += 1;
            barriers.raise(&barrier(number), Some(by), now).unwrap()
        };
        for _ in 0..9 {
            let wait = raise(7, now);
            waits.push(wait.as_secs());
            now += wait;
        }
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(raise(7, now - PAUSE), PAUSE, "what comes meanwhile goes with it");
        assert_eq!(raise(8, now), Duration::ZERO);
        assert_eq!(raise(7, now + OWNERS_PAUSE_MAX * 2), Duration::ZERO, "was quiet");
        assert_eq!(raise(7, now + OWNERS_PAUSE_MAX * 2), PAUSE);
    }
}
