//! Units on their way from one cluster to another, as the owner of their job keeps them.

use super::job::Job;
use super::unit::{Input, Place};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use xos_api::aem::{Carried, MOVES_KEPT, OutputStream};
use xos_base::{ClusterId, Millis, SiteId};

/// Where somebody wants a unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goal {
    /// The site.
    pub site: SiteId,
    /// The cluster there; none: any.
    pub cluster: Option<ClusterId>,
}

/// A unit that its site was asked to let go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Going {
    /// The run that is meant.
    pub attempt: u16,
    /// Where to.
    pub to: Goal,
    /// When somebody asked for it.
    pub at: Millis,
    /// Who.
    pub by: String,
}

/// A unit that left a cluster and runs nowhere. Only what is here lives of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carry {
    /// What it goes on from.
    pub carried: Box<Carried>,
    /// Where it was.
    pub from: Place,
    /// The run that left.
    pub attempt: u16,
    /// When that was heard.
    pub since: Millis,
    /// Where it is to go on; none: at any site, or where it was.
    pub to: Option<Goal>,
    /// Sites that did not take it.
    pub tried: BTreeSet<u16>,
    /// Until when nobody is asked: all had refused.
    pub rest: Millis,
}

/// The image of a unit that is not needed any more, where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// The unit.
    pub unit: u32,
    /// The run that left.
    pub attempt: u16,
    /// The site.
    pub site: u16,
}

/// A run of a unit that left its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// The unit.
    pub unit: u32,
    /// The run.
    pub attempt: u16,
    /// Where it was.
    pub from: Place,
    /// The cluster.
    pub cluster: ClusterId,
    /// When it stopped there.
    pub left: Millis,
    /// The number of its image.
    pub version: u64,
    /// How many bytes it had written then: to its output, and to its error output.
    pub wrote: [u64; 2],
    /// What it wrote there is the beginning of what it writes now.
    pub live: bool,
    /// Where it went on, and since when.
    pub to: Option<(Place, Millis)>,
    /// Why it left.
    pub why: String,
}

impl Job {
    /// A unit left, and is carried on, or is not needed any more.
    pub(super) fn leaves(
        &mut self,
        (unit, attempt): (u32, u16),
        (from, at): (Place, Millis),
        carried: &Carried,
        why: &str,
    ) {
        let going = self.going.remove(&unit).filter(|g| g.attempt == attempt);
        let goes_on = self.units.get(unit as usize).is_some_and(|u| u.carried);
        let asked = going.as_ref().map(|g| format!("{} asked for it", g.by));
        self.moved(Moved {
            unit,
            attempt,
            from,
            cluster: carried.cluster.clone(),
            left: at,
            version: carried.version,
            wrote: [carried.stdout_bytes, carried.stderr_bytes],
            live: true,
            to: None,
            why: asked.unwrap_or_else(|| why.to_owned()),
        });
        if !goes_on {
            self.spent.push(Spent { unit, attempt, site: from.site });
            return;
        }
        let to = going.map(|g| g.to);
        let (carried, tried, rest) = (Box::new(carried.clone()), BTreeSet::new(), Millis(0));
        let carry = Carry { carried, from, attempt, since: at, to, tried, rest };
        self.carried.insert(unit, carry);
    }

    /// Of moves that only history knows the oldest goes when there are many.
    fn moved(&mut self, moved: Moved) {
        let past = self.moves.iter().filter(|m| !m.live).count();
        if past >= MOVES_KEPT
            && let Some(oldest) = self.moves.iter().position(|m| !m.live)
        {
            self.moves.remove(oldest);
        }
        self.moves.push(moved);
    }

    /// What an input that changed a unit means for it as one that is carried.
    pub(super) fn keep_carried(&mut self, unit: u32, carried: bool, input: &Input, again: bool) {
        match input {
            Input::Leave { .. } => return,
            Input::Start { at, when } => {
                let mut moves = self.moves.iter_mut().rev();
                let last = moves.find(|m| m.unit == unit && m.live && m.to.is_none());
                if let Some(m) = last.filter(|_| self.carried.contains_key(&unit)) {
                    m.to = Some((*at, *when));
                }
            }
            Input::End { at, .. } => {
                self.going.remove(&unit);
                if let Some(carry) = self.carried.get_mut(&unit).filter(|_| carried) {
                    carry.tried.insert(at.site);
                } else if again {
                    // It begins anew: what it wrote before is another run's.
                    let of_unit = self.moves.iter_mut().filter(|m| m.unit == unit);
                    of_unit.for_each(|m| m.live = false);
                }
            }
            Input::Cancel { .. } => {
                self.going.remove(&unit);
            }
            _ => {}
        }
        if !carried && let Some(c) = self.carried.remove(&unit) {
            self.spent.push(Spent { unit, attempt: c.attempt, site: c.from.site });
        }
    }

