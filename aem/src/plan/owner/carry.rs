//! Where units go on that left a cluster.
//!
//! A unit that left runs nowhere, and its image is started from once: it is offered to one site at
//! a time, and to the next only when that one said that it will not begin with it.

use super::{CARRY_PATIENCE, CARRY_PAUSE, Facts, Pass, candidates};
use crate::plan::room;
use crate::state::JobTable;
use crate::state::carry::{Carry, Goal};
use crate::state::job::Job;
use crate::state::record::JobRecord;
use crate::state::runs;
use crate::state::unit::Phase;
use std::collections::BTreeMap;
use xos_api::aem::{MOVES_MAX, Refusal, TaskSpec};
use xos_base::{Millis, SiteId};

fn never(rule: &str, text: String) -> Refusal {
    Refusal { rule: rule.to_owned(), text, later: false }
}

/// Whether a site would have a unit go on from an image of another one, as far as its last word
/// goes.
fn takes(facts: &Facts, site: &SiteId, from: &SiteId) -> Result<(), Refusal> {
    let view = facts.sites.get(site).filter(|v| v.connected);
    // Who does not answer is told of elsewhere.
    let refuses = view.is_some_and(|v| !v.capacity.takes_from.contains(from));
    if site == from || !refuses {
        return Ok(());
    }
    Err(never("foreign-program", format!("it takes no running programs of {from}")))
}

/// Whether a unit that runs may be moved to a site, by what is known now.
///
/// # Errors
/// Why not, for the person.
pub fn may_move(
    table: &JobTable,
    facts: &Facts,
    (job, unit): (&Job, u32),
    to: &Goal,
    now: Millis,
) -> Result<(), Refusal> {
    let named = table.id(job.number).unit(unit);
    let refuse = |text: String| Err(never("move", text));
    let Some(u) = job.units.get(unit as usize) else {
        return refuse(format!("there is no unit {named}"));
    };
    let Phase::Running { at, .. } = &u.phase else {
        return refuse(format!("{named} does not run now"));
    };
    let task = job.task_of(unit);
    let Some(spec) = job.task_spec(task).filter(|spec| spec.checkpointable) else {
        return refuse(format!("{named} is not checkpointed: submit it with --checkpointable"));
    };
    let Some(from) = table.site_name(at.site) else {
        return refuse(format!("nobody knows where {named} is"));
    };
    if *from == to.site {
        let text = "between nodes of a cluster it moves by `xos cluster migrate`";
        return refuse(format!("{named} is at {from} already; {text}"));
    }
    if u.cancel {
        return refuse(format!("{named} is being ended"));
    }
    if u16::from(u.moves) >= MOVES_MAX {
        return refuse(format!("{named} was handed on {MOVES_MAX} times, the most"));
    }
    let serving = facts.serving.get(&job.spec.vo).map(Vec::as_slice).unwrap_or_default();
    if !candidates(&job.spec, serving).any(|site| *site == to.site) {
        let vo = &job.spec.vo;
        let text = format!("{} does not serve {vo}, or is none of the job's sites", to.site);
        return refuse(text);
    }
    takes(facts, &to.site, from)?;
    let pass = Pass { table, facts, now, out: Vec::new(), given: BTreeMap::new() };
    pass.judge_goal(job, task, spec, to)
}

fn busy(site: &SiteId) -> Refusal {
    let text = format!("all processors at {site} that it may use are in use");
    Refusal { rule: "busy".to_owned(), text, later: true }
}

