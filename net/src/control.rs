//! A control stream: either end calls operations of the other.

use crate::caller::Caller;
use crate::frames::{self, FRAME_MAX, Frame};
use crate::path;
use crate::router::{Answer, Router, Who};
use bytes::Bytes;
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use xos_api::Request;
use xos_base::Error;

/// How often an end says that it is alive.
pub const ALIVE_EVERY: Duration = Duration::from_secs(5);
/// A stream on which nothing came for so long is dead.
pub const SILENCE_MAX: Duration = Duration::from_secs(20);
/// How long a call may take.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Most frames waiting to be written.
const OUTGOING_MAX: usize = 256;
/// Most calls of the peer that are served at the same time.
const SERVED_MAX: usize = 256;
/// Most bytes of such calls that are held at the same time; more are not read yet.
const SERVED_BYTES_MAX: usize = 2 * FRAME_MAX;
/// Unit in which they are counted.
const BYTES_UNIT: usize = 1024;
/// Most bytes that are gathered for one write.
const GATHER_MAX: usize = 256 * 1024;

/// One end of a control stream.
pub struct Control {
    outgoing: mpsc::Sender<Vec<u8>>,
    pending: Pending,
    next: AtomicU64,
    closed: watch::Receiver<bool>,
    close: watch::Sender<bool>,
}

type Pending = Arc<Mutex<HashMap<u64, oneshot::Sender<Result<Box<RawValue>, Error>>>>>;

impl Control {
    /// Runs a control stream; what the peer calls is served by `router` as `caller`.
    pub fn start<S>(stream: S, router: Arc<Router>, caller: Caller) -> Arc<Control>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (reader, writer) = tokio::io::split(stream);
        let (outgoing, queue) = mpsc::channel(OUTGOING_MAX);
        let (close, closed) = watch::channel(false);
        let pending: Pending = Arc::default();
        let control = Arc::new(Control {
            outgoing: outgoing.clone(),
            pending: pending.clone(),
            next: AtomicU64::new(1),
            closed: closed.clone(),
            close: close.clone(),
        });
        let (write_close, mut write_closed) = (close.clone(), closed.clone());
        let alive = frames::encode(&Frame::Alive {}).unwrap_or_default();
        tokio::spawn(async move {
            tokio::select! {
                // What was on its way is asked again by who waits for it.
                written = write_frames(writer, queue, &alive) => {
                    if let Err(error) = written {
                        tracing::debug!(%error, "a control stream is over");
                    }
                }
                _ = write_closed.wait_for(|c| *c) => {}
            }
            write_close.send_replace(true);
        });
        let mut read_closed = closed;
        tokio::spawn(async move {
            let served = Served { router, caller, outgoing, pending: pending.clone() };
            let result = tokio::select! {
                result = read_all(reader, &served) => result,
                _ = read_closed.wait_for(|c| *c) => Ok(()),
            };
            if let Err(e) = result {
                tracing::info!(peer = %served.caller.describe(), error = %e, "control stream ended");
            }
            close.send_replace(true);
            pending.lock().unwrap_or_else(PoisonError::into_inner).clear();
        });
        control
    }

    /// Calls an operation of the peer.
    ///
    /// # Errors
    /// What the peer answers; [`xos_base::Kind::Unavailable`] when the stream ends first (then
    /// the operation may or may not have happened) or no answer comes in time.
    pub async fn call<R: Request>(&self, r: R) -> Result<R::Reply, Error> {
        let ended = || Error::unavailable("the control stream ended").hint("try again");
        let out = path::write(R::METHOD, R::PATH, &r)?;
        let body = match out.body.is_empty() {
            true => None,
            false => Some(raw(out.body)?),
        };
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let method = R::METHOD.as_str().to_owned();
        let frame = frames::encode(&Frame::Call { id, method, target: out.target, body })?;
        let (sender, receiver) = oneshot::channel();
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).insert(id, sender);
        let forget = Forget { pending: &self.pending, id };
        // The reader clears the table when it ends; look after inserting, so that none is missed.
        let exchange = async {
            if *self.closed.borrow() || self.outgoing.send(frame).await.is_err() {
                return Err(ended());
            }
            receiver.await.map_err(|_| ended())?
        };
        let reply = tokio::time::timeout(CALL_TIMEOUT, exchange).await;
        drop(forget);
        match reply {
            Ok(reply) => serde_json::from_str(reply?.get())
                .map_err(|e| Error::unavailable(format!("an answer is not understood: {e}"))),
            Err(_) => Err(Error::unavailable("no answer came on the control stream in time")),
        }
    }

    /// Ends the stream.
    pub fn close(&self) {
        self.close.send_replace(true);
    }

    /// Returns when the stream has ended.
    pub async fn closed(&self) {
        // An error means that the sender is gone, which is the end too.
        let mut closed = self.closed.clone();
        if closed.wait_for(|c| *c).await.is_err() {
            tracing::trace!("control stream dropped");
        }
    }
}

