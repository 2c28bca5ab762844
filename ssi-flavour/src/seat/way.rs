//! One connection between `xosd` and an agent, used from several threads.
//!
//! Nobody who sends waits for the other side: frames queue up to a limit, and a thread of the
//! connection writes them.

use crate::cell::frame::{FDS_MAX, Peer};
use crate::frame;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Most frames, and most bytes of them, that wait to be written.
const QUEUED_MAX: usize = 4096;
const QUEUED_BYTES_MAX: usize = 32 * 1024 * 1024;
/// For how long the other side may read nothing of what it is sent, until it is given up.
const WRITE_MAX: Duration = Duration::from_secs(20);
/// The pause after a connection could not be taken: descriptors or memory may be there again then.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// The sending side.
pub(super) struct Out(Arc<Sending>);

/// The receiving side.
pub(super) struct In(Peer);

/// Both sides of a connection.
///
/// # Errors
/// Those of the socket, and of starting a thread.
pub(super) fn split(socket: UnixStream) -> io::Result<(Out, In)> {
    socket.set_write_timeout(Some(WRITE_MAX))?;
    let receiving = socket.try_clone()?;
    let (queue, grew) = Default::default();
    let sending = Arc::new(Sending { queue, grew, socket });
    let writing = sending.clone();
    std::thread::Builder::new().name("way".to_owned()).spawn(move || writing.write())?;
    Ok((Out(sending), In(Peer::new(receiving))))
}

/// The next connection. What keeps one from being taken is told of, and passes.
pub(super) fn accept(listener: &UnixListener) -> UnixStream {
    loop {
        match listener.accept() {
            Ok((socket, _)) => return socket,
            Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {
            }
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be taken now: tried again");
                std::thread::sleep(ACCEPT_AGAIN);
            }
        }
    }
}

/// What waits to be written.
#[derive(Default)]
struct Queue {
    frames: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    bytes: usize,
    /// Nothing is added any more.
    closed: bool,
}

struct Sending {
    queue: Mutex<Queue>,
    grew: Condvar,
    socket: UnixStream,
}

impl Sending {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The work of the connection's thread.
    fn write(&self) {
        while let Some((bytes, fds)) = self.next() {
            if let Err(error) = write(&self.socket, &bytes, &fds) {
                tracing::debug!(%error, "a connection to an agent, or to xosd, is over");
                break;
            }
        }
        self.close();
    }

    /// Waits for it. `None`: there is no more.
    fn next(&self) -> Option<(Vec<u8>, Vec<OwnedFd>)> {
        let mut queue = self.queue();
        loop {
            if let Some(frame) = queue.frames.pop_front() {
                queue.bytes -= frame.0.len();
                return Some(frame);
            }
            if queue.closed {
                return None;
            }
            queue = self.grew.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn close(&self) {
        {
            let mut queue = self.queue();
            queue.closed = true;
            queue.frames.clear();
            queue.bytes = 0;
        }
        self.grew.notify_all();
        // It may have ended already.
        let _gone = self.socket.shutdown(Shutdown::Both);
    }
}

fn write(socket: &UnixStream, bytes: &[u8], fds: &[OwnedFd]) -> io::Result<()> {
    let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !borrowed.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err(io::Error::new(ErrorKind::InvalidInput, "too many descriptors for a frame"));
    }
    let mut rest = bytes;
    while !rest.is_empty() {
        let part = [IoSlice::new(rest)];
        let sent = rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(socket, &part, &mut control, SendFlags::NOSIGNAL)
        });
        let sent = match sent {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(sent) => sent,
            Err(rustix::io::Errno::AGAIN) => {
                let why = "the other side reads nothing";
                return Err(io::Error::new(ErrorKind::TimedOut, why));
            }
            Err(e) => return Err(e.into()),
        };
        // The descriptors went with the first part.
        control.clear();
        rest = rest.get(sent..).unwrap_or_default();
    }
    Ok(())
}

