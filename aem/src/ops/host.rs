//! What other cores ask of this one as a host.

use crate::accept::here;
use crate::core::{Core, lock};
use crate::plan;
use crate::plan::owner::Reach;
use crate::state::{HostRecord, runs};
use crate::told;
use futures_util::stream::{self, BoxStream, StreamExt};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use xos_api::Done;
use xos_api::aem::{
    CancelHosted, HostEvents, HostItem, HostReply, HostUnits, HostedRun, SiteCapacity, UNITS_MAX,
};
use xos_base::{Error, JobId, SiteId};
use xos_net::Caller;
use xos_net::audit::asked;

/// A sign of life at least this often.
const ALIVE: Duration = Duration::from_secs(10);
/// Room is told at most this often.
const ROOM_EVERY: Duration = Duration::from_millis(200);
/// Most reports read from the state at once.
const REPORTS_MAX: usize = 64;

pub(crate) type Items = BoxStream<'static, Result<HostItem, Error>>;

struct Telling {
    core: Arc<Core>,
    owner: SiteId,
    after: u64,
    room: Option<SiteCapacity>,
    queue: VecDeque<HostItem>,
    news: watch::Receiver<()>,
}

impl Core {
    /// Only the owner speaks for a job.
    pub(super) fn owner_of(&self, caller: &Caller, job: &JobId) -> Result<SiteId, Error> {
        let core = caller.core()?;
        if *core != job.site {
            return Err(Error::denied(format!("job {job} is not owned by {core}")));
        }
        Ok(core.clone())
    }

    pub(crate) async fn host_units(
        self: Arc<Self>,
        caller: Caller,
        r: HostUnits,
    ) -> Result<HostReply, Error> {
        let mut event = asked(&caller, self.now(), "accept_units");
        event.on = told::named(&r.job, &r.units);
        event.vo = Some(r.vo.clone());
        let reply = match self.owner_of(&caller, &r.job) {
            Ok(_) => self.offered(r).await,
            Err(e) => Err(e),
        };
        // What is accepted is told with its record; what may be taken later is no refusal.
        let refused = match &reply {
            Ok(reply) => reply.refusal.as_ref().filter(|r| !r.later).map(|r| &r.text),
            Err(e) => Some(&e.message),
        };
        if let Some(why) = refused {
            let refused = Err::<(), _>(Error::denied(why.clone()));
            let _noted = self.teller.end(event, refused).await;
        }
        reply
    }

    /// Takes what an owner offers, or says why not. What is answered for is stored.
    pub(crate) async fn offered(self: &Arc<Self>, r: HostUnits) -> Result<HostReply, Error> {
        let now = self.now();
        // A VO that is not known here is the reason for a refusal, not a failure.
        if let Err(error) = self.views.view(&*self.world, &r.vo, now).await {
            tracing::info!(%error, vo = %r.vo, "an offer for a VO that is not known here");
        }
        self.commit(|txn| {
            Ok(match self.judge_offer(&txn.state().hosted, &r, now) {
                Ok(member) => {
                    let accepted = self.take(txn, &r, member, now);
                    self.place(txn, Reach::Quick);
                    HostReply { accepted, refusal: None }
                }
                Err(refusal) => {
                    let accepted = here(&txn.state().hosted, &r);
                    HostReply { accepted, refusal: Some(refusal) }
                }
            })
        })
        .await
    }

    pub(crate) async fn cancel_hosted(
        self: Arc<Self>,
        caller: Caller,
        r: CancelHosted,
    ) -> Result<Done, Error> {
        self.owner_of(&caller, &r.job)?;
        if !r.units.is_empty() && runs::total(&r.units, UNITS_MAX).is_none() {
            return Err(Error::invalid("the units are malformed"));
        }
        let (job, at) = (r.job, self.now());
        self.commit(|txn| {
            let Some(p) = txn.state().hosted.placement(&job) else { return Ok(Done {}) };
            let all = r.units.is_empty();
            let units = (!all).then_some(r.units);
            // An owner asks again until it hears of the end.
            let forget = all && !p.forgotten;
            if p.is_to_cancel(units.as_deref()) {
                txn.put(HostRecord::Cancelled { job: job.clone(), at, units });
            }
            if forget {
                txn.put(HostRecord::Forgotten { job });
            }
            Ok(Done {})
        })
        .await
    }

