//! The host's part: what goes to nodes.

mod tickets;

use crate::core::{Core, lock};
use crate::owner::{cut, may_pass};
use crate::plan::owner::Reach;
use crate::state::host::{Hosted, HostedTask, Stage};
use crate::state::record::Decision;
use crate::state::{HostRecord, State, runs};
use crate::work::Next;
use std::sync::Arc;
use xos_api::aem::{Carried, UnitRun};
use xos_api::node::units::{
    BATCH_MAX, EndEnvelope, EnvelopeId, KillUnits, Room, StartUnits, UnitOrder,
};
use xos_base::{Error, JobId, Kind, NodeId, SiteId, VoId};

/// Most bytes of a reason that somebody else gave.
pub(crate) const REASON_MAX: usize = 512;

/// A job, one of its envelopes, and the units there that have not ended.
type GoingOn = (JobId, u32, Vec<u32>);

/// What is to be sent to one envelope.
pub(crate) struct Batch {
    room: Room,
    task: HostedTask,
    units: Vec<UnitOrder>,
    attempt: u16,
    carried: Option<Box<Carried>>,
}

impl Batch {
    pub(crate) fn order(
        self,
        envelope: EnvelopeId,
        vo: VoId,
        site: SiteId,
        ticket: String,
    ) -> StartUnits {
        StartUnits {
            envelope,
            vo,
            site,
            ticket,
            room: self.room,
            task: (*self.task.spec).clone(),
            units: self.units,
            want_output: self.task.want_output,
            carried: self.carried,
        }
    }
}

/// What an envelope's node has not confirmed: units of one task and one attempt.
pub(crate) fn next_batch(s: &State, job: &JobId, serial: u32) -> Option<Batch> {
    let p = s.hosted.placement(job)?;
    let e = p.envelopes.get(&serial)?;
    let first = e.unconfirmed.first()?;
    let h = p.units.get(first)?;
    let task = p.tasks.get(&h.task)?.clone();
    let carried = p.carried.get(first).cloned();
    let alone = |u: &u32| u == first || (carried.is_none() && !p.carried.contains_key(u));
    let like = |u: &&u32| {
        let same = |x: &Hosted| x.task == h.task && x.attempt == h.attempt;
        p.units.get(*u).is_some_and(same) && alone(u)
    };
    let order = |u: &u32| {
        let index = task.spec.array.index(u.checked_sub(task.first)?)?;
        Some(UnitOrder { unit: *u, index, attempt: h.attempt })
    };
    let units = e.unconfirmed.iter().filter(like).filter_map(order);
    let units: Vec<UnitOrder> = units.take(BATCH_MAX).collect();
    Some(Batch {
        room: Room {
            slots: e.slots,
            cpu_milli: e.cpu_milli.saturating_mul(e.slots),
            memory_bytes: e.memory_bytes.saturating_mul(e.slots.into()),
        },
        units,
        attempt: h.attempt,
        task,
        carried,
    })
}

