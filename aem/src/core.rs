//! The running service: what its operations and effects share.

use crate::config::Config;
use crate::follow::Followed;
use crate::ledger::{Due, Ledger, Txn};
use crate::outputs::Outputs;
use crate::plan;
use crate::plan::owner::Reach;
use crate::views::Views;
use crate::watchers::Watchers;
use crate::work::{Bench, Work};
use crate::world::World;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, RwLock};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use xos_api::cda::IssuedTicket;
use xos_base::when::Clock;
use xos_base::{Error, JobId, Membership, Millis, NodeId, SiteId, VoId};
use xos_net::audit::Teller;
use xos_net::{Rules, Standing};

/// Whose ticket for which node. The whole membership: one narrowed otherwise has a ticket of its
/// own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TicketKey {
    pub(crate) member: Arc<Membership>,
    pub(crate) node: NodeId,
}

/// Everything that the service's parts share.
pub(crate) struct Core {
    pub(crate) site: SiteId,
    pub(crate) config: Config,
    pub(crate) ledger: Ledger,
    pub(crate) world: Arc<dyn World>,
    pub(crate) standing: Arc<dyn Standing>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) teller: Teller,
    pub(crate) rules: Arc<dyn Rules>,
    pub(crate) views: Views,
    pub(crate) owner: Mutex<plan::owner::Facts>,
    pub(crate) host: Mutex<plan::host::Facts>,
    /// Since when nodes and sites with units of ours are silent.
    pub(crate) silent_nodes: Mutex<HashMap<NodeId, Millis>>,
    pub(crate) silent_sites: Mutex<HashMap<SiteId, Millis>>,
    pub(crate) followed: Followed,
    pub(crate) tickets: Mutex<HashMap<TicketKey, IssuedTicket>>,
    /// Held for reading while units are sent to a node, for writing while it is asked what it has.
    gates: Mutex<HashMap<NodeId, Arc<RwLock<()>>>>,
    /// Offers that may have arrived although no answer came, by job and site, until when.
    pub(crate) doubts: Mutex<HashMap<(u64, SiteId), Millis>>,
    /// Since when sites have not confirmed that they ended what is cancelled of a job.
    pub(crate) unconfirmed: Mutex<HashMap<(u64, SiteId), Millis>>,
    /// Envelopes that may have got an order although no answer came.
    pub(crate) unanswered: Mutex<HashSet<(JobId, u32)>>,
    pub(crate) outputs: Mutex<Outputs>,
    pub(crate) watchers: Watchers,
    pub(crate) bench: Bench,
    /// Something may be placed.
    pub(crate) wake: Notify,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

