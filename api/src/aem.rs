//! Jobs: what a person submits, what becomes of it, and how one core hosts units for another.
//!
//! A *job* has tasks; a task has one unit, or one for each index of its array. The units of a job
//! are numbered from 0, task after task, in the order of the job's description.

mod array;
mod checkpoint;
mod host;
mod job;
mod look;
mod moves;
mod outline;
mod running;
mod spec;
mod unit;

pub use array::{Array, ArrayError, Range};
pub use checkpoint::{
    CHECKPOINTS_MAX, CheckpointUnits, Checkpoints, HostCheckpoints, ListCheckpoints, UnitCheckpoint,
};
pub use host::{
    AckHosted, CancelHosted, ClusterRoom, HostEvents, HostItem, HostOutput, HostReply, HostUnits,
    HostedEvent, HostedRun, Pool, Refusal, ShareRoom, SiteCapacity, UnitRun,
};
pub use job::{
    CancelJob, CancelUnits, Cancelled, Counts, InlineOutput, JobEnd, JobEvent, JobState,
    OutputPart, OutputStream, ReadOutput, Reason, SubmitAndWatch, SubmitJob, Submitted, WatchJob,
};
pub use look::{
    GetJob, JOB_NODES_MAX, JobFilter, JobPage, JobSummary, JobView, ListJobs, ListUnits, Reasons,
    TRIES_MAX, TaskSummary, Try, UnitFilter, UnitPage, UnitView, WhyJob,
};
pub use moves::{
    CARRIED_KEY_LEN, CARRIED_NODES_MAX, Carried, HostLeave, MOVES_KEPT, MOVES_MAX, MoveUnit,
    UnitMove,
};
pub use outline::{Outline, TaskDigest};
pub use running::{ListRunning, RUNNING_MAX, Running, RunningPage, RunningSession};
pub use spec::{
    DEFAULT_CPU_MILLI, DEFAULT_MEMORY_BYTES, JobSpec, ProcessLimits, Resources, Stage, StageMode,
    TaskSpec,
};
pub use unit::{UnitEnd, UnitState, Usage};

