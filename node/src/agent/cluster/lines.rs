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
/// Most lines of a stream.
const LINES_MAX: usize = 2048;
/// Most frames that wait to be written, and most bytes that are gathered for one write.
const OUT_MAX: usize = 256;
const GATHER_MAX: usize = 256 * 1024;
/// How often an end says that it is alive, and after what silence the other one is not.
const ALIVE_EVERY: Duration = Duration::from_secs(5);
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// A stream without a line for so long, or twice that, is closed by who opened it.
const IDLE: Duration = Duration::from_secs(60);

const OPEN: u8 = 0;
const DATA: u8 = 1;
const END: u8 = 2;
const ALIVE: u8 = 3;

/// What came for one end of a line.
pub(super) struct Piece {
    bytes: Vec<u8>,
    /// Of the line's room and the stream's.
    _held: [OwnedSemaphorePermit; 2],
}

/// One end of a line, from where it is filled.
struct Line {
    to: UnboundedSender<Piece>,
    room: Arc<Semaphore>,
}

#[derive(Default)]
struct Open {
    lines: HashMap<u32, Line>,
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
        (Arc::new(Lines { open, out, room: Arc::new(Semaphore::new(ALL_BYTES_MAX)), cut }), queue)
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a line: its number, and what comes on it. `None`: the stream is over, or full.
    /// `opening` is what the other side is told first.
    pub(super) async fn begin(&self, opening: &[u8]) -> Option<(u32, UnboundedReceiver<Piece>)> {
        let (number, from) = {
            let mut open = self.lock();
            let number = open.last.checked_add(1)?;
            let from = open.admit(number)?;
            open.last = number;
            (number, from)
        };
        self.out.send(frame(OPEN, number, opening)).await.ok()?;
        Some((number, from))
    }

