//! Tickets for who has units at nodes: fetched from the VO's home, renewed while work goes on.

use super::GoingOn;
use crate::core::{Core, TicketKey, lock};
use crate::work::{Next, Work};
use futures_util::stream::{self, StreamExt};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use xos_api::cda::{IssueTicket, IssuedTicket};
use xos_api::node::SetTicket;
use xos_api::node::units::{EnvelopeId, RenewTicket, RenewedTicket};
use xos_api::policy::Action;
use xos_base::{Error, Membership, Millis, NodeId, SiteId, VoId};
use xos_net::Caller;

/// A ticket with less life than this is not sent with new units.
const TICKET_SPARE: Duration = Duration::from_secs(60);
/// A ticket with more life than this was given a few seconds ago: there is no newer one.
const FRESH_AT: Duration = Duration::from_secs(xos_api::cda::TICKET_LIFE_MAX_S - 5);
/// Most tickets of one home that are renewed at a time.
const RENEW_AT_ONCE: usize = 8;
/// A ticket with less life than this is renewed while work goes on: a third of the longest life.
const RENEW_AT: Duration = Duration::from_secs(xos_api::cda::TICKET_LIFE_MAX_S / 3);

impl Core {
    /// A ticket with enough life left, new when needed; for who may run jobs here by the rules as
    /// they are now.
    pub(super) async fn ticket_for(
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
        let clustered = due.extract_if(|key, _| self.cluster(&key.node).is_some());
        let clustered: Vec<_> = clustered.collect();
        due.retain(|key, _| self.is_due(key, now) && self.is_ready(&key.node));
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
        for (key, (vo, mandate, going_on)) in clustered {
            if let Err(refusal) = self.judge(&key.member, Action::Run) {
                self.end_denied(&key.node, going_on, &refusal.text).await;
                continue;
            }
            let envelopes = going_on.into_iter();
            let envelopes = envelopes.map(|(job, serial, _)| EnvelopeId { job, serial }).collect();
            self.renew_in_cluster(&vo, &key, &mandate, envelopes, now).await;
        }
        Next::Rest
    }

    fn is_due(&self, key: &TicketKey, now: Millis) -> bool {
        lock(&self.tickets).get(key).is_none_or(|t| t.expires.since(now) < RENEW_AT)
    }

    /// The nodes of a cluster that have trees of a person's envelopes have a ticket each.
    async fn renew_in_cluster(
        &self,
        vo: &VoId,
        key: &TicketKey,
        mandate: &str,
        envelopes: Vec<EnvelopeId>,
        now: Millis,
    ) {
        for node in self.nodes_of(&key.node, &envelopes).await {
            let own = TicketKey { member: key.member.clone(), node: node.clone() };
            if !self.is_due(&own, now) || !self.is_ready(&node) {
                continue;
            }
            let renewed = match self.new_ticket(vo, own, mandate).await {
                Ok(t) => self.world.set_ticket(&node, SetTicket { ticket: t.ticket }).await,
                Err(e) => Err(e),
            };
            if let Err(error) = renewed {
                tracing::warn!(%error, %node, "a ticket was not renewed");
            }
        }
    }

    /// The next ticket is a new one, unless the last was given a moment ago: however often a node
    /// asks or refuses, the VO's home is asked now and then.
    pub(super) fn give_up_ticket(&self, member: &Arc<Membership>, node: &NodeId) {
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
            let found = || (e.node.clone(), p.vo.clone(), p.member.clone(), p.mandate.to_string());
            (!e.open.is_empty()).then(found)
        });
        let none = || Error::not_found(format!("no work of job {job} goes on at node {node}"));
        let (at, vo, member, mandate) = found.await?.ok_or_else(none)?;
        // A node of a cluster gets them for the trees that it has.
        let envelope = std::slice::from_ref(&r.envelope);
        if at != node && !self.nodes_of(&at, envelope).await.contains(&node) {
            return Err(none());
        }
        self.give_up_ticket(&member, &node);
        let ticket = self.ticket_for(&vo, &member, &node, &mandate).await?;
        Ok(RenewedTicket { ticket: ticket.ticket })
    }
}
