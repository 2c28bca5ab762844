use super::*;
use crate::state::{HostRecord, JobRecord, Record, State};
use crate::testing::{self, took};
use xos_api::aem::UnitRun;
use xos_base::{Kind, Millis};

fn submitted(number: u64, member: Membership, spec: JobSpec) -> Record {
    let (at, spec, member) = (Millis(number), Box::new(spec), Box::new(member));
    JobRecord::Submitted { job: number, at, spec, member, proof: None, watched: false }.into()
}

fn array(units: &str) -> JobSpec {
    testing::spec(&[("main", units, &[])])
}

fn bob() -> Membership {
    Membership { person: "bob@rennes".parse().unwrap(), ..testing::alice() }
}

fn config() -> Config {
    Config {
        jobs_per_member: 3,
        units_per_member: 100,
        units_max: 300,
        job_bytes_per_member: 100_000,
        job_bytes_max: 300_000,
        ..Config::default()
    }
}

fn limited(r: Result<Vec<u64>, Error>) -> String {
    let e = r.unwrap_err();
    assert_eq!(e.kind, Kind::Limited);
    assert!(e.hint.is_some(), "{e}");
    e.to_string()
}

/// If it failed, one member could fill the core's memory.
#[test]
fn a_member_has_so_many_units_and_bytes_open() {
    let (c, alice) = (config(), testing::alice());
    let mut s = State::new("rennes".parse().unwrap());
    s.apply(&submitted(1, alice.clone(), array("0-79")));
    assert_eq!(admit(&s.jobs, &c, &alice, &array("0-19")), Ok(vec![]));
    let said = limited(admit(&s.jobs, &c, &alice, &array("0-20")));
    for part in ["21 units", "have 80", "100 together", "xkill"] {
        assert!(said.contains(part), "{said}");
    }
    let mut long = array("0");
    long.tasks[0].argv = vec!["x".repeat(50_000); 2];
    assert!(limited(admit(&s.jobs, &c, &alice, &long)).contains("description"));
    assert_eq!(admit(&s.jobs, &c, &bob(), &array("0-49")), Ok(vec![]), "limits of another");
    // Ended units are not counted.
    s.apply(
        &JobRecord::Cancelled { job: 1, at: Millis(9), units: None, by: "alice".into() }.into(),
    );
    assert_eq!(s.jobs.open().of(&alice), Held::default());
    for n in 2..=4 {
        assert!(admit(&s.jobs, &c, &alice, &array("0")).is_ok());
        s.apply(&submitted(n, alice.clone(), array("0")));
    }
    assert!(limited(admit(&s.jobs, &c, &alice, &array("0"))).contains("3 jobs"));
}

fn member(n: usize, vo: &str) -> Membership {
    let (person, vo) = (format!("p{n}@rennes").parse().unwrap(), vo.parse().unwrap());
    Membership { person, vo, ..testing::alice() }
}

/// An array of a VO.
fn of_vo(units: u64, vo: &str) -> JobSpec {
    JobSpec { vo: vo.parse().unwrap(), ..array(&format!("0-{}", units - 1)) }
}

/// As many units as a member may have begin; gives how many.
fn fill(s: &mut State, c: &Config, n: usize, vo: &str) -> u64 {
    let who = member(n, vo);
    let sizes: Vec<u64> = (1..=c.units_max).collect();
    let fits = |units: &u64| admit(&s.jobs, c, &who, &of_vo(*units, vo)).is_ok();
    let most = sizes.partition_point(fits) as u64;
    if most > 0 {
        s.apply(&submitted(s.jobs.next(), who, of_vo(most, vo)));
    }
    most
}

/// If it failed, a few members could take all room for open jobs, and nobody else could submit.
#[test]
fn a_member_takes_a_part_of_what_the_others_leave() {
    let c = Config { units_per_member: 1000, ..config() };
    let mut s = State::new("rennes".parse().unwrap());
    let mut parts = Vec::new();
    for n in 1..=6 {
        let vo = format!("vo{n}.rennes");
        parts.push(fill(&mut s, &c, n, &vo));
        let said = limited(admit(&s.jobs, &c, &member(n, &vo), &of_vo(1, &vo)));
        assert!(said.contains("units of all"), "{said}");
    }
    assert_eq!(parts, [100, 66, 44, 30, 20, 13]);
    // Descriptions have the same rule.
    let c = Config { job_bytes_max: 150_000, ..config() };
    let mut long = array("0");
    long.tasks[0].argv = vec!["x".repeat(60_000)];
    let none = State::new("rennes".parse().unwrap());
    assert!(
        limited(admit(&none.jobs, &c, &member(1, "demo.rennes"), &long))
            .contains("of what is left")
    );
}

