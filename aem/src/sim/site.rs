//! A core: the state as its journal gives it, and what it forgets when it is killed.

use super::Dice;
use crate::plan;
use crate::state::record::{Decision, HostRecord, JobRecord, Record};
use crate::state::unit::{Phase, Unit};
use crate::state::{State, runs};
use std::collections::BTreeMap;
use xos_api::aem::{HostReply, HostUnits, HostedEvent, Refusal, ShareRoom};
use xos_api::node::units::{EnvelopeId, EventsAck, StartUnits, UnitEvents};
use xos_base::{JobId, Millis, NodeId, SiteId};

pub(super) struct Site {
    pub(super) id: SiteId,
    log: Vec<Vec<u8>>,
    /// How much of the log is on the disk.
    stored: usize,
    /// Whether what leaves the core waits for the disk.
    barrier: bool,
    pub(super) state: State,
    pub(super) owner: plan::owner::Facts,
    pub(super) host: plan::host::Facts,
    /// Offers that may have arrived without an answer, until when.
    pub(super) doubts: BTreeMap<(u64, SiteId), Millis>,
}

pub(super) const OFFER_LIFE: u64 = 300;

impl Site {
    pub(super) fn new(id: SiteId, barrier: bool) -> Site {
        let state = State::new(id.clone());
        let (owner, host, log, doubts) = Default::default();
        Site { id, log, stored: 0, barrier, state, owner, host, doubts }
    }

    pub(super) fn put(&mut self, r: impl Into<Record>) {
        let r = r.into();
        self.log.push(r.to_bytes().unwrap());
        self.state.apply(&r);
    }

    /// The disk has everything.
    pub(super) fn sync(&mut self) {
        self.stored = self.log.len();
    }

    /// Waits for the disk, before something leaves the core.
    pub(super) fn settle(&mut self) {
        if self.barrier {
            self.sync();
        }
    }

    /// Killed, started again: only the journal is left, of which the end may never have come to
    /// the disk. Now and then over a snapshot.
    pub(super) fn crash(&mut self, cut: Option<usize>, dice: &mut Dice, now: Millis) {
        let queued = self.log.len() - self.stored;
        let lost = dice.below(queued as u64 + 1) as usize;
        self.log.truncate(self.log.len() - lost);
        self.sync();
        let mut state = State::new(self.id.clone());
        for (i, bytes) in self.log.iter().enumerate() {
            if cut == Some(i) {
                let bytes = state.to_snapshot().unwrap();
                state = State::from_snapshot(&self.id, &bytes).unwrap();
            }
            state.apply(&Record::from_bytes(bytes).unwrap());
        }
        // The states are too long to be shown.
        assert!(lost > 0 || state == self.state, "the journal gives another state");
        self.state = state;
        self.host.nodes.clear();
        for v in self.owner.sites.values_mut() {
            v.connected = false;
        }
        self.doubts.clear();
        for job in self.state.jobs.iter() {
            for u in &job.units {
                if let Phase::Offered { at } = &u.phase {
                    let site = self.state.jobs.site_name(at.site).unwrap().clone();
                    let until = Millis(now.0 + OFFER_LIFE + 1);
                    self.doubts.insert((job.number, site), until);
                }
            }
        }
    }

    /// Chooses, as the service does after each change.
    pub(super) fn place(&mut self, now: Millis) {
        let own = plan::host::capacity(&self.state.hosted, &self.host, &self.id, &[]);
        let view = self.owner.sites.entry(self.id.clone()).or_default();
        view.connected = true;
        view.capacity = own;
        for r in plan::owner::plan(&self.state.jobs, &self.owner, plan::owner::Reach::Quick, now) {
            let own = match &r {
                JobRecord::Offered { job, task, site, units, attempt } if *site == self.id => {
                    Some((*job, *task, units.clone(), *attempt))
                }
                _ => None,
            };
            self.put(r);
            if let Some((job, task, units, attempt)) = own {
                let offer = self.offer_of(job, task, units, attempt, now);
                let reply = self.hosts(&offer, false, now);
                self.answered(&offer, &self.id.clone(), reply, now);
            }
        }
        for r in plan::host::plan(&self.state.hosted, &self.host, now) {
            self.put(r);
        }
    }

    fn offer_of(
        &self,
        job: u64,
        task: u16,
        units: Vec<xos_api::aem::UnitRun>,
        attempt: u16,
        now: Millis,
    ) -> HostUnits {
        let j = self.state.jobs.job(job).unwrap();
        let first = units.first().map(|u| u.first);
        HostUnits {
            job: self.state.jobs.id(job),
            vo: j.spec.vo.clone(),
            mandate: "m".into(),
            task,
            task_first: j.tasks[usize::from(task)].first,
            spec: j.spec.tasks[usize::from(task)].clone(),
            outline: crate::outline(&j.spec).unwrap(),
            units,
            attempt,
            until: Millis(now.0 + OFFER_LIFE),
            want_output: false,
            moves: first.map_or(0, |u| j.units[u as usize].moves.into()),
            carried: first.and_then(|u| crate::owner::carried(j, u, &self.id)),
        }
    }

