//! The host's part: what goes to nodes.

use crate::core::{Core, TicketKey, lock};
use crate::owner::{cut, may_pass};
use crate::plan::owner::Reach;
use crate::state::host::{HostedTask, Stage};
use crate::state::record::Decision;
use crate::state::{HostRecord, State, runs};
use crate::work::Next;
use std::sync::Arc;
use xos_api::cda::{IssueTicket, IssuedTicket};
use xos_api::node::SetTicket;
use xos_api::node::units::{
    BATCH_MAX, EndEnvelope, EnvelopeId, KillUnits, RenewTicket, RenewedTicket, Room, StartUnits,
    UnitOrder,
};
use xos_base::{Error, JobId, Kind, Membership, NodeId, SiteId, VoId};
use xos_net::Caller;

/// Most bytes of a reason that somebody else gave.
pub(crate) const REASON_MAX: usize = 512;

/// What is to be sent to one envelope.
struct Batch {
    room: Room,
    task: HostedTask,
    units: Vec<UnitOrder>,
}

fn next_batch(s: &State, job: &JobId, serial: u32) -> Option<Batch> {
    let p = s.hosted.placement(job)?;
    let e = p.envelopes.get(&serial)?;
    let first = e.unconfirmed.first()?;
    let h = p.units.get(first)?;
    let task = p.tasks.get(&h.task)?.clone();
    let like =
        |u: &&u32| p.units.get(u).is_some_and(|x| x.task == h.task && x.attempt == h.attempt);
    let order = |u: &u32| {
        let index = task.spec.array.index(u.checked_sub(task.first)?)?;
        Some(UnitOrder { unit: *u, index, attempt: h.attempt })
    };
    let units = e.unconfirmed.iter().filter(like).filter_map(order);
    Some(Batch {
        room: Room {
            slots: e.slots,
            cpu_milli: e.cpu_milli.saturating_mul(e.slots),
            memory_bytes: e.memory_bytes.saturating_mul(e.slots.into()),
        },
        units: units.take(BATCH_MAX).collect(),
        task,
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
                Ok(_) => return Next::Rest,
                Err(error) => {
                    tracing::info!(%error, %job, %node, "an order is not stored yet");
                    return Next::Later;
                }
            };
            let units = runs::pack(b.units.iter().map(|u| u.unit));
            let sent = match ticket {
                Ok(ticket) => {
                    let request = StartUnits {
                        envelope: EnvelopeId { job: job.clone(), serial },
                        vo: vo.clone(),
                        site: self.site.clone(),
                        ticket: ticket.ticket,
                        room: b.room,
                        task: (*b.task.spec).clone(),
                        units: b.units,
                        want_output: b.task.want_output,
                    };
                    self.world.start_units(&node, request).await.map(|_| ())
                }
                Err(e) => Err(e),
            };
            let record = match sent {
                Ok(()) => HostRecord::Held { job: job.clone(), serial, units },
                Err(e) if may_pass(e.kind) => {
                    if e.kind == Kind::Conflict {
                        // The ticket is of an epoch that is over.
                        self.give_up_ticket(&member, &node);
                    }
                    tracing::info!(error = %e, %job, %node, "units wait for their node");
                    return Next::Later;
                }
                Err(e) => {
                    tracing::warn!(error = %e, %job, %node, "units cannot be started");
                    let reason = cut(&e.to_string(), REASON_MAX);
                    let what = Decision::NotStarted { reason };
                    HostRecord::Decided { job: job.clone(), at: self.now(), units, what }
                }
            };
            let stored = self
                .commit(|txn| {
                    txn.put(record);
                    self.place(txn, Reach::Quick);
                    Ok(())
                })
                .await;
            if stored.is_err() {
                return Next::Later;
            }
        }
    }

    fn is_ready(&self, node: &NodeId) -> bool {
        lock(&self.host).nodes.get(node).is_some_and(|n| n.boot.is_some())
    }

    /// A ticket with enough life left, new when needed.
    async fn ticket_for(
        &self,
        vo: &VoId,
        member: &Arc<Membership>,
        node: &NodeId,
        mandate: &str,
    ) -> Result<IssuedTicket, Error> {
        let key = TicketKey { member: member.clone(), node: node.clone() };
        if let Some(t) = lock(&self.tickets).get(&key)
            && t.expires.since(self.now()) > TICKET_SPARE
        {
            return Ok(t.clone());
        }
        let node_key = lock(&self.host).nodes.get(node).map(|n| n.key.clone());
        let node_key =
            node_key.ok_or_else(|| Error::unavailable(format!("node {node} is not connected")))?;
        let request = IssueTicket { mandate: mandate.to_owned(), node: node.clone(), node_key };
        let ticket = self.world.ticket(&vo.site(), request).await?;
        let mut tickets = lock(&self.tickets);
        tickets.insert(key, ticket.clone());
        let now = self.now();
        tickets.retain(|_, t| t.expires > now);
        Ok(ticket)
    }

    /// Renews tickets of work that goes on.
    pub(crate) async fn renew_tickets(self: &Arc<Self>) {
        let now = self.now();
        let busy = self.ledger.read_stored(|s| {
            let mut list: Vec<(VoId, Arc<Membership>, NodeId, String)> = Vec::new();
            for p in s.hosted.active() {
                for e in p.envelopes.values().filter(|e| !e.open.is_empty()) {
                    let mandate = p.mandate.to_string();
                    list.push((p.vo.clone(), p.member.clone(), e.node.clone(), mandate));
                }
            }
            list
        });
        let busy = match busy.await {
            Ok(busy) => busy,
            Err(error) => return tracing::info!(%error, "tickets are renewed later"),
        };
        let mut seen = std::collections::HashSet::new();
        for (vo, member, node, mandate) in busy {
            let key = TicketKey { member: member.clone(), node: node.clone() };
            let old = lock(&self.tickets).get(&key).is_none_or(|t| t.expires.since(now) < RENEW_AT);
            if !old || !seen.insert(key.clone()) || !self.is_ready(&node) {
                continue;
            }
            lock(&self.tickets).remove(&key);
            let renewed = match self.ticket_for(&vo, &member, &node, &mandate).await {
                Ok(t) => self.world.set_ticket(&node, SetTicket { ticket: t.ticket }).await,
                Err(e) => Err(e),
            };
            if let Err(error) = renewed {
                tracing::warn!(%error, person = %member.person, %node, "a ticket was not renewed");
            }
        }
    }

    /// The next ticket is a new one, unless the last was given a moment ago: however often a node
    /// asks or refuses, the VO's home is asked now and then.
    fn give_up_ticket(&self, member: &Arc<Membership>, node: &NodeId) {
        let key = TicketKey { member: member.clone(), node: node.clone() };
        let now = self.now();
        lock(&self.tickets).retain(|k, t| *k != key || t.expires.since(now) > FRESH_AT);
    }

    /// A node asks for a ticket of the present epoch, for somebody whose work goes on there.
    pub(crate) async fn renew_ticket(
        self: Arc<Self>,
        caller: Caller,
        r: RenewTicket,
    ) -> Result<RenewedTicket, Error> {
        let node = caller.node()?.clone();
        let EnvelopeId { job, serial } = &r.envelope;
        let found = self.ledger.read_stored(|s| {
            let p = s.hosted.placement(job)?;
            let e = p.envelopes.get(serial)?;
            let works = e.node == node && !e.open.is_empty();
            works.then(|| (p.vo.clone(), p.member.clone(), p.mandate.to_string()))
        });
        let none = || Error::not_found(format!("no work of job {job} goes on at node {node}"));
        let (vo, member, mandate) = found.await?.ok_or_else(none)?;
        self.give_up_ticket(&member, &node);
        let ticket = self.ticket_for(&vo, &member, &node, &mandate).await?;
        Ok(RenewedTicket { ticket: ticket.ticket })
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

/// A ticket with less life than this is not sent with new units.
const TICKET_SPARE: std::time::Duration = std::time::Duration::from_secs(60);
/// A ticket with more life than this was given a few seconds ago: there is no newer one.
const FRESH_AT: std::time::Duration =
    std::time::Duration::from_secs(xos_api::cda::TICKET_LIFE_MAX_S - 5);
/// A ticket with less life than this is renewed while work goes on: a third of the longest life.
const RENEW_AT: std::time::Duration =
    std::time::Duration::from_secs(xos_api::cda::TICKET_LIFE_MAX_S / 3);
