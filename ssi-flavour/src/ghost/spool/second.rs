//! What a node keeps of the output of a tree whose spool is at another node, with a checkpoint of
//! the tree: when the other node is lost, it is the beginning of the next spool.
//!
//! It lies in a folder of the form of a spool's. What of it the node said that it has (`sure`) is
//! on the disk; the rest is what a copy that runs here wrote since, as its relay read it
//! ([`super::Follow`]), and is no longer good when that copy is gone: the spool has the last word
//! on what the tree wrote.

use super::bytes::{Bytes, parts};
use super::quota::Quota;
use super::{ERROR_FILE, KEPT_FILE, Kept, OUTPUT_FILE, WANTED_FILE, keep};
use crate::cluster::messages::{Line, Offsets};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// In such a folder: [`Sure`].
const SURE_FILE: &str = "sure.json";
/// In such a folder: what a copy here wrote, until what is before it is here.
const TAIL_FOLDER: &str = "tail";
/// The streams' files.
const FILES: [&str; 2] = [OUTPUT_FILE, ERROR_FILE];
/// How much is copied at a time, bytes.
const COPY_BYTES: usize = 64 * 1024;

/// How much of it is on the disk for good.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sure {
    /// The number of the spool's line.
    line: u64,
    ends: Offsets,
}

/// What is kept of one tree.
#[derive(Debug)]
pub struct Second {
    folder: PathBuf,
    files: [Bytes; 2],
    /// What a copy here wrote and cannot be added yet.
    tails: Option<[Bytes; 2]>,
    /// A copy here adds what it writes.
    followed: bool,
    kept: Kept,
    sure: Sure,
    wanted: bool,
    quota: Arc<Quota>,
    /// It is a spool now, or is not to be kept any more: who still has it changes nothing.
    over: bool,
}