    /// Units of a task that are queued and begin anew, or for the first time.
    pub fn fresh(&self, task: usize) -> u32 {
        let queued = self.tasks.get(task).map_or(0, |t| t.tally.queued());
        if self.carried.is_empty() {
            return queued;
        }
        let waits = |unit: &&u32| {
            let u = self.units.get(**unit as usize);
            self.task_of(**unit) == task && u.is_some_and(super::unit::Unit::waits_carried)
        };
        let carried = u32::try_from(self.carried.keys().filter(waits).count()).unwrap_or(u32::MAX);
        queued.saturating_sub(carried)
    }

    /// The run that has this byte of what a unit wrote, when it is one that left, and how many
    /// bytes of it follow there.
    pub fn wrote(&self, unit: u32, stream: OutputStream, offset: u64) -> Option<(&Moved, u64)> {
        let index = match stream {
            OutputStream::Stdout => 0,
            OutputStream::Stderr => 1,
        };
        let mut runs = self.moves.iter().filter(|m| m.unit == unit && m.live);
        let moved = runs.find(|m| m.wrote[index] > offset)?;
        Some((moved, moved.wrote[index] - offset))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{JobRecord, JobTable};
    use super::*;
    use crate::testing;
    use xos_api::aem::{HostedEvent, HostedRun, Refusal, UnitEnd, UnitRun, Usage};

    fn site(name: &str) -> SiteId {
        name.parse().unwrap()
    }

    fn carried(wrote: u64) -> Box<Carried> {
        Box::new(Carried {
            cluster: "c1.pisa".parse().unwrap(),
            tree: 7,
            version: 2,
            nodes: vec!["n1.pisa".parse().unwrap()],
            key: "0".repeat(64),
            bytes: 1,
            pid: 65_432,
            cpu_group: 1,
            base: 1_000_000,
            stdout_bytes: wrote,
            stderr_bytes: 0,
            to: None,
        })
    }

    fn happened(from: &str, attempt: u16, what: HostedRun) -> JobRecord {
        let (at, events) = (Millis(20), vec![HostedEvent { unit: 0, at: Millis(20), what }]);
        JobRecord::Happened { site: site(from), seq: 1, job: 1, attempt, at, events }
    }

    fn started(at: &str) -> HostedRun {
        HostedRun::Started { node: site(at).node("c1").unwrap() }
    }

    fn left(at: &str, wrote: u64) -> HostedRun {
        let node = site(at).node("c1").unwrap();
        let (usage, carried, why) = (Usage::default(), carried(wrote), "full".into());
        HostedRun::Left { node, usage, carried, why }
    }

    fn ended(how: UnitEnd) -> HostedRun {
        let (node, started, usage, output) = Default::default();
        HostedRun::Ended { node, started, how, usage, output }
    }

    fn taken(table: &mut JobTable, by: &str, attempt: u16) {
        let units = || vec![UnitRun { first: 0, count: 1 }];
        let (job, task) = (1, 0);
        table.apply(&JobRecord::Offered { job, task, site: site(by), units: units(), attempt });
        table.apply(&JobRecord::Accepted { job, site: site(by), units: units(), attempt });
    }

    /// A job of one unit that runs in a cluster at pisa.
    fn table() -> JobTable {
        let mut table = JobTable::new(site("rennes"));
        let mut spec = testing::spec(&[("main", "0", &[])]);
        spec.tasks[0].checkpointable = true;
        let (spec, member) = (Box::new(spec), Box::new(testing::alice()));
        let at = Millis(5);
        table.apply(&JobRecord::Submitted {
            job: 1,
            at,
            spec,
            member,
            proof: None,
            watched: false,
        });
        table.apply(&JobRecord::Mandated { job: 1, mandate: "m".into() });
        taken(&mut table, "pisa", 0);
        table.apply(&happened("pisa", 0, started("pisa")));
        table
    }

    /// If it failed, a unit that moved would run twice, or be forgotten on its way, or its image
    /// stay where it was for ever.
    #[test]
    fn a_unit_is_carried_until_it_runs_elsewhere() {
        let mut t = table();
        let to = Goal { site: site("delft"), cluster: None };
        let (at, by) = (Millis(10), "alice".to_owned());
        t.apply(&JobRecord::Going { job: 1, unit: 0, attempt: 0, to: to.clone(), at, by });
        t.apply(&happened("pisa", 0, left("pisa", 30)));
        let job = t.job(1).unwrap();
        let u = &job.units[0];
        assert!(u.carried && u.attempt == 1 && u.moves == 1 && job.tally.queued() == 1);
        assert_eq!((job.fresh(0), job.carried[&0].to.clone()), (0, Some(to)));
        assert!(job.going.is_empty() && job.spent.is_empty());
        // The same again, and what the run before says, change nothing.
        t.apply(&happened("pisa", 0, left("pisa", 30)));
        t.apply(&happened("pisa", 0, ended(UnitEnd::Exit { code: 1 })));
        assert_eq!(t.job(1).unwrap().units[0].attempt, 1);
        taken(&mut t, "delft", 1);
        t.apply(&happened("delft", 1, ended(UnitEnd::NotStarted { reason: "a pid".into() })));
        let job = t.job(1).unwrap();
        assert!(job.units[0].carried && job.units[0].attempt == 2, "it goes on elsewhere");
        assert_eq!(job.carried[&0].tried.len(), 1);
        taken(&mut t, "pisa", 2);
        t.apply(&happened("pisa", 2, started("pisa")));
        let job = t.job(1).unwrap();
        assert!(job.carried.is_empty() && !job.units[0].carried);
        let pisa = t.site_number(&site("pisa")).unwrap();
        assert_eq!(job.spent, [Spent { unit: 0, attempt: 0, site: pisa }]);
        assert!(job.moves[0].to.is_some());
        t.apply(&JobRecord::Dropped { job: 1, unit: 0, attempt: 0 });
        t.apply(&happened("pisa", 2, ended(UnitEnd::Exit { code: 0 })));
        let job = t.job(1).unwrap();
        assert!(job.spent.is_empty() && job.state.is_final());
        let text = serde_json::to_string(job).unwrap();
        assert_eq!(serde_json::from_str::<Job>(&text).unwrap(), *job);
    }

    /// If it failed, a unit that nobody wants any more would go on at another site.
    #[test]
    fn a_unit_that_is_cancelled_on_its_way_goes_nowhere() {
        let mut t = table();
        t.apply(&happened("pisa", 0, left("pisa", 0)));
        let (at, by) = (Millis(30), String::new());
        t.apply(&JobRecord::Cancelled { job: 1, at, units: None, by: by.clone() });
        let job = t.job(1).unwrap();
        assert!(job.state.is_final() && job.carried.is_empty() && job.spent.len() == 1);
        let mut t = table();
        t.apply(&JobRecord::Cancelled { job: 1, at, units: None, by });
        t.apply(&happened("pisa", 0, left("pisa", 0)));
        let job = t.job(1).unwrap();
        assert!(job.state.is_final() && job.carried.is_empty() && job.spent.len() == 1);
    }

    /// If it failed, one site that refuses a running unit would get none of the job's others.
    #[test]
    fn a_site_that_refuses_what_is_carried_is_not_struck() {
        let mut t = table();
        t.apply(&happened("pisa", 0, left("pisa", 0)));
        let (units, attempt) = (vec![UnitRun { first: 0, count: 1 }], 1);
        let (job, task, delft) = (1, 0, site("delft"));
        let offered = (delft.clone(), units.clone());
        t.apply(&JobRecord::Offered { job, task, site: offered.0, units: offered.1, attempt });
        let refusal = Refusal { rule: "foreign-program".into(), text: "no".into(), later: false };
        t.apply(&JobRecord::Returned { job, site: delft, units, attempt, at: Millis(9), refusal });
        let job = t.job(1).unwrap();
        assert!(job.tasks[0].refused_by.is_empty());
        assert!(job.units[0].carried && job.carried[&0].tried.len() == 1);
    }

    /// If it failed, what a unit wrote before it moved would be read twice, or not at all.
    #[test]
    fn what_was_written_is_read_where_it_is() {
        let mut t = table();
        t.apply(&happened("pisa", 0, left("pisa", 30)));
        taken(&mut t, "delft", 1);
        t.apply(&happened("delft", 1, started("delft")));
        t.apply(&happened("delft", 1, left("delft", 45)));
        let job = t.job(1).unwrap();
        let at = |offset| job.wrote(0, OutputStream::Stdout, offset).map(|(m, n)| (m.attempt, n));
        assert_eq!([at(0), at(29)], [Some((0, 30)), Some((0, 1))]);
        assert_eq!([at(30), at(44)], [Some((1, 15)), Some((1, 1))]);
        assert_eq!(at(45), None);
        assert_eq!(job.wrote(0, OutputStream::Stderr, 0), None);
    }
}
