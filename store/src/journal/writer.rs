//! The one thread that writes: batches, syncs, rolls over, forgets.

use std::{
    collections::VecDeque,
    fs::File,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    Append, JournalError, Options, QUEUE_BYTES_MAX, QUEUE_RECORDS_MAX, Seq, Waiting,
    files::{self, Segment},
    format,
};

/// A batch takes no more tasks once it holds this many bytes.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

type Done = oneshot::Sender<Result<Seq, JournalError>>;

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Task {
    Append { records: Vec<Bytes>, done: Done },
    Forget { upto: Seq, done: Done },
}

/// What waits for the writer.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Backlog>,
    wake: Condvar,
    last: AtomicU64,
}

#[derive(Debug, Default)]
struct Backlog {
    tasks: VecDeque<Task>,
    records: usize,
    bytes: usize,
    closed: bool,
}

impl Queue {
    pub(super) fn new(last: Seq) -> Self {
        Self { waiting: Mutex::default(), wake: Condvar::new(), last: AtomicU64::new(last.0) }
    }

    pub(super) fn last(&self) -> Seq {
        Seq(self.last.load(Ordering::Acquire))
    }

    pub(super) fn push(
        &self,
        task: impl FnOnce(Done) -> Task,
        records: usize,
        bytes: usize,
    ) -> Append {
        let mut waiting = self.lock();
        if waiting.closed {
            return Append::refused(JournalError::Closed);
        }
        if waiting.records + records > QUEUE_RECORDS_MAX || waiting.bytes + bytes > QUEUE_BYTES_MAX
        {
            return Append::refused(JournalError::Busy);
        }
        waiting.records += records;
        waiting.bytes += bytes;
        let (done, answer) = oneshot::channel();
        waiting.tasks.push_back(task(done));
        self.wake.notify_one();
        Append(Waiting::Answer(answer))
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    /// Waits for tasks and takes a batch; `None` once closed and empty.
    fn take(&self) -> Option<Vec<Task>> {
        let mut waiting = self.lock();
        while waiting.tasks.is_empty() {
            if waiting.closed {
                return None;
            }
            waiting = self.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let mut batch = Vec::with_capacity(waiting.tasks.len());
        let mut taken = 0;
        while taken < BATCH_BYTES_MAX
            && let Some(task) = waiting.tasks.pop_front()
        {
            if let Task::Append { records, .. } = &task {
                let bytes: usize = records.iter().map(Bytes::len).sum();
                waiting.records -= records.len();
                waiting.bytes -= bytes;
                taken += bytes;
            }
            batch.push(task);
        }
        Some(batch)
    }

    fn take_all(&self) -> VecDeque<Task> {
        let mut waiting = self.lock();
        waiting.records = 0;
        waiting.bytes = 0;
        std::mem::take(&mut waiting.tasks)
    }

    fn lock(&self) -> MutexGuard<'_, Backlog> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves until the queue is closed and empty.
pub(super) fn run(
    queue: &Queue,
    dir: PathBuf,
    options: &Options,
    (segments, file): (Vec<Segment>, File),
    last: Seq,
) {
    let _refuse = RefuseAfter(queue);
    let segment_bytes = options.segment_bytes;
    let mut writer = Writer { dir, segment_bytes, segments, file, last, halted: None };
    while let Some(batch) = queue.take() {
        writer.serve(queue, batch);
    }
}

/// However the writer ends, nobody may wait for it any more.
struct RefuseAfter<'q>(&'q Queue);

impl Drop for RefuseAfter<'_> {
    fn drop(&mut self) {
        self.0.close();
        // Dropping a task tells its caller that the outcome is unknown.
        drop(self.0.take_all());
    }
}

struct Writer {
    dir: PathBuf,
    segment_bytes: u64,
    /// Never empty; `file` is the last.
    segments: Vec<Segment>,
    file: File,
    /// The last place on the disk; once halted, what was written last.
    last: Seq,
    /// Why nothing more is taken.
    halted: Option<String>,
}

impl Writer {
    fn serve(&mut self, queue: &Queue, batch: Vec<Task>) {
        let mut appends = Vec::with_capacity(batch.len());
        let mut forgets = Vec::new();
        for task in batch {
            match task {
                Task::Append { records, done } => appends.push((records, done)),
                Task::Forget { upto, done } => forgets.push((upto, done)),
            }
        }
        match self.append(&appends) {
            Ok(places) => {
                queue.last.store(self.last.0, Ordering::Release);
                for ((_, done), seq) in appends.into_iter().zip(places) {
                    answer(done, Ok(seq));
                }
            }
            Err(error) => {
                tracing::error!(%error, dir = %self.dir.display(), "journal append failed");
                let behind = queue.take_all().into_iter().map(|task| match task {
                    Task::Append { done, .. } | Task::Forget { done, .. } => done,
                });
                for done in appends.into_iter().map(|(_, done)| done).chain(behind) {
                    answer(done, Err(error.again()));
                }
            }
        }
        for (upto, done) in forgets {
            let result = self.forget(upto).map(|()| upto);
            answer(done, result);
        }
    }

