//! The spools of a node, and who is at their two ends.

use super::stood::Stood;
use super::{OUTCOME_FILE, Spool, guest};
use crate::cell::proto::{Exit, Tree};
use crate::cluster::messages::{End, Outcome};
use crate::ghost::link::Link;
use crate::ghost::proto::GhostId;
use crate::ghost::wake::Wake;
use rustix::event::{PollFd, PollFlags, poll};
use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most ghosts that are attached to the spools of a node at once.
pub const GUESTS_MAX: usize = 1024;

/// The spools of a node, each in a folder by its tree's number.
#[derive(Debug)]
pub struct Spools {
    pub(super) folder: PathBuf,
    pub(super) open: Arc<Mutex<BTreeMap<u64, Arc<Mutex<State>>>>>,
    guests: Arc<AtomicUsize>,
    /// Trees for which a ghost stands here, or stood.
    pub(super) stood: Mutex<BTreeMap<u64, Stood>>,
}

/// A spool that was used.
#[derive(Debug, Default)]
pub(super) struct State {
    /// None yet: a ghost came before the tree's first output.
    pub(super) spool: Option<Spool>,
    /// The newest copy that came.
    epoch: u64,
    /// The last number of a connection.
    lines: u64,
    pub(super) relay: Option<Line>,
    guest: Option<Line>,
    /// Which ghost is heard, also while its connection is gone.
    session: Option<u64>,
    /// What became of the tree, as its controller said.
    pub(super) outcome: Option<Outcome>,
}

/// A connection that is served.
#[derive(Debug)]
pub(super) struct Line {
    number: u64,
    socket: UnixStream,
    pub(super) wake: Arc<Wake>,
}

/// What became of a ghost's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is the one that is served.
    Served,
    /// The same ghost has another one.
    Again,
    /// Another ghost came.
    Replaced,
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn line(&mut self, socket: &UnixStream, wake: &Arc<Wake>) -> io::Result<Line> {
        self.lines += 1;
        Ok(Line { number: self.lines, socket: socket.try_clone()?, wake: wake.clone() })
    }

    /// Takes a ghost's connection in; its number. `None`: another one took its place.
    pub(super) fn admit(
        &mut self,
        who: GhostId,
        socket: &UnixStream,
        wake: &Arc<Wake>,
    ) -> io::Result<Option<u64>> {
        if who.again && self.session.is_some_and(|session| session != who.number) {
            return Ok(None);
        }
        let line = self.line(socket, wake)?;
        let number = line.number;
        self.session = Some(who.number);
        if let Some(before) = self.guest.replace(line) {
            before.wake.wake();
        }
        Ok(Some(number))
    }

    pub(super) fn standing(&self, number: u64, session: u64) -> Standing {
        if self.guest.as_ref().is_some_and(|line| line.number == number) {
            Standing::Served
        } else if self.session == Some(session) {
            Standing::Again
        } else {
            Standing::Replaced
        }
    }

    /// How the tree ended; of one that is lost nothing.
    pub(super) fn exit(&self) -> Option<Exit> {
        let told = || match self.outcome.as_ref()? {
            Outcome::Ended(End::Exit { code }) => Some(Exit::Code(*code)),
            Outcome::Ended(End::Signal { number }) => Some(Exit::Signal(i32::from(*number))),
            Outcome::Lost { .. } => None,
        };
        self.spool.as_ref().and_then(|spool| spool.kept.exit).or_else(told)
    }

    /// What the folder has of a tree that was here before.
    pub(super) fn recall(&mut self, folder: &Path, tree: u64) -> io::Result<()> {
        if self.spool.is_none() && Spool::is_in(folder) {
            let spool = Spool::open(folder, Tree { id: tree, epoch: 0 }, [0, 0])?;
            self.epoch = self.epoch.max(spool.kept.epoch);
            self.spool = Some(spool);
        }
        if self.outcome.is_none() {
            self.outcome = match std::fs::read(folder.join(OUTCOME_FILE)) {
                Ok(bytes) => Some(serde_json::from_slice(&bytes)?),
                Err(e) if e.kind() == ErrorKind::NotFound => None,
                Err(e) => return Err(e),
            };
        }
        Ok(())
    }

    /// Whether it is known that the tree is over.
    pub(super) fn is_over(&self) -> bool {
        self.outcome.is_some() || self.exit().is_some()
    }

    fn is_relay(&self, number: u64) -> bool {
        self.relay.as_ref().is_some_and(|line| line.number == number)
    }

    fn leave_relay(&mut self, number: u64) {
        if let Some(line) = self.relay.take_if(|line| line.number == number) {
            let _gone = line.socket.shutdown(Shutdown::Both);
        }
    }

    /// A ghost's connection is served no more; it may come again.
    pub(super) fn leave_guest(&mut self, number: u64) {
        self.guest.take_if(|line| line.number == number);
    }

    /// One round with a relay's connection. Whether the tree is over and all of it is here.
    fn relay_round(&mut self, link: &mut Link) -> io::Result<bool> {
        let Some(spool) = &mut self.spool else { return Ok(true) };
        let before = spool.towards_guest();
        spool.hear(link)?;
        let over = spool.answer(link)?;
        if spool.towards_guest() != before
            && let Some(guest) = &self.guest
        {
            guest.wake.wake();
        }
        Ok(over)
    }
}

