//! A folder in which an image arrives, and how much may: who sends it is another node, and would
//! otherwise fill this one's disk.

use super::memory::Room;
use rustix::fs::statvfs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

/// What each file counts beside its bytes.
pub(super) const FILE_BYTES: u64 = 1024;
/// Of the disk such a part stays free of images that come, of its bytes and of its files, and so
/// much at most.
const FREE_PART: u64 = 32;
const FREE_BYTES_MAX: u64 = 1 << 30;
const FREE_FILES_MAX: u64 = 100_000;

/// A folder in which an image arrives.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) path: PathBuf,
    /// Of the tree's images.
    pub(super) of: PathBuf,
    /// Whether it is to be on the disk when it is whole.
    pub(super) lasts: bool,
    /// In memory; none: on the disk.
    pub(super) room: Option<Room>,
    /// How many bytes may come to the disk.
    pub(super) on_disk: u64,
}

impl Part {
    /// How many bytes may come, with [`FILE_BYTES`] for each file.
    pub(super) fn most(&self) -> u64 {
        self.room.as_ref().map_or(self.on_disk, Room::bytes)
    }

    /// Whether more may come now.
    ///
    /// # Errors
    /// `StorageFull` when the disk is as full as images may make it; that of asking.
    pub(super) fn takes_more(&self) -> io::Result<()> {
        if self.room.is_some() {
            return Ok(());
        }
        let disk = statvfs(&self.path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        let all = (bytes(disk.f_bavail), bytes(disk.f_blocks));
        if is_spare(all, (disk.f_favail, disk.f_files)) {
            return Ok(());
        }
        let why = "this node's disk has no more room for images of other nodes";
        Err(io::Error::new(ErrorKind::StorageFull, why))
    }
}

/// Whether of all bytes of a disk, and of all its files, more are free than stay free of images.
fn is_spare(bytes: (u64, u64), files: (u64, u64)) -> bool {
    // Some do not say how large they are, or have files without a limit.
    let spare = |(free, all): (u64, u64), most: u64| all == 0 || free > (all / FREE_PART).min(most);
    spare(bytes, FREE_BYTES_MAX) && spare(files, FREE_FILES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_leave_something_of_the_disk() {
        // wrong: a rooted node could fill this one's disk with images, by bytes or by names, and
        // nothing of what runs here be written down any more
        assert!(is_spare((11, 320), (11, 320)));
        assert!(!is_spare((10, 320), (11, 320)), "bytes");
        assert!(!is_spare((11, 320), (10, 320)), "names");
        assert!(is_spare((11, 320), (0, 0)), "as many names as there are bytes");
        let large = 1 << 50;
        assert!(is_spare((FREE_BYTES_MAX + 1, large), (FREE_FILES_MAX + 1, large)));
        assert!(!is_spare((FREE_BYTES_MAX, large), (FREE_FILES_MAX + 1, large)));
    }
}
