//! Prints what ended jobs and units take of a core's memory: `cargo nextest run -p xos-aem
//! --run-ignored only --test memory --no-capture`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::sync::Arc;
use xos_aem::state::host::HostedTask;
use xos_aem::state::record::Who;
use xos_aem::state::{HostRecord, JobRecord, Record, State};
use xos_api::aem::{JobSpec, TaskSpec, UnitEnd, UnitRun, Usage};
use xos_api::node::units::{UnitChange, UnitEvent};
use xos_base::{Epoch, Group, GroupNumber, JobId, MemberNumber, Membership, Millis};

/// Memory of this process that is in use, bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn member() -> Membership {
    Membership {
        vo: "demo.rennes".parse().unwrap(),
        person: "alice@rennes".parse().unwrap(),
        number: MemberNumber(2),
        epoch: Epoch(1),
        groups: vec![Group { name: "members".parse().unwrap(), number: GroupNumber(1) }],
        roles: vec![],
        expires: None,
    }
}

fn spec(units: u32) -> JobSpec {
    JobSpec {
        vo: "demo.rennes".parse().unwrap(),
        name: "true".into(),
        tasks: vec![TaskSpec {
            name: "main".into(),
            argv: vec!["/bin/true".into()],
            array: format!("0-{}", units - 1).parse().unwrap(),
            ..TaskSpec::default()
        }],
        after_jobs: vec![],
        sites: vec![],
    }
}

/// A job from its submission to its end, on a node of its own site.
fn life(number: u64, units: u32) -> Vec<Record> {
    let job = JobId { site: "rennes".parse().unwrap(), number };
    let all = vec![UnitRun { first: 0, count: units }];
    let (site, at, attempt): (xos_base::SiteId, _, u16) = (job.site.clone(), Millis(1000), 0);
    // As long as a mandate is.
    let mandate = "m".repeat(900);
    let task =
        HostedTask { spec: Arc::new(spec(units).tasks[0].clone()), first: 0, want_output: true };
    let who = Who { vo: spec(1).vo, member: member(), mandate: mandate.clone() };
    let event = |unit, what| UnitEvent { unit, attempt, at, what };
    let end = UnitChange::Ended {
        how: UnitEnd::Exit { code: 0 },
        usage: Usage { wall_ms: 5, cpu_ms: 3, memory_bytes: 1 << 20 },
        output: None,
    };
    let both = |u| [event(u, UnitChange::Started), event(u, end.clone())];
    let events = (0..units).flat_map(both).collect();
    vec![
        JobRecord::Submitted {
            job: number,
            at,
            spec: Box::new(spec(units)),
            member: Box::new(member()),
            proof: None,
            watched: units == 1,
        }
        .into(),
        JobRecord::Mandated { job: number, mandate }.into(),
        JobRecord::Offered {
            job: number,
            task: 0,
            site: site.clone(),
            units: all.clone(),
            attempt,
        }
        .into(),
        HostRecord::Took {
            job: job.clone(),
            at,
            who: Some(Box::new(who)),
            task: 0,
            what: Some(Box::new(task)),
            units: all.clone(),
            attempt,
            carried: None,
        }
        .into(),
        JobRecord::Accepted { job: number, site, units: all.clone(), attempt }.into(),
        HostRecord::Opened {
            job: job.clone(),
            serial: 1,
            node: "n1.rennes".parse().unwrap(),
            boot: "5f0c4b7e-0c52-4b8c-9d0f-0a3b1b2c3d4e".into(),
            slots: 2,
            cpu_milli: 1000,
            memory_bytes: 1 << 28,
        }
        .into(),
        HostRecord::Sent { job: job.clone(), serial: 1, units: all.clone() }.into(),
        HostRecord::Held { job: job.clone(), serial: 1, units: all, attempt: 0 }.into(),
        HostRecord::Happened { job, serial: 1, after: 0, at, events, skipped: 0 }.into(),
    ]
}

#[test]
#[ignore = "a measurement"]
fn memory_of_what_has_ended() {
    let mut s = State::new("rennes".parse().unwrap());
    let before = resident();
    const JOBS: u64 = 10_000;
    for n in 1..=JOBS {
        life(n, 1).iter().for_each(|r| drop(s.apply(r)));
    }
    let jobs = resident() - before;
    assert_eq!(s.jobs.ended_len() as u64, JOBS);
    println!("{} bytes per ended job of one unit", jobs / JOBS);
    let before = resident();
    const UNITS: u32 = 1_000_000;
    for n in 1..=10 {
        life(JOBS + n, UNITS / 10).iter().for_each(|r| drop(s.apply(r)));
    }
    println!("{} bytes per ended unit", (resident() - before) / u64::from(UNITS));
    assert_eq!(s.jobs.held().units, JOBS + u64::from(UNITS));
}
