//! What the site's audit is told of jobs and units.
//!
//! Units are told as they are journalled: one line for the starts of one record, and one for each
//! way in which units of it ended, with the numbers of the units. So what a node reports at once,
//! up to a thousand starts, is a line, and short units by the thousand cost some fifty lines a
//! second of each job and node. Nobody waits for them. A core that owns and hosts a job tells them
//! once.

use crate::state::record::Decision;
use crate::state::{HostRecord, JobRecord, Record, State, runs};
use std::collections::BTreeMap;
use xos_api::aem::{Carried, HostedRun, UnitEnd, UnitRun};
use xos_api::audit::{Event, Outcome};
use xos_api::node::units::UnitChange;
use xos_base::{JobId, Millis, NodeId, PersonId, SiteId, VoId};

/// Most runs of units that one line names.
const RUNS_TOLD: usize = 32;

/// Whose units.
#[derive(Clone, Copy)]
struct Of<'a> {
    job: &'a JobId,
    vo: &'a VoId,
    person: &'a PersonId,
}

impl Of<'_> {
    fn event(&self, at: Millis, what: &str, who: String, units: &[UnitRun]) -> Event {
        let mut event = Event::new(at, what);
        event.who = who;
        event.on = named(self.job, units);
        (event.vo, event.person) = (Some(self.vo.clone()), Some(self.person.clone()));
        event
    }
}

/// Units as people write them: `12.rennes:0-99,105`.
pub(crate) fn named(job: &JobId, units: &[UnitRun]) -> String {
    let run = |r: &UnitRun| match r.count {
        1 => r.first.to_string(),
        n => format!("{}-{}", r.first, r.first.saturating_add(n).saturating_sub(1)),
    };
    let told: Vec<String> = units.iter().take(RUNS_TOLD).map(run).collect();
    let more = match units.len().saturating_sub(RUNS_TOLD) {
        0 => String::new(),
        n => format!(" and {n} more runs"),
    };
    format!("{job}:{}{more}", told.join(","))
}

/// What a record tells, before it is applied to `state`.
pub(crate) fn of(record: &Record, state: &State) -> Vec<Event> {
    match record {
        Record::Job(record) => of_owned(record, state),
        Record::Host(record) => of_hosted(record, state),
    }
}

fn core(site: &SiteId) -> String {
    format!("core of {site}")
}

fn of_owned(record: &JobRecord, state: &State) -> Vec<Event> {
    let number = match record {
        JobRecord::Returned { job, .. }
        | JobRecord::Refused { job, .. }
        | JobRecord::GivenUp { job, .. }
        | JobRecord::Happened { job, .. } => *job,
        _ => return Vec::new(),
    };
    let Some(job) = state.jobs.job(number) else { return Vec::new() };
    let (id, own) = (state.jobs.id(number), state.jobs.site());
    let of = Of { job: &id, vo: &job.spec.vo, person: &job.member.person };
    match record {
        JobRecord::Returned { site, units, at, refusal, .. } if !refusal.later && site != own => {
            let mut event = of.event(*at, "refuse_units", core(site), units);
            (event.outcome, event.why) = (Outcome::Refused, refusal.text.clone());
            vec![event]
        }
        JobRecord::Refused { units, at, .. } => {
            let mut event = of.event(*at, "refuse_units", core(own), units);
            event.outcome = Outcome::Refused;
            event.why = job.reasons.last().map(|r| r.text.clone()).unwrap_or_default();
            vec![event]
        }
        JobRecord::GivenUp { unit, at, reason, .. } => {
            let units = [UnitRun { first: *unit, count: 1 }];
            let mut event = of.event(*at, "end_units", core(own), &units);
            event.outcome = Outcome::Failed;
            event.why = format!("lost: {reason}");
            vec![event]
        }
        JobRecord::Happened { site, at, events, .. } if site != own => {
            let mut all = Changes::default();
            for e in events {
                match &e.what {
                    HostedRun::Started { node } => all.started(e.unit, Some(node)),
                    HostedRun::Ended { node, how, .. } => all.ended(e.unit, node.as_ref(), how),
                    HostedRun::Left { node, carried, why, .. } => {
                        all.left(e.unit, Some(node), carried, why);
                    }
                }
            }
            all.events(of, *at, &core(site))
        }
        _ => Vec::new(),
    }
}

