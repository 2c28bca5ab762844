//! The spools of a node, and who is at their two ends.

use super::places::Places;
use super::quota::{Limits, Quota};
use super::second::Second;
use super::stood::Stood;
use super::{Kept, OUTCOME_FILE, Spool, WANTED_FILE, guest};
use crate::cell::proto::{Exit, Tree};
use crate::cluster::messages::{End, Outcome};
use crate::ghost::link::Link;
use crate::ghost::proto::GhostId;
use crate::ghost::wake::Wake;
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The spools of a node, each in a folder by its tree's number. A clone is the same.
#[derive(Clone, Debug)]
pub struct Spools {
    pub(super) folder: PathBuf,
    pub(super) open: Arc<Mutex<BTreeMap<u64, Arc<Mutex<State>>>>>,
    pub(super) places: Places,
    /// Trees for which a ghost stands here, or stood.
    pub(super) stood: Arc<Mutex<BTreeMap<u64, Stood>>>,
    pub(super) quota: Arc<Quota>,
    /// What is kept of trees whose spools are elsewhere, as far as it was used.
    pub(super) seconds: Arc<Mutex<BTreeMap<u64, Arc<Mutex<Second>>>>>,
}

/// A spool that was used.
#[derive(Debug, Default)]
pub(super) struct State {
    /// None yet: a ghost came before the tree's first output.
    pub(super) spool: Option<Spool>,
    /// The uid of whose tree it is; 0: that was not said yet.
    owner: u32,
    /// The tree began here.
    begun: bool,
    /// The newest copy that came.
    pub(super) epoch: u64,
    /// The last number of a connection.
    lines: u64,
    pub(super) relay: Option<Line>,
    guest: Option<Line>,
    /// The last ghost that came and did not say yet who it is.
    comer: Option<(u64, UnixStream)>,
    /// Which ghost is heard, also while its connection is gone.
    session: Option<u64>,
    /// What became of the tree, as its controller said.
    pub(super) outcome: Option<Outcome>,
}

/// A connection that is served.
#[derive(Debug)]
pub(super) struct Line {
    number: u64,
    pub(super) socket: UnixStream,
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

    /// Notes whose the tree is.
    pub(super) fn owned_by(&mut self, owner: u32) -> io::Result<()> {
        self.owner = owner;
        self.spool.as_mut().map_or(Ok(()), |spool| spool.owned_by(owner))
    }

    /// A ghost comes; its number. One that came before and has not said who it is is cut: nobody
    /// can hold more than one place by saying nothing.
    pub(super) fn come(&mut self, socket: &UnixStream) -> io::Result<u64> {
        self.lines += 1;
        if let Some((_, before)) = self.comer.replace((self.lines, socket.try_clone()?)) {
            let _gone = before.shutdown(Shutdown::Both);
        }
        Ok(self.lines)
    }

    /// It said who it is, or is gone.
    pub(super) fn comes_no_more(&mut self, comer: u64) {
        self.comer.take_if(|(number, _)| *number == comer);
    }

