//! Effects: each brings one thing in the world to where the state says it should be, and is
//! repeated until it is there. At most one of a kind runs for one thing.

use crate::core::{Core, lock};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use xos_base::{JobId, NodeId, SiteId};

/// The first wait before something is tried again; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(200);
/// The longest wait before something is tried again.
const RETRY_MAX: Duration = Duration::from_secs(15);

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Work {
    /// Load the state anew after the journal failed.
    Mend,
    /// Get a job's mandate.
    Mandate(u64),
    /// Ask a site to run what it is offered of a job.
    Offer(u64, SiteId),
    /// Ask a site to end what is cancelled of a job.
    Cancel(u64, SiteId),
    /// Have sites let units of a job go that move, and drop what is not needed of those that did.
    Moves(u64),
    /// Let a site forget a job that this core has forgotten.
    Forget(JobId, SiteId),
    /// Send an envelope its units.
    Send(JobId, u32),
    /// Kill what is cancelled of a hosted job, and end its envelopes when it is forgotten.
    Tend(JobId),
    /// Learn what a node has, and let it work.
    Greet(NodeId),
    /// Renew the tickets that come from a VO's home.
    Renew(SiteId),
}

/// How an attempt went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing is left to do.
    Rest,
    /// Try again after a while.
    Later,
}

/// What runs now; true: and has to run once more.
#[derive(Default)]
pub(crate) struct Bench(Mutex<HashMap<Work, bool>>);

impl Core {
    /// Begins a piece of work, unless it runs; then it runs once more afterwards.
    pub(crate) fn start_work(self: &Arc<Self>, work: Work) {
        if self.stop.is_cancelled() {
            return;
        }
        {
            let mut running = lock(&self.bench.0);
            if let Some(again) = running.get_mut(&work) {
                *again = true;
                return;
            }
            running.insert(work.clone(), false);
        }
        let core = Arc::clone(self);
        self.tasks.spawn(async move { core.run_work(work).await });
    }

    async fn run_work(self: Arc<Self>, work: Work) {
        let mut wait = RETRY_MIN;
        loop {
            match self.do_work(&work).await {
                Next::Rest => {
                    wait = RETRY_MIN;
                    let mut running = lock(&self.bench.0);
                    match running.get_mut(&work) {
                        Some(again) if *again => *again = false,
                        _ => {
                            running.remove(&work);
                            return;
                        }
                    }
                }
                Next::Later => {
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = self.stop.cancelled() => {
                            lock(&self.bench.0).remove(&work);
                            return;
                        }
                    }
                    wait = (wait * 2).min(RETRY_MAX);
                }
            }
        }
    }

    async fn do_work(self: &Arc<Self>, work: &Work) -> Next {
        match work {
            Work::Mend => self.do_mend().await,
            Work::Mandate(job) => self.do_mandate(*job).await,
            Work::Offer(job, site) => self.do_offer(*job, site).await,
            Work::Cancel(job, site) => self.do_cancel(*job, site).await,
            Work::Moves(job) => self.do_moves(*job).await,
            Work::Forget(job, site) => self.do_forget(job, site).await,
            Work::Send(job, serial) => self.do_send(job, *serial).await,
            Work::Tend(job) => self.do_tend(job).await,
            Work::Greet(node) => self.do_greet(node).await,
            Work::Renew(home) => self.do_renew(home).await,
        }
    }

    async fn do_mend(self: &Arc<Self>) -> Next {
        if !self.ledger.is_broken() {
            return Next::Rest;
        }
        let core = Arc::clone(self);
        match tokio::task::spawn_blocking(move || core.ledger.reload()).await {
            Ok(Ok(())) => {
                tracing::warn!("the job journal was opened anew");
                self.start_all_work();
                // What nodes were sent, or are to be, may be recorded otherwise now.
                let nodes: Vec<NodeId> = lock(&self.host).nodes.keys().cloned().collect();
                for node in nodes {
                    self.regreet(&node);
                }
                Next::Rest
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "the job journal cannot be opened");
                Next::Later
            }
            Err(error) => {
                tracing::error!(%error, "opening the job journal was interrupted");
                Next::Later
            }
        }
    }
}

#[cfg(test)]
mod tests;