impl Core {
    pub(crate) async fn do_send(self: &Arc<Self>, job: &JobId, serial: u32) -> Next {
        let recipient = self.ledger.read(|s| {
            let p = s.hosted.placement(job)?;
            let node = p.envelopes.get(&serial)?.node.clone();
            Some((node, p.vo.clone(), p.member.clone(), p.mandate.to_string()))
        });
        let Some((node, vo, member, mandate)) = recipient else { return Next::Rest };
        let envelope = (job.clone(), serial);
        loop {
            if !self.is_ready(&node) {
                // Sent when the node is back.
                return Next::Rest;
            }
            let ticket = self.ticket_for(&vo, &member, &node, &mandate).await;
            let gate = self.gate(&node);
            let _sending = gate.read().await;
            let batch = self.ledger.read_stored(|s| next_batch(s, job, serial)).await;
            let b = match batch {
                Ok(Some(b)) if self.is_ready(&node) => b,
                Ok(Some(_)) => return Next::Rest,
                Ok(None) => {
                    lock(&self.unanswered).remove(&envelope);
                    return Next::Rest;
                }
                Err(error) => {
                    tracing::info!(%error, %job, %node, "an order is not stored yet");
                    return Next::Later;
                }
            };
            let units = runs::pack(b.units.iter().map(|u| u.unit));
            let attempt = b.attempt;
            let called = ticket.is_ok();
            let sent = match ticket {
                Ok(ticket) => {
                    let envelope = EnvelopeId { job: job.clone(), serial };
                    let order = b.order(envelope, vo.clone(), self.site.clone(), ticket.ticket);
                    self.world.start_units(&node, order).await.map(|_| ())
                }
                Err(e) => Err(e),
            };
            let record = match sent {
                Ok(()) => HostRecord::Held { job: job.clone(), serial, units, attempt },
                Err(e) if may_pass(e.kind) => {
                    if called {
                        lock(&self.unanswered).insert(envelope);
                    }
                    if e.kind == Kind::Conflict {
                        // The ticket is of an epoch that is over.
                        self.give_up_ticket(&member, &node);
                    }
                    tracing::info!(error = %e, %job, %node, "units wait for their node");
                    return Next::Later;
                }
                Err(e) => {
                    tracing::warn!(error = %e, %job, %node, "units cannot be started");
                    let envelope = EnvelopeId { job: job.clone(), serial };
                    if self.refused(envelope, &node, (units, attempt), &e).await.is_err() {
                        return Next::Later;
                    }
                    continue;
                }
            };
            if self.put_and_place(record).await.is_err() {
                return Next::Later;
            }
        }
    }

    /// Stores what became of units, and plans by it.
    async fn put_and_place(self: &Arc<Self>, record: HostRecord) -> Result<(), Error> {
        self.commit(|txn| {
            txn.put(record);
            self.place(txn, Reach::Quick);
            Ok(())
        })
        .await
    }

    /// Units will not be sent any more. After an order without an answer they may run all the same:
    /// then they are lost, and killed. Those that have ended meanwhile are not meant, though they
    /// may be here anew.
    async fn refused(
        self: &Arc<Self>,
        envelope: EnvelopeId,
        node: &NodeId,
        (units, attempt): (Vec<UnitRun>, u16),
        why: &Error,
    ) -> Result<(), Error> {
        let EnvelopeId { job, serial } = envelope.clone();
        let may_run = lock(&self.unanswered).contains(&(job.clone(), serial));
        let what = if may_run {
            let text = format!("node {node} did not answer for it, and may not run it now: {why}");
            Decision::Lost { reason: cut(&text, REASON_MAX) }
        } else {
            Decision::NotStarted { reason: cut(&why.to_string(), REASON_MAX) }
        };
        let (at, of) = (self.now(), job.clone());
        let list = self
            .commit(|txn| {
                let p = txn.state().hosted.placement(&of);
                let list = p.map(|p| p.sent(serial, attempt, &units)).unwrap_or_default();
                let units = runs::pack(list.iter().copied());
                txn.put(HostRecord::Decided { job: of, at, units, what });
                self.place(txn, Reach::Quick);
                Ok(list)
            })
            .await?;
        if may_run {
            self.kill_decided(&job, serial, node, list).await;
        }
        Ok(())
    }

    /// Kills units of which it is decided already that they are over.
    async fn kill_decided(&self, job: &JobId, serial: u32, node: &NodeId, units: Vec<u32>) {
        let envelope = EnvelopeId { job: job.clone(), serial };
        let grace_ms = self.config.kill_grace_ms;
        let request = KillUnits { envelope, units: Some(units), grace_ms };
        // A node whose connection broke is greeted anew, and what is stray there is killed.
        if let Err(error) = self.world.kill_units(node, request).await {
            tracing::warn!(%error, %job, %node, "units that may run are not killed");
        }
    }

