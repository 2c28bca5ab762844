//! Files that are opened, for the audit of the VO's home, when the VO asks for it.

use super::knowledge::Knowledge;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use xos_api::audit::{Event, Outcome, TEXT_MAX};
use xos_base::{Millis, VoId};
use xos_net::Audit;
use xtreemfs_server::mrc::{FileOpen, OpenAudit};

/// Opens of one VO that are noted at once; further ones are counted.
const BURST: u64 = 10_000;
/// Opens of one VO that are noted in a second when it goes on.
const PER_SECOND: u64 = 100;
/// Most opens that wait for the audit; further ones are counted.
const WAITING_MAX: usize = 8192;
/// Opens that are given to the audit together.
const BATCH_MAX: usize = 512;
/// How often it is said how many were not noted.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// What a VO may have noted yet.
struct Budget {
    /// In thousandths of an open.
    left: u64,
    at: Millis,
}

impl Budget {
    fn full(now: Millis) -> Budget {
        Budget { left: BURST * 1000, at: now }
    }

    /// Takes one, if there is one.
    fn take(&mut self, now: Millis) -> bool {
        let back = now.0.saturating_sub(self.at.0).saturating_mul(PER_SECOND);
        let left = self.left.saturating_add(back).min(BURST * 1000);
        let taken = left >= 1000;
        *self = Budget { left: if taken { left - 1000 } else { left }, at: now };
        taken
    }
}

/// How many opens of each VO were not noted.
#[derive(Default)]
struct Lost(Mutex<BTreeMap<VoId, u64>>);

impl Lost {
    fn add(&self, vo: VoId, count: u64) {
        let mut lost = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *lost.entry(vo).or_default() += count;
    }

    fn take(&self) -> BTreeMap<VoId, u64> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Takes opens from the MRC, which must not wait.
pub(super) struct Opens {
    knowledge: Arc<Knowledge>,
    /// The VOs that ask for it.
    asked: RwLock<HashSet<String>>,
    /// Of those that have asked for it.
    budgets: Mutex<HashMap<VoId, Budget>>,
    waiting: mpsc::Sender<Event>,
    lost: Arc<Lost>,
}

/// The other end: gives them to the audit.
pub(super) struct Noting {
    waiting: mpsc::Receiver<Event>,
    lost: Arc<Lost>,
}

/// Both ends.
pub(super) fn opens(knowledge: Arc<Knowledge>) -> (Opens, Noting) {
    let (sender, waiting) = mpsc::channel(WAITING_MAX);
    let lost = Arc::new(Lost::default());
    let noting = Noting { waiting, lost: lost.clone() };
    let (asked, budgets) = Default::default();
    (Opens { knowledge, asked, budgets, waiting: sender, lost }, noting)
}

impl Opens {
    /// Notes which VOs ask for it.
    pub(super) fn ask(&self, vos: impl Iterator<Item = VoId>) {
        let vos = vos.map(|vo| vo.to_string()).collect();
        *self.asked.write().unwrap_or_else(PoisonError::into_inner) = vos;
    }

    /// Whether one more open of a VO is noted.
    fn has_left(&self, vo: &VoId, now: Millis) -> bool {
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        budgets.entry(vo.clone()).or_insert_with(|| Budget::full(now)).take(now)
    }

    fn event(&self, vo: VoId, open: FileOpen) -> Event {
        let member = self.knowledge.member(&open.vo, open.member);
        let how = match (open.read, open.write) {
            (true, true) => "read and write",
            (_, true) => "write",
            _ => "read",
        };
        let on = place(&open);
        let person = member.map(|m| m.person);
        Event {
            time: self.knowledge.clock.now(),
            what: if open.created { "create_file" } else { "open_file" }.to_owned(),
            who: person.as_ref().map_or_else(
                || format!("member {} of {}", open.member, open.vo),
                |person| person.to_string(),
            ),
            on,
            person,
            vo: Some(vo),
            node: open.peer.parse().ok(),
            outcome: if open.refused.is_some() { Outcome::Refused } else { Outcome::Done },
            why: open.refused.map_or_else(|| how.to_owned(), |why| format!("{how}: {why}")),
            from: None,
        }
    }
}

/// `volume:/path`; where names are not told, the number of the inode: `volume:#7`, or
/// `volume:#7 below /path`.
fn place(open: &FileOpen) -> String {
    let path: String = String::from_utf8_lossy(&open.path).chars().take(TEXT_MAX).collect();
    match (open.whole, path.is_empty()) {
        (true, _) => format!("{}:/{path}", open.volume),
        (false, true) => format!("{}:#{}", open.volume, open.inode),
        (false, false) => format!("{}:#{} below /{path}", open.volume, open.inode),
    }
}

impl OpenAudit for Opens {
    fn wants(&self, vo: &str) -> bool {
        self.asked.read().unwrap_or_else(PoisonError::into_inner).contains(vo)
    }

