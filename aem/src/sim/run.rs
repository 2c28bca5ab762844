//! One story.

use super::node::Node;
use super::site::{OFFER_LIFE, Site};
use super::{Dice, Hold, Runs};
use crate::nodes;
use crate::plan::host::NodeView;
use crate::state::host::Stage;
use crate::state::unit::Phase;
use crate::state::{HostRecord, JobRecord, runs};
use std::collections::{BTreeMap, BTreeSet};
use xos_api::node::Capacity;
use xos_api::node::units::{EnvelopeId, StartUnits};
use xos_base::{JobId, Millis, NodeId, SiteId};

const STEPS: u64 = 400;
/// Enough for everything to come to rest when nothing is lost any more.
const REST: u64 = 20_000;

pub(super) struct World {
    dice: Dice,
    now: Millis,
    sites: Vec<Site>,
    nodes: BTreeMap<NodeId, Node>,
    runs: Runs,
    /// How often a copy was begun from each image, by the run that left.
    images: Runs,
    acknowledged: Vec<JobId>,
    /// Offers that were sent, answer lost, and will arrive yet.
    late: Vec<(usize, xos_api::aem::HostUnits)>,
    /// Orders that nodes have taken, with their answers on the way: core, node, order.
    answers: Vec<(usize, NodeId, StartUnits)>,
    /// What the cores are at to have ended: core, job, the site that is asked.
    cancels: BTreeSet<(usize, u64, SiteId)>,
    /// Whether messages get lost and machines die.
    rough: bool,
}

impl World {
    pub(super) fn new(dice: Dice, barrier: bool) -> World {
        let names = ["rennes", "pisa"];
        let mut sites = Vec::new();
        let mut nodes = BTreeMap::new();
        for name in names {
            let mut site = Site::new(name.parse().unwrap(), barrier);
            site.share();
            let vo = "demo.rennes".parse().unwrap();
            let all: Vec<SiteId> = names.iter().map(|n| n.parse().unwrap()).collect();
            site.host.takes_from.clone_from(&all);
            site.owner.serving.insert(vo, all);
            for label in ["n1", "n2"] {
                let id = site.id.node(label).unwrap();
                let node = Node { boot: 1, envelopes: BTreeMap::new() };
                nodes.insert(id, node);
            }
            sites.push(site);
        }
        let (runs, images, acknowledged, late, answers, cancels) = Default::default();
        let (now, rough) = (Millis(100_000), true);
        World { dice, now, sites, nodes, runs, images, acknowledged, late, answers, cancels, rough }
    }

    pub(super) fn play(&mut self) {
        for _ in 0..STEPS {
            self.step();
        }
        self.rough = false;
        for _ in 0..REST {
            self.step();
            if self.is_over() {
                break;
            }
        }
        self.check();
    }

    fn lost(&mut self) -> bool {
        self.rough && self.dice.chance(15)
    }

    fn step(&mut self) {
        // What rests until a site takes it does so for a minute.
        let most = if self.rough { 5 } else { 20 };
        self.now = Millis(self.now.0 + self.dice.below(most));
        let s = self.dice.below(self.sites.len() as u64) as usize;
        match self.dice.below(16) {
            0 if self.rough => self.submit(s),
            1 if self.rough && self.dice.chance(30) => self.cancel(s),
            2 if self.rough && self.dice.chance(40) => {
                let len = self.dice.below(50) as usize;
                let cut = self.dice.chance(50).then_some(len);
                self.sites[s].crash(cut, &mut self.dice, self.now);
                self.cancels.retain(|(core, ..)| *core != s);
                self.answers.retain(|(core, ..)| *core != s);
                let open: Vec<u64> = self.sites[s].open_jobs();
                open.into_iter().for_each(|job| self.begin_cancel(s, job));
            }
            3 if self.rough && self.dice.chance(30) => self.node_dies(),
            4 => self.greet(s),
            5 => self.offer(s),
            6 => self.send(s),
            7 | 8 => self.live(),
            9 => self.report(),
            10 => self.tell(s),
            11 => self.cancelling(s),
            12 => self.arrive(),
            13 => self.sites[s].sync(),
            14 => self.answer(s),
            _ => self.sites[s].place(self.now),
        }
    }