    /// Ends what goes on of somebody whom rules do not let run jobs here any more.
    async fn end_denied(self: &Arc<Self>, node: &NodeId, going_on: Vec<GoingOn>, why: &str) {
        for (job, serial, list) in going_on {
            let what = Decision::Lost { reason: cut(&format!("ended: {why}"), REASON_MAX) };
            let units = runs::pack(list.iter().copied());
            let (at, of) = (self.now(), job.clone());
            let decided = HostRecord::Decided { job: of, at, units, what };
            match self.put_and_place(decided).await {
                Ok(()) => self.kill_decided(&job, serial, node, list).await,
                Err(error) => {
                    tracing::warn!(%error, %job, %node, "units that rules deny go on: later");
                }
            }
        }
    }

    fn is_ready(&self, node: &NodeId) -> bool {
        lock(&self.host).nodes.get(node).is_some_and(|n| n.boot.is_some())
    }

    /// Kills what is cancelled, ends envelopes that are forgotten.
    pub(crate) async fn do_tend(self: &Arc<Self>, job: &JobId) -> Next {
        let due = self.ledger.read_stored(|s| {
            let Some(p) = s.hosted.placement(job) else { return (Vec::new(), Vec::new()) };
            let mut kill: std::collections::BTreeMap<u32, Vec<u32>> = Default::default();
            for (unit, h) in &p.units {
                if let (true, Stage::Sent { serial } | Stage::Running { serial, .. }) =
                    (h.cancel, h.stage)
                {
                    kill.entry(serial).or_default().push(*unit);
                }
            }
            let node = |serial: u32| p.envelopes.get(&serial).map(|e| e.node.clone());
            let kill = kill.into_iter().filter_map(|(s, u)| Some((s, node(s)?, u))).collect();
            let end = p.envelopes.iter().filter(|(_, e)| p.forgotten && e.open.is_empty());
            (kill, end.map(|(serial, e)| (*serial, e.node.clone())).collect::<Vec<_>>())
        });
        let (kill, end): (Vec<(u32, NodeId, Vec<u32>)>, _) = match due.await {
            Ok(due) => due,
            Err(error) => {
                tracing::info!(%error, %job, "the end of units is not stored yet");
                return Next::Later;
            }
        };
        // Until each is reported ended: a node that gets the units after the order to kill them
        // knows nothing of that order.
        let mut next = if kill.is_empty() { Next::Rest } else { Next::Later };
        for (serial, node, units) in kill {
            let envelope = EnvelopeId { job: job.clone(), serial };
            let grace_ms = self.config.kill_grace_ms;
            let request = KillUnits { envelope, units: Some(units), grace_ms };
            if self.is_ready(&node)
                && let Err(error) = self.world.kill_units(&node, request).await
            {
                tracing::info!(%error, %job, %node, "units are not killed yet");
            }
        }
        for (serial, node) in end {
            let envelope = EnvelopeId { job: job.clone(), serial };
            // A node that is away learns it when it is back.
            if !self.is_ready(&node) {
                continue;
            }
            let ended = self.world.end_envelope(&node, EndEnvelope { envelope }).await;
            let job = job.clone();
            let ended = match ended {
                Ok(_) => {
                    self.commit(|txn| {
                        txn.put(HostRecord::Closed { job, serial });
                        Ok(())
                    })
                    .await
                }
                Err(e) => Err(e),
            };
            if let Err(error) = ended {
                tracing::info!(%error, %node, serial, "an envelope is not ended yet");
                next = Next::Later;
            }
        }
        next
    }

    /// The owner may not learn of more than what is its own.
    pub(crate) fn vos_of(&self, owner: &SiteId) -> Vec<VoId> {
        self.ledger.read(|s| {
            let of = s.hosted.active().filter(|p| p.job.site == *owner);
            let mut vos: Vec<VoId> = of.map(|p| p.vo.clone()).collect();
            vos.sort();
            vos.dedup();
            vos
        })
    }
}

#[cfg(test)]
mod tests;
