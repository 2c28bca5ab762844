//! An append-only journal: what was appended and acknowledged is there after any crash.
//!
//! One thread writes. It takes all that waits, writes it with one call, syncs once (`fdatasync`)
//! and then acknowledges all of it, so that many appenders share the price of one sync. Records lie
//! in segment files; a snapshot of the reader's state lets the segments before it go.
//!
//! After a crash the end of the last segment may be torn: it is cut off at opening, since nobody
//! was told that it was stored. Damage anywhere else is [`JournalError::Corrupt`], and nothing is
//! cut.

mod error;
mod files;
mod format;
mod open;
mod replay;
mod snapshot;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    fs,
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    thread::JoinHandle,
};

use bytes::Bytes;
use tokio::sync::oneshot;

pub use error::JournalError;
pub use replay::{Record, Replay, Snapshot};
use writer::{Queue, Task};

/// The largest record, in bytes.
pub const RECORD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The largest snapshot, in bytes.
pub const SNAPSHOT_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// The most records waiting to be written; beyond it appends are refused as [`JournalError::Busy`].
pub const QUEUE_RECORDS_MAX: usize = 131_072;
/// The most bytes waiting to be written; beyond it appends are refused as [`JournalError::Busy`].
pub const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The place of a record: 1 for the first ever appended, then without gaps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl std::fmt::Display for Seq {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// How to keep a journal.
#[derive(Debug, Clone)]
pub struct Options {
    /// A segment that has reached this many bytes gets no more records. Default 16 MiB.
    pub segment_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 16 * 1024 * 1024 }
    }
}

/// An open journal. Dropping it writes and syncs what is queued.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    queue: Arc<Queue>,
    writer: Option<JoinHandle<()>>,
    snapshots: Arc<tokio::sync::Mutex<()>>,
    /// Locked as long as it is open.
    _lock: fs::File,
}

impl Journal {
    /// Opens or makes the journal in `dir`; the second part replays what it holds.
    ///
    /// Blocks: reads and checks every segment. Replay before the first [`Journal::snapshot`].
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<(Self, Replay), JournalError> {
        let dir = dir.as_ref().to_path_buf();
        let opened = open::open(&dir)?;
        let queue = Arc::new(Queue::new(opened.last));
        let writer = std::thread::Builder::new()
            .name("xos-journal".into())
            .spawn({
                let (queue, dir) = (Arc::clone(&queue), dir.clone());
                move || writer::run(&queue, dir, &options, opened.segments, opened.last)
            })
            .map_err(|source| JournalError::Io { path: dir.clone(), source })?;
        let snapshots = Arc::default();
        let journal = Self { dir, queue, writer: Some(writer), snapshots, _lock: opened.lock };
        Ok((journal, opened.replay))
    }

    /// Queues one record, in the order of calls, and resolves once it is on the disk.
    ///
    /// The record is queued by this call, not by the first poll; dropping the future does not take
    /// it back. When one append fails, those queued behind it by then fail too.
    pub fn append(&self, record: impl Into<Bytes>) -> Append {
        self.push(vec![record.into()])
    }

    /// Queues records in one piece: others never come between, and they share one sync. At
    /// most [`QUEUE_RECORDS_MAX`] records and [`QUEUE_BYTES_MAX`] bytes. Resolves to the place of
    /// the last. After a crash a first part of them may be there without the rest.
    pub fn append_batch(&self, records: Vec<Bytes>) -> Append {
        self.push(records)
    }

    /// Resolves once all that was queued before is on the disk; says the last place.
    pub fn sync(&self) -> Append {
        self.push(Vec::new())
    }

    /// The place of the last record written.
    pub fn last(&self) -> Seq {
        self.queue.last()
    }

    /// Stores `state`, which must contain the effect of every record up to and including `upto`,
    /// and drops the segments that hold nothing newer. When this fails the journal is as before.
    pub async fn snapshot(&self, state: Bytes, upto: Seq) -> Result<(), JournalError> {
        let turn = Arc::clone(&self.snapshots).lock_owned().await;
        // Were a queued record of the snapshot lost at a power cut, its place would be given twice.
        let last = self.sync().await?;
        if upto > last {
            return Err(JournalError::SnapshotAhead { upto, last });
        }
        let dir = self.dir.clone();
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            snapshot::write(&dir, &state, upto)
        })
        .await
        .map_err(|_| JournalError::Closed)??;
        self.queue.push(|done| Task::Forget { upto, done }, 0, 0).await.map(drop)
    }

    fn push(&self, records: Vec<Bytes>) -> Append {
        if let Some(record) = records.iter().find(|r| r.len() > RECORD_BYTES_MAX) {
            return Append::refused(JournalError::TooLarge { bytes: record.len() });
        }
        let bytes = records.iter().map(Bytes::len).sum();
        let count = records.len();
        self.queue.push(|done| Task::Append { records, done }, count, bytes)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(Err(_)) = self.writer.take().map(JoinHandle::join) {
            tracing::error!(dir = %self.dir.display(), "journal writer had panicked");
        }
    }
}

/// The outcome of an append, to come.
#[derive(Debug)]
#[must_use = "an append is only certain once awaited"]
pub struct Append(Waiting);

#[derive(Debug)]
enum Waiting {
    Answer(oneshot::Receiver<Result<Seq, JournalError>>),
    Refused(Option<JournalError>),
}

impl Append {
    pub(super) fn refused(error: JournalError) -> Self {
        Self(Waiting::Refused(Some(error)))
    }
}

impl Future for Append {
    type Output = Result<Seq, JournalError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Waiting::Refused(error) => {
                Poll::Ready(Err(error.take().unwrap_or(JournalError::Closed)))
            }
            Waiting::Answer(answer) => Pin::new(answer).poll(cx).map(|answer| {
                let lost = |_| JournalError::Unknown { cause: "the journal's writer ended".into() };
                answer.map_err(lost)?
            }),
        }
    }
}
