//! Operations of a volume that change directories. None is sent twice blindly; see [`Volume`].

use std::future::Future;

use bytes::Bytes;

use crate::mrc::{Dated, Deleted};
use crate::shared::to_its_end;
use crate::volume::{check_name, check_target};
use crate::{Attributes, Error, Ino, Kind, Member, Result, Volume};

/// An entry of a directory.
type Entry<'a> = (Ino, &'a [u8]);

/// A change whose outcome is unknown is looked at and perhaps sent again so often.
const UNKNOWN_MAX: u32 = 3;

impl Volume {
    /// Makes a directory.
    ///
    /// # Errors
    /// `EEXIST`, `EACCES`, `ENAMETOOLONG`; see [`Volume`].
    pub async fn make_directory(
        &self,
        who: Member,
        parent: Ino,
        name: &[u8],
        permissions: u32,
    ) -> Result<Attributes> {
        check_name(name)?;
        let entry = (parent, name);
        let make = || self.shared.mrc.make_directory(who, entry, permissions);
        self.made(entry, self.settle_absent(who, entry, make).await?)
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// `EEXIST`, `EACCES`, `ENAMETOOLONG`; see [`Volume`].
    pub async fn symlink(
        &self,
        who: Member,
        parent: Ino,
        name: &[u8],
        target: &[u8],
    ) -> Result<Attributes> {
        check_name(name)?;
        check_target(target)?;
        let entry = (parent, name);
        let make = || self.shared.mrc.symlink(who, entry, target);
        self.made(entry, self.settle_absent(who, entry, make).await?)
    }

    fn made(&self, entry: Entry<'_>, dated: Dated) -> Result<Attributes> {
        self.shared.seen.note(entry, dated.attributes.ino);
        Ok(dated.attributes)
    }

    /// Removes a file or a symbolic link. The content of a file goes too, but for one that is
    /// open on this machine only with its last handle.
    ///
    /// # Errors
    /// `ENOENT`, `EISDIR`, `EACCES`; see [`Volume`].
    pub async fn unlink(&self, who: Member, parent: Ino, name: &[u8]) -> Result<()> {
        check_name(name)?;
        let (volume, name) = (self.clone(), Bytes::copy_from_slice(name));
        // Only its answer says how the content is deleted.
        to_its_end(async move {
            let remove = || volume.shared.mrc.unlink(who, parent, &name);
            let deleted = volume.settle_present(who, (parent, &name), remove).await;
            volume.shared.mrc.entries.forget(parent);
            if let Some(deleted) = deleted?.flatten() {
                volume.shared.nameless(who, deleted).await;
            }
            Ok(())
        })
        .await
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTEMPTY`, `ENOTDIR`, `EACCES`; see [`Volume`].
    pub async fn remove_directory(&self, who: Member, parent: Ino, name: &[u8]) -> Result<()> {
        check_name(name)?;
        let remove = || self.shared.mrc.remove_directory(who, parent, name);
        let removed = self.settle_present(who, (parent, name), remove).await;
        self.shared.mrc.entries.forget(parent);
        removed.map(drop)
    }

    /// Renames; what has the new name goes, unless `no_replace`.
    ///
    /// # Errors
    /// `ENOENT`, `EEXIST`, `ENOTEMPTY`, `EISDIR`, `ENOTDIR`, `EINVAL` (into itself), `EACCES`; see
    /// [`Volume`].
    pub async fn rename(
        &self,
        who: Member,
        from: (Ino, &[u8]),
        to: (Ino, &[u8]),
        no_replace: bool,
    ) -> Result<()> {
        check_name(from.1)?;
        check_name(to.1)?;
        let volume = self.clone();
        let (name, new_name) = (Bytes::copy_from_slice(from.1), Bytes::copy_from_slice(to.1));
        let (dir, new_dir) = (from.0, to.0);
        // Only its answer says how the content of what was overwritten is deleted.
        to_its_end(async move {
            volume.rename_now(who, (dir, &name), (new_dir, &new_name), no_replace).await
        })
        .await
    }

    async fn rename_now(
        &self,
        who: Member,
        from: Entry<'_>,
        to: Entry<'_>,
        no_replace: bool,
    ) -> Result<()> {
        let renamed = self.settle_rename(who, from, to, no_replace).await;
        // A directory that moved took along the rights on everything below it.
        match &renamed {
            Ok(Some((dated, _))) if dated.attributes.kind != Kind::Directory => {
                self.shared.mrc.entries.forget(from.0);
                self.shared.mrc.entries.forget(to.0);
            }
            _ => self.shared.mrc.entries.forget_all(),
        }
        if let Some((_, Some(deleted))) = renamed? {
            self.shared.nameless(who, deleted).await;
        }
        Ok(())
    }

    /// Makes an entry; after an unknown outcome again if it is not there. `EIO` if it is: whose
    /// work it is cannot be known.
    pub(crate) async fn settle_absent<T, F, W>(
        &self,
        who: Member,
        (parent, name): Entry<'_>,
        make: F,
    ) -> Result<T>
    where
        F: Fn() -> W,
        W: Future<Output = Result<T>>,
    {
        let mut unknown = 0;
        loop {
            let result = make().await;
            let Err(error @ Error::OutcomeUnknown { .. }) = result else { return result };
            unknown += 1;
            match self.shared.mrc.lookup(who, parent, name).await {
                Err(missing) if missing.is_refusal(libc::ENOENT) && unknown < UNKNOWN_MAX => {}
                _ => return Err(error),
            }
        }
    }

    /// Removes an entry; `None` when it is gone after an unknown outcome. It is removed again only
    /// while it is the inode that was looked up before: another one by this name was made since.
    async fn settle_present<T, F, W>(
        &self,
        who: Member,
        entry: Entry<'_>,
        remove: F,
    ) -> Result<Option<T>>
    where
        F: Fn() -> W,
        W: Future<Output = Result<T>>,
    {
        let meant = self.shared.seen.find(entry);
        let mut unknown = 0;
        let result = loop {
            let result = remove().await;
            let Err(error @ Error::OutcomeUnknown { .. }) = result else {
                break result.map(Some);
            };
            unknown += 1;
            match self.shared.mrc.lookup(who, entry.0, entry.1).await {
                Err(missing) if missing.is_refusal(libc::ENOENT) => break Ok(None),
                Ok(found) if meant == Some(found.attributes.ino) && unknown < UNKNOWN_MAX => {}
                _ => break Err(error),
            }
        };
        self.shared.seen.forget(entry);
        result
    }

    /// Renames; `None` when it was done but its answer was lost. As in
    /// [`Volume::settle_present`], a source that was made anew meanwhile is not moved.
    async fn settle_rename(
        &self,
        who: Member,
        from: Entry<'_>,
        to: Entry<'_>,
        no_replace: bool,
    ) -> Result<Option<(Dated, Option<Deleted>)>> {
        let mrc = &self.shared.mrc;
        let meant = self.shared.seen.find(from);
        let mut unknown = 0;
        let result = loop {
            let result = mrc.rename(who, from, to, no_replace).await;
            let Err(error @ Error::OutcomeUnknown { .. }) = result else {
                break result.map(Some);
            };
            unknown += 1;
            match mrc.lookup(who, from.0, from.1).await {
                Ok(found) if meant == Some(found.attributes.ino) && unknown < UNKNOWN_MAX => {}
                Err(missing) if missing.is_refusal(libc::ENOENT) => {
                    let there = mrc.lookup(who, to.0, to.1).await;
                    let moved = there.is_ok_and(|there| meant == Some(there.attributes.ino));
                    break if moved { Ok(None) } else { Err(error) };
                }
                _ => break Err(error),
            }
        };
        self.shared.seen.forget(from);
        self.shared.seen.forget(to);
        let moved = match &result {
            Ok(Some((dated, _))) => Some(dated.attributes.ino),
            Ok(None) => meant,
            Err(_) => None,
        };
        if let Some(ino) = moved {
            self.shared.seen.note(to, ino);
        }
        result
    }
}
