//! Talking to one shim.

use crate::proto::{Ask, Call, Refusal, Tell};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use xos_ssi::frame::{self, Frames};

/// Most calls on their way to one shim.
const CALLS_MAX: usize = 64;
/// How long a shim may take for an answer; it decides in memory, so this means it hangs.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// How much is read at a time.
const READ_BYTES: usize = 64 * 1024;

/// Why a call to a shim gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The shim said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The connection is gone: the envelope is over, or its shim died.
    #[error("the envelope's shim is gone: it ended or was killed; its log tells which")]
    Gone,
    /// It does not answer.
    #[error("the envelope's shim did not answer for 30 s: look at its process")]
    Slow,
    /// It answers in another shape: it is of another version.
    #[error("the envelope's shim speaks another version: {0}")]
    Shape(#[from] serde_json::Error),
    /// The request is larger than a message may be.
    #[error("the request cannot be sent to the shim: {0}")]
    Request(#[from] io::Error),
}

type Answer = Result<Value, Refusal>;
type Waiting = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>>;

/// A connection to a shim. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct ShimClient {
    calls: mpsc::Sender<Vec<u8>>,
    waiting: Waiting,
    next_id: Arc<AtomicU64>,
    log_bytes: watch::Receiver<u64>,
}

impl ShimClient {
    /// Connects to the socket in an envelope's folder.
    pub(super) async fn connect(dir: &Path) -> io::Result<ShimClient> {
        // A socket's name may have 107 bytes; the folder's may be longer.
        let folder = File::open(dir)?;
        let short = format!("/proc/self/fd/{}/{}", folder.as_raw_fd(), crate::shim::SOCKET_FILE);
        Ok(ShimClient::over(UnixStream::connect(short).await?))
    }

    /// Speaks to the shim at the other end of a connection.
    pub(super) fn over(connection: UnixStream) -> ShimClient {
        let (read, write) = connection.into_split();
        let (calls, outgoing) = mpsc::channel(CALLS_MAX);
        let (grown, log_bytes) = watch::channel(0);
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        tokio::spawn(write_calls(write, outgoing));
        let theirs = waiting.clone();
        tokio::spawn(async move {
            if let Err(e) = read_answers(read, &theirs, &grown).await {
                tracing::warn!(error = %e, "connection to a shim broke");
            }
            // Whoever waits learns that nothing will come.
            drop(lock(&theirs).take());
            drop(grown);
        });
        ShimClient { calls, waiting, next_id: Arc::new(AtomicU64::new(1)), log_bytes }
    }

    /// Asks and waits for the answer.
    pub(super) async fn call<T: DeserializeOwned>(&self, ask: Ask) -> Result<T, CallError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let mut bytes = Vec::new();
        frame::push(&Call { id, ask }, &mut bytes)?;
        let (tx, rx) = oneshot::channel();
        match lock(&self.waiting).as_mut() {
            Some(w) => w.insert(id, tx),
            None => return Err(CallError::Gone),
        };
        let answered = tokio::time::timeout(ANSWER_WAIT, async {
            self.calls.send(bytes).await.map_err(|_| CallError::Gone)?;
            rx.await.map_err(|_| CallError::Gone)
        });
        let answer = match answered.await {
            Ok(answer) => answer?,
            Err(_) => {
                if let Some(w) = lock(&self.waiting).as_mut() {
                    w.remove(&id);
                }
                return Err(CallError::Slow);
            }
        };
        Ok(serde_json::from_value(answer?)?)
    }

    /// Whether the connection is gone.
    pub(super) fn is_gone(&self) -> bool {
        lock(&self.waiting).is_none()
    }

    /// Waits until the connection is gone.
    pub(super) async fn gone(&self) {
        let mut log_bytes = self.log_bytes.clone();
        // Ends when the reading task, which has the sender, does.
        while log_bytes.changed().await.is_ok() {}
    }

    /// Waits until the log is said to be longer than `bytes`. `false`: the connection is gone.
    pub(super) async fn log_beyond(&mut self, bytes: u64) -> bool {
        self.log_bytes.wait_for(|n| *n > bytes).await.is_ok()
    }
}

fn lock(w: &Waiting) -> std::sync::MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<Answer>>>> {
    w.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn write_calls(mut to: OwnedWriteHalf, mut calls: mpsc::Receiver<Vec<u8>>) {
    while let Some(bytes) = calls.recv().await {
        if to.write_all(&bytes).await.is_err() {
            // The reading half sees the end too and tells those who wait.
            return;
        }
    }
}

async fn read_answers(
    mut from: OwnedReadHalf,
    waiting: &Waiting,
    grown: &watch::Sender<u64>,
) -> io::Result<()> {
    let mut inbox = Frames::default();
    let mut buf = vec![0; READ_BYTES];
    loop {
        let n = match from.read(&mut buf).await {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(e) => return Err(e),
        };
        inbox.feed(&buf[..n]);
        while let Some(tell) = inbox.next::<Tell>()? {
            let (id, answer) = match tell {
                Tell::Log { bytes } => {
                    grown.send_replace(bytes);
                    continue;
                }
                Tell::Reply { id, value } => (id, Ok(value)),
                Tell::Refused { id, refusal } => (id, Err(refusal)),
            };
            let tx = lock(waiting).as_mut().and_then(|w| w.remove(&id));
            // Nobody there: the caller gave up waiting.
            if let Some(Err(_)) = tx.map(|tx| tx.send(answer)) {
                tracing::debug!(id, "an answer came after its caller left");
            }
        }
    }
}
