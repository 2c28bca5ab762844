//! Nodes that come, report and go.

use crate::core::{Core, lock};
use crate::host::REASON_MAX;
use crate::owner::cut;
use crate::plan::host::NodeView;
use crate::plan::owner::Reach;
use crate::state::host::Stage;
use crate::state::record::Decision;
use crate::state::{HostRecord, HostTable, runs};
use crate::work::{Next, Work};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use xos_api::aem::UnitEnd;
use xos_api::node::Hello;
use xos_api::node::units::{
    EndEnvelope, EnvelopeId, Envelopes, EventsAck, KillUnits, UnitChange, UnitEvent, UnitEvents,
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
                    if !e.unconfirmed.is_empty() {
                        g.send.push((job.clone(), *serial));
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
    /// A node says what it offers.
    pub(crate) fn hello(self: &Arc<Self>, hello: Hello) {
        let node = hello.node.clone();
        let boot = {
            let mut facts = lock(&self.host);
            let old = facts.nodes.get(&node).filter(|n| n.key == hello.key);
            let boot = old.and_then(|n| n.boot.clone());
            let view = NodeView { capacity: hello.capacity, key: hello.key, boot: boot.clone() };
            facts.nodes.insert(node.clone(), view);
            boot
        };
        if boot.is_none() {
            self.start_work(Work::Greet(node));
        } else {
            self.wake.notify_one();
        }
    }

    /// A node's connection is a new one: what it has is looked at again.
    pub(crate) fn regreet(self: &Arc<Self>, node: &NodeId) {
        if let Some(view) = lock(&self.host).nodes.get_mut(node) {
            view.boot = None;
            self.start_work(Work::Greet(node.clone()));
        }
    }

    /// A node's connection broke.
    pub(crate) fn gone(&self, node: &NodeId) {
        lock(&self.host).nodes.remove(node);
        lock(&self.tickets).retain(|k, _| k.node != *node);
        lock(&self.silent_nodes).entry(node.clone()).or_insert_with(|| self.now());
        self.watchers.all_owners();
    }

    pub(crate) async fn do_greet(self: &Arc<Self>, node: &NodeId) -> Next {
        if !lock(&self.host).nodes.contains_key(node) {
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
        let EnvelopeId { job, serial } = report.envelope.clone();
        let now = self.now();
        let mut outputs = Vec::new();
        let events: Vec<UnitEvent> =
            report.events.into_iter().map(|e| tidy(e, &job, now, &mut outputs)).collect();
        let ended: Vec<u32> = events
            .iter()
            .filter(|e| matches!(e.what, UnitChange::Ended { .. }))
            .map(|e| e.unit)
            .collect();
        let stored = |txn: &crate::ledger::Txn<'_>| {
            let p = txn.state().hosted.placement(&job)?;
            p.envelopes.get(&serial).filter(|e| e.node == *node).map(|e| e.stored)
        };
        let theirs = self.ledger.read(|s| {
            let envelope = s.hosted.placement(&job).and_then(|p| p.envelopes.get(&serial));
            envelope.is_some_and(|e| e.node == *node)
        });
        if !theirs {
            return self.ledger.read_stored(|_| EventsAck { stored: 0, unknown: true }).await;
        }
        {
            let mut kept = lock(&self.outputs);
            for (unit, output) in outputs {
                kept.put(unit, output);
            }
        }
        if !ended.is_empty() {
            let key = (job.clone(), serial);
            lock(&self.host).pace.ended(key, ended.len() as u32, now);
            if job.site == self.site {
                self.paced(job.number, &self.site, ended.iter().copied());
            }
        }
        let after = report.after;
        self.commit(|txn| {
            let Some(before) = stored(txn) else {
                return Ok(EventsAck { stored: 0, unknown: true });
            };
            let news = after <= before && before - after < events.len() as u64;
            if news {
                let (job, at) = (job.clone(), now);
                txn.put(HostRecord::Happened { job, serial, after, at, events });
                self.place(txn, Reach::Quick);
            }
            Ok(EventsAck { stored: stored(txn).unwrap_or(before), unknown: false })
        })
        .await
    }

    /// Units on nodes that are silent for too long are lost.
    pub(crate) async fn give_up_nodes(self: &Arc<Self>) {
        let now = self.now();
        let limit = self.config.node_lost();
        let known: BTreeSet<NodeId> = lock(&self.host).nodes.keys().cloned().collect();
        let with_units: BTreeMap<NodeId, Vec<(JobId, Vec<u32>)>> = self.ledger.read(|s| {
            let mut map: BTreeMap<NodeId, Vec<(JobId, Vec<u32>)>> = BTreeMap::new();
            for p in s.hosted.active() {
                for e in p.envelopes.values().filter(|e| !e.open.is_empty()) {
                    if !known.contains(&e.node) {
                        let units = e.open.iter().copied().collect();
                        map.entry(e.node.clone()).or_default().push((p.job.clone(), units));
                    }
                }
            }
            map
        });
        let mut lost = Vec::new();
        {
            let mut silent = lock(&self.silent_nodes);
            silent.retain(|node, _| with_units.contains_key(node));
            for (node, jobs) in with_units {
                let since = *silent.entry(node.clone()).or_insert(now);
                if now.since(since) >= limit {
                    lost.push((node, since, jobs));
                }
            }
        }
        for (node, since, jobs) in lost {
            let stored = self
                .commit(|txn| {
                    for (job, units) in jobs {
                        let reason = format!("node {node} is silent since {since}");
                        let what = Decision::Lost { reason };
                        let units = runs::pack(units);
                        txn.put(HostRecord::Decided { job, at: now, units, what });
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

    /// Hosted jobs that ended long ago and whose owner never said so are forgotten.
    pub(crate) async fn forget_hosted(self: &Arc<Self>) {
        let keep = self.config.keep_ended() * 2;
        let now = self.now();
        let old: Vec<JobId> = self.ledger.read(|s| {
            let over = |p: &&crate::state::host::Placement| {
                !p.forgotten
                    && now.since(p.since) > keep
                    && p.units.values().all(|h| matches!(h.stage, Stage::Ended { .. }))
            };
            s.hosted.placements().filter(over).map(|p| p.job.clone()).collect()
        });
        for job in old {
            let record = HostRecord::Forgotten { job };
            if let Err(error) = self
                .commit(|txn| {
                    txn.put(record);
                    Ok(())
                })
                .await
            {
                tracing::warn!(%error, "an old hosted job is kept");
            }
        }
    }
}

/// A node's event as it may be stored: times not from the future, texts of bounded length, output
/// taken out.
fn tidy(
    mut e: UnitEvent,
    job: &JobId,
    now: Millis,
    outputs: &mut Vec<(xos_base::UnitId, xos_api::aem::InlineOutput)>,
) -> UnitEvent {
    if e.at > now.plus(SKEW) {
        e.at = now;
    }
    if let UnitChange::Ended { how, output, .. } = &mut e.what {
        trim(how);
        if let Some(output) = output.take() {
            outputs.push((job.unit(e.unit), output));
        }
    }
    e
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
