//! Starting and stopping the service.

use crate::config::Config;
use crate::core::{Core, lock};
use crate::ledger::Ledger;
use crate::ops;
use crate::plan::owner::Reach;
use crate::state::unit::Phase;
use crate::work::Work;
use crate::world::World;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use xos_api::aem::ShareRoom;
use xos_base::when::Clock;
use xos_base::{Error, SiteId};
use xos_net::audit::Teller;
use xos_net::{Audit, Router, Rules, Standing};

/// How often slow matters are looked after.
const TICK: Duration = Duration::from_secs(1);
/// How often what waits is looked at when nothing happened: for holds that end.
const PLACE_EVERY: Duration = Duration::from_millis(500);
/// Every so many ticks: VOs, tickets, keeping.
const SLOW_TICKS: u64 = 10;
/// Two clocks' difference plus an offer's life: how long an offer may still be accepted.
const DOUBT: Duration = Duration::from_secs(90);

/// The job service of a core.
#[derive(Clone)]
pub struct Aem {
    core: Arc<Core>,
}

impl Aem {
    /// Opens the journal and begins to work: jobs that were under way go on. The audit is told what
    /// happens.
    ///
    /// # Errors
    /// Why the journal cannot be used.
    pub async fn start(
        config: Config,
        site: SiteId,
        world: Arc<dyn World>,
        standing: Arc<dyn Standing>,
        rules: Arc<dyn Rules>,
        (clock, audit): (Arc<dyn Clock>, Arc<dyn Audit>),
    ) -> Result<Aem, Error> {
        let (dir, name) = (config.dir.clone(), site.clone());
        let ledger = tokio::task::spawn_blocking(move || Ledger::open(name, &dir))
            .await
            .map_err(|e| Error::internal(format!("the job journal was not opened: {e}")))??;
        let now = clock.now();
        let told = (clock, Teller::new(audit));
        let core = Core::new(config, site, ledger, world, standing, rules, told);
        lock(&core.owner).since = now;
        let core = Arc::new(core);
        core.start_all_work();
        core.look_at_clusters();
        for run in [Core::run_placing, Core::run_nodes, Core::run_clusters, Core::run_ticks] {
            let core = Arc::clone(&core);
            let tracker = core.tasks.clone();
            tracker.spawn(run(core));
        }
        Ok(Aem { core })
    }

    /// Registers the operations.
    pub fn register(&self, router: &mut Router) {
        ops::register(&self.core, router);
    }

    /// Ends all work here and waits for it. Units go on; what is journalled is on the disk.
    pub async fn stop(&self) {
        self.core.stop.cancel();
        self.core.tasks.close();
        self.core.tasks.wait().await;
    }
}

type Run = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

impl Core {
    /// Everything that the state says is under way.
    pub(crate) fn start_all_work(self: &Arc<Self>) {
        let mut work = Vec::new();
        let mut unanswered = Vec::new();
        let until = self.now().plus(DOUBT);
        self.ledger.read(|s| {
            let moves = s.jobs.iter().filter(|j| !j.going.is_empty() || !j.spent.is_empty());
            work.extend(moves.map(|j| Work::Moves(j.number)));
            for job in s.jobs.iter().filter(|j| !j.state.is_final()) {
                if job.mandate.is_none() {
                    work.push(Work::Mandate(job.number));
                }
                let mut offered = BTreeSet::new();
                let mut cancelled = BTreeSet::new();
                for u in &job.units {
                    if let Phase::Offered { at } = &u.phase {
                        offered.insert(at.site);
                    }
                    if let (true, Some(site)) = (u.cancel, u.phase.site()) {
                        cancelled.insert(site);
                    }
                }
                let name = |n: u16| s.jobs.site_name(n).cloned();
                for site in offered.into_iter().filter_map(name) {
                    lock(&self.doubts).insert((job.number, site.clone()), until);
                    work.push(Work::Offer(job.number, site));
                }
                for site in cancelled.into_iter().filter_map(name) {
                    work.push(Work::Cancel(job.number, site));
                }
            }
            // What goes to nodes waits for their greeting; some of it may have been sent before.
            for p in s.hosted.active() {
                let sent = p.envelopes.iter().filter(|(_, e)| !e.unconfirmed.is_empty());
                unanswered.extend(sent.map(|(serial, _)| (p.job.clone(), *serial)));
            }
        });
        lock(&self.unanswered).extend(unanswered);
        for w in work {
            self.start_work(w);
        }
        self.wake.notify_one();
    }