impl Spools {
    /// Those below a folder, which is made when it is needed.
    pub fn new(folder: impl Into<PathBuf>) -> Spools {
        let (open, guests, stood) = Default::default();
        Spools { folder: folder.into(), open, guests, stood }
    }

    /// Where the spool of a tree is, or would be.
    pub fn folder(&self, tree: u64) -> PathBuf {
        self.folder.join(tree.to_string())
    }

    pub(super) fn state(&self, tree: u64) -> Arc<Mutex<State>> {
        locked(&self.open).entry(tree).or_default().clone()
    }

    /// Serves the connection of a copy's relay in a thread of its own; one that is served now is
    /// cut. A spool that is new begins at the offsets `from`.
    ///
    /// # Errors
    /// That the copy is not the newest that was heard of, or the spool cannot be opened.
    pub fn serve(&self, tree: Tree, from: [u64; 2], socket: UnixStream) -> io::Result<()> {
        let shared = self.state(tree.id);
        let wake = Arc::new(Wake::new()?);
        let number = {
            let mut state = locked(&shared);
            if state.spool.is_none() {
                let spool = Spool::open(&self.folder(tree.id), tree, from)?;
                state.epoch = spool.kept.epoch;
                state.spool = Some(spool);
            }
            if tree.epoch < state.epoch {
                let why = format!("{tree} is not the newest copy: {} is", state.epoch);
                return Err(io::Error::other(why));
            }
            state.epoch = tree.epoch;
            let line = state.line(&socket, &wake)?;
            let number = line.number;
            if let Some(before) = state.relay.replace(line) {
                // Its end may have come already.
                let _gone = before.socket.shutdown(Shutdown::Both);
            }
            number
        };
        std::thread::Builder::new().name(format!("spool-{}", tree.id)).spawn(move || {
            if let Err(error) = serve_relay(&shared, number, &wake, socket) {
                tracing::warn!(%tree, %error, "the connection of a spool ended");
            }
            locked(&shared).leave_relay(number);
        })?;
        Ok(())
    }

