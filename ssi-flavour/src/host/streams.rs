//! The relay of a copy, in a thread of its own.

use super::{Event, Peers};
use crate::cell::proto::Tree;
use crate::driver::ExternalFd;
use crate::ghost::Fault;
use crate::ghost::proto::Steer;
use crate::ghost::relay::{Ends, Offsets, Owner, Relay, Served};
use crate::ghost::spool::Follow;
use crate::pids::NodeNumber;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

/// Between two tries to reach who takes the output, at first and at most.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// How often a relay is looked at that is to leave who takes its output, [`RETRY_MIN`] apart.
const PARK_LOOKS: u32 = 250;

/// Where output goes.
struct Way {
    to: NodeNumber,
    /// Whether that is a spool which begins here.
    begins: bool,
    /// Nobody takes it until it does.
    held: bool,
    /// The relay has seen that: no more is acknowledged.
    parked: bool,
    socket: Option<UnixStream>,
}

/// The relay of a copy. Dropped, it is gone, and with it the other ends of the copy's pipes.
pub(super) struct Streaming {
    told: Owner,
    steer: UnixStream,
    go: Sender<()>,
    way: Arc<Mutex<Way>>,
    /// Sees what the relay reads.
    pub(super) follow: Arc<Follow>,
    /// The copy's standard input, output and error; one when they are a terminal.
    pub(super) keys: Vec<ExternalFd>,
}

/// That of a copy whose output nobody takes for now.
pub(super) struct Parked(Arc<Mutex<Way>>);

/// What the standard streams of a copy are to be.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    /// The account that a terminal is of; none: pipes.
    pub(super) terminal_of: Option<u32>,
    /// Whether somebody may write its standard input.
    pub(super) input: bool,
}

/// How far a tree's output is.
#[derive(Clone, Copy)]
pub(super) struct Places {
    /// Where the copy goes on.
    pub(super) now: Offsets,
    /// Where its spool begins, in output and error output.
    pub(super) first: [u64; 2],
}

/// The standard streams of a copy that is to be made.
pub(super) struct Made {
    /// What the copy gets: three, or a terminal.
    pub(super) fds: Vec<OwnedFd>,
    /// What they are.
    pub(super) keys: Vec<ExternalFd>,
    /// Their other ends.
    pub(super) ends: Ends,
}

impl Streaming {
    /// A relay of a copy whose output goes to the node where the tree was born, and the
    /// descriptors of the copy. It serves nobody until [`Streaming::go`], and only one that is `new`,
    /// since no other copy may be the tree, reaches out before: the way is there when the copy is.
    pub(super) fn new(
        (tree, new): (Tree, bool),
        birth: NodeNumber,
        wanted: Wanted,
        at: Places,
        peers: Arc<dyn Peers>,
        events: UnboundedSender<Event>,
    ) -> io::Result<(Streaming, Vec<OwnedFd>)> {
        let Made { fds, keys, ends } = match wanted.terminal_of {
            Some(uid) => terminal(uid)?,
            None => pipes(wanted.input)?,
        };
        let (owner, relays) = UnixStream::pair()?;
        let follow = Arc::new(Follow::new([at.now.output, at.now.error]));
        let relay = Relay::new(tree, ends, at.now, relays)?.followed(follow.clone());
        let (told, steer) = (Owner::new(owner.try_clone()?), owner.try_clone()?);
        let (go, gone) = channel();
        let way = Arc::new(Mutex::new(Way {
            to: birth,
            begins: false,
            held: false,
            parked: false,
            socket: None,
        }));
        let shared = way.clone();
        let (asks, first) = (events.clone(), at.first);
        let thread = |name: &str| std::thread::Builder::new().name(format!("{name}-{}", tree.id));
        let relay = (relay, new, first);
        thread("relay").spawn(move || serve(relay, &gone, &shared, &*peers, &events))?;
        thread("steer").spawn(move || {
            let mut asked = Owner::new(owner);
            while let Ok(Some(steered)) = asked.next_asked() {
                if asks.send(Event::Steered { tree, steered }).is_err() {
                    return;
                }
            }
        })?;
        Ok((Streaming { told, steer, go, way, follow, keys }, fds))
    }

    /// The copy is the tree: what it writes is sent.
    pub(super) fn go(&self) {
        // A relay that is over needs nobody.
        let _over = self.go.send(());
    }

    /// Sends the output to a spool at this node from now on, from what nobody acknowledged.
    pub(super) fn turn(&self, here: NodeNumber) {
        let mut way = self.way.lock().unwrap_or_else(PoisonError::into_inner);
        if way.begins {
            return;
        }
        (way.to, way.begins, way.held) = (here, true, false);
        if let Some(socket) = &way.socket {
            let _gone = socket.shutdown(Shutdown::Both);
        }
    }