    pub(crate) async fn host_events(
        self: Arc<Self>,
        caller: Caller,
        r: HostEvents,
    ) -> Result<Items, Error> {
        let owner = caller.core()?.clone();
        Ok(self.reports_to(owner, r.after))
    }

    /// What is told to an owner, from a report on.
    pub(crate) fn reports_to(self: Arc<Self>, owner: SiteId, after: u64) -> Items {
        let news = self.watchers.watch_owner(owner.clone());
        let state = Telling { core: self, owner, after, room: None, queue: VecDeque::new(), news };
        stream::unfold(state, |mut t| async move {
            let item = t.next().await?;
            Some((item, t))
        })
        .boxed()
    }
}

impl Telling {
    async fn next(&mut self) -> Option<Result<HostItem, Error>> {
        if self.core.stop.is_cancelled() {
            return None;
        }
        if let Some(item) = self.queue.pop_front() {
            return Some(Ok(item));
        }
        if self.room.is_none() {
            return Some(Ok(self.tell_room()));
        }
        let alive = tokio::time::Instant::now() + ALIVE;
        loop {
            self.news.borrow_and_update();
            if self.fill().await {
                // First the room: an owner that heard of a start alone would count the unit
                // nowhere.
                if self.room.as_ref() != Some(&self.room()) {
                    return Some(Ok(self.tell_room()));
                }
                return self.queue.pop_front().map(Ok);
            }
            let room_due = tokio::time::Instant::now() + ROOM_EVERY;
            tokio::select! {
                changed = self.news.changed() => {
                    if changed.is_err() {
                        return None;
                    }
                }
                () = tokio::time::sleep_until(room_due.min(alive)) => {
                    let now = self.room();
                    if self.room.as_ref() != Some(&now) || tokio::time::Instant::now() >= alive {
                        return Some(Ok(self.tell_room()));
                    }
                }
                () = self.core.stop.cancelled() => return None,
            }
        }
    }

    fn room(&self) -> SiteCapacity {
        let vos = self.core.vos_of(&self.owner);
        // The ledger first, as everywhere.
        self.core
            .ledger
            .read(|s| plan::host::capacity(&s.hosted, &lock(&self.core.host), &self.owner, &vos))
    }

    fn tell_room(&mut self) -> HostItem {
        let capacity = self.room();
        self.room = Some(capacity.clone());
        HostItem::Capacity { capacity }
    }

    /// Reads further reports; says whether there are any. Only what is stored is told: the owner
    /// counts, and a report that came again with another content would be left out.
    async fn fill(&mut self) -> bool {
        let reports = self.core.ledger.read_stored(|s| {
            let new = s.hosted.reports(&self.owner, self.after);
            new.take(REPORTS_MAX).cloned().collect::<Vec<_>>()
        });
        let reports = match reports.await {
            Ok(reports) => reports,
            Err(error) => {
                tracing::info!(%error, owner = %self.owner, "reports are not stored yet");
                return false;
            }
        };
        let outputs = lock(&self.core.outputs);
        for mut r in reports {
            self.after = r.seq;
            for e in &mut r.events {
                if let HostedRun::Ended { output, .. } = &mut e.what {
                    *output = outputs.of(r.job.unit(e.unit), r.attempt).cloned();
                }
            }
            let (seq, job, attempt, events) = (r.seq, r.job, r.attempt, r.events);
            self.queue.push_back(HostItem::Units { seq, job, attempt, events });
        }
        !self.queue.is_empty()
    }
}
