//! The units that the core orders: starts them in envelopes, and reports what became of them.

mod names;
mod plan;
mod report;

use super::Agent;
use super::machine;
use super::ops::on;
use crate::envelopes::{Attached, CallError, Envelope, EnvelopeError, Envelopes};
use crate::event::Cursor;
use crate::output;
use crate::proto::{Refusal, StartAnswer};
use crate::shim::Stream;
use crate::spec::{EnvelopeSpec, SLOTS_MAX, SPOOL_BYTES_DEFAULT};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use report::Place;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use xos_api::Done;
use xos_api::aem::{OUTPUT_PART_MAX, OutputPart, OutputStream};
use xos_api::node::units::{
    BATCH_MAX, EndEnvelope, EnvelopeId, EnvelopeStatus, KillUnits, ListEnvelopes, StartUnits,
    UnitOutput, UnitsTaken,
};
use xos_api::vom::AccountState;
use xos_base::Error;
use xos_net::Router;

/// Between SIGTERM and SIGKILL when an envelope is ended.
const END_GRACE: Duration = Duration::from_secs(2);

/// The node's envelopes.
pub struct Units {
    envelopes: Envelopes,
    stager: PathBuf,
    known: Mutex<HashMap<EnvelopeId, Known>>,
    changed: watch::Sender<u64>,
    /// Held while an envelope is made, so that two orders make one.
    making: tokio::sync::Mutex<()>,
}

/// An envelope on this node.
#[derive(Clone)]
struct Known {
    /// Its shim, while it lives.
    live: Option<Envelope>,
    /// Whether short output comes with a unit's end.
    want_output: bool,
    /// Up to where the core has stored its events.
    stored: Place,
}

