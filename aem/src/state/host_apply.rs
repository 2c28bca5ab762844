//! What each record does to the table of hosted units.

use super::held::{Held, task_bytes};
use super::host::{
    Envelope, HostTable, Hosted, LeftRun, NO_ENVELOPE, Placement, Report, Reported, Stage,
};
use super::record::{self, Decision, HostRecord};
use super::runs;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use xos_api::aem::{HostedEvent, HostedRun, UnitEnd, UnitRun, Usage};
use xos_api::node::units::{UnitChange, UnitEvent};
use xos_base::{JobId, Millis, SiteId};

type Batches = BTreeMap<u16, Vec<HostedEvent>>;

impl HostTable {
    /// Applies a record. What does not fit changes nothing.
    pub fn apply(&mut self, record: &HostRecord) -> Reported {
        let mut batches = Batches::new();
        let mut of = None;
        match record {
            HostRecord::Took { .. } => self.took(record),
            HostRecord::Opened { .. } => self.opened(record),
            HostRecord::Sent { job, serial, units } => self.sent(job, *serial, units),
            HostRecord::Held { job, serial, units, attempt } => {
                self.answered(job, *serial, units, *attempt);
            }
            HostRecord::Gone { job, serial } => {
                if let Some(e) = self.envelope(job, *serial) {
                    e.gone = true;
                }
            }
            HostRecord::Unsent { job, serial } => self.unsent(job, *serial),
            HostRecord::Happened { job, serial, after, at, events, skipped } => {
                of = Some((job, *at));
                let all = after + events.len() as u64 + u64::from(*skipped);
                self.happened(job, *serial, *after..all, events, &mut batches);
            }
            HostRecord::Decided { job, at, units, what } => {
                of = Some((job, *at));
                self.decided(job, *at, units, what, &mut batches);
            }
            HostRecord::Cancelled { job, at, units } => {
                of = Some((job, *at));
                self.cancelled(job, *at, units.as_deref(), &mut batches);
            }
            HostRecord::Spent { job, unit, attempt } => {
                if let Some(p) = self.placements.get_mut(job) {
                    let of_run = p.left.iter_mut();
                    let of_run = of_run.filter(|l| (l.unit, l.attempt) == (*unit, *attempt));
                    of_run.for_each(|l| l.over = true);
                }
            }
            HostRecord::Forgotten { job } => {
                if let Some(p) = self.placements.get_mut(job) {
                    p.forgotten = true;
                }
                self.sweep(job);
            }
            HostRecord::Closed { job, serial } => {
                if let Some(p) = self.placements.get_mut(job)
                    && p.envelopes.get(serial).is_some_and(|e| e.open.is_empty())
                {
                    p.envelopes.remove(serial);
                }
                self.sweep(job);
            }
            HostRecord::Acknowledged { owner, seq } => {
                if let Some(o) = self.outboxes.get_mut(owner) {
                    while o.reports.front().is_some_and(|r| r.seq <= *seq) {
                        o.reports.pop_front();
                    }
                }
            }
        }
        if let Some(job) = job_of(record) {
            if let Some(p) = self.placements.get_mut(job) {
                let carried = &p.carried;
                p.came.retain(|unit, _| carried.contains_key(unit));
            }
            self.reindex(job);
        }
        match of {
            Some((job, at)) => {
                self.ended(job, at, &batches);
                self.report(job, batches)
            }
            None => Reported::default(),
        }
    }

    fn envelope(&mut self, job: &JobId, serial: u32) -> Option<&mut Envelope> {
        self.placements.get_mut(job)?.envelopes.get_mut(&serial).map(|e| &mut **e)
    }

    /// A forgotten job goes with its last envelope.
    fn sweep(&mut self, job: &JobId) {
        let goes = self.placements.get(job).is_some_and(|p| p.forgotten && p.envelopes.is_empty());
        if goes && let Some(p) = self.placements.remove(job) {
            self.hold(&p.job.site, p.held(), false);
        }
    }

