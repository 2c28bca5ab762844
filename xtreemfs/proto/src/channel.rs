//! The calling side of a stream: many calls at once, answers in any order.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::record::{Record, RecordError, RecordReader, RecordWriter};
use crate::rpc::{MessageType, Procedure, RequestHeader, RpcError, RpcHeader};

/// Most calls that one channel has under way; further ones wait.
pub const OUTSTANDING_MAX: usize = 96;
/// Records taken from the queue before the stream is flushed.
const BATCH_MAX: usize = 32;

/// Why a call brought no reply.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The server refused it.
    #[error("{0}")]
    Refused(#[from] RpcError),
    /// The stream ended before the answer: whether the call took effect is not known. Connect
    /// anew; repeat only what may happen twice.
    #[error("connection lost: {0}")]
    Closed(Arc<str>),
    /// No answer in time: whether the call took effect is not known.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    /// The request does not fit into a record; the caller must send less.
    #[error("request not sent: {0}")]
    TooLong(RecordError),
    /// The answer cannot be understood: the server is at fault.
    #[error("answer not understood: {0}")]
    BadReply(#[from] prost::DecodeError),
}

impl CallError {
    /// The server's refusal, if it is one.
    pub fn refusal(&self) -> Option<&RpcError> {
        match self {
            Self::Refused(error) => Some(error),
            _ => None,
        }
    }
}

type Answer = oneshot::Sender<Result<Record, CallError>>;

/// Calls that wait for their answer, and whether the stream still lives.
#[derive(Debug, Default)]
struct Pending {
    calls: HashMap<u32, Answer>,
    closed: Option<Arc<str>>,
}

#[derive(Debug)]
struct Shared {
    pending: Mutex<Pending>,
    closed: watch::Sender<bool>,
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks the stream as dead and fails every call that waits.
    fn close(&self, reason: &str) {
        let reason: Arc<str> = reason.into();
        let mut pending = self.lock();
        let reason = pending.closed.get_or_insert(reason).clone();
        for (_, answer) in pending.calls.drain() {
            // A caller that no longer waits needs no answer.
            drop(answer.send(Err(CallError::Closed(reason.clone()))));
        }
        drop(pending);
        self.closed.send_replace(true);
    }

    fn answer(&self, record: Record) {
        // Answers to calls that were given up are dropped.
        if let Some(answer) = self.lock().calls.remove(&record.header.call_id) {
            drop(answer.send(Ok(record)));
        }
    }
}

/// Ends the tasks of a stream when its last user goes.
#[derive(Debug)]
struct Tasks(Vec<AbortHandle>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

/// One stream to a server. Clones share it; it is closed when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Channel {
    shared: Arc<Shared>,
    next_id: Arc<AtomicU32>,
    slots: Arc<Semaphore>,
    queue: mpsc::Sender<Record>,
    /// When the server had answered `Connect`.
    opened: Arc<OnceLock<Instant>>,
    _tasks: Arc<Tasks>,
}

/// Forgets a call whose caller gave up.
struct Forget<'a>(&'a Shared, u32);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.lock().calls.remove(&self.1);
    }
}

