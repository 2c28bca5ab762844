//! Barriers of volumes: what makes capabilities count no more before they lapse.
//!
//! An MRC raises a volume's barrier when a folder is closed to those who may have files below it
//! open. OSDs and clients wait here for the news ([`Barriers`]), so that no connection to them is
//! needed; what an OSD says that it knows is its confirmation.

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
/// Most VOs and volumes of one request.
pub const ASKED_MAX: usize = 1024;

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

    /// Notes a barrier; gives how long it is yet to be kept back.
    fn raise(&self, barrier: &Barrier, now: Instant) -> Option<Duration> {
        let mut state = self.lock();
        let held = state.held.entry(barrier.volume.clone()).or_insert_with(|| Held {
            vo: barrier.vo.clone(),
            told: 0,
            at: None,
            raised: 0,
        });
        held.raised = held.raised.max(barrier.number);
        held.left(now)
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

    /// Notes what an OSD goes by.
    fn note(&self, osd: &str, known: &[Barrier]) {
        let mut state = self.lock();
        let State { held, known: all } = &mut *state;
        let known = known.iter().filter(|barrier| held.contains_key(&barrier.volume));
        let known = known.map(|barrier| (barrier.volume.clone(), barrier.number)).collect();
        all.insert(osd.to_owned(), known);
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

    /// Forgets the OSDs that are not listed any more.
    fn retain(&self, listed: impl Fn(&str) -> bool) {
        self.lock().known.retain(|osd, _| listed(osd));
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
    /// pause after the one before is over. Raising it to what it is does nothing. To be called
    /// within a tokio runtime.
    pub fn raise_barrier(self: &Arc<Self>, barrier: &Barrier) {
        match self.barriers.raise(barrier, Instant::now()) {
            None => self.barriers.tell(&barrier.volume, Instant::now()),
            Some(left) => {
                let (dir, volume) = (self.clone(), barrier.volume.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(left).await;
                    dir.barriers.tell(&volume, Instant::now());
                });
            }
        }
    }

    /// Waits until every OSD that is heard of and stores for the VO goes by a barrier; gives those
    /// that do not within `patience`.
    pub async fn confirmed(&self, barrier: &Barrier, patience: Duration) -> Vec<String> {
        let until = Instant::now() + patience;
        let mut heard = self.barriers.heard.subscribe();
        loop {
            heard.borrow_and_update();
            let mut osds = Vec::new();
            self.each_osd(&barrier.vo, |_, osd| osds.push(osd.id.clone()));
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
            let text = format!("about {ASKED_MAX} VOs and volumes may be asked at once");
            return Err(RpcError::errno(Errno::EINVAL, text));
        }
        let barriers = &self.dir.barriers;
        let mut told = barriers.told.subscribe();
        if request.osd {
            self.dir.lists_osd(&self.peer.id)?;
            barriers.note(&self.peer.id, &request.known);
            barriers.retain(|osd| self.dir.lists_osd(osd).is_ok());
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
        assert_eq!(barriers.raise(&barrier(3), now), None);
        barriers.tell("home", now);
        assert_eq!(barriers.newer(&asked("demo", 0)), [barrier(3)]);
        assert!(barriers.newer(&asked("demo", 3)).is_empty());
        assert!(barriers.newer(&asked("other", 0)).is_empty(), "another VO's");
        let left = barriers.raise(&barrier(4), now).unwrap();
        barriers.raise(&barrier(5), now);
        barriers.tell("home", now);
        assert!(barriers.newer(&asked("demo", 3)).is_empty(), "too soon");
        barriers.tell("home", now + left);
        assert_eq!(barriers.newer(&asked("demo", 3)), [barrier(5)]);
        barriers.raise(&barrier(4), now + left);
        assert!(barriers.newer(&asked("demo", 5)).is_empty(), "it never falls");
    }

    /// If it failed, a person who closes a folder would be told that it is closed everywhere while
    /// an OSD still serves others.
    #[test]
    fn an_osd_is_behind_until_it_says_that_it_is_not() {
        let barriers = Barriers::default();
        barriers.raise(&barrier(3), Instant::now());
        let osds = ["a".to_owned(), "b".to_owned()];
        assert_eq!(barriers.behind("home", 3, &osds), osds);
        barriers.note("a", &[barrier(3)]);
        barriers.note("b", &[barrier(2)]);
        assert_eq!(barriers.behind("home", 3, &osds), ["b"]);
        barriers.note("b", &[barrier(4)]);
        assert!(barriers.behind("home", 3, &osds).is_empty());
        barriers.retain(|osd| osd == "a");
        assert_eq!(barriers.behind("home", 3, &osds), ["b"]);
    }
}