    fn opened(&mut self, record: &HostRecord) {
        let HostRecord::Opened { job, serial, node, boot, slots, cpu_milli, memory_bytes } = record
        else {
            return;
        };
        let Some(p) = self.placements.get_mut(job) else { return };
        p.last_serial = p.last_serial.max(*serial);
        p.envelopes.entry(*serial).or_insert_with(|| {
            Box::new(Envelope {
                node: node.clone(),
                boot: boot.clone(),
                slots: *slots,
                cpu_milli: *cpu_milli,
                memory_bytes: *memory_bytes,
                stored: 0,
                held: false,
                gone: false,
                open: BTreeSet::new(),
                unconfirmed: BTreeSet::new(),
                running: 0,
                ended: 0,
            })
        });
    }

    fn took(&mut self, record: &HostRecord) {
        let HostRecord::Took { job, at, who, task, what, units, attempt, carried } = record else {
            return;
        };
        if let (Some(who), false) = (who, self.placements.contains_key(job)) {
            // A person's jobs follow one another: their membership is kept once.
            let like = self.placements.range(..job.clone()).next_back();
            let member = like.map(|(_, p)| &p.member).filter(|m| ***m == who.member);
            let member = member.map_or_else(|| Arc::new(who.member.clone()), Arc::clone);
            let placement = Placement {
                job: job.clone(),
                vo: who.vo.clone(),
                member,
                mandate: who.mandate.as_str().into(),
                since: *at,
                last_end: None,
                tasks: BTreeMap::new(),
                units: BTreeMap::new(),
                waiting: BTreeSet::new(),
                envelopes: BTreeMap::new(),
                last_serial: 0,
                forgotten: false,
                carried: BTreeMap::new(),
                came: BTreeMap::new(),
                left: Vec::new(),
            };
            self.hold(&placement.job.site, placement.held(), true);
            self.placements.insert(job.clone(), placement);
        }
        let mut more = Held::default();
        let Some(p) = self.placements.get_mut(job) else { return };
        if let (Some(what), false) = (what, p.tasks.contains_key(task)) {
            more.bytes += task_bytes(&what.spec);
            p.tasks.insert(*task, (**what).clone());
        }
        if !p.tasks.contains_key(task) {
            return;
        }
        for unit in runs::unpack(units) {
            let again = match p.units.get(&unit) {
                None => {
                    more.units += 1;
                    true
                }
                // A later attempt, and only when the one before has ended here.
                Some(h) => h.attempt < *attempt && matches!(h.stage, Stage::Ended { .. }),
            };
            if again {
                let stage = Stage::Waiting;
                let h = Hosted { task: *task, attempt: *attempt, stage, cancel: false };
                p.units.insert(unit, h);
                p.waiting.insert(unit);
                match carried {
                    Some(carried) => {
                        p.carried.insert(unit, carried.clone());
                        p.came.insert(unit, *at);
                    }
                    None => {
                        p.carried.remove(&unit);
                    }
                }
            }
        }
        self.hold(&job.site, more, true);
    }

    fn sent(&mut self, job: &JobId, serial: u32, units: &[UnitRun]) {
        let Some(p) = self.placements.get_mut(job) else { return };
        let Some(e) = p.envelopes.get_mut(&serial) else { return };
        for unit in runs::unpack(units) {
            if p.waiting.remove(&unit)
                && let Some(h) = p.units.get_mut(&unit)
            {
                h.stage = Stage::Sent { serial };
                e.open.insert(unit);
                e.unconfirmed.insert(unit);
            }
        }
    }