    /// Has nobody take the output until it is turned: what is acknowledged stays the same.
    pub(super) fn park(&self) -> Parked {
        let mut way = self.way.lock().unwrap_or_else(PoisonError::into_inner);
        way.held = !way.begins;
        if let Some(socket) = &way.socket {
            let _gone = socket.shutdown(Shutdown::Both);
        }
        Parked(self.way.clone())
    }

    /// Whether it does.
    pub(super) fn is_turned(&self) -> bool {
        self.way.lock().unwrap_or_else(PoisonError::into_inner).begins
    }

    /// A relay that is gone answers nothing; what waits for it has a limit.
    pub(super) fn tell(&mut self, steer: Steer) {
        if let Err(error) = self.told.tell(steer) {
            tracing::warn!(%error, ?steer, "a relay is gone");
        }
    }
}

impl Parked {
    /// Waits until the relay has seen it, not for ever.
    pub(super) fn wait(&self) {
        let seen = || self.0.lock().unwrap_or_else(PoisonError::into_inner).parked;
        for _ in 0..PARK_LOOKS {
            if seen() {
                return;
            }
            std::thread::sleep(RETRY_MIN);
        }
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        let _gone = self.steer.shutdown(Shutdown::Both);
    }
}

/// Standard input, output and error of a program as pipes. Input that nobody writes has ended.
pub(super) fn pipes(input: bool) -> io::Result<Made> {
    let (stdin, writes) = io::pipe()?;
    let (output, stdout) = io::pipe()?;
    let (error, stderr) = io::pipe()?;
    let fds: Vec<OwnedFd> = vec![stdin.into(), stdout.into(), stderr.into()];
    let keys = fds.iter().map(key).collect::<io::Result<Vec<_>>>()?;
    let input = input.then(|| writes.into());
    Ok(Made { fds, keys, ends: Ends::Pipes { input, output: output.into(), error: error.into() } })
}

/// A pseudo-terminal of an account, which its programs may open again by its name.
fn terminal(uid: u32) -> io::Result<Made> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags)?;
    rustix::pty::grantpt(&master)?;
    rustix::pty::unlockpt(&master)?;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    nix::unistd::fchown(&slave, Some(nix::unistd::Uid::from_raw(uid)), None)?;
    // Until somebody attaches who has one.
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&slave, size)?;
    let keys = vec![key(&slave)?];
    Ok(Made { fds: vec![slave], keys, ends: Ends::Terminal(master) })
}

fn key(fd: &OwnedFd) -> io::Result<ExternalFd> {
    ExternalFd::of(fd)?.ok_or_else(|| io::Error::other("a stream that is none"))
}

fn serve(
    (mut relay, new, first): (Relay, bool, [u64; 2]),
    gone: &Receiver<()>,
    way: &Mutex<Way>,
    peers: &dyn Peers,
    events: &UnboundedSender<Event>,
) {
    let tree = relay.tree();
    let way = || way.lock().unwrap_or_else(PoisonError::into_inner);
    let mut early = new.then(|| {
        let to = way().to;
        (to, peers.output(to, tree, [0, 0]))
    });
    if gone.recv().is_err() {
        return;
    }
    let mut pause = RETRY_MIN;
    // Where it was to go at first lacks what is before it: it waits for another spool.
    let mut lost = false;
    loop {
        let (to, begins, held) = {
            let mut way = way();
            way.parked = way.held;
            (way.to, way.begins, way.held)
        };
        if held || (lost && !begins) {
            early = None;
            if gone.recv_timeout(RETRY_MIN) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
            continue;
        }
        let had = relay.acknowledged();
        let from = if begins { had } else { first };
        let reached = match early.take() {
            Some((there, socket)) if there == to && !begins => socket,
            _ => peers.output(to, tree, from),
        };
        let served = reached.and_then(|socket| {
            let kept = socket.try_clone()?;
            {
                let mut way = way();
                if way.to != to || way.held {
                    return Ok(Served::Disconnected);
                }
                way.socket = Some(kept);
            }
            relay.serve(socket)
        });
        // Who lets it in and takes nothing is not asked without a pause.
        if relay.acknowledged() != had {
            pause = RETRY_MIN;
        }
        // The other end sees that nobody is here any more.
        way().socket = None;
        match served {
            Ok(Served::Disconnected) => {}
            Ok(Served::Done) => {
                // A host that is gone needs no word.
                let _gone = events.send(Event::Taken { tree });
                return;
            }
            Ok(Served::Abandoned) => return,
            Ok(Served::Fault(fault)) => {
                tracing::warn!(%tree, %fault, "the output of a copy is not taken");
                if begins || !matches!(fault, Fault::Forgotten { .. }) {
                    return;
                }
                lost = true;
            }
            Err(error) => tracing::debug!(%tree, %error, "nobody takes the output yet"),
        }
        if gone.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
        pause = (pause * 2).min(RETRY_MAX);
    }
}

#[cfg(test)]
pub(super) mod tests;
