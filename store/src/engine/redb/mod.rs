//! The default engine: one redb file, one writer thread with group commit, reads by snapshot.
//!
//! Every commit is a two-phase commit with quick repair: after a kill the file opens at once, in
//! the state of the last commit that was acknowledged or a later one.

mod file;
mod tables;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::{Semaphore, oneshot};

use crate::{
    Clock, Entry, Guard, Key, LeaseId, Op, PAGE_ENTRIES_MAX, Page, Prefix, Store, StoreError,
    SystemClock, TxnOutcome, Watch,
    apply::{Answer, Request},
    engine::memory::mismatch,
    txn::{check_limits, check_ttl},
};
use file::File;
use writer::Job;

/// The most changes waiting for the writer; more callers wait their turn.
const QUEUE_MAX: usize = 4096;

/// A [`Store`] in one file of this machine.
pub struct RedbStore {
    file: Arc<File>,
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    turns: Arc<Semaphore>,
    writer: Option<JoinHandle<()>>,
}

impl RedbStore {
    /// Opens the registry at `path`, or makes it (mode 0600, in an existing folder). Blocks: reads
    /// the whole file once to check it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with_clock(path, Arc::new(SystemClock))
    }

    /// As [`RedbStore::open`], with leases that follow `clock`.
    pub fn open_with_clock(
        path: impl AsRef<Path>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let path = path.as_ref().to_path_buf();
        let file = Arc::new(File::open(path.clone(), clock)?);
        let (jobs, inbox) = mpsc::channel();
        let writer = std::thread::Builder::new()
            .name("xos-registry".into())
            .spawn({
                let file = Arc::clone(&file);
                move || writer::run(&file, &inbox)
            })
            .map_err(|source| StoreError::Io { path, source })?;
        Ok(Self {
            file,
            jobs: Mutex::new(Some(jobs)),
            turns: Arc::new(Semaphore::new(QUEUE_MAX)),
            writer: Some(writer),
        })
    }

    /// Where the registry lies.
    pub fn path(&self) -> &PathBuf {
        &self.file.path
    }

    async fn change(&self, request: Request) -> Result<Answer, StoreError> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let (reply, answer) = oneshot::channel();
        {
            let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
            let jobs = jobs.as_ref().ok_or(StoreError::Closed)?;
            let job = Job { request, reply, turn };
            jobs.send(job).map_err(|_| StoreError::Closed)?;
        }
        let lost = |_| StoreError::Unknown { cause: "the registry's writer ended".into() };
        answer.await.map_err(lost)?
    }

    /// Passes through the writer, which reopens the file first if a disk error closed it.
    async fn reopened(&self) -> Result<(), StoreError> {
        self.change(Request::Txn { guards: Vec::new(), ops: Vec::new() }).await.map(drop)
    }
}

impl Drop for RedbStore {
    /// Commits what is queued and frees the file for the next opener.
    fn drop(&mut self) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Err(_)) = self.writer.take().map(JoinHandle::join) {
            tracing::error!(path = %self.file.path.display(), "registry writer had panicked");
        }
        self.file.hub.close();
    }
}

#[async_trait]
impl Store for RedbStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        // Read in place: pages are cached, a hop to another thread would cost ten times the read.
        match self.file.get(key) {
            Err(StoreError::Reopening { .. }) => {
                self.reopened().await?;
                self.file.get(key)
            }
            result => result,
        }
    }

    async fn txn(&self, guards: Vec<Guard>, ops: Vec<Op>) -> Result<TxnOutcome, StoreError> {
        check_limits(&guards, &ops)?;
        match self.change(Request::Txn { guards, ops }).await? {
            Answer::Txn(outcome) => Ok(outcome),
            other => Err(mismatch(&other)),
        }
    }

    async fn scan(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let limit = limit.clamp(1, PAGE_ENTRIES_MAX);
        let once = || {
            let (file, prefix, after) = (Arc::clone(&self.file), prefix.clone(), after.cloned());
            tokio::task::spawn_blocking(move || file.scan(&prefix, after.as_ref(), limit))
        };
        match once().await.map_err(|_| StoreError::Closed)? {
            Err(StoreError::Reopening { .. }) => {
                self.reopened().await?;
                once().await.map_err(|_| StoreError::Closed)?
            }
            result => result,
        }
    }

    fn watch(&self, prefix: Prefix) -> Result<Watch, StoreError> {
        self.file.hub.watch(prefix)
    }

    async fn lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        check_ttl(ttl)?;
        match self.change(Request::Lease { ttl }).await? {
            Answer::Lease(id) => Ok(id),
            other => Err(mismatch(&other)),
        }
    }

    async fn keep(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.change(Request::Keep(lease)).await.map(drop)
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.change(Request::Revoke(lease)).await.map(drop)
    }
}
