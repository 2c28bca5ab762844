//! What waits for the one thread that writes.

use std::collections::{HashSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;
use xos_api::audit::Event;
use xos_base::{Error, NodeId};

/// Most events that wait to be written; beyond it they are lost, which is noted.
pub const QUEUE_EVENTS_MAX: usize = 65_536;
/// Most bytes of text that wait to be written; as above.
pub const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Reports of nodes fill at most one part of so many of that: what the core itself does is noted
/// however many nodes come back at once.
const REPORTS_PART: usize = 4;
/// A batch takes no more events once it has this many bytes of text.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

pub(super) type Given = oneshot::Sender<Result<(), Error>>;

/// Events of one caller, which are written together.
pub(super) struct Task {
    pub(super) events: Vec<Event>,
    /// Where they stand in what a node reports: the node, its count, the number of the first.
    pub(super) report: Option<(NodeId, String, u64)>,
    pub(super) given: Given,
}

impl Task {
    fn bytes(&self) -> usize {
        let of = |e: &Event| e.what.len() + e.who.len() + e.on.len() + e.why.len();
        self.events.iter().map(of).sum()
    }
}

/// What waits for the writer.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Backlog>,
    wake: Condvar,
}

#[derive(Default)]
struct Backlog {
    tasks: VecDeque<Task>,
    events: usize,
    bytes: usize,
    /// Of those, what nodes reported.
    report_events: usize,
    report_bytes: usize,
    /// The nodes a report of whom waits or is being written.
    reporting: HashSet<NodeId>,
    /// How many events were lost since one could be written.
    lost: u64,
    closed: bool,
}

impl Queue {
    pub(super) fn push(&self, task: Task) {
        let (events, bytes) = (task.events.len(), task.bytes());
        let mut waiting = self.lock();
        let refused = if waiting.closed {
            Error::unavailable("the audit is closed: the core is stopping")
        } else if waiting.events + events > QUEUE_EVENTS_MAX
            || waiting.bytes + bytes > QUEUE_BYTES_MAX
        {
            Error::limited("the audit is busy: too many events wait to be stored")
                .hint("try again in a moment")
        } else if let Some((node, ..)) = &task.report
            && waiting.no_room_for_report(node, events, bytes)
        {
            Error::limited("the audit is busy with reports of nodes, or one of this node's")
                .hint("report again in a moment")
        } else {
            waiting.events += events;
            waiting.bytes += bytes;
            if let Some((node, ..)) = &task.report {
                waiting.report_events += events;
                waiting.report_bytes += bytes;
                waiting.reporting.insert(node.clone());
            }
            waiting.tasks.push_back(task);
            self.wake.notify_one();
            return;
        };
        waiting.lose(&task);
        drop(waiting);
        answer(task.given, Err(refused));
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    /// Nobody writes any more. Dropping a task tells whoever waits for it.
    pub(super) fn abandon(&self) {
        self.close();
        drop(std::mem::take(&mut self.lock().tasks));
    }

    /// Waits for tasks and takes a batch, and how many events were lost before; `None` once closed
    /// and empty.
    pub(super) fn take(&self) -> Option<(Vec<Task>, u64)> {
        let mut waiting = self.lock();
        while waiting.tasks.is_empty() {
            if waiting.closed {
                return None;
            }
            waiting = self.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let mut batch = Vec::with_capacity(waiting.tasks.len());
        let mut taken = 0;
        while taken < BATCH_BYTES_MAX
            && let Some(task) = waiting.tasks.pop_front()
        {
            let bytes = task.bytes();
            waiting.events = waiting.events.saturating_sub(task.events.len());
            waiting.bytes = waiting.bytes.saturating_sub(bytes);
            if task.report.is_some() {
                waiting.report_events = waiting.report_events.saturating_sub(task.events.len());
                waiting.report_bytes = waiting.report_bytes.saturating_sub(bytes);
            }
            taken += bytes;
            batch.push(task);
        }
        Some((batch, std::mem::take(&mut waiting.lost)))
    }

    /// A task was written, or could not be.
    pub(super) fn ended(&self, task: &Task) {
        if let Some((node, ..)) = &task.report {
            self.lock().reporting.remove(node);
        }
    }

    /// Nothing of this batch was written, nor that `lost` were not before.
    pub(super) fn put_off(&self, batch: &[Task], lost: u64) {
        let mut waiting = self.lock();
        waiting.lost = waiting.lost.saturating_add(lost);
        batch.iter().for_each(|task| waiting.lose(task));
    }

    fn lock(&self) -> MutexGuard<'_, Backlog> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backlog {
    fn no_room_for_report(&self, node: &NodeId, events: usize, bytes: usize) -> bool {
        self.reporting.contains(node)
            || self.report_events + events > QUEUE_EVENTS_MAX / REPORTS_PART
            || self.report_bytes + bytes > QUEUE_BYTES_MAX / REPORTS_PART
    }

    /// Counts what a task held; a node reports again what was not taken.
    fn lose(&mut self, task: &Task) {
        if task.report.is_none() {
            self.lost = self.lost.saturating_add(task.events.len() as u64);
        }
    }
}

pub(super) fn answer(given: Given, result: Result<(), Error>) {
    // Who does not wait does not want to know.
    let _unheard = given.send(result);
}
