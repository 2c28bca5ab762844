//! One change in the making, and what follows from it.

use super::too_large;
use crate::state::{Record, State, Touched};
use crate::told;
use std::collections::BTreeSet;
use xos_api::audit::Event;
use xos_base::{Error, JobId, SiteId};
use xos_store::journal::{QUEUE_BYTES_MAX, QUEUE_RECORDS_MAX, RECORD_BYTES_MAX};

/// What a change may hold before it takes up nothing further that can as well come with a later
/// one: an eighth of what the journal queues.
const FULL: Weight = Weight { records: QUEUE_RECORDS_MAX / 8, bytes: QUEUE_BYTES_MAX / 8 };

/// What has to be done in the world once a change is journalled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// What changed for those who look on.
    pub touched: Touched,
    /// Jobs that need a mandate.
    pub mandates: BTreeSet<u64>,
    /// Sites to be asked to run units of a job.
    pub offers: BTreeSet<(u64, SiteId)>,
    /// Envelopes to which units are to be sent.
    pub sends: BTreeSet<(JobId, u32)>,
    /// Jobs owned here of which units are to be cancelled elsewhere.
    pub cancels: BTreeSet<u64>,
    /// Jobs owned here with units that move, or did.
    pub moves: BTreeSet<u64>,
    /// Hosted jobs of which units are to be killed, or envelopes to be ended.
    pub hosted: BTreeSet<JobId>,
    /// What the audit is told.
    pub told: Vec<Event>,
}

/// A change in the making.
pub struct Txn<'a> {
    pub(super) state: &'a mut State,
    pub(super) records: Vec<Vec<u8>>,
    pub(super) weight: Weight,
    pub(super) due: Due,
    pub(super) fault: Option<Error>,
}

/// Records and their size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Weight {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

impl Weight {
    pub(super) fn is_over(self, most: Weight) -> bool {
        self.records > most.records || self.bytes > most.bytes
    }
}

impl<'a> Txn<'a> {
    pub(super) fn new(state: &'a mut State) -> Txn<'a> {
        let (records, weight, due) = Default::default();
        Txn { state, records, weight, due, fault: None }
    }

    /// The state with what was put so far.
    pub fn state(&self) -> &State {
        self.state
    }

    /// Whether what can come later as well is left for a later change: the journal queues only so
    /// much, and a change is queued in one piece.
    pub fn is_full(&self) -> bool {
        self.weight.is_over(FULL)
    }

    /// Applies a record and keeps it for the journal. After the first one the transaction cannot
    /// be given up any more: whatever can fail comes before, and a record whose size others decide
    /// comes first. One that is larger than the journal takes is not applied, nor what follows it.
    pub fn put(&mut self, record: impl Into<Record>) {
        if self.fault.is_some() {
            return;
        }
        let record = record.into();
        match record.to_bytes() {
            Ok(bytes) if bytes.len() <= RECORD_BYTES_MAX => {
                self.weight.records += 1;
                self.weight.bytes += bytes.len();
                self.records.push(bytes);
            }
            Ok(bytes) => return self.fault = Some(too_large(bytes.len())),
            Err(e) => return self.fault = Some(e),
        }
        self.due.note(&record, self.state.jobs.site());
        self.due.told.extend(told::of(&record, self.state));
        let touched = self.state.apply(&record);
        for number in &touched.jobs {
            let job = self.state.jobs.job(*number);
            if job.is_some_and(|j| !j.going.is_empty() || !j.spent.is_empty()) {
                self.due.moves.insert(*number);
            }
        }
        self.due.touched.merge(touched);
    }
}

impl Due {
    fn note(&mut self, record: &Record, own: &SiteId) {
        use crate::state::{HostRecord as H, JobRecord as J};
        match record {
            Record::Job(J::Submitted { job, .. }) => {
                self.mandates.insert(*job);
            }
            Record::Job(J::Offered { job, site, .. }) if site != own => {
                self.offers.insert((*job, site.clone()));
            }
            Record::Job(J::Cancelled { job, .. }) => {
                self.cancels.insert(*job);
            }
            Record::Host(H::Sent { job, serial, .. }) => {
                self.sends.insert((job.clone(), *serial));
            }
            Record::Host(H::Cancelled { job, .. } | H::Forgotten { job }) => {
                self.hosted.insert(job.clone());
            }
            _ => {}
        }
    }
}