    /// The end of a short unit, and its next attempt in the same envelope, may come before the
    /// answer to its order: that answer says nothing of the next one.
    fn answered(&mut self, job: &JobId, serial: u32, units: &[UnitRun], attempt: u16) {
        let Some(p) = self.placements.get_mut(job) else { return };
        let ordered = p.sent(serial, attempt, units);
        let Some(e) = p.envelopes.get_mut(&serial) else { return };
        e.held = true;
        for unit in ordered {
            e.unconfirmed.remove(&unit);
        }
    }

    fn unsent(&mut self, job: &JobId, serial: u32) {
        let Some(p) = self.placements.get_mut(job) else { return };
        let Some(e) = p.envelopes.get_mut(&serial) else { return };
        for unit in std::mem::take(&mut e.unconfirmed) {
            e.open.remove(&unit);
            if let Some(h) = p.units.get_mut(&unit)
                && h.stage == (Stage::Sent { serial })
            {
                h.stage = Stage::Waiting;
                p.waiting.insert(unit);
            }
        }
    }

    fn happened(
        &mut self,
        job: &JobId,
        serial: u32,
        count: std::ops::Range<u64>,
        events: &[UnitEvent],
        batches: &mut Batches,
    ) {
        let Some(p) = self.placements.get_mut(job) else { return };
        let Some(e) = p.envelopes.get_mut(&serial) else { return };
        // Only what follows on what is stored; a gap is sent again by the node.
        let Some(known) = e.stored.checked_sub(count.start) else { return };
        e.stored = e.stored.max(count.end);
        for event in events.iter().skip(usize::try_from(known).unwrap_or(usize::MAX)) {
            let Some(h) = p.units.get_mut(&event.unit) else { continue };
            let since = match h.stage {
                Stage::Sent { serial: s } if s == serial => None,
                Stage::Running { serial: s, since } if s == serial => Some(since),
                _ => continue,
            };
            if h.attempt != event.attempt {
                continue;
            }
            let node = e.node.clone();
            let what = match &event.what {
                UnitChange::Started if since.is_some() => continue,
                UnitChange::Started => {
                    h.stage = Stage::Running { serial, since: event.at };
                    p.carried.remove(&event.unit);
                    e.running += 1;
                    HostedRun::Started { node }
                }
                UnitChange::Ended { how, usage, output: _ } => {
                    h.stage = Stage::Ended { serial };
                    e.open.remove(&event.unit);
                    e.running -= u32::from(since.is_some());
                    e.ended += 1;
                    let (how, usage) = (how.clone(), *usage);
                    p.carried.remove(&event.unit);
                    HostedRun::Ended { node: Some(node), started: since, how, usage, output: None }
                }
                UnitChange::Left { usage, carried, why } => {
                    h.stage = Stage::Ended { serial };
                    e.open.remove(&event.unit);
                    e.running -= u32::from(since.is_some());
                    e.ended += 1;
                    p.carried.remove(&event.unit);
                    let (unit, attempt) = (event.unit, event.attempt);
                    p.left.push(LeftRun { unit, attempt, serial, over: false });
                    let (usage, carried, why) = (*usage, carried.clone(), why.clone());
                    HostedRun::Left { node, usage, carried, why }
                }
            };
            e.unconfirmed.remove(&event.unit);
            let event = HostedEvent { unit: event.unit, at: event.at, what };
            batches.entry(h.attempt).or_default().push(event);
        }
    }

