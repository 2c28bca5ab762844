//! Files that are opened, for the audit of the VO's home, when the VO asks for it.

use super::knowledge::Knowledge;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::mpsc;
use xos_api::audit::{Event, Outcome, TEXT_MAX};
use xos_base::{Millis, VoId};
use xos_net::Audit;
use xtreemfs_server::mrc::{FileOpen, OpenAudit};

/// Most opens that wait for the audit; further ones are counted and not noted.
const WAITING_MAX: usize = 8192;
/// Opens that are given to the audit together.
const BATCH_MAX: usize = 512;

/// Takes opens from the MRC, which must not wait.
pub(super) struct Opens {
    knowledge: Arc<Knowledge>,
    /// The VOs that ask for it.
    asked: RwLock<HashSet<String>>,
    waiting: mpsc::Sender<Event>,
    lost: Arc<AtomicU64>,
}

/// The other end: gives them to the audit.
pub(super) struct Noting {
    waiting: mpsc::Receiver<Event>,
    lost: Arc<AtomicU64>,
}

/// Both ends.
pub(super) fn opens(knowledge: Arc<Knowledge>) -> (Opens, Noting) {
    let (sender, waiting) = mpsc::channel(WAITING_MAX);
    let lost = Arc::new(AtomicU64::new(0));
    let opens =
        Opens { knowledge, asked: RwLock::default(), waiting: sender, lost: Arc::clone(&lost) };
    (opens, Noting { waiting, lost })
}

impl Opens {
    /// Notes which VOs ask for it.
    pub(super) fn ask(&self, vos: impl Iterator<Item = VoId>) {
        let vos = vos.map(|vo| vo.to_string()).collect();
        *self.asked.write().unwrap_or_else(PoisonError::into_inner) = vos;
    }

    fn event(&self, open: FileOpen) -> Event {
        let member = self.knowledge.member(&open.vo, open.member);
        let how = match (open.read, open.write) {
            (true, true) => "read and write",
            (_, true) => "write",
            _ => "read",
        };
        let path: String = String::from_utf8_lossy(&open.path).chars().take(TEXT_MAX).collect();
        let person = member.map(|m| m.person);
        Event {
            time: self.knowledge.clock.now(),
            what: if open.created { "create_file" } else { "open_file" }.to_owned(),
            who: person.as_ref().map_or_else(
                || format!("member {} of {}", open.member, open.vo),
                |person| person.to_string(),
            ),
            on: format!("{}:/{path}", open.volume),
            person,
            vo: open.vo.parse().ok(),
            node: open.peer.parse().ok(),
            outcome: if open.refused.is_some() { Outcome::Refused } else { Outcome::Done },
            why: open.refused.map_or_else(|| how.to_owned(), |why| format!("{how}: {why}")),
            from: None,
        }
    }
}

impl OpenAudit for Opens {
    fn wants(&self, vo: &str) -> bool {
        self.asked.read().unwrap_or_else(PoisonError::into_inner).contains(vo)
    }

    fn opened(&self, open: FileOpen) {
        if self.waiting.try_send(self.event(open)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Noting {
    /// Gives opens to the audit until the MRC is no more. What did not fit is said there too.
    pub(super) async fn run(
        mut self,
        site: String,
        now: impl Fn() -> Millis,
        audit: Arc<dyn Audit>,
    ) {
        let mut batch = Vec::new();
        while self.waiting.recv_many(&mut batch, BATCH_MAX).await > 0 {
            let receipts: Vec<_> = batch.drain(..).map(|event| audit.record(event)).collect();
            let mut failed = 0;
            for receipt in receipts {
                failed += u64::from(receipt.await.is_err());
            }
            let lost = self.lost.swap(0, Ordering::Relaxed) + failed;
            if lost == 0 {
                continue;
            }
            let told = audit.record(lost_event(now(), &site, lost)).await;
            if told.is_err() {
                self.lost.fetch_add(lost, Ordering::Relaxed);
            }
            tracing::warn!(lost, "opened files are missing in the audit");
        }
    }
}

fn lost_event(time: Millis, site: &str, lost: u64) -> Event {
    Event {
        time,
        what: "lose_file_opens".to_owned(),
        who: format!("core of {site}"),
        on: format!("{lost} opened files"),
        person: None,
        vo: None,
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

    fn event() -> Event {
        Event { on: "demo.rennes:/f".into(), ..lost_event(Millis(1), "rennes", 1) }
    }

    /// If it failed, opens that the audit did not take would be missing without a trace, or the MRC
    /// would wait for the audit.
    #[tokio::test]
    async fn what_does_not_fit_is_counted_and_said() {
        let (sender, waiting) = mpsc::channel(1);
        let lost = Arc::new(AtomicU64::new(2));
        let noting = Noting { waiting, lost };
        sender.send(event()).await.unwrap();
        drop(sender);
        let audit = Arc::new(Remembered::default());
        noting.run("rennes".into(), || Millis(5), audit.clone()).await;
        let events = audit.events();
        assert_eq!(events.len(), 2);
        assert_eq!(events[0], event());
        assert_eq!(events[1], lost_event(Millis(5), "rennes", 2));
    }
}
