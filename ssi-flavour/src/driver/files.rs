//! Files that a program had open for writing: what is written down of them with its images, and
//! what becomes of them before it goes on from there.
//!
//! A program that goes on from a checkpoint writes again what it wrote since. A file that only
//! grew, and by nobody else, is cut back to the size that it had; what is cut is kept beside it,
//! since nobody can know that it will be written again. Of any other change a person has to say what
//! is right. All of it is done as the person, among the mounts that the program sees, by names
//! without links: who puts something else in the place of a file has no more done to it than they
//! could do.

mod cut;
mod look;
#[cfg(test)]
mod tests;

use super::images::OpenFile;
use super::{Cell, Person};
use look::{Files, Identity, Mounts, Sight, There};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Error, ErrorKind};
use std::path::PathBuf;

pub use cut::Cut;

/// The most files of a program that are looked at.
pub const FILES_MAX: usize = 4096;
/// The most files that are cut for one restart.
pub const CUTS_MAX: usize = 64;
/// The most that is cut for one restart, and kept, in bytes.
pub const CUT_BYTES_MAX: u64 = 256 << 20;
/// Of what a file held then, so much at its begin and at its end is compared, in bytes. Of a file
/// that was not longer than twice that, all is.
pub const EDGE_BYTES: u64 = 64 * 1024;
/// Files that are named at once.
const NAMED_MAX: usize = 8;

/// How a descriptor of a file was open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Opened {
    /// As in open(2).
    pub flags: u32,
    /// Where it stood, in bytes.
    pub position: u64,
}

impl Opened {
    fn has(self, flag: i32) -> bool {
        self.flags & flag.cast_unsigned() != 0
    }

    /// Whether CRIU keeps no size of the file for it.
    fn only_appends(self) -> bool {
        let access = self.flags & libc::O_ACCMODE.cast_unsigned();
        self.has(libc::O_APPEND) && access == libc::O_WRONLY.cast_unsigned()
    }
}

/// When a file was modified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Since 1970.
    pub seconds: i64,
    /// And so much.
    pub nanoseconds: u32,
}

/// What a file was when its program was saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Was {
    /// Its number in its file system; none: that numbers files anew on each machine.
    pub inode: Option<u64>,
    /// When it was modified last.
    pub modified: Stamp,
    /// Of its begin and its end ([`EDGE_BYTES`]), SHA-256 in hexadecimal; none: its person may not
    /// read it.
    pub edges: Option<String>,
    /// Whether it was on a volume.
    pub volume: bool,
    /// Whether something else wrote to it, or had it open for that on the same machine.
    pub others: bool,
}

impl OpenFile {
    /// Whether its size is not in the images.
    fn is_unsized(&self) -> bool {
        self.opened.iter().all(|one| one.only_appends())
    }

    /// Whether what the program wrote since is behind what was there, as far as it did not seek.
    fn grows(&self) -> bool {
        let at_end = |one: &Opened| one.has(libc::O_APPEND) || one.position == self.size_bytes;
        !self.opened.is_empty() && self.opened.iter().all(at_end)
    }
}

/// Whether something else appended to a file, by where its program stood in it: that is at its end
/// when it was the last that did, and at 0 when it wrote nothing.
fn left_behind(file: &OpenFile, size: u64) -> bool {
    let last = file.opened.iter().map(|one| one.position).max().unwrap_or(0);
    file.is_unsized() && last > 0 && last < size
}

/// Why files keep a program from going on.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// They are not as they were, and trying again changes nothing.
    #[error("{what}")]
    Changed {
        /// Which files, and what of them.
        what: String,
    },
    /// They cannot be looked at now.
    #[error("the files that it had open cannot be looked at: {0}")]
    System(#[from] Error),
}

/// A file that is to be cut.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    path: PathBuf,
    is: Identity,
    /// What it gets, and what it has.
    size: (u64, u64),
    /// When it was modified last before.
    modified: Stamp,
}

/// What becomes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is what the program takes it for.
    Same,
    Cut(Plan),
    /// A person has to say what is right.
    Changed(String),
}

