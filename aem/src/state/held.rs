//! What jobs take of a core's memory.

use xos_api::aem::{JobSpec, Stage, TaskSpec};

/// Jobs, their units, and their descriptions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Jobs.
    pub jobs: usize,
    /// Units, whatever became of them.
    pub units: u64,
    /// Memory for jobs besides their units, bytes: descriptions above all.
    pub bytes: u64,
}

impl Held {
    /// What one job takes.
    pub fn of(spec: &JobSpec) -> Held {
        let units = spec.tasks.iter().map(|t| u64::from(t.array.len())).sum();
        let bytes = spec.tasks.iter().map(task_bytes).sum::<u64>() + text(&spec.name);
        let lists = (spec.after_jobs.len() + spec.sites.len()) as u64 * STRING;
        Held { jobs: 1, units, bytes: bytes + lists + JOB_BYTES }
    }

    /// As much more.
    pub fn add(&mut self, other: Held) {
        self.jobs += other.jobs;
        self.units += other.units;
        self.bytes += other.bytes;
    }

    /// As much less.
    pub fn sub(&mut self, other: Held) {
        self.jobs = self.jobs.saturating_sub(other.jobs);
        self.units = self.units.saturating_sub(other.units);
        self.bytes = self.bytes.saturating_sub(other.bytes);
    }
}

/// What a job takes besides its description and its units, here and as a host of its own: its
/// person, mandate, indexes, envelopes.
pub const JOB_BYTES: u64 = 4096;

/// A string besides its bytes: its place, and what an allocation costs.
const STRING: u64 = 40;

fn text(s: &str) -> u64 {
    s.len() as u64 + STRING
}

/// The memory that a task's description takes, bytes.
pub fn task_bytes(t: &TaskSpec) -> u64 {
    let strings = t.argv.iter().chain(&t.after).map(|s| text(s)).sum::<u64>();
    let env = t.env.iter().map(|(k, v)| text(k) + text(v)).sum::<u64>();
    let paths = [&t.cwd, &t.stdin, &t.stdout, &t.stderr, &t.resources.arch];
    let paths = paths.into_iter().flatten().map(|s| text(s)).sum::<u64>();
    let stage = |s: &Stage| text(&s.name) + text(&s.volume);
    let stages = t.stage_in.iter().chain(&t.stage_out).map(stage).sum::<u64>();
    let fixed = size_of::<TaskSpec>() + t.array.bytes();
    strings + env + paths + stages + text(&t.name) + fixed as u64
}