/// Most tasks of one job.
pub const TASKS_MAX: usize = 256;
/// Most units of one job, over all tasks.
pub const UNITS_MAX: u32 = xos_base::ids::UNITS_MAX;
/// Longest name of a job or task, in bytes.
pub const NAME_MAX: usize = 128;
/// Most arguments of one task.
pub const ARGS_MAX: usize = 4096;
/// Most variables in a task's environment.
pub const ENV_MAX: usize = 1024;
/// Longest argument or variable, in bytes: what Linux allows one string of execve(2).
pub const STRING_MAX: usize = 128 * 1024 - 1;
/// Arguments and environment of one task together, in bytes.
pub const STRINGS_MAX: usize = 512 * 1024;
/// Longest path, in bytes (PATH_MAX of Linux without the final zero).
pub const PATH_MAX: usize = 4095;
/// Most files that a task stages in, and again that it stages out.
pub const STAGES_MAX: usize = 64;
/// Most jobs that a job waits for.
pub const AFTER_JOBS_MAX: usize = 64;
/// Most tasks that a task waits for.
pub const AFTER_MAX: usize = 64;
/// Most sites that a job names.
pub const SITES_MAX: usize = 64;
/// Most times that a unit may run again.
pub const RETRY_MAX: u16 = 100;
/// Most items in one page of a list.
pub const PAGE_MAX: u32 = 1000;
/// Most bytes of output in one answer, before base64.
pub const OUTPUT_PART_MAX: u32 = 256 * 1024;
/// Output (both streams together) up to this size comes with a watched job's end, in bytes.
pub const INLINE_OUTPUT_MAX: usize = 16 * 1024;
/// Most units in one request to a host.
pub const HOST_BATCH_MAX: u32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use serde::{Serialize, de::DeserializeOwned};
    use std::fmt::Debug;
    use xos_base::Millis;

    /// What is sent is what arrives, and nothing beside it is taken.
    fn travels<T: Serialize + DeserializeOwned + PartialEq + Debug>(t: &T) {
        let json = serde_json::to_string(t).unwrap();
        assert_eq!(&serde_json::from_str::<T>(&json).unwrap(), t, "{json}");
        let open = json.strip_suffix('}').unwrap();
        let more = format!("{open},\"colour\":1}}");
        assert!(serde_json::from_str::<T>(&more).is_err(), "{more} was taken");
    }

    /// If it failed, a core that does not know of moves would refuse every unit that is offered.
    #[test]
    fn of_moves_only_those_are_told_that_were() {
        let vo: xos_base::VoId = "demo.rennes".parse().unwrap();
        let (name, tasks, after_jobs, sites) = Default::default();
        let outline = Outline { vo: vo.clone(), name, tasks, after_jobs, sites };
        let mut offer = HostUnits {
            job: "12.rennes".parse().unwrap(),
            vo,
            mandate: "m".into(),
            task: 0,
            task_first: 0,
            spec: TaskSpec::default(),
            outline,
            units: vec![UnitRun { first: 0, count: 1 }],
            attempt: 0,
            until: Millis(9),
            want_output: false,
            moves: 0,
            carried: None,
        };
        let text = serde_json::to_string(&offer).unwrap();
        assert!(!text.contains("moves") && !text.contains("carried"), "{text}");
        travels(&offer);
        offer.moves = 1;
        assert!(serde_json::to_string(&offer).unwrap().contains("\"moves\":1"));
        travels(&offer);
    }

    #[test]
    fn every_enum_travels_and_refuses_unknown_fields() {
        travels(&UnitEnd::Exit { code: 3 });
        travels(&UnitEnd::ProcessLimit { status: 2 });
        travels(&UnitEnd::Lost { reason: "x".into() });
        let node = "n1.rennes".parse().unwrap();
        let what = HostedRun::Ended {
            node: Some(node),
            started: Some(Millis(1)),
            how: UnitEnd::OutOfMemory,
            usage: Usage::default(),
            output: Some(InlineOutput::default()),
        };
        let e = HostedEvent { unit: 1, at: Millis(4), what };
        travels(&e);
        let carried = Carried {
            cluster: "c1.rennes".parse().unwrap(),
            tree: 7,
            version: 2,
            nodes: vec!["n1.rennes".parse().unwrap()],
            key: "0".repeat(CARRIED_KEY_LEN),
            bytes: 1,
            pid: 65_432,
            cpu_group: 5,
            base: 1_879_048_192,
            stdout_bytes: 3,
            stderr_bytes: 0,
            to: None,
        };
        let rennes = "rennes".parse().unwrap();
        assert!(carried.is_of(&rennes) && !carried.is_of(&"pisa".parse().unwrap()));
        assert!(!Carried { nodes: Vec::new(), ..carried.clone() }.is_of(&rennes));
        assert!(!Carried { key: "x".repeat(64), ..carried.clone() }.is_of(&rennes));
        assert!(!format!("{carried:?}").contains("0000"), "a key in a log");
        travels(&carried);
        travels(&HostItem::Units {
            seq: 1,
            job: "1.rennes".parse().unwrap(),
            attempt: 0,
            events: vec![e],
        });
        travels(&HostItem::Capacity { capacity: SiteCapacity::default() });
        travels(&UnitState::Running {
            site: "pisa".parse().unwrap(),
            node: "n1.pisa".parse().unwrap(),
            since: Millis(3),
        });
        travels(&JobState::Running { since: Millis(3) });
    }

    #[test]
    fn a_short_job_is_short_on_the_wire() {
        let json = r#"{"vo":"demo.rennes","name":"true",
            "tasks":[{"name":"main","argv":["/bin/true"]}]}"#;
        let spec: JobSpec = serde_json::from_str(json).unwrap();
        assert_eq!(spec.tasks[0].resources.cpu_milli, DEFAULT_CPU_MILLI);
        assert_eq!(spec.tasks[0].array.len(), 1);
        travels(&spec);
    }
}
