//! State and journal together: a change is applied, journalled, and only then told to anybody.
//!
//! The state in memory runs ahead of the disk: a record is applied when it is queued, so that the
//! next decision builds on it. What leaves this core (an order, an answer, a report) therefore
//! waits until everything that it was read from is stored: [`Ledger::read_stored`] for what reads,
//! [`Ledger::stored`] for what changes. When nothing is queued this costs nothing.

use crate::state::{Record, State, Touched};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use xos_base::{Error, JobId, SiteId};
use xos_store::journal::{Append, Journal, JournalError, Options, Seq};

/// A snapshot is made when this much was journalled since the last one, in bytes…
const SNAPSHOT_AFTER_BYTES: usize = 64 * 1024 * 1024;
/// …and at least this many times what the last one took.
const SNAPSHOT_AFTER_FACTOR: usize = 2;

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
    /// Hosted jobs of which units are to be killed, or envelopes to be ended.
    pub hosted: BTreeSet<JobId>,
}

/// A change in the making.
pub struct Txn<'a> {
    state: &'a mut State,
    records: Vec<Vec<u8>>,
    due: Due,
    fault: Option<Error>,
}

impl Txn<'_> {
    /// The state with what was put so far.
    pub fn state(&self) -> &State {
        self.state
    }

    /// Applies a record and keeps it for the journal. After the first one the transaction cannot
    /// be given up any more: whatever can fail comes before.
    pub fn put(&mut self, record: impl Into<Record>) {
        let record = record.into();
        match record.to_bytes() {
            Ok(bytes) => self.records.push(bytes),
            Err(e) => self.fault = Some(e),
        }
        self.due.note(&record, self.state.jobs.site());
        self.due.touched.merge(self.state.apply(&record));
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
    append: Option<Append>,
    mark: Mark,
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

    /// Decides and applies a change, and queues it for the journal. Nothing of it may be told or
    /// done before [`Ledger::stored`] has said so; when that fails, [`Ledger::reload`] brings back
    /// what the journal holds.
    ///
    /// # Errors
    /// What `f` says, or why the journal is out of order.
    pub fn transact<T>(
        &self,
        f: impl FnOnce(&mut Txn<'_>) -> Result<T, Error>,
    ) -> Result<(T, Queued, Due), Error> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let Some(journal) = inner.journal.clone() else { return Err(out_of_order()) };
        let mut txn =
            Txn { state: &mut inner.state, records: Vec::new(), due: Due::default(), fault: None };
        let result = f(&mut txn);
        let Txn { records, due, fault, .. } = txn;
        if records.is_empty() && fault.is_none() {
            let mark = self.mark(inner);
            return result.map(|value| (value, Queued { append: None, mark }, due));
        }
        match (result, fault) {
            (Ok(value), None) => {
                inner.last += records.len() as u64;
                inner.since_snapshot += records.iter().map(Vec::len).sum::<usize>();
                let records = records.into_iter().map(Into::into).collect();
                let append = Some(journal.append_batch(records));
                Ok((value, Queued { append, mark: self.mark(inner) }, due))
            }
            (result, fault) => {
                // The state has changes that the journal will not hold.
                self.halt(inner);
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
        let Queued { append: Some(append), mark } = queued else {
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
