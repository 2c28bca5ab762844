//! Takes a tree's output where no ghost does: into two files, each byte once, whichever copy of
//! the tree sends it.
//!
//! Standard input is empty and no signals come from here. What was acknowledged is with the
//! kernel: it outlives this program, and not a loss of power.

mod read;

pub use read::Piece;

use super::link::Link;
use super::machine::{Incoming, Machine};
use super::proto::{Control, Message, Stream};
use crate::cell::proto::{Exit, Tree};
use rustix::event::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::net::Shutdown;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// In a spool's folder: the tree's output.
pub const OUTPUT_FILE: &str = "out";
/// In a spool's folder: its error output.
pub const ERROR_FILE: &str = "err";
/// In a spool's folder: what became of the tree, as its controller said.
pub const OUTCOME_FILE: &str = "outcome.json";
/// In a spool's folder: [`Kept`].
const KEPT_FILE: &str = "kept.json";

/// What is known of a tree beside its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// The newest copy that was heard: an older one is not.
    pub epoch: u64,
    /// Where in the tree's output and error output the files begin, bytes.
    pub from: [u64; 2],
    /// How the tree ended, once all that it wrote is here.
    pub exit: Option<Exit>,
}

/// The spool of one tree.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    files: [File; 2],
    kept: Kept,
    machine: Machine,
}

impl Spool {
    /// Opens or makes the spool in a folder, which is made; a new one begins at the offsets `from`.
    ///
    /// # Errors
    /// Those of the files.
    pub fn open(folder: &Path, tree: Tree, from: [u64; 2]) -> io::Result<Spool> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let kept = match std::fs::read(folder.join(KEPT_FILE)) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let kept = Kept { epoch: tree.epoch, from, exit: None };
                keep(folder, &kept)?;
                kept
            }
            Err(e) => return Err(e),
        };
        let open = |name| {
            let mut how = OpenOptions::new();
            how.append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
            how.open(folder.join(name))
        };
        let files = [open(OUTPUT_FILE)?, open(ERROR_FILE)?];
        let mut machine = Machine::ghost(Tree { id: tree.id, epoch: kept.epoch });
        let streams = [Stream::Output, Stream::Error];
        for (i, into) in machine.into.iter_mut().enumerate() {
            *into = Incoming::new(streams[i], kept.from[i] + files[i].metadata()?.len());
        }
        machine.out[0].end();
        Ok(Spool { folder: folder.to_owned(), files, kept, machine })
    }

    /// What is known of the tree.
    pub fn kept(&self) -> Kept {
        self.kept
    }

    /// Serves one connection of a relay, to its end or the tree's; how the tree ended. Waits.
    ///
    /// # Errors
    /// Those of the connection and the files, and that the relay is of no newest copy.
    pub fn serve(&mut self, socket: UnixStream) -> io::Result<Option<Exit>> {
        let mut link = Link::new(socket)?;
        link.push(&self.machine.connected(false))?;
        let mut over = None;
        loop {
            link.flush()?;
            let out = if link.wants_to_write() { PollFlags::OUT } else { PollFlags::empty() };
            match poll(&mut [PollFd::new(&link, PollFlags::IN | out)], None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            let open = link.fill()?;
            while let Some(message) = link.take()? {
                let control = self.machine.take(message).map_err(io::Error::other)?;
                if let Some(Control::Exit { exit, ends }) = control {
                    over = Some((exit, ends));
                }
                // A copy that is heard is the tree from then on, whatever becomes of this process.
                let epoch = self.machine.tree().epoch;
                if epoch != self.kept.epoch {
                    self.keep(Kept { epoch, ..self.kept })?;
                }
            }
            self.write()?;
            while let Some(message) = self.machine.next_message() {
                link.push(&message)?;
            }
            if let Some((exit, ends)) = over
                && self.machine.into.iter().zip(ends).all(|(into, end)| into.passed() >= end)
            {
                self.keep(Kept { exit: Some(exit), ..self.kept })?;
                link.push(&Message::Control(Control::ExitTaken))?;
                link.finish()?;
                return Ok(Some(exit));
            }
            if !open {
                return Ok(None);
            }
        }
    }

    fn write(&mut self) -> io::Result<()> {
        for (into, file) in self.machine.into.iter_mut().zip(&mut self.files) {
            while !into.front().is_empty() {
                let n = file.write(into.front())?;
                if n == 0 {
                    return Err(ErrorKind::WriteZero.into());
                }
                into.pass(n);
            }
        }
        Ok(())
    }

    fn keep(&mut self, kept: Kept) -> io::Result<()> {
        keep(&self.folder, &kept)?;
        self.kept = kept;
        Ok(())
    }
}

fn keep(folder: &Path, kept: &Kept) -> io::Result<()> {
    crate::disk::replace(&folder.join(KEPT_FILE), &serde_json::to_vec(kept)?)
}

/// The spools of a node, each in a folder by its tree's number.
#[derive(Debug)]
pub struct Spools {
    folder: PathBuf,
    open: Mutex<BTreeMap<u64, Arc<Open>>>,
}

