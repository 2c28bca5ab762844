//! The ghost's loop: terminal, signals, descriptors, connection. What is sent and kept is decided
//! in [`super::machine`].

use super::escape::Escape;
use super::link::Link;
use super::machine::{Fault, Incoming, Machine};
use super::proto::{Control, GROUP_BIT, GhostId, Message};
use super::terminal::Terminal;
use super::{LOST_CODE, complain};
use crate::cell::proto::{Exit, Tree};
use crate::sys;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use std::io::{self, ErrorKind, Stdin};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

/// Between two tries to reach the agent at first, and at most, milliseconds. It restarts, or the
/// tree moves.
const RETRY_MS_MIN: u64 = 20;
const RETRY_MS_MAX: u64 = 1_000;
/// Most bytes that a pipe takes without blocking when it takes any; see pipe(7).
const WRITE_BYTES: usize = 4096;
/// Of siginfo(2): sent by the kernel.
const SI_KERNEL: i32 = 0x80;

/// How the other end is reached: a connection, or that there is none now;
/// [`ErrorKind::NotConnected`]: nor will there be one.
pub type Connect = Box<dyn FnMut() -> io::Result<UnixStream> + Send>;

/// How a ghost behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// As the program that it replaced: what happens to it is meant for the tree.
    Stands,
    /// As a person's window to a tree that goes on without it.
    Follows {
        /// Who it is.
        ghost: GhostId,
        /// Whether the tree is to see when nobody reads its output here any more, as the writer of
        /// a pipe does; else this ghost ends alone.
        owns: bool,
    },
}

/// How a ghost ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// As the tree did.
    As(Exit),
    /// The tree is lost: why.
    Lost(String),
    /// Another ghost took its place.
    Replaced,
    /// It left: its person said so, or is gone. The tree goes on.
    Left,
    /// Nobody reads what it writes. The tree goes on.
    Closed,
}

/// The signals that a ghost takes, from before it is made. They are blocked in this thread and
/// those that it starts later.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Takes them; `manner` says which. There must be no other thread yet that would be ended by
    /// one.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn take(manner: Manner) -> io::Result<Signals> {
        let mut set = SigSet::all();
        // What stops a process that touches a terminal from the background is meant for the ghost.
        for own in [Signal::SIGCHLD, Signal::SIGTTIN, Signal::SIGTTOU] {
            set.remove(own);
        }
        if manner != Manner::Stands {
            // Ctrl-Z stops the window, not the tree.
            set.remove(Signal::SIGTSTP);
        }
        set.thread_set_mask()?;
        if manner == Manner::Stands {
            // What the program ignored that this one replaced would not be forwarded.
            sys::default_signals();
        }
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Signals(SignalFd::with_flags(&set, flags)?))
    }

    /// The next signal that waits, by its number.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn next_waiting(&self) -> io::Result<Option<i32>> {
        Ok(self.0.read_signal()?.map(|info| info.ssi_signo as i32))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

struct Ghost {
    connect: Connect,
    manner: Manner,
    tell: Box<dyn FnMut(&str) + Send>,
    machine: Machine,
    link: Option<Link>,
    retry_ms: u64,
    signals: Signals,
    stdin: Stdin,
    terminal: Option<Terminal<Stdin>>,
    /// Whether the tree has a terminal too.
    passing: bool,
    /// What the person types to leave.
    escape: Escape,
    /// Asked to end while nobody was there to be told.
    impatient: bool,
    left: bool,
    /// The other end cannot be reached any more.
    cut: bool,
    /// It stops once the tree was told to.
    stops: bool,
    /// Its person was told that some output is gone.
    skipped: bool,
    /// The tree is over: how, and where its output ends.
    exit: Option<(Exit, [u64; 2])>,
}

/// Stands for a tree until it is over, at this process's standard streams; `tell` has what its
/// person is to know. Waits.
///
/// # Errors
/// That of a standard stream or a signal.
pub fn stand(
    connect: Connect,
    tree: Tree,
    manner: Manner,
    signals: Signals,
    tell: Box<dyn FnMut(&str) + Send>,
) -> io::Result<End> {
    let machine = match manner {
        Manner::Stands => Machine::ghost(tree),
        Manner::Follows { ghost, .. } => Machine::guest(tree, ghost),
    };
    let mut ghost = Ghost {
        connect,
        manner,
        tell,
        machine,
        link: None,
        retry_ms: 0,
        signals,
        stdin: io::stdin(),
        terminal: Terminal::of(io::stdin()),
        passing: false,
        escape: Escape::default(),
        impatient: false,
        left: false,
        cut: false,
        stops: false,
        skipped: false,
        exit: None,
    };
    ghost.live()
}