impl Channel {
    /// Takes over a stream. Must be called within a tokio runtime.
    pub fn new<S>(stream: S) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (read, write) = tokio::io::split(stream);
        Self::from_halves(read, write)
    }

    /// Takes over a stream whose halves exist already (a `TcpStream`'s are cheaper that way).
    pub fn from_halves<R, W>(read: R, write: W) -> Self
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let shared =
            Arc::new(Shared { pending: Mutex::default(), closed: watch::Sender::new(false) });
        let (queue, records) = mpsc::channel(OUTSTANDING_MAX);
        let reader = tokio::spawn(receive(RecordReader::new(read), shared.clone()));
        let writer = tokio::spawn(send(RecordWriter::new(write), records, shared.clone()));
        Self {
            shared,
            next_id: Arc::default(),
            slots: Arc::new(Semaphore::new(OUTSTANDING_MAX)),
            queue,
            opened: Arc::default(),
            _tasks: Arc::new(Tasks(vec![reader.abort_handle(), writer.abort_handle()])),
        }
    }

    /// Notes that the server has answered `Connect`: from now on it is told how long a call counts.
    pub fn opened(&self) {
        // A second time changes nothing: the server counts from the first.
        self.opened.get_or_init(Instant::now);
    }

    /// How long ago the server had answered `Connect`; `None` before.
    pub fn age(&self) -> Option<Duration> {
        self.opened.get().map(Instant::elapsed)
    }

    /// Whether the stream has ended; calls fail at once then.
    pub fn is_closed(&self) -> bool {
        *self.shared.closed.borrow()
    }

    /// Waits until the stream has ended.
    pub async fn closed(&self) {
        let mut closed = self.shared.closed.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail before it is true.
        drop(closed.wait_for(|closed| *closed).await);
    }

    /// Calls `P` for the identity in `slot` and waits for reply and data tail.
    ///
    /// # Errors
    /// See [`CallError`]. Dropping the future gives the call up; it may still take effect until the
    /// deadline.
    pub async fn call<P: Procedure>(
        &self,
        slot: Option<u32>,
        request: &P::Request,
        data: Bytes,
        deadline: Duration,
    ) -> Result<(P::Reply, Bytes), CallError> {
        let mut header = RequestHeader::with_slot::<P>(slot);
        let until = self.age().map(|age| age.saturating_add(deadline).as_millis());
        header.until_ms = until.map(|until| u64::try_from(until).unwrap_or(u64::MAX));
        let message = Bytes::from(request.encode_to_vec());
        let waiting = self.exchange(header, message, data);
        let record = tokio::time::timeout(deadline, waiting)
            .await
            .map_err(|_| CallError::Deadline(deadline))??;
        Ok((P::Reply::decode(record.message)?, record.data))
    }

    /// Sends one record and waits for its answer.
    async fn exchange(
        &self,
        request: RequestHeader,
        message: Bytes,
        data: Bytes,
    ) -> Result<Record, CallError> {
        let lost = || CallError::Closed("the channel is shut down".into());
        let _slot = self.slots.acquire().await.map_err(|_| lost())?;
        let (sender, answer) = oneshot::channel();
        let call_id = self.register(sender)?;
        let _forget = Forget(&self.shared, call_id);
        let record = Record { header: RpcHeader::request(call_id, request), message, data };
        check(&record)?;
        if self.queue.send(record).await.is_err() {
            let reason = self.shared.lock().closed.clone();
            return Err(reason.map_or_else(lost, CallError::Closed));
        }
        let mut record = answer.await.map_err(|_| lost())??;
        if record.header.message_type == i32::from(MessageType::Success) {
            return Ok(record);
        }
        let error = record.header.error_response.take().unwrap_or_default();
        Err(RpcError::from_response(error).into())
    }

    /// Gives the call an id that no other outstanding one has.
    fn register(&self, answer: Answer) -> Result<u32, CallError> {
        let mut pending = self.shared.lock();
        if let Some(reason) = &pending.closed {
            return Err(CallError::Closed(reason.clone()));
        }
        // At most OUTSTANDING_MAX ids are taken, so this ends.
        let call_id = loop {
            let id = self.next_id.fetch_add(1, Ordering::Relaxed);
            if !pending.calls.contains_key(&id) {
                break id;
            }
        };
        pending.calls.insert(call_id, answer);
        Ok(call_id)
    }
}

/// Refuses a record that the peer would refuse, before it harms the stream.
fn check(record: &Record) -> Result<(), CallError> {
    let (message, data) = (record.message.len(), record.data.len());
    crate::record::Marker::new(1, message, data).map(drop).map_err(CallError::TooLong)
}

async fn receive<R: AsyncRead + Unpin>(mut reader: RecordReader<R>, shared: Arc<Shared>) {
    loop {
        match reader.read().await {
            Ok(Some(record)) => shared.answer(record),
            Ok(None) => return shared.close("the server ended it"),
            Err(error) => return shared.close(&error.to_string()),
        }
    }
}

async fn send<W: AsyncWrite + Unpin>(
    mut writer: RecordWriter<W>,
    mut records: mpsc::Receiver<Record>,
    shared: Arc<Shared>,
) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while records.recv_many(&mut batch, BATCH_MAX).await > 0 {
        if let Err(error) = write_batch(&mut writer, &mut batch).await {
            return shared.close(&error.to_string());
        }
    }
}

async fn write_batch<W: AsyncWrite + Unpin>(
    writer: &mut RecordWriter<W>,
    batch: &mut Vec<Record>,
) -> Result<(), RecordError> {
    for record in batch.drain(..) {
        writer.feed(&record).await?;
    }
    writer.flush().await
}