/// A lock that a panic elsewhere does not take away.
pub(crate) fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Core {
    pub(crate) fn new(
        config: Config,
        site: SiteId,
        ledger: Ledger,
        world: Arc<dyn World>,
        standing: Arc<dyn Standing>,
        rules: Arc<dyn Rules>,
        (clock, teller): (Arc<dyn Clock>, Teller),
    ) -> Core {
        Core {
            site,
            config,
            ledger,
            world,
            standing,
            rules,
            clock,
            teller,
            views: Views::default(),
            owner: Mutex::default(),
            host: Mutex::default(),
            silent_nodes: Mutex::default(),
            silent_sites: Mutex::default(),
            followed: Mutex::default(),
            tickets: Mutex::default(),
            gates: Mutex::default(),
            doubts: Mutex::default(),
            unconfirmed: Mutex::default(),
            unanswered: Mutex::default(),
            outputs: Mutex::default(),
            watchers: Watchers::default(),
            bench: Bench::default(),
            wake: Notify::new(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Keeps orders to a node and questions about what it has apart: a list without an envelope
    /// must mean that nobody is making it.
    pub(crate) fn gate(&self, node: &NodeId) -> Arc<RwLock<()>> {
        lock(&self.gates).entry(node.clone()).or_default().clone()
    }

    pub(crate) fn now(&self) -> Millis {
        self.clock.now()
    }

    /// Applies a change, not before the disk is near enough, and waits until it, and all that it
    /// was decided from, is on the disk; then tells watchers and starts what is due. Once applied,
    /// goes on to its end even when the caller is gone.
    pub(crate) async fn commit<T: Send + 'static>(
        self: &Arc<Self>,
        f: impl FnOnce(&mut Txn<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let (value, queued, due) = self.ledger.change(f).await.inspect_err(|_| self.mend())?;
        if queued.is_empty() {
            self.ledger.stored(queued).await?;
            return Ok(value);
        }
        let core = Arc::clone(self);
        let stored = self.tasks.spawn(async move {
            core.ledger.stored(queued).await.inspect_err(|_| core.mend())?;
            core.told(due);
            Ok::<(), Error>(())
        });
        stored
            .await
            .map_err(|e| Error::internal(format!("a change was not followed up: {e}")))??;
        Ok(value)
    }

    /// What a stored change sets off.
    pub(crate) fn told(self: &Arc<Self>, due: Due) {
        for event in due.told {
            self.teller.note(event);
        }
        for job in due.touched.jobs {
            self.watchers.job(job);
        }
        for owner in due.touched.owners {
            self.watchers.owner(&owner);
        }
        for job in due.mandates {
            self.start_work(Work::Mandate(job));
        }
        for (job, site) in due.offers {
            self.start_work(Work::Offer(job, site));
        }
        for (job, serial) in due.sends {
            self.start_work(Work::Send(job, serial));
        }
        for job in due.cancels {
            self.cancel_elsewhere(job);
        }
        for job in due.moves {
            self.start_work(Work::Moves(job));
        }
        for job in due.hosted {
            self.start_work(Work::Tend(job));
        }
    }

    /// Loads the state anew when the journal failed.
    fn mend(self: &Arc<Self>) {
        if self.ledger.is_broken() {
            self.start_work(Work::Mend);
        }
    }

    /// Chooses sites and nodes for what waits, inside a change.
    pub(crate) fn place(&self, txn: &mut Txn<'_>, reach: Reach) {
        let now = self.now();
        self.place_owned(txn, reach, now);
        self.place_hosted(txn, now);
    }

    fn place_hosted(&self, txn: &mut Txn<'_>, now: Millis) {
        let records = plan::host::plan(&txn.state().hosted, &lock(&self.host), now);
        for r in records {
            if self.is_full(txn) {
                return;
            }
            txn.put(r);
        }
    }

    /// Whether a change takes no more; what is left to be placed is then placed by the next one.
    fn is_full(&self, txn: &Txn<'_>) -> bool {
        if txn.is_full() {
            self.wake.notify_one();
        }
        txn.is_full()
    }

    fn place_owned(&self, txn: &mut Txn<'_>, reach: Reach, now: Millis) {
        let jobs = &txn.state().jobs;
        let vos: Vec<VoId> = match reach {
            Reach::Job(number) => jobs.job(number).map(|j| j.spec.vo.clone()).into_iter().collect(),
            _ => jobs.placing_vos().into_iter().collect(),
        };
        if vos.is_empty() {
            return;
        }
        let hosted = &txn.state().hosted;
        let own = plan::host::capacity(hosted, &lock(&self.host), &self.site, &vos);
        let records = {
            let mut facts = lock(&self.owner);
            facts.sites.entry(self.site.clone()).or_default().connected = true;
            facts.sites.entry(self.site.clone()).or_default().capacity = own;
            for vo in &vos {
                match self.views.known(vo) {
                    Some(v) => {
                        let sites = v.sites.iter().map(|s| s.site.clone()).collect();
                        facts.serving.insert(vo.clone(), sites);
                    }
                    None => {
                        facts.serving.remove(vo);
                    }
                }
            }
            let jobs = &txn.state().jobs;
            let records = plan::owner::plan(jobs, &facts, reach, now);
            if reach == Reach::Whole {
                facts.turn = facts.turn.next(jobs);
            }
            records
        };
        for r in records {
            if self.is_full(txn) {
                return;
            }
            let own = match &r {
                crate::state::JobRecord::Offered { job, task, site, units, attempt }
                    if *site == self.site =>
                {
                    Some((*job, *task, units.clone(), *attempt))
                }
                _ => None,
            };
            txn.put(r);
            if let Some((job, task, units, attempt)) = own {
                self.accept_own(txn, job, task, units, attempt, now);
            }
        }
    }
}