/// Removes a folder that may not be there.
pub(super) fn remove(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

pub(super) fn read<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

impl Second {
    /// Opens or makes what is kept in a folder; `owner`: whose it is.
    pub(super) fn open(folder: &Path, owner: u32, quota: &Arc<Quota>) -> io::Result<Second> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        remove(&folder.join(TAIL_FOLDER))?;
        let (epoch, line, from, exit, refused) = (0, 0, [0; 2], None, [false; 2]);
        let new = Kept { epoch, from, exit, refused, owner, line };
        let kept = Kept { owner, ..read(&folder.join(KEPT_FILE))?.unwrap_or(new) };
        keep(folder, &kept, false)?;
        let [out, err] = kept.from;
        let mut second = Second {
            folder: folder.to_owned(),
            files: [Bytes::open(folder, FILES[0], out)?, Bytes::open(folder, FILES[1], err)?],
            tails: None,
            followed: false,
            kept,
            sure: read(&folder.join(SURE_FILE))?.unwrap_or_default(),
            wanted: folder.join(WANTED_FILE).exists(),
            quota: quota.clone(),
            over: false,
        };
        second.unfollow()?;
        Ok(second)
    }

    /// Up to where it goes without a gap.
    pub(super) fn ends(&self) -> Offsets {
        let [out, err] = &self.files;
        [out.end(), err.end()].into()
    }

    /// Up to where it is good for who asks for this line, with what a copy here adds.
    pub(super) fn good(&self, line: Line) -> Offsets {
        match self.followed && self.sure.line == line.number && self.tails.is_none() {
            true => self.ends(),
            false => line.good(self.sure.line, self.sure.ends),
        }
    }

    /// Lets go of what is not of a line.
    ///
    /// # Errors
    /// Those of the files.
    pub fn take_line(&mut self, line: Line) -> io::Result<()> {
        if self.sure.line != line.number {
            let ends = line.good(self.sure.line, self.sure.ends);
            self.sure = Sure { line: line.number, ends };
            self.write_sure()?;
            // That of the line says anew what nobody takes more of.
            self.kept.refused = [false; 2];
            keep(&self.folder, &self.kept, false)?;
            self.followed = false;
        }
        if self.followed { Ok(()) } else { self.unfollow() }
    }

    /// What lacks of what is to be kept up to here, and of what is before what a copy here wrote.
    pub fn lacks(&self, upto: Offsets) -> Option<(Offsets, Offsets)> {
        let mut upto = upto.both();
        if let Some(tails) = &self.tails {
            upto = [0, 1].map(|i| upto[i].max(tails[i].begins()));
        }
        let ends = self.ends().both();
        let whole = (0..2).all(|i| self.kept.refused[i] || ends[i] >= upto[i]);
        (!whole).then(|| (ends.into(), upto.into()))
    }

    /// What was fetched is written; what a copy here wrote is added as soon as it fits.
    ///
    /// # Errors
    /// Those of the files.
    pub fn join(&mut self) -> io::Result<()> {
        let (files, refused) = (&self.files, self.kept.refused);
        let fits = |i: usize, tail: &Bytes| refused[i] || files[i].end() >= tail.begins();
        let all = |tails: &mut [Bytes; 2]| (0..2).all(|i| fits(i, &tails[i]));
        let Some(tails) = self.tails.take_if(all) else { return Ok(()) };
        let mut buf = vec![0; COPY_BYTES];
        for (i, tail) in tails.iter().enumerate() {
            while self.files[i].end() < tail.end() && !self.kept.refused[i] {
                let n = tail.read_at(&mut buf, self.files[i].end())?;
                if n == 0 {
                    return Err(io::Error::other("a file of kept output became shorter"));
                }
                self.append(i, &buf[..n])?;
            }
        }
        self.quota_sub(tails.iter().map(Bytes::count).sum());
        remove(&self.folder.join(TAIL_FOLDER))
    }

    /// All up to here is on the disk, whatever becomes of this machine.
    ///
    /// # Errors
    /// Those of the disk: then it is not.
    pub fn settle(&mut self, upto: Offsets) -> io::Result<()> {
        self.is_kept()?;
        for file in &self.files {
            file.sync()?;
        }
        keep(&self.folder, &self.kept, true)?;
        let (ends, upto, before) = (self.ends().both(), upto.both(), self.sure.ends.both());
        self.sure.ends = [0, 1].map(|i| ends[i].min(upto[i]).max(before[i])).into();
        self.write_sure()
    }

    fn is_kept(&self) -> io::Result<()> {
        match self.over {
            true => Err(io::Error::other("this output is not kept any more")),
            false => Ok(()),
        }
    }

    fn write_sure(&self) -> io::Result<()> {
        crate::disk::replace(&self.folder.join(SURE_FILE), &serde_json::to_vec(&self.sure)?)
    }

    /// It is of a tree whose output somebody wants whole.
    pub(super) fn want(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.wanted, true) {
            File::create(self.folder.join(WANTED_FILE))?;
            let counted = self.files.iter().map(Bytes::count).sum();
            self.quota.sub(self.kept.owner, counted);
        }
        Ok(())
    }

    pub(super) fn is_refused(&self, i: usize) -> bool {
        self.kept.refused[i]
    }

    /// Nobody takes more of a stream.
    pub(super) fn refuse(&mut self, i: usize) -> io::Result<()> {
        let mut refused = self.kept.refused;
        refused[i] = true;
        let kept = Kept { refused, ..self.kept };
        keep(&self.folder, &kept, false)?;
        self.kept = kept;
        Ok(())
    }

    /// A stream begins anew, at an offset: what was before it is not to be had any more.
    pub(super) fn begin_at(&mut self, i: usize, at: u64) -> io::Result<()> {
        self.is_kept()?;
        self.quota_sub(self.files[i].count());
        for (_, name) in parts(&self.folder, FILES[i], self.kept.from[i])? {
            std::fs::remove_file(self.folder.join(name))?;
        }
        let mut from = self.kept.from;
        from[i] = at;
        let kept = Kept { from, ..self.kept };
        keep(&self.folder, &kept, false)?;
        (self.kept, self.files[i]) = (kept, Bytes::open(&self.folder, FILES[i], at)?);
        Ok(())
    }

    /// Adds what comes next of a stream, within the limits of a spool.
    pub(super) fn append(&mut self, i: usize, bytes: &[u8]) -> io::Result<()> {
        self.is_kept()?;
        let mut rest = bytes;
        while !rest.is_empty() && !self.kept.refused[i] {
            let most = usize::try_from(self.room(i)?).unwrap_or(usize::MAX).min(rest.len());
            if most == 0 {
                return self.refuse(i);
            }
            let n = self.files[i].append(&rest[..most])?;
            self.quota_add(n as u64);
            rest = &rest[n..];
        }
        Ok(())
    }

    fn room(&mut self, i: usize) -> io::Result<u64> {
        if self.wanted {
            if self.quota.disk_is_short() {
                let why = "the disk has no room for more output";
                return Err(io::Error::new(ErrorKind::StorageFull, why));
            }
            return Ok(self.quota.limits.stream.saturating_sub(self.files[i].count()));
        }
        let room = self.quota.room(self.kept.owner);
        if self.files[i].last() >= room.part {
            while self.files[i].parts() >= room.parts {
                let gone = self.files[i].drop_oldest()?;
                self.quota_sub(gone);
            }
            self.files[i].split()?;
        }
        Ok(room.part.saturating_sub(self.files[i].last()))
    }

    fn quota_add(&self, bytes: u64) {
        if !self.wanted {
            self.quota.add(self.kept.owner, bytes);
        }
    }

    fn quota_sub(&self, bytes: u64) {
        if !self.wanted {
            self.quota.sub(self.kept.owner, bytes);
        }
    }

    pub(super) fn remove(&mut self) -> io::Result<()> {
        self.over = true;
        self.quota_sub(self.files.iter().map(Bytes::count).sum());
        remove(&self.folder)
    }

    /// Becomes the spool of a copy in another folder, unless bytes would be missing before those
    /// that the copy has: then nothing of it is left. Whether it did.
    pub(super) fn become_spool(
        &mut self,
        epoch: u64,
        from: [u64; 2],
        folder: &Path,
    ) -> io::Result<bool> {
        let ends = self.ends().both();
        let fits = (0..2).all(|i| self.kept.refused[i] || ends[i] >= from[i]);
        if !fits || self.tails.is_some() {
            self.remove()?;
            return Ok(false);
        }
        self.kept.epoch = epoch;
        for file in &self.files {
            file.sync()?;
        }
        keep(&self.folder, &self.kept, true)?;
        self.over = true;
        // Nobody needs it in a spool.
        let _none = std::fs::remove_file(self.folder.join(SURE_FILE));
        std::fs::rename(&self.folder, folder)?;
        Ok(true)
    }

    /// A copy here adds what it writes from these offsets on.
    pub(super) fn follow_from(&mut self, at: [u64; 2]) -> io::Result<()> {
        if self.followed {
            return Ok(());
        }
        let ends = self.ends().both();
        if (0..2).any(|i| ends[i] < at[i]) {
            let folder = self.folder.join(TAIL_FOLDER);
            remove(&folder)?;
            DirBuilder::new().mode(0o700).create(&folder)?;
            let [out, err] = at;
            let out = Bytes::open(&folder, FILES[0], out)?;
            self.tails = Some([out, Bytes::open(&folder, FILES[1], err)?]);
        }
        self.followed = true;
        Ok(())
    }

    /// It wrote these bytes; what is known of them already is left out.
    pub(super) fn follow(&mut self, i: usize, at: u64, bytes: &[u8]) -> io::Result<()> {
        let end = self.tails.as_ref().map_or(self.files[i].end(), |tails| tails[i].end());
        if self.kept.refused[i] {
            return Ok(());
        }
        let gap = || io::Error::other(format!("bytes {end} to {at} were not seen"));
        let known = end.checked_sub(at).ok_or_else(gap)?;
        let known = usize::try_from(known).unwrap_or(usize::MAX).min(bytes.len());
        let mut rest = &bytes[known..];
        let Some(tails) = &mut self.tails else { return self.append(i, rest) };
        if tails[i].count() >= self.quota.limits.stream || self.quota.disk_is_short() {
            return Err(io::Error::new(ErrorKind::StorageFull, "there is no room for it"));
        }
        let mut added = 0;
        while !rest.is_empty() {
            let n = tails[i].append(rest)?;
            added += n as u64;
            rest = &rest[n..];
        }
        self.quota_add(added);
        Ok(())
    }

    /// The copy is gone: what is not sure does not count any more.
    pub(super) fn unfollow(&mut self) -> io::Result<()> {
        if self.over {
            return Ok(());
        }
        self.followed = false;
        if let Some(tails) = self.tails.take() {
            self.quota_sub(tails.iter().map(Bytes::count).sum());
            remove(&self.folder.join(TAIL_FOLDER))?;
        }
        let sure = self.sure.ends.both();
        for (i, sure) in sure.into_iter().enumerate() {
            let gone = self.files[i].cut(sure)?;
            self.quota_sub(gone);
            if self.files[i].end() != sure && !self.kept.refused[i] {
                // A loss of power, or somebody, took some of it: it is fetched again.
                self.begin_at(i, 0)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