    /// Serves a ghost that attaches to a tree from elsewhere, in a thread of its own: it gets what
    /// the tree wrote, from the offsets that its Hello says or from where the spool begins, and
    /// what it writes, its signals and the size of its terminal go on to the tree. One that was
    /// attached before is told that it is replaced, unless it is the same one again. When the tree
    /// is over and the ghost has all, it is told how. A ghost that goes away ends nothing.
    ///
    /// A tree that was not heard of yet is waited for: whether it exists is the caller's to know,
    /// and who may attach.
    ///
    /// # Errors
    /// That [`GUESTS_MAX`] are attached, or the spool cannot be opened.
    pub fn attach(&self, tree: u64, socket: UnixStream) -> io::Result<()> {
        let counted = self.counted()?;
        let shared = self.state(tree);
        locked(&shared).recall(&self.folder(tree), tree)?;
        let all = self.open.clone();
        std::thread::Builder::new().name(format!("guest-{tree}")).spawn(move || {
            let _counted = counted;
            if let Err(error) = guest::serve(&shared, socket) {
                tracing::debug!(tree, %error, "who followed a tree is gone");
            }
            forget(&all, tree, &shared);
        })?;
        Ok(())
    }

    pub(super) fn counted(&self) -> io::Result<Counted> {
        let counted = Counted(self.guests.clone());
        if self.guests.fetch_add(1, Ordering::SeqCst) >= GUESTS_MAX {
            return Err(io::Error::other(format!("{GUESTS_MAX} programs are followed already")));
        }
        Ok(counted)
    }

    /// The tree is over: no connection of its is kept, and what became of it is written down, in
    /// [`OUTCOME_FILE`]. Its files stay; a ghost that is attached gets the rest of them. Of one for
    /// which a ghost stood here nothing stays.
    ///
    /// # Errors
    /// Those of the file.
    pub fn finish(&self, tree: u64, outcome: &Outcome) -> io::Result<()> {
        let left = self.is_left(tree);
        let folder = self.folder(tree);
        if !left {
            DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            crate::disk::replace(&folder.join(OUTCOME_FILE), &serde_json::to_vec(outcome)?)?;
        }
        let shared = locked(&self.open).remove(&tree);
        if let Some(shared) = &shared {
            let mut state = locked(shared);
            state.outcome = Some(outcome.clone());
            if let Some(relay) = state.relay.take() {
                let _gone = relay.socket.shutdown(Shutdown::Both);
            }
            if let Some(guest) = &state.guest {
                guest.wake.wake();
            }
        }
        if left { self.forget(tree) } else { Ok(()) }
    }
}

/// One of those that count against [`GUESTS_MAX`].
pub(super) struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A spool that nobody but the ghost that goes had to do with, of a tree that is over or was never
/// heard of, is not kept open.
pub(super) fn forget(
    all: &Mutex<BTreeMap<u64, Arc<Mutex<State>>>>,
    tree: u64,
    shared: &Arc<Mutex<State>>,
) {
    let mut all = locked(all);
    let mine = all.get(&tree).is_some_and(|other| Arc::ptr_eq(other, shared));
    let unused = || {
        let state = locked(shared);
        state.outcome.is_some() || state.spool.is_none()
    };
    // The map's, and the one of the thread that asks.
    if mine && Arc::strong_count(shared) <= 2 && unused() {
        all.remove(&tree);
    }
}

/// Serves one connection of a relay, to its end or the tree's. Waits.
fn serve_relay(
    shared: &Mutex<State>,
    number: u64,
    wake: &Wake,
    socket: UnixStream,
) -> io::Result<()> {
    let mut link = Link::new(socket)?;
    {
        let mut state = locked(shared);
        if !state.is_relay(number) {
            return Ok(());
        }
        let Some(spool) = &mut state.spool else { return Ok(()) };
        link.push(&spool.connected())?;
    }
    loop {
        link.flush()?;
        let out = if link.wants_to_write() { PollFlags::OUT } else { PollFlags::empty() };
        let mut fds = [PollFd::new(&link, PollFlags::IN | out), PollFd::new(wake, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        wake.clear();
        let open = link.fill()?;
        let over = {
            let mut state = locked(shared);
            if !state.is_relay(number) {
                return Ok(());
            }
            state.relay_round(&mut link)?
        };
        if over {
            return link.finish();
        }
        if !open {
            return Ok(());
        }
    }
}
