//! Nodes that come, report and go.

use crate::core::{Core, lock};
use crate::host::REASON_MAX;
use crate::outputs::Run;
use crate::owner::cut;
use crate::plan::host::{Away, NodeView};
use crate::plan::owner::Reach;
use crate::state::host::Stage;
use crate::state::record::Decision;
use crate::state::{HostRecord, HostTable, runs};
use crate::work::{Next, Work};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use xos_api::aem::{Carried, InlineOutput, UnitEnd, UnitRun};
use xos_api::node::Hello;
use xos_api::node::units::{
    EndEnvelope, EnvelopeId, Envelopes, EventsAck, KillUnits, UnitChange, UnitEvents,
};
use xos_base::{Error, JobId, Millis, NodeId};

/// How far a node's clock may be ahead; later times are brought back to now.
const SKEW: Duration = Duration::from_secs(60);

/// What follows from what a node has.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Greeting {
    /// What is recorded.
    pub(crate) records: Vec<HostRecord>,
    /// Envelopes that are none of ours, or forgotten: to be ended.
    pub(crate) end: Vec<EnvelopeId>,
    /// Envelopes in which nothing should run any more.
    pub(crate) still: Vec<EnvelopeId>,
    /// Envelopes with units that the node has not confirmed.
    pub(crate) send: Vec<(JobId, u32)>,
    /// Jobs with units to be killed.
    pub(crate) tend: BTreeSet<JobId>,
}

/// Compares what a node has with what it should have.
pub(crate) fn greet(table: &HostTable, node: &NodeId, has: &Envelopes, now: Millis) -> Greeting {
    let mut g = Greeting::default();
    let mut listed: BTreeSet<&EnvelopeId> = BTreeSet::new();
    for status in &has.envelopes {
        listed.insert(&status.envelope);
        let EnvelopeId { job, serial } = &status.envelope;
        let ours = table.placement(job).and_then(|p| Some((p, p.envelopes.get(serial)?)));
        match ours {
            Some((p, e)) if e.node == *node => {
                if p.forgotten && e.open.is_empty() {
                    g.tend.insert(job.clone());
                } else if e.open.is_empty() {
                    g.still.push(status.envelope.clone());
                } else {
                    if !e.unconfirmed.is_empty() && e.boot == has.boot {
                        g.send.push((job.clone(), *serial));
                    } else if !e.unconfirmed.is_empty() {
                        // The machine stopped before it answered, and may have started them
                        // without any trace on its disk: sent again, they could run again.
                        let reason = format!("node {node} was restarted before it confirmed them");
                        let units = runs::pack(e.unconfirmed.iter().copied());
                        let what = Decision::Lost { reason };
                        let job = job.clone();
                        g.records.push(HostRecord::Decided { job, at: now, units, what });
                    }
                    g.tend.insert(job.clone());
                }
            }
            _ => g.end.push(status.envelope.clone()),
        }
    }
    for p in table.placements() {
        for (serial, e) in p.envelopes.iter().filter(|(_, e)| e.node == *node) {
            let id = EnvelopeId { job: p.job.clone(), serial: *serial };
            if listed.contains(&id) {
                continue;
            }
            let job = p.job.clone();
            if (e.held || e.stored > 0) && !e.gone {
                g.records.push(HostRecord::Gone { job: job.clone(), serial: *serial });
            }
            if e.open.is_empty() {
                if p.forgotten {
                    g.records.push(HostRecord::Closed { job, serial: *serial });
                }
            } else if !e.held && e.boot == has.boot {
                // It never got there: nothing of it can have run.
                g.records.push(HostRecord::Unsent { job, serial: *serial });
            } else {
                let reason = if e.boot == has.boot {
                    format!("node {node} lost its records of the job")
                } else {
                    format!("node {node} was restarted and has no record of the job")
                };
                let units = runs::pack(e.open.iter().copied());
                let what = Decision::Lost { reason };
                g.records.push(HostRecord::Decided { job, at: now, units, what });
            }
        }
    }
    g
}