/// Stands for the tree until it is over, as the program `xos-ghost`.
pub(super) fn run(connect: Connect, tree: Tree) -> ExitCode {
    let tell = Box::new(|text: &str| complain(text));
    let end = Signals::take(Manner::Stands)
        .and_then(|signals| stand(connect, tree, Manner::Stands, signals, tell));
    match end {
        Ok(End::As(Exit::Code(code))) => ExitCode::from(code),
        Ok(End::As(Exit::Signal(signal))) => die_by(signal),
        Ok(End::Lost(why)) => {
            complain(&why);
            ExitCode::from(LOST_CODE)
        }
        Ok(End::Replaced | End::Left | End::Closed) => ExitCode::from(LOST_CODE),
        Err(e) => {
            complain(&format!("cannot stand for {tree}: {e}"));
            ExitCode::from(LOST_CODE)
        }
    }
}

/// Ends by the signal that ended the tree, without a core: this is not the program that failed.
fn die_by(signal: i32) -> ExitCode {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let no_core = rustix::process::setrlimit(Resource::Core, none)
        .and_then(|()| rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable));
    if no_core.is_ok() {
        sys::default_signals();
        let died = sys::kill(std::process::id() as i32, signal)
            .and_then(|()| SigSet::empty().thread_set_mask().map_err(io::Error::from));
        debug_assert!(died.is_ok(), "{died:?}");
    }
    // As a shell says it, where the signal is one that ends nobody.
    ExitCode::from(128u8.saturating_add(u8::try_from(signal).unwrap_or(127)))
}

impl Ghost {
    fn live(&mut self) -> io::Result<End> {
        loop {
            self.connect();
            // What is known of its end counts.
            if self.cut && self.exit.is_none() {
                self.restore();
                return Ok(End::Lost("the node's agent stands for it no more".to_owned()));
            }
            self.wait()?;
            self.take_signals()?;
            if let Some(end) = self.hear()? {
                return Ok(end);
            }
            if !self.pass_on()? {
                return Ok(End::Closed);
            }
            self.send();
            self.stop()?;
            if self.left {
                self.restore();
                return Ok(End::Left);
            }
            if let Some(exit) = self.is_over() {
                self.take_leave();
                return Ok(End::As(exit));
            }
        }
    }

    fn connect(&mut self) {
        if self.link.is_some() {
            return;
        }
        let link = (self.connect)().and_then(Link::new).and_then(|mut link| {
            link.push(&self.machine.connected(self.terminal.is_some()))?;
            Ok(link)
        });
        match link {
            Ok(link) => self.link = Some(link),
            Err(e) if e.kind() == ErrorKind::NotConnected => self.cut = true,
            // The agent is being restarted, or the node is about to end the tree.
            Err(_) => self.lose_link(),
        }
    }

    fn lose_link(&mut self) {
        self.link = None;
        self.retry_ms = (self.retry_ms * 2).clamp(RETRY_MS_MIN, RETRY_MS_MAX);
    }