    fn decided(
        &mut self,
        job: &JobId,
        at: Millis,
        units: &[UnitRun],
        what: &Decision,
        batches: &mut Batches,
    ) {
        let Some(p) = self.placements.get_mut(job) else { return };
        for unit in runs::unpack(units) {
            let Some(h) = p.units.get_mut(&unit) else { continue };
            let (serial, since) = match h.stage {
                Stage::Waiting => (NO_ENVELOPE, None),
                Stage::Sent { serial } => (serial, None),
                Stage::Running { serial, since } => (serial, Some(since)),
                Stage::Ended { .. } => continue,
            };
            let node = p.envelopes.get(&serial).map(|e| e.node.clone());
            let end = |how| HostedRun::Ended {
                node,
                started: since,
                how,
                usage: Usage::default(),
                output: None,
            };
            let what = match what {
                Decision::Lost { reason } => end(UnitEnd::Lost { reason: reason.clone() }),
                Decision::NotStarted { reason } => {
                    end(UnitEnd::NotStarted { reason: reason.clone() })
                }
            };
            let attempt = h.attempt;
            h.stage = Stage::Ended { serial };
            p.waiting.remove(&unit);
            p.carried.remove(&unit);
            if let Some(e) = p.envelopes.get_mut(&serial)
                && e.open.remove(&unit)
            {
                e.unconfirmed.remove(&unit);
                e.running -= u32::from(since.is_some());
                e.ended += 1;
            }
            batches.entry(attempt).or_default().push(HostedEvent { unit, at, what });
        }
    }

    fn cancelled(
        &mut self,
        job: &JobId,
        at: Millis,
        units: Option<&[UnitRun]>,
        batches: &mut Batches,
    ) {
        let Some(p) = self.placements.get_mut(job) else { return };
        let chosen: Vec<u32> = match units {
            Some(units) => {
                let end = p.units.keys().next_back().map_or(0, |u| u + 1);
                runs::unpack(units).take_while(|u| *u < end).collect()
            }
            None => p.units.keys().copied().collect(),
        };
        for unit in chosen {
            let Some(h) = p.units.get_mut(&unit) else { continue };
            match h.stage {
                Stage::Ended { .. } => {}
                Stage::Waiting => {
                    h.stage = Stage::Ended { serial: NO_ENVELOPE };
                    p.waiting.remove(&unit);
                    p.carried.remove(&unit);
                    let (how, usage) = (UnitEnd::Cancelled, Usage::default());
                    let what =
                        HostedRun::Ended { node: None, started: None, how, usage, output: None };
                    batches.entry(h.attempt).or_default().push(HostedEvent { unit, at, what });
                }
                Stage::Sent { .. } | Stage::Running { .. } => h.cancel = true,
            }
        }
    }

    /// Notes when units of a job ended.
    fn ended(&mut self, job: &JobId, at: Millis, batches: &Batches) {
        let end = |e: &HostedEvent| !matches!(e.what, HostedRun::Started { .. });
        if let Some(p) = self.placements.get_mut(job)
            && batches.values().flatten().any(end)
        {
            p.last_end = Some(at);
        }
    }

    fn report(&mut self, job: &JobId, batches: Batches) -> Reported {
        let mut reported = Reported::default();
        if batches.is_empty() {
            return reported;
        }
        let owner: &SiteId = &job.site;
        let own = *owner == self.site;
        let outbox = self.outboxes.entry(owner.clone()).or_default();
        let parts = |(attempt, events)| record::cut(events).into_iter().map(move |e| (attempt, e));
        for (attempt, events) in batches.into_iter().flat_map(parts) {
            outbox.last += 1;
            let report = Report { seq: outbox.last, job: job.clone(), attempt, events };
            if own {
                reported.own.push(report);
            } else {
                outbox.reports.push_back(report);
                reported.owners.insert(owner.clone());
            }
        }
        reported
    }
}

fn job_of(record: &HostRecord) -> Option<&JobId> {
    match record {
        HostRecord::Took { job, .. }
        | HostRecord::Opened { job, .. }
        | HostRecord::Sent { job, .. }
        | HostRecord::Held { job, .. }
        | HostRecord::Unsent { job, .. }
        | HostRecord::Gone { job, .. }
        | HostRecord::Happened { job, .. }
        | HostRecord::Decided { job, .. }
        | HostRecord::Cancelled { job, .. }
        | HostRecord::Spent { job, .. }
        | HostRecord::Forgotten { job }
        | HostRecord::Closed { job, .. } => Some(job),
        HostRecord::Acknowledged { .. } => None,
    }
}
