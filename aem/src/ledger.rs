//! State and journal together: a change is applied, journalled, and only then told to anybody.
//!
//! The state in memory runs ahead of the disk: a record is applied when it is queued, so that the
//! next decision builds on it. What leaves this core (an order, an answer, a report) therefore
//! waits until everything that it was read from is stored: [`Ledger::read_stored`] for what reads,
//! [`Ledger::stored`] for what changes. When nothing is queued this costs nothing.

mod txn;

pub use txn::{Due, Txn};

use crate::state::{Record, State};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use txn::Weight;
use xos_base::{Error, SiteId};
use xos_store::journal::{
    Append, Journal, JournalError, Options, QUEUE_BYTES_MAX, QUEUE_RECORDS_MAX, RECORD_BYTES_MAX,
    Seq,
};

/// A snapshot is made when this much was journalled since the last one, in bytes…
const SNAPSHOT_AFTER_BYTES: usize = 64 * 1024 * 1024;
/// …and at least this many times what the last one took.
const SNAPSHOT_AFTER_FACTOR: usize = 2;
/// No change begins while more than this waits for the disk: half of what the journal queues. The
/// other half is for the change itself.
const BACKLOG_MAX: Weight = Weight { records: QUEUE_RECORDS_MAX / 2, bytes: QUEUE_BYTES_MAX / 2 };

struct Inner {
    state: State,
    journal: Option<Arc<Journal>>,
    /// The place of the last record queued.
    last: u64,
    /// Bytes journalled since the last snapshot, and what that took.
    since_snapshot: usize,
    snapshot_bytes: usize,
    snapshotting: bool,
}

/// A place in the journal, of one loading of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    /// Grows when the journal fails and when the state is loaded anew: what was in memory before
    /// may never be stored.
    era: u64,
    /// The place of a record.
    place: u64,
}

/// A change that was applied; [`Ledger::stored`] waits for it.
#[must_use = "a change is only certain once it is stored"]
pub struct Queued {
    /// None when the change had no records: what it was decided from still has to be stored.
    append: Option<(Append, Load)>,
    mark: Mark,
}

/// What a change adds to that which waits for the disk, until it has its answer.
struct Load {
    backlog: watch::Sender<Weight>,
    weight: Weight,
}

impl Load {
    fn new(backlog: watch::Sender<Weight>, weight: Weight) -> Load {
        backlog.send_modify(|b| {
            b.records += weight.records;
            b.bytes += weight.bytes;
        });
        Load { backlog, weight }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.backlog.send_modify(|b| {
            b.records = b.records.saturating_sub(self.weight.records);
            b.bytes = b.bytes.saturating_sub(self.weight.bytes);
        });
    }
}

impl Queued {
    /// Whether nothing was changed.
    pub fn is_empty(&self) -> bool {
        self.append.is_none()
    }
}

/// The journalled state.
pub struct Ledger {
    site: SiteId,
    dir: PathBuf,
    inner: Mutex<Inner>,
    /// The last record that is certainly on the disk. Its era changes under the lock of `inner`.
    durable: watch::Sender<Mark>,
    /// What waits for the disk.
    backlog: watch::Sender<Weight>,
    /// Taken for writing by tests: nothing is known to be stored as long as they hold it.
    #[cfg(test)]
    pub(crate) disk: tokio::sync::RwLock<()>,
}

impl Ledger {
    /// Opens the journal in `dir` and replays it. Blocks.
    ///
    /// # Errors
    /// Why the journal cannot be used.
    pub fn open(site: SiteId, dir: &Path) -> Result<Ledger, Error> {
        let inner = load(&site, dir)?;
        let durable = watch::Sender::new(Mark { era: 0, place: inner.last });
        Ok(Ledger {
            site,
            dir: dir.to_owned(),
            inner: Mutex::new(inner),
            durable,
            backlog: watch::Sender::default(),
            #[cfg(test)]
            disk: tokio::sync::RwLock::new(()),
        })
    }

    /// Looks at the state, of which the newest may not be stored yet: for what stays inside this
    /// core. What leaves it is read with [`Ledger::read_stored`].
    pub fn read<T>(&self, f: impl FnOnce(&State) -> T) -> T {
        f(&self.lock().state)
    }

    /// Looks at the state, and waits until everything that was seen is stored.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unavailable`] when it will not be stored, or nobody knows: nothing may
    /// follow from what was seen.
    pub async fn read_stored<T>(&self, f: impl FnOnce(&State) -> T) -> Result<T, Error> {
        let (value, mark) = {
            let inner = self.lock();
            if inner.journal.is_none() {
                return Err(out_of_order());
            }
            (f(&inner.state), self.mark(&inner))
        };
        self.reach(mark).await?;
        Ok(value)
    }

