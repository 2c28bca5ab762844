use super::*;
use crate::testing;
use xos_api::aem::{Pool, UnitRun};

const GIB: u64 = 1 << 30;

fn site(name: &str) -> SiteId {
    name.parse().unwrap()
}

fn view(nodes: u32, cpu: u32, free: u64) -> SiteView {
    let pool = Pool {
        arch: "x86_64".into(),
        nodes,
        cpu_milli: u64::from(cpu) * u64::from(nodes),
        cpu_free_milli: free,
        memory_bytes: 64 * GIB,
        memory_free_bytes: 64 * GIB,
        node_cpu_milli: cpu,
        node_memory_bytes: 64 * GIB,
    };
    let capacity = SiteCapacity { pools: vec![pool], ..Default::default() };
    SiteView { connected: true, since: Millis(0), capacity }
}

fn facts(sites: &[(&str, SiteView)]) -> Facts {
    let mut f = Facts::default();
    for (name, v) in sites {
        f.sites.insert(site(name), v.clone());
    }
    let names = sites.iter().map(|(n, _)| site(n)).collect();
    f.serving.insert("demo.rennes".parse().unwrap(), names);
    f
}

fn table(array: &str, change: impl FnOnce(&mut xos_api::aem::JobSpec)) -> JobTable {
    let mut spec = testing::spec(&[("main", array, &[])]);
    change(&mut spec);
    let mut t = JobTable::new(site("rennes"));
    t.apply(&JobRecord::Submitted {
        job: 1,
        at: Millis(0),
        spec: Box::new(spec),
        member: Box::new(testing::alice()),
        proof: None,
        watched: false,
    });
    t.apply(&JobRecord::Mandated { job: 1, mandate: "m".into() });
    t
}

fn offers(records: &[JobRecord]) -> Vec<(String, u32)> {
    records
        .iter()
        .filter_map(|r| match r {
            JobRecord::Offered { site, units, .. } => {
                Some((site.to_string(), units.iter().map(|u| u.count).sum()))
            }
            _ => None,
        })
        .collect()
}

#[test]
fn units_are_spread_by_free_room() {
    let f = facts(&[("rennes", view(2, 4000, 2000)), ("pisa", view(2, 4000, 6000))]);
    let t = table("0-99", |_| {});
    assert_eq!(
        offers(&plan(&t, &f, Reach::Quick, Millis(1))),
        [("pisa".into(), 6), ("rennes".into(), 2)]
    );
    let t = table("0-3", |_| {});
    assert_eq!(
        offers(&plan(&t, &f, Reach::Quick, Millis(1))),
        [("pisa".into(), 3), ("rennes".into(), 1)]
    );
}

#[test]
fn what_waits_at_a_site_is_not_offered_its_room_again() {
    let f = facts(&[("rennes", view(1, 4000, 4000))]);
    let mut t = table("0-99", |_| {});
    for r in plan(&t, &f, Reach::Quick, Millis(1)) {
        t.apply(&r);
    }
    assert_eq!(plan(&t, &f, Reach::Quick, Millis(2)), [], "the same room was given twice");
}

#[test]
fn short_units_go_ahead_and_arrays_keep_their_limit() {
    let mut f = facts(&[("rennes", view(1, 4000, 0))]);
    f.pace.ended((1, 0, site("rennes")), 50, Millis(1000));
    let t = table("0-99", |_| {});
    assert_eq!(offers(&plan(&t, &f, Reach::Quick, Millis(1001))), [("rennes".into(), 50)]);
    let t = table("0-99%3", |_| {});
    assert_eq!(offers(&plan(&t, &f, Reach::Quick, Millis(1001))), [("rennes".into(), 3)]);
}

#[test]
fn only_allowed_and_serving_sites_are_asked() {
    let f = facts(&[("rennes", view(1, 4000, 4000)), ("pisa", view(1, 4000, 4000))]);
    let t = table("0", |s| s.sites = vec![site("pisa")]);
    assert_eq!(offers(&plan(&t, &f, Reach::Quick, Millis(1))), [("pisa".into(), 1)]);
    let t = table("0", |s| s.sites = vec![site("nowhere")]);
    let later = Millis(PATIENCE.as_millis() as u64 + 1);
    let out = plan(&t, &f, Reach::Quick, later);
    assert!(matches!(&out[0], JobRecord::Noted { reason, .. } if reason.rule == "no-share"));
    assert!(matches!(&out[1], JobRecord::Refused { .. }));
}

