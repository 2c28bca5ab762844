//! A cell's init: pid 1 of its pid namespace, parent of its trees. One thread, one loop; it waits
//! for nothing but this loop's descriptors.

use super::frame::Peer;
use super::kept::{Kept, Orphans};
use super::lease::Lease;
use super::own;
use super::proto::{CONNECTIONS_MAX, Exit, Program, Refusal, Tell, Tree, Usage};
use super::range::{self, Pids};
use super::start::{self, Failure};
use crate::alone::no;
use crate::peer;
use crate::pids::NodeNumber;
use crate::sys::{self, Wait, Waited};
use ends::Rest;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{PipeReader, Read};
use std::os::unix::net::UnixListener;

mod calls;
mod ends;
mod hold;

/// How many changes of children are looked at before requests are again.
const WAIT_ROUND_MAX: u32 = 512;

struct Connection {
    number: u64,
    peer: Peer,
    /// Whether it restores processes with the pids of nodes with higher numbers.
    wide: bool,
    alive: bool,
}

/// A process that has not become its program yet.
struct Starting {
    tree: Option<Tree>,
    program: Program,
    pipe: PipeReader,
    /// Who asked: connection and call.
    by: (u64, u64),
    /// When it is given up.
    until_ms: u64,
    /// When it ended meanwhile.
    ended: Option<(Exit, Usage)>,
}

struct Init {
    node: NodeNumber,
    pids: Pids,
    pid_outside: i32,
    listener: UnixListener,
    connections: Vec<Connection>,
    connected: u64,
    /// First processes whose end is told; without a tree it is a helper.
    watched: BTreeMap<i32, Option<Tree>>,
    starting: BTreeMap<i32, Starting>,
    kept: Kept,
    orphans: Orphans,
    childless: bool,
    strayed: u64,
    lease: Lease,
    /// When it is looked next whether all stands still.
    hold_at_ms: u64,
    /// What was stopped because the lease was over, has not ended, and nobody let go on.
    halted: BTreeSet<i32>,
    /// Trees that are being ended, and what has not ended yet of each.
    dying: BTreeMap<Tree, BTreeSet<i32>>,
    rest: Rest,
    ending: bool,
}

/// Runs in the child that the launcher forked into the new pid namespace. Returns when the cell is
/// to end, and with this process all of it.
pub(super) fn run(
    node: NodeNumber,
    listener: UnixListener,
    ready: impl FnOnce() -> Result<(), String>,
) -> Result<(), String> {
    let pid_outside = own::take()?;
    let pids = Pids::take(node.pids())?;
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None).map_err(no("block signals"))?;
    let children = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(no("watch children"))?;
    let mut init = Init {
        node,
        pids,
        pid_outside,
        listener,
        connections: Vec::new(),
        connected: 0,
        watched: BTreeMap::new(),
        starting: BTreeMap::new(),
        kept: Kept::default(),
        orphans: Orphans::default(),
        childless: true,
        strayed: 0,
        lease: Lease::none(hold::now_ms()),
        hold_at_ms: 0,
        halted: BTreeSet::new(),
        dying: BTreeMap::new(),
        rest: Rest::default(),
        ending: false,
    };
    ready()?;
    init.serve(&children)
}

impl Init {
    fn serve(&mut self, children: &SignalFd) -> Result<(), String> {
        let mut more = false;
        while !self.ending {
            let again_ms = self
                .look_at_range()?
                .min(self.look_at_lease())
                .min(self.look_at_starting())
                .min(self.look_at_rest());
            let timeout = match (more, self.childless) {
                (true, _) => Some(0),
                (false, true) => None,
                (false, false) => Some(again_ms),
            };
            self.wait(children, timeout)?;
            while children.read_signal().map_err(no("hear of children"))?.is_some() {}
            more = self.look_at_children()?;
            self.hear_starting();
            for i in 0..self.connections.len() {
                self.hear(i);
            }
            self.send()?;
        }
        Ok(())
    }

    /// Keeps the pids in the range. When to look again.
    fn look_at_range(&mut self) -> Result<u64, String> {
        let turn = range::turn(self.pids.range(), self.pids.last()?);
        if turn.back {
            self.pids.go_back()?;
        }
        self.strayed += u64::from(turn.strayed);
        Ok(turn.again_ms)
    }

    /// Waits for something to do, and takes new connections.
    fn wait(&mut self, children: &SignalFd, timeout_ms: Option<u64>) -> Result<(), String> {
        let timeout = timeout_ms.map(|ms| Timespec {
            tv_sec: (ms / 1000) as i64,
            tv_nsec: (ms % 1000 * 1_000_000) as i64,
        });
        let mut fds = vec![PollFd::new(children, PollFlags::IN)];
        for c in &self.connections {
            let out = if c.peer.wants_to_write() { PollFlags::OUT } else { PollFlags::empty() };
            fds.push(PollFd::new(&c.peer, PollFlags::IN | out));
        }
        for s in self.starting.values() {
            fds.push(PollFd::new(&s.pipe, PollFlags::IN));
        }
        let room = self.connections.len() < CONNECTIONS_MAX;
        if room {
            fds.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(format!("wait: {e}")),
        }
        let knock = room && fds.last().is_some_and(|f| !f.revents().is_empty());
        drop(fds);
        if knock {
            self.accept();
        }
        Ok(())
    }

