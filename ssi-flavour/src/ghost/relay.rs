//! The end of a ghost's streams at the node where the tree runs: it owns the tree's pipes or
//! pseudo-terminal. What is sent and kept is decided in [`super::machine`].

use super::link::Link;
use super::machine::{Fault, Incoming, Machine, Outgoing};
use super::proto::{Control, GROUP_BIT, Message, Steer, Steered};
use super::spool::Follow;
use super::terminal::resize;
use crate::cell::frame::Peer;
use crate::cell::proto::{Exit, Tree};
use nix::errno::Errno;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// How much is read from the tree at a time, bytes.
const READ_BYTES: usize = 64 * 1024;
/// What says to a program on a terminal that no more comes: Ctrl-D.
const END_KEY: u8 = 4;

/// What the tree's standard streams are.
#[derive(Debug)]
pub enum Ends {
    /// Pipes, or sockets.
    Pipes {
        /// Where its standard input is written; none: it is empty.
        input: Option<OwnedFd>,
        /// Where its standard output is read.
        output: OwnedFd,
        /// Where its standard error is read.
        error: OwnedFd,
    },
    /// The master of a pseudo-terminal.
    Terminal(OwnedFd),
}

/// How far the streams of a tree were when it was dumped; all 0 for a new one. In bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offsets {
    /// Written to its standard input.
    pub input: u64,
    /// Signals that it was sent.
    pub signals: u64,
    /// Read from its standard output.
    pub output: u64,
    /// Read from its standard error.
    pub error: u64,
}

/// Why [`Relay::serve`] returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Served {
    /// The connection is gone; serve the next one. Until then the tree waits when its pipes are
    /// full.
    Disconnected,
    /// The ghost has all of it and ended.
    Done,
    /// The other end cannot be this tree's; after [`Fault::Superseded`] this copy must end.
    Fault(Fault),
    /// The owner hung up.
    Abandoned,
}

/// The relay of a tree. It lives through many connections.
pub struct Relay {
    machine: Machine,
    terminal: bool,
    /// Where input is written, until it has ended or nobody reads it.
    input: Option<OwnedFd>,
    /// The reading end of a pipe that was written to its end: what the tree did not read yet is
    /// there.
    unread: Option<OwnedFd>,
    /// Where output and error are read, until they end.
    outputs: [Option<OwnedFd>; 2],
    /// Those that have ended, of which the ghost is not told yet.
    closed: [bool; 2],
    steer: Peer,
    exit: Option<Exit>,
    exit_told: bool,
    stopped: Option<i32>,
    drain: Option<Drain>,
    /// Sees what is read from the tree.
    follow: Arc<Follow>,
}

/// What the owner waits for.
#[derive(Clone, Copy)]
struct Drain {
    number: u64,
    /// How far the streams were, once all was read.
    read: Option<Offsets>,
}

/// The owner's side of a relay.
pub struct Owner(Peer);

impl Owner {
    /// Takes the other end of the socket that the relay was given. It blocks.
    pub fn new(steer: UnixStream) -> Owner {
        Owner(Peer::new(steer))
    }

    /// Tells the relay something.
    ///
    /// # Errors
    /// That the relay is gone.
    pub fn tell(&mut self, steer: Steer) -> io::Result<()> {
        self.0.send(&steer, &[])
    }

    /// What the relay asks for next, once it does; `None` when it is gone.
    ///
    /// # Errors
    /// The socket's error.
    pub fn next_asked(&mut self) -> io::Result<Option<Steered>> {
        loop {
            if let Some(steered) = self.0.take()? {
                return Ok(Some(steered));
            }
            if !self.0.fill()? {
                return Ok(None);
            }
        }
    }
}

/// What is ready in a round.
#[derive(Default)]
struct Found {
    link: bool,
    steer: bool,
    outputs: [bool; 2],
}

