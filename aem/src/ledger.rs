//! State and journal together: a change is applied, journalled, and only then told to anybody.

use crate::state::{Record, State, Touched};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

/// The journalled state.
pub struct Ledger {
    site: SiteId,
    dir: PathBuf,
    inner: Mutex<Inner>,
}

impl Ledger {
    /// Opens the journal in `dir` and replays it. Blocks.
    ///
    /// # Errors
    /// Why the journal cannot be used.
    pub fn open(site: SiteId, dir: &Path) -> Result<Ledger, Error> {
        let inner = load(&site, dir)?;
        Ok(Ledger { site, dir: dir.to_owned(), inner: Mutex::new(inner) })
    }

    /// Looks at the state.
    pub fn read<T>(&self, f: impl FnOnce(&State) -> T) -> T {
        f(&self.lock().state)
    }

    /// Decides and applies a change, and queues it for the journal. Nothing of it may be told or
    /// done before the [`Append`] has resolved well; when it fails, [`Ledger::reload`] brings back
    /// what the journal holds.
    ///
    /// # Errors
    /// What `f` says, or why the journal is out of order.
    pub fn transact<T>(
        &self,
        f: impl FnOnce(&mut Txn<'_>) -> Result<T, Error>,
    ) -> Result<(T, Option<Append>, Due), Error> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let Some(journal) = inner.journal.clone() else { return Err(out_of_order()) };
        let mut txn =
            Txn { state: &mut inner.state, records: Vec::new(), due: Due::default(), fault: None };
        let result = f(&mut txn);
        let Txn { records, due, fault, .. } = txn;
        if records.is_empty() && fault.is_none() {
            return result.map(|value| (value, None, due));
        }
        match (result, fault) {
            (Ok(value), None) => {
                inner.last += records.len() as u64;
                inner.since_snapshot += records.iter().map(Vec::len).sum::<usize>();
                let records = records.into_iter().map(Into::into).collect();
                Ok((value, Some(journal.append_batch(records)), due))
            }
            (result, fault) => {
                // The state has changes that the journal will not hold.
                inner.journal = None;
                Err(result.err().or(fault).unwrap_or_else(out_of_order))
            }
        }
    }

    /// Whether the state has to be loaded anew.
    pub fn is_broken(&self) -> bool {
        self.lock().journal.is_none()
    }

    /// An append failed: what was applied is not in the journal, or nobody knows.
    pub fn failed(&self, error: &JournalError) -> Error {
        self.lock().journal = None;
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
        let inner = load(&self.site, &self.dir)?;
        *self.lock() = inner;
        Ok(())
    }

    /// Makes a snapshot when enough was journalled since the last one.
    ///
    /// # Errors
    /// Why it failed; the journal stays as it was.
    pub async fn snapshot_if_due(&self) -> Result<(), Error> {
        let (state, journal, upto) = {
            let mut inner = self.lock();
            let due = inner.since_snapshot >= SNAPSHOT_AFTER_BYTES
                && inner.since_snapshot >= inner.snapshot_bytes * SNAPSHOT_AFTER_FACTOR;
            if !due || inner.snapshotting {
                return Ok(());
            }
            let Some(journal) = inner.journal.clone() else { return Ok(()) };
            inner.snapshotting = true;
            (inner.state.clone(), journal, Seq(inner.last))
        };
        let made = store(state, &journal, upto).await;
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
mod tests {
    use super::*;
    use crate::state::JobRecord;
    use crate::testing;
    use xos_base::Millis;

    fn submitted(job: u64) -> JobRecord {
        JobRecord::Submitted {
            job,
            at: Millis(5),
            spec: Box::new(testing::spec(&[("main", "0-3", &[])])),
            member: Box::new(testing::alice()),
            proof: None,
            watched: false,
        }
    }

    #[tokio::test]
    async fn what_was_appended_is_there_after_opening_again() {
        let dir = tempfile::tempdir().unwrap();
        let site: SiteId = "rennes".parse().unwrap();
        let ledger = Ledger::open(site.clone(), dir.path()).unwrap();
        for n in 1..=3 {
            let (_, append, due) = ledger
                .transact(|t| {
                    t.put(submitted(n));
                    Ok(())
                })
                .unwrap();
            assert_eq!(due.mandates, BTreeSet::from([n]));
            append.unwrap().await.unwrap();
        }
        let before = ledger.read(State::clone);
        drop(ledger);
        let ledger = Ledger::open(site, dir.path()).unwrap();
        assert_eq!(ledger.read(State::clone), before);
        assert_eq!(before.jobs.next(), 4);
    }

    #[tokio::test]
    async fn a_snapshot_holds_the_whole_state() {
        let dir = tempfile::tempdir().unwrap();
        let site: SiteId = "rennes".parse().unwrap();
        let ledger = Ledger::open(site.clone(), dir.path()).unwrap();
        let (_, append, _) = ledger
            .transact(|t| {
                t.put(submitted(1));
                Ok(())
            })
            .unwrap();
        append.unwrap().await.unwrap();
        ledger.lock().since_snapshot = SNAPSHOT_AFTER_BYTES;
        ledger.snapshot_if_due().await.unwrap();
        assert!(ledger.lock().snapshot_bytes > 0);
        let (_, append, _) = ledger
            .transact(|t| {
                t.put(submitted(2));
                Ok(())
            })
            .unwrap();
        append.unwrap().await.unwrap();
        let before = ledger.read(State::clone);
        drop(ledger);
        assert_eq!(Ledger::open(site, dir.path()).unwrap().read(State::clone), before);
    }
}