fn of_hosted(record: &HostRecord, state: &State) -> Vec<Event> {
    let (HostRecord::Took { job, .. }
    | HostRecord::Happened { job, .. }
    | HostRecord::Decided { job, .. }
    | HostRecord::Cancelled { job, .. }) = record
    else {
        return Vec::new();
    };
    let own = job.site == *state.jobs.site();
    let known = state.hosted.placement(job);
    if let HostRecord::Took { at, who, units, .. } = record {
        let new = who.as_ref().map(|w| (&w.vo, &w.member.person));
        let known = known.map(|p| (&p.vo, &p.member.person));
        let Some((vo, person)) = new.or(known).filter(|_| !own) else { return Vec::new() };
        let of = Of { job, vo, person };
        return vec![of.event(*at, "accept_units", core(&job.site), units)];
    }
    let Some(p) = known else { return Vec::new() };
    let of = Of { job, vo: &p.vo, person: &p.member.person };
    match record {
        HostRecord::Happened { serial, at, events, .. } => {
            let node = p.envelopes.get(serial).map(|e| &e.node);
            let mut all = Changes::default();
            for e in events {
                match &e.what {
                    UnitChange::Started => all.started(e.unit, node),
                    UnitChange::Ended { how, .. } => all.ended(e.unit, node, how),
                    UnitChange::Left { carried, why, .. } => all.left(e.unit, node, carried, why),
                }
            }
            let who = node.map_or_else(String::new, |n| format!("node {n}"));
            all.events(of, *at, &who)
        }
        HostRecord::Decided { at, units, what, .. } => {
            let mut event = of.event(*at, "end_units", core(state.jobs.site()), units);
            event.outcome = Outcome::Failed;
            event.why = match what {
                Decision::Lost { reason } => format!("lost: {reason}"),
                Decision::NotStarted { reason } => format!("not started: {reason}"),
            };
            vec![event]
        }
        HostRecord::Cancelled { at, units, .. } if !own => {
            let units = units.clone().unwrap_or_default();
            vec![of.event(*at, "cancel_units", core(&job.site), &units)]
        }
        _ => Vec::new(),
    }
}

