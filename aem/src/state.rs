//! What this core knows of jobs: pure machines. Every change is a record; the same records in the
//! same order give the same state.

mod apply;
pub mod carry;
pub mod held;
pub mod host;
mod host_apply;
pub mod job;
pub mod lanes;
pub mod load;
pub mod names;
pub mod open;
pub mod record;
pub mod runs;
mod settle;
pub mod snapshot;
pub mod table;
pub mod unit;

pub use host::HostTable;
pub use job::Job;
pub use record::{HostRecord, JobRecord, Record};
pub use table::JobTable;

use std::collections::BTreeSet;
use xos_base::{Millis, SiteId};

/// The whole state of this core's job service.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Jobs owned here.
    pub jobs: JobTable,
    /// Units hosted here.
    pub hosted: HostTable,
}

/// What a record changed for others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Jobs owned here with something new to see.
    pub jobs: BTreeSet<u64>,
    /// Owners with new reports.
    pub owners: BTreeSet<SiteId>,
}

impl Touched {
    /// Adds what another record changed.
    pub fn merge(&mut self, other: Touched) {
        self.jobs.extend(other.jobs);
        self.owners.extend(other.owners);
    }
}

impl State {
    /// Nothing yet, for the core of `site`.
    pub fn new(site: SiteId) -> State {
        State { jobs: JobTable::new(site.clone()), hosted: HostTable::new(site) }
    }

    /// Applies a record.
    pub fn apply(&mut self, record: &Record) -> Touched {
        match record {
            Record::Job(r) => Touched { jobs: self.jobs.apply(r).jobs, owners: BTreeSet::new() },
            Record::Host(r) => {
                let reported = self.hosted.apply(r);
                let at = time_of(r);
                let mut touched = Touched { owners: reported.owners, ..Touched::default() };
                for report in &reported.own {
                    let t = self.jobs.apply_own(report.job.number, report, at);
                    touched.jobs.extend(t.jobs);
                }
                touched
            }
        }
    }
}

fn time_of(record: &HostRecord) -> Millis {
    match record {
        HostRecord::Took { at, .. }
        | HostRecord::Happened { at, .. }
        | HostRecord::Decided { at, .. }
        | HostRecord::Cancelled { at, .. } => *at,
        _ => Millis(0),
    }
}
