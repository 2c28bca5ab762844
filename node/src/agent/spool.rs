//! What happened on this node, kept until its core has stored it.
//!
//! One file, `audit/events` in the node's folder: a head that names the count, then an event a
//! line. A thread writes it; an event is reported only once it is on the disk, since a
//! number that the core knows must never be another event's. So a line that a power loss cut in two
//! was never reported, and is taken off. When the core does not come back for long, new events fall
//! out, never old ones: how many is told when there is room again.

mod file;

use super::{flood, keep};
use file::{File, Found, Kept};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use xos_api::audit::{Event, Outcome, REPORT_EVENTS_MAX, ReportEvents};
use xos_base::when::Clock;
use xos_base::{Error, NodeId};
use xos_net::audit::{Audit, Receipt};

/// Most bytes of events that wait for the core: some 50,000 events.
const SPOOL_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Of that so many are for [`flood::KEPT_ROOM`] alone: some 3000 events.
const KEPT_BYTES: u64 = 1024 * 1024;
/// Most events that wait for the disk.
const QUEUE_MAX: usize = 4096;
/// Of that so many are for [`flood::KEPT_ROOM`] alone.
const KEPT_QUEUE: usize = 512;
/// Most events that are written at a time.
const BATCH_MAX: usize = 512;
/// Most bytes of events in one report, unless one alone has more.
const REPORT_BYTES_MAX: u64 = 256 * 1024;
/// Pause after a report that the core did not take.
const PAUSE: Duration = Duration::from_millis(500);

type Given = oneshot::Sender<Result<(), Error>>;

enum Ask {
    Note(Box<Event>, Given),
    /// The core has stored some.
    Stored,
}

/// The node's spool. Its thread ends when it is dropped.
pub(super) struct Spool {
    asks: SyncSender<Ask>,
    shared: Arc<Shared>,
}

struct Shared {
    pending: Mutex<Pending>,
    came: Notify,
    /// Events that fell out and were not told yet.
    lost: AtomicU64,
    /// Events that wait for the disk.
    waiting: AtomicUsize,
}

/// Whether there is room of its own for an event.
fn has_kept_room(event: &Event) -> bool {
    flood::KEPT_ROOM.contains(&event.what.as_str())
}

/// What is on the disk and not known to be stored at the core.
struct Pending {
    series: String,
    kept: VecDeque<Kept>,
    bytes: u64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Audit for Spool {
    fn record(&self, event: Event) -> Receipt {
        let (given, receipt) = Receipt::new();
        let most = if has_kept_room(&event) { QUEUE_MAX } else { QUEUE_MAX - KEPT_QUEUE };
        if self.shared.waiting.load(Ordering::Relaxed) >= most {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            // Nobody may wait for it.
            let _unheard = given.send(Err(full()));
            return receipt;
        }
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        match self.asks.try_send(Ask::Note(Box::new(event), given)) {
            Ok(()) => {}
            Err(TrySendError::Full(ask) | TrySendError::Disconnected(ask)) => {
                self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
                self.shared.lost.fetch_add(1, Ordering::Relaxed);
                if let Ask::Note(_, given) = ask {
                    // Nobody may wait for it.
                    let _unheard = given.send(Err(full()));
                }
            }
        }
        receipt
    }
}

fn full() -> Error {
    Error::unavailable("this node's audit has no room: its core has not taken it for long")
        .hint("look whether the core runs, and at the disk of this node")
}

impl Spool {
    /// Opens what an earlier daemon left below `folder`, and begins to write.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] naming the file or folder.
    pub(super) fn open(folder: &Path, node: NodeId, clock: Arc<dyn Clock>) -> Result<Spool, Error> {
        Spool::bounded(folder, node, clock, SPOOL_BYTES_MAX)
    }

    fn bounded(
        folder: &Path,
        node: NodeId,
        clock: Arc<dyn Clock>,
        most: u64,
    ) -> Result<Spool, Error> {
        let folder = folder.join("audit");
        keep::own_folder(&folder, 0o700)?;
        let (file, Found { kept, bytes, damaged }) = File::open(&folder.join("events"))?;
        let pending = Pending { series: file.series().to_owned(), kept: kept.into(), bytes };
        let (pending, came) = (Mutex::new(pending), Notify::new());
        let (lost, waiting) = (AtomicU64::new(damaged), AtomicUsize::new(0));
        let shared = Arc::new(Shared { pending, came, lost, waiting });
        let (asks, queue) = sync_channel(QUEUE_MAX);
        let writer = Writer { file, shared: shared.clone(), node, clock, most };
        std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || writer.run(&queue))
            .map_err(|e| Error::internal(format!("cannot start the audit's thread: {e}")))?;
        Ok(Spool { asks, shared })
    }

