//! Takes a tree's output where no ghost stands: into two files, each byte once, whichever copy of
//! the tree sends it. A ghost that attaches from elsewhere gets it from there, and feeds the tree.
//!
//! What was acknowledged of output is with the kernel: it outlives this program, and not a loss of
//! power. The rest of what is kept outlives that too, but for trees for which a ghost stands here: it
//! ends with this program, and nobody else wants what the tree wrote. Of input nothing is acknowledged before the relay has said that the tree took it, so that
//! a ghost gives it again to the next process. What a tree had read after the checkpoint that it is
//! restarted from is gone.
//!
//! Room on the disk has limits ([`Limits`]). Beyond them the oldest output goes, and who attaches
//! then is told so; what somebody who is attached has still to get does not: the tree waits, as the
//! writer of a pipe does. Of what is wanted whole nothing goes, and its writer sees that nobody
//! reads it any more.
//!
//! Of a tree that may be restarted from a checkpoint the nodes that have the checkpoint keep what
//! is in the spool, too ([`Second`]).

mod bytes;
mod follow;
mod guest;
mod places;
mod quota;
mod read;
mod second;
mod seconds;
mod serve;
mod spools;
mod stale;
mod stood;
mod stretch;
mod tidy;

pub use follow::Follow;
pub use places::{GUESTS_MAX, OWN_GUESTS_MAX};
pub use quota::Limits;
pub use read::Piece;
pub use second::Second;
pub use spools::Spools;
pub use stretch::receive;
pub use tidy::{Bounds, WANTED_FILE};

use self::bytes::Bytes;
use self::quota::Quota;
use super::link::Link;
use super::machine::{Incoming, Machine};
use super::proto::{Control, Message, Size, Stream};
use crate::cell::proto::{Exit, Tree};
use serde::{Deserialize, Serialize};
use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// In a spool's folder: the tree's output, or the first part of it.
pub const OUTPUT_FILE: &str = "out";
/// In a spool's folder: its error output, or the first part of it.
pub const ERROR_FILE: &str = "err";
/// In a spool's folder: what became of the tree, as its controller said.
pub const OUTCOME_FILE: &str = "outcome.json";
/// In a spool's folder: [`Kept`].
const KEPT_FILE: &str = "kept.json";
/// How much is read from a file at a time, bytes.
const READ_BYTES: usize = 64 * 1024;

/// What is known of a tree beside its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// The newest copy that was heard: an older one is not.
    pub epoch: u64,
    /// Where in the tree's output and error output the spool began, bytes.
    pub from: [u64; 2],
    /// How the tree ended, once all that it wrote is here.
    pub exit: Option<Exit>,
    /// Which of the two the ghost that ran it reads no more: nothing more of it comes here.
    #[serde(default)]
    pub refused: [bool; 2],
    /// The uid of whose tree it is; 0: that was not said yet.
    #[serde(default)]
    pub owner: u32,
    /// Which of the spools that the tree had one after the other it is, from 0
    /// ([`Line`](crate::cluster::messages::Line)).
    #[serde(default)]
    pub line: u64,
}

/// The spool of one tree.
#[derive(Debug)]
struct Spool {
    folder: PathBuf,
    files: [Bytes; 2],
    kept: Kept,
    quota: Arc<Quota>,
    /// Somebody wants the output whole.
    wanted: bool,
    /// Somebody may want it after a loss of power.
    lasts: bool,
    /// Up to where a ghost that is attached has it, or is about to get it.
    follows: Option<[u64; 2]>,
    /// Which of the two wait for that ghost.
    stalled: [bool; 2],
    /// The end towards the relay.
    machine: Machine,
    /// A relay was heard by this process: only then it is known how much input the tree has had.
    heard: bool,
    /// Whether the tree has a terminal, as its relay says.
    terminal: bool,
    /// The size that its terminal is to have, and whether this relay knows.
    size: Option<Size>,
    size_told: bool,
    /// Which of the two the relay is to be told that nobody reads.
    refusing: [bool; 2],
    /// The tree is over: how, and where its output ends.
    over: Option<(Exit, [u64; 2])>,
}

/// What the other side of a spool waits for, to be compared.
type Mark = ([u64; 2], [u64; 2], [bool; 4]);

impl Spool {
    /// Whether a folder has a spool.
    fn is_in(folder: &Path) -> bool {
        folder.join(KEPT_FILE).exists()
    }

