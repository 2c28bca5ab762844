//! A volume: every operation on its files, each for one person.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use tokio::time::Instant;
use xtreemfs_proto::mrc::{NAME_BYTES_MAX, ROOT_INODE, SYMLINK_BYTES_MAX, open_flags};

use crate::cache::Before;
use crate::file::File;
use crate::file::rights::flags;
use crate::limits::CARE_AT_ONCE;
use crate::mrc::{Dated, is_name};
use crate::shared::{Shared, to_its_end};
use crate::{Attributes, Change, Error, Ino, Kind, Member, OpenMode, Page, Result, Statistics};

/// Bit of [`Volume::access`]: may it be executed, or the directory searched.
const SEARCH: u32 = 1;

/// An XtreemFS volume. Clones share connections, caches and open files.
///
/// # Errors
/// Of all operations: what the services refuse (with their errno); `EACCES` when the person has
/// no ticket; `EIO` when a service was not reached within the deadline
/// ([`crate::Config::deadline`]).
///
/// When a connection breaks after a change was sent, it is not known whether the change took
/// place. Changes that may happen twice are sent again. For the others the client looks at the
/// result and answers accordingly: a name to be removed that is gone counts as removed, a name to
/// be made that is absent is made again, a rename whose source is gone and whose target is the
/// inode that was to be moved counts as done; what still has its inode is removed or moved again.
/// Where the result could also be somebody else's work (a name to be made is there, or a name to
/// be removed is another inode's now), the operation fails with [`Error::OutcomeUnknown`] (`EIO`).
#[derive(Debug, Clone)]
pub struct Volume {
    pub(crate) shared: Arc<Shared>,
}

impl Volume {
    /// The root directory.
    pub fn root(&self) -> Ino {
        Ino(ROOT_INODE)
    }

    async fn has_ticket(&self, who: Member) -> Result<()> {
        let ticket = self.shared.mrc.links.tickets.ticket(who).await;
        ticket
            .map(drop)
            .map_err(|reason| Error::NoTicket { member: who, reason: reason.to_string() })
    }

    /// Finds a name in a directory.
    ///
    /// # Errors
    /// `ENOENT`, `EACCES`, `ENAMETOOLONG`; see [`Volume`].
    pub async fn lookup(&self, who: Member, parent: Ino, name: &[u8]) -> Result<Attributes> {
        check_name(name)?;
        self.has_ticket(who).await?;
        let entries = &self.shared.mrc.entries;
        // Not of a file that is, or was just now, written here: the MRC hears of its size later,
        // and the kernel would cut off what lies behind the one that was listed.
        let known = entries.find(who, parent, name, Instant::now());
        if let Some(known) = known.filter(|known| !self.shared.is_in_use(known.ino)) {
            self.shared.seen.note((parent, name), known.ino);
            return Ok(known);
        }
        let (before, asked) = (entries.before(), self.shared.asked());
        let dated = self.shared.mrc.lookup(who, parent, name).await?;
        self.shared.seen.note((parent, name), dated.attributes.ino);
        if dated.attributes.kind == Kind::Directory {
            entries.keep(before, who, parent, name, dated.attributes, Instant::now());
        }
        Ok(self.shared.reconciled(dated, asked))
    }

    /// Attributes of an inode.
    ///
    /// # Errors
    /// `ESTALE`, `EACCES`; see [`Volume`].
    pub async fn attributes(&self, who: Member, ino: Ino) -> Result<Attributes> {
        self.has_ticket(who).await?;
        if let Some(known) = self.shared.inode(ino).and_then(|inode| inode.known_attributes(who)) {
            return Ok(known);
        }
        let asked = self.shared.asked();
        let dated = self.shared.mrc.attributes(who, ino).await?;
        Ok(self.shared.reconciled(dated, asked))
    }

    /// Changes attributes; a new size cuts the file or lengthens it with zeros.
    ///
    /// # Errors
    /// `EPERM`, `EACCES`, `ESTALE`; see [`Volume`].
    pub async fn change(&self, who: Member, ino: Ino, change: Change) -> Result<Attributes> {
        let mut attributes = None;
        if let Some(size) = change.size {
            attributes = Some(self.shared.truncate_with(who, ino, size, None).await?.0);
        }
        let rest = Change { size: None, ..change };
        if let (Some(attributes), true) = (attributes, rest == Change::default()) {
            return Ok(attributes);
        }
        if let Some(inode) = self.shared.inode(ino) {
            inode.commit_written().await?;
        }
        let asked = self.shared.asked();
        let dated = self.shared.mrc.change(who, ino, rest).await?;
        if dated.attributes.kind == Kind::Directory {
            self.shared.mrc.entries.forget_all();
        }
        Ok(self.shared.reconciled(dated, asked))
    }

    /// Target of a symbolic link.
    ///
    /// # Errors
    /// `EINVAL` when it is none; see [`Volume`].
    pub async fn read_link(&self, who: Member, ino: Ino) -> Result<Bytes> {
        self.shared.mrc.read_link(who, ino).await
    }

    /// Whether the person has these rights: 4 read, 2 write, 1 execute or search, 0 existence.
    ///
    /// # Errors
    /// `EACCES` when one is missing; see [`Volume`].
    pub async fn access(&self, who: Member, ino: Ino, mask: u32) -> Result<()> {
        self.shared.mrc.access(who, ino, mask).await
    }

