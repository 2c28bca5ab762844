use super::*;
use crate::state::unit::Phase;
use crate::state::{JobRecord, JobTable};
use crate::testing;
use xos_api::aem::{HostedEvent, HostedRun, Refusal, UnitEnd, UnitRun, Usage};

fn site(name: &str) -> SiteId {
    name.parse().unwrap()
}

fn carried(wrote: u64) -> Box<Carried> {
    testing::carried(&"pisa".parse().unwrap(), wrote)
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
    table_of(0)
}

/// The same, of a unit that may be begun anew so many times.
fn table_of(retry: u16) -> JobTable {
    let mut table = JobTable::new(site("rennes"));
    let mut spec = testing::spec(&[("main", "0", &[])]);
    spec.tasks[0].checkpointable = true;
    spec.tasks[0].retry = retry;
    let (spec, member) = (Box::new(spec), Box::new(testing::alice()));
    let at = Millis(5);
    table.apply(&JobRecord::Submitted { job: 1, at, spec, member, proof: None, watched: false });
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
    let at = |offset| {
        let runs = job.wrote(0, OutputStream::Stdout, offset);
        runs.map(|(m, end)| (m.attempt, end)).collect::<Vec<_>>()
    };
    assert_eq!([at(0), at(29)], [[(0, 30), (1, 45)], [(0, 30), (1, 45)]]);
    assert_eq!([at(30), at(44)], [[(1, 45)], [(1, 45)]]);
    assert!(at(45).is_empty());
    assert_eq!(job.wrote(0, OutputStream::Stderr, 0).count(), 0);
}

/// If it failed, a site that gives units back as it got them would have their owner write as fast
/// as it can, and keep ever more of them.
#[test]
fn a_unit_that_comes_back_without_having_begun_rests() {
    let mut t = table();
    t.apply(&happened("pisa", 0, left("pisa", 0)));
    assert_eq!(t.job(1).unwrap().carried[&0].rest, Millis(0), "it ran, and goes on at once");
    taken(&mut t, "pisa", 1);
    t.apply(&happened("pisa", 1, left("pisa", 0)));
    let job = t.job(1).unwrap();
    assert_eq!(job.carried[&0].rest, Millis(20).plus(RETURN_PAUSE));
    let before: Vec<u16> = job.spent.iter().map(|s| s.attempt).collect();
    assert_eq!(before, [0], "the image before stays for ever");
}

/// If it failed, a site would fill the memory of an owner with moves of one job.
#[test]
fn of_moves_a_bounded_number_is_kept() {
    let mut job = testing::job(1, testing::spec(&[("main", "0", &[])]));
    let from = Place::at(1);
    let moved = |attempt: usize, live| Moved {
        unit: 0,
        attempt: u16::try_from(attempt).unwrap(),
        from,
        cluster: "c1.pisa".parse().unwrap(),
        left: Millis(1),
        version: 1,
        wrote: [0, 0],
        live,
        to: None,
        why: String::new(),
    };
    (0..LIVE_MAX + 10).for_each(|n| job.moved(moved(n, true)));
    (0..MOVES_KEPT + 10).for_each(|n| job.moved(moved(n, false)));
    let of = |live| job.moves.iter().filter(|m| m.live == live).count();
    assert_eq!((of(true), of(false)), (LIVE_MAX, MOVES_KEPT));
    let newest = job.moves.iter().rev().find(|m| m.live).unwrap();
    assert_eq!(usize::from(newest.attempt), LIVE_MAX + 9);
}

/// If it failed, a unit that nobody takes any more would keep its job open for ever, or its image
/// its room; or it would not begin anew where its author lets it.
#[test]
fn a_unit_that_is_given_up_is_lost_or_begins_anew() {
    for retry in [0, 1] {
        let mut t = table_of(retry);
        t.apply(&happened("pisa", 0, left("pisa", 30)));
        let (job, unit, at) = (1, 0, Millis(90));
        let given_up = JobRecord::GivenUp { job, unit, at, reason: "no right".into() };
        t.apply(&given_up);
        let job = t.job(1).unwrap();
        assert!(job.carried.is_empty() && job.spent.len() == 1 && job.tasks[0].carried == 0);
        if retry == 0 {
            let lost = &job.units[0].phase;
            assert!(matches!(lost, Phase::Lost { reason, .. } if &**reason == "no right"));
            assert!(job.state.is_final());
        } else {
            assert_eq!((job.fresh(0), job.units[0].attempt), (1, 2));
            assert!(!job.moves[0].live, "it writes from its beginning on");
        }
        // What runs is not given up.
        let mut t = table_of(retry);
        t.apply(&given_up);
        assert!(matches!(t.job(1).unwrap().units[0].phase, Phase::Running { .. }));
    }
}
