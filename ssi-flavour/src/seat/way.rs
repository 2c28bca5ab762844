//! One connection between `xosd` and an agent, used from several threads.

use crate::cell::frame::Peer;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

/// The sending side.
pub(super) struct Out {
    peer: Mutex<Peer>,
    socket: UnixStream,
}

/// The receiving side.
pub(super) struct In(Peer);

/// Both sides of a connection.
///
/// # Errors
/// Those of the socket.
pub(super) fn split(socket: UnixStream) -> io::Result<(Out, In)> {
    let (sending, receiving) = (socket.try_clone()?, socket.try_clone()?);
    Ok((Out { peer: Mutex::new(Peer::new(sending)), socket }, In(Peer::new(receiving))))
}

impl Out {
    /// Sends a frame; waits until the kernel has it.
    ///
    /// # Errors
    /// That the connection is over; then it is closed for both.
    pub(super) fn send<T: Serialize>(&self, value: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut peer = self.peer.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = peer.send(value, fds);
        if sent.is_err() {
            // Half a frame may have gone.
            self.close();
        }
        sent
    }

    /// Ends the connection for both sides.
    pub(super) fn close(&self) {
        // It may have ended already.
        let _gone = self.socket.shutdown(Shutdown::Both);
    }
}

impl In {
    /// The next frame and its descriptors; `None` at the end. Waits.
    ///
    /// # Errors
    /// Those of the socket, and frames of another form.
    pub(super) fn next<T: DeserializeOwned>(
        &mut self,
        fds: impl Fn(&T) -> usize,
    ) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        loop {
            if let Some(value) = self.0.take::<T>()? {
                let fds = self.0.take_fds(fds(&value))?;
                return Ok(Some((value, fds)));
            }
            if !self.0.fill()? {
                return Ok(None);
            }
        }
    }
}
