//! Small makers for this crate's tests.

mod world;

pub(crate) use world::{Asked, core, core_in};

use crate::state::host::HostedTask;
use crate::state::record::Who;
use crate::state::{HostRecord, Job};
use std::sync::Arc;
use xos_api::aem::{Carried, JobSpec, TaskSpec, UnitRun};
use xos_base::{
    Epoch, Group, GroupNumber, JobId, MemberNumber, Membership, Millis, NodeId, SiteId,
};

/// Alice, a plain member of `demo.rennes`.
pub(crate) fn alice() -> Membership {
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

/// A job with tasks of name, array, and the tasks they wait for.
pub(crate) fn spec(tasks: &[(&str, &str, &[&str])]) -> JobSpec {
    let task = |(name, array, after): &(&str, &str, &[&str])| TaskSpec {
        name: (*name).to_owned(),
        argv: vec!["/bin/true".to_owned()],
        array: array.parse().unwrap(),
        after: after.iter().map(|s| (*s).to_owned()).collect(),
        ..TaskSpec::default()
    };
    JobSpec {
        vo: "demo.rennes".parse().unwrap(),
        name: "test".to_owned(),
        tasks: tasks.iter().map(task).collect(),
        after_jobs: vec![],
        sites: vec![],
    }
}

/// A job of alice.
pub(crate) fn job(number: u64, spec: JobSpec) -> Job {
    Job::new(number, Millis(1000), spec, alice())
}

/// The node of [`core`].
pub(crate) fn n1() -> NodeId {
    "n1.rennes".parse().unwrap()
}

/// The first unit of a job.
pub(crate) const UNIT: UnitRun = UnitRun { first: 0, count: 1 };

/// Four units of a job of alice are accepted.
pub(crate) fn took(job: &JobId) -> HostRecord {
    let spec = spec(&[("main", "0-3", &[])]);
    let (vo, member, mandate) = (spec.vo.clone(), alice(), "m".into());
    let task = HostedTask { spec: Arc::new(spec.tasks[0].clone()), first: 0, want_output: false };
    HostRecord::Took {
        job: job.clone(),
        at: Millis(1000),
        who: Some(Box::new(Who { vo, member, mandate })),
        task: 0,
        what: Some(Box::new(task)),
        units: vec![UnitRun { first: 0, count: 4 }],
        attempt: 0,
        carried: None,
    }
}

/// The job's first envelope is made on [`n1`].
pub(crate) fn opened(job: &JobId) -> HostRecord {
    let (job, boot) = (job.clone(), "1".into());
    let (slots, cpu_milli, memory_bytes) = (4, 1000, 1 << 20);
    HostRecord::Opened { job, serial: 1, node: n1(), boot, slots, cpu_milli, memory_bytes }
}

/// The job's first unit goes to its first envelope.
pub(crate) fn sent(job: &JobId) -> HostRecord {
    HostRecord::Sent { job: job.clone(), serial: 1, units: vec![UNIT] }
}

/// What a unit goes on from that left a site's cluster `c1`, where it had written so much.
pub fn carried(site: &SiteId, stdout_bytes: u64) -> Box<Carried> {
    let node = |name: &str| -> NodeId { format!("{name}.{site}").parse().unwrap() };
    Box::new(Carried {
        cluster: node("c1").as_str().parse().unwrap(),
        tree: 7,
        version: 2,
        nodes: vec![node("n1")],
        key: "0".repeat(64),
        bytes: 1,
        pid: 65_432,
        cpu_group: 1,
        base: 1_000_000,
        stdout_bytes,
        stderr_bytes: 0,
        to: None,
    })
}