/// What happened to units of one job, told together.
#[derive(Default)]
struct Changes<'a> {
    started: BTreeMap<Option<&'a NodeId>, Vec<u32>>,
    /// By node, exit status and how it is called.
    ended: BTreeMap<(Option<&'a NodeId>, u8, &'static str), (&'a str, Vec<u32>)>,
    /// Each with what is said of it.
    left: Vec<(Option<&'a NodeId>, u32, String)>,
}

/// How an end is called, and the reason that somebody gave for it.
fn called(how: &UnitEnd) -> (&'static str, &str) {
    match how {
        UnitEnd::Exit { .. } => ("", ""),
        UnitEnd::Signal { .. } => ("by a signal", ""),
        UnitEnd::OutOfMemory => ("out of memory", ""),
        UnitEnd::ProcessLimit { .. } => ("limit of processes", ""),
        UnitEnd::WallTime => ("wall time", ""),
        UnitEnd::NotStarted { reason } => ("not started", reason.as_str()),
        UnitEnd::StageOut { reason } => ("stage-out", reason.as_str()),
        UnitEnd::Cancelled => ("cancelled", ""),
        UnitEnd::Lost { reason } => ("lost", reason.as_str()),
    }
}

impl<'a> Changes<'a> {
    fn started(&mut self, unit: u32, node: Option<&'a NodeId>) {
        self.started.entry(node).or_default().push(unit);
    }

    fn ended(&mut self, unit: u32, node: Option<&'a NodeId>, how: &'a UnitEnd) {
        let (name, reason) = called(how);
        let like = self.ended.entry((node, how.exit_status(), name));
        // Reasons of many are alike: the first stands for all.
        like.or_insert_with(|| (reason, Vec::new())).1.push(unit);
    }

    fn left(&mut self, unit: u32, node: Option<&'a NodeId>, carried: &Carried, why: &str) {
        let (cluster, version) = (&carried.cluster, carried.version);
        let mut text = format!("left {cluster} to go on elsewhere from image {version}");
        if !why.is_empty() {
            text += &format!(": {why}");
        }
        self.left.push((node, unit, text));
    }

    fn events(self, of: Of<'_>, at: Millis, who: &str) -> Vec<Event> {
        let packed = |mut units: Vec<u32>| {
            units.sort_unstable();
            units.dedup();
            runs::pack(units)
        };
        let mut all = Vec::new();
        for (node, units) in self.started {
            let mut event = of.event(at, "start_units", who.to_owned(), &packed(units));
            event.node = node.cloned();
            all.push(event);
        }
        for ((node, status, name), (reason, units)) in self.ended {
            let mut event = of.event(at, "end_units", who.to_owned(), &packed(units));
            event.node = node.cloned();
            let status = format!("exit status {status}");
            let why = [status.as_str(), name, reason];
            let why: Vec<&str> = why.into_iter().filter(|part| !part.is_empty()).collect();
            event.why = why.join(", ");
            if (status.as_str(), name) != ("exit status 0", "") {
                event.outcome = Outcome::Failed;
            }
            all.push(event);
        }
        for (node, unit, why) in self.left {
            let mut event = of.event(at, "leave_cluster", who.to_owned(), &packed(vec![unit]));
            (event.node, event.why) = (node.cloned(), why);
            all.push(event);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a job of ten thousand short units would fill the audit with as many lines, or
    /// the audit would not say which units ran where and how they ended.
    #[test]
    fn units_that_come_together_are_one_line() {
        let (job, node): (JobId, NodeId) =
            ("12.rennes".parse().unwrap(), "n1.rennes".parse().unwrap());
        let (vo, person) = ("demo.rennes".parse().unwrap(), "alice@rennes".parse().unwrap());
        let of = Of { job: &job, vo: &vo, person: &person };
        let (good, bad) = (UnitEnd::Exit { code: 0 }, UnitEnd::Exit { code: 3 });
        let lost = UnitEnd::Lost { reason: "no power".into() };
        let mut all = Changes::default();
        for unit in (0..1000).rev() {
            all.started(unit, Some(&node));
            all.ended(unit, Some(&node), if unit == 7 { &bad } else { &good });
        }
        all.ended(2000, None, &lost);
        let events = all.events(of, Millis(5), "node n1.rennes");
        let lines: Vec<_> = events
            .iter()
            .map(|e| (e.what.as_str(), e.on.as_str(), e.outcome, e.why.as_str()))
            .collect();
        assert_eq!(
            lines,
            [
                ("start_units", "12.rennes:0-999", Outcome::Done, ""),
                ("end_units", "12.rennes:2000", Outcome::Failed, "exit status 75, lost, no power"),
                ("end_units", "12.rennes:0-6,8-999", Outcome::Done, "exit status 0"),
                ("end_units", "12.rennes:7", Outcome::Failed, "exit status 3"),
            ]
        );
        assert_eq!(events[0].node.as_ref(), Some(&node));
        assert_eq!(events[0].person.as_ref(), Some(&person));
    }

    /// If it failed, a hostile owner's numbers would end the core, or fill a line.
    #[test]
    fn any_runs_can_be_named() {
        let job: JobId = "12.rennes".parse().unwrap();
        let run = |first, count| UnitRun { first, count };
        assert_eq!(named(&job, &[run(u32::MAX, u32::MAX)]), "12.rennes:4294967295-4294967294");
        assert_eq!(named(&job, &[]), "12.rennes:");
        let many: Vec<_> = (0..100).map(|n| run(n * 2, 1)).collect();
        assert!(named(&job, &many).ends_with(",62 and 68 more runs"));
    }
}