/// If it failed, thirty members that one VO invents, or VOs that a hostile home invents, would keep
/// the site's own people from submitting.
#[test]
fn a_home_with_many_members_leaves_the_own_site_its_room() {
    let c = Config { units_per_member: 1000, ..config() };
    let mut s = State::new("rennes".parse().unwrap());
    let all = |s: &mut State, vo: &str, home: &str| -> u64 {
        (0..30)
            .map(|n| fill(s, &c, n, &vo.replace('N', &n.to_string()).replace("HOME", home)))
            .sum()
    };
    assert_eq!(all(&mut s, "voN.HOME", "pisa"), 75, "of half of it half");
    assert_eq!(all(&mut s, "bad.HOME", "lyon"), 37, "something is left for the next home");
    let rest: u64 = (0..8).map(|i| all(&mut s, "bad.HOME", &format!("s{i}"))).sum();
    assert!(75 + 37 + rest <= 150, "other homes take what is the own site's");
    // An own VO leaves half of the rest to the others.
    let own = all(&mut s, "bad.HOME", "rennes");
    assert!(own >= 75 && fill(&mut s, &c, 0, "demo.rennes") >= 25, "{own}");
    let said = limited(admit(&s.jobs, &c, &member(31, "new.pisa"), &of_vo(1, "new.pisa")));
    assert!(said.contains("of one other site"), "{said}");
    let again = State::from_snapshot(s.jobs.site(), &s.to_snapshot().unwrap()).unwrap();
    assert!(again == s, "a restart forgets who has what");
    for n in 1..s.jobs.next() {
        let (at, by) = (Millis(9), "p".into());
        s.apply(&JobRecord::Cancelled { job: n, at, units: None, by }.into());
    }
    assert_eq!(s.jobs.open(), State::new("rennes".parse().unwrap()).jobs.open());
}

/// If it failed, many members together could fill the core's memory by jobs that they cancel at
/// once.
#[test]
fn all_members_together_have_so_much() {
    let c = Config { units_max: 150, ..config() };
    let mut s = State::new("rennes".parse().unwrap());
    for (n, units) in [(1, "0-99"), (2, "0-19")] {
        s.apply(&submitted(n, testing::alice(), array(units)));
        let (at, by) = (Millis(9), "alice".into());
        s.apply(&JobRecord::Cancelled { job: n, at, units: None, by }.into());
    }
    // What has ended makes way.
    assert_eq!(admit(&s.jobs, &c, &bob(), &array("0-29")), Ok(vec![]));
    assert_eq!(admit(&s.jobs, &c, &bob(), &array("0-30")), Ok(vec![1]));
    assert_eq!(s.jobs.held().units, 120);
    let again = State::from_snapshot(s.jobs.site(), &s.to_snapshot().unwrap()).unwrap();
    assert!(again == s, "a restart forgets what is held");
    for n in [1, 2] {
        s.apply(&JobRecord::Forgotten { job: n }.into());
    }
    assert_eq!(s.jobs.held(), Held::default());
}

/// If it failed, another site could fill this core's memory with units that end at once, and leave
/// no room for the jobs of a third.
#[test]
fn other_sites_take_so_much() {
    let c = Config { units_max: 300, ..config() };
    let pisa: SiteId = "pisa".parse().unwrap();
    let mut s = State::new("rennes".parse().unwrap());
    for n in 1..=30 {
        s.apply(&took(&format!("{n}.pisa").parse().unwrap()).into());
    }
    s.apply(&took(&"1.rennes".parse().unwrap()).into());
    let held = s.hosted.held_for_others();
    assert_eq!((held.jobs, held.units), (30, 120), "own jobs are counted elsewhere");
    let more = |units| host(&s.hosted, &c, &pisa, Held { jobs: 1, units, bytes: 1 });
    assert_eq!(more(30), Ok(()));
    assert_eq!(more(31).unwrap_err().rule, "room");
    // Half of what pisa leaves.
    let brno: SiteId = "brno".parse().unwrap();
    let others = |units| host(&s.hosted, &c, &brno, Held { jobs: 1, units, bytes: 1 });
    assert_eq!(others(90), Ok(()));
    assert_eq!(others(91).unwrap_err().rule, "room");
    let again = State::from_snapshot(s.jobs.site(), &s.to_snapshot().unwrap()).unwrap();
    assert_eq!(again.hosted.held_for_others(), held);
    for n in 1..=30u64 {
        let job: xos_base::JobId = format!("{n}.pisa").parse().unwrap();
        let units = Some(vec![UnitRun { first: 0, count: 4 }]);
        s.apply(&HostRecord::Cancelled { job: job.clone(), at: Millis(9), units }.into());
        s.apply(&HostRecord::Forgotten { job }.into());
    }
    assert_eq!(s.hosted.held_for_others(), Held::default());
    assert_eq!(s.hosted.unheard(&pisa), 120);
}