impl Relay {
    /// The relay of a tree, whose owner is at the other end of `steer` (see [`Steer`],
    /// [`Steered`]).
    ///
    /// # Errors
    /// That a descriptor cannot be used.
    pub fn new(tree: Tree, ends: Ends, at: Offsets, steer: UnixStream) -> io::Result<Relay> {
        let passed = [at.input, at.signals];
        let mut machine = Machine::relay(tree, passed, [at.output, at.error]);
        let (terminal, input, outputs) = match ends {
            Ends::Pipes { input, output, error } => (false, input, [Some(output), Some(error)]),
            Ends::Terminal(master) => {
                machine.out[1].end();
                (true, Some(master.try_clone()?), [Some(master), None])
            }
        };
        for fd in [input.as_ref(), outputs[0].as_ref(), outputs[1].as_ref()].into_iter().flatten() {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        steer.set_nonblocking(true)?;
        let steer = Peer::new(steer);
        Ok(Relay {
            machine,
            terminal,
            input,
            unread: None,
            outputs,
            closed: [false; 2],
            steer,
            exit: None,
            exit_told: false,
            stopped: None,
            drain: None,
            follow: Arc::default(),
        })
    }

    /// Has what is read from the tree seen by somebody else, too.
    pub fn followed(mut self, follow: Arc<Follow>) -> Relay {
        self.follow = follow;
        self
    }

    /// The tree.
    pub fn tree(&self) -> Tree {
        self.machine.tree()
    }

    /// How far the streams are. What was read from a stopped tree and is in its pipes no more is
    /// before these offsets.
    pub fn offsets(&self) -> Offsets {
        let [output, error] = &self.machine.out;
        let [input, signals] = &self.machine.into;
        Offsets {
            input: input.taken(),
            signals: signals.passed(),
            output: output.offset(),
            error: error.offset(),
        }
    }

    /// How much of output and error the ghost has, bytes.
    pub fn acknowledged(&self) -> [u64; 2] {
        [0, 1].map(|i| self.machine.out[i].acknowledged())
    }

    /// Serves one connection, to its end or the tree's. Waits; a relay has a thread of its own.
    ///
    /// # Errors
    /// That of a descriptor of the tree's.
    pub fn serve(&mut self, socket: UnixStream) -> io::Result<Served> {
        let mut link = Link::new(socket)?;
        let hello = self.machine.connected(self.terminal);
        if link.push(&hello).is_err() {
            return Ok(Served::Disconnected);
        }
        self.exit_told = false;
        loop {
            let found = self.wait(&link)?;
            if found.steer && !self.hear_owner()? {
                return Ok(Served::Abandoned);
            }
            if found.link {
                let served = self.hear_ghost(&mut link)?;
                self.follow.taken(self.acknowledged());
                if let Some(served) = served {
                    return Ok(served);
                }
            }
            self.read_outputs(found.outputs)?;
            self.write_input();
            self.see_unread();
            self.signal()?;
            self.answer_drain()?;
            if self.send(&mut link).is_err() {
                return Ok(Served::Disconnected);
            }
        }
    }

    fn wait(&self, link: &Link) -> io::Result<Found> {
        let out = |wants: bool| if wants { PollFlags::OUT } else { PollFlags::empty() };
        let link_asks = PollFlags::IN | out(link.wants_to_write());
        let steer_asks = PollFlags::IN | out(self.steer.wants_to_write());
        let mut fds = vec![PollFd::new(link, link_asks), PollFd::new(&self.steer, steer_asks)];
        let mut whose = Vec::new();
        for (i, fd) in self.outputs.iter().enumerate() {
            if let (Some(fd), true) = (fd, self.machine.out[i].room() > 0) {
                whose.push(i);
                fds.push(PollFd::new(fd, PollFlags::IN));
            }
        }
        if let (Some(fd), false) = (&self.input, self.machine.into[0].front().is_empty()) {
            fds.push(PollFd::new(fd, PollFlags::OUT));
        }
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Found::default()),
            Err(e) => return Err(e.into()),
        }
        let ready = |i: usize| fds.get(i).is_some_and(|f| !f.revents().is_empty());
        let mut found = Found { link: ready(0), steer: ready(1), ..Found::default() };
        for (i, output) in whose.into_iter().enumerate() {
            found.outputs[output] = ready(i + 2);
        }
        Ok(found)
    }

    /// `false`: the owner hung up.
    fn hear_owner(&mut self) -> io::Result<bool> {
        let open = self.steer.fill()?;
        while let Some(steer) = self.steer.take()? {
            match steer {
                Steer::Exited { exit } => {
                    self.exit = Some(exit);
                    self.end_closed();
                }
                Steer::Lives => self.end_closed(),
                Steer::Stopped { signal } => self.stopped = Some(signal),
                Steer::Drain { number } => self.drain = Some(Drain { number, read: None }),
            }
        }
        self.steer.flush()?;
        Ok(open)
    }

    fn hear_ghost(&mut self, link: &mut Link) -> io::Result<Option<Served>> {
        let open = matches!(link.fill(), Ok(true));
        loop {
            let message = match link.take() {
                Ok(Some(message)) => message,
                Ok(None) if open => return Ok(None),
                _ => return Ok(Some(Served::Disconnected)),
            };
            match self.machine.take(message) {
                Err(fault) => return Ok(Some(Served::Fault(fault))),
                Ok(Some(Control::Size(size))) => {
                    if let (true, Some(master)) = (self.terminal, &self.outputs[0]) {
                        resize(master, size)?;
                    }
                }
                Ok(Some(Control::ExitTaken)) => return Ok(Some(Served::Done)),
                Ok(_) => {}
            }
        }
    }

    /// Reads what the tree wrote, as far as it fits. With the tree over, all that it left.
    fn read_outputs(&mut self, ready: [bool; 2]) -> io::Result<()> {
        for (i, ready) in ready.into_iter().enumerate() {
            let out = &mut self.machine.out[i];
            if out.is_refused() {
                // The tree is to see it when it writes next; of a terminal, that it hung up.
                self.outputs[i] = None;
                self.input = self.input.take().filter(|_| !self.terminal);
            }
            let Some(fd) = &self.outputs[i] else { continue };
            let follow = &self.follow;
            let seen = |at: u64, bytes: &[u8], ahead: u64| follow.read(i, at, bytes, ahead);
            if ready && !read_some(fd.as_fd(), out, seen)? {
                self.outputs[i] = None;
                self.closed[i] = true;
                // A copy that is killed closes them too, and the tree may go on elsewhere.
                match self.exit {
                    Some(_) => self.end_closed(),
                    None => self.steer.push(&Steered::Closed)?,
                }
            }
        }
        self.steer.flush()
    }

    /// The tree itself has closed what is closed.
    fn end_closed(&mut self) {
        for (closed, out) in self.closed.iter_mut().zip(&mut self.machine.out) {
            if std::mem::take(closed) {
                out.end();
            }
        }
    }

    fn write_input(&mut self) {
        let into = &mut self.machine.into[0];
        while let (Some(fd), false) = (&self.input, into.front().is_empty()) {
            match nix::unistd::write(fd, into.front()) {
                Ok(n) => into.pass(n),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                // The tree has closed it.
                Err(_) => self.input = None,
            }
        }
        if into.is_over()
            && let Some(fd) = self.input.take()
        {
            if self.terminal {
                // A terminal that takes no more has no reader that waits for the end.
                let _full = nix::unistd::write(&fd, &[END_KEY]);
            } else {
                self.unread = reader_of(&fd);
            }
        }
    }

    /// What the tree has not read is acknowledged later, so that a copy elsewhere gets it again. Of
    /// a terminal that cannot be seen.
    fn see_unread(&mut self) {
        let fd = self.unread.as_ref().or(self.input.as_ref()).filter(|_| !self.terminal);
        let unread = fd.and_then(|fd| rustix::io::ioctl_fionread(fd).ok());
        self.machine.into[0].leave(unread.unwrap_or(0));
    }

    /// Has the owner signal the tree.
    fn signal(&mut self) -> io::Result<()> {
        let into = &mut self.machine.into[1];
        while let Some(byte) = into.front().first().copied() {
            let (signal, group) = (i32::from(byte & !GROUP_BIT), byte & GROUP_BIT != 0);
            self.steer.push(&Steered::Signal { signal, group })?;
            into.pass(1);
        }
        self.steer.flush()
    }

    /// Tells the owner that all which the tree had written is read, and that the ghost has it.
    fn answer_drain(&mut self) -> io::Result<()> {
        let Some(Drain { number, read }) = self.drain else { return Ok(()) };
        let read = match read {
            Some(read) => read,
            None if self.is_drained() => {
                let offsets = self.offsets();
                self.steer.push(&Steered::Read { number, offsets })?;
                self.drain = Some(Drain { number, read: Some(offsets) });
                offsets
            }
            None => return Ok(()),
        };
        let [output, error] = self.acknowledged();
        if output >= read.output && error >= read.error {
            self.steer.push(&Steered::Taken { number })?;
            self.drain = None;
        }
        self.steer.flush()
    }

    fn send(&mut self, link: &mut Link) -> io::Result<()> {
        if !self.machine.is_joined() {
            return link.flush();
        }
        let into = &mut self.machine.into[0];
        if self.input.is_none() && !into.is_over() && !into.is_refused() {
            refuse(into, link)?;
        }
        while let Some(message) = self.machine.next_message() {
            link.push(&message)?;
        }
        if let Some(signal) = self.stopped.take() {
            link.push(&Message::Control(Control::Stopped { signal }))?;
        }
        if let (Some(exit), false) = (self.exit, self.exit_told)
            && self.is_drained()
        {
            let ends = [0, 1].map(|i| self.machine.out[i].offset());
            link.push(&Message::Control(Control::Exit { exit, ends }))?;
            self.exit_told = true;
        }
        link.flush()
    }

    /// Whether nothing that the tree wrote is left in its pipes. What it left running may write
    /// more, which nobody reads: the ghost ends with the tree.
    fn is_drained(&self) -> bool {
        self.outputs.iter().flatten().all(|fd| {
            let mut fds = [PollFd::new(fd, PollFlags::IN)];
            let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            matches!(poll(&mut fds, Some(&now)), Ok(0))
        })
    }
}

/// Reads what fits. `false`: the stream is over.
fn read_some(
    fd: BorrowedFd<'_>,
    out: &mut Outgoing,
    seen: impl FnOnce(u64, &[u8], u64),
) -> io::Result<bool> {
    let mut buf = [0; READ_BYTES];
    let room = out.room().min(buf.len());
    if room == 0 {
        return Ok(true);
    }
    match nix::unistd::read(fd, &mut buf[..room]) {
        // EIO: no process has the terminal open any more.
        Ok(0) | Err(Errno::EIO) => Ok(false),
        Ok(n) => {
            seen(out.offset(), &buf[..n], out.ahead());
            out.push(&buf[..n]);
            Ok(true)
        }
        Err(Errno::EINTR | Errno::EAGAIN) => Ok(true),
        Err(e) => Err(e.into()),
    }
}

/// The reading end of the pipe that a descriptor writes into; a socket has none.
fn reader_of(fd: &OwnedFd) -> Option<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).ok()
}

fn refuse(into: &mut Incoming, link: &mut Link) -> io::Result<()> {
    into.refuse();
    link.push(&Message::Control(Control::Refused { stream: into.stream() }))
}
