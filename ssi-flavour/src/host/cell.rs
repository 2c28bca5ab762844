//! What the host asks its cell. All of it waits.

use super::restores::{RESTORES_MAX, Restores};
use crate::cell::proto::{
    Ask, CONNECTIONS_MAX, Dying, Exit, Leased, Program, Refusal, Start, Started, Status, Tree,
};
use crate::cell::{CallError, Client, Event, LOCK_FILE, launch};
use crate::pids::NodeNumber;
use libc::SIGCONT;
use rustix::fs::FlockOperation;
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use xos_base::Millis;

/// How long processes may take to die, or a cell to end.
const DEATH_MAX: Duration = Duration::from_secs(20);
/// From one look to the next meanwhile.
const LOOK: Duration = Duration::from_millis(5);
/// How long the listening thread waits before it looks again.
const LISTEN: Duration = Duration::from_secs(60);

/// How often it is tried to have a tree stand still that makes processes meanwhile.
const HALTS_MAX: u32 = 20;
/// Programs that are started at a time. One whose volume does not answer takes a while.
const STARTS_MAX: usize = 8;

/// The cell of a node. Of its connections ([`CONNECTIONS_MAX`]) one is for all that is answered at
/// once, and stays, so that nothing keeps a lease from the cell; one hears of ends; the others are
/// of what takes a while, of which there is no more at a time than there is room for.
pub(super) struct Calls {
    dir: PathBuf,
    one: Mutex<Option<Client>>,
    /// To be had for what starts a program or a helper.
    pub(super) starts: Semaphore,
    /// To be had for what restores a copy.
    pub(super) restores: Restores,
}

const _: () = assert!(STARTS_MAX + RESTORES_MAX + 2 <= CONNECTIONS_MAX);

