//! Many lines in one stream between two nodes: opening a stream takes longer than most programs run
//! that a shell places, and a line is one frame.
//!
//! A frame is a byte of kind, four of the line's number and four of length, big endian, then so
//! many bytes. Who opened the stream opens lines; either side ends one. What ends before it was read
//! to its end, its two ends see as a connection that broke: they go on over another one.
//!
//! No line waits for another one: who reads the stream never waits for one line, and one that takes
//! too little of what comes is ended.

use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use xos_base::Error;
use xos_net::control::{SILENCE_MAX, write_frames};

/// Bytes of a frame before its own.
const HEAD_BYTES: usize = 9;
/// Most bytes in a frame.
const FRAME_MAX: usize = 32 * 1024;
/// What a frame that waits counts beside its bytes.
const FRAME_COST: usize = 64;
/// Most bytes that wait for one end of a line, which has no more on the way than its windows, and
/// for all of a stream.
const LINE_BYTES_MAX: usize = 2 * 1024 * 1024;
const ALL_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most lines of a stream, those that ended and are still worked at counted.
const LINES_MAX: usize = 2048;
/// Most frames that wait to be written.
const OUT_MAX: usize = 256;
/// A stream without a line for so long, or twice that, is closed by who opened it.
const IDLE: Duration = Duration::from_secs(60);

const OPEN: u8 = 0;
const DATA: u8 = 1;
const END: u8 = 2;
const ALIVE: u8 = 3;

/// What came for one end of a line.
struct Piece {
    bytes: Vec<u8>,
    /// Of the line's room and the stream's.
    _held: [OwnedSemaphorePermit; 2],
}

/// What comes on a line. The line counts among its stream's as long as somebody holds this, ended
/// or not.
pub(super) struct Comes {
    from: UnboundedReceiver<Piece>,
    _place: OwnedSemaphorePermit,
}

impl Comes {
    /// The next of it; `None`: the line is over.
    async fn recv(&mut self) -> Option<Piece> {
        self.from.recv().await
    }
}

/// One end of a line, from where it is filled.
struct Line {
    to: UnboundedSender<Piece>,
    room: Arc<Semaphore>,
}

#[derive(Default)]
struct Open {
    lines: HashMap<u32, Line>,
    /// The number of the last one: they only rise.
    last: u32,
    /// Since it was looked last.
    used: bool,
    over: bool,
}

/// The lines of a stream.
pub(super) struct Lines {
    open: Mutex<Open>,
    out: mpsc::Sender<Vec<u8>>,
    room: Arc<Semaphore>,
    places: Arc<Semaphore>,
    /// It is to end, and all its lines.
    cut: CancellationToken,
}

/// What is to be written on a stream.
pub(super) type Queue = mpsc::Receiver<Vec<u8>>;

fn frame(kind: u8, line: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_BYTES + bytes.len());
    out.push(kind);
    out.extend_from_slice(&line.to_be_bytes());
    // No frame of this program's is longer than [`FRAME_MAX`].
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
    out
}

fn broke(e: &std::io::Error) -> Error {
    Error::unavailable(format!("the stream broke: {e}"))
}

impl Lines {
    /// Those of a new stream, and what is to be written on it ([`run`]).
    pub(super) fn new() -> (Arc<Lines>, Queue) {
        let (out, queue) = mpsc::channel(OUT_MAX);
        let (open, cut) = Default::default();
        let room = Arc::new(Semaphore::new(ALL_BYTES_MAX));
        let places = Arc::new(Semaphore::new(LINES_MAX));
        (Arc::new(Lines { open, out, room, places, cut }), queue)
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a line: its number, and what comes on it. `None`: the stream is over, or full.
    /// `opening` is what the other side is told first.
    pub(super) async fn begin(&self, opening: &[u8]) -> Option<(u32, Comes)> {
        // Numbers are sent in the order in which they are given.
        let slot = self.out.reserve().await.ok()?;
        let mut open = self.lock();
        let number = open.last.checked_add(1).filter(|_| !open.over)?;
        let place = self.places.clone().try_acquire_owned().ok()?;
        let comes = open.add(number, place);
        slot.send(frame(OPEN, number, opening));
        Some((number, comes))
    }

    /// Takes up a line that the other side opens, and what comes on it. `None`: there are too many,
    /// and this one is ended.
    ///
    /// # Errors
    /// [`xos_base::Kind::Invalid`]: the number was given before.
    pub(super) fn admit(&self, number: u32) -> Result<Option<Comes>, Error> {
        let mut open = self.lock();
        if number <= open.last {
            return Err(Error::invalid(format!("line {number} is not a new one")));
        }
        open.last = number;
        if open.over {
            return Ok(None);
        }
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return Ok(Some(open.add(number, place)));
        }
        self.end_now(number);
        Ok(None)
    }

    /// Says that a line is over, without waiting: the other side may wait for this one to read.
    fn end_now(&self, number: u32) {
        if self.out.try_send(frame(END, number, &[])).is_err() {
            self.cut.cancel();
        }
    }

    /// This end of a line is over.
    pub(super) async fn close(&self, number: u32) {
        let mine = self.lock().lines.remove(&number).is_some();
        if mine {
            // A stream that is over has no lines.
            let _over = self.out.send(frame(END, number, &[])).await;
        }
    }