    fn accept(&mut self) {
        let Ok((socket, _)) = self.listener.accept() else { return };
        let root = peer::uid(&socket).is_ok_and(|uid| uid == 0);
        if !root || socket.set_nonblocking(true).is_err() {
            return;
        }
        self.connected += 1;
        let (number, peer) = (self.connected, Peer::new(socket));
        let mut c = Connection { number, peer, wide: false, alive: true };
        for ended in self.kept.waiting() {
            c.alive &= c.peer.push(&Tell::Ended(*ended)).is_ok();
        }
        self.connections.push(c);
    }

    /// Collects what ended. Whether there may be more.
    fn look_at_children(&mut self) -> Result<bool, String> {
        for _ in 0..WAIT_ROUND_MAX {
            match sys::wait_any().map_err(no("wait for children"))? {
                Wait::Changed(w) => self.changed(&w),
                Wait::Nothing => {
                    self.childless = false;
                    return Ok(false);
                }
                Wait::Childless => {
                    self.childless = true;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn changed(&mut self, w: &Waited) {
        let usage =
            Usage { user_us: w.user_us, system_us: w.system_us, max_rss_bytes: w.max_rss_bytes };
        let pid = w.pid;
        let exit = Exit::of(w.status);
        if exit.is_some() {
            // The number may be another one's from now on.
            self.halted.remove(&pid);
            self.dying.retain(|_, left| {
                left.remove(&pid);
                !left.is_empty()
            });
        }
        match exit {
            Some(exit) => match self.starting.get_mut(&pid) {
                Some(starting) => starting.ended = Some((exit, usage)),
                None => match self.watched.remove(&pid) {
                    Some(tree) => self.end(tree, pid, exit, usage),
                    None => self.orphans.push(pid, exit, usage),
                },
            },
            None if !self.watched.contains_key(&pid) => {}
            None if libc::WIFSTOPPED(w.status) => {
                self.tell_all(&Tell::Stopped { pid, signal: libc::WSTOPSIG(w.status) });
            }
            None => self.tell_all(&Tell::Continued { pid }),
        }
    }

    fn end(&mut self, tree: Option<Tree>, pid: i32, exit: Exit, usage: Usage) {
        if tree.is_some() {
            self.rest.of(pid);
        }
        let ended = self.kept.push(tree, pid, exit, usage);
        self.tell_all(&Tell::Ended(ended));
    }

    /// Gives up processes that do not become their programs: what they wait for may never come.
    /// When to look again, in milliseconds.
    fn look_at_starting(&mut self) -> u64 {
        let now = hold::now_ms();
        let late = self.starting.iter().filter(|(_, s)| s.until_ms <= now);
        let late: Vec<i32> = late.map(|(pid, _)| *pid).collect();
        for pid in late {
            let Some(s) = self.starting.remove(&pid) else { continue };
            // From here on it does nothing, also when it hangs in the kernel for a while yet.
            let _ended = sys::kill(pid, libc::SIGKILL);
            self.reply(s.by, Err(start::late(&s.program)));
        }
        let left = self.starting.values().map(|s| s.until_ms - now).min();
        left.unwrap_or(u64::MAX)
    }

    /// Sees which processes have become their programs, and which could not.
    fn hear_starting(&mut self) {
        let heard: Vec<(i32, Option<Failure>)> =
            self.starting.iter_mut().filter_map(|(pid, s)| Some((*pid, s.hear()?))).collect();
        for (pid, failure) in heard {
            let Some(s) = self.starting.remove(&pid) else { continue };
            if let Some(failure) = failure {
                // Its end is no tree's, and told to nobody.
                self.reply(s.by, Err(start::reason(failure, &s.program)));
                continue;
            }
            self.reply(s.by, calls::started(pid));
            match s.ended {
                Some((exit, usage)) => self.end(s.tree, pid, exit, usage),
                None => {
                    self.watched.insert(pid, s.tree);
                    // It is stopped like all others, if they are.
                    self.hold_at_ms = 0;
                }
            }
        }
    }

    fn reply(&mut self, (connection, id): (u64, u64), answer: Result<Value, Refusal>) {
        // Who hung up meanwhile asks for the status.
        let Some(c) = self.connections.iter_mut().find(|c| c.number == connection) else { return };
        let tell = match answer {
            Ok(value) => Tell::Reply { id, value },
            Err(refusal) => Tell::Refused { id, refusal },
        };
        c.alive &= c.peer.push(&tell).is_ok();
    }

    fn tell_all(&mut self, tell: &Tell) {
        for c in &mut self.connections {
            c.alive &= c.peer.push(tell).is_ok();
        }
    }

    fn send(&mut self) -> Result<(), String> {
        for c in &mut self.connections {
            c.alive &= c.peer.flush().is_ok();
        }
        let wide = self.connections.iter().any(|c| c.wide);
        self.connections.retain(|c| c.alive);
        match wide && !self.connections.iter().any(|c| c.wide) {
            true => self.pids.widen(false),
            false => Ok(()),
        }
    }
}

impl Starting {
    /// What came of it, once that is known; no failure when the program runs.
    fn hear(&mut self) -> Option<Option<Failure>> {
        let mut fds = [PollFd::new(&self.pipe, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if !matches!(poll(&mut fds, Some(&now)), Ok(n) if n > 0) {
            return None;
        }
        // A failure is one write, so that it is read whole.
        let mut word = [0; 8];
        let n = self.pipe.read(&mut word).ok()?;
        Some(start::unpack(&word[..n]))
    }
}