impl Pass<'_> {
    /// Offers a unit that left to a site, if one may take it now.
    pub(super) fn carry(&mut self, job: &Job, unit: u32, carry: &Carry, serving: &[SiteId]) {
        let waits = job.units.get(unit as usize).is_some_and(|u| u.waits_carried());
        if !waits || carry.rest > self.now {
            return;
        }
        let home = carry.carried.cluster.site();
        let table = self.table;
        let tried = |s: &SiteId| table.site_number(s).is_some_and(|n| carry.tried.contains(&n));
        let elsewhere: Vec<SiteId> = match &carry.to {
            Some(to) => vec![to.site.clone()],
            None => candidates(&job.spec, serving).filter(|s| **s != home).cloned().collect(),
        };
        let mut soon = false;
        for site in elsewhere.iter().filter(|s| !tried(s)) {
            let cluster = carry.to.as_ref().and_then(|to| to.cluster.clone());
            let goal = Goal { site: site.clone(), cluster };
            match self.judge_carried(job, unit, &goal, &home) {
                Ok(()) => return self.hand(job, unit, goal.site),
                Err(r) => {
                    soon |= r.later;
                    self.note(job, job.task_of(unit), Some(site), &r);
                }
            }
        }
        if soon && self.now.since(carry.since) < CARRY_PATIENCE {
            return;
        }
        // Nobody else: it goes on where it was.
        if !tried(&home) {
            let goal = Goal { site: home.clone(), cluster: None };
            match self.judge_carried(job, unit, &goal, &home) {
                Ok(()) => return self.hand(job, unit, home),
                Err(r) => {
                    self.note(job, job.task_of(unit), Some(&home), &r);
                    if r.later {
                        return;
                    }
                }
            }
        }
        let until = self.now.plus(CARRY_PAUSE);
        self.out.push(JobRecord::Rests { job: job.number, unit, until });
    }

    fn judge_carried(
        &self,
        job: &Job,
        unit: u32,
        goal: &Goal,
        home: &SiteId,
    ) -> Result<(), Refusal> {
        takes(self.facts, &goal.site, home)?;
        let task = job.task_of(unit);
        let spec = job.task_spec(task);
        let spec = spec.ok_or_else(|| never("malformed", "the unit has no task".to_owned()))?;
        self.judge_goal(job, task, spec, goal)
    }

    /// Whether a site has room for a unit that goes on from an image, in a cluster.
    fn judge_goal(
        &self,
        job: &Job,
        task: usize,
        spec: &TaskSpec,
        goal: &Goal,
    ) -> Result<(), Refusal> {
        if self.judge(job, task, spec, &goal.site)?.now == 0 {
            return Err(busy(&goal.site));
        }
        let Some(view) = self.facts.sites.get(&goal.site) else { return Ok(()) };
        room::judge_clusters(&view.capacity, &spec.resources, goal.cluster.as_ref())
    }

    fn hand(&mut self, job: &Job, unit: u32, site: SiteId) {
        let task = job.task_of(unit);
        let (Some(u), Some(spec)) = (job.units.get(unit as usize), job.task_spec(task)) else {
            return;
        };
        let given = self.given.entry(site.clone()).or_default();
        given.units += 1;
        given.cpu_milli += u64::from(spec.resources.cpu_milli);
        given.memory_bytes += spec.resources.memory_bytes;
        let (units, attempt) = (runs::pack([unit]), u.attempt);
        let (job, task) = (job.number, task as u16);
        self.out.push(JobRecord::Offered { job, task, site, units, attempt });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::owner::{Reach, SiteView, plan};
    use crate::testing;
    use xos_api::aem::{
        Carried, ClusterRoom, HostedEvent, HostedRun, Pool, SiteCapacity, UnitRun, Usage,
    };

    fn site(name: &str) -> SiteId {
        name.parse().unwrap()
    }

    /// Sites with room for four units, and whose running programs each takes.
    fn facts(sites: &[(&str, &[&str])]) -> Facts {
        let mut facts = Facts::default();
        for (name, takes_from) in sites {
            let pool = Pool {
                arch: "x86_64".into(),
                nodes: 1,
                cpu_milli: 4000,
                cpu_free_milli: 4000,
                memory_bytes: 1 << 40,
                memory_free_bytes: 1 << 40,
                node_cpu_milli: 4000,
                node_memory_bytes: 1 << 40,
            };
            let takes_from = takes_from.iter().map(|s| site(s)).collect();
            let cluster = ClusterRoom {
                cluster: format!("c1.{name}").parse().unwrap(),
                arch: "x86_64".into(),
                cpu_free_milli: 4000,
                memory_free_bytes: 1 << 40,
                node_cpu_milli: 2000,
                node_memory_bytes: 1 << 40,
            };
            let (pools, clusters) = (vec![pool], vec![cluster]);
            let capacity = SiteCapacity { pools, takes_from, clusters, ..Default::default() };
            let view = SiteView { connected: true, since: Millis(0), capacity };
            facts.sites.insert(site(name), view);
        }
        let names = sites.iter().map(|(name, _)| site(name)).collect();
        facts.serving.insert("demo.rennes".parse().unwrap(), names);
        facts
    }

    fn happened(attempt: u16, what: HostedRun) -> JobRecord {
        let (at, events) = (Millis(20), vec![HostedEvent { unit: 0, at: Millis(20), what }]);
        JobRecord::Happened { site: site("rennes"), seq: 1, job: 1, attempt, at, events }
    }

    /// A job of one unit that runs in a cluster at rennes.
    fn table() -> JobTable {
        let mut spec = testing::spec(&[("main", "0", &[])]);
        spec.tasks[0].checkpointable = true;
        let (spec, member) = (Box::new(spec), Box::new(testing::alice()));
        let (job, at, units) = (1, Millis(5), vec![UnitRun { first: 0, count: 1 }]);
        let mut t = JobTable::new(site("delft"));
        t.apply(&JobRecord::Submitted { job, at, spec, member, proof: None, watched: false });
        t.apply(&JobRecord::Mandated { job, mandate: "m".into() });
        let (task, attempt) = (0, 0);
        t.apply(&JobRecord::Offered { job, task, site: site("rennes"), units, attempt });
        let node = site("rennes").node("c1").unwrap();
        t.apply(&happened(0, HostedRun::Started { node }));
        t
    }

    fn leaves(t: &mut JobTable) {
        let carried = Box::new(Carried {
            cluster: "c1.rennes".parse().unwrap(),
            tree: 7,
            version: 2,
            nodes: vec!["n1.rennes".parse().unwrap()],
            key: "0".repeat(64),
            bytes: 1,
            pid: 65_432,
            cpu_group: 1,
            base: 1_000_000,
            stdout_bytes: 0,
            stderr_bytes: 0,
            to: None,
        });
        let (node, usage) = (site("rennes").node("c1").unwrap(), Usage::default());
        t.apply(&happened(0, HostedRun::Left { node, usage, carried, why: String::new() }));
    }

    /// What is planned, applied; the sites that are asked.
    fn asked(t: &mut JobTable, facts: &Facts, now: u64) -> Vec<String> {
        let records = plan(t, facts, Reach::Whole, Millis(now));
        let mut sites = Vec::new();
        for r in &records {
            if let JobRecord::Offered { site, units, .. } = r {
                assert_eq!(units, &[UnitRun { first: 0, count: 1 }]);
                sites.push(site.to_string());
            }
            t.apply(r);
        }
        sites
    }

    fn refused(t: &mut JobTable, by: &str, attempt: u16) {
        let refusal = Refusal { rule: "pid".into(), text: "taken".into(), later: false };
        let (job, site, units) = (1, site(by), vec![UnitRun { first: 0, count: 1 }]);
        t.apply(&JobRecord::Returned { job, site, units, attempt, at: Millis(30), refusal });
    }

    /// If it failed, a unit would be asked for at two sites at once, which is two copies of it; or
    /// at one that takes no running programs; or nowhere again.
    #[test]
    fn a_unit_that_left_is_offered_to_one_site_at_a_time_and_home_at_last() {
        let facts = facts(&[("rennes", &[]), ("pisa", &["rennes"]), ("delft", &[])]);
        let mut t = table();
        leaves(&mut t);
        assert_eq!(asked(&mut t, &facts, 100), ["pisa"]);
        assert!(asked(&mut t, &facts, 100_000).is_empty(), "it may have taken it");
        refused(&mut t, "pisa", 1);
        assert_eq!(asked(&mut t, &facts, 100_000), ["rennes"]);
        refused(&mut t, "rennes", 1);
        assert!(asked(&mut t, &facts, 100_000).is_empty(), "a pause");
        let pause = u64::try_from(CARRY_PAUSE.as_millis()).unwrap();
        assert_eq!(asked(&mut t, &facts, 100_000 + pause), ["pisa"]);
    }

    /// If it failed, a unit that somebody sent to one site would go to another one.
    #[test]
    fn a_unit_goes_where_it_was_sent_or_stays() {
        let facts = facts(&[("rennes", &[]), ("pisa", &["rennes"]), ("lyon", &["rennes"])]);
        let mut t = table();
        let to = Goal { site: site("lyon"), cluster: None };
        let (at, by) = (Millis(10), String::new());
        let job = t.job(1).unwrap();
        assert_eq!(may_move(&t, &facts, (job, 0), &to, Millis(100)), Ok(()));
        t.apply(&JobRecord::Going { job: 1, unit: 0, attempt: 0, to, at, by });
        leaves(&mut t);
        assert_eq!(asked(&mut t, &facts, 100), ["lyon"]);
        refused(&mut t, "lyon", 1);
        assert_eq!(asked(&mut t, &facts, 200), ["rennes"]);
    }

    /// If it failed, a running unit would be stopped and killed for a site whose cluster is full,
    /// because another node there is free.
    #[test]
    fn a_unit_goes_where_a_cluster_has_room() {
        let mut facts = facts(&[("rennes", &[]), ("pisa", &["rennes"])]);
        let mut t = table();
        let may = |t: &JobTable, facts: &Facts, cluster: Option<&str>| {
            let cluster = cluster.map(|c| c.parse().unwrap());
            let to = Goal { site: site("pisa"), cluster };
            may_move(t, facts, (t.job(1).unwrap(), 0), &to, Millis(100))
        };
        assert_eq!(may(&t, &facts, None), Ok(()));
        assert_eq!(may(&t, &facts, Some("c1.pisa")), Ok(()));
        let none = may(&t, &facts, Some("c2.pisa")).unwrap_err();
        assert_eq!((none.text.as_str(), none.later), ("cluster c2.pisa is not there now", true));
        let room = |facts: &mut Facts, at: &str, free| {
            let view = facts.sites.get_mut(&site(at)).unwrap();
            view.capacity.clusters[0].cpu_free_milli = free;
        };
        room(&mut facts, "pisa", 500);
        assert_eq!(may(&t, &facts, None).unwrap_err().rule, "busy");
        leaves(&mut t);
        assert!(asked(&mut t, &facts, 100).is_empty(), "it would wait there");
        room(&mut facts, "rennes", 500);
        let patience = u64::try_from(CARRY_PATIENCE.as_millis()).unwrap();
        assert!(asked(&mut t, &facts, 100 + patience).is_empty());
        room(&mut facts, "rennes", 1000);
        assert_eq!(asked(&mut t, &facts, 100 + patience), ["rennes"]);
    }

    /// If it failed, a running unit would be stopped for a site of which it is known that it does
    /// not take it.
    #[test]
    fn what_cannot_go_is_not_stopped() {
        let facts = facts(&[("rennes", &[]), ("pisa", &[]), ("lyon", &["rennes"])]);
        let mut t = table();
        let why = |t: &JobTable, to: &str| {
            let to = Goal { site: site(to), cluster: None };
            may_move(t, &facts, (t.job(1).unwrap(), 0), &to, Millis(100)).unwrap_err().text
        };
        assert!(why(&t, "pisa").contains("takes no running programs of rennes"));
        assert!(why(&t, "rennes").contains("already"));
        assert!(why(&t, "mars").contains("does not serve"));
        leaves(&mut t);
        assert!(why(&t, "lyon").contains("does not run"));
    }
}
