//! VOs that are erased: what goes on of their jobs is ended, and all of them go, at the owner and
//! at the host, with the outputs that nodes keep.
//!
//! It is looked at again and again, at a start as well: what is not done when the core stops, or
//! waits for another site or for a node, is gone on with.

use crate::core::{Core, lock};
use crate::keep::FORGET_MAX;
use crate::owner::cut;
use crate::state::host::{Placement, Stage};
use crate::state::record::Decision;
use crate::state::{HostRecord, Job, JobRecord, State, runs};
use std::collections::BTreeSet;
use std::sync::Arc;
use xos_base::{Error, JobId, Millis, VoId};

/// Who ends the jobs, for their reasons.
const BY: &str = "the end of the VO";

/// What is to be done for VOs that are erased.
struct Left {
    /// Jobs owned here that go on and are not cancelled.
    open: Vec<u64>,
    /// Hosted jobs that are not forgotten.
    hosted: Vec<JobId>,
}

impl Left {
    fn of(s: &State, erased: &BTreeSet<VoId>) -> Left {
        let owned = s.jobs.iter().filter(|j| erased.contains(&j.spec.vo));
        let open = owned.filter(|j| !j.state.is_final() && !j.cancelled).map(|j| j.number);
        let hosted = s.hosted.placements().filter(|p| erased.contains(&p.vo) && !p.forgotten);
        Left { open: open.collect(), hosted: hosted.map(|p| p.job.clone()).collect() }
    }
}

/// The jobs owned here of those VOs that have ended.
fn ended(s: &State, erased: &BTreeSet<VoId>) -> Vec<u64> {
    let of = |j: &&Job| j.state.is_final() && erased.contains(&j.spec.vo);
    s.jobs.iter().filter(of).map(|j| j.number).collect()
}

impl Core {
    /// Ends and forgets what is here of VOs that are erased.
    pub(crate) async fn forget_erased(self: &Arc<Self>) {
        let erased: BTreeSet<VoId> = match self.world.erased().await {
            Ok(list) => list.into_iter().map(|e| e.vo).collect(),
            Err(error) => return tracing::debug!(%error, "which VOs are erased is not known yet"),
        };
        if erased.is_empty() {
            return;
        }
        lock(&self.host).shares.retain(|vo, _| !erased.contains(vo));
        lock(&self.owner).serving.retain(|vo, _| !erased.contains(vo));
        if let Err(error) = self.end_erased(&erased).await {
            tracing::warn!(%error, "jobs of an erased VO are not all gone yet; it is tried again");
        }
    }

    async fn end_erased(self: &Arc<Self>, erased: &BTreeSet<VoId>) -> Result<(), Error> {
        let left = self.ledger.read(|s| Left::of(s, erased));
        // First: of what is cancelled nothing is tried again.
        for some in left.open.chunks(FORGET_MAX) {
            let at = self.now();
            self.commit(|txn| {
                for job in some {
                    let (job, units, by) = (*job, None, BY.to_owned());
                    txn.put(JobRecord::Cancelled { job, at, units, by });
                }
                Ok(())
            })
            .await?;
        }
        for job in left.hosted {
            self.forget_placement(job).await?;
        }
        // Those that have units at other sites go when these say that they ended.
        let ended = self.ledger.read(|s| ended(s, erased));
        for some in ended.chunks(FORGET_MAX) {
            let elsewhere = self.commit(|txn| Ok(self.forget(txn, some.iter().copied()))).await?;
            self.tell_forgotten(elsewhere);
        }
        Ok(())
    }

    /// Ends what goes on here of a hosted job, and forgets it: nodes then end its envelopes, with
    /// all that they keep of them.
    async fn forget_placement(self: &Arc<Self>, job: JobId) -> Result<(), Error> {
        let at = self.now();
        self.commit(|txn| {
            let Some(p) = txn.state().hosted.placement(&job) else { return Ok(()) };
            for r in ends(p, at) {
                txn.put(r);
            }
            txn.put(HostRecord::Forgotten { job });
            Ok(())
        })
        .await
    }
}

/// What ends the units of a hosted job that have not ended: nodes may be away, and the VO's home
/// vouches for nobody any more.
fn ends(p: &Placement, at: Millis) -> Vec<HostRecord> {
    let mut records = Vec::new();
    if !p.waiting.is_empty() {
        let units = Some(runs::pack(p.waiting.iter().copied()));
        records.push(HostRecord::Cancelled { job: p.job.clone(), at, units });
    }
    let there = |h: Stage| matches!(h, Stage::Sent { .. } | Stage::Running { .. });
    let open = p.units.iter().filter(|(_, h)| there(h.stage)).map(|(unit, _)| *unit);
    let units = runs::pack(open);
    if !units.is_empty() {
        let reason = cut(&format!("ended: {} is erased", p.vo), crate::host::REASON_MAX);
        let what = Decision::Lost { reason };
        records.push(HostRecord::Decided { job: p.job.clone(), at, units, what });
    }
    records
}

#[cfg(test)]
mod tests;