    /// Has what came given to the end of a line.
    async fn take(&self, number: u32, bytes: Vec<u8>) {
        let cost = u32::try_from(bytes.len() + FRAME_COST).unwrap_or(u32::MAX);
        let Ok(all) = self.room.clone().acquire_many_owned(cost).await else { return };
        let mut open = self.lock();
        let Some(line) = open.lines.get(&number) else { return };
        let own = line.room.clone().try_acquire_many_owned(cost).ok();
        let given = own.and_then(|own| line.to.send(Piece { bytes, _held: [all, own] }).ok());
        if given.is_none() {
            open.lines.remove(&number);
            self.end_now(number);
        }
    }

    /// The other end of a line is over.
    fn end(&self, number: u32) {
        self.lock().lines.remove(&number);
    }

    /// Returns when no line was needed for a while; then none is opened any more.
    async fn idle(&self) {
        loop {
            tokio::time::sleep(IDLE).await;
            let mut open = self.lock();
            if open.lines.is_empty() && !std::mem::take(&mut open.used) {
                open.over = true;
                return;
            }
        }
    }

    fn over(&self) {
        let mut open = self.lock();
        open.over = true;
        open.lines.clear();
    }

    /// Whether lines can be opened.
    pub(super) fn is_over(&self) -> bool {
        self.lock().over
    }
}

impl Open {
    fn add(&mut self, number: u32, place: OwnedSemaphorePermit) -> Comes {
        let (to, from) = mpsc::unbounded_channel();
        self.lines.insert(number, Line { to, room: Arc::new(Semaphore::new(LINE_BYTES_MAX)) });
        (self.last, self.used) = (number, true);
        Comes { from, _place: place }
    }
}

/// Carries frames until the stream, or the need for it, ends. `opens` is asked for each line that
/// the other side opens; `None`: it opens none, and the stream is this side's to end.
///
/// # Errors
/// That the stream broke, or the other side does not keep to the protocol.
pub(super) async fn run<S, F>(
    stream: S,
    lines: &Lines,
    queue: Queue,
    opens: Option<F>,
) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Send,
    F: Fn(u32, Vec<u8>) -> Result<(), Error> + Send,
{
    let (reader, writer) = tokio::io::split(stream);
    let (own, alive) = (opens.is_none(), frame(ALIVE, 0, &[]));
    let ended = tokio::select! {
        ended = read_all(reader, lines, opens) => ended,
        ended = write_frames(writer, queue, &alive) => ended.map_err(|e| broke(&e)),
        () = lines.idle(), if own => Ok(()),
        () = lines.cut.cancelled() => Err(Error::unavailable("a line took nothing")),
    };
    lines.over();
    ended
}

async fn read_all<F>(
    reader: impl AsyncRead + Unpin,
    lines: &Lines,
    opens: Option<F>,
) -> Result<(), Error>
where
    F: Fn(u32, Vec<u8>) -> Result<(), Error>,
{
    let mut reader = BufReader::with_capacity(64 * 1024, reader);
    let silent = |_| Error::unavailable("the other node is silent");
    loop {
        let mut head = [0; HEAD_BYTES];
        match timeout(SILENCE_MAX, reader.read_exact(&mut head)).await.map_err(silent)? {
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(e) => return Err(broke(&e)),
        }
        let [kind, a, b, c, d, rest @ ..] = head;
        let (line, length) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes(rest));
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > FRAME_MAX {
            return Err(Error::invalid(format!("a frame of {length} bytes is over {FRAME_MAX}")));
        }
        let mut bytes = vec![0; length];
        let read = timeout(SILENCE_MAX, reader.read_exact(&mut bytes)).await.map_err(silent)?;
        read.map_err(|e| broke(&e))?;
        match (kind, &opens) {
            (OPEN, Some(opens)) => opens(line, bytes)?,
            (DATA, _) => lines.take(line, bytes).await,
            (END, _) => lines.end(line),
            (ALIVE, _) => {}
            _ => return Err(Error::invalid(format!("a frame of kind {kind} is none"))),
        }
    }
}

/// Carries one line between its socket and the stream until either ends.
///
/// # Errors
/// That the socket cannot be used.
pub(super) async fn carry(
    lines: &Lines,
    number: u32,
    socket: UnixStream,
    mut from: Comes,
) -> Result<(), Error> {
    let socket = socket
        .set_nonblocking(true)
        .and_then(|()| tokio::net::UnixStream::from_std(socket))
        .map_err(|e| broke(&e));
    let (mut reads, mut writes) = match socket {
        Ok(socket) => socket.into_split(),
        Err(error) => {
            drop(from);
            lines.close(number).await;
            return Err(error);
        }
    };
    let away = async {
        let mut bytes = vec![0; FRAME_MAX];
        while let Ok(n @ 1..) = reads.read(&mut bytes).await {
            if lines.out.send(frame(DATA, number, &bytes[..n])).await.is_err() {
                return;
            }
        }
    };
    let here = async {
        while let Some(piece) = from.recv().await {
            if writes.write_all(&piece.bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = away => {}
        () = here => {}
    }
    // The place is free before the other side hears so.
    drop(from);
    lines.close(number).await;
    Ok(())
}

#[cfg(test)]
mod tests;