/// If it failed, who mistypes a site would have to find out elsewhere which ones there are.
#[test]
fn sites_that_serve_the_vo_are_named() {
    let mut spec = testing::spec(&[("main", "0", &[])]);
    let told = |spec: &JobSpec, serving: &[SiteId]| nobody(spec, serving).map(|r| r.text);
    assert_eq!(told(&spec, &[site("pisa")]), None);
    assert_eq!(told(&spec, &[]).unwrap(), "no site serves demo.rennes now");
    spec.sites = vec![site("mars"), site("venus")];
    let none = told(&spec, &[site("pisa"), site("rennes")]).unwrap();
    assert_eq!(
        none,
        "none of the sites asked for (mars, venus) serves demo.rennes; \
         sites that serve it: pisa, rennes"
    );
    assert!(told(&spec, &[]).unwrap().ends_with("nor does another now"));
    spec.sites.push(site("pisa"));
    assert_eq!(told(&spec, &[site("pisa")]), None, "what one never can, the others are asked for");
}

/// If it failed, the end of a job would tell what was in the way before, not why it was given up.
#[test]
fn the_latest_reason_of_a_site_is_the_one_that_holds() {
    let small = facts(&[("rennes", view(1, 2000, 2000))]);
    let mut away = small.clone();
    away.sites.get_mut(&site("rennes")).unwrap().connected = false;
    let mut t = table("0", |s| s.tasks[0].resources.cpu_milli = 8000);
    for (f, at) in [(&small, 1), (&away, 2), (&small, 3), (&small, 4)] {
        for r in plan(&t, f, Reach::Quick, Millis(at)) {
            t.apply(&r);
        }
    }
    let told: Vec<(&str, u64)> =
        t.job(1).unwrap().reasons.iter().map(|r| (r.rule.as_str(), r.at.0)).collect();
    assert_eq!(told, [("unreachable", 2), ("cpu", 3)]);
}

#[test]
fn an_impossible_request_is_refused_with_every_sites_reason() {
    let f = facts(&[("rennes", view(1, 2000, 2000)), ("pisa", view(1, 4000, 4000))]);
    let mut t = table("0-1", |s| s.tasks[0].resources.cpu_milli = 8000);
    let early = plan(&t, &f, Reach::Quick, Millis(1));
    assert!(!early.iter().any(|r| matches!(r, JobRecord::Refused { .. })), "nodes may yet come");
    for r in plan(&t, &f, Reach::Quick, Millis(PATIENCE.as_millis() as u64)) {
        t.apply(&r);
    }
    let job = t.job(1).unwrap();
    assert_eq!(job.state.word(), "failed");
    let why: Vec<String> =
        job.reasons.iter().map(|r| format!("{} {}", r.site.as_ref().unwrap(), r.text)).collect();
    assert_eq!(
        why,
        [
            "rennes 8 processors are asked for, its largest node has 2",
            "pisa 8 processors are asked for, its largest node has 4"
        ]
    );
}

#[test]
fn a_site_that_refused_for_good_is_not_asked_again() {
    let f = facts(&[("rennes", view(1, 4000, 4000)), ("pisa", view(1, 8000, 8000))]);
    let mut t = table("0", |_| {});
    for r in plan(&t, &f, Reach::Quick, Millis(1)) {
        t.apply(&r);
    }
    t.apply(&JobRecord::Returned {
        job: 1,
        site: site("pisa"),
        units: vec![UnitRun { first: 0, count: 1 }],
        attempt: 0,
        at: Millis(2),
        refusal: Refusal { rule: "site-policy".into(), text: "no alice".into(), later: false },
    });
    assert_eq!(offers(&plan(&t, &f, Reach::Quick, Millis(3))), [("rennes".into(), 1)]);
}

#[test]
fn a_site_that_does_not_answer_is_a_reason_and_not_asked() {
    let mut f = facts(&[("pisa", view(1, 4000, 4000))]);
    f.sites.get_mut(&site("pisa")).unwrap().connected = false;
    let mut t = table("0", |_| {});
    for r in plan(&t, &f, Reach::Quick, Millis(60_000)) {
        t.apply(&r);
    }
    let job = t.job(1).unwrap();
    assert_eq!((job.state.word(), job.reasons[0].rule.as_str()), ("queued", "unreachable"));
    assert_eq!(
        plan(&t, &f, Reach::Quick, Millis(61_000)),
        [],
        "the same reason is journalled over and over"
    );
}

#[test]
fn a_small_job_passes_large_ones_that_wait() {
    let f = facts(&[("rennes", view(1, 4000, 2000))]);
    let mut t = table("0", |s| s.tasks[0].resources.cpu_milli = 4000);
    for number in 2..=u64::from(MISSES_MAX) + 2 {
        let mut spec = testing::spec(&[("main", "0", &[])]);
        let last = number == u64::from(MISSES_MAX) + 2;
        spec.tasks[0].resources.cpu_milli = if last { 1000 } else { 4000 };
        t.apply(&JobRecord::Submitted {
            job: number,
            at: Millis(0),
            spec: Box::new(spec),
            member: Box::new(testing::alice()),
            proof: None,
            watched: false,
        });
        t.apply(&JobRecord::Mandated { job: number, mandate: "m".into() });
    }
    assert_eq!(offers(&plan(&t, &f, Reach::Quick, Millis(1))), [], "a quick pass looks at all");
    let all = plan(&t, &f, Reach::Whole, Millis(1));
    assert_eq!(offers(&all), [("rennes".into(), 1)]);
    let one = plan(&t, &f, Reach::Job(u64::from(MISSES_MAX) + 2), Millis(1));
    assert_eq!(offers(&one), [("rennes".into(), 1)]);
}

