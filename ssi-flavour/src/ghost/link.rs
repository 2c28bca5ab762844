//! A connection between a ghost and its relay, which does not block.

use super::proto::{Message, decode, encode};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// How much is read at a time.
const READ_BYTES: usize = 64 * 1024;

/// One end.
pub(super) struct Link {
    socket: UnixStream,
    inbox: Vec<u8>,
    taken: usize,
    outbox: Vec<u8>,
}

impl Link {
    /// Takes a socket.
    pub(super) fn new(socket: UnixStream) -> io::Result<Link> {
        socket.set_nonblocking(true)?;
        Ok(Link { socket, inbox: Vec::new(), taken: 0, outbox: Vec::new() })
    }

    /// Reads once. `false`: the other end closed it.
    pub(super) fn fill(&mut self) -> io::Result<bool> {
        self.inbox.drain(..self.taken);
        self.taken = 0;
        let mut buf = [0; READ_BYTES];
        match self.socket.read(&mut buf) {
            Ok(n) => {
                self.inbox.extend_from_slice(&buf[..n]);
                Ok(n > 0)
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                Ok(true)
            }
            Err(e) => Err(e),
        }
    }

    /// The next frame, when it is complete.
    pub(super) fn take(&mut self) -> io::Result<Option<Message>> {
        Ok(decode(&self.inbox[self.taken..])?.map(|(message, n)| {
            self.taken += n;
            message
        }))
    }

    /// Adds a frame to what waits to be written. What is sent is bounded by the windows of its
    /// streams.
    pub(super) fn push(&mut self, message: &Message) -> io::Result<()> {
        encode(message, &mut self.outbox)
    }

    /// Whether something waits to be written.
    pub(super) fn wants_to_write(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Writes what the socket takes now.
    pub(super) fn flush(&mut self) -> io::Result<()> {
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

    /// Writes all that waits, however long it takes.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.socket.set_nonblocking(false)?;
        self.flush()
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