    /// Reports by `send` what there is and what comes, in order, each until it is taken, until this
    /// future is dropped.
    pub(super) async fn report<F, Fut>(&self, send: F)
    where
        F: Fn(ReportEvents) -> Fut,
        Fut: Future<Output = Result<(), Error>>,
    {
        loop {
            let Some(report) = self.next() else {
                self.shared.came.notified().await;
                continue;
            };
            let last = report.first.saturating_add(report.events.len() as u64);
            match send(report).await {
                Ok(()) => self.stored_before(last),
                Err(error) => {
                    tracing::info!(%error, "what happened here is told to the core later");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn next(&self) -> Option<ReportEvents> {
        let pending = self.shared.lock();
        let first = pending.kept.front()?.number;
        let mut bytes = 0;
        let fits = |kept: &&Kept| {
            bytes += kept.len;
            kept.number == first || bytes <= REPORT_BYTES_MAX
        };
        let events = pending.kept.iter().take(REPORT_EVENTS_MAX).take_while(fits);
        let events = events.map(|kept| kept.event.clone()).collect();
        Some(ReportEvents { first, series: pending.series.clone(), events })
    }

    /// The core has stored all before this number.
    fn stored_before(&self, number: u64) {
        let mut pending = self.shared.lock();
        while let Some(kept) = pending.kept.pop_front() {
            if kept.number >= number {
                pending.kept.push_front(kept);
                break;
            }
            pending.bytes = pending.bytes.saturating_sub(kept.len);
        }
        drop(pending);
        // When it is busy, it looks by itself.
        let _busy = self.asks.try_send(Ask::Stored);
    }
}

struct Writer {
    file: File,
    shared: Arc<Shared>,
    node: NodeId,
    clock: Arc<dyn Clock>,
    most: u64,
}

impl Writer {
    fn run(mut self, asks: &Receiver<Ask>) {
        while let Ok(first) = asks.recv() {
            let batch = std::iter::once(first).chain(asks.try_iter()).take(BATCH_MAX);
            let notes = batch.filter_map(|ask| match ask {
                Ask::Note(event, given) => Some((*event, given)),
                Ask::Stored => None,
            });
            let notes: Vec<(Event, Given)> = notes.collect();
            self.shared.waiting.fetch_sub(notes.len(), Ordering::Relaxed);
            self.write(notes);
            let pending = self.shared.lock();
            if self.file.is_due(pending.bytes) {
                let kept: Vec<Kept> = pending.kept.iter().cloned().collect();
                drop(pending);
                if let Err(error) = self.file.rewrite(&kept) {
                    tracing::error!(%error, "the node's audit keeps what the core has already");
                }
            }
        }
    }

    /// Writes events as far as there is room, and gives the receipts.
    fn write(&mut self, notes: Vec<(Event, Given)>) {
        let mut room = self.most.saturating_sub(self.shared.lock().bytes);
        let lost = self.shared.lost.swap(0, Ordering::Relaxed);
        let told = (lost > 0 && !notes.is_empty()).then(|| self.left_out(lost));
        // What is still to be told when nothing of this comes to the disk.
        let mut owed = lost;
        if told.is_none() {
            self.lose(std::mem::take(&mut owed));
        }
        let (mut kept, mut givens) = (Vec::new(), Vec::new());
        let all = told.map(|event| (event, None));
        let all = all.into_iter().chain(notes.into_iter().map(|(e, given)| (e, Some(given))));
        for (event, given) in all {
            // Small spools, as in tests, keep a part.
            let kept_room = if has_kept_room(&event) { 0 } else { KEPT_BYTES.min(self.most / 8) };
            match self.file.line(event) {
                Ok(line) if line.len <= room.saturating_sub(kept_room) => {
                    room -= line.len;
                    kept.push(line);
                    givens.extend(given);
                }
                refused => {
                    let Some(given) = given else {
                        self.lose(std::mem::take(&mut owed));
                        continue;
                    };
                    self.lose(1);
                    let _unheard = given.send(Err(refused.err().unwrap_or_else(full)));
                }
            }
        }
        match self.file.append(&mut kept) {
            Ok(()) => {
                let mut pending = self.shared.lock();
                pending.bytes += kept.iter().map(|k| k.len).sum::<u64>();
                pending.kept.extend(kept);
                drop(pending);
                self.shared.came.notify_one();
                for given in givens {
                    let _unheard = given.send(Ok(()));
                }
            }
            Err(error) => {
                tracing::error!(%error, "what happened on this node is not in the audit");
                self.lose(owed + givens.len() as u64);
                for given in givens {
                    let _unheard = given.send(Err(error.clone()));
                }
            }
        }
    }

    /// Events fell out.
    fn lose(&self, count: u64) {
        self.shared.lost.fetch_add(count, Ordering::Relaxed);
    }

    fn left_out(&self, lost: u64) -> Event {
        let mut event = Event::new(self.clock.now(), "left_out");
        event.who = format!("node {}", self.node);
        event.node = Some(self.node.clone());
        event.outcome = Outcome::Failed;
        event.why = format!("{lost} events fell out of this node's spool");
        event
    }
}

#[cfg(test)]
mod tests;