/// Takes a call out of the table however its future ends.
struct Forget<'a> {
    pending: &'a Pending,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

struct Served {
    router: Arc<Router>,
    caller: Caller,
    outgoing: mpsc::Sender<Vec<u8>>,
    pending: Pending,
}

/// Writes frames of a queue, many at once where many wait, and `alive` when none came for
/// [`ALIVE_EVERY`]. Returns when the queue is over.
///
/// # Errors
/// The stream broke, or the other side reads nothing for [`SILENCE_MAX`].
pub async fn write_frames(
    mut writer: impl AsyncWrite + Unpin,
    mut queue: mpsc::Receiver<Vec<u8>>,
    alive: &[u8],
) -> std::io::Result<()> {
    loop {
        let mut bytes = match tokio::time::timeout(ALIVE_EVERY, queue.recv()).await {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(()),
            Err(_) => alive.to_vec(),
        };
        while bytes.len() < GATHER_MAX {
            match queue.try_recv() {
                Ok(more) => bytes.extend_from_slice(&more),
                Err(_) => break,
            }
        }
        let written = async {
            writer.write_all(&bytes).await?;
            writer.flush().await
        };
        // A peer that reads nothing is as good as gone.
        tokio::time::timeout(SILENCE_MAX, written).await??;
    }
}

async fn read_all(reader: impl AsyncRead + Unpin, served: &Served) -> Result<(), Error> {
    let mut reader = tokio::io::BufReader::with_capacity(64 * 1024, reader);
    let permits = Arc::new(Semaphore::new(SERVED_MAX));
    let bytes = Arc::new(Semaphore::new(SERVED_BYTES_MAX / BYTES_UNIT));
    loop {
        let frame = tokio::time::timeout(SILENCE_MAX, frames::read(&mut reader, FRAME_MAX))
            .await
            .map_err(|_| Error::unavailable("the peer is silent"))??;
        match frame {
            None => return Ok(()),
            Some(Frame::Alive {}) => {}
            Some(Frame::Reply { id, body }) => served.settle(id, Ok(body)),
            Some(Frame::Failed { id, error }) => served.settle(id, Err(error)),
            Some(Frame::Call { id, method, target, body }) => {
                let size = body.as_ref().map_or(0, |b| b.get().len()) / BYTES_UNIT + 1;
                let permit = (acquire(&permits, 1).await?, acquire(&bytes, size).await?);
                let (router, caller) = (served.router.clone(), served.caller.clone());
                let outgoing = served.outgoing.clone();
                tokio::spawn(async move {
                    let reply = serve(&router, caller, &method, &target, body).await;
                    answer(&outgoing, id, reply).await;
                    drop(permit);
                });
            }
        }
    }
}

async fn acquire(limit: &Arc<Semaphore>, n: usize) -> Result<OwnedSemaphorePermit, Error> {
    let n = u32::try_from(n).unwrap_or(u32::MAX);
    let closed = |_| Error::internal("the control stream's limit is closed");
    limit.clone().acquire_many_owned(n).await.map_err(closed)
}

impl Served {
    fn settle(&self, id: u64, reply: Result<Box<RawValue>, Error>) {
        let waiting = self.pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        // A caller that gave up has taken its entry away, or drops the receiver just now.
        if waiting.is_some_and(|w| w.send(reply).is_err()) {
            tracing::debug!(id, "a reply came after its caller gave up");
        }
    }
}

async fn serve(
    router: &Router,
    caller: Caller,
    method: &str,
    target: &str,
    body: Option<Box<RawValue>>,
) -> Result<Box<RawValue>, Error> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let body = body.map(|b| Bytes::from(b.get().to_owned())).unwrap_or_default();
    match router.find(method, path)?.run(Who::Caller(caller), query, body).await? {
        Answer::Json(json) => raw(json.to_vec()),
        Answer::Lines(_) => Err(Error::invalid("a control stream carries no streams")),
    }
}

async fn answer(outgoing: &mpsc::Sender<Vec<u8>>, id: u64, reply: Result<Box<RawValue>, Error>) {
    let frame = match reply {
        Ok(body) => frames::encode(&Frame::Reply { id, body }),
        Err(error) => frames::encode(&Frame::Failed { id, error }),
    };
    let frame = frame.or_else(|error| frames::encode(&Frame::Failed { id, error }));
    match frame {
        Ok(bytes) => {
            if outgoing.send(bytes).await.is_err() {
                tracing::debug!(id, "a control stream ended before its answer");
            }
        }
        Err(e) => tracing::error!(error = %e, "an answer cannot be encoded"),
    }
}

fn raw(json: Vec<u8>) -> Result<Box<RawValue>, Error> {
    String::from_utf8(json)
        .ok()
        .and_then(|s| RawValue::from_string(s).ok())
        .ok_or_else(|| Error::internal("a body is no JSON"))
}