/// If it failed, a job that waits for the one large node would be refused for good when that node's
/// connection breaks for a moment, or when another site's core was just started.
#[test]
fn a_job_waits_for_a_large_node_that_may_come_back() {
    let late = Millis(10 * PATIENCE.as_millis() as u64);
    let large = |s: &mut xos_api::aem::JobSpec| s.tasks[0].resources.cpu_milli = 32_000;
    let refused = |f: &Facts| {
        let out = plan(&table("0", large), f, Reach::Whole, late);
        out.iter().any(|r| matches!(r, JobRecord::Refused { .. }))
    };
    let small = facts(&[("rennes", view(2, 4000, 4000))]);
    assert!(refused(&small), "nothing is shown");
    let mut blinks = small.clone();
    let pools = &mut blinks.sites.get_mut(&site("rennes")).unwrap().capacity.pools;
    pools.push(Pool { nodes: 0, cpu_milli: 0, node_cpu_milli: 64_000, ..pools[0].clone() });
    assert!(!refused(&blinks));
    let mut young = small;
    young.sites.get_mut(&site("rennes")).unwrap().since = Millis(late.0 - 1);
    assert!(!refused(&young));
}

/// If it failed, one member's jobs, or jobs that nobody may run yet, would keep another's from ever
/// being looked at.
#[test]
fn another_members_job_passes_many_that_cannot_run() {
    let f = facts(&[("rennes", view(1, 4000, 4000))]);
    let mut t = table("0", |s| s.tasks[0].resources.cpu_milli = 8000);
    let last = JOBS_PER_PASS as u64 + 2;
    for number in 2..=last {
        let mut spec = testing::spec(&[("main", "0", &[])]);
        let mut member = testing::alice();
        if number == last {
            member.person = "bob@rennes".parse().unwrap();
        } else {
            spec.tasks[0].resources.cpu_milli = 8000;
        }
        let (job, at, spec, member) = (number, Millis(0), Box::new(spec), Box::new(member));
        t.apply(&JobRecord::Submitted { job, at, spec, member, proof: None, watched: false });
        t.apply(&JobRecord::Mandated { job, mandate: "m".into() });
    }
    for reach in [Reach::Quick, Reach::Whole] {
        assert_eq!(offers(&plan(&t, &f, reach, Millis(1))), [("rennes".into(), 1)], "{reach:?}");
    }
    // Without its mandate a job is not in the way, whoever has it.
    let mut spec = testing::spec(&[("main", "0", &[])]);
    spec.vo = "other.rennes".parse().unwrap();
    let (job, at, spec, member) = (last + 1, Millis(0), Box::new(spec), Box::new(testing::alice()));
    t.apply(&JobRecord::Submitted { job, at, spec, member, proof: None, watched: false });
    assert!(t.idle().all(|j| j.number != job));
}

/// If it failed, jobs of many people that cannot run would keep those behind them from ever being
/// looked at.
#[test]
fn whole_passes_come_to_every_job() {
    let mut f = facts(&[("rennes", view(1, 4000, 4000))]);
    let mut t = table("0", |s| s.tasks[0].resources.cpu_milli = 8000);
    // Each of another person; only the last one's fits.
    let last = 2 * JOBS_PER_PASS as u64 + 500;
    for number in 2..=last {
        let mut spec = testing::spec(&[("main", "0", &[])]);
        let mut member = testing::alice();
        member.person = format!("p{number}@rennes").parse().unwrap();
        spec.tasks[0].resources.cpu_milli = if number == last { 1000 } else { 8000 };
        let (job, at, spec, member) = (number, Millis(0), Box::new(spec), Box::new(member));
        t.apply(&JobRecord::Submitted { job, at, spec, member, proof: None, watched: false });
        t.apply(&JobRecord::Mandated { job, mandate: "m".into() });
    }
    let mut passes = Vec::new();
    for _ in 0..4 {
        passes.push(offers(&plan(&t, &f, Reach::Whole, Millis(1))).len());
        f.turn = f.turn.next(&t);
    }
    // The third begins with the 500 last jobs; the fourth where it ended.
    assert_eq!((passes, f.turn), (vec![0, 0, 1, 0], Turn { idle: 1500, busy: 0 }));
    // Jobs that went away leave no gap: all that are left are looked at.
    let few = table("0", |_| {});
    assert_eq!(offers(&plan(&few, &f, Reach::Whole, Millis(1))).len(), 1);
    assert_eq!(f.turn.next(&few), Turn::default());
}
