//! Frames over a local socket, with descriptors.

use super::proto::OUTBOX_BYTES_MAX;
use crate::frame::{Frames, Outbox};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::{Serialize, de::DeserializeOwned};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// Most descriptors that come with one frame.
pub const FDS_MAX: usize = 4;
/// How much is read at a time.
const READ_BYTES: usize = 16 * 1024;

/// One end of a connection.
pub struct Peer {
    socket: UnixStream,
    inbox: Frames,
    fds: VecDeque<OwnedFd>,
    outbox: Outbox,
}

fn broken(why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

impl Peer {
    /// Takes a socket; whether it blocks is the caller's choice.
    pub fn new(socket: UnixStream) -> Peer {
        let (inbox, fds, outbox) = Default::default();
        Peer { socket, inbox, fds, outbox }
    }

    /// Reads once. `false`: the other end closed it.
    ///
    /// # Errors
    /// The socket's error, or more descriptors than any request has; "would block" is none.
    pub fn fill(&mut self) -> io::Result<bool> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut buf = [0; READ_BYTES];
        let mut into = [IoSliceMut::new(&mut buf)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let got = match rustix::net::recvmsg(&self.socket, &mut into, &mut control, flags) {
            Ok(got) => got,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(true),
            Err(e) => return Err(e.into()),
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        if got.flags.contains(ReturnFlags::CTRUNC) || self.fds.len() > FDS_MAX {
            return Err(broken("more descriptors than a request has"));
        }
        self.inbox.feed(&buf[..got.bytes]);
        Ok(got.bytes > 0)
    }

    /// The next frame, when it is complete.
    ///
    /// # Errors
    /// `InvalidData` for a frame over the limit or of another shape; the peer is to be dropped.
    pub fn take<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        self.inbox.next()
    }

    /// The descriptors that came with the frame taken last; it is of those that have any.
    ///
    /// # Errors
    /// `InvalidData` when fewer came.
    pub fn take_fds(&mut self, count: usize) -> io::Result<Vec<OwnedFd>> {
        if self.fds.len() < count {
            return Err(broken("a request without its descriptors"));
        }
        Ok(self.fds.drain(..count).collect())
    }

    /// Adds a frame to what waits to be written.
    ///
    /// # Errors
    /// `InvalidData` when it is over the limit, or the other end does not read.
    pub fn push<T: Serialize>(&mut self, value: &T) -> io::Result<()> {
        if self.outbox.len() > OUTBOX_BYTES_MAX {
            return Err(broken("the other end does not read"));
        }
        self.outbox.push(value)
    }

    /// Whether something waits to be written.
    pub fn wants_to_write(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Writes what the socket takes now.
    ///
    /// # Errors
    /// The socket's error; "would block" is none.
    pub fn flush(&mut self) -> io::Result<()> {
        self.outbox.flush(&mut self.socket)
    }

    /// Writes a frame with descriptors, and waits until it is written. For a socket that blocks.
    ///
    /// # Errors
    /// The socket's error; `InvalidData` as [`Peer::push`], or for more than [`FDS_MAX`].
    pub fn send<T: Serialize>(&mut self, value: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.push(value)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(broken("more descriptors than a request has"));
        }
        let first = [IoSlice::new(self.outbox.waiting())];
        let flags = SendFlags::NOSIGNAL;
        let n = rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(&self.socket, &first, &mut control, flags)
        })?;
        self.outbox.written(n);
        self.flush()
    }
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_descriptors_arrive_together() {
        // wrong: a program would get another one's standard output
        let (a, b) = UnixStream::pair().unwrap();
        let (mut a, mut b) = (Peer::new(a), Peer::new(b));
        let null = std::fs::File::open("/dev/null").unwrap();
        a.send(&"one", &[]).unwrap();
        a.send(&"two", &[null.as_fd(), null.as_fd()]).unwrap();
        a.send(&"three", &[]).unwrap();
        let mut got: Vec<String> = Vec::new();
        while got.len() < 3 {
            assert!(b.fill().unwrap());
            while let Some(text) = b.take::<String>().unwrap() {
                let fds = if text == "two" { 2 } else { 0 };
                assert_eq!(b.take_fds(fds).unwrap().len(), fds);
                got.push(text);
            }
        }
        assert_eq!(got, ["one", "two", "three"]);
        assert!(b.take_fds(1).is_err());
        drop(a);
        assert!(!b.fill().unwrap());
    }
}