impl Out {
    /// Has a frame sent, without waiting.
    ///
    /// # Errors
    /// `InvalidData` when it is over the limit of a frame, `WouldBlock` when too much waits: then
    /// the connection goes on without it. `NotConnected` when that is over.
    pub(super) fn send<T: Serialize>(&self, value: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut bytes = Vec::new();
        frame::push(value, &mut bytes)?;
        let fds = fds.iter().map(BorrowedFd::try_clone_to_owned).collect::<io::Result<Vec<_>>>()?;
        {
            let mut queue = self.0.queue();
            if queue.closed {
                return Err(io::Error::new(ErrorKind::NotConnected, "the connection is over"));
            }
            let full = queue.bytes + bytes.len() > QUEUED_BYTES_MAX;
            if queue.frames.len() >= QUEUED_MAX || full {
                let why = "the other side does not read what it was sent";
                return Err(io::Error::new(ErrorKind::WouldBlock, why));
            }
            queue.bytes += bytes.len();
            queue.frames.push_back((bytes, fds));
        }
        self.0.grew.notify_one();
        Ok(())
    }

    /// Ends the connection for both sides once all is written.
    pub(super) fn finish(&self) {
        self.0.queue().closed = true;
        self.0.grew.notify_one();
    }

    /// Ends the connection for both sides at once.
    pub(super) fn close(&self) {
        self.0.close();
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        self.finish();
    }
}

impl In {
    /// The next frame and its descriptors; `None` at the end. Waits, if there is an `until` no
    /// longer than that.
    ///
    /// # Errors
    /// Those of the socket, `TimedOut`, and frames of another form.
    pub(super) fn next<T: DeserializeOwned>(
        &mut self,
        fds: impl Fn(&T) -> usize,
        until: Option<Instant>,
    ) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        loop {
            if let Some(value) = self.0.take::<T>()? {
                let fds = self.0.take_fds(fds(&value))?;
                return Ok(Some((value, fds)));
            }
            if let Some(until) = until {
                readable(&self.0, until)?;
            }
            if !self.0.fill()? {
                return Ok(None);
            }
        }
    }
}

/// Waits until something can be read, or that is the end.
fn readable(fd: &impl AsFd, until: Instant) -> io::Result<()> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap_or_default();
        match rustix::event::poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Err(io::Error::new(ErrorKind::TimedOut, "the other side is silent")),
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn no_fds<T>(_: &T) -> usize {
        0
    }

    fn pair() -> (Out, UnixStream) {
        let (one, other) = UnixStream::pair().unwrap();
        (split(one).unwrap().0, other)
    }

    #[test]
    fn a_value_that_is_too_large_ends_nothing() {
        // wrong: programs with long arguments would cut the agent off with every heartbeat
        let (out, other) = pair();
        let (_back, mut from) = split(other).unwrap();
        let large = "x".repeat(frame::FRAME_BYTES_MAX);
        assert_eq!(out.send(&large, &[]).unwrap_err().kind(), ErrorKind::InvalidData);
        out.send(&"after", &[]).unwrap();
        let (text, _) = from.next::<String>(no_fds, None).unwrap().unwrap();
        assert_eq!(text, "after");
    }

    #[test]
    fn who_sends_does_not_wait_for_who_does_not_read() {
        // wrong: an agent would miss its heartbeats while xosd is busy, and all that it runs stop
        let (out, _other) = pair();
        let text = "x".repeat(1 << 20);
        let full = (0..100).map(|_| out.send(&text, &[])).find_map(Result::err).unwrap();
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn what_was_sent_arrives_in_order_before_the_end() {
        // wrong: an agent that is told to end would not hear it, or a socket reach another program
        let (out, other) = pair();
        let (_back, mut from) = split(other).unwrap();
        let (mut kept, sent) = UnixStream::pair().unwrap();
        for n in 0..100 {
            out.send(&n, &[]).unwrap();
        }
        out.send(&100, &[sent.as_fd()]).unwrap();
        drop((out, sent));
        for n in 0..=100 {
            let (got, fds) = from.next::<i32>(|n| usize::from(*n == 100), None).unwrap().unwrap();
            assert_eq!((got, fds.len()), (n, usize::from(n == 100)));
        }
        assert!(from.next::<i32>(|_| 0, None).unwrap().is_none());
        let mut end = Vec::new();
        assert_eq!(kept.read_to_end(&mut end).unwrap(), 0, "its other end came, and went");
    }

    #[test]
    fn who_waits_for_a_silent_side_gives_up() {
        // wrong: an agent that hangs would keep xosd from ending it, for ever
        let (one, _other) = UnixStream::pair().unwrap();
        let (_out, mut from) = split(one).unwrap();
        let silent = from.next::<i32>(no_fds, Some(Instant::now())).unwrap_err();
        assert_eq!(silent.kind(), ErrorKind::TimedOut);
    }
}