/// What becomes of a file that is so now; `others`: something has it open for writing here.
fn judge(file: &OpenFile, now: &Sight, others: bool) -> Verdict {
    let Some(was) = &file.was else { return Verdict::Same };
    let there = match now {
        Sight::There(there) => there,
        Sight::Not(why) => return Verdict::Changed((*why).to_owned()),
    };
    let known = was.inode.is_none_or(|inode| inode == there.is.inode);
    if !known || was.volume != there.volume {
        return Verdict::Changed("another file is in its place".to_owned());
    }
    let (then, size) = (file.size_bytes, there.size);
    if size < then {
        return Verdict::Changed(format!("it has {size} bytes, and had {then}"));
    }
    let same = was.edges.is_some() && was.edges == there.edges;
    let all = then <= 2 * EDGE_BYTES;
    if size == then {
        let same = was.modified == there.modified || (same && (all || file.grows()));
        return match same {
            true => Verdict::Same,
            false => Verdict::Changed("it was written over".to_owned()),
        };
    }
    let grew = format!("it grew from {then} to {size} bytes");
    let why = if was.edges.is_none() || there.edges.is_none() {
        "its person may not read it"
    } else if !same {
        "what it had was written over"
    } else if !all && !file.grows() {
        "what it had may have been written over"
    } else if was.others {
        "another program wrote to it too, or had it open for that"
    } else if others {
        "another program has it open for writing"
    } else if there.again {
        "it has another name, by which others may write it"
    } else if !there.own {
        "others may write it too"
    } else {
        let (path, is, modified) = (file.path.clone(), there.is, was.modified);
        return Verdict::Cut(Plan { path, is, size: (then, size), modified });
    };
    Verdict::Changed(format!("{grew}, and {why}"))
}

/// Which files are to be cut, if nothing else keeps the program.
fn decide<'a>(
    files: impl Iterator<Item = (&'a OpenFile, Verdict)>,
) -> Result<Vec<Plan>, FilesError> {
    let (mut plans, mut changed) = (Vec::new(), Vec::new());
    for (file, verdict) in files {
        match verdict {
            Verdict::Same => {}
            Verdict::Cut(plan) => plans.push(plan),
            Verdict::Changed(why) => changed.push(format!("{}: {why}", file.path.display())),
        }
    }
    let bytes = plans.iter().fold(0_u64, |sum, plan| sum.saturating_add(plan.size.1 - plan.size.0));
    if changed.is_empty() && (plans.len() > CUTS_MAX || bytes > CUT_BYTES_MAX) {
        let many = plans.len();
        changed.push(format!(
            "{many} files grew by {bytes} bytes, more than are cut back ({CUTS_MAX} files, \
             {CUT_BYTES_MAX} bytes)"
        ));
    }
    match changed.is_empty() {
        true => Ok(plans),
        false => Err(told(&changed)),
    }
}

/// The error that names files.
fn told(changed: &[String]) -> FilesError {
    let more = changed.len().saturating_sub(NAMED_MAX);
    let named = changed.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join("; ");
    let more = if more == 0 { String::new() } else { format!("; and {more} more") };
    let are = "files that it had open are not as they were when it was saved";
    FilesError::Changed { what: format!("{are}: {named}{more}") }
}

/// Has what a tree wrote to files that it has open reach the disk, while it runs: [`record`] finds
/// little to do then. What is no plain file under its name any more is left out.
///
/// # Errors
/// Those of the system: as that the tree has ended, or a volume that does not answer.
pub fn flush(root: i32, cell: Option<Cell>, person: &Person) -> std::io::Result<()> {
    let names = look::written(root)?;
    if names.is_empty() {
        return Ok(());
    }
    let mounts = Mounts::of(cell)?;
    person.among(space(cell)?.as_ref(), || {
        let mut some = names.iter().take(FILES_MAX);
        some.try_for_each(|name| look::see(name, None, true, person, &mounts).map(drop))
    })
}

