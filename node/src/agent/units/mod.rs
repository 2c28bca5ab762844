//! The units that the core orders: starts them in envelopes, and reports what became of them.

mod enforce;
mod fence;
mod names;
mod orders;
mod plan;
mod report;
mod unclear;

pub use fence::Stream;
pub(in crate::agent) use orders::in_background;
pub(in crate::agent) use plan::{PATH, SHELL};
pub use report::Core;

use crate::envelopes::{Attached, CallError, Envelope, EnvelopeError, Envelopes};
use crate::event::Cursor;
use crate::proto::{Refusal, StartAnswer};
use crate::spec::{EnvelopeSpec, Limits, UnitSpec};
use fence::Fence;
use report::{Fresh, Place};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use xos_api::node::units::{EnvelopeId, EnvelopeStatus, KillUnits, UnitsTaken};
use xos_base::Error;

/// Between SIGTERM and SIGKILL when an envelope is ended.
const END_GRACE: Duration = Duration::from_secs(2);
/// How often an envelope is opened for one order; more than once where its shim ends meanwhile.
const OPEN_TRIES_MAX: u32 = 4;
/// How long after an order its record is brought to the disk: the first units go first.
const SYNC_PAUSE: Duration = Duration::from_millis(10);
/// How long a shim that takes no more units may take to end.
const GONE_WAIT: Duration = Duration::from_secs(20);

/// The node's envelopes.
pub struct Units {
    envelopes: Envelopes,
    known: Mutex<HashMap<EnvelopeId, Known>>,
    fence: Fence,
    fresh: Fresh,
    gates: Mutex<HashMap<EnvelopeId, Arc<tokio::sync::Mutex<()>>>>,
    /// Held while members' states are put in force: a later state must not come first.
    enforcing: tokio::sync::Mutex<()>,
}

/// An envelope on this node.
#[derive(Clone)]
struct Known {
    /// Its shim, while it lives.
    live: Option<Envelope>,
    /// Whether it could not be made out: something of it may run. See [`unclear`].
    unclear: bool,
    /// Whether short output comes with a unit's end.
    want_output: bool,
    /// Up to where the core has stored its events.
    stored: Place,
    /// How many processes it may have and how many units at a time, where this daemon knows it.
    room: Option<(u32, u32)>,
    /// Whether this daemon made it: no core had its events before.
    made_here: bool,
}

/// An order to start units.
pub struct Work {
    /// The core's name of the envelope; it is made when it is not there.
    pub envelope: EnvelopeId,
    /// What the envelope is to be.
    pub spec: EnvelopeSpec,
    /// Whether short output comes with a unit's end.
    pub want_output: bool,
    /// The units.
    pub units: Vec<UnitSpec>,
}

/// The right to make or remove one envelope; two orders make one.
struct Gate<'a> {
    units: &'a Units,
    id: EnvelopeId,
    held: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl Drop for Gate<'_> {
    fn drop(&mut self) {
        self.held = None;
        let mut gates = self.units.gates.lock().unwrap_or_else(PoisonError::into_inner);
        // Who waits for it holds it too.
        if gates.get(&self.id).is_some_and(|g| Arc::strong_count(g) == 1) {
            gates.remove(&self.id);
        }
    }
}

impl Units {
    /// Re-attaches to the envelopes that an earlier `xosd` left.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when they cannot be listed.
    pub async fn open(envelopes: Envelopes) -> Result<Units, Error> {
        let mut known = HashMap::new();
        for attached in envelopes.attach_all().await.map_err(fault)? {
            let (id, live, unclear) = match attached {
                Attached::Alive(envelope) => (envelope.spec().id.clone(), Some(*envelope), false),
                Attached::Over { id, lost } => {
                    tracing::warn!(%id, lost, "an envelope ended without xosd");
                    (id, None, false)
                }
                Attached::Unclear { id, error } => {
                    tracing::error!(%id, %error, "an envelope cannot be made out yet");
                    (id, None, true)
                }
            };
            match names::read_envelope(&id) {
                Some(api) => {
                    let stored = Place::default();
                    let (want_output, made_here) = (false, false);
                    let room = live.as_ref().map(|e| (e.spec().limits.pids, e.spec().slots));
                    let found = Known { live, unclear, want_output, stored, room, made_here };
                    known.insert(api, found);
                }
                None => tracing::warn!(%id, "an envelope that no core ordered"),
            }
        }
        let known = Mutex::new(known);
        let (fence, fresh, gates, enforcing) = Default::default();
        Ok(Units { envelopes, known, fence, fresh, gates, enforcing })
    }