    fn submit(&mut self, s: usize) {
        let retry = self.dice.below(3) as u16;
        let (a, b) = (format!("0-{}", self.dice.below(9)), "0-1".to_owned());
        let mut spec = crate::testing::spec(&[("first", &a, &[]), ("second", &b, &["first"])]);
        spec.tasks[0].retry = retry;
        spec.tasks[1].retry = retry;
        spec.tasks[0].checkpointable = self.dice.chance(40);
        let site = &mut self.sites[s];
        let number = site.state.jobs.next();
        if number > 1 && self.dice.chance(20) {
            spec.after_jobs = vec![site.state.jobs.id(number - 1)];
        }
        site.put(JobRecord::Submitted {
            job: number,
            at: self.now,
            spec: Box::new(spec),
            member: Box::new(crate::testing::alice()),
            proof: None,
            watched: false,
        });
        site.put(JobRecord::Mandated { job: number, mandate: "m".into() });
        site.settle();
        self.acknowledged.push(site.state.jobs.id(number));
    }

    fn cancel(&mut self, s: usize) {
        let jobs = &self.sites[s].state.jobs;
        let fresh = |job: &u64| jobs.job(*job).is_some_and(|j| !j.cancelled);
        let open: Vec<u64> = self.sites[s].open_jobs().into_iter().filter(fresh).collect();
        if !open.is_empty() {
            let job = open[self.dice.below(open.len() as u64) as usize];
            self.cancel_job(s, job);
        }
    }

    /// Somebody asks for it once; the core remembers.
    fn cancel_job(&mut self, s: usize, job: u64) {
        let (at, units, by) = (self.now, None, "alice".into());
        self.sites[s].put(JobRecord::Cancelled { job, at, units, by });
        self.begin_cancel(s, job);
    }

    fn begin_cancel(&mut self, s: usize, job: u64) {
        let sites = self.sites[s].cancels_of(job);
        self.cancels.extend(sites.into_iter().map(|site| (s, job, site)));
    }

    fn node_dies(&mut self) {
        let n = self.dice.below(self.nodes.len() as u64) as usize;
        let id = self.nodes.keys().nth(n).unwrap().clone();
        let site = self.sites.iter_mut().find(|s| s.id == id.site()).unwrap();
        site.host.nodes.remove(&id);
        // Its connection broke, and with it what was on the way.
        self.answers.retain(|(_, node, _)| *node != id);
        match self.dice.below(3) {
            0 => {
                site.sync();
                let mut envelopes =
                    site.state.hosted.placements().flat_map(|p| p.envelopes.values());
                let answered = envelopes.all(|e| e.node != id || e.held);
                self.nodes.get_mut(&id).unwrap().reboot(&mut self.dice, answered, self.now);
            }
            1 => site.give_up(&id, self.now),
            // Only its xosd was restarted, or the network was away.
            _ => {}
        }
    }

    /// Nodes that are not known say hello.
    fn greet(&mut self, s: usize) {
        let site = &mut self.sites[s];
        let own = site.id.clone();
        for (id, node) in self.nodes.iter_mut().filter(|(id, _)| id.site() == own) {
            if site.host.nodes.contains_key(id) {
                continue;
            }
            let has = node.list();
            let g = nodes::greet(&site.state.hosted, id, &has, self.now);
            for r in g.records {
                site.put(r);
            }
            site.settle();
            for e in g.end {
                node.envelopes.remove(&e);
            }
            for e in g.still {
                node.kill(&e, None, self.now);
            }
            let capacity =
                Capacity { cpu_milli: 2000, memory_bytes: 1 << 40, arch: "x86_64".into() };
            // A cluster is a node to all of this, but for what one unit can have.
            let cluster = (id.label() == "n1").then_some((1000, 1 << 39));
            let (key, boot) = (String::new(), Some(has.boot));
            let view = NodeView { capacity, key, boot, cluster };
            site.host.nodes.insert(id.clone(), view);
        }
    }

