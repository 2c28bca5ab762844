//! The one thread that writes: takes all that waits, writes it with one call, syncs once, and then
//! gives all receipts.

use super::Shared;
use super::files::{self, Mark, Marks, Segment};
use super::open::{End, Opened};
use super::queue::{Queue, Task, answer};
use super::walk::hash;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;
use xos_api::audit::{Event, Line, Outcome, Reported};
use xos_base::when::Clock;
use xos_base::{Error, Millis, NodeId};

/// How often it is looked how much space is free.
const LOOKED_EVERY: Duration = Duration::from_secs(5);

/// Serves until the queue is closed and empty.
pub(super) fn run(queue: &Queue, shared: Arc<Shared>, clock: &dyn Clock, opened: Opened) {
    let _refuse = RefuseAfter(queue);
    let Opened { lock, segments, file, end, marks, damage } = opened;
    let Some(current) = segments.last().cloned() else { return };
    let (halted, looked) = (None, None);
    let mut writer = Writer { shared, current, file, end, marks, halted, looked, _lock: lock };
    let mut first = damage;
    while let Some((batch, lost)) = queue.take() {
        let written = writer.write_all(&batch, lost, first.as_ref(), clock);
        match &written {
            Ok(()) => first = None,
            Err(error) => {
                let dir = &writer.shared.dir;
                tracing::error!(%error, dir = %dir.display(), "events are not in the audit");
                queue.put_off(&batch, lost);
                writer.shared.space.untold();
                writer.looked = None;
            }
        }
        for task in batch {
            queue.ended(&task);
            answer(task.given, written.clone());
        }
    }
}

/// However the writer ends, nobody may wait for it any more.
struct RefuseAfter<'q>(&'q Queue);

impl Drop for RefuseAfter<'_> {
    fn drop(&mut self) {
        self.0.abandon();
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
    /// When it was last looked how much space is free.
    looked: Option<Millis>,
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
        if let Some((what, why)) = self.look(clock.now()) {
            let event = noted_here(&made, what, why);
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

    /// What is to be noted of the space that is free, looked at now and then.
    fn look(&mut self, now: Millis) -> Option<(&'static str, String)> {
        let due = self.looked.is_none_or(|at| now.since(at).max(at.since(now)) >= LOOKED_EVERY);
        if !due {
            return None;
        }
        self.looked = Some(now);
        match (self.shared.free)(&self.shared.dir) {
            Ok(free) => self.shared.space.turn(free),
            Err(error) => {
                tracing::warn!(%error, "how much space is free for the audit is not known");
                None
            }
        }
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
