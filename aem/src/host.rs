//! The host's part: what is accepted, and what goes to nodes.

use crate::core::{Core, TicketKey, lock};
use crate::ledger::Txn;
use crate::owner::{cut, may_pass};
use crate::plan::owner::Reach;
use crate::plan::room;
use crate::policy::Action;
use crate::state::host::{HostedTask, Stage};
use crate::state::load::Load;
use crate::state::record::Decision;
use crate::state::{HostRecord, HostTable, runs};
use crate::work::Next;
use std::sync::Arc;
use xos_api::aem::{HOST_BATCH_MAX, HostUnits, Refusal, UnitRun};
use xos_api::cda::{IssueTicket, IssuedTicket};
use xos_api::node::SetTicket;
use xos_api::node::units::{
    BATCH_MAX, EndEnvelope, EnvelopeId, KillUnits, Room, StartUnits, UnitOrder,
};
use xos_api::vom::VoState;
use xos_base::{Error, JobId, Membership, Millis, NodeId, SiteId, VoId};

/// Most bytes of a reason that somebody else gave.
pub(crate) const REASON_MAX: usize = 512;

fn never(rule: &str, text: String) -> Refusal {
    Refusal { rule: rule.to_owned(), text, later: false }
}

fn later(rule: &str, text: String) -> Refusal {
    Refusal { rule: rule.to_owned(), text, later: true }
}

/// What is to be sent to one envelope.
struct Batch {
    node: NodeId,
    vo: VoId,
    mandate: String,
    member: Arc<Membership>,
    room: Room,
    task: HostedTask,
    units: Vec<UnitOrder>,
}

impl Core {
    /// Whether this site runs what an owner offers; gives the person. Uses what is known of the
    /// VO: [`crate::views::Views::view`] comes before.
    pub(crate) fn judge_offer(
        &self,
        table: &HostTable,
        offer: &HostUnits,
        now: Millis,
    ) -> Result<Membership, Refusal> {
        let wrong = |text: String| never("malformed", text);
        if now > offer.until {
            return Err(later(
                "late",
                "the offer arrived too late; check the sites' clocks".into(),
            ));
        }
        crate::check::task(&offer.spec).map_err(|e| wrong(e.to_string()))?;
        let end = offer
            .task_first
            .checked_add(offer.spec.array.len())
            .filter(|end| *end <= xos_api::aem::UNITS_MAX)
            .ok_or_else(|| wrong("the task has too many units".into()))?;
        let count = runs::total(&offer.units, end)
            .filter(|n| *n <= HOST_BATCH_MAX && offer.units.len() <= runs::RUNS_MAX)
            .filter(|_| offer.units.iter().all(|u| u.first >= offer.task_first))
            .ok_or_else(|| wrong("the units are malformed, or too many for one request".into()))?;
        let member = self.person_of(table, offer, now)?;
        let view = self
            .views
            .known(&offer.vo)
            .ok_or_else(|| later("vo", format!("{} is not known here yet", offer.vo)))?;
        let share =
            view.own.as_ref().filter(|own| own.serving).and_then(|own| own.accepted.as_ref());
        let Some(share) = share else {
            let trouble = view.own.as_ref().and_then(|own| own.trouble.clone());
            let why = trouble.unwrap_or_else(|| "no share is agreed".into());
            return Err(never("no-share", format!("this site does not serve {}: {why}", offer.vo)));
        };
        self.policy.judge(&member, Action::Run)?;
        let r = &offer.spec.resources;
        if u64::from(r.cpu_milli) > share.cpu_milli || r.memory_bytes > share.memory_bytes {
            let cpus = room::cpus(u32::try_from(share.cpu_milli).unwrap_or(u32::MAX));
            let memory = room::mib(share.memory_bytes);
            let text =
                format!("one unit asks for more than the VO's share: {cpus} processors, {memory}");
            return Err(never("share", text));
        }
        let vos = [offer.vo.clone()];
        let capacity = crate::plan::host::capacity(table, &lock(&self.host), &vos);
        room::judge(&capacity, None, r, Load::default())?;
        if table.open_units(&offer.vo).saturating_add(count) > self.config.units_per_vo {
            let text =
                format!("{} has {} units here, the most", offer.vo, self.config.units_per_vo);
            return Err(later("units", text));
        }
        Ok(member)
    }

    /// The mandate's person, with the right that is left of it here and now.
    fn person_of(
        &self,
        table: &HostTable,
        offer: &HostUnits,
        now: Millis,
    ) -> Result<Membership, Refusal> {
        let refuse = |e: Error| Refusal {
            rule: "mandate".into(),
            later: may_pass(e.kind),
            text: e.to_string(),
        };
        let known = table.placement(&offer.job).filter(|p| *p.mandate == *offer.mandate);
        let membership = match known {
            Some(p) => (*p.member).clone(),
            None => {
                let m = self.world.check_mandate(&offer.mandate, now).map_err(refuse)?;
                if m.job != offer.job || m.owner != offer.job.site || m.membership.vo != offer.vo {
                    return Err(never("mandate", "the mandate is for another job".into()));
                }
                m.membership
            }
        };
        let other = table.placement(&offer.job).is_some_and(|p| {
            p.forgotten || p.vo != offer.vo || p.member.person != membership.person
        });
        if other {
            return Err(never("mandate", "the job is known here as another one".into()));
        }
        self.standing.effective(&membership, now).map_err(|e| Refusal {
            rule: "member".into(),
            later: may_pass(e.kind),
            text: e.to_string(),
        })
    }

