//! Reports envelopes' events to the core, each until it is acknowledged.

use super::{Units, fault, names};
use crate::envelopes::{CallError, EnvelopeError};
use crate::event::{Cause, Cursor, Entry, Event, Outcome, UnitUsage};
use crate::output;
use crate::proto::UnitState;
use crate::shim::Stream;
use crate::spec::UnitKey;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::{self, JoinSet};
use xos_api::aem::{INLINE_OUTPUT_MAX, InlineOutput, UnitEnd, Usage};
use xos_api::node::units::{BATCH_MAX, EnvelopeId, EventsAck, UnitChange, UnitEvent, UnitEvents};
use xos_base::Error;
use xos_net::control::Control;

/// Pause after a report that the core did not take.
const PAUSE: Duration = Duration::from_millis(500);

/// How many envelopes without a shim are looked at at a time.
const QUIET_AT_ONCE: usize = 32;

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

/// The core, as reports see it.
pub trait Core: Send + Sync + 'static {
    /// Brings events; the answer says up to where they are stored.
    fn events(&self, events: UnitEvents) -> impl Future<Output = Result<EventsAck, Error>> + Send;
    /// Returns when it can be reached no more this way.
    fn closed(&self) -> impl Future<Output = ()> + Send;
}

impl Core for Control {
    async fn events(&self, events: UnitEvents) -> Result<EventsAck, Error> {
        self.call(events).await
    }

    async fn closed(&self) {
        Control::closed(self).await;
    }
}

/// Envelopes that have, or may have, what the core has not heard of. At most one entry for each
/// envelope.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    ids: Mutex<HashSet<EnvelopeId>>,
    came: Notify,
}

impl Fresh {
    pub(super) fn put(&self, id: &EnvelopeId) {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
        self.came.notify_one();
    }

    /// Waits for some. Dropping the future loses none.
    async fn take(&self) -> HashSet<EnvelopeId> {
        loop {
            let ids = std::mem::take(&mut *self.ids.lock().unwrap_or_else(PoisonError::into_inner));
            if !ids.is_empty() {
                return ids;
            }
            self.came.notified().await;
        }
    }
}

/// The tasks of one control stream, one for each envelope that is looked at.
#[derive(Default)]
struct Followers {
    tasks: JoinSet<()>,
    /// What each task follows, and whether it had no shim when it began.
    of: HashMap<task::Id, (EnvelopeId, bool)>,
    busy: HashSet<EnvelopeId>,
    /// Came anew while their task ran.
    again: HashSet<EnvelopeId>,
    /// Without a shim: they wait, since there may be very many.
    waiting: VecDeque<EnvelopeId>,
    quiet: usize,
}

impl Units {
    /// Reports every envelope's events to `core` until this future is dropped.
    pub async fn report<C: Core>(self: Arc<Units>, core: Arc<C>) {
        let mut followers = Followers::default();
        let all: Vec<EnvelopeId> = self.lock().keys().cloned().collect();
        for id in all {
            self.look_at(&mut followers, &core, id);
        }
        loop {
            while followers.quiet < QUIET_AT_ONCE
                && let Some(id) = followers.waiting.pop_front()
            {
                followers.quiet += 1;
                self.spawn(&mut followers, &core, id, true);
            }
            tokio::select! {
                ids = self.fresh.take() => {
                    for id in ids {
                        self.look_at(&mut followers, &core, id);
                    }
                }
                Some(ended) = followers.tasks.join_next_with_id() => {
                    let (task, failed) = match ended {
                        Ok((task, ())) => (task, None),
                        Err(e) => (e.id(), Some(e)),
                    };
                    let Some((id, quiet)) = followers.of.remove(&task) else { continue };
                    if let Some(error) = failed {
                        tracing::error!(%id, %error, "reporting an envelope failed");
                    }
                    followers.quiet -= usize::from(quiet);
                    followers.busy.remove(&id);
                    if followers.again.remove(&id) {
                        self.look_at(&mut followers, &core, id);
                    }
                }
            }
        }
    }

    fn look_at<C: Core>(self: &Arc<Units>, all: &mut Followers, core: &Arc<C>, id: EnvelopeId) {
        if all.busy.contains(&id) {
            all.again.insert(id);
            return;
        }
        all.busy.insert(id.clone());
        if self.get(&id).is_some_and(|k| k.live.is_some()) {
            self.spawn(all, core, id, false);
        } else {
            all.waiting.push_back(id);
        }
    }

    fn spawn<C: Core>(
        self: &Arc<Units>,
        all: &mut Followers,
        core: &Arc<C>,
        id: EnvelopeId,
        quiet: bool,
    ) {
        let (units, core, envelope) = (self.clone(), core.clone(), id.clone());
        let task = all.tasks.spawn(async move { units.report_one(&*core, envelope).await });
        all.of.insert(task.id(), (id, quiet));
    }

