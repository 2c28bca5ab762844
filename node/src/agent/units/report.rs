//! Reports envelopes' events to the core, each until it is acknowledged.

use super::super::Agent;
use super::{fault, names};
use crate::event::{Cause, Cursor, Entry, Event, Outcome, UnitUsage};
use crate::output;
use crate::shim::Stream;
use crate::spec::UnitKey;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use xos_api::aem::{INLINE_OUTPUT_MAX, InlineOutput, UnitEnd, Usage};
use xos_api::node::units::{BATCH_MAX, EnvelopeId, UnitChange, UnitEvent, UnitEvents};
use xos_base::Error;
use xos_net::control::Control;

/// Pause after a report that the core did not take.
const PAUSE: Duration = Duration::from_millis(500);

/// "File size limit exceeded" (signal(7)).
const SIGXFSZ: u8 = 25;

/// A place in an envelope's log. The core numbers only the events about units, from 1.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    /// Where the log goes on.
    cursor: Cursor,
    /// The core's number of the last event before it.
    number: u64,
}

impl Agent {
    /// Reports every envelope's events on `control` until this future is dropped.
    pub(in super::super) async fn report_units(self: Arc<Agent>, control: Arc<Control>) {
        let mut changed = self.units.changed.subscribe();
        let mut running: HashMap<EnvelopeId, Task> = HashMap::new();
        loop {
            let ids: Vec<EnvelopeId> = self.units.lock().keys().cloned().collect();
            running.retain(|id, task| ids.contains(id) && !task.0.is_finished());
            for id in ids {
                running.entry(id.clone()).or_insert_with(|| {
                    let (agent, control) = (self.clone(), control.clone());
                    Task(tokio::spawn(async move { agent.report_one(&control, id).await }))
                });
            }
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    async fn report_one(&self, control: &Control, id: EnvelopeId) {
        loop {
            match self.follow(control, &id).await {
                Ok(()) => return,
                Err(e) => tracing::warn!(job = %id.job, error = %e, "events not reported yet"),
            }
            tokio::select! {
                () = control.closed() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// The number of an envelope's last event about a unit.
    pub(super) async fn last_event(&self, id: &EnvelopeId) -> Result<u64, Error> {
        let events = self.records(id).await?.iter().filter(|e| is_unit(e)).count();
        Ok(events as u64)
    }

    /// Whether a run of a unit is over.
    pub(super) async fn is_over(&self, id: &EnvelopeId, key: &UnitKey) -> Result<bool, Error> {
        let over = |e: &Entry| matches!(&e.event, Event::Ended { unit, .. } if unit == key);
        Ok(self.records(id).await?.iter().any(over))
    }

    /// All records that are there now.
    async fn records(&self, id: &EnvelopeId) -> Result<Vec<Entry>, Error> {
        let name = names::envelope(id)?;
        let mut events = self.units.envelopes.events(&name, Cursor::default()).map_err(fault)?;
        let mut all = Vec::new();
        while let Some(entries) = events.ready().await.map_err(fault)? {
            all.extend(entries.into_iter().map(|(e, _)| e));
        }
        Ok(all)
    }
}

impl Agent {
    /// Reports one envelope from where the core has it, until it is over and all is stored.
    async fn follow(&self, control: &Control, id: &EnvelopeId) -> Result<(), Error> {
        let Some(known) = self.units.get(id) else { return Ok(()) };
        let name = names::envelope(id)?;
        // An empty report asks the core up to where it has the events.
        let after = known.stored.number;
        let ack =
            control.call(UnitEvents { envelope: id.clone(), after, events: Vec::new() }).await?;
        if ack.unknown {
            return self.units.forget(id).await;
        }
        let mut place = if ack.stored < after { Place::default() } else { known.stored };
        let mut events = match &known.live {
            Some(live) => live.events(place.cursor),
            None => self.units.envelopes.events(&name, place.cursor).map_err(fault)?,
        };
        let spool = self.units.envelopes.spool(&name);
        let spool = known.want_output.then_some(spool.as_path());
        while let Some(entries) = events.next().await.map_err(fault)? {
            for chunk in entries.chunks(BATCH_MAX) {
                // What the core has already, it is not sent again.
                let behind = ack.stored.saturating_sub(place.number);
                let fresh: Vec<UnitEvent> = chunk
                    .iter()
                    .filter(|(e, _)| is_unit(e))
                    .skip(usize::try_from(behind).unwrap_or(usize::MAX))
                    .filter_map(|(e, _)| unit_event(e, spool))
                    .collect();
                let units = chunk.iter().filter(|(e, _)| is_unit(e)).count() as u64;
                let end = place.number + units;
                if !fresh.is_empty() {
                    let after = end - fresh.len() as u64;
                    let report = UnitEvents { envelope: id.clone(), after, events: fresh };
                    let ack = control.call(report).await?;
                    if ack.unknown {
                        return self.units.forget(id).await;
                    }
                    if ack.stored < end {
                        return Err(Error::unavailable("the core has stored less than was sent"));
                    }
                }
                place = Place {
                    cursor: chunk.last().map(|(_, c)| *c).unwrap_or(place.cursor),
                    number: end,
                };
                if let Some(known) = self.units.lock().get_mut(id) {
                    known.stored = place;
                }
            }
        }
        // Over: its records stay until the core ends it; nothing can be started in it any more.
        if let Some(known) = self.units.lock().get_mut(id) {
            known.live = None;
        }
        Ok(())
    }
}

/// Ends with its holder.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Whether the core hears of a record. Those with names that no core gave count too, so that
/// numbers stay the same whoever counts.
fn is_unit(e: &Entry) -> bool {
    matches!(e.event, Event::Starting { .. } | Event::Ended { .. })
}

fn unit_event(e: &Entry, spool: Option<&Path>) -> Option<UnitEvent> {
    let (key, what) = match &e.event {
        Event::Starting { unit } => (unit, UnitChange::Started),
        Event::Ended { unit, outcome, usage } => {
            let usage = usage.unwrap_or_default();
            let output = spool.and_then(|s| inline(s, unit, &usage));
            (unit, UnitChange::Ended { how: ended(outcome), usage: used(&usage), output })
        }
        Event::Opened { .. } | Event::Taken { .. } | Event::Closed { .. } => return None,
    };
    let (unit, attempt) = names::read_unit(key)?;
    Some(UnitEvent { unit, attempt, at: e.at, what })
}

fn used(u: &UnitUsage) -> Usage {
    Usage {
        wall_ms: u.ended.0.saturating_sub(u.started.0),
        cpu_ms: u.user_us.saturating_add(u.system_us) / 1000,
        memory_bytes: u.max_rss_bytes,
    }
}

fn ended(outcome: &Outcome) -> UnitEnd {
    match outcome {
        Outcome::Exited { cause: Some(c), .. } | Outcome::Signaled { cause: Some(c), .. } => {
            match c {
                Cause::Asked | Cause::EnvelopeEnded => UnitEnd::Cancelled,
                Cause::WallLimit => UnitEnd::WallTime,
                Cause::MemoryLimit => UnitEnd::OutOfMemory,
                // As the kernel ends a program that writes beyond RLIMIT_FSIZE.
                Cause::SpoolLimit => UnitEnd::Signal { signal: SIGXFSZ },
                Cause::InitDied => UnitEnd::Lost { reason: "its envelope died".into() },
            }
        }
        Outcome::Exited { code, cause: None } => UnitEnd::Exit { code: *code },
        Outcome::Signaled { signal, cause: None } => UnitEnd::Signal { signal: *signal },
        Outcome::StartFailed { reason, .. } => {
            UnitEnd::NotStarted { reason: reason.chars().take(400).collect() }
        }
        Outcome::Cancelled => UnitEnd::Cancelled,
        Outcome::Lost => UnitEnd::Lost { reason: "the node stopped while it ran".into() },
    }
}

/// The whole output, when it is short.
fn inline(spool: &Path, unit: &UnitKey, usage: &UnitUsage) -> Option<InlineOutput> {
    let total = usage.stdout_bytes.saturating_add(usage.stderr_bytes);
    if total > INLINE_OUTPUT_MAX as u64 {
        return None;
    }
    let read = |stream, bytes: u64| {
        if bytes == 0 {
            return Some(String::new());
        }
        match output::read(spool, unit, stream, 0, INLINE_OUTPUT_MAX) {
            Ok(piece) => Some(STANDARD.encode(piece.bytes)),
            Err(e) => {
                tracing::info!(error = %e, "output does not come with the unit's end");
                None
            }
        }
    };
    Some(InlineOutput {
        stdout: read(Stream::Stdout, usage.stdout_bytes)?,
        stderr: read(Stream::Stderr, usage.stderr_bytes)?,
    })
}