    /// Places what waits whenever something changed.
    fn run_placing(self: Arc<Self>) -> Run {
        Box::pin(async move {
            loop {
                tokio::select! {
                    () = self.wake.notified() => {}
                    () = tokio::time::sleep(PLACE_EVERY) => {}
                    () = self.stop.cancelled() => return,
                }
                if let Err(error) = self
                    .commit(|txn| {
                        self.place(txn, Reach::Whole);
                        Ok(())
                    })
                    .await
                {
                    tracing::debug!(%error, "nothing can be placed now");
                }
                self.watchers.all_owners();
            }
        })
    }

    fn run_nodes(self: Arc<Self>) -> Run {
        Box::pin(async move {
            let mut changes = self.world.node_changes();
            loop {
                let change = tokio::select! {
                    change = changes.recv() => change,
                    () = self.stop.cancelled() => return,
                };
                match change {
                    Ok(c) if c.connected => {}
                    Ok(c) => self.left(&c.node),
                    Err(RecvError::Lagged(_)) => {
                        let known: Vec<_> = lock(&self.host).nodes.keys().cloned().collect();
                        known.iter().for_each(|node| self.left(node));
                    }
                    Err(RecvError::Closed) => return,
                }
            }
        })
    }

    fn run_clusters(self: Arc<Self>) -> Run {
        Box::pin(self.follow_clusters())
    }

    fn run_ticks(self: Arc<Self>) -> Run {
        Box::pin(async move {
            let mut tick = tokio::time::interval(TICK);
            let mut n = 0u64;
            loop {
                tokio::select! {
                    _ = tick.tick() => {}
                    () = self.stop.cancelled() => return,
                }
                self.refresh_vos(n.is_multiple_of(SLOW_TICKS)).await;
                self.follow_sites();
                if n.is_multiple_of(SLOW_TICKS) {
                    self.tidy();
                    self.renew_tickets();
                    self.give_up_nodes().await;
                    self.give_up_sites().await;
                    self.forget_old().await;
                    self.forget_hosted().await;
                    self.forget_erased().await;
                    if let Err(error) = self.ledger.snapshot_if_due().await {
                        tracing::error!(%error, "no snapshot of the jobs was made");
                    }
                }
                n += 1;
            }
        })
    }

    /// Asks anew about the VOs of open work, and now and then about all that are served here.
    async fn refresh_vos(self: &Arc<Self>, all: bool) {
        let mut vos = BTreeSet::new();
        if all {
            match self.world.served().await {
                Ok(list) => vos.extend(list.into_iter().map(|s| s.vo)),
                Err(error) => tracing::debug!(%error, "the VOs served here are not known yet"),
            }
        }
        self.ledger.read(|s| {
            vos.extend(s.jobs.placing_vos());
            vos.extend(s.hosted.active().map(|p| p.vo.clone()));
        });
        for vo in vos {
            let view = match self.views.view(&*self.world, &vo, self.now()).await {
                Ok(view) => view,
                Err(error) => {
                    tracing::debug!(%error, %vo, "a VO is not known now");
                    continue;
                }
            };
            let mut facts = lock(&self.host);
            let own = view.own.as_ref().filter(|own| own.serving);
            match own.and_then(|own| own.accepted.as_ref()) {
                Some(terms) => {
                    let share = ShareRoom {
                        vo: vo.clone(),
                        cpu_milli: terms.cpu_milli,
                        memory_bytes: terms.memory_bytes,
                    };
                    facts.shares.insert(vo, share);
                }
                None => {
                    facts.shares.remove(&vo);
                }
            }
        }
    }

    /// Lets go of what only the past needed.
    fn tidy(&self) {
        let now = self.now();
        let mut owner = lock(&self.owner);
        owner.pace.tidy(now);
        owner.holds.retain(|_, until| *until > now);
        drop(owner);
        let mut host = lock(&self.host);
        host.pace.tidy(now);
        host.broken.retain(|_, until| *until > now);
        host.away.retain(|_, away| now.since(away.since) < self.config.node_lost());
        drop(host);
        self.ledger.read(|s| {
            lock(&self.unanswered).retain(|(job, serial)| {
                s.hosted.placement(job).is_some_and(|p| p.envelopes.contains_key(serial))
            });
        });
        lock(&self.doubts).retain(|_, until| *until > now);
    }
}