    fn opened(&self, open: FileOpen) {
        let Ok(vo) = open.vo.parse::<VoId>() else { return };
        let fits = self.has_left(&vo, self.knowledge.clock.now());
        if !fits || self.waiting.try_send(self.event(vo.clone(), open)).is_err() {
            self.lost.add(vo, 1);
        }
    }
}

impl Noting {
    /// Gives opens to the audit until the MRC is no more. What did not fit is said there too, now
    /// and then and at the end, in one line for each VO.
    pub(super) async fn run(
        mut self,
        site: String,
        now: impl Fn() -> Millis,
        audit: Arc<dyn Audit>,
    ) {
        let mut batch = Vec::new();
        let mut say = interval_at(Instant::now() + SAY_EVERY, SAY_EVERY);
        say.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = say.tick() => self.say(&site, now(), &*audit).await,
                count = self.waiting.recv_many(&mut batch, BATCH_MAX) => {
                    if count == 0 {
                        break;
                    }
                    self.note(&mut batch, &*audit).await;
                }
            }
        }
        self.say(&site, now(), &*audit).await;
    }

    async fn note(&self, batch: &mut Vec<Event>, audit: &dyn Audit) {
        let noted = batch.drain(..).map(|event| (event.vo.clone(), audit.record(event)));
        let noted: Vec<_> = noted.collect();
        for (vo, receipt) in noted {
            if receipt.await.is_err()
                && let Some(vo) = vo
            {
                self.lost.add(vo, 1);
            }
        }
    }

    async fn say(&self, site: &str, now: Millis, audit: &dyn Audit) {
        for (vo, lost) in self.lost.take() {
            tracing::warn!(%vo, lost, "opened files are missing in the audit");
            if audit.record(lost_event(now, site, &vo, lost)).await.is_err() {
                self.lost.add(vo, lost);
            }
        }
    }
}

fn lost_event(time: Millis, site: &str, vo: &VoId, lost: u64) -> Event {
    Event {
        time,
        what: "lose_file_opens".to_owned(),
        who: format!("core of {site}"),
        on: format!("{lost} opened files of {vo}"),
        person: None,
        vo: Some(vo.clone()),
        node: None,
        outcome: Outcome::Failed,
        why: "more files were opened than the audit takes".to_owned(),
        from: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_net::audit::Remembered;

    fn vo(name: &str) -> VoId {
        name.parse().unwrap()
    }

    fn event() -> Event {
        let on = "demo.rennes:/f".into();
        Event { on, ..lost_event(Millis(1), "rennes", &vo("demo.rennes"), 1) }
    }

    /// If it failed, opens that the audit did not take would be missing without a trace, or in the
    /// name of another VO; or the MRC would wait for the audit.
    #[tokio::test]
    async fn what_does_not_fit_is_counted_and_said() {
        let (sender, waiting) = mpsc::channel(1);
        let lost = Arc::new(Lost::default());
        lost.add(vo("demo.rennes"), 2);
        lost.add(vo("other.rennes"), 1);
        lost.add(vo("demo.rennes"), 3);
        let noting = Noting { waiting, lost: lost.clone() };
        sender.send(event()).await.unwrap();
        drop(sender);
        let audit = Arc::new(Remembered::default());
        noting.run("rennes".into(), || Millis(5), audit.clone()).await;
        let said = |name: &str, count| lost_event(Millis(5), "rennes", &vo(name), count);
        let expected = [event(), said("demo.rennes", 5), said("other.rennes", 1)];
        assert_eq!(audit.events(), expected);
        assert!(lost.take().is_empty(), "it would be said twice");
    }

    /// If it failed, whoever opens files in a loop would fill the site's audit, and push what
    /// others do out of it.
    #[test]
    fn a_vo_has_a_budget_that_comes_back() {
        let mut budget = Budget::full(Millis(5000));
        let mut taken = |now| (0..BURST + 5).filter(|_| budget.take(Millis(now))).count() as u64;
        assert_eq!(taken(5000), BURST);
        assert_eq!(taken(5000), 0);
        assert_eq!(taken(4000), 0, "a clock that is set back gives nothing");
        assert_eq!(taken(5000), PER_SECOND);
        assert_eq!(taken(u64::MAX), BURST, "and no more than at first");
    }

    /// If it failed, a name that is not told would look like one, or a file could not be found.
    #[test]
    fn an_inode_stands_where_names_are_not_told() {
        let open = |path: &'static str, whole| FileOpen {
            volume: "demo.rennes".into(),
            vo: "demo.rennes".into(),
            member: 7,
            inode: 12,
            path: path.into(),
            whole,
            read: true,
            write: false,
            created: false,
            peer: "n1.rennes".into(),
            refused: None,
        };
        assert_eq!(place(&open("a/b", true)), "demo.rennes:/a/b");
        assert_eq!(place(&open("", false)), "demo.rennes:#12");
        assert_eq!(place(&open("a", false)), "demo.rennes:#12 below /a");
    }
}
