//! Operations on open files and open directories.

use bytes::Bytes;
use fuser::INodeNo;
use xtreemfs_client::{Entry, Error, File, Ino, Kind, Member, Page};

use crate::convert::{self, to_kernel, to_volume};
use crate::core::{Core, Shown};
use crate::handles::{OpenDirectory, OpenFile};

/// Cookies of `.` and `..`; those of the volume's entries follow, shifted by this number.
const DOTS: u64 = 2;

/// The right to list a directory.
const LIST: u32 = 4;

/// One entry for the kernel: number, where to go on, kind, name.
pub(crate) struct Listed {
    pub(crate) ino: INodeNo,
    pub(crate) next: u64,
    pub(crate) kind: Kind,
    pub(crate) name: Bytes,
}

impl Core {
    /// Opens a file: the MRC is asked each time, so what the page cache holds is only ever read
    /// through a handle whose owner may read the file. It gets its number when the kernel is
    /// answered; an answer that nobody waits for any more closes it.
    pub(crate) async fn open(
        &self,
        who: Member,
        ino: INodeNo,
        flags: i32,
    ) -> Result<OpenFile, Error> {
        let ino = to_volume(ino);
        let (attributes, file) = self.volume.open(who, ino, convert::open_mode(flags)).await?;
        self.freshen(&attributes);
        Ok(open_file(who, file, flags))
    }

    /// Creates and opens a file; an existing one is opened, unless the flags forbid it.
    pub(crate) async fn create(
        &self,
        who: Member,
        parent: INodeNo,
        name: &[u8],
        mode: u32,
        flags: i32,
    ) -> Result<(Shown, OpenFile), Error> {
        let parent = to_volume(parent);
        let exclusive = flags & libc::O_EXCL != 0;
        let open = convert::open_mode(flags);
        let (attributes, file) =
            self.volume.create(who, parent, name, mode & 0o7777, open, exclusive).await?;
        Ok((self.tell(&attributes), open_file(who, file, flags)))
    }

    /// Creates a regular file without opening it (`mknod`).
    pub(crate) async fn make_file(
        &self,
        who: Member,
        parent: INodeNo,
        name: &[u8],
        mode: u32,
    ) -> Result<Shown, Error> {
        let flags = libc::O_WRONLY | libc::O_EXCL;
        let (attributes, open) = self.create(who, parent, name, mode, flags).await?;
        open.file.close().await?;
        Ok(attributes)
    }

    pub(crate) async fn read(&self, handle: u64, offset: u64, size: u32) -> Result<Bytes, Error> {
        self.handles.file(handle)?.file.read(offset, size as usize).await
    }

    /// Writes. An appending handle's data go to the end of the file as it is now known, even where
    /// the kernel aimed at an older end; the inode in the answer is then one whose content the
    /// kernel must drop from its cache. A page of a mapped file goes where it belongs, through
    /// whatever handle the kernel sends it.
    pub(crate) async fn write(
        &self,
        handle: u64,
        offset: u64,
        data: Bytes,
        mapped: bool,
    ) -> Result<(u32, Option<Ino>), Error> {
        let open = self.handles.file(handle)?;
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        if mapped {
            open.file.write_back(offset, data).await?;
            return Ok((length, None));
        }
        let written_at = open.file.write(offset, data).await?;
        if open.synchronous {
            open.file.sync().await?;
        }
        Ok((length, (written_at != offset).then_some(open.ino)))
    }

    pub(crate) async fn flush(&self, handle: u64) -> Result<(), Error> {
        self.handles.file(handle)?.file.flush().await
    }

    pub(crate) async fn sync(&self, handle: u64) -> Result<(), Error> {
        self.handles.file(handle)?.file.sync().await
    }

    pub(crate) async fn release(&self, handle: u64) -> Result<(), Error> {
        self.handles.remove_file(handle)?.file.close().await
    }

    /// Part of a directory from `offset` on, as its opener may see it.
    pub(crate) async fn list(&self, handle: u64, offset: u64) -> Result<Vec<Listed>, Error> {
        let open = self.handles.directory(handle)?;
        let after = offset.saturating_sub(DOTS);
        let mut kept = open.page.lock().await;
        let known = kept.take().filter(|(start, page)| offset > 0 && goes_on(*start, page, after));
        let (start, page) = match known {
            Some(known) => known,
            None => (after, self.volume.list(open.who, open.ino, after).await?),
        };
        let mut listed = Vec::with_capacity(page.entries.len() + DOTS as usize);
        for next in offset.saturating_add(1)..=DOTS {
            let (ino, name) = if next == 1 { (open.ino, ".") } else { (page.parent, "..") };
            let (ino, name) = (to_kernel(ino), Bytes::from_static(name.as_bytes()));
            listed.push(Listed { ino, next, kind: Kind::Directory, name });
        }
        listed.extend(rest(start, &page, after).map(entry));
        *kept = Some((start, page));
        Ok(listed)
    }

    /// Opens a directory: whether it may be listed is the MRC's to say, now.
    pub(crate) async fn open_directory(
        &self,
        who: Member,
        ino: INodeNo,
    ) -> Result<OpenDirectory, Error> {
        let ino = to_volume(ino);
        self.volume.access(who, ino, LIST).await?;
        Ok(OpenDirectory { ino, who, page: Default::default() })
    }

    /// Flushes all that is open, before the end.
    pub(crate) async fn flush_all(&self) -> Result<(), Error> {
        self.volume.flush().await
    }
}

fn open_file(who: Member, file: File, flags: i32) -> OpenFile {
    let (ino, synchronous) = (file.ino(), flags & libc::O_DSYNC != 0);
    OpenFile { file, ino, who, synchronous }
}

fn entry(entry: &Entry) -> Listed {
    Listed {
        ino: to_kernel(entry.ino),
        next: entry.cookie.saturating_add(DOTS),
        kind: entry.kind,
        name: entry.name.clone(),
    }
}

/// The entries of a page that follow the entry with cookie `after`; the page itself follows
/// `start`.
fn rest(start: u64, page: &Page, after: u64) -> impl Iterator<Item = &Entry> {
    let position = page.entries.iter().position(|entry| entry.cookie == after);
    let skip = match position {
        _ if after == start => 0,
        Some(position) => position + 1,
        None => page.entries.len(),
    };
    page.entries.iter().skip(skip)
}

/// Whether the page still has something to say to a reader who has come to `after`.
fn goes_on(start: u64, page: &Page, after: u64) -> bool {
    let reached_end = page.last && page.entries.last().is_some_and(|e| e.cookie == after);
    reached_end || rest(start, page, after).next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(cookies: &[u64], last: bool) -> Page {
        let entry = |cookie: &u64| Entry {
            name: Bytes::from_static(b"f"),
            ino: Ino(9),
            kind: Kind::File,
            cookie: *cookie,
        };
        Page { parent: Ino(1), entries: cookies.iter().map(entry).collect(), last }
    }

    #[test]
    fn a_listing_goes_on_where_the_kernel_stopped() {
        let page = page(&[5, 3, 8], false);
        let left = |after| rest(0, &page, after).map(|e| e.cookie).collect::<Vec<_>>();
        assert_eq!(left(0), [5, 3, 8]);
        assert_eq!(left(5), [3, 8], "cookies need not grow");
        assert_eq!(left(8), []);
        assert!(!goes_on(0, &page, 8), "the next page must be asked for");
        assert!(!goes_on(0, &page, 77), "a place that is not in the page");
    }

    #[test]
    fn the_end_of_a_directory_is_not_asked_for_again() {
        assert!(goes_on(0, &page(&[5], true), 5));
    }
}
