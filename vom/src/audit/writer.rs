//! The one thread that writes: takes all that waits, writes it with one call, syncs once, and then
//! gives all receipts.

use super::Shared;
use super::files::{self, Mark, Marks, Segment};
use super::open::{End, Opened};
use super::walk::hash;
use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;
use xos_api::audit::{Event, Line, Outcome, Reported};
use xos_base::when::Clock;
use xos_base::{Error, NodeId};

/// Most events that wait to be written; beyond it they are lost, which is noted.
pub const QUEUE_EVENTS_MAX: usize = 65_536;
/// Most bytes of text that wait to be written; as above.
pub const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
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
        } else {
            waiting.events += events;
            waiting.bytes += bytes;
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

    /// Waits for tasks and takes a batch, and how many events were lost before; `None` once closed
    /// and empty.
    fn take(&self) -> Option<(Vec<Task>, u64)> {
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
            taken += bytes;
            batch.push(task);
        }
        Some((batch, std::mem::take(&mut waiting.lost)))
    }

    /// Nothing of this batch was written, nor that `lost` were not before.
    fn put_off(&self, batch: &[Task], lost: u64) {
        let mut waiting = self.lock();
        waiting.lost = waiting.lost.saturating_add(lost);
        batch.iter().for_each(|task| waiting.lose(task));
    }

    fn lock(&self) -> MutexGuard<'_, Backlog> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backlog {
    /// Counts what a task held; a node reports again what was not taken.
    fn lose(&mut self, task: &Task) {
        if task.report.is_none() {
            self.lost = self.lost.saturating_add(task.events.len() as u64);
        }
    }
}

/// Serves until the queue is closed and empty.
pub(super) fn run(queue: &Queue, shared: Arc<Shared>, clock: &dyn Clock, opened: Opened) {
    let _refuse = RefuseAfter(queue);
    let Opened { lock, segments, file, end, marks, damage } = opened;
    let Some(current) = segments.last().cloned() else { return };
    let mut writer = Writer { shared, current, file, end, marks, halted: None, _lock: lock };
    let mut first = damage;
    while let Some((batch, lost)) = queue.take() {
        let written = writer.write_all(&batch, lost, first.as_ref(), clock);
        match &written {
            Ok(()) => first = None,
            Err(error) => {
                let dir = &writer.shared.dir;
                tracing::error!(%error, dir = %dir.display(), "events are not in the audit");
                queue.put_off(&batch, lost);
            }
        }
        for task in batch {
            answer(task.given, written.clone());
        }
    }
}

/// However the writer ends, nobody may wait for it any more.
struct RefuseAfter<'q>(&'q Queue);

impl Drop for RefuseAfter<'_> {
    fn drop(&mut self) {
        self.0.close();
        // Dropping a task tells whoever waits that the audit has ended.
        drop(std::mem::take(&mut self.0.lock().tasks));
    }
}

struct Writer {
    shared: Arc<Shared>,
    /// The file that is written, as it is on the disk.
    current: Segment,
    file: File,
    end: End,
    marks: Marks,
    /// Why nothing more is taken.
    halted: Option<Error>,
    /// Locked as long as somebody writes.
    _lock: File,
}

/// A batch on its way to the disk.
struct Made {
    bytes: Vec<u8>,
    end: End,
    marks: Marks,
}

impl Writer {
    fn write_all(
        &mut self,
        batch: &[Task],
        lost: u64,
        first: Option<&Event>,
        clock: &dyn Clock,
    ) -> Result<(), Error> {
        if let Some(why) = &self.halted {
            return Err(why.clone());
        }
        self.roll()?;
        let mut end = self.end.clone();
        // A clock set back must not put lines out of order.
        end.noted = end.noted.max(clock.now());
        let mut made = Made { bytes: Vec::new(), end, marks: Marks::new() };
        if let Some(event) = first {
            self.push(&mut made, event.clone(), None)?;
        }
        if lost > 0 {
            let event = noted_here(&made, "events_lost", lost_text(lost));
            self.push(&mut made, event, None)?;
        }
        for task in batch {
            match &task.report {
                None => {
                    for event in &task.events {
                        self.push(&mut made, event.clone(), None)?;
                    }
                }
                Some((node, series, number)) => {
                    self.push_report(&mut made, &task.events, (node, series, *number))?;
                }
            }
        }
        if made.bytes.is_empty() {
            // All was reported before.
            return Ok(());
        }
        self.store(&made.bytes)?;
        self.end = made.end;
        self.marks.append(&mut made.marks);
        self.current.to = self.end.noted;
        self.shared.grew(&self.current, &self.end);
        Ok(())
    }