impl Calls {
    /// A new cell in a folder, which is made: what ran in an older one is ended.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn begin(program: &Path, dir: &Path, node: NodeNumber) -> io::Result<Calls> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        end_old(dir)?;
        launch(program, dir, node)?;
        let (starts, restores) = (Semaphore::new(STARTS_MAX), Restores::new());
        Ok(Calls { dir: dir.to_owned(), one: Mutex::default(), starts, restores })
    }

    /// A connection of its own.
    pub(super) fn connect(&self) -> io::Result<Client> {
        Client::connect(&self.dir)
    }

    /// Asks what is answered at once, and may be asked twice.
    pub(super) fn call<T: DeserializeOwned>(&self, ask: Ask) -> Result<T, CallError> {
        let mut one = self.one.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut client) = one.take() {
            match client.call(ask.clone(), &[]) {
                // The cell may have dropped it.
                Err(CallError::Link(e)) if e.kind() != ErrorKind::TimedOut => {}
                Err(CallError::Link(e)) => return Err(e.into()),
                answer => {
                    client.forget();
                    *one = Some(client);
                    return answer;
                }
            }
        }
        let mut client = self.connect()?;
        let answer = client.call(ask, &[]);
        if !matches!(answer, Err(CallError::Link(_))) {
            client.forget();
            *one = Some(client);
        }
        answer
    }

    pub(super) fn status(&self) -> Result<Status, CallError> {
        self.call(Ask::Status)
    }

    /// Starts a program; one of [`Calls::starts`] is held meanwhile.
    pub(super) fn start(&self, start: Start, fds: &[OwnedFd]) -> Result<Started, CallError> {
        self.connect()?.start(start, fds)
    }

    /// Runs a helper in the cell, as root; one of [`Calls::starts`] is held meanwhile.
    pub(super) fn help(&self, program: Program, fds: &[OwnedFd]) -> Result<Started, CallError> {
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        self.connect()?.call(Ask::Help(Box::new(program)), &fds)
    }

    /// Says until when trees may run, and after what time of standing still they are ended when no
    /// host is left. What the cell itself had stopped and is none of `copies`', as it left its tree,
    /// is sent the signal `rest`. Whether all stood still: copies go on when the host lets them.
    pub(super) fn lease(
        &self,
        until: Millis,
        end_after: Option<Duration>,
        copies: &HashSet<Tree>,
        rest: i32,
    ) -> Result<bool, CallError> {
        let end_after_ms = end_after.map(|after| Millis(0).plus(after).0);
        let leased: Leased = self.call(Ask::Lease { until_ms: until.0, end_after_ms })?;
        if leased.stopped.is_empty() {
            return Ok(leased.held);
        }
        let status = self.status()?;
        let trees = status.trees.iter().filter(|t| t.tree.is_some_and(|t| copies.contains(&t)));
        let ours: HashSet<i32> = trees.flat_map(|t| t.processes.iter().copied()).collect();
        let others = leased.stopped.into_iter().filter(|pid| !ours.contains(pid));
        for pid in others {
            self.signal(pid, rest)?;
        }
        Ok(leased.held)
    }

    /// The processes of a tree; empty when it is over.
    fn processes(&self, tree: Tree) -> Result<Vec<i32>, CallError> {
        let status = self.status()?;
        let of = status.trees.into_iter().find(|t| t.tree == Some(tree));
        Ok(of.map(|t| t.processes).unwrap_or_default())
    }

    pub(super) fn signal(&self, pid: i32, signal: i32) -> Result<(), CallError> {
        match self.call(Ask::Signal { pid, signal, group: false }) {
            // It ended meanwhile; or the lease did, and it goes on with the next one.
            Err(CallError::Refused(Refusal::NoSuchProcess(_) | Refusal::Held)) => Ok(()),
            other => other,
        }
    }

    /// Has all of a tree stand still.
    pub(super) fn halt(&self, tree: Tree) -> Result<(), CallError> {
        for _ in 1..HALTS_MAX {
            match self.call(Ask::Halt { tree }) {
                Err(CallError::Refused(Refusal::System(_))) => std::thread::sleep(LOOK),
                halted => return halted,
            }
        }
        self.call(Ask::Halt { tree })
    }

    /// Lets all of a tree go on.
    pub(super) fn go(&self, tree: Tree) -> Result<(), CallError> {
        self.processes(tree)?.into_iter().try_for_each(|pid| self.signal(pid, SIGCONT))
    }

    /// Sends all of a tree its end. What has not ended yet: it is asked for again.
    pub(super) fn end(&self, tree: Tree) -> Result<Vec<i32>, CallError> {
        self.call::<Dying>(Ask::Kill { tree }).map(|dying| dying.left)
    }

    /// Ends all of a tree, and waits until it is gone, but not for ever.
    pub(super) fn kill(&self, tree: Tree) -> Result<(), CallError> {
        let until = Instant::now() + DEATH_MAX;
        while !self.end(tree)?.is_empty() {
            if Instant::now() >= until {
                let text = format!("{tree} does not die: a process of it hangs in the kernel");
                return Err(CallError::Link(io::Error::new(ErrorKind::TimedOut, text)));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Tells of each tree that ends, until the cell is gone or nobody hears.
    pub(super) fn listen(
        &self,
        heard: impl Fn(Option<(Tree, Exit)>) -> bool + Send + 'static,
    ) -> io::Result<()> {
        let mut client = self.connect()?;
        let listening = move || {
            loop {
                let on = match client.next(LISTEN) {
                    Ok(Some(Event::Ended(ended))) => {
                        let told = ended.tree.is_none_or(|tree| heard(Some((tree, ended.exit))));
                        told && client.call::<()>(Ask::Acknowledge { seq: ended.seq }, &[]).is_ok()
                    }
                    Ok(Some(Event::Stopped { .. } | Event::Continued { .. }) | None) => true,
                    Err(_) => false,
                };
                if !on {
                    heard(None);
                    return;
                }
            }
        };
        std::thread::Builder::new().name("cell-ends".to_owned()).spawn(listening).map(drop)
    }
}

/// Ends the cell of a folder, if one runs.
pub(super) fn end_old(dir: &Path) -> io::Result<()> {
    let file = match File::open(dir.join(LOCK_FILE)) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    let until = Instant::now() + DEATH_MAX;
    let mut asked = false;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < until => {}
            Err(e) => return Err(e.into()),
        }
        if !asked {
            let ended = Client::connect(dir)?.call::<()>(Ask::End, &[]);
            ended.map_err(io::Error::other)?;
            asked = true;
        }
        std::thread::sleep(LOOK);
    }
}
