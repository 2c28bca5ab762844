//! The answering side of a stream.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::record::{DATA_BYTES_MAX, HEADER_BYTES_MAX, MESSAGE_BYTES_MAX, Marker};
use crate::record::{Record, RecordError, RecordReader, RecordWriter};
use crate::rpc::Errno;
use crate::rpc::{ErrorType, MessageType, Procedure, RpcError, RpcHeader};

/// Most requests of one connection that are worked on at once; further ones are not read.
pub const OUTSTANDING_MAX: usize = 128;
/// Most bytes of one connection's requests that are held at once.
pub const OUTSTANDING_BYTES_MAX: usize = 64 << 20;
/// The first bytes of a record and, once there is room for it, the rest must each come within this
/// time.
pub const RECORD_TIME_MAX: Duration = Duration::from_secs(60);
/// A peer that sends nothing for so long inside a record has gone: what its request holds of the
/// budgets is needed by others.
pub const STALL_TIME_MAX: Duration = Duration::from_secs(10);
/// The peer must take a batch of answers within this time.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);
/// Answers taken from the queue before the stream is flushed.
const BATCH_MAX: usize = 32;
/// Unit in which outstanding bytes are counted.
const BYTES_UNIT: usize = 1024;

/// A request's part of a budget of memory, given back when the last clone of it goes. Whoever keeps
/// the request's data longer than its handling takes keeps this with them.
#[derive(Clone, Default)]
pub struct Room(Option<Arc<dyn Any + Send + Sync>>);

impl Room {
    /// Room that lasts as long as `held`.
    pub fn of(held: impl Any + Send + Sync) -> Self {
        Self(Some(Arc::new(held)))
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Room").field(&self.0.is_some()).finish()
    }
}

/// One request as it came in.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// Interface id.
    pub interface: u32,
    /// Procedure id.
    pub proc: u32,
    /// Slot of the identity it is for, unchecked.
    pub slot: Option<u32>,
    /// See [`RequestHeader::until_ms`].
    pub until_ms: Option<u64>,
    /// The encoded request.
    pub message: Bytes,
    /// Raw file data.
    pub data: Bytes,
    /// What it holds of the server's memory.
    pub room: Room,
}

impl Incoming {
    /// Whether it calls `P`.
    pub fn is<P: Procedure>(&self) -> bool {
        (self.interface, self.proc) == (P::INTERFACE, P::PROC)
    }

    /// Decodes the request of `P`.
    ///
    /// # Errors
    /// `GARBAGE_ARGS` with `EINVAL` if it is none.
    pub fn request<P: Procedure>(&self) -> Result<P::Request, RpcError> {
        P::Request::decode(self.message.clone()).map_err(|error| {
            let text = format!("request {} not understood: {error}", P::NAME);
            RpcError::of(ErrorType::GarbageArgs, Errno::EINVAL, text)
        })
    }

    /// The refusal for a procedure that this server of `interface` does not know.
    pub fn unknown(&self, interface: u32) -> RpcError {
        if self.interface != interface {
            let text = format!("interface {} is not served here", self.interface);
            return RpcError::of(ErrorType::InvalidInterfaceId, Errno::EIO, text);
        }
        let text = format!("procedure {} of interface {interface} is not known", self.proc);
        RpcError::of(ErrorType::InvalidProcId, Errno::ENOTSUP, text)
    }
}

/// A successful answer.
pub struct Outgoing {
    /// The encoded reply.
    pub message: Bytes,
    /// Raw file data.
    pub data: Bytes,
    /// Dropped when the answer has left: a place for a share of a memory budget.
    pub guard: Option<Box<dyn Any + Send>>,
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (message, data) = (self.message.len(), self.data.len());
        f.debug_struct("Outgoing").field("message", &message).field("data", &data).finish()
    }
}

impl Outgoing {
    /// The answer of `P`.
    pub fn reply<P: Procedure>(reply: &P::Reply) -> Self {
        Self::with_data::<P>(reply, Bytes::new())
    }

    /// The answer of `P` with a data tail.
    pub fn with_data<P: Procedure>(reply: &P::Reply, data: Bytes) -> Self {
        Self { message: reply.encode_to_vec().into(), data, guard: None }
    }
}

/// What a server does with the requests of one connection.
pub trait Handler: Send + Sync + 'static {
    /// Longest data tail of a request, in bytes: 0 where no procedure takes any. A peer that sends
    /// more breaks the framing, and is told so by the end of the connection before it is read.
    fn data_bytes_max(&self) -> usize {
        DATA_BYTES_MAX
    }

    /// Waits for room for a request of so many bytes, before more of it is read than its lengths: a
    /// server that has many connections bounds here what they hold together.
    fn room(&self, _bytes: usize) -> impl Future<Output = Room> + Send {
        std::future::ready(Room::default())
    }

    /// Carries one request out. Called concurrently; dropped when the connection ends.
    fn handle(&self, request: Incoming) -> impl Future<Output = Result<Outgoing, RpcError>> + Send;
}

/// An answer on its way, with the shares of the limits that it holds.
struct Answer {
    record: Record,
    _guard: Option<Box<dyn Any + Send>>,
    _permits: [OwnedSemaphorePermit; 2],
}

/// Serves one connection until the peer ends it; requests are carried out concurrently.
///
/// # Errors
/// [`RecordError`] when the peer broke the framing, was too slow, or the stream failed.
pub async fn serve<S, H>(stream: S, handler: Arc<H>) -> Result<(), RecordError>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
    H: Handler,
{
    let (read, write) = tokio::io::split(stream);
    serve_halves(read, write, handler).await
}

