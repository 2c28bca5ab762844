use super::*;
use crate::state::JobRecord;
use crate::testing;
use xos_api::aem::{HostedEvent, HostedRun, UnitRun, Usage};
use xos_base::Millis;

fn pisa() -> SiteId {
    "pisa".parse().unwrap()
}

/// Units of one attempt end at pisa's n1 in that order, with these exit codes.
fn ends(attempt: u16, seq: u64, ended: &[(u32, u8)]) -> JobRecord {
    let event = |(unit, code): &(u32, u8)| {
        let (node, started, usage) = (pisa().node("n1").ok(), None, Usage::default());
        let (how, output) = (UnitEnd::Exit { code: *code }, None);
        let at = Millis(10 + u64::from(*unit));
        let what = HostedRun::Ended { node, started, how, usage, output };
        HostedEvent { unit: *unit, at, what }
    };
    let (site, job, at, events) = (pisa(), 1, Millis(20), ended.iter().map(event).collect());
    JobRecord::Happened { site, seq, job, attempt, at, events }
}

/// A job of three units, which pisa took.
fn table(retry: u16) -> JobTable {
    let mut spec = testing::spec(&[("main", "0-2", &[])]);
    spec.tasks[0].retry = retry;
    let (job, spec, member) = (1, Box::new(spec), Box::new(testing::alice()));
    let at = Millis(5);
    let mut table = JobTable::new("rennes".parse().unwrap());
    let submitted = JobRecord::Submitted { job, at, spec, member, proof: None, watched: false };
    table.apply(&submitted);
    table.apply(&JobRecord::Mandated { job, mandate: "m".into() });
    taken(&mut table, 3, 0);
    table
}

fn taken(table: &mut JobTable, count: u32, attempt: u16) {
    let units = vec![UnitRun { first: 0, count }];
    let (job, task, site) = (1, 0, pisa());
    let offered = JobRecord::Offered { job, task, site, units: units.clone(), attempt };
    table.apply(&offered);
    table.apply(&JobRecord::Accepted { job, site: pisa(), units, attempt });
}

/// If it failed, the exit status of an array would depend on which node was faster.
#[test]
fn an_array_ends_with_the_status_of_its_first_unit_that_failed() {
    let mut table = table(0);
    table.apply(&ends(0, 1, &[(2, 5), (1, 4), (0, 0)]));
    let job = table.job(1).unwrap();
    let end = end(&table, job).unwrap();
    assert_eq!((end.exit_status, end.unit), (4, Some(table.id(1).unit(1))));
}

/// If it failed, who lists their jobs would not see on which nodes they are, or see one where
/// nothing of it runs any more.
#[test]
fn a_line_of_a_list_names_the_nodes() {
    let mut table = table(0);
    let named = |table: &JobTable| nodes(table, table.job(1).unwrap());
    assert!(named(&table).is_empty(), "it has only been taken");
    table.apply(&ends(0, 1, &[(0, 0)]));
    assert!(named(&table).is_empty(), "the others wait");
    table.apply(&ends(0, 2, &[(1, 0), (2, 3)]));
    assert_eq!(named(&table), [pisa().node("n1").unwrap()], "once each");
}

/// If it failed, who asks why a unit was tried three times would learn of the last run alone.
#[test]
fn earlier_tries_of_a_unit_are_told() {
    let mut table = table(1);
    table.apply(&ends(0, 1, &[(0, 3), (1, 0), (2, 0)]));
    taken(&mut table, 1, 1);
    table.apply(&ends(1, 2, &[(0, 4)]));
    let job = table.job(1).unwrap();
    let tries: Vec<Try> = job.tries.iter().map(|t| tried(&table, job, t)).collect();
    let [first] = tries.as_slice() else { panic!("{tries:?}") };
    assert_eq!((first.unit.clone(), first.attempt), (table.id(1).unit(0), 0));
    assert_eq!((first.site.clone(), first.end.clone()), (pisa(), UnitEnd::Exit { code: 3 }));
    assert_eq!(first.node, pisa().node("n1").ok());
    assert_eq!(end(&table, job).unwrap().exit_status, 4);
}