/// A spool that was used.
#[derive(Debug)]
struct Open {
    spool: Mutex<Spool>,
    served: Mutex<Served>,
}

/// What is served: of which copy, and the connection.
#[derive(Debug)]
struct Served {
    epoch: u64,
    socket: Option<UnixStream>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Spools {
    /// Those below a folder, which is made when it is needed.
    pub fn new(folder: impl Into<PathBuf>) -> Spools {
        Spools { folder: folder.into(), open: Mutex::default() }
    }

    /// Where the spool of a tree is, or would be.
    pub fn folder(&self, tree: u64) -> PathBuf {
        self.folder.join(tree.to_string())
    }

    /// Serves the connection of a copy's relay in a thread of its own; one that is served now is
    /// cut. A spool that is new begins at the offsets `from`.
    ///
    /// # Errors
    /// That the copy is not the newest that was heard of, or the spool cannot be opened.
    pub fn serve(&self, tree: Tree, from: [u64; 2], socket: UnixStream) -> io::Result<()> {
        let open = self.open(tree, from)?;
        {
            let mut served = locked(&open.served);
            if tree.epoch < served.epoch {
                let why = format!("{tree} is not the newest copy: {} is", served.epoch);
                return Err(io::Error::other(why));
            }
            served.epoch = tree.epoch;
            let before = served.socket.replace(socket.try_clone()?);
            if let Some(before) = before {
                // Its end may have come already.
                let _gone = before.shutdown(Shutdown::Both);
            }
        }
        std::thread::Builder::new().name(format!("spool-{}", tree.id)).spawn(move || {
            if let Err(error) = locked(&open.spool).serve(socket) {
                tracing::warn!(%tree, %error, "the connection of a spool ended");
            }
        })?;
        Ok(())
    }

    fn open(&self, tree: Tree, from: [u64; 2]) -> io::Result<Arc<Open>> {
        let mut all = locked(&self.open);
        if let Some(open) = all.get(&tree.id) {
            return Ok(open.clone());
        }
        let spool = Spool::open(&self.folder(tree.id), tree, from)?;
        let served = Served { epoch: spool.kept().epoch, socket: None };
        let open = Arc::new(Open { spool: Mutex::new(spool), served: Mutex::new(served) });
        all.insert(tree.id, open.clone());
        Ok(open)
    }

    /// The tree is over: no connection is kept for it, and what became of it is written down, in
    /// [`OUTCOME_FILE`]. Its files stay.
    ///
    /// # Errors
    /// Those of the file.
    pub fn finish(&self, tree: u64, outcome: &[u8]) -> io::Result<()> {
        if let Some(open) = locked(&self.open).remove(&tree)
            && let Some(socket) = &locked(&open.served).socket
        {
            let _gone = socket.shutdown(Shutdown::Both);
        }
        let folder = self.folder(tree);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        crate::disk::replace(&folder.join(OUTCOME_FILE), outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ghost::relay::{Ends, Offsets, Relay, Served as RelayServed};

    /// A copy that writes `output` from the offset on, and ends.
    fn copy(spools: &Spools, epoch: u64, from: u64, output: &str) -> RelayServed {
        let tree = Tree { id: 7, epoch };
        let (owner, steer) = UnixStream::pair().unwrap();
        let (_no_input, input) = std::io::pipe().unwrap();
        let (out_reader, mut out) = std::io::pipe().unwrap();
        let (err_reader, err) = std::io::pipe().unwrap();
        let ends = Ends::Pipes {
            input: input.into(),
            output: out_reader.into(),
            error: err_reader.into(),
        };
        let at = Offsets { output: from, ..Offsets::default() };
        let mut relay = Relay::new(tree, ends, at, steer).unwrap();
        out.write_all(output.as_bytes()).unwrap();
        drop((out, err));
        let mut owner = crate::ghost::relay::Owner::new(owner);
        owner.tell(crate::ghost::proto::Steer::Exited { exit: Exit::Code(0) }).unwrap();
        let (one, other) = UnixStream::pair().unwrap();
        match spools.serve(tree, [0, 0], one) {
            Ok(()) => relay.serve(other).unwrap(),
            Err(_) => RelayServed::Disconnected,
        }
    }

    #[test]
    fn what_a_copy_writes_again_is_there_once() {
        // wrong: a restart from a checkpoint would double a program's output, or lose some
        let dir = tempfile::tempdir().unwrap();
        let spools = Spools::new(dir.path());
        assert_eq!(copy(&spools, 1, 0, "0123456789"), RelayServed::Done);
        let text = || std::fs::read_to_string(spools.folder(7).join(OUTPUT_FILE)).unwrap();
        assert_eq!(text(), "0123456789");
        drop(spools);
        let spools = Spools::new(dir.path());
        assert_eq!(copy(&spools, 3, 6, "6789ab"), RelayServed::Done);
        assert_eq!(copy(&spools, 2, 10, "XXXX"), RelayServed::Disconnected, "an older copy");
        let text = std::fs::read_to_string(spools.folder(7).join(OUTPUT_FILE)).unwrap();
        assert_eq!(text, "0123456789ab");
    }
}