    /// Opens or makes the spool in a folder, which is made; a new one begins at the offsets `from`.
    /// `owner`: whose it is; 0: as the folder says. `lasts`: whether somebody may want it after a loss
    /// of power.
    fn open(
        folder: &Path,
        tree: Tree,
        from: [u64; 2],
        quota: &Arc<Quota>,
        (owner, lasts): (u32, bool),
    ) -> io::Result<Spool> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let kept = match std::fs::read(folder.join(KEPT_FILE)) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let (exit, refused) = (None, [false; 2]);
                let kept = Kept { epoch: tree.epoch, from, exit, refused, owner, line: 0 };
                keep(folder, &kept, lasts)?;
                kept
            }
            Err(e) => return Err(e),
        };
        let [out, err] = kept.from;
        let files = [Bytes::open(folder, OUTPUT_FILE, out)?, Bytes::open(folder, ERROR_FILE, err)?];
        let mut machine = Machine::spool(Tree { id: tree.id, epoch: kept.epoch });
        for (i, stream) in [Stream::Output, Stream::Error].into_iter().enumerate() {
            machine.into[i] = Incoming::new(stream, files[i].end());
            if kept.refused[i] {
                machine.into[i].refuse();
            }
        }
        let mut spool = Spool {
            folder: folder.to_owned(),
            files,
            kept,
            quota: quota.clone(),
            wanted: folder.join(WANTED_FILE).exists(),
            lasts,
            follows: None,
            stalled: [false; 2],
            machine,
            heard: false,
            terminal: false,
            size: None,
            size_told: false,
            refusing: [false; 2],
            over: None,
        };
        if owner != 0 {
            spool.owned_by(owner)?;
        }
        Ok(spool)
    }

    /// Notes whose it is.
    fn owned_by(&mut self, owner: u32) -> io::Result<()> {
        let before = self.kept.owner;
        if owner == before {
            return Ok(());
        }
        self.keep(Kept { owner, ..self.kept })?;
        if !self.wanted {
            let bytes = self.files.iter().map(Bytes::count).sum();
            self.quota.sub(before, bytes);
            self.quota.add(owner, bytes);
        }
        Ok(())
    }

    /// The first bytes of the tree's output and error output that are here.
    fn begins(&self) -> [u64; 2] {
        let [out, err] = &self.files;
        [out.begins(), err.begins()]
    }

    /// Up to where in the tree's output and error output it goes.
    fn written(&self) -> [u64; 2] {
        let [out, err] = &self.files;
        [out.end(), err.end()]
    }

    /// Whether it ends before what a copy has: the copy does not know more of it.
    fn lacks(&self, from: [u64; 2]) -> bool {
        let ends = self.written();
        (0..2).any(|i| ends[i] < from[i] && !self.kept.refused[i])
    }

    /// What is said first to a relay.
    fn connected(&mut self) -> Message {
        (self.over, self.size_told) = (None, false);
        self.machine.connected(false)
    }

    /// Takes what a relay said.
    fn hear(&mut self, link: &mut Link) -> io::Result<()> {
        while let Some(message) = link.take()? {
            match self.machine.take(message).map_err(io::Error::other)? {
                Some(Control::Hello { terminal, .. }) => {
                    (self.heard, self.terminal) = (true, terminal);
                }
                Some(Control::Exit { exit, ends }) => self.over = Some((exit, ends)),
                _ => {}
            }
            // A copy that is heard is the tree from then on, whatever becomes of this process.
            let epoch = self.machine.tree().epoch;
            if epoch != self.kept.epoch {
                self.keep(Kept { epoch, ..self.kept })?;
            }
        }
        self.write()
    }

    /// Says to a relay what there is. Whether the tree is over and all that it wrote is here.
    fn answer(&mut self, link: &mut Link) -> io::Result<bool> {
        if !self.machine.is_joined() {
            return Ok(false);
        }
        for (into, refusing) in self.machine.into.iter().zip(&mut self.refusing) {
            if std::mem::take(refusing) {
                link.push(&Message::Control(Control::Refused { stream: into.stream() }))?;
            }
        }
        if let (Some(size), false) = (self.size, self.size_told) {
            link.push(&Message::Control(Control::Size(size)))?;
            self.size_told = true;
        }
        while let Some(message) = self.machine.next_message() {
            link.push(&message)?;
        }
        let Some((exit, ends)) = self.over else { return Ok(false) };
        let mut streams = self.machine.into.iter().zip(ends);
        if !streams.all(|(into, end)| into.is_refused() || into.passed() >= end) {
            return Ok(false);
        }
        self.keep(Kept { exit: Some(exit), ..self.kept })?;
        link.push(&Message::Control(Control::ExitTaken))?;
        Ok(true)
    }

    fn write(&mut self) -> io::Result<()> {
        for i in [0, 1] {
            self.stalled[i] = false;
            while !self.machine.into[i].front().is_empty() {
                let most = usize::try_from(self.room(i)?).unwrap_or(usize::MAX);
                let into = &mut self.machine.into[i];
                let bytes = into.front();
                let n = most.min(bytes.len());
                if n == 0 {
                    break;
                }
                let n = self.files[i].append(&bytes[..n])?;
                into.pass(n);
                if !self.wanted {
                    self.quota.add(self.kept.owner, n as u64);
                }
            }
        }
        Ok(())
    }

    /// Makes room for more of a stream; how many bytes, 0 when it waits or takes no more.
    fn room(&mut self, i: usize) -> io::Result<u64> {
        if self.wanted {
            let left = self.quota.limits.stream.saturating_sub(self.files[i].count());
            if left == 0 || self.quota.disk_is_short() {
                self.refuse(i)?;
                return Ok(0);
            }
            return Ok(left);
        }
        let room = self.quota.room(self.kept.owner);
        let file = &mut self.files[i];
        if file.last() >= room.part {
            while file.parts() >= room.parts {
                if self.follows.is_some_and(|has| has[i] < file.oldest_ends()) {
                    self.stalled[i] = true;
                    return Ok(0);
                }
                self.quota.sub(self.kept.owner, file.drop_oldest()?);
            }
            file.split()?;
        }
        Ok(room.part.saturating_sub(file.last()))
    }

    /// Gives a ghost's end what the tree wrote, as far as it takes it.
    fn give(&mut self, to: &mut Machine) -> io::Result<()> {
        let mut buf = vec![0; READ_BYTES];
        for (i, out) in to.out.iter_mut().enumerate() {
            loop {
                let at = out.offset();
                let left = self.files[i].end().saturating_sub(at);
                let most = usize::try_from(left).unwrap_or(READ_BYTES);
                let most = most.min(out.room()).min(READ_BYTES);
                if most == 0 {
                    break;
                }
                let n = self.files[i].read_at(&mut buf[..most], at)?;
                if n == 0 {
                    return Err(io::Error::other("a spool's file became shorter"));
                }
                out.push(&buf[..n]);
            }
            if out.is_refused() && !self.machine.into[i].is_refused() {
                self.refuse(i)?;
            }
        }
        let [out, err] = &to.out;
        self.follows = Some([out.offset(), err.offset()]);
        Ok(())
    }

    /// Nobody reads a stream any more: the tree is to see it, as the writer of a pipe does.
    fn refuse(&mut self, i: usize) -> io::Result<()> {
        self.machine.into[i].refuse();
        self.refusing[i] = true;
        let mut refused = self.kept.refused;
        refused[i] = true;
        self.keep(Kept { refused, ..self.kept })
    }

    /// What a ghost waits for.
    fn towards_guest(&self) -> Mark {
        let [input, signals] = &self.machine.out;
        let taken = [input.acknowledged(), signals.acknowledged()];
        let refused = input.is_refused();
        (self.written(), taken, [refused, self.kept.exit.is_some(), self.heard, self.terminal])
    }

    /// What a relay waits for.
    fn towards_relay(&self) -> Mark {
        let [input, signals] = &self.machine.out;
        let [output, error] = self.refusing;
        let marks = [output, error, input.has_ended(), self.size_told];
        let has = self.follows.unwrap_or_default();
        let waits = [0, 1].map(|i| if self.stalled[i] { has[i] } else { 0 });
        ([input.offset(), signals.offset()], waits, marks)
    }

    fn keep(&mut self, kept: Kept) -> io::Result<()> {
        keep(&self.folder, &kept, self.lasts)?;
        self.kept = kept;
        Ok(())
    }
}

fn keep(folder: &Path, kept: &Kept, lasts: bool) -> io::Result<()> {
    let (path, bytes) = (folder.join(KEPT_FILE), serde_json::to_vec(kept)?);
    if lasts { crate::disk::replace(&path, &bytes) } else { crate::disk::put(&path, &bytes) }
}

#[cfg(test)]
mod tests;