    /// Writes and syncs all, and says the place of each task's last record.
    fn append(&mut self, tasks: &[(Vec<Bytes>, Done)]) -> Result<Vec<Seq>, JournalError> {
        if let Some(cause) = &self.halted {
            let cause = cause.clone();
            return Err(JournalError::Halted { dir: self.dir.clone(), cause });
        }
        if tasks.iter().any(|(records, _)| !records.is_empty()) {
            self.roll()?;
        }
        let (salt, synced) = (self.current().head.salt, self.last);
        let mut bytes = Vec::new();
        let mut seq = self.last;
        let mut places = Vec::with_capacity(tasks.len());
        for (records, _) in tasks {
            for record in records {
                seq = Seq(seq.0 + 1);
                format::push_record(&mut bytes, salt, seq, synced, record);
            }
            places.push(seq);
        }
        if seq > self.last {
            self.write(&bytes)?;
            self.last = seq;
            self.sync()?;
        }
        Ok(places)
    }

    /// Begins a new segment if the current one is long enough.
    fn roll(&mut self) -> Result<(), JournalError> {
        if self.current().len < self.segment_bytes {
            return Ok(());
        }
        let (segment, file) = files::create_segment(&self.dir, Seq(self.last.0 + 1))?;
        self.segments.push(segment);
        self.file = file;
        Ok(())
    }

    /// Writes behind the last record; a write that failed half-way is taken back.
    fn write(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        let at = self.current().len;
        let Err(source) = self.file.write_all_at(bytes, at) else {
            self.current_mut().len += bytes.len() as u64;
            return Ok(());
        };
        let error = JournalError::io(&self.current().path, source);
        if let Err(undo) = self.file.set_len(at) {
            self.halted = Some(format!("{error}; taking it back failed: {undo}"));
        }
        Err(error)
    }

    /// After a failed sync nobody knows what the disk holds, and trying again would not tell.
    fn sync(&mut self) -> Result<(), JournalError> {
        self.file.sync_data().map_err(|source| {
            let cause = format!("syncing {} failed: {source}", self.current().path.display());
            self.halted = Some(cause.clone());
            JournalError::Unknown { cause }
        })
    }

    /// Removes the segments that hold nothing after `upto`; never the current one.
    fn forget(&mut self, upto: Seq) -> Result<(), JournalError> {
        while let [old, next, ..] = &self.segments[..]
            && next.head.first.0 <= upto.0 + 1
        {
            files::remove(&old.path)?;
            self.segments.remove(0);
        }
        Ok(())
    }

    fn current(&self) -> &Segment {
        &self.segments[self.segments.len() - 1]
    }

    fn current_mut(&mut self) -> &mut Segment {
        let last = self.segments.len() - 1;
        &mut self.segments[last]
    }
}

fn answer(done: Done, result: Result<Seq, JournalError>) {
    // A caller who left does not want to know.
    drop(done.send(result));
}
