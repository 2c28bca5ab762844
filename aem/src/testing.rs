//! Small makers for this crate's tests.

mod world;

pub(crate) use world::core;

use crate::state::Job;
use xos_api::aem::{JobSpec, TaskSpec};
use xos_base::{Epoch, Group, GroupNumber, MemberNumber, Membership, Millis};

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
