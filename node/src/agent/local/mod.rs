//! The node's local socket ([`xos_base::local`]): who may connect, frames, deadlines. What is
//! answered stands in [`calls`].

mod calls;
mod places;

use super::{Agent, keep};
use places::{Place, Places};
use serde_json::value::RawValue;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use xos_base::local::{Envelope, FRAME_MAX, Reply};
use xos_base::{Error, Kind};

/// How long a caller may take to send its frame, and to take the answer.
const FRAME_TIMEOUT: Duration = Duration::from_secs(5);
/// How many callers without a place are told so at a time; others are only hung up on.
const REFUSED_MAX: usize = 64;
/// How long one of them may take to hear it.
const REFUSED_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause after the kernel gave no connection: it is out of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(200);

/// Who asks, by the kernel's word.
#[derive(Clone, Copy, Debug)]
struct Asker {
    /// Root asks, or who runs this program.
    root: bool,
    /// The process that connected; `None`: it is none of this program's pid namespace.
    pid: Option<u32>,
}

/// Answers calls.
trait Answers: Send + Sync + 'static {
    /// The answer to one call.
    ///
    /// # Errors
    /// Why there is none.
    fn answer(
        self: Arc<Self>,
        asker: Asker,
        call: Envelope<Box<RawValue>>,
    ) -> impl Future<Output = Result<Box<RawValue>, Error>> + Send;

    /// Whether a call of this name waits for a person. It is over when its caller hangs up, and
    /// nothing else may depend on its end.
    fn waits(call: &str) -> bool;
}

impl Agent {
    /// Serves the local socket until `stop`, where members may sign in.
    pub(super) async fn keep_local(self: Arc<Agent>, stop: CancellationToken) {
        if self.logins.is_none() {
            return;
        }
        let socket = self.socket.clone();
        match listen(&socket) {
            Ok(listener) => serve(self, listener, stop).await,
            Err(error) => tracing::error!(%error, "no local socket: nobody can sign in"),
        }
    }
}

/// Listens at `socket`, in a folder that is root's alone; what an earlier run left there goes.
fn listen(socket: &Path) -> Result<UnixListener, Error> {
    let fail =
        |e: std::io::Error| Error::internal(format!("cannot listen at {}: {e}", socket.display()));
    let folder = socket.parent().unwrap_or(Path::new("/"));
    keep::own_folder(folder, 0o755)?;
    let mut new = socket.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    match std::fs::remove_file(&new) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(fail(e)),
        _ => {}
    }
    let listener = UnixListener::bind(&new).map_err(fail)?;
    // Any process may ask for a name.
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o666)).map_err(fail)?;
    std::fs::rename(&new, socket).map_err(fail)?;
    Ok(listener)
}

async fn serve<A: Answers>(answers: Arc<A>, listener: UnixListener, stop: CancellationToken) {
    let own = rustix::process::geteuid().as_raw();
    let (places, refused) = (Places::default(), Arc::new(Semaphore::new(REFUSED_MAX)));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted.and_then(|(s, _)| {
            let peer = s.peer_cred()?;
            Ok((s, peer))
        }) {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%error, "local socket");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let uid = peer.uid();
        let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
        let asker = Asker { root: uid == 0 || uid == own, pid };
        let Some(place) = places.take(uid, asker.root) else {
            if let Ok(heard) = refused.clone().try_acquire_owned() {
                tokio::spawn(async move {
                    if let Err(error) = refuse(stream).await {
                        tracing::debug!(uid, %error, "a caller without a place is gone");
                    }
                    drop(heard);
                });
            }
            continue;
        };
        let (answers, stop) = (answers.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = place.gone() => tracing::debug!(uid, "who said nothing made way for another"),
                served = serve_one(answers, stream, asker, &place) => if let Err(error) = served {
                    tracing::debug!(uid, %error, "a call at the local socket came to nothing");
                }
            }
        });
    }
}

fn busy() -> Error {
    Error::limited("xosd has too many calls on this machine").hint("try again in a moment")
}

/// Says that there is no place, and waits a moment for the caller to hear it.
async fn refuse(mut stream: UnixStream) -> std::io::Result<()> {
    let frame = encoded(Err(busy())).map_err(std::io::Error::other)?;
    let told = async {
        stream.write_all(&frame).await?;
        // What the caller sends meanwhile; it hangs up once it has the answer.
        let mut sent = (&mut stream).take(FRAME_MAX as u64);
        tokio::io::copy(&mut sent, &mut tokio::io::sink()).await.map(drop)
    };
    tokio::time::timeout(REFUSED_TIMEOUT, told).await.unwrap_or(Ok(()))
}

async fn serve_one<A: Answers>(
    answers: Arc<A>,
    mut stream: UnixStream,
    asker: Asker,
    place: &Place,
) -> Result<(), Error> {
    let late = |_| Error::unavailable("the caller took too long");
    let broke = |e: std::io::Error| Error::unavailable(format!("the caller is gone: {e}"));
    let asked = tokio::time::timeout(FRAME_TIMEOUT, read(&mut stream)).await.map_err(late)?;
    let reply = match asked {
        Ok(call) => {
            let waits = asker.root && A::waits(&call.call);
            if !place.asked(waits) {
                Err(busy())
            } else if waits {
                tokio::select! {
                    biased;
                    reply = answers.answer(asker, call) => reply,
                    () = hung_up(&mut stream) => {
                        return Err(Error::unavailable("the caller hung up"));
                    }
                }
            } else {
                answers.answer(asker, call).await
            }
        }
        Err(e) if e.kind == Kind::Unavailable => return Err(e),
        Err(e) => Err(e),
    };
    // A longer answer than a frame holds is an error, which is short.
    let frame = encoded(reply).or_else(|e| encoded(Err(e)))?;
    let written = tokio::time::timeout(FRAME_TIMEOUT, stream.write_all(&frame));
    written.await.map_err(late)?.map_err(broke)
}

/// Returns when the caller has ended its side. It sends nothing after its call.
async fn hung_up(stream: &mut UnixStream) {
    match stream.read(&mut [0]).await {
        Ok(0) => {}
        other => tracing::debug!(?other, "a caller went on after its call"),
    }
}

/// Reads one call.
async fn read(stream: &mut UnixStream) -> Result<Envelope<Box<RawValue>>, Error> {
    let broke = |e: std::io::Error| Error::unavailable(format!("the caller is gone: {e}"));
    let length = stream.read_u32_le().await.map_err(broke)? as usize;
    if length > FRAME_MAX {
        return Err(Error::too_large(format!("a call of {length} bytes is over {FRAME_MAX}")));
    }
    // Grows with what arrives, not with what the length claims.
    let mut body = Vec::new();
    let got = stream.take(length as u64).read_to_end(&mut body).await.map_err(broke)?;
    if got < length {
        return Err(Error::unavailable("the call ended in its middle"));
    }
    serde_json::from_slice(&body).map_err(|e| Error::invalid(format!("a call is malformed: {e}")))
}

fn encoded(reply: Result<Box<RawValue>, Error>) -> Result<Vec<u8>, Error> {
    let reply = match reply {
        Ok(answer) => Reply::Ok(answer),
        Err(e) => Reply::Error(e),
    };
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, &reply)
        .map_err(|e| Error::internal(format!("cannot encode an answer: {e}")))?;
    let length = frame.len() - 4;
    if length > FRAME_MAX {
        return Err(Error::too_large(format!("an answer of {length} bytes is over {FRAME_MAX}")));
    }
    let length = u32::try_from(length).map_err(|_| Error::too_large("an answer is too long"))?;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    Ok(frame)
}

#[cfg(test)]
mod tests;
