//! The stream of a VO's log.

use super::Vom;
use crate::Inner;
use crate::live::Live;
use crate::policy::{Action, Subject};
use crate::state::Readable;
use futures_util::stream::{self, Stream, StreamExt};
use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use xos_api::vom::{LogItem, VoLog};
use xos_base::{Error, SiteId, VoId};
use xos_net::{Caller, Principal};

/// How often a reader hears that the home lives.
const BEAT: Duration = Duration::from_secs(20);
/// Most streams of one site to one VO.
const READERS_MAX: usize = 4;

/// One reader.
struct Reader {
    inner: Arc<Inner>,
    live: Arc<Live>,
    /// Whose core reads; the own one reads all.
    site: SiteId,
    after: u64,
    ready: VecDeque<String>,
    number: watch::Receiver<u64>,
    greeted: bool,
    /// The VO is no more, and the reader was told so.
    ended: bool,
}

impl Vom {
    pub(super) async fn vo_log(
        &self,
        caller: Caller,
        r: VoLog,
    ) -> Result<impl Stream<Item = Result<LogItem, Error>> + Send + 'static + use<>, Error> {
        if let Some(jws) = self.end_of(&caller, &r.vo) {
            return Ok(stream::iter([Ok(LogItem::Erased { jws })]).left_stream());
        }
        let live = self.home(&r.vo)?;
        let grant = self.authorise(&live, &caller, Action::ReadLog)?;
        let site = match grant.subject() {
            Subject::Core(site) | Subject::OwnCore(site) => site.clone(),
            Subject::Person { person, .. } => {
                return Err(Error::denied(format!("{person} is not a site's core")));
            }
        };
        count(&self.inner, &r.vo, &site)?;
        let number = live.number();
        let reader = Reader {
            inner: self.inner.clone(),
            live,
            site,
            after: r.after,
            ready: VecDeque::new(),
            number,
            greeted: false,
            ended: false,
        };
        let items = stream::unfold(Some(reader), |reader| async move {
            let mut reader = reader.filter(|r| !r.ended)?;
            match reader.next().await {
                Ok(item) => Some((Ok(item), Some(reader))),
                Err(e) => Some((Err(e), None)),
            }
        });
        Ok(items.right_stream())
    }

    /// The signed last entry of a VO of this site that is no more. It says nothing else, hence
    /// every site's core may have it: who gave the VO a share is forgotten here.
    fn end_of(&self, caller: &Caller, vo: &VoId) -> Option<String> {
        let home = vo.site() == self.inner.site;
        let core = matches!(caller.principal(), Principal::Core(_));
        self.inner.graves.one(vo).filter(|_| home && core).map(|g| g.jws)
    }
}

fn count(inner: &Inner, vo: &VoId, site: &SiteId) -> Result<(), Error> {
    let mut readers = inner.readers.lock().unwrap_or_else(PoisonError::into_inner);
    let count = readers.entry((vo.clone(), site.clone())).or_insert(0);
    if *count >= READERS_MAX {
        return Err(Error::limited(format!("site {site} reads the log of {vo} too often at once")));
    }
    *count += 1;
    Ok(())
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut readers = self.inner.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let at = (self.live.id().clone(), self.site.clone());
        if let Some(count) = readers.get_mut(&at) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                readers.remove(&at);
            }
        }
    }
}

impl Reader {
    fn readable(&self) -> (Readable, u64) {
        let vo = self.live.read();
        let readable = if self.site == self.inner.site {
            Readable::All
        } else {
            vo.shares.get(&self.site).map_or(Readable::Nothing, |s| s.readable())
        };
        (readable, vo.number)
    }

    /// The next item: entries as long as there are, then beats.
    async fn next(&mut self) -> Result<LogItem, Error> {
        loop {
            if let Some(jws) = self.ready.pop_front() {
                self.after = self.after.saturating_add(1);
                self.greeted = true;
                return Ok(LogItem::Entry { jws });
            }
            if let Some(grave) = self.inner.graves.one(self.live.id()) {
                self.ended = true;
                return Ok(LogItem::Erased { jws: grave.jws });
            }
            self.number.mark_unchanged();
            let (readable, number) = self.readable();
            let end = match readable {
                Readable::All => number,
                Readable::UpTo(end) | Readable::Later(end) => end.min(number),
                Readable::Nothing => 0,
            };
            if self.after < end {
                self.fetch(end).await?;
                continue;
            }
            if matches!(readable, Readable::UpTo(_) | Readable::Nothing) {
                return Err(self.over());
            }
            if !self.greeted {
                self.greeted = true;
                return Ok(LogItem::Beat { number: end });
            }
            tokio::select! {
                changed = self.number.changed() => {
                    if changed.is_err() {
                        return Err(Error::unavailable("the core stops"));
                    }
                }
                () = tokio::time::sleep(BEAT) => return Ok(LogItem::Beat { number: end }),
            }
        }
    }

    async fn fetch(&mut self, end: u64) -> Result<(), Error> {
        let entries = self.inner.registry.entries(self.live.id(), self.after).await?;
        let wanted = usize::try_from(end - self.after).unwrap_or(usize::MAX);
        self.ready.extend(entries.into_iter().take(wanted));
        if self.ready.is_empty() {
            return Err(Error::internal(format!("the log of {} has a hole", self.live.id())));
        }
        Ok(())
    }

    fn over(&self) -> Error {
        let vo = self.live.read();
        let reason = vo.shares.get(&self.site).and_then(|s| s.reason.clone()).unwrap_or_default();
        Error::denied(format!("{} has no share of site {} ({reason})", vo.id, self.site))
            .hint("offer it a share again")
    }
}
