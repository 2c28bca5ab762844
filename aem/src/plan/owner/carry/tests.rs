use super::*;
use crate::plan::owner::{Reach, SiteView, plan};
use crate::testing;
use xos_api::aem::{ClusterRoom, HostedEvent, HostedRun, Pool, SiteCapacity, UnitRun, Usage};

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
    let carried = testing::carried(&site("rennes"), 0);
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

/// If it failed, a unit of somebody who was removed would be asked for without end; or one whose
/// own site is away for a night would be lost.
#[test]
fn a_unit_that_all_refuse_is_given_up_and_one_that_may_go_home_is_not() {
    let pause = u64::try_from(CARRY_PAUSE.as_millis()).unwrap();
    let facts = facts(&[("rennes", &[]), ("pisa", &["rennes"])]);
    let mut t = table();
    leaves(&mut t);
    let mut now = 100;
    let given_up = |t: &JobTable| t.job(1).unwrap().state.is_final();
    for _ in 0..=CARRY_ROUNDS {
        assert!(!given_up(&t));
        assert_eq!(asked(&mut t, &facts, now), ["pisa"]);
        refused(&mut t, "pisa", 1);
        assert_eq!(asked(&mut t, &facts, now), ["rennes"]);
        refused(&mut t, "rennes", 1);
        assert!(asked(&mut t, &facts, now).is_empty());
        now += pause;
    }
    assert!(given_up(&t));
    let why = format!("{:?}", t.job(1).unwrap().units[0].phase);
    assert!(why.contains("asked 100 times: taken"), "{why}");
    let mut away = facts.clone();
    away.sites.get_mut(&site("rennes")).unwrap().connected = false;
    let mut t = table();
    leaves(&mut t);
    for n in 0..u64::from(CARRY_ROUNDS) * 2 {
        let again = asked(&mut t, &away, 100 + n * pause);
        if again.is_empty() {
            continue;
        }
        assert_eq!(again, ["pisa"], "it is asked again");
        refused(&mut t, "pisa", 1);
    }
    assert!(!given_up(&t));
}