/// Writes down what files are that a tree has open, and has what was written to them reach the
/// disk: the tree was saved, and nothing of it went on since. `root`: of the tree, as this process
/// sees it.
///
/// # Errors
/// Those of the system: as a volume that does not answer.
pub fn record(
    files: &mut [OpenFile],
    root: i32,
    cell: Option<Cell>,
    person: &Person,
) -> std::io::Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let held = look::held(root)?;
    // CRIU takes along what has no name any more.
    let named = |file: &&mut OpenFile| held.as_ref().is_none_or(|h| h.names.contains(&file.path));
    let named: Vec<&mut OpenFile> = files.iter_mut().filter(named).take(FILES_MAX).collect();
    let expected = |file: &OpenFile| (!file.is_unsized()).then_some(file.size_bytes);
    let tree = held.as_ref().map(|h| h.pids.clone()).unwrap_or_default();
    let mounts = Mounts::of(cell)?;
    let seen = person.among(space(cell)?.as_ref(), || {
        let see = |file: &&mut OpenFile| {
            let expected = expected(file);
            look::see(&file.path, expected, true, person, &mounts)
        };
        named.iter().map(see).collect::<std::io::Result<Vec<_>>>()
    })?;
    let others = look::writers(&known(named.iter().map(|f| &f.path).zip(&seen)), &tree)?;
    for (file, sight) in named.into_iter().zip(seen) {
        let Sight::There(there) = sight else { continue };
        // What is longer by now than it was for CRIU was written by somebody else.
        let strange = expected(file).is_some_and(|size| size != there.size);
        let strange = strange || left_behind(file, there.size);
        file.size_bytes = expected(file).unwrap_or(there.size);
        file.was = Some(was(there, strange || others.contains(&file.path)));
    }
    Ok(())
}

/// Which files they are that were seen.
fn known<'a>(seen: impl Iterator<Item = (&'a PathBuf, &'a Sight)>) -> Files {
    let there = |(path, sight): (&PathBuf, &Sight)| match sight {
        Sight::There(there) => Some((path.clone(), there.is)),
        Sight::Not(_) => None,
    };
    seen.filter_map(there).collect()
}

fn was(there: There, others: bool) -> Was {
    let inode = there.lasting.then_some(there.is.inode);
    let (modified, edges, volume) = (there.modified, there.edges, there.volume);
    Was { inode, modified, edges, volume, others }
}

/// Has files be what a program takes them for that is about to go on from images: those that only
/// grew are cut back, and what is cut from them is kept in files beside them whose names end in
/// `.xos-cut-` and `mark`. All of them, or none; but when one is written to just then, those before
/// it, which is as good for the next attempt.
///
/// # Errors
/// [`FilesError`]: one of them is otherwise, or cannot be looked at.
pub fn bring_back(
    files: &[OpenFile],
    cell: Option<Cell>,
    person: &Person,
    mark: &str,
) -> Result<Vec<Cut>, FilesError> {
    let noted: Vec<(&OpenFile, &Was)> =
        files.iter().filter_map(|file| Some((file, file.was.as_ref()?))).collect();
    if noted.is_empty() {
        return Ok(Vec::new());
    }
    if noted.len() > FILES_MAX {
        return Err(told(&[format!("it had more than {FILES_MAX}")]));
    }
    let mounts = Mounts::of(cell)?;
    let seen = person.among(space(cell)?.as_ref(), || {
        let mut seen = Vec::with_capacity(noted.len());
        for (file, was) in noted {
            let now = look::see(&file.path, Some(file.size_bytes), false, person, &mounts)?;
            if was.volume && matches!(now, Sight::Not(_)) && !mounts.have_volume(&file.path) {
                let what = format!("the volume of {} is not mounted", file.path.display());
                return Err(Error::new(ErrorKind::NotFound, what));
            }
            seen.push((file, now));
        }
        Ok(seen)
    })?;
    let there = known(seen.iter().map(|(file, now)| (&file.path, now)));
    let others = look::writers(&there, &BTreeSet::new())?;
    let judged = seen.iter().map(|(file, now)| {
        let verdict = judge(file, now, others.contains(&file.path));
        (*file, verdict)
    });
    let plans = decide(judged)?;
    person.among(space(cell)?.as_ref(), || Ok(cut::cut(&plans, mark)))?
}

/// The mount namespace in which a tree's files are; none: this process's.
fn space(cell: Option<Cell>) -> std::io::Result<Option<File>> {
    cell.map(|cell| File::open(format!("/proc/{}/ns/mnt", cell.pid))).transpose()
}