    /// The kernel's name of the machine's present run.
    pub(in crate::agent) fn boot(&self) -> &str {
        self.envelopes.boot()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<EnvelopeId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: &EnvelopeId) -> Option<Known> {
        self.lock().get(id).cloned()
    }

    async fn gate(&self, id: &EnvelopeId) -> Gate<'_> {
        let gate = {
            let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
            gates.entry(id.clone()).or_default().clone()
        };
        Gate { units: self, id: id.clone(), held: Some(gate.lock_owned().await) }
    }

    /// A control stream to the core begins: orders of those before are refused from now on.
    pub fn stream(&self) -> Stream {
        self.fence.begin()
    }

    /// What there is, once no order of an earlier stream can add to it.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unavailable`] when the stream is not the newest.
    pub async fn list(&self, stream: Stream) -> Result<Vec<EnvelopeStatus>, Error> {
        self.fence.settle(stream).await?;
        let ids: Vec<EnvelopeId> = self.lock().keys().cloned().collect();
        let names: Result<Vec<_>, Error> = ids.iter().map(names::envelope).collect();
        let last = self.envelopes.last_seqs(names?).await.map_err(fault)?;
        let known = |(envelope, last): (EnvelopeId, Result<u64, EnvelopeError>)| {
            // It is there all the same, and must be in the list.
            let last = last.unwrap_or_else(|error| {
                tracing::error!(%error, "an envelope's events cannot be counted");
                0
            });
            EnvelopeStatus { envelope, last }
        };
        Ok(ids.into_iter().zip(last).map(known).collect())
    }

    /// Starts units, in an envelope that is made if need be. `still` is asked once the envelope
    /// is seen by [`Units::enforce`]: whether the person may still work.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unavailable`] when the stream is not the newest; what `still` says; why
    /// there is no envelope, or why it refuses units. Sending the same again is safe.
    pub async fn start(
        &self,
        stream: Stream,
        work: Work,
        still: impl Fn() -> Result<(), Error>,
    ) -> Result<UnitsTaken, Error> {
        // All or none: some of them would run while the core hears that none does.
        for unit in &work.units {
            unit.check().map_err(|e| Error::invalid(e.to_string()))?;
        }
        let _under_way = self.fence.enter(stream).await?;
        for _ in 0..OPEN_TRIES_MAX {
            let envelope = self.living(&work).await?;
            still()?;
            match envelope.start_units(work.units.clone()).await {
                Ok(answers) if !answers.contains(&StartAnswer::Refused(Refusal::Ending)) => {
                    let taken = taken(answers)?;
                    // From the answer on the core counts on the record of them.
                    tokio::time::sleep(SYNC_PAUSE).await;
                    envelope.sync().await.map_err(fault)?;
                    return Ok(taken);
                }
                // It rests, or died: what it took all the same is known when it is opened again.
                Ok(_) | Err(EnvelopeError::Call(CallError::Gone)) => {}
                Err(e) => return Err(fault(e)),
            }
            if tokio::time::timeout(GONE_WAIT, envelope.gone()).await.is_err() {
                break;
            }
        }
        Err(Error::unavailable("the envelope's shim ends again and again, or does not end"))
    }

    /// The envelope of an order: as it is, opened again, or new.
    async fn living(&self, work: &Work) -> Result<Envelope, Error> {
        let gate = self.gate(&work.envelope).await;
        let known = self.made_out(&gate).await?;
        if let Some(live) = known.as_ref().and_then(|k| k.live.clone())
            && !live.is_gone()
        {
            if live.spec().account.uid != work.spec.account.uid {
                return Err(Error::conflict("that envelope is another person's"));
            }
            self.widen(&live, work).await?;
            return Ok(live);
        }
        let spec = work.spec.clone();
        let room = Some((spec.limits.pids, spec.slots));
        let (envelope, stored, made_here) = match known {
            Some(known) => (self.envelopes.reopen(spec).await, known.stored, known.made_here),
            None => (self.envelopes.start(spec).await, Place::default(), true),
        };
        let envelope = envelope.map_err(fault)?;
        let (live, want_output) = (Some(envelope.clone()), work.want_output);
        let known = Known { live, unclear: false, want_output, stored, room, made_here };
        self.lock().insert(work.envelope.clone(), known);
        self.fresh.put(&work.envelope);
        Ok(envelope)
    }

    /// Gives an envelope that was made for another task of its job the processes that this one asks
    /// for, and no more units at a time than can have them. It never takes any away: units of the
    /// other one may run. To be called with the gate held.
    async fn widen(&self, live: &Envelope, work: &Work) -> Result<(), Error> {
        let (pids, slots) = (work.spec.limits.pids, work.spec.slots);
        let has = self.get(&work.envelope).and_then(|k| k.room);
        let (more, fewer) = has.map_or((true, true), |(p, s)| (pids > p, slots < s));
        let set = async {
            if more {
                live.set_limits(Limits { pids, ..live.spec().limits }).await?;
            }
            if fewer {
                live.set_slots(slots).await?;
            }
            Ok(())
        };
        match set.await {
            // It is opened again, with what is asked for now.
            Err(EnvelopeError::Call(CallError::Gone)) => return Ok(()),
            set => set.map_err(fault)?,
        }
        if let Some(known) = self.lock().get_mut(&work.envelope) {
            let room = has.map_or((pids, slots), |(p, s)| (p.max(pids), s.min(slots)));
            known.room = Some(room);
        }
        Ok(())
    }

    /// A shim was seen to end: its envelope rests, unless it was opened again.
    fn rested(&self, id: &EnvelopeId) {
        if let Some(known) = self.lock().get_mut(id)
            && known.live.as_ref().is_some_and(Envelope::is_gone)
        {
            known.live = None;
        }
    }

    /// Ends units; see [`KillUnits`].
    ///
    /// # Errors
    /// [`xos_base::Kind::Unavailable`] when the stream is not the newest, or the shim does not
    /// answer.
    pub async fn kill(&self, stream: Stream, r: KillUnits) -> Result<(), Error> {
        // An old order would end what a newer stream has started.
        let _under_way = self.fence.enter(stream).await?;
        let Some(live) = self.found(&r.envelope).await?.and_then(|k| k.live) else {
            return Ok(());
        };
        if live.is_gone() {
            // Nothing of it runs.
            return Ok(());
        }
        let grace = Duration::from_millis(r.grace_ms);
        let Some(units) = r.units else {
            return live.kill_all(grace).await.map_err(fault);
        };
        for unit in units {
            // The core names units, the shim knows attempts. Nearly always it is the first; an
            // envelope sees a unit under one attempt after the other.
            let mut seen = false;
            for attempt in 0..=xos_api::aem::RETRY_MAX {
                match live.kill(names::unit(&r.envelope, unit, attempt)?, grace).await {
                    Ok(_) => seen = true,
                    Err(EnvelopeError::Call(CallError::Refused(Refusal::NoSuchUnit(_))))
                        if seen =>
                    {
                        break;
                    }
                    Err(EnvelopeError::Call(CallError::Refused(Refusal::NoSuchUnit(_)))) => {}
                    Err(e) => return Err(fault(e)),
                }
            }
        }
        Ok(())
    }

    /// Ends what runs in an envelope and removes its records. Unknown ones are no error.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unavailable`] when the stream is not the newest; what cannot be ended or
    /// removed.
    pub async fn end(&self, stream: Stream, id: &EnvelopeId) -> Result<(), Error> {
        // Not held: it may take long, and no envelope comes of it.
        drop(self.fence.enter(stream).await?);
        self.forget(id).await
    }

    async fn forget(&self, id: &EnvelopeId) -> Result<(), Error> {
        let gate = self.gate(id).await;
        let Some(known) = self.made_out(&gate).await? else { return Ok(()) };
        let name = names::envelope(id)?;
        if let Some(live) = known.live {
            let mut events = live.events(Cursor::default());
            match live.end(END_GRACE).await {
                Ok(()) => while events.next().await.map_err(fault)?.is_some() {},
                Err(EnvelopeError::Call(e)) => {
                    tracing::info!(%name, error = %e, "the shim is gone already");
                    while events.next().await.map_err(fault)?.is_some() {}
                }
                Err(e) => return Err(fault(e)),
            }
        }
        self.envelopes.forget(&name).await.map_err(fault)?;
        self.lock().remove(id);
        Ok(())
    }
}

fn taken(answers: Vec<StartAnswer>) -> Result<UnitsTaken, Error> {
    let mut taken = UnitsTaken::default();
    for answer in answers {
        match answer {
            StartAnswer::Taken => taken.new += 1,
            StartAnswer::Known(_) => {}
            // Sending the same again is safe: what was taken is known then.
            StartAnswer::Refused(Refusal::Full(n)) => {
                return Err(Error::limited(format!("an envelope holds {n} units at a time")));
            }
            StartAnswer::Refused(other) => return Err(Error::unavailable(other.to_string())),
        }
    }
    Ok(taken)
}

fn fault(e: EnvelopeError) -> Error {
    match e {
        EnvelopeError::Spec(e) => Error::invalid(e.to_string()),
        EnvelopeError::Call(e) => Error::unavailable(e.to_string()),
        EnvelopeError::Torn(_) => Error::unsatisfiable(e.to_string()),
        other => Error::internal(other.to_string()),
    }
}