/// Like [`serve`], over halves that exist already.
///
/// # Errors
/// As [`serve`].
pub async fn serve_halves<R, W, H>(read: R, write: W, handler: Arc<H>) -> Result<(), RecordError>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
    H: Handler,
{
    let (answers, queue) = mpsc::channel(OUTSTANDING_MAX);
    let mut sending = std::pin::pin!(send(RecordWriter::new(write), queue));
    let reader = RecordReader::new(read).with_stall(STALL_TIME_MAX);
    let mut receiving = std::pin::pin!(receive(reader, handler, answers));
    tokio::select! {
        sent = &mut sending => sent,
        received = &mut receiving => {
            received?;
            sending.await
        }
    }
}

/// Reads requests and starts their work; ends when the peer ends and all work is done.
async fn receive<R, H>(
    mut reader: RecordReader<R>,
    handler: Arc<H>,
    answers: mpsc::Sender<Answer>,
) -> Result<(), RecordError>
where
    R: AsyncRead + Unpin,
    H: Handler,
{
    let calls = Arc::new(Semaphore::new(OUTSTANDING_MAX));
    let bytes = Arc::new(Semaphore::new(OUTSTANDING_BYTES_MAX / BYTES_UNIT));
    let mut work = JoinSet::new();
    while reader.begun().await? {
        let Some(marker) = timely(RECORD_TIME_MAX, reader.marker()).await? else { break };
        marker.check_data(handler.data_bytes_max())?;
        // The connection's own limits first: who waits for them holds nothing of the others'.
        let units = marker.bytes() / BYTES_UNIT + 1;
        let permits = [acquire(&calls, 1).await?, acquire(&bytes, units).await?];
        let room = handler.room(marker.bytes()).await;
        let record = timely(RECORD_TIME_MAX, reader.rest(marker)).await?;
        let (handler, answers) = (handler.clone(), answers.clone());
        work.spawn(async move {
            let answer = answer(&*handler, record, room, permits).await;
            // Fails only when the connection is being torn down.
            drop(answers.send(answer).await);
        });
        while work.try_join_next().is_some() {}
    }
    while work.join_next().await.is_some() {}
    Ok(())
}

async fn acquire(
    semaphore: &Arc<Semaphore>,
    count: usize,
) -> Result<OwnedSemaphorePermit, RecordError> {
    const { assert!(OUTSTANDING_BYTES_MAX > DATA_BYTES_MAX + MESSAGE_BYTES_MAX + HEADER_BYTES_MAX) };
    let permit = semaphore.clone().acquire_many_owned(count as u32).await;
    permit.map_err(|_| RecordError::Io(std::io::ErrorKind::BrokenPipe.into()))
}

/// Carries one request out and makes the record that answers it.
async fn answer<H: Handler>(
    handler: &H,
    record: Record,
    room: Room,
    permits: [OwnedSemaphorePermit; 2],
) -> Answer {
    let call_id = record.header.call_id;
    let result = match incoming(record, room) {
        Ok(request) => handler.handle(request).await,
        Err(error) => Err(error),
    };
    let result = result.and_then(|out| match Marker::new(1, out.message.len(), out.data.len()) {
        Ok(_) => Ok(out),
        Err(error) => Err(RpcError::errno(Errno::EIO, format!("answer not sent: {error}"))),
    });
    let (record, guard) = match result {
        Ok(out) => {
            let header = RpcHeader::answer(call_id, None);
            (Record { header, message: out.message, data: out.data }, out.guard)
        }
        Err(error) => {
            let header = RpcHeader::answer(call_id, Some(error.to_response()));
            (Record { header, message: Bytes::new(), data: Bytes::new() }, None)
        }
    };
    Answer { record, _guard: guard, _permits: permits }
}

fn incoming(record: Record, room: Room) -> Result<Incoming, RpcError> {
    let request = record.header.message_type == i32::from(MessageType::Request);
    let Some(header) = record.header.request_header.filter(|_| request) else {
        let text = "record is not a request";
        return Err(RpcError::of(ErrorType::GarbageArgs, Errno::EINVAL, text));
    };
    Ok(Incoming {
        interface: header.interface_id,
        proc: header.proc_id,
        slot: header.slot(),
        until_ms: header.until_ms,
        message: record.message,
        data: record.data,
        room,
    })
}

async fn send<W: AsyncWrite + Unpin>(
    mut writer: RecordWriter<W>,
    mut queue: mpsc::Receiver<Answer>,
) -> Result<(), RecordError> {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while queue.recv_many(&mut batch, BATCH_MAX).await > 0 {
        timely(ANSWER_TIME_MAX, write_batch(&mut writer, &mut batch)).await?;
    }
    timely(ANSWER_TIME_MAX, writer.shutdown()).await
}

async fn write_batch<W: AsyncWrite + Unpin>(
    writer: &mut RecordWriter<W>,
    batch: &mut Vec<Answer>,
) -> Result<(), RecordError> {
    for answer in batch.drain(..) {
        writer.feed(&answer.record).await?;
    }
    writer.flush().await
}

async fn timely<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, RecordError>>,
) -> Result<T, RecordError> {
    let late = |_| RecordError::Io(std::io::ErrorKind::TimedOut.into());
    tokio::time::timeout(limit, work).await.map_err(late)?
}