    /// Opens a file: the MRC is asked each time. A truncating open is done when it returns.
    ///
    /// # Errors
    /// `EACCES`, `EISDIR`, `ESTALE`; `ENFILE` past [`crate::limits::OPEN_FILES_MAX`]; see
    /// [`Volume`].
    pub async fn open(&self, who: Member, ino: Ino, mode: OpenMode) -> Result<(Attributes, File)> {
        self.shared.has_room()?;
        if mode.execute {
            self.shared.mrc.access(who, ino, SEARCH).await?;
        }
        if !mode.truncate {
            let asked = self.shared.asked();
            let opened = self.shared.mrc.open(who, ino, flags(mode)).await?;
            return self.shared.opened(who, mode, opened, asked).await;
        }
        let shared = Arc::clone(&self.shared);
        to_its_end(async move {
            let present = shared.inode(ino);
            let _order = match &present {
                Some(inode) => Some(inode.quiet().await),
                None => None,
            };
            let asked = shared.asked();
            let opened = shared.mrc.open(who, ino, flags(mode) | open_flags::TRUNCATE).await?;
            shared.opened(who, mode, opened, asked).await
        })
        .await
    }

    /// Creates and opens a file, or opens what is there unless `exclusive`.
    ///
    /// # Errors
    /// `EEXIST`, `EACCES`, `ENAMETOOLONG`, `ENOSPC`; see [`Volume`].
    pub async fn create(
        &self,
        who: Member,
        parent: Ino,
        name: &[u8],
        permissions: u32,
        mode: OpenMode,
        exclusive: bool,
    ) -> Result<(Attributes, File)> {
        check_name(name)?;
        self.shared.has_room()?;
        let truncate = if mode.truncate { open_flags::TRUNCATE } else { 0 };
        let only_new = if exclusive { open_flags::EXCLUSIVE } else { 0 };
        let flags = flags(mode) | truncate | only_new;
        let (volume, name) = (self.clone(), Bytes::copy_from_slice(name));
        // An existing file may be cut by it.
        to_its_end(async move {
            let asked = volume.shared.asked();
            let entry = (parent, &*name);
            let make = || volume.shared.mrc.create(who, entry, permissions, flags);
            let opened = volume.settle_absent(who, entry, make).await?;
            volume.shared.seen.note(entry, opened.dated.attributes.ino);
            volume.shared.opened(who, mode, opened, asked).await
        })
        .await
    }

    /// Lists a directory after the entry with cookie `after`, or from its start for 0. `.` and
    /// `..` are not listed.
    ///
    /// # Errors
    /// `EACCES`, `ENOTDIR`; see [`Volume`].
    pub async fn list(&self, who: Member, ino: Ino, after: u64) -> Result<Page> {
        let before = self.shared.mrc.entries.before();
        let (page, all) = self.shared.mrc.list(who, ino, after).await?;
        self.keep_listed(before, who, ino, &page, &all);
        Ok(page)
    }

    /// What a listing told serves the look-ups of `ls -l`. To those who may list but not look up
    /// the MRC tells numbers and kinds only, known by their count of names.
    fn keep_listed(&self, before: Before, who: Member, ino: Ino, page: &Page, all: &[Dated]) {
        let now = Instant::now();
        let listed = page.entries.iter().zip(all).filter(|(_, dated)| dated.attributes.links > 0);
        for (entry, dated) in listed {
            let attributes = dated.attributes;
            self.shared.mrc.entries.keep_listed(before, who, ino, &entry.name, attributes, now);
        }
    }

    /// Space and files.
    ///
    /// # Errors
    /// See [`Volume`].
    pub async fn statistics(&self, who: Member) -> Result<Statistics> {
        let s = self.shared.mrc.statistics(who).await?;
        let (total_bytes, free_bytes) = (s.total_bytes, s.free_bytes);
        Ok(Statistics { total_bytes, free_bytes, files: s.inodes })
    }

    /// Flushes every open file and waits for deletions under way: the last act before the end.
    ///
    /// # Errors
    /// The first error; the other files were flushed all the same.
    pub async fn flush(&self) -> Result<()> {
        // At once: one file whose OSD is away must not keep the others from being flushed in time.
        let flushes = self
            .shared
            .inodes()
            .into_iter()
            .map(|inode| async move { inode.commit_written().await });
        let results: Vec<Result<()>> =
            stream::iter(flushes).buffer_unordered(CARE_AT_ONCE).collect().await;
        self.shared.deletions_done().await;
        results.into_iter().collect()
    }
}

pub(crate) fn check_name(name: &[u8]) -> Result<()> {
    if name.len() > NAME_BYTES_MAX {
        let reason = format!("a name of {} bytes; {NAME_BYTES_MAX} are allowed", name.len());
        return Err(Error::local(libc::ENAMETOOLONG, reason));
    }
    if !is_name(name) {
        return Err(Error::local(libc::EINVAL, "not a name for a directory entry"));
    }
    Ok(())
}

pub(crate) fn check_target(target: &[u8]) -> Result<()> {
    if target.len() > SYMLINK_BYTES_MAX {
        let reason = format!("a link to {} bytes; {SYMLINK_BYTES_MAX} are allowed", target.len());
        return Err(Error::local(libc::ENAMETOOLONG, reason));
    }
    if target.is_empty() || target.contains(&0) {
        return Err(Error::local(libc::ENOENT, "a link must have a target"));
    }
    Ok(())
}