    fn offer(&mut self, s: usize) {
        let Some((to, request)) = self.sites[s].next_offer(self.now) else { return };
        self.sites[s].settle();
        let key = (request.job.number, to.clone());
        let other = self.sites.iter().position(|x| x.id == to).unwrap();
        if self.rough && self.dice.chance(40) {
            // The answer is lost, or the whole request is late.
            let until = Millis(self.now.0 + OFFER_LIFE + 1);
            self.sites[s].doubts.insert(key, until);
            if self.dice.chance(50) {
                self.sites[other].hosts(&request, false, self.now);
            } else {
                self.late.push((other, request));
            }
            return;
        }
        let unwilling = self.rough && self.dice.chance(40);
        let reply = self.sites[other].hosts(&request, unwilling, self.now);
        self.sites[other].settle();
        let doubt = self.sites[s].doubts.get(&key).is_some_and(|t| *t > self.now);
        if reply.refusal.is_some() && doubt {
            return;
        }
        self.sites[s].doubts.remove(&key);
        self.sites[s].answered(&request, &to, reply, self.now);
    }

    fn arrive(&mut self) {
        if !self.late.is_empty() {
            let n = self.dice.below(self.late.len() as u64) as usize;
            let (site, request) = self.late.remove(n);
            self.sites[site].hosts(&request, false, self.now);
        }
    }

    /// Orders go to nodes; of one envelope none before the last was answered.
    fn send(&mut self, s: usize) {
        let sends = self.sites[s].sends();
        self.sites[s].settle();
        for (node, request) in sends {
            let same = |(core, _, o): &(usize, NodeId, StartUnits)| {
                *core == s && o.envelope == request.envelope
            };
            if self.answers.iter().any(same) || self.lost() {
                continue;
            }
            self.nodes.get_mut(&node).unwrap().start(&request);
            if !self.lost() {
                self.answers.push((s, node, request));
            }
        }
    }

    /// A node's answer comes: the units may have ended by now, and may be here for another attempt.
    fn answer(&mut self, s: usize) {
        let Some(n) = self.answers.iter().position(|(core, ..)| *core == s) else { return };
        let (.., order) = self.answers.remove(n);
        let EnvelopeId { job, serial } = order.envelope;
        let attempt = order.units.first().map_or(0, |u| u.attempt);
        let units = runs::pack(order.units.iter().map(|u| u.unit));
        self.sites[s].put(HostRecord::Held { job, serial, units, attempt });
    }

    /// What is cancelled does not end by itself: it shows whether it is killed.
    fn live(&mut self) {
        let mut hold = Hold::new();
        for site in &self.sites {
            for j in site.state.jobs.iter() {
                let cancelled = j.units.iter().enumerate().filter(|(_, u)| u.cancel);
                let id = site.state.jobs.id(j.number);
                hold.extend(cancelled.map(|(i, _)| (id.clone(), i as u32)));
            }
        }
        for (id, node) in &mut self.nodes {
            let (runs, images) = (&mut self.runs, &mut self.images);
            node.live((id, self.rough), (&mut self.dice, self.now), (runs, images), &hold);
        }
    }

    fn report(&mut self) {
        let ids: Vec<NodeId> = self.nodes.keys().cloned().collect();
        for id in ids {
            let site = self.sites.iter_mut().find(|s| s.id == id.site()).unwrap();
            if !site.host.nodes.contains_key(&id) {
                continue;
            }
            let Some(r) = self.nodes[&id].report(&mut self.dice) else { continue };
            let ack = site.reported(&id, &r, self.now);
            site.settle();
            if !self.lost() {
                self.nodes.get_mut(&id).unwrap().acknowledged(&r.envelope, ack);
            }
        }
    }

