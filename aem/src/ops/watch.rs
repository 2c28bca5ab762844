//! Watching a job.

use super::{Grant, Want, show};
use crate::core::{Core, lock};
use crate::state::{Job, JobTable};
use futures_util::stream::{self, BoxStream, StreamExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use xos_api::aem::{JobEvent, SubmitAndWatch, WatchJob};
use xos_base::{Error, Membership, Millis};
use xos_net::Caller;

/// Changes that follow within this time come as one event. The end is never held back.
const TOGETHER: Duration = Duration::from_millis(100);

pub(crate) type Events = BoxStream<'static, Result<JobEvent, Error>>;

/// By what right somebody watches.
pub(crate) enum Right {
    /// As this member: asked for with each item whether they still may.
    Member(Membership),
    /// As an administrator of this site, which only a token says: as long as that is good. Who is
    /// none any more gets no other.
    Admin {
        /// When the token ends.
        until: Millis,
    },
}

struct Watching {
    core: Arc<Core>,
    grant: Grant,
    right: Right,
    after: Option<u64>,
    news: watch::Receiver<()>,
    over: bool,
}

impl Core {
    pub(crate) async fn submit_and_watch(
        self: Arc<Self>,
        caller: Caller,
        r: SubmitAndWatch,
    ) -> Result<Events, Error> {
        let grant = self.submit(&caller, r.spec, r.proof, true).await?;
        let right = Right::Member(caller.member()?.clone());
        Ok(self.watch(grant, right, None))
    }

    pub(crate) async fn watch_job(
        self: Arc<Self>,
        caller: Caller,
        r: WatchJob,
    ) -> Result<Events, Error> {
        let grant = self.authorise(&caller, &r.job, Want::See)?;
        let right = match caller.site_admin() {
            true => Right::Admin { until: caller.expires().unwrap_or_else(|| self.now()) },
            false => Right::Member(caller.member()?.clone()),
        };
        Ok(self.watch(grant, right, r.after))
    }

    pub(crate) fn watch(self: Arc<Self>, grant: Grant, right: Right, after: Option<u64>) -> Events {
        let news = self.watchers.watch_job(grant.job.number);
        let state = Watching { core: self, grant, right, after, news, over: false };
        stream::unfold(state, |mut w| async move {
            let item = w.next().await?;
            w.over = match &item {
                Ok(e) => e.end.is_some(),
                Err(_) => true,
            };
            Some((item, w))
        })
        .boxed()
    }

    async fn event(&self, grant: &Grant, after: Option<u64>) -> Result<Option<JobEvent>, Error> {
        let event = self.with_job(grant, |table, job| {
            let end = show::end(table, job);
            if after.is_some_and(|a| job.seq <= a) && end.is_none() {
                return None;
            }
            let waits = job.tally.counts().queued + job.tally.waiting() > 0;
            let attempt = job.units.first().map_or(0, |u| u.attempt);
            let event = JobEvent {
                job: grant.job.clone(),
                seq: job.seq,
                state: job.state.clone(),
                counts: job.tally.counts(),
                why: job.reasons.last().filter(|_| waits || end.is_some()).cloned(),
                end,
            };
            Some((event, attempt))
        });
        Ok(event.await?.map(|(mut e, attempt)| {
            if let Some(end) = &mut e.end
                && e.counts.total() == 1
            {
                end.output = lock(&self.outputs).of(grant.job.unit(0), attempt).cloned();
            }
            e
        }))
    }
}

impl Right {
    /// Returns when it is over by itself.
    fn over(&self, now: Millis) -> impl Future<Output = ()> + use<> {
        let left = match self {
            Right::Member(_) => None,
            Right::Admin { until } => Some(until.since(now)),
        };
        async move {
            match left {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        }
    }
}

impl Watching {
    async fn next(&mut self) -> Option<Result<JobEvent, Error>> {
        if self.over {
            return None;
        }
        loop {
            self.news.borrow_and_update();
            match self.core.event(&self.grant, self.after).await {
                Ok(Some(e)) => {
                    if e.end.is_none() && self.after.is_some() && self.soon().await {
                        continue;
                    }
                    if let Err(e) = self.may_still() {
                        return Some(Err(e));
                    }
                    self.after = Some(e.seq);
                    return Some(Ok(e));
                }
                Ok(None) => {}
                Err(e) => return Some(Err(e)),
            }
            let over = self.right.over(self.core.now());
            tokio::select! {
                changed = self.news.changed() => {
                    if changed.is_err() {
                        return None;
                    }
                }
                () = over => return self.may_still().err().map(Err),
                () = self.core.stop.cancelled() => {
                    let e = Error::unavailable("this core is stopping")
                        .hint("the job goes on; watch it again in a moment");
                    return Some(Err(e));
                }
            }
        }
    }

    /// Whether who watches has the right to what they are told now.
    fn may_still(&self) -> Result<(), Error> {
        let now = self.core.now();
        match &self.right {
            Right::Member(member) => {
                let member = self.core.standing.effective(member, now)?;
                self.core.may(&member, &self.grant.job, Want::See)
            }
            Right::Admin { until } if now < *until => Ok(()),
            Right::Admin { .. } => {
                let text = "the token under which the job was watched has ended";
                Err(Error::unavailable(text).hint("sign in again, and watch it again"))
            }
        }
    }

    /// Waits a little for the job's end; says whether it came in between.
    async fn soon(&mut self) -> bool {
        let deadline = tokio::time::Instant::now() + TOGETHER;
        while let Ok(Ok(())) = tokio::time::timeout_at(deadline, self.news.changed()).await {
            let state = |_: &JobTable, job: &Job| job.state.is_final();
            if self.core.with_job(&self.grant, state).await.unwrap_or(true) {
                return true;
            }
        }
        false
    }
}