    async fn report_one(&self, core: &impl Core, id: EnvelopeId) {
        loop {
            match self.follow(core, &id).await {
                Ok(()) => return,
                Err(e) => tracing::warn!(job = %id.job, error = %e, "events not reported yet"),
            }
            tokio::select! {
                () = core.closed() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// Whether a run of a unit is over; `None` when there is no such envelope.
    pub(super) async fn is_over(
        &self,
        id: &EnvelopeId,
        key: &UnitKey,
    ) -> Result<Option<bool>, Error> {
        let Some(known) = self.get(id) else { return Ok(None) };
        if known.unclear {
            return Ok(Some(false));
        }
        let state = match known.live {
            Some(live) if !live.is_gone() => live.unit(key.clone()).await,
            // Without a shim nothing runs.
            _ => return Ok(Some(true)),
        };
        match state {
            Ok(state) => Ok(Some(matches!(state, Some(UnitState::Ended(_))))),
            Err(EnvelopeError::Call(CallError::Gone)) => Ok(Some(true)),
            Err(e) => Err(fault(e)),
        }
    }

    /// Reports one envelope from where the core has it, until it rests and all is stored.
    async fn follow(&self, core: &impl Core, id: &EnvelopeId) -> Result<(), Error> {
        // An unclear one comes anew once it is made out.
        let Some(known) = self.get(id).filter(|k| !k.unclear) else { return Ok(()) };
        let name = names::envelope(id)?;
        let after = known.stored.number;
        let mut ack = EventsAck::default();
        if after > 0 || !known.made_here {
            // An empty report asks the core up to where it has the events.
            let ask = UnitEvents { envelope: id.clone(), after, events: Vec::new() };
            ack = core.events(ask).await?;
            if ack.unknown {
                return self.forget(id).await;
            }
        }
        if known.live.is_none() && self.all_told(core, id, after, ack.stored).await? {
            return Ok(());
        }
        let mut place = if ack.stored < after { Place::default() } else { known.stored };
        let mut events = match &known.live {
            Some(live) => live.events(place.cursor),
            None => self.envelopes.events(&name, place.cursor).map_err(fault)?,
        };
        let spool = self.envelopes.spool(&name);
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
                    let ack = core.events(report).await?;
                    if ack.unknown {
                        return self.forget(id).await;
                    }
                    if ack.stored < end {
                        return Err(Error::unavailable("the core has stored less than was sent"));
                    }
                }
                place = Place {
                    cursor: chunk.last().map(|(_, c)| *c).unwrap_or(place.cursor),
                    number: end,
                };
                if let Some(known) = self.lock().get_mut(id) {
                    known.stored = place;
                }
            }
        }
        // Its records stay until the core ends it. The shim lives on for a moment.
        if let Some(live) = known.live {
            live.gone().await;
            self.rested(id);
        }
        Ok(())
    }

    /// Whether the core has all of an envelope without a shim. `after` is what it had before, and
    /// `stored` what it says that it has.
    async fn all_told(
        &self,
        core: &impl Core,
        id: &EnvelopeId,
        after: u64,
        stored: u64,
    ) -> Result<bool, Error> {
        let name = names::envelope(id)?;
        // Most often all of it was reported, and need not be read again.
        let mut last = self.envelopes.last_seqs(vec![name.clone()]).await.map_err(fault)?;
        let last = last.remove(0).map_err(fault)?;
        if after > last && stored >= after {
            // It was torn, and all was told.
            return Ok(true);
        }
        let lost = self.envelopes.ends_by_a_stop(&name).await.map_err(fault)?;
        if stored > last.saturating_sub(lost.len() as u64) {
            // The core has what the stop took from the log, under the numbers of these ends.
            return self.report_lost(core, id, stored, &lost).await.map(|()| true);
        }
        Ok(stored >= last)
    }

    /// Reports the ends of a torn log behind everything that the core has; of units that it knows
    /// to have ended it takes none.
    async fn report_lost(
        &self,
        core: &impl Core,
        id: &EnvelopeId,
        mut after: u64,
        lost: &[Entry],
    ) -> Result<(), Error> {
        for chunk in lost.chunks(BATCH_MAX) {
            let events: Vec<UnitEvent> = chunk.iter().filter_map(|e| unit_event(e, None)).collect();
            let report = UnitEvents { envelope: id.clone(), after, events };
            let ack = core.events(report).await?;
            if ack.unknown {
                return self.forget(id).await;
            }
            after = ack.stored;
        }
        if let Some(known) = self.lock().get_mut(id) {
            known.stored.number = after;
        }
        Ok(())
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
        Outcome::Exited { code, cause } => caused(*cause, UnitEnd::Exit { code: *code }),
        Outcome::Signaled { signal, cause } => caused(*cause, UnitEnd::Signal { signal: *signal }),
        Outcome::StartFailed { reason, .. } => {
            UnitEnd::NotStarted { reason: reason.chars().take(400).collect() }
        }
        Outcome::Cancelled => UnitEnd::Cancelled,
        Outcome::Lost => UnitEnd::Lost { reason: "the node stopped while it ran".into() },
    }
}

/// What stands for an end that looks like `own` from outside.
fn caused(cause: Option<Cause>, own: UnitEnd) -> UnitEnd {
    match cause {
        None => own,
        Some(Cause::Asked | Cause::EnvelopeEnded) => UnitEnd::Cancelled,
        Some(Cause::WallLimit) => UnitEnd::WallTime,
        Some(Cause::MemoryLimit) => UnitEnd::OutOfMemory,
        Some(Cause::ProcessLimit) => UnitEnd::ProcessLimit { status: own.exit_status() },
        // As the kernel ends a program that writes beyond RLIMIT_FSIZE.
        Some(Cause::SpoolLimit) => UnitEnd::Signal { signal: SIGXFSZ },
        Some(Cause::InitDied) => UnitEnd::Lost { reason: "its envelope died".into() },
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
