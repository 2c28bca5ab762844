//! The host's part: what goes to nodes.

use crate::core::{Core, TicketKey, lock};
use crate::owner::{cut, may_pass};
use crate::plan::owner::Reach;
use crate::state::host::{HostedTask, Stage};
use crate::state::record::Decision;
use crate::state::{HostRecord, State, runs};
use crate::work::{Next, Work};
use futures_util::stream::{self, StreamExt};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use xos_api::aem::UnitRun;
use xos_api::cda::{IssueTicket, IssuedTicket};
use xos_api::node::SetTicket;
use xos_api::node::units::{
    BATCH_MAX, EndEnvelope, EnvelopeId, KillUnits, RenewTicket, RenewedTicket, Room, StartUnits,
    UnitOrder,
};
use xos_api::policy::Action;
use xos_base::{Error, JobId, Kind, Membership, NodeId, SiteId, VoId};
use xos_net::Caller;

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
        attempt: h.attempt,
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

    /// A ticket with enough life left, new when needed; for who may run jobs here by the rules as
    /// they are now.
    async fn ticket_for(
        &self,
        vo: &VoId,
        member: &Arc<Membership>,
        node: &NodeId,
        mandate: &str,
    ) -> Result<IssuedTicket, Error> {
        self.judge(member, Action::Run).map_err(|refusal| Error::denied(refusal.text))?;
        let key = TicketKey { member: member.clone(), node: node.clone() };
        if let Some(t) = lock(&self.tickets).get(&key)
            && t.expires.since(self.now()) > TICKET_SPARE
        {
            return Ok(t.clone());
        }
        self.new_ticket(vo, key, mandate).await
    }

    async fn new_ticket(
        &self,
        vo: &VoId,
        key: TicketKey,
        mandate: &str,
    ) -> Result<IssuedTicket, Error> {
        let node = key.node.clone();
        let node_key = lock(&self.host).nodes.get(&node).map(|n| n.key.clone());
        let node_key =
            node_key.ok_or_else(|| Error::unavailable(format!("node {node} is not connected")))?;
        let request = IssueTicket { mandate: mandate.to_owned(), node, node_key };
        let ticket = self.world.ticket(&vo.site(), request).await?;
        let mut tickets = lock(&self.tickets);
        tickets.insert(key, ticket.clone());
        let now = self.now();
        tickets.retain(|_, t| t.expires > now);
        Ok(ticket)
    }

    /// Renews tickets of work that goes on: those of each home by themselves, since one that does
    /// not answer keeps nobody waiting but its own people.
    pub(crate) fn renew_tickets(self: &Arc<Self>) {
        let homes: BTreeSet<SiteId> =
            self.ledger.read(|s| s.hosted.active().map(|p| p.vo.site()).collect());
        for home in homes {
            self.start_work(Work::Renew(home));
        }
    }

    pub(crate) async fn do_renew(self: &Arc<Self>, home: &SiteId) -> Next {
        let now = self.now();
        let busy = self.ledger.read_stored(|s| {
            let mut due: HashMap<TicketKey, (VoId, Arc<str>, Vec<GoingOn>)> = HashMap::new();
            for p in s.hosted.active().filter(|p| p.vo.site() == *home) {
                for (serial, e) in p.envelopes.iter().filter(|(_, e)| !e.open.is_empty()) {
                    let key = TicketKey { member: p.member.clone(), node: e.node.clone() };
                    let new = || (p.vo.clone(), p.mandate.clone(), Vec::new());
                    let (.., going_on) = due.entry(key).or_insert_with(new);
                    going_on.push((p.job.clone(), *serial, e.open.iter().copied().collect()));
                }
            }
            due
        });
        let mut due = match busy.await {
            Ok(due) => due,
            Err(error) => {
                tracing::info!(%error, "tickets are renewed later");
                return Next::Rest;
            }
        };
        due.retain(|key, _| {
            let old = lock(&self.tickets).get(key).is_none_or(|t| t.expires.since(now) < RENEW_AT);
            old && self.is_ready(&key.node)
        });
        type Due = (TicketKey, (VoId, Arc<str>, Vec<GoingOn>));
        let renew = |(key, (vo, mandate, going_on)): Due| async move {
            let (node, person) = (key.node.clone(), key.member.person.clone());
            if let Err(refusal) = self.judge(&key.member, Action::Run) {
                tracing::info!(%person, %node, why = refusal.text, "work is ended by rules");
                return self.end_denied(&node, going_on, &refusal.text).await;
            }
            let renewed = match self.new_ticket(&vo, key, &mandate).await {
                Ok(t) => self.world.set_ticket(&node, SetTicket { ticket: t.ticket }).await,
                Err(e) => Err(e),
            };
            if let Err(error) = renewed {
                tracing::warn!(%error, %person, %node, "a ticket was not renewed");
            }
        };
        stream::iter(due).for_each_concurrent(RENEW_AT_ONCE, renew).await;
        Next::Rest
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
/// Most tickets of one home that are renewed at a time.
const RENEW_AT_ONCE: usize = 8;
/// A ticket with less life than this is renewed while work goes on: a third of the longest life.
const RENEW_AT: std::time::Duration =
    std::time::Duration::from_secs(xos_api::cda::TICKET_LIFE_MAX_S / 3);

#[cfg(test)]
mod tests;