    /// Nobody has to get anything: what waits for that goes on.
    fn unfollow(&mut self) {
        if let Some(spool) = &mut self.spool {
            spool.follows = None;
        }
        if let Some(relay) = &self.relay {
            relay.wake.wake();
        }
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
        self.unfollow();
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
            Outcome::Ended(End::OutOfMemory) => Some(Exit::Signal(libc::SIGKILL)),
            Outcome::Ended(End::ProcessLimit { status }) => Some(Exit::Code(*status)),
            Outcome::Lost { .. } => None,
        };
        self.spool.as_ref().and_then(|spool| spool.kept.exit).or_else(told)
    }

    /// What the folder has of a tree that was here before.
    fn recall(&mut self, folder: &Path, tree: u64, quota: &Arc<Quota>) -> io::Result<()> {
        if self.spool.is_none() && Spool::is_in(folder) {
            let tree = Tree { id: tree, epoch: 0 };
            let spool = Spool::open(folder, tree, [0, 0], quota, (self.owner, true))?;
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

    /// The spool is one of a line, with this copy or a newer one.
    pub(super) fn renew(&mut self, epoch: u64, line: u64) -> io::Result<()> {
        self.epoch = self.epoch.max(epoch);
        let Some(spool) = &mut self.spool else { return Ok(()) };
        let epoch = spool.kept.epoch.max(epoch);
        spool.keep(Kept { epoch, line, ..spool.kept })
    }

    /// Whether it is known that the tree is over.
    pub(super) fn is_over(&self) -> bool {
        self.outcome.is_some() || self.exit().is_some()
    }

    pub(super) fn is_relay(&self, number: u64) -> bool {
        self.relay.as_ref().is_some_and(|line| line.number == number)
    }

    fn leave_relay(&mut self, number: u64) {
        if let Some(line) = self.relay.take_if(|line| line.number == number) {
            let _gone = line.socket.shutdown(Shutdown::Both);
        }
    }

    /// A ghost's connection is served no more; it may come again.
    pub(super) fn leave_guest(&mut self, number: u64) {
        if self.guest.take_if(|line| line.number == number).is_some() {
            self.unfollow();
        }
    }

    /// One round with a relay's connection. Whether the tree is over and all of it is here.
    pub(super) fn relay_round(&mut self, link: &mut Link) -> io::Result<bool> {
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
        Spools::within(folder, Limits::default())
    }

    /// As [`Spools::new`], within other limits.
    pub fn within(folder: impl Into<PathBuf>, limits: Limits) -> Spools {
        let (open, places, stood, seconds) = Default::default();
        let folder = folder.into();
        let quota = Arc::new(Quota::new(folder.clone(), limits));
        Spools { folder, open, places, stood, quota, seconds }
    }

    /// A tree begins whose output comes here: user `uid`'s. What is `wanted` is kept whole until
    /// [`Spools::forget`]; a tree that writes too much of that sees that nobody reads it.
    ///
    /// # Errors
    /// Those of the folder.
    pub fn begin(&self, tree: u64, uid: u32, wanted: bool) -> io::Result<()> {
        let shared = self.state(tree);
        let mut state = locked(&shared);
        state.begun = true;
        state.owned_by(uid)?;
        self.mark(tree, wanted, &mut state)
    }

    /// Marks what somebody wants whole.
    fn mark(&self, tree: u64, wanted: bool, state: &mut State) -> io::Result<()> {
        if wanted {
            let folder = self.folder(tree);
            DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            File::create(folder.join(WANTED_FILE))?;
            if let Some(spool) = &mut state.spool {
                spool.wanted = true;
            }
        }
        Ok(())
    }

    pub(super) fn open_spool(
        &self,
        state: &mut State,
        tree: Tree,
        from: [u64; 2],
    ) -> io::Result<()> {
        let folder = self.folder(tree.id);
        let whose = (state.owner, !self.stands(tree.id));
        let spool = Spool::open(&folder, tree, from, &self.quota, whose)?;
        state.epoch = spool.kept.epoch;
        state.spool = Some(spool);
        Ok(())
    }

    /// Where the spool of a tree is, or would be.
    pub fn folder(&self, tree: u64) -> PathBuf {
        self.folder.join(tree.to_string())
    }

    pub(super) fn recall(&self, state: &mut State, tree: u64) -> io::Result<()> {
        state.recall(&self.folder(tree), tree, &self.quota)
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
                self.open_spool(&mut state, tree, from)?;
            }
            if let Some(spool) = state.spool.as_ref().filter(|spool| spool.lacks(from)) {
                tracing::warn!(%tree, "a spool begins anew: it lacks what its copy does not have");
                let wanted = spool.wanted;
                self.drop_spool(&mut state, tree.id)?;
                self.open_spool(&mut state, tree, from)?;
                self.mark(tree.id, wanted, &mut state)?;
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
        let spools = self.clone();
        std::thread::Builder::new().name(format!("spool-{}", tree.id)).spawn(move || {
            if let Err(error) = spools.serve_relay(&shared, number, &wake, socket) {
                tracing::warn!(%tree, %error, "the connection of a spool ended");
            }
            locked(&shared).leave_relay(number);
        })?;
        Ok(())
    }

    /// Serves a ghost of user `uid`, whose the tree is, that attaches from elsewhere, in a thread of
    /// its own: it gets what the tree wrote, from the offsets that its Hello says or from where what
    /// is kept begins, and what it writes, its signals and the size of its terminal go on to the
    /// tree. One that was attached before is told that it is replaced, unless it is the same one
    /// again. When the tree is over and the ghost has all, it is told how. A ghost that goes away
    /// ends nothing.
    ///
    /// A tree that was not heard of yet is waited for: whether it exists is the caller's to know,
    /// and who may attach.
    ///
    /// # Errors
    /// That [`super::GUESTS_MAX`] are attached, [`super::OWN_GUESTS_MAX`] of this person, or the spool cannot be
    /// opened.
    pub fn attach(&self, tree: u64, uid: u32, socket: UnixStream) -> io::Result<()> {
        let counted = self.places.take(uid)?;
        let shared = self.state(tree);
        let comer = {
            let mut state = locked(&shared);
            self.recall(&mut state, tree)?;
            state.owned_by(uid)?;
            state.come(&socket)?
        };
        let all = self.open.clone();
        std::thread::Builder::new().name(format!("guest-{tree}")).spawn(move || {
            let _counted = counted;
            if let Err(error) = guest::serve(&shared, socket, comer) {
                tracing::debug!(tree, %error, "who followed a tree is gone");
            }
            forget(&all, tree, &shared);
        })?;
        Ok(())
    }

    /// The tree is over: no connection of its is kept, and what became of it is written down, in
    /// [`OUTCOME_FILE`]. Its files stay; a ghost that is attached gets the rest of them. Of one for
    /// which a ghost stood here nothing stays.
    ///
    /// # Errors
    /// Those of the file.
    pub fn finish(&self, tree: u64, outcome: &Outcome) -> io::Result<()> {
        let stood = self.note_over(tree);
        let left = stood == Some(Stood::Left);
        let folder = self.folder(tree);
        if !left {
            DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            let (path, bytes) = (folder.join(OUTCOME_FILE), serde_json::to_vec(outcome)?);
            match stood {
                Some(_) => crate::disk::put(&path, &bytes)?,
                None => crate::disk::replace(&path, &bytes)?,
            }
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
        state.outcome.is_some() || state.spool.is_none() && !state.begun
    };
    // The map's, and the one of the thread that asks.
    if mine && Arc::strong_count(shared) <= 2 && unused() {
        all.remove(&tree);
    }
}
