//! Length-framed JSON over a local socket, with descriptors: four bytes of length, little endian,
//! then the value.

use super::proto::OUTBOX_BYTES_MAX;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::{Serialize, de::DeserializeOwned};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// Longest frame, in bytes, without its length.
pub const FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most descriptors that come with one frame.
pub const FDS_MAX: usize = 3;
/// How much is read at a time.
const READ_BYTES: usize = 16 * 1024;

/// One end of a connection.
pub struct Peer {
    socket: UnixStream,
    inbox: Vec<u8>,
    /// How much of the inbox was taken.
    taken: usize,
    fds: VecDeque<OwnedFd>,
    outbox: Vec<u8>,
}

fn broken(why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

impl Peer {
    /// Takes a socket; whether it blocks is the caller's choice.
    pub fn new(socket: UnixStream) -> Peer {
        let (inbox, outbox) = (Vec::new(), Vec::new());
        Peer { socket, inbox, taken: 0, fds: VecDeque::new(), outbox }
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
        if self.taken > 0 {
            self.inbox.drain(..self.taken);
            self.taken = 0;
        }
        self.inbox.extend_from_slice(&buf[..got.bytes]);
        Ok(got.bytes > 0)
    }

    /// The next frame, when it is complete.
    ///
    /// # Errors
    /// `InvalidData` for a frame over the limit or of another shape; the peer is to be dropped.
    pub fn take<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let rest = &self.inbox[self.taken..];
        let Some((len, body)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let len = u32::from_le_bytes(*len) as usize;
        if len > FRAME_BYTES_MAX {
            return Err(broken("a frame over 4 MiB"));
        }
        let Some(body) = body.get(..len) else { return Ok(None) };
        let value = serde_json::from_slice(body)?;
        self.taken += 4 + len;
        Ok(Some(value))
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
        let body = serde_json::to_vec(value)?;
        if body.len() > FRAME_BYTES_MAX || self.outbox.len() > OUTBOX_BYTES_MAX {
            return Err(broken("too much to send"));
        }
        self.outbox.extend_from_slice(&(body.len() as u32).to_le_bytes());
        self.outbox.extend_from_slice(&body);
        Ok(())
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
        let mut at = 0;
        let result = loop {
            if at == self.outbox.len() {
                break Ok(());
            }
            match self.socket.write(&self.outbox[at..]) {
                Ok(0) => break Err(ErrorKind::WriteZero.into()),
                Ok(n) => at += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break Ok(()),
                Err(e) => break Err(e),
            }
        };
        self.outbox.drain(..at);
        result
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
        let first = [IoSlice::new(&self.outbox)];
        let flags = SendFlags::NOSIGNAL;
        let n = rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(&self.socket, &first, &mut control, flags)
        })?;
        self.outbox.drain(..n);
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

    #[test]
    fn an_oversized_or_foreign_frame_is_an_error() {
        // wrong: four bytes would make the cell's init reserve 4 GB
        for bytes in [&u32::MAX.to_le_bytes()[..], &[1, 0, 0, 0, b'x']] {
            let (mut a, b) = UnixStream::pair().unwrap();
            let mut b = Peer::new(b);
            a.write_all(bytes).unwrap();
            assert!(b.fill().unwrap());
            assert!(b.take::<String>().is_err());
        }
    }
}
