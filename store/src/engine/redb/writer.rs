//! The one writer: takes what waits, commits it as one, then answers.

use std::{
    mem,
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    file::{File, fault},
    tables::Write,
};
use crate::{
    Event, Op, StoreError,
    apply::{self, Answer, Request},
};

/// The most requests in one commit.
const BATCH_MAX: usize = 512;
/// A commit takes no more requests once it holds this many value bytes.
const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How often expired leases are looked for when nobody writes.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);

/// A request and whoever waits for it.
pub(super) struct Job {
    pub(super) request: Request,
    pub(super) reply: oneshot::Sender<Result<Answer, StoreError>>,
    pub(super) turn: OwnedSemaphorePermit,
}

/// Serves until every sender is gone.
pub(super) fn run(file: &File, inbox: &Receiver<Job>) {
    loop {
        match inbox.recv_timeout(EXPIRY_INTERVAL) {
            Ok(first) => serve(file, collect(first, inbox)),
            Err(RecvTimeoutError::Timeout) => tend(file),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// What waits already joins the first; waiting for more would only add delay.
fn collect(first: Job, inbox: &Receiver<Job>) -> Vec<Job> {
    let mut bytes = value_bytes(&first.request);
    let mut jobs = vec![first];
    while jobs.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
        let Ok(job) = inbox.try_recv() else { break };
        bytes += value_bytes(&job.request);
        jobs.push(job);
    }
    jobs
}

fn value_bytes(request: &Request) -> usize {
    let Request::Txn { ops, .. } = request else { return 0 };
    ops.iter().map(|op| if let Op::Put { value, .. } = op { value.len() } else { 0 }).sum()
}

fn serve(file: &File, jobs: Vec<Job>) {
    let mut requests = Vec::with_capacity(jobs.len());
    let mut waiting = Vec::with_capacity(jobs.len());
    for Job { request, reply, turn } in jobs {
        requests.push(request);
        waiting.push((reply, turn));
    }
    match commit(file, requests) {
        Ok(answers) => {
            for ((reply, _turn), answer) in waiting.into_iter().zip(answers) {
                // A caller who left does not want to know.
                drop(reply.send(answer));
            }
        }
        Err(error) => {
            tracing::error!(%error, requests = waiting.len(), "registry commit failed");
            for (reply, _turn) in waiting {
                drop(reply.send(Err(error.again())));
            }
        }
    }
}

/// Between requests: reopens a file that a fault closed, and ends leases that are over.
fn tend(file: &File) {
    let due = if file.is_open() { file.with(|snapshot| snapshot.any_due()) } else { Ok(true) };
    let done = match due {
        Ok(false) => return,
        Ok(true) => commit(file, Vec::new()).map(drop),
        Err(error) => Err(error),
    };
    if let Err(error) = done {
        tracing::warn!(%error, "registry could not look for expired leases");
    }
}

/// One durable commit of all requests, in order.
fn commit(
    file: &File,
    mut requests: Vec<Request>,
) -> Result<Vec<Result<Answer, StoreError>>, StoreError> {
    if !file.is_open() {
        file.reopen()?;
    }
    let mut stage = Stage::default();
    let mut result = file.with_database(|db| stage.perform(file, db, &mut requests));
    if matches!(result, Err(StoreError::Reopening { .. })) && !requests.is_empty() {
        // A reader met a disk error before us; nothing of this commit was begun.
        file.reopen()?;
        result = file.with_database(|db| stage.perform(file, db, &mut requests));
    }
    match result {
        Ok(answers) => {
            file.hub.publish(&stage.events);
            Ok(answers)
        }
        Err(error) => Err(recover(file, &stage, error)),
    }
}

/// How far a commit came; read after it failed.
#[derive(Default)]
struct Stage {
    events: Vec<Event>,
    /// The number that the commit, once begun, leaves in the file.
    sealed: Option<u64>,
}

impl Stage {
    fn perform(
        &mut self,
        file: &File,
        db: &::redb::Database,
        requests: &mut Vec<Request>,
    ) -> Result<Vec<Result<Answer, StoreError>>, StoreError> {
        let now_ms = file.clock.now_ms();
        let mut txn = db.begin_write().map_err(|e| fault(&file.path, e))?;
        txn.set_quick_repair(true);
        let mut state = Write::open(&file.path, &txn)?;
        apply::expire(&mut state, now_ms, &mut self.events)?;
        let mut answers = Vec::with_capacity(requests.len());
        for request in mem::take(requests) {
            match apply::apply(&mut state, now_ms, request, &mut self.events) {
                Err(error) if !error.is_refusal() => return Err(error),
                answer => answers.push(answer),
            }
        }
        match state.seal()? {
            Some(number) => {
                self.sealed = Some(number);
                txn.commit().map_err(|e| fault(&file.path, e))?;
            }
            None => txn.abort().map_err(|e| fault(&file.path, e))?,
        }
        Ok(answers)
    }
}

/// Reopens after a fault and says what became of the commit.
fn recover(file: &File, stage: &Stage, error: StoreError) -> StoreError {
    let reopened = file.reopen();
    match (stage.sealed, reopened) {
        (None, Ok(_)) => error,
        (Some(sealed), Ok(number)) if number < sealed => error,
        (Some(_), Ok(_)) => {
            // The commit is in the file, but whether the disk has it nobody can say.
            file.hub.publish(&stage.events);
            StoreError::Unknown { cause: error.to_string() }
        }
        (sealed, Err(again)) => {
            tracing::error!(error = %again, "registry could not be reopened");
            match sealed {
                None => error,
                Some(_) => StoreError::Unknown { cause: error.to_string() },
            }
        }
    }
}