    /// What a node reports, but not what it reported before; and what it leaves out.
    fn push_report(
        &self,
        made: &mut Made,
        events: &[Event],
        (node, series, first): (&NodeId, &String, u64),
    ) -> Result<(), Error> {
        let known = made.marks.get(node).or_else(|| self.marks.get(node)).cloned();
        let after = match &known {
            Some(mark) if mark.series == *series => mark.number,
            _ => 0,
        };
        let fault = match &known {
            Some(mark) if mark.series != *series => Some((
                "reports_begin_anew",
                format!("its count {} ended at {}", mark.series, mark.number),
            )),
            _ if first > after.saturating_add(1) => {
                let text = format!("its reports {} to {} did not come", after + 1, first - 1);
                Some(("reports_missing", text))
            }
            _ => None,
        };
        if let Some((what, why)) = fault {
            let mut event = noted_here(made, what, why);
            event.who = format!("node {node}");
            event.node = Some(node.clone());
            self.push(made, event, None)?;
        }
        for (number, event) in (first..).zip(events) {
            if number <= after {
                continue;
            }
            let mut event = event.clone();
            event.node = Some(node.clone());
            let reported = Reported { series: series.clone(), number };
            self.push(made, event, Some(reported))?;
            let mark = Mark { series: series.clone(), number };
            made.marks.insert(node.clone(), mark);
        }
        Ok(())
    }

    fn push(&self, made: &mut Made, event: Event, reported: Option<Reported>) -> Result<(), Error> {
        let line = Line {
            site: self.shared.site.clone(),
            number: made.end.number.saturating_add(1),
            prev: std::mem::take(&mut made.end.hash),
            noted: made.end.noted,
            reported,
            event,
        };
        let begin = made.bytes.len();
        serde_json::to_writer(&mut made.bytes, &line)
            .map_err(|e| Error::internal(format!("cannot encode an event: {e}")))?;
        made.end.number = line.number;
        made.end.hash = hash(&made.bytes[begin..]);
        made.bytes.push(b'\n');
        Ok(())
    }

    /// Begins a new file if the current one is long enough.
    fn roll(&mut self) -> Result<(), Error> {
        if self.current.len < self.shared.segment_bytes {
            return Ok(());
        }
        let dir = &self.shared.dir;
        // Opening reads no further back than the newest file.
        files::write_marks(dir, &self.marks)?;
        let next = self.end.number.saturating_add(1);
        let (segment, file) = files::create(dir, next, self.end.noted)?;
        self.current = segment;
        self.file = file;
        Ok(())
    }

    /// Writes behind the last line and syncs; a write that failed half-way is taken back.
    fn store(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let at = self.current.len;
        if let Err(e) = self.file.write_all_at(bytes, at) {
            let error = files::failed(&self.current.path, &e);
            if let Err(undo) = self.file.set_len(at) {
                self.halt(format!("{}; taking it back failed: {undo}", error.message));
            }
            return Err(error);
        }
        if let Err(e) = self.file.sync_data() {
            // Nobody knows what the disk holds now, and trying again would not tell.
            let path = self.current.path.display();
            return Err(self.halt(format!("syncing {path} failed: {e}")));
        }
        self.current.len += bytes.len() as u64;
        Ok(())
    }

    fn halt(&mut self, cause: String) -> Error {
        let why = Error::internal(format!("the audit has stopped: {cause}"))
            .hint("check the disk, then restart the core");
        self.halted = Some(why.clone());
        why
    }
}

fn lost_text(lost: u64) -> String {
    format!("{lost} events before this one could not be stored: too many at once, or a full disk")
}

fn noted_here(made: &Made, what: &str, why: String) -> Event {
    Event { outcome: Outcome::Failed, why, ..Event::new(made.end.noted, what) }
}

fn answer(given: Given, result: Result<(), Error>) {
    // Who does not wait does not want to know.
    let _unheard = given.send(result);
}