    /// A host tells an owner.
    fn tell(&mut self, owner: usize) {
        for host in 0..self.sites.len() {
            if host == owner {
                continue;
            }
            let (from, to) = (self.sites[host].id.clone(), self.sites[owner].id.clone());
            let room = crate::plan::host::capacity(
                &self.sites[host].state.hosted,
                &self.sites[host].host,
                &to,
                &[],
            );
            let view = self.sites[owner].owner.sites.entry(from.clone()).or_default();
            view.capacity = room;
            view.connected = true;
            let after = self.sites[owner].state.jobs.seen(&from);
            self.sites[host].settle();
            let reports: Vec<_> =
                self.sites[host].state.hosted.reports(&to, after).take(3).cloned().collect();
            for r in reports {
                if self.lost() {
                    continue;
                }
                let report = (r.seq, r.job, r.attempt, r.events);
                self.sites[owner].heard(&from, report, self.now);
            }
            self.sites[owner].settle();
            let seq = self.sites[owner].state.jobs.seen(&from);
            if !self.lost() {
                self.sites[host].put(HostRecord::Acknowledged { owner: to, seq });
            }
        }
    }

    /// What is cancelled reaches hosts, and their nodes.
    fn cancelling(&mut self, s: usize) {
        self.sites[s].settle();
        let works: Vec<_> = self.cancels.iter().filter(|(core, ..)| *core == s).cloned().collect();
        for work in works {
            let jobs = &self.sites[s].state.jobs;
            let of = |j| crate::cancel::cancelled_at(jobs, j).remove(&work.2);
            let Some(units) = jobs.job(work.1).and_then(of) else {
                self.cancels.remove(&work);
                continue;
            };
            let job = jobs.id(work.1);
            let host = self.sites.iter().position(|x| x.id == work.2).unwrap();
            let known = self.sites[host].state.hosted.placement(&job);
            if known.is_some_and(|p| p.is_to_cancel(Some(&units))) && !self.lost() {
                let units = Some(units);
                self.sites[host].put(HostRecord::Cancelled { job, at: self.now, units });
            }
        }
        let mut kills = Vec::new();
        for p in self.sites[s].state.hosted.active() {
            for (unit, h) in &p.units {
                if let (true, Stage::Sent { serial } | Stage::Running { serial, .. }) =
                    (h.cancel, h.stage)
                {
                    let id = EnvelopeId { job: p.job.clone(), serial };
                    kills.push((p.envelopes[&serial].node.clone(), id, *unit));
                }
            }
        }
        self.sites[s].settle();
        for (node, id, unit) in kills {
            if self.sites[s].host.nodes.contains_key(&node) && !self.lost() {
                self.nodes.get_mut(&node).unwrap().kill(&id, Some(&[unit]), self.now);
            }
        }
    }

    fn is_over(&self) -> bool {
        self.late.is_empty()
            && self.nodes.values().all(Node::is_quiet)
            && self.sites.iter().all(|s| s.state.jobs.iter().all(|j| j.state.is_final()))
    }

    fn check(&self) {
        for id in &self.acknowledged {
            let site = self.sites.iter().find(|s| s.id == id.site).unwrap();
            let job = site.state.jobs.find(id).unwrap_or_else(|| panic!("{id} is gone"));
            assert!(job.state.is_final(), "{id} hangs: {:?} {:?}", job.tally, job.reasons);
            let counts = job.tally.counts();
            assert_eq!(counts.total(), job.units.len() as u32, "{id}: counts do not add up");
            for (i, u) in job.units.iter().enumerate() {
                let retry = job.spec.tasks[job.task_of(i as u32)].retry;
                assert!(u.retries() <= retry, "{id}:{i} ran again without leave");
                let key = (id.to_string(), i as u32, u.attempt);
                let ran = self.runs.get(&key).copied().unwrap_or(0);
                match &u.phase {
                    Phase::Done { .. } => assert_eq!(ran, 1, "{id}:{i} is done"),
                    Phase::Refused { .. } => panic!("{id}:{i} was refused"),
                    _ => {}
                }
            }
        }
        for ((job, unit, attempt), n) in &self.runs {
            assert_eq!(*n, 1, "{job}:{unit} attempt {attempt} ran {n} times");
        }
        // A run that left stopped before: so two copies live only if one image began two.
        for ((job, unit, run), n) in &self.images {
            assert_eq!(*n, 1, "{job}:{unit} went on {n} times from where attempt {run} left");
        }
    }
}
