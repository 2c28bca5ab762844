//! The caller's end: blocking, with one deadline over all of a call, and no thread.

use super::{Envelope, FRAME_MAX, LocalCall, Reply, SOCKET, sys};
use crate::Error;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, socket_with,
};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Room for a call that may hold a password, in bytes: made at once, so that no copy is left where
/// a text had grown out of its room. PAM takes 512 bytes from a person, six for each in JSON.
const CALL_ROOM: usize = 8 * 1024;
/// How long to wait before it is tried again to get into a queue that is full.
const FULL_PAUSE: Duration = Duration::from_millis(2);

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// Nobody listens: `xosd` does not run here.
    #[error("the node's xosd does not run on this machine")]
    Absent,
    /// The socket belongs to somebody else than root.
    #[error("the socket {SOCKET} is not root's")]
    NotRoots,
    /// No answer came in time.
    #[error("the node's xosd does not answer in time")]
    Late,
    /// So many wait to be heard that the kernel took no more, all the time. Any local program can
    /// bring that about, so it says nothing about whether `xosd` runs.
    #[error("too many programs of this machine ask the node's xosd")]
    Full,
    /// What came is no answer.
    #[error("the node's xosd answers nonsense")]
    Nonsense,
    /// The kernel refused.
    #[error("the node's socket: {0}")]
    Io(#[from] std::io::Error),
    /// The answer is no.
    #[error("{0}")]
    Refused(Error),
}

impl From<Errno> for LocalError {
    fn from(e: Errno) -> LocalError {
        match e {
            Errno::NOENT | Errno::CONNREFUSED => LocalError::Absent,
            e => LocalError::Io(e.into()),
        }
    }
}

/// Asks the node's `xosd`, for at most `limit`.
///
/// # Errors
/// [`LocalError`].
pub fn call<C: LocalCall>(with: &C, limit: Duration) -> Result<C::Answer, LocalError> {
    call_at(Path::new(SOCKET), with, limit)
}

/// As [`call`], at another socket.
///
/// # Errors
/// [`LocalError`].
pub fn call_at<C: LocalCall>(
    path: &Path,
    with: &C,
    limit: Duration,
) -> Result<C::Answer, LocalError> {
    exchange(path, with, limit, None)
}

/// As [`call_at`], unless this very process listens there: `xosd` must never wait for itself. The
/// kernel says who listens, so that nothing depends on what a process was told.
///
/// # Errors
/// [`LocalError`]; [`LocalError::Absent`] also when nobody else listens.
pub fn call_other_at<C: LocalCall>(
    path: &Path,
    with: &C,
    limit: Duration,
) -> Result<C::Answer, LocalError> {
    exchange(path, with, limit, Some(std::process::id()))
}

fn exchange<C: LocalCall>(
    path: &Path,
    with: &C,
    limit: Duration,
    but_not: Option<u32>,
) -> Result<C::Answer, LocalError> {
    let end = Instant::now().checked_add(limit).ok_or(LocalError::Late)?;
    let fd = connected(path, || pause(end))?;
    let own = rustix::process::geteuid().as_raw();
    let peer = sys::peer(&fd)?;
    if peer.uid != 0 && peer.uid != own {
        return Err(LocalError::NotRoots);
    }
    if but_not.is_some() && but_not == u32::try_from(peer.pid).ok() {
        return Err(LocalError::Absent);
    }
    write_all(&fd, &framed(with)?, end)?;
    let mut head = [0; 4];
    read_exact(&fd, &mut head, end)?;
    let length = u32::from_le_bytes(head) as usize;
    if length > FRAME_MAX {
        return Err(LocalError::Nonsense);
    }
    let mut body = vec![0; length];
    read_exact(&fd, &mut body, end)?;
    match serde_json::from_slice(&body).map_err(|_| LocalError::Nonsense)? {
        Reply::Ok(answer) => Ok(answer),
        Reply::Error(e) => Err(LocalError::Refused(e)),
    }
}

/// A connection; `full` is called each time its queue is full, and says whether to try again.
fn connected(
    path: &Path,
    mut full: impl FnMut() -> Result<(), LocalError>,
) -> Result<OwnedFd, LocalError> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let address = SocketAddrUnix::new(path)?;
    loop {
        match connect(&fd, &address) {
            Ok(()) => return Ok(fd),
            Err(Errno::AGAIN) => full()?,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Waits a little for room in a queue: the kernel tells nobody that there is some.
fn pause(end: Instant) -> Result<(), LocalError> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(LocalError::Full);
    }
    std::thread::sleep(left.min(FULL_PAUSE));
    Ok(())
}

/// The frame of a call; wiped once it is sent.
fn framed<C: LocalCall>(with: &C) -> Result<Zeroizing<Vec<u8>>, LocalError> {
    let mut frame = Zeroizing::new(Vec::<u8>::with_capacity(CALL_ROOM));
    frame.extend_from_slice(&[0; 4]);
    let call = Envelope { call: C::NAME.to_owned(), with };
    serde_json::to_writer(&mut *frame, &call).map_err(|_| LocalError::Nonsense)?;
    let length = u32::try_from(frame.len() - 4).map_err(|_| LocalError::Nonsense)?;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    Ok(frame)
}

fn wait(fd: &OwnedFd, what: PollFlags, end: Instant) -> Result<(), LocalError> {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(LocalError::Late);
        }
        let limit = Timespec::try_from(left).map_err(|_| LocalError::Late)?;
        match poll(&mut [PollFd::from_borrowed_fd(fd.as_fd(), what)], Some(&limit)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(e) => return Err(LocalError::Io(e.into())),
        }
    }
}

fn write_all(fd: &OwnedFd, mut bytes: &[u8], end: Instant) -> Result<(), LocalError> {
    while !bytes.is_empty() {
        match send(fd, bytes, SendFlags::NOSIGNAL) {
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(Errno::AGAIN) => wait(fd, PollFlags::OUT, end)?,
            Err(Errno::INTR) => {}
            Err(e) => return Err(LocalError::Io(e.into())),
        }
    }
    Ok(())
}

fn read_exact(fd: &OwnedFd, bytes: &mut [u8], end: Instant) -> Result<(), LocalError> {
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|r| !r.is_empty()) {
        match recv(fd, rest, RecvFlags::empty()) {
            Ok((0, _)) => return Err(LocalError::Nonsense),
            Ok((n, _)) => done += n,
            Err(Errno::AGAIN) => wait(fd, PollFlags::IN, end)?,
            Err(Errno::INTR) => {}
            Err(e) => return Err(LocalError::Io(e.into())),
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