    /// Decides and applies a change, and queues it for the journal, as soon as the disk has come
    /// near enough: the journal refuses what it cannot queue, and the state in memory would be
    /// ahead of it for ever. Nothing of the change may be told or done before [`Ledger::stored`]
    /// has said so; when that fails, [`Ledger::reload`] brings back what the journal holds.
    ///
    /// # Errors
    /// What `f` says, or why the journal is out of order; [`xos_base::Kind::TooLarge`] when the
    /// first record is larger than the journal takes: then nothing was changed.
    pub async fn change<T>(
        &self,
        f: impl FnOnce(&mut Txn<'_>) -> Result<T, Error>,
    ) -> Result<(T, Queued, Due), Error> {
        let mut backlog = self.backlog.subscribe();
        loop {
            {
                let mut inner = self.lock();
                // Nobody adds to it but under this lock.
                if !self.backlog.borrow().is_over(BACKLOG_MAX) {
                    return self.apply(&mut inner, f);
                }
            }
            let near = |b: &Weight| !b.is_over(BACKLOG_MAX);
            backlog.wait_for(near).await.map_err(|_| out_of_order())?;
        }
    }

    /// [`Ledger::change`] without waiting for the disk.
    #[cfg(test)]
    pub(crate) fn transact<T>(
        &self,
        f: impl FnOnce(&mut Txn<'_>) -> Result<T, Error>,
    ) -> Result<(T, Queued, Due), Error> {
        self.apply(&mut self.lock(), f)
    }

    fn apply<T>(
        &self,
        inner: &mut Inner,
        f: impl FnOnce(&mut Txn<'_>) -> Result<T, Error>,
    ) -> Result<(T, Queued, Due), Error> {
        let Some(journal) = inner.journal.clone() else { return Err(out_of_order()) };
        let mut txn = Txn::new(&mut inner.state);
        let result = f(&mut txn);
        let Txn { records, weight, due, fault, .. } = txn;
        match (result, fault) {
            (Ok(value), None) if records.is_empty() => {
                Ok((value, Queued { append: None, mark: self.mark(inner) }, due))
            }
            (Ok(value), None) => {
                inner.last += records.len() as u64;
                inner.since_snapshot += weight.bytes;
                let load = Load::new(self.backlog.clone(), weight);
                let records = records.into_iter().map(Into::into).collect();
                let append = Some((journal.append_batch(records), load));
                Ok((value, Queued { append, mark: self.mark(inner) }, due))
            }
            (result, fault) => {
                if !records.is_empty() {
                    // The state has changes that the journal will not hold.
                    self.halt(inner);
                }
                Err(result.err().or(fault).unwrap_or_else(out_of_order))
            }
        }
    }

    /// Whether the state has to be loaded anew.
    pub fn is_broken(&self) -> bool {
        self.lock().journal.is_none()
    }

    /// Waits until a change, and all that it was decided from, is on the disk.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unavailable`] when it is not, or nobody knows; then the state has to be
    /// loaded anew.
    pub async fn stored(&self, queued: Queued) -> Result<(), Error> {
        let Queued { append: Some((append, _load)), mark } = queued else {
            return self.reach(queued.mark).await;
        };
        #[cfg(test)]
        let _disk = self.disk.read().await;
        match append.await {
            Ok(place) if place.0 == mark.place => {
                self.durable.send_if_modified(|d| {
                    let further = d.era == mark.era && d.place < mark.place;
                    if further {
                        d.place = mark.place;
                    }
                    further
                });
                Ok(())
            }
            // Another place than expected: what was queued before it was not stored.
            Ok(_) => {
                let cause = "a change before it was lost".to_owned();
                Err(self.failed(mark, &JournalError::Unknown { cause }))
            }
            Err(e) => Err(self.failed(mark, &e)),
        }
    }

    fn mark(&self, inner: &Inner) -> Mark {
        Mark { era: self.durable.borrow().era, place: inner.last }
    }

    async fn reach(&self, mark: Mark) -> Result<(), Error> {
        let there = |d: &Mark| d.era != mark.era || d.place >= mark.place;
        let mut durable = self.durable.subscribe();
        let era = durable.wait_for(there).await.map_err(|_| out_of_order())?.era;
        if era == mark.era { Ok(()) } else { Err(out_of_order()) }
    }

    /// The state in memory is not what the journal holds.
    fn halt(&self, inner: &mut Inner) -> Option<Arc<Journal>> {
        self.durable.send_modify(|d| d.era += 1);
        inner.journal.take()
    }

    /// An append failed: what was applied is not in the journal, or nobody knows.
    fn failed(&self, mark: Mark, error: &JournalError) -> Error {
        let old = {
            let mut inner = self.lock();
            // A state that was loaded since then has nothing to do with it.
            let same = self.durable.borrow().era == mark.era;
            if same { self.halt(&mut inner) } else { None }
        };
        // Outside of the lock: the journal is closed when all that is queued has its answer.
        drop(old);
        match error {
            JournalError::Full { .. } | JournalError::Busy => {
                Error::unavailable("the job was not stored: this core's disk is full or too slow")
                    .hint("nothing was lost; try again later, or ask the site's administrator")
            }
            other => Error::unavailable(format!("this core's job journal failed: {other}")),
        }
    }

    /// Opens the journal anew and replays it. Blocks; to be called when all appends have resolved.
    ///
    /// # Errors
    /// Why it cannot be used (still).
    pub fn reload(&self) -> Result<(), Error> {
        let new = load(&self.site, &self.dir)?;
        let mut inner = self.lock();
        self.durable.send_modify(|d| *d = Mark { era: d.era + 1, place: new.last });
        *inner = new;
        Ok(())
    }

    /// Makes a snapshot when enough was journalled since the last one.
    ///
    /// # Errors
    /// Why it failed; the journal stays as it was.
    pub async fn snapshot_if_due(&self) -> Result<(), Error> {
        let (state, journal, mark) = {
            let mut inner = self.lock();
            let due = inner.since_snapshot >= SNAPSHOT_AFTER_BYTES
                && inner.since_snapshot >= inner.snapshot_bytes * SNAPSHOT_AFTER_FACTOR;
            if !due || inner.snapshotting {
                return Ok(());
            }
            let Some(journal) = inner.journal.clone() else { return Ok(()) };
            inner.snapshotting = true;
            let mark = self.mark(&inner);
            (inner.state.clone(), journal, mark)
        };
        // A record that failed must not come back by way of a snapshot.
        let made = match self.reach(mark).await {
            Ok(()) => store(state, &journal, Seq(mark.place)).await,
            Err(e) => Err(e),
        };
        let mut inner = self.lock();
        inner.snapshotting = false;
        inner.since_snapshot = 0;
        inner.snapshot_bytes = made?;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn store(state: State, journal: &Journal, upto: Seq) -> Result<usize, Error> {
    let bytes = tokio::task::spawn_blocking(move || state.to_snapshot())
        .await
        .map_err(|e| Error::internal(format!("the snapshot was not made: {e}")))??;
    let len = bytes.len();
    journal
        .snapshot(bytes.into(), upto)
        .await
        .map_err(|e| Error::internal(format!("the job snapshot was not stored: {e}")))?;
    Ok(len)
}

fn load(site: &SiteId, dir: &Path) -> Result<Inner, Error> {
    let bad = |e: JournalError| Error::unavailable(format!("cannot open the job journal: {e}"));
    let (journal, mut replay) = Journal::open(dir, Options::default()).map_err(bad)?;
    let mut state = State::new(site.clone());
    let mut snapshot_bytes = 0;
    if let Some(snapshot) = replay.take_snapshot() {
        snapshot_bytes = snapshot.state.len();
        state = State::from_snapshot(site, &snapshot.state)?;
    }
    let mut since_snapshot = 0;
    for record in replay {
        let record = record.map_err(bad)?;
        since_snapshot += record.bytes.len();
        state.apply(&Record::from_bytes(&record.bytes)?);
    }
    let last = journal.last().0;
    let journal = Some(Arc::new(journal));
    Ok(Inner { state, journal, last, since_snapshot, snapshot_bytes, snapshotting: false })
}

fn too_large(bytes: usize) -> Error {
    Error::too_large(format!(
        "the change takes {bytes} bytes in this core's job journal, which holds at most \
         {RECORD_BYTES_MAX} of one"
    ))
    .hint("nothing was changed; ask for less at a time")
}

fn out_of_order() -> Error {
    Error::unavailable("this core's job journal is being opened anew")
        .hint("try again in a moment; if it stays so, the site's administrator looks at the disk")
}

impl From<crate::state::JobRecord> for Record {
    fn from(r: crate::state::JobRecord) -> Record {
        Record::Job(r)
    }
}

impl From<crate::state::HostRecord> for Record {
    fn from(r: crate::state::HostRecord) -> Record {
        Record::Host(r)
    }
}

#[cfg(test)]
mod tests;