    /// Accepts units; gives those that are here under this attempt now.
    pub(crate) fn take(
        &self,
        txn: &mut Txn<'_>,
        offer: &HostUnits,
        member: Membership,
        now: Millis,
    ) -> Vec<UnitRun> {
        let known = |txn: &Txn<'_>, u: u32| {
            let p = txn.state().hosted.placement(&offer.job);
            p.and_then(|p| p.units.get(&u)).is_some_and(|h| h.attempt >= offer.attempt)
        };
        if !runs::unpack(&offer.units).all(|u| known(txn, u)) {
            txn.put(HostRecord::Took {
                job: offer.job.clone(),
                at: now,
                vo: offer.vo.clone(),
                member: Box::new(member),
                mandate: offer.mandate.clone(),
                task: offer.task,
                task_first: offer.task_first,
                spec: Box::new(offer.spec.clone()),
                units: offer.units.clone(),
                attempt: offer.attempt,
                want_output: offer.want_output,
            });
        }
        let p = txn.state().hosted.placement(&offer.job);
        let here =
            |u: &u32| p.and_then(|p| p.units.get(u)).is_some_and(|h| h.attempt == offer.attempt);
        runs::pack(runs::unpack(&offer.units).filter(here))
    }

    fn next_batch(&self, job: &JobId, serial: u32) -> Option<Batch> {
        self.ledger.read(|s| {
            let p = s.hosted.placement(job)?;
            let e = p.envelopes.get(&serial)?;
            let first = e.unconfirmed.first()?;
            let h = p.units.get(first)?;
            let task = p.tasks.get(&h.task)?.clone();
            let like = |u: &&u32| {
                p.units.get(u).is_some_and(|x| x.task == h.task && x.attempt == h.attempt)
            };
            let order = |u: &u32| {
                let index = task.spec.array.index(u.checked_sub(task.first)?)?;
                Some(UnitOrder { unit: *u, index, attempt: h.attempt })
            };
            let units = e.unconfirmed.iter().filter(like).filter_map(order);
            Some(Batch {
                node: e.node.clone(),
                vo: p.vo.clone(),
                mandate: p.mandate.to_string(),
                member: p.member.clone(),
                room: Room {
                    slots: e.slots,
                    cpu_milli: e.cpu_milli.saturating_mul(e.slots),
                    memory_bytes: e.memory_bytes.saturating_mul(e.slots.into()),
                },
                units: units.take(BATCH_MAX).collect(),
                task,
            })
        })
    }

    pub(crate) async fn do_send(self: &Arc<Self>, job: &JobId, serial: u32) -> Next {
        while let Some(b) = self.next_batch(job, serial) {
            if !self.is_ready(&b.node) {
                // Sent when the node is back.
                return Next::Rest;
            }
            let units = runs::pack(b.units.iter().map(|u| u.unit));
            let sent = match self.ticket_for(&b.vo, &b.member, &b.node, &b.mandate).await {
                Ok(ticket) => {
                    let request = StartUnits {
                        envelope: EnvelopeId { job: job.clone(), serial },
                        vo: b.vo.clone(),
                        site: self.site.clone(),
                        ticket: ticket.ticket,
                        room: b.room,
                        task: (*b.task.spec).clone(),
                        units: b.units,
                        want_output: b.task.want_output,
                    };
                    self.world.start_units(&b.node, request).await.map(|_| ())
                }
                Err(e) => Err(e),
            };
            let record = match sent {
                Ok(()) => HostRecord::Held { job: job.clone(), serial, units },
                Err(e) if may_pass(e.kind) => {
                    tracing::info!(error = %e, %job, node = %b.node, "units wait for their node");
                    return Next::Later;
                }
                Err(e) => {
                    tracing::warn!(error = %e, %job, node = %b.node, "units cannot be started");
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
        Next::Rest
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
        let busy: Vec<(VoId, Arc<Membership>, NodeId, String)> = self.ledger.read(|s| {
            let mut list = Vec::new();
            for p in s.hosted.active() {
                for e in p.envelopes.values().filter(|e| !e.open.is_empty()) {
                    let mandate = p.mandate.to_string();
                    list.push((p.vo.clone(), p.member.clone(), e.node.clone(), mandate));
                }
            }
            list
        });
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

    /// Kills what is cancelled, ends envelopes that are forgotten.
    pub(crate) async fn do_tend(self: &Arc<Self>, job: &JobId) -> Next {
        let (kill, end) = self.ledger.read(|s| {
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
        let kill: Vec<(u32, NodeId, Vec<u32>)> = kill;
        let mut next = Next::Rest;
        for (serial, node, units) in kill {
            let envelope = EnvelopeId { job: job.clone(), serial };
            let grace_ms = self.config.kill_grace_ms;
            let request = KillUnits { envelope, units: Some(units), grace_ms };
            if self.is_ready(&node)
                && let Err(error) = self.world.kill_units(&node, request).await
            {
                tracing::info!(%error, %job, %node, "units are not killed yet");
                next = Next::Later;
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

/// The offered units that this host has under the offer's attempt. They were accepted, whatever
/// would be decided today.
pub(crate) fn here(table: &HostTable, offer: &HostUnits) -> Vec<UnitRun> {
    let Some(p) = table.placement(&offer.job) else { return Vec::new() };
    let here = |u: &u32| p.units.get(u).is_some_and(|h| h.attempt == offer.attempt);
    let end = p.units.keys().next_back().map_or(0, |u| u.saturating_add(1));
    let most = HOST_BATCH_MAX as usize;
    runs::pack(runs::unpack(&offer.units).take_while(|u| *u < end).take(most).filter(here))
}

/// A ticket with less life than this is not sent with new units.
const TICKET_SPARE: std::time::Duration = std::time::Duration::from_secs(60);
/// A ticket with less life than this is renewed while work goes on: a third of the longest life.
const RENEW_AT: std::time::Duration =
    std::time::Duration::from_secs(xos_api::cda::TICKET_LIFE_MAX_S / 3);