impl Units {
    /// Re-attaches to the envelopes that an earlier `xosd` left.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when they cannot be listed.
    pub async fn open(envelopes: Envelopes) -> Result<Units, Error> {
        let mut known = HashMap::new();
        for attached in envelopes.attach_all().await.map_err(fault)? {
            let (id, live) = match attached {
                Attached::Alive(envelope) => (envelope.spec().id.clone(), Some(*envelope)),
                Attached::Over { id, lost } => {
                    tracing::warn!(%id, lost, "an envelope ended without xosd");
                    (id, None)
                }
                Attached::Unclear { id, error } => {
                    tracing::error!(%id, %error, "an envelope cannot be made out");
                    continue;
                }
            };
            match names::read_envelope(&id) {
                Some(api) => {
                    let stored = Place::default();
                    known.insert(api, Known { live, want_output: false, stored });
                }
                None => tracing::warn!(%id, "an envelope that no core ordered"),
            }
        }
        let stager = std::env::current_exe()
            .map_err(|e| Error::internal(format!("cannot find this program: {e}")))?;
        Ok(Units {
            envelopes,
            stager,
            known: Mutex::new(known),
            changed: watch::channel(0).0,
            making: tokio::sync::Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<EnvelopeId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: &EnvelopeId) -> Option<Known> {
        self.lock().get(id).cloned()
    }

    fn put(&self, id: &EnvelopeId, live: Envelope, want_output: bool) {
        let stored = Place::default();
        self.lock().insert(id.clone(), Known { live: Some(live), want_output, stored });
        self.changed.send_modify(|n| *n += 1);
    }

    /// Holds the work of members who are suspended, ends that of members who are no more, and lets
    /// the others' go on. `state` says of a uid where its member stands; uids it does not know
    /// are no members'.
    pub(super) async fn enforce(&self, state: impl Fn(u32) -> AccountState) {
        let live: Vec<Envelope> = self.lock().values().filter_map(|k| k.live.clone()).collect();
        for envelope in live {
            let (id, account) = (&envelope.spec().id, &envelope.spec().account);
            let done = match state(account.uid) {
                AccountState::Active => envelope.freeze(false).await,
                AccountState::Suspended => envelope.freeze(true).await,
                AccountState::Ended => {
                    tracing::info!(%id, name = account.name, "ended: its member is no more");
                    match envelope.freeze(false).await {
                        Ok(()) => envelope.kill_all(Duration::ZERO).await,
                        Err(e) => Err(e),
                    }
                }
            };
            match done {
                Ok(()) | Err(EnvelopeError::Call(CallError::Gone)) => {}
                Err(error) => tracing::error!(%id, %error, "an envelope does not obey"),
            }
        }
    }

    /// Ends what runs in an envelope and removes its records. Unknown ones are no error.
    async fn forget(&self, id: &EnvelopeId) -> Result<(), Error> {
        let Some(known) = self.get(id) else { return Ok(()) };
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
        self.changed.send_modify(|n| *n += 1);
        Ok(())
    }
}

fn fault(e: EnvelopeError) -> Error {
    match e {
        EnvelopeError::Spec(e) => Error::invalid(e.to_string()),
        EnvelopeError::Call(e) => Error::unavailable(e.to_string()),
        other => Error::internal(other.to_string()),
    }
}

impl Agent {
    pub(super) fn register_units(self: Arc<Agent>, router: &mut Router) {
        let agent = self;
        on(
            router,
            &agent,
            |agent: Arc<Agent>, r: StartUnits| async move { agent.start_units(r).await },
        );
        on(router, &agent, |agent: Arc<Agent>, r: KillUnits| async move {
            agent.kill_units(r).await?;
            Ok(Done {})
        });
        on(router, &agent, |agent: Arc<Agent>, r: EndEnvelope| async move {
            agent.units.forget(&r.envelope).await?;
            Ok(Done {})
        });
        on(router, &agent, |agent: Arc<Agent>, _: ListEnvelopes| async move {
            agent.list_envelopes().await
        });
        on(
            router,
            &agent,
            |agent: Arc<Agent>, r: UnitOutput| async move { agent.unit_output(r).await },
        );
    }

    async fn start_units(&self, order: StartUnits) -> Result<UnitsTaken, Error> {
        if order.units.len() > BATCH_MAX {
            return Err(Error::too_large(format!("at most {BATCH_MAX} units at a time")));
        }
        let held = self.take_ticket(&order.ticket)?;
        if held.membership.vo != order.vo {
            return Err(Error::invalid("the ticket is for another VO than the units"));
        }
        let local = machine::local_users()?;
        let account = {
            let vos = self.lock_vos();
            plan::account(vos.vo(&order.vo), &held.membership, &self.config.homes, &local)?
        };
        let specs: Result<Vec<_>, Error> = order
            .units
            .iter()
            .map(|u| plan::unit(&order, u, &account, &self.node, &self.units.stager))
            .collect();
        let specs = specs?;
        let (homes, owner) = (self.config.homes.clone(), account.clone());
        tokio::task::spawn_blocking(move || crate::home::ensure(&homes, &owner))
            .await
            .map_err(|e| Error::internal(format!("making a home failed: {e}")))??;
        let envelope = self.envelope_for(&order, account).await?;
        let answers = envelope.start_units(specs).await.map_err(fault)?;
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

    async fn envelope_for(
        &self,
        order: &StartUnits,
        account: crate::spec::Account,
    ) -> Result<Envelope, Error> {
        let _making = self.units.making.lock().await;
        if let Some(known) = self.units.get(&order.envelope) {
            return known.live.ok_or_else(|| {
                Error::conflict("that envelope is over").hint("take the next serial")
            });
        }
        let spec = EnvelopeSpec {
            id: names::envelope(&order.envelope)?,
            account,
            limits: plan::limits(&order.room, &order.task),
            slots: order.room.slots.clamp(1, SLOTS_MAX),
            spool_bytes_max: SPOOL_BYTES_DEFAULT,
        };
        let envelope = self.units.envelopes.start(spec).await.map_err(fault)?;
        self.units.put(&order.envelope, envelope.clone(), order.want_output);
        Ok(envelope)
    }

    async fn kill_units(&self, r: KillUnits) -> Result<(), Error> {
        let Some(live) = self.units.get(&r.envelope).and_then(|k| k.live) else { return Ok(()) };
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

    async fn list_envelopes(&self) -> Result<xos_api::node::units::Envelopes, Error> {
        let ids: Vec<EnvelopeId> = self.units.lock().keys().cloned().collect();
        let mut envelopes = Vec::new();
        for envelope in ids {
            let last = self.last_event(&envelope).await?;
            envelopes.push(EnvelopeStatus { envelope, last });
        }
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_err(|e| Error::internal(format!("cannot read the boot id: {e}")))?;
        Ok(xos_api::node::units::Envelopes { boot: boot.trim().to_owned(), envelopes })
    }

    async fn unit_output(&self, r: UnitOutput) -> Result<OutputPart, Error> {
        let name = names::envelope(&r.envelope)?;
        let key = names::unit(&r.envelope, r.unit, r.attempt)?;
        if self.units.get(&r.envelope).is_none() {
            return Err(Error::not_found(format!("no envelope of job {} here", r.envelope.job)));
        }
        let stream = match r.stream {
            OutputStream::Stdout => Stream::Stdout,
            OutputStream::Stderr => Stream::Stderr,
        };
        let spool = self.units.envelopes.spool(&name);
        let over = self.is_over(&r.envelope, &key).await?;
        let limit = r.limit.min(OUTPUT_PART_MAX) as usize;
        let piece = tokio::task::spawn_blocking(move || {
            output::read(&spool, &key, stream, r.offset, limit)
        })
        .await
        .map_err(|e| Error::internal(format!("reading output failed: {e}")))?
        .map_err(|e| Error::unavailable(e.to_string()))?;
        let end = r.offset.saturating_add(piece.bytes.len() as u64);
        Ok(OutputPart { data: STANDARD.encode(&piece.bytes), eof: over && end >= piece.total })
    }
}
