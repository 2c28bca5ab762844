//! The agent's side of a cell. It waits; callers that must not use a thread.

use super::SOCKET_FILE;
use super::frame::Peer;
use super::proto::{Ask, Call, Ended, Refusal, Start, Started, Status, Tell};
use crate::pids::NodeNumber;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a cell may take to answer. A program that does not begin is given up before.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The cell refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The connection failed: whether the call was carried out is unknown, ask for the status.
    #[error("no answer from the cell: {0}")]
    Link(#[from] io::Error),
}

/// What a cell says without being asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A tree is over; to be acknowledged.
    Ended(Ended),
    /// A tree's first process was stopped.
    Stopped {
        /// Which.
        pid: i32,
        /// By which signal.
        signal: i32,
    },
    /// It goes on.
    Continued {
        /// Which.
        pid: i32,
    },
}

/// Starts the cell of a folder, which must exist and be root's alone, and waits until it takes
/// requests.
///
/// # Errors
/// Why it could not be started, in the launcher's words.
pub fn launch(program: &Path, dir: &Path, node: NodeNumber) -> io::Result<()> {
    let ran = Command::new(program).arg(dir).arg(node.to_string()).output()?;
    if ran.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ran.stderr);
    Err(io::Error::other(format!("the cell cannot be started: {}", said.trim())))
}

/// A connection to a cell.
pub struct Client {
    peer: Peer,
    calls: u64,
    heard: VecDeque<Event>,
}

impl Client {
    /// Connects to the cell of a folder. Ends that nobody acknowledged come again.
    ///
    /// # Errors
    /// The socket's error; `ConnectionRefused` when the cell is dead.
    pub fn connect(dir: &Path) -> io::Result<Client> {
        let socket = UnixStream::connect(dir.join(SOCKET_FILE))?;
        socket.set_write_timeout(Some(ANSWER_MAX))?;
        Ok(Client { peer: Peer::new(socket), calls: 0, heard: VecDeque::new() })
    }

    /// Starts a tree with its descriptors, as [`Start::program`] says how many.
    ///
    /// # Errors
    /// The refusal, or that of the connection.
    pub fn start(&mut self, start: Start, fds: &[OwnedFd]) -> Result<Started, CallError> {
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        self.call(Ask::Start(Box::new(start)), &fds)
    }

    /// How the cell is.
    ///
    /// # Errors
    /// That of the connection.
    pub fn status(&mut self) -> Result<Status, CallError> {
        self.call(Ask::Status, &[])
    }

    /// Asks anything; the reply is of the type that [`Ask`] names.
    ///
    /// # Errors
    /// The refusal, or that of the connection, `InvalidData` for a reply of another type,
    /// `TimedOut` when none comes: then this connection is of no more use.
    pub fn call<T: DeserializeOwned>(
        &mut self,
        ask: Ask,
        fds: &[BorrowedFd<'_>],
    ) -> Result<T, CallError> {
        let until = Instant::now() + ANSWER_MAX;
        self.calls += 1;
        let number = self.calls;
        self.peer.send(&Call { id: number, ask }, fds)?;
        loop {
            while let Some(tell) = self.peer.take()? {
                match tell {
                    Tell::Reply { id, value } if id == number => {
                        return Ok(serde_json::from_value(value).map_err(io::Error::from)?);
                    }
                    Tell::Refused { id, refusal } if id == number => return Err(refusal.into()),
                    other => self.heard.extend(event(other)),
                }
            }
            if !self.readable(until)? {
                let text = format!("it says nothing for {ANSWER_MAX:?}");
                return Err(io::Error::new(ErrorKind::TimedOut, text).into());
            }
            self.fill()?;
        }
    }

    /// Forgets what it said without being asked: somebody else listens.
    pub(crate) fn forget(&mut self) {
        self.heard.clear();
    }

    /// The next thing that the cell says without being asked; `None` when nothing came in time.
    ///
    /// # Errors
    /// That of the connection.
    pub fn next(&mut self, within: Duration) -> io::Result<Option<Event>> {
        let until = Instant::now() + within;
        loop {
            while let Some(tell) = self.peer.take()? {
                self.heard.extend(event(tell));
            }
            if let Some(event) = self.heard.pop_front() {
                return Ok(Some(event));
            }
            if !self.readable(until)? {
                return Ok(None);
            }
            self.fill()?;
        }
    }

    /// Waits until it says something. `false`: it did not in time.
    fn readable(&self, until: Instant) -> io::Result<bool> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            let mut fds = [PollFd::new(&self.peer, PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(n) => return Ok(n > 0),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        match self.peer.fill()? {
            true => Ok(()),
            false => Err(io::Error::new(ErrorKind::UnexpectedEof, "the cell hung up")),
        }
    }
}

/// What is no reply. A reply to nobody's question is that of a call whose connection failed.
fn event(tell: Tell) -> Option<Event> {
    match tell {
        Tell::Ended(ended) => Some(Event::Ended(ended)),
        Tell::Stopped { pid, signal } => Some(Event::Stopped { pid, signal }),
        Tell::Continued { pid } => Some(Event::Continued { pid }),
        Tell::Reply { .. } | Tell::Refused { .. } => None,
    }
}