    /// Waits for something to do, and reads standard input.
    fn wait(&mut self) -> io::Result<()> {
        let stdout = io::stdout();
        let stderr = io::stderr();
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        if let Some(link) = &self.link {
            let out = if link.wants_to_write() { PollFlags::OUT } else { PollFlags::empty() };
            fds.push(PollFd::new(link, PollFlags::IN | out));
        }
        // A tilde may come on top of what is read.
        let reads = self.machine.out[0].room() > usize::from(self.follows());
        if reads {
            fds.push(PollFd::new(&self.stdin, PollFlags::IN));
        }
        for (into, fd) in self.machine.into.iter().zip([stdout.as_fd(), stderr.as_fd()]) {
            if !into.front().is_empty() {
                fds.push(PollFd::from_borrowed_fd(fd, PollFlags::OUT));
            }
        }
        let retry = self.link.is_none().then_some(Timespec {
            tv_sec: (self.retry_ms / 1000) as i64,
            tv_nsec: (self.retry_ms % 1000 * 1_000_000) as i64,
        });
        match poll(&mut fds, retry.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
        let input_at = if self.link.is_some() { 2 } else { 1 };
        let input = reads && fds.get(input_at).is_some_and(|f| !f.revents().is_empty());
        drop(fds);
        if input {
            self.read_input();
        }
        Ok(())
    }

    fn read_input(&mut self) {
        let typed = self.passing && self.follows();
        let out = &mut self.machine.out[0];
        // A tilde that was held back may come on top of what is read.
        let mut buf = vec![0; out.room() - usize::from(typed)];
        match nix::unistd::read(&self.stdin, &mut buf) {
            Ok(n) if n > 0 && typed => {
                let (keys, leaves) = self.escape.take(&buf[..n]);
                out.push(&keys);
                self.left |= leaves;
            }
            Ok(n) if n > 0 => out.push(&buf[..n]),
            Err(nix::errno::Errno::EINTR | nix::errno::Errno::EAGAIN) => {}
            // A window that was closed ends nothing.
            _ if typed => self.left = true,
            // A terminal that hung up, or a descriptor that is none: no more comes.
            _ => out.end(),
        }
    }

    fn follows(&self) -> bool {
        self.manner != Manner::Stands
    }

    fn is_reached(&self) -> bool {
        self.link.is_some() && self.machine.is_joined()
    }

    fn restore(&mut self) {
        if let Some(terminal) = &mut self.terminal {
            terminal.restore();
        }
    }

    fn take_signals(&mut self) -> io::Result<()> {
        // With no room for more they wait with the kernel.
        while self.machine.out[1].room() > 0 {
            let Some(info) = self.signals.0.read_signal()? else { return Ok(()) };
            let signal = info.ssi_signo as i32;
            if signal == libc::SIGPIPE || self.is_own(signal) {
                continue;
            }
            if signal == libc::SIGWINCH && self.passing {
                self.send_size();
                continue;
            }
            if signal == libc::SIGCONT {
                self.pass_keys();
            }
            // What was stopped as a group goes on as one.
            let all = info.ssi_code == SI_KERNEL || signal == libc::SIGCONT && !self.follows();
            let group = if all { GROUP_BIT } else { 0 };
            let signal = self.stopping(signal);
            self.machine.out[1].push(&[signal as u8 | group]);
        }
        Ok(())
    }

    /// A key that stops jobs stops this one, once the tree was told. The tree's own group would not
    /// obey SIGTSTP: no shell of its session could let it go on.
    fn stopping(&mut self, signal: i32) -> i32 {
        if signal != libc::SIGTSTP || self.follows() || self.passing {
            return signal;
        }
        self.stops = true;
        libc::SIGSTOP
    }

    fn stop(&mut self) -> io::Result<()> {
        let told = self.link.as_ref().is_none_or(|link| !link.wants_to_write());
        if self.stops && told {
            self.stops = false;
            self.restore();
            sys::kill(std::process::id() as i32, libc::SIGSTOP)?;
        }
        Ok(())
    }

    /// Whether a signal is for this process and not for the tree: then it is obeyed.
    fn is_own(&mut self, signal: i32) -> bool {
        if !self.follows() {
            return false;
        }
        let ends = [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM].contains(&signal);
        match signal {
            libc::SIGHUP => self.left = true,
            libc::SIGCONT => self.pass_keys(),
            libc::SIGWINCH => self.send_size(),
            // The first one goes to the tree, once it is reached.
            _ if ends && !self.is_reached() && self.impatient => self.left = true,
            _ => {
                self.impatient |= ends && !self.is_reached();
                return false;
            }
        }
        true
    }

    fn send_size(&mut self) {
        let size = self.terminal.as_ref().and_then(|t| t.size().ok());
        if let (Some(size), Some(link), true) = (size, &mut self.link, self.machine.is_joined())
            && link.push(&Message::Control(Control::Size(size))).is_err()
        {
            self.lose_link();
        }
    }

    /// With a terminal at both ends: has this one leave all to the other. One that hung up has
    /// nothing to leave.
    fn pass_keys(&mut self) {
        if let (true, Some(terminal)) = (self.passing, &mut self.terminal) {
            self.passing = terminal.pass_through().is_ok();
            self.send_size();
        }
    }

    /// Hears the other end. How to end, when the tree is lost.
    fn hear(&mut self) -> io::Result<Option<End>> {
        let Some(link) = &mut self.link else { return Ok(None) };
        let open = matches!(link.fill(), Ok(true));
        loop {
            // What came before the end of the connection counts.
            let message = self.link.as_mut().map(Link::take);
            let message = match message {
                Some(Ok(Some(message))) => message,
                Some(Ok(None)) if open => return Ok(None),
                _ => {
                    self.lose_link();
                    return Ok(None);
                }
            };
            match self.machine.take(message) {
                Ok(None) => {}
                Ok(Some(control)) => {
                    if let Some(end) = self.obey(control)? {
                        return Ok(Some(end));
                    }
                }
                // A copy that is not the newest any more: the agent learns of it and knows better.
                Err(Fault::Superseded { .. }) => {
                    self.lose_link();
                    return Ok(None);
                }
                Err(fault) => return Ok(Some(End::Lost(fault.to_string()))),
            }
        }
    }

    fn obey(&mut self, control: Control) -> io::Result<Option<End>> {
        match control {
            Control::Hello { terminal, .. } => {
                (self.retry_ms, self.impatient) = (0, false);
                self.passing = terminal && self.terminal.is_some();
                self.pass_keys();
            }
            Control::Stopped { .. } => {
                if let Some(terminal) = &mut self.terminal {
                    terminal.restore();
                }
                // Who waits for the tree sees it stopped. What lets it go on is forwarded.
                sys::kill(std::process::id() as i32, libc::SIGSTOP)?;
            }
            Control::Exit { exit, ends } => self.exit = Some((exit, ends)),
            Control::Lost { why } => return Ok(Some(End::Lost(why))),
            Control::Replaced => return Ok(Some(End::Replaced)),
            Control::Begins { offset, .. } => {
                let late = matches!(self.manner, Manner::Follows { ghost, .. } if ghost.late);
                if !std::mem::replace(&mut self.skipped, true) && !late {
                    (self.tell)(&format!("what it wrote before byte {offset} is gone"));
                }
            }
            Control::Passed { .. }
            | Control::Refused { .. }
            | Control::Size(_)
            | Control::ExitTaken => {}
        }
        Ok(None)
    }

    /// Writes what came to standard output and error. `false`: nobody reads it, and this ghost ends
    /// alone.
    fn pass_on(&mut self) -> io::Result<bool> {
        let leaves = matches!(self.manner, Manner::Follows { owns: false, .. });
        let (stdout, stderr) = (io::stdout(), io::stderr());
        for (into, fd) in self.machine.into.iter_mut().zip([stdout.as_fd(), stderr.as_fd()]) {
            if into.front().is_empty() {
                continue;
            }
            let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            if !matches!(poll(&mut fds, Some(&now)), Ok(n) if n > 0) {
                continue;
            }
            let n = into.front().len().min(WRITE_BYTES);
            match nix::unistd::write(fd, &into.front()[..n]) {
                Ok(n) => into.pass(n),
                Err(nix::errno::Errno::EINTR | nix::errno::Errno::EAGAIN) => {}
                Err(_) if leaves => return Ok(false),
                Err(_) => refuse(into, &mut self.link),
            }
        }
        Ok(true)
    }

    fn send(&mut self) {
        let Some(link) = &mut self.link else { return };
        let sent = loop {
            match self.machine.next_message().map(|m| link.push(&m)) {
                Some(Ok(())) => {}
                Some(Err(e)) => break Err(e),
                None => break link.flush(),
            }
        };
        if sent.is_err() {
            self.lose_link();
        }
    }

    /// How the tree ended, once all that it wrote is passed on.
    fn is_over(&self) -> Option<Exit> {
        let (exit, ends) = self.exit?;
        let over = self
            .machine
            .into
            .iter()
            .zip(ends)
            .all(|(into, end)| into.is_refused() || into.passed() >= end);
        over.then_some(exit)
    }

    /// The relay need not wait for this ghost. If it cannot be told it sees that nobody comes.
    fn take_leave(&mut self) {
        self.restore();
        if let Some(link) = &mut self.link {
            let leave = Message::Control(Control::ExitTaken);
            let _untold = link.push(&leave).and_then(|()| link.finish());
        }
    }
}

/// The other end need not send more of a stream that nobody reads; it hears it again on each
/// connection.
fn refuse(into: &mut Incoming, link: &mut Option<Link>) {
    into.refuse();
    let refused = Message::Control(Control::Refused { stream: into.stream() });
    if link.as_mut().is_some_and(|l| l.push(&refused).is_err()) {
        *link = None;
    }
}