impl Core {
    /// A node says what it offers. Without its control stream it can be asked nothing, and nobody
    /// would notice when it goes.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unavailable`] when it is not connected.
    pub(crate) fn hello(self: &Arc<Self>, hello: Hello) -> Result<(), Error> {
        let node = hello.node.clone();
        if self.cluster(&node).is_some() {
            return Err(Error::conflict(format!("a cluster of this site is called {node}"))
                .hint("give the node another name: join it anew"));
        }
        if let Some(clusters) = self.world.clusters() {
            clusters.hears(&node, &hello.capacity);
        }
        let boot = {
            let mut facts = lock(&self.host);
            if !self.world.is_connected(&node) {
                let text = format!("node {node} says hello without a control stream");
                return Err(Error::unavailable(text).hint("say it on the control stream"));
            }
            let old = facts.nodes.get(&node).filter(|n| n.key == hello.key);
            let boot = old.and_then(|n| n.boot.clone());
            let (capacity, key) = (hello.capacity, hello.key);
            let view = NodeView { capacity, key, boot: boot.clone(), cluster: None };
            facts.nodes.insert(node.clone(), view);
            facts.away.remove(&node);
            boot
        };
        if boot.is_none() {
            self.start_work(Work::Greet(node));
        } else {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// A node's connection broke. It may be back already: its hello came before this news.
    pub(crate) fn left(self: &Arc<Self>, node: &NodeId) {
        if !self.gone(node) {
            self.regreet(node);
        }
    }

    /// A node's connection is a new one: what it has is looked at again.
    pub(crate) fn regreet(self: &Arc<Self>, node: &NodeId) {
        if let Some(view) = lock(&self.host).nodes.get_mut(node) {
            view.boot = None;
            self.start_work(Work::Greet(node.clone()));
        }
    }

    /// Counts a node as away, unless it is connected; says whether it is away.
    pub(crate) fn gone(&self, node: &NodeId) -> bool {
        {
            // Looked at under the lock: what a hello that comes now puts in must stay.
            let mut facts = lock(&self.host);
            if self.world.is_connected(node) {
                return false;
            }
            if let Some(view) = facts.nodes.remove(node) {
                let away = Away { capacity: view.capacity, since: self.now() };
                facts.away.insert(node.clone(), away);
            }
        }
        lock(&self.tickets).retain(|k, _| k.node != *node);
        lock(&self.silent_nodes).entry(node.clone()).or_insert_with(|| self.now());
        self.watchers.all_owners();
        true
    }

    pub(crate) async fn do_greet(self: &Arc<Self>, node: &NodeId) -> Next {
        // Its stream may have ended before its hello was looked at, and the news of it come first.
        if !lock(&self.host).nodes.contains_key(node) || self.gone(node) {
            return Next::Rest;
        }
        let gate = self.gate(node);
        let asking = gate.write().await;
        let has = match self.world.list_envelopes(node).await {
            Ok(has) => has,
            Err(error) => {
                tracing::info!(%error, %node, "the node does not say what it has");
                return Next::Later;
            }
        };
        let now = self.now();
        let name = node.clone();
        let greeting = self
            .commit(|txn| {
                let mut g = greet(&txn.state().hosted, &name, &has, now);
                for r in std::mem::take(&mut g.records) {
                    txn.put(r);
                }
                Ok(g)
            })
            .await;
        drop(asking);
        let Ok(g) = greeting else { return Next::Later };
        for envelope in g.end {
            if let Err(error) = self.world.end_envelope(node, EndEnvelope { envelope }).await {
                tracing::info!(%error, %node, "a stray envelope is not ended yet");
                return Next::Later;
            }
        }
        for envelope in g.still {
            let request = KillUnits { envelope, units: None, grace_ms: self.config.kill_grace_ms };
            if let Err(error) = self.world.kill_units(node, request).await {
                tracing::info!(%error, %node, "stray units are not killed yet");
                return Next::Later;
            }
        }
        lock(&self.silent_nodes).remove(node);
        if let Some(view) = lock(&self.host).nodes.get_mut(node) {
            view.boot = Some(has.boot);
        }
        for (job, serial) in g.send {
            self.start_work(Work::Send(job, serial));
        }
        for job in g.tend {
            self.start_work(Work::Tend(job));
        }
        self.wake.notify_one();
        self.watchers.all_owners();
        tracing::info!(%node, "a node is ready for units");
        Next::Rest
    }

    /// Takes in what a node reports; the answer says up to where it is stored.
    pub(crate) async fn unit_events(
        self: &Arc<Self>,
        node: &NodeId,
        report: UnitEvents,
    ) -> Result<EventsAck, Error> {
        let (node, now) = (node.clone(), self.now());
        self.commit(|txn| {
            let news = news(&txn.state().hosted, &node, report, now);
            if let Some((job, serial)) = news.ended_in {
                let n = news.ended.len() as u32;
                lock(&self.host).pace.ended((job.clone(), serial), n, now);
                if job.site == self.site {
                    self.paced(&txn.state().jobs, job.number, &self.site, news.ended);
                }
            }
            {
                let mut kept = lock(&self.outputs);
                for (run, output) in news.outputs {
                    kept.put(run, output);
                }
            }
            if let Some(record) = news.record {
                txn.put(record);
                self.place(txn, Reach::Quick);
            }
            Ok(news.ack)
        })
        .await
    }

    /// Units on nodes that are silent for too long are lost, and what is left of forgotten jobs
    /// there is closed: were such a node to come back, it would be told to end what nobody knows
    /// here.
    pub(crate) async fn give_up_nodes(self: &Arc<Self>) {
        let now = self.now();
        let limit = self.config.node_lost();
        let known: BTreeSet<NodeId> = lock(&self.host).nodes.keys().cloned().collect();
        let absent: BTreeMap<NodeId, Absent> = self.ledger.read(|s| {
            let mut map: BTreeMap<NodeId, Absent> = BTreeMap::new();
            for p in s.hosted.placements() {
                for (serial, e) in p.envelopes.iter().filter(|(_, e)| !known.contains(&e.node)) {
                    if !e.open.is_empty() {
                        let units = (p.job.clone(), runs::pack(e.open.iter().copied()));
                        map.entry(e.node.clone()).or_default().units.push(units);
                    } else if p.forgotten {
                        let over = (p.job.clone(), *serial);
                        map.entry(e.node.clone()).or_default().over.push(over);
                    }
                }
            }
            map
        });
        let mut lost = Vec::new();
        {
            let mut silent = lock(&self.silent_nodes);
            silent.retain(|node, _| absent.contains_key(node));
            for (node, has) in absent {
                let since = *silent.entry(node.clone()).or_insert(now);
                if now.since(since) >= limit {
                    lost.push((node, since, has));
                }
            }
        }
        for (node, since, has) in lost {
            let stored = self
                .commit(|txn| {
                    for (job, units) in has.units {
                        let reason = format!("node {node} is silent since {since}");
                        let what = Decision::Lost { reason };
                        txn.put(HostRecord::Decided { job, at: now, units, what });
                    }
                    for (job, serial) in has.over {
                        txn.put(HostRecord::Closed { job, serial });
                    }
                    self.place(txn, Reach::Quick);
                    Ok(())
                })
                .await;
            if let Err(error) = stored {
                tracing::warn!(%error, "units of a silent node are not given up yet");
            }
        }
    }
}

/// What a node that is away has of this core's work.
#[derive(Default)]
struct Absent {
    /// Units that may run there, by job.
    units: Vec<(JobId, Vec<UnitRun>)>,
    /// Envelopes of forgotten jobs in which nothing runs.
    over: Vec<(JobId, u32)>,
}

/// What follows from a node's report.
pub(crate) struct News {
    /// The answer.
    pub(crate) ack: EventsAck,
    /// What is recorded.
    pub(crate) record: Option<HostRecord>,
    /// Output that somebody waits for.
    outputs: Vec<(Run, InlineOutput)>,
    /// Units that ended, and the envelope.
    ended: Vec<u32>,
    ended_in: Option<(JobId, u32)>,
}

/// Matches a node's report with what the node has: only what is new, and of units that are in that
/// envelope now. The rest is counted, since the node numbers its events, and otherwise left out.
pub(crate) fn news(table: &HostTable, node: &NodeId, report: UnitEvents, now: Millis) -> News {
    let EnvelopeId { job, serial } = report.envelope;
    let ack = |stored, unknown| EventsAck { stored, unknown };
    let nothing =
        |ack| News { ack, record: None, outputs: Vec::new(), ended: Vec::new(), ended_in: None };
    let ours = table.placement(&job).and_then(|p| Some((p, p.envelopes.get(&serial)?)));
    let Some((p, e)) = ours.filter(|(_, e)| e.node == *node) else {
        return nothing(ack(0, true));
    };
    let known = e.stored.checked_sub(report.after).and_then(|n| usize::try_from(n).ok());
    let Some(known) = known.filter(|n| *n < report.events.len()) else {
        return nothing(ack(e.stored, false));
    };
    let new = report.events.len() - known;
    let mut stages: BTreeMap<u32, Stage> = BTreeMap::new();
    let mut news = nothing(ack(e.stored + new as u64, false));
    let mut events = Vec::new();
    for mut event in report.events.into_iter().skip(known) {
        let Some(h) = p.units.get(&event.unit).filter(|h| h.attempt == event.attempt) else {
            continue;
        };
        // Of what is another cluster's nothing here could go on.
        if matches!(&event.what, UnitChange::Left { carried, .. } if !is_of(carried, node)) {
            continue;
        }
        let stage = stages.get(&event.unit).copied().unwrap_or(h.stage);
        if event.at > now.plus(SKEW) {
            event.at = now;
        }
        let after = match (stage, &mut event.what) {
            (Stage::Sent { serial: s }, UnitChange::Started) if s == serial => {
                Stage::Running { serial, since: event.at }
            }
            (
                Stage::Sent { serial: s } | Stage::Running { serial: s, .. },
                UnitChange::Ended { how, output, .. },
            ) if s == serial => {
                trim(how);
                let wanted = p.tasks.get(&h.task).is_some_and(|t| t.want_output);
                let run = (job.unit(event.unit), event.attempt);
                news.outputs.extend(output.take().filter(|_| wanted).map(|o| (run, o)));
                news.ended.push(event.unit);
                Stage::Ended { serial }
            }
            (
                Stage::Sent { serial: s } | Stage::Running { serial: s, .. },
                UnitChange::Left { why, .. },
            ) if s == serial => {
                *why = cut(why, REASON_MAX);
                Stage::Ended { serial }
            }
            _ => continue,
        };
        stages.insert(event.unit, after);
        events.push(event);
    }
    news.ended_in = (!news.ended.is_empty()).then(|| (job.clone(), serial));
    let skipped = (new - events.len()) as u32;
    let after = e.stored;
    news.record = Some(HostRecord::Happened { job, serial, after, at: now, events, skipped });
    news
}

/// Whether what a unit goes on from can be of the cluster that says so.
fn is_of(carried: &Carried, node: &NodeId) -> bool {
    carried.is_of(&node.site()) && carried.cluster.as_str() == node.as_str()
}

/// Bounds the texts in somebody else's word on how a unit ended.
pub(crate) fn trim(how: &mut UnitEnd) {
    match how {
        UnitEnd::NotStarted { reason }
        | UnitEnd::StageOut { reason }
        | UnitEnd::Lost { reason } => *reason = cut(reason, REASON_MAX),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