    /// What some other site is being asked.
    pub(super) fn next_offer(&self, now: Millis) -> Option<(SiteId, HostUnits)> {
        let until = Millis(now.0 + OFFER_LIFE);
        let offered = |u: &Unit| matches!(u.phase, Phase::Offered { .. });
        let (job, unit) = self.state.jobs.iter().find_map(|j| {
            let unit = j.units.iter().find(|u| offered(u))?;
            Some((j.number, unit))
        })?;
        let site = self.state.jobs.site_name(unit.phase.site()?)?.clone();
        let offer = crate::owner::next_offer(&self.state, job, &site, until)?;
        Some((site, offer))
    }

    /// The jobs that have not ended.
    pub(super) fn open_jobs(&self) -> Vec<u64> {
        self.state.jobs.iter().filter(|j| !j.state.is_final()).map(|j| j.number).collect()
    }

    /// The sites that are to be asked to end units of a job.
    pub(super) fn cancels_of(&self, job: u64) -> Vec<SiteId> {
        let of = |j| crate::cancel::cancelled_at(&self.state.jobs, j).into_keys().collect();
        self.state.jobs.job(job).map(of).unwrap_or_default()
    }

    /// This site is asked.
    pub(super) fn hosts(&mut self, r: &HostUnits, unwilling: bool, now: Millis) -> HostReply {
        if now > r.until || unwilling {
            let refusal = Refusal { rule: "late".into(), text: String::new(), later: true };
            let accepted = crate::accept::here(&self.state.hosted, r);
            return HostReply { accepted, refusal: Some(refusal) };
        }
        let known = |s: &State, u: u32, least: u16| {
            let p = s.hosted.placement(&r.job);
            p.and_then(|p| p.units.get(&u)).is_some_and(|h| h.attempt >= least)
        };
        if !runs::unpack(&r.units).all(|u| known(&self.state, u, r.attempt)) {
            let alice = crate::testing::alice();
            self.put(crate::accept::took(&self.state.hosted, r, alice, now));
        }
        let accepted = crate::accept::here(&self.state.hosted, r);
        HostReply { accepted, refusal: None }
    }

    pub(super) fn answered(&mut self, o: &HostUnits, site: &SiteId, r: HostReply, now: Millis) {
        let taken: Vec<u32> = runs::unpack(&r.accepted).collect();
        let rest = runs::pack(runs::unpack(&o.units).filter(|u| !taken.contains(u)));
        let (job, attempt) = (o.job.number, o.attempt);
        if !taken.is_empty() {
            let (site, units) = (site.clone(), runs::pack(taken));
            self.put(JobRecord::Accepted { job, site, units, attempt });
        }
        if !rest.is_empty() {
            let refusal = r.refusal.unwrap_or_else(|| Refusal {
                rule: "site".into(),
                text: String::new(),
                later: true,
            });
            let (site, units, at) = (site.clone(), rest, now);
            self.put(JobRecord::Returned { job, site, units, attempt, at, refusal });
        }
    }

    /// Everything that is to be sent to nodes that are ready.
    pub(super) fn sends(&self) -> Vec<(NodeId, StartUnits)> {
        let mut out = Vec::new();
        for p in self.state.hosted.active() {
            for (serial, e) in &p.envelopes {
                if self.host.nodes.get(&e.node).is_none_or(|n| n.boot.is_none()) {
                    continue;
                }
                if let Some(batch) = crate::host::next_batch(&self.state, &p.job, *serial) {
                    let envelope = EnvelopeId { job: p.job.clone(), serial: *serial };
                    let (vo, site) = (p.vo.clone(), self.id.clone());
                    out.push((e.node.clone(), batch.order(envelope, vo, site, String::new())));
                }
            }
        }
        out
    }

    pub(super) fn reported(&mut self, node: &NodeId, r: &UnitEvents, now: Millis) -> EventsAck {
        let news = crate::nodes::news(&self.state.hosted, node, r.clone(), now);
        if let Some(record) = news.record {
            self.put(record);
        }
        news.ack
    }

    pub(super) fn heard(
        &mut self,
        from: &SiteId,
        (seq, job, attempt, events): (u64, JobId, u16, Vec<HostedEvent>),
        now: Millis,
    ) {
        if seq == self.state.jobs.seen(from) + 1 {
            let (site, job, at) = (from.clone(), job.number, now);
            self.put(JobRecord::Happened { site, seq, job, attempt, at, events });
        }
    }

    pub(super) fn share(&mut self) {
        let vo: xos_base::VoId = "demo.rennes".parse().unwrap();
        let room = ShareRoom { vo: vo.clone(), cpu_milli: 100_000, memory_bytes: u64::MAX / 2 };
        self.host.shares.insert(vo, room);
    }

    /// Units of a node that stays away are given up.
    pub(super) fn give_up(&mut self, node: &NodeId, now: Millis) {
        let mut lost = Vec::new();
        for p in self.state.hosted.active() {
            for e in p.envelopes.values().filter(|e| e.node == *node && !e.open.is_empty()) {
                lost.push((p.job.clone(), runs::pack(e.open.iter().copied())));
            }
        }
        for (job, units) in lost {
            let what = Decision::Lost { reason: "silent".into() };
            self.put(HostRecord::Decided { job, at: now, units, what });
        }
    }
}