    /// Takes up a line that the other side opens, and what comes on it. `None`: there is one of
    /// this number, or there are too many.
    pub(super) fn admit(&self, number: u32) -> Option<UnboundedReceiver<Piece>> {
        self.lock().admit(number)
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
            // Who reads waits for no writer: the other one may wait for this reader.
            if self.out.try_send(frame(END, number, &[])).is_err() {
                self.cut.cancel();
            }
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
    fn admit(&mut self, number: u32) -> Option<UnboundedReceiver<Piece>> {
        if self.over || self.lines.len() >= LINES_MAX || self.lines.contains_key(&number) {
            return None;
        }
        let (to, from) = mpsc::unbounded_channel();
        self.lines.insert(number, Line { to, room: Arc::new(Semaphore::new(LINE_BYTES_MAX)) });
        self.used = true;
        Some(from)
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
    let own = opens.is_none();
    let ended = tokio::select! {
        ended = read_all(reader, lines, opens) => ended,
        ended = write_all(writer, queue) => ended,
        () = lines.idle(), if own => Ok(()),
        () = lines.cut.cancelled() => Err(Error::unavailable("a line took nothing")),
    };
    lines.over();
    ended
}

async fn write_all(mut writer: impl AsyncWrite + Unpin, mut queue: Queue) -> Result<(), Error> {
    loop {
        let mut bytes = match timeout(ALIVE_EVERY, queue.recv()).await {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(()),
            Err(_) => frame(ALIVE, 0, &[]),
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
        let written = timeout(SILENCE_MAX, written).await;
        let written = written.map_err(|_| Error::unavailable("the other node reads nothing"))?;
        written.map_err(|e| broke(&e))?;
    }
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
    mut from: UnboundedReceiver<Piece>,
) -> Result<(), Error> {
    let socket = socket
        .set_nonblocking(true)
        .and_then(|()| tokio::net::UnixStream::from_std(socket))
        .map_err(|e| broke(&e));
    let (mut reads, mut writes) = match socket {
        Ok(socket) => socket.into_split(),
        Err(error) => {
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
    lines.close(number).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use tokio::task::JoinHandle;

    type Opened = UnboundedReceiver<(u32, Vec<u8>, UnboundedReceiver<Piece>)>;
    type Served = JoinHandle<Result<(), Error>>;
    type Opens = fn(u32, Vec<u8>) -> Result<(), Error>;

    /// Two ends of a stream, and the lines that the first one opens at the second.
    fn pair() -> (Arc<Lines>, Arc<Lines>, Opened, [Served; 2]) {
        let (one, other) = tokio::io::duplex(4096);
        let (near, near_queue) = Lines::new();
        let (far, far_queue) = Lines::new();
        let (tell, opened) = mpsc::unbounded_channel();
        let (own, theirs) = (near.clone(), far.clone());
        let first = tokio::spawn(async move { run(one, &own, near_queue, None::<Opens>).await });
        let second = tokio::spawn(async move {
            let all = theirs.clone();
            let opens = move |number: u32, bytes: Vec<u8>| -> Result<(), Error> {
                let from = all.admit(number).ok_or_else(|| Error::limited("too many lines"))?;
                tell.send((number, bytes, from)).map_err(|_| Error::internal("nobody hears"))
            };
            run(other, &theirs, far_queue, Some(opens)).await
        });
        (near, far, opened, [first, second])
    }

    /// Has an end of a line carried; the other end of its socket.
    fn socket(lines: &Arc<Lines>, number: u32, from: UnboundedReceiver<Piece>) -> UnixStream {
        let (one, other) = UnixStream::pair().unwrap();
        let lines = lines.clone();
        tokio::spawn(async move { carry(&lines, number, one, from).await });
        other
    }

    async fn read(mut socket: UnixStream) -> Vec<u8> {
        let read = move || {
            let mut got = Vec::new();
            socket.read_to_end(&mut got).unwrap();
            got
        };
        tokio::task::spawn_blocking(read).await.unwrap()
    }

    /// If it failed, a program's output would go to another one's person, or lose its end.
    #[tokio::test(flavor = "multi_thread")]
    async fn each_line_has_its_own_bytes_to_their_end() {
        let (near, far, mut opened, _served) = pair();
        let mut ends = Vec::new();
        for text in ["one", "two", "three"] {
            let (number, from) = near.begin(text.as_bytes()).await.unwrap();
            let (theirs, opening, comes) = opened.recv().await.unwrap();
            assert_eq!((theirs, opening.as_slice()), (number, text.as_bytes()));
            ends.push((text, socket(&near, number, from), socket(&far, theirs, comes)));
        }
        for (text, mine, theirs) in ends {
            let long = text.repeat(100_000).into_bytes();
            let writes = long.clone();
            let mut to = mine.try_clone().unwrap();
            let writing = tokio::task::spawn_blocking(move || {
                to.write_all(&writes).unwrap();
                to.shutdown(std::net::Shutdown::Both).unwrap();
            });
            assert_eq!(read(theirs).await, long);
            writing.await.unwrap();
            assert!(read(mine).await.is_empty());
        }
        assert!(near.lock().lines.is_empty());
    }

    /// If it failed, one spool on a disk that hangs would hold up the output of all programs of
    /// another node, or fill this one's memory.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_line_that_takes_nothing_ends_alone() {
        let (near, far, mut opened, _served) = pair();
        let (stuck, mut gone) = near.begin(b"stuck").await.unwrap();
        let held = opened.recv().await.unwrap();
        let (other, from) = near.begin(b"other").await.unwrap();
        let (theirs, _, comes) = opened.recv().await.unwrap();
        let many = LINE_BYTES_MAX / FRAME_MAX + 1;
        for _ in 0..many {
            near.out.send(frame(DATA, stuck, &[7; FRAME_MAX])).await.unwrap();
        }
        assert!(gone.recv().await.is_none(), "it was not ended");
        let (mut mine, theirs) = (socket(&near, other, from), socket(&far, theirs, comes));
        mine.write_all(b"on").unwrap();
        mine.shutdown(std::net::Shutdown::Both).unwrap();
        assert_eq!(read(theirs).await, b"on");
        drop(held);
    }

    /// If it failed, a node could fill another one's memory, or confuse its lines.
    #[tokio::test]
    async fn what_is_no_frame_ends_the_stream_and_its_lines() {
        let long = [&[DATA][..], &[0; 4], &[0xff; 4]].concat();
        let odd = frame(9, 1, &[]);
        let twice = [frame(OPEN, 1, b"a"), frame(OPEN, 1, b"b")].concat();
        for bad in [long, odd, twice] {
            let (near, far, mut opened, [first, second]) = pair();
            let (_number, mut from) = near.begin(b"a").await.unwrap();
            let _line = opened.recv().await.unwrap();
            near.out.send(bad).await.unwrap();
            assert!(second.await.unwrap().is_err());
            // The other side sees that the stream is over.
            let _broke = first.await.unwrap();
            assert!(from.recv().await.is_none() && near.is_over() && far.is_over());
        }
    }

    /// If it failed, each node would have a stream open to each other one for ever.
    #[tokio::test(start_paused = true)]
    async fn a_stream_that_nobody_needs_is_closed() {
        let (near, _far, mut opened, [first, second]) = pair();
        let (number, _from) = near.begin(b"a").await.unwrap();
        let _line = opened.recv().await.unwrap();
        tokio::time::sleep(IDLE * 3).await;
        assert!(!near.is_over(), "a line is open");
        near.close(number).await;
        first.await.unwrap().unwrap();
        assert!(near.is_over() && near.begin(b"b").await.is_none());
        second.await.unwrap().unwrap();
    }
}
