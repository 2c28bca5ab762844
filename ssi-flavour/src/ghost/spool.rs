//! Takes a tree's output where no ghost stands: into two files, each byte once, whichever copy of
//! the tree sends it. A ghost that attaches from elsewhere gets it from there, and feeds the tree.
//!
//! What was acknowledged of output is with the kernel: it outlives this program, and not a loss of
//! power. Of input nothing is acknowledged before the relay has said that the tree took it, so that
//! a ghost gives it again to the next process. What a tree had read after the checkpoint that it is
//! restarted from is gone.

mod guest;
mod read;
mod spools;
mod stood;
mod tidy;

pub use read::Piece;
pub use spools::{GUESTS_MAX, Spools};
pub use tidy::{Bounds, WANTED_FILE};

use super::link::Link;
use super::machine::{Incoming, Machine};
use super::proto::{Control, Message, Size, Stream};
use crate::cell::proto::{Exit, Tree};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// In a spool's folder: the tree's output.
pub const OUTPUT_FILE: &str = "out";
/// In a spool's folder: its error output.
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
    /// Where in the tree's output and error output the files begin, bytes.
    pub from: [u64; 2],
    /// How the tree ended, once all that it wrote is here.
    pub exit: Option<Exit>,
    /// Which of the two the ghost that ran it reads no more: nothing more of it comes here.
    #[serde(default)]
    pub refused: [bool; 2],
}

/// The spool of one tree.
#[derive(Debug)]
struct Spool {
    folder: PathBuf,
    files: [File; 2],
    kept: Kept,
    /// Up to where in the tree's output and error output the files go.
    written: [u64; 2],
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
    fn open(folder: &Path, tree: Tree, from: [u64; 2]) -> io::Result<Spool> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let kept = match std::fs::read(folder.join(KEPT_FILE)) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let kept = Kept { epoch: tree.epoch, from, exit: None, refused: [false; 2] };
                keep(folder, &kept)?;
                kept
            }
            Err(e) => return Err(e),
        };
        let open = |name| {
            let mut how = OpenOptions::new();
            how.read(true).append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
            how.open(folder.join(name))
        };
        let files = [open(OUTPUT_FILE)?, open(ERROR_FILE)?];
        let mut machine = Machine::spool(Tree { id: tree.id, epoch: kept.epoch });
        let mut written = kept.from;
        for (i, stream) in [Stream::Output, Stream::Error].into_iter().enumerate() {
            written[i] += files[i].metadata()?.len();
            machine.into[i] = Incoming::new(stream, written[i]);
            if kept.refused[i] {
                machine.into[i].refuse();
            }
        }
        Ok(Spool {
            folder: folder.to_owned(),
            files,
            kept,
            written,
            machine,
            heard: false,
            terminal: false,
            size: None,
            size_told: false,
            refusing: [false; 2],
            over: None,
        })
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
        for (i, (into, file)) in self.machine.into.iter_mut().zip(&mut self.files).enumerate() {
            while !into.front().is_empty() {
                let n = file.write(into.front())?;
                if n == 0 {
                    return Err(ErrorKind::WriteZero.into());
                }
                into.pass(n);
                self.written[i] += n as u64;
            }
        }
        Ok(())
    }

    /// Gives a ghost's end what the tree wrote, as far as it takes it.
    fn give(&mut self, to: &mut Machine) -> io::Result<()> {
        let mut buf = vec![0; READ_BYTES];
        for (i, out) in to.out.iter_mut().enumerate() {
            loop {
                let at = out.offset();
                let left = self.written[i].saturating_sub(at);
                let most = usize::try_from(left).unwrap_or(READ_BYTES);
                let most = most.min(out.room()).min(READ_BYTES);
                if most == 0 {
                    break;
                }
                let n = self.files[i].read_at(&mut buf[..most], at - self.kept.from[i])?;
                if n == 0 {
                    return Err(io::Error::other("a spool's file became shorter"));
                }
                out.push(&buf[..n]);
            }
            if out.is_refused() && !self.machine.into[i].is_refused() {
                self.refuse(i)?;
            }
        }
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
        (self.written, taken, [refused, self.kept.exit.is_some(), self.heard, self.terminal])
    }

    /// What a relay waits for.
    fn towards_relay(&self) -> Mark {
        let [input, signals] = &self.machine.out;
        let [output, error] = self.refusing;
        let marks = [output, error, input.has_ended(), self.size_told];
        ([input.offset(), signals.offset()], [0; 2], marks)
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

#[cfg(test)]
mod tests;
