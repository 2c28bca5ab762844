//! What a tree wrote, for who asks later.

use super::{ERROR_FILE, KEPT_FILE, Kept, OUTPUT_FILE, Spools, bytes};
use std::fs::OpenOptions;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// A part of what a tree wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Whether these are the last that are there now.
    pub end: bool,
}

impl Spools {
    /// At most `limit` bytes of the tree's output, or of its error output, from the byte `from` of
    /// all that it wrote on. Nothing, and the end, when there is no spool of it. Waits for the
    /// disk.
    ///
    /// # Errors
    /// Those of the files; [`ErrorKind::NotFound`] when the spool begins later, since what came
    /// before it went to another node or made room.
    pub fn read(&self, tree: u64, error: bool, from: u64, limit: usize) -> io::Result<Piece> {
        read_in(&self.folder(tree), error, from, limit)
    }

    /// Removes what the spool of a tree left, which is over ([`Spools::finish`]). One that is not
    /// there is no error.
    ///
    /// # Errors
    /// Those of the folder.
    pub fn forget(&self, tree: u64) -> io::Result<()> {
        let (owner, bytes) = self.measured(tree)?;
        match std::fs::remove_dir_all(self.folder(tree)) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        self.quota.sub(owner, bytes);
        Ok(())
    }
}

/// The same of what a folder has.
pub(super) fn read_in(folder: &Path, error: bool, from: u64, limit: usize) -> io::Result<Piece> {
    let nothing = Piece { bytes: Vec::new(), end: true };
    let kept: Kept = match std::fs::read(folder.join(KEPT_FILE)) {
        Ok(bytes) => serde_json::from_slice(&bytes)?,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(nothing),
        Err(e) => return Err(e),
    };
    let (stream, begins) =
        if error { (ERROR_FILE, kept.from[1]) } else { (OUTPUT_FILE, kept.from[0]) };
    let parts = bytes::parts(folder, stream, begins)?;
    let begins = parts.first().map_or(begins, |(begins, _)| *begins);
    if from < begins {
        let why = format!("the first {begins} bytes of the tree's output are not kept here");
        return Err(io::Error::new(ErrorKind::NotFound, why));
    }
    let last = parts.last().map(|(begins, _)| *begins);
    let part = parts.into_iter().rev().find(|(begins, _)| *begins <= from);
    let Some((begins, name)) = part else { return Ok(nothing) };
    let mut how = OpenOptions::new();
    let file = match how.read(true).custom_flags(libc::O_NOFOLLOW).open(folder.join(name)) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(nothing),
        Err(e) => return Err(e),
    };
    let (total, offset) = (file.metadata()?.len(), from - begins);
    let left = usize::try_from(total.saturating_sub(offset)).unwrap_or(usize::MAX);
    let mut bytes = vec![0; left.min(limit)];
    file.read_exact_at(&mut bytes, offset)?;
    // Where a loss of power took the end of a part nothing more is to be had.
    let end = if last == Some(begins) { bytes.len() == left } else { left == 0 };
    Ok(Piece { end, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, who reads a unit's output would get a part twice or not at all, or it would
    /// stay on the disk for ever.
    #[test]
    fn output_is_read_by_the_offsets_of_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        let spools = Spools::new(dir.path());
        let none = Piece { bytes: Vec::new(), end: true };
        assert_eq!(spools.read(7, false, 0, 9).unwrap(), none);
        std::fs::create_dir(spools.folder(7)).unwrap();
        let (exit, refused, owner) = (None, [false; 2], 0);
        let kept = Kept { epoch: 1, from: [10, 0], exit, refused, owner, line: 0 };
        let kept = serde_json::to_vec(&kept).unwrap();
        std::fs::write(spools.folder(7).join(KEPT_FILE), kept).unwrap();
        std::fs::write(spools.folder(7).join(OUTPUT_FILE), "abcdef").unwrap();
        let read = |from, limit| spools.read(7, false, from, limit);
        assert_eq!(read(12, 3).unwrap(), Piece { bytes: b"cde".to_vec(), end: false });
        assert_eq!(read(15, 3).unwrap(), Piece { bytes: b"f".to_vec(), end: true });
        assert_eq!(read(99, 3).unwrap(), none);
        assert_eq!(read(9, 3).unwrap_err().kind(), ErrorKind::NotFound);
        // In parts.
        std::fs::write(spools.folder(7).join("out.16"), "gh").unwrap();
        assert_eq!(read(15, 3).unwrap(), Piece { bytes: b"f".to_vec(), end: false });
        assert_eq!(read(16, 3).unwrap(), Piece { bytes: b"gh".to_vec(), end: true });
        std::fs::remove_file(spools.folder(7).join(OUTPUT_FILE)).unwrap();
        assert_eq!(read(12, 3).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(spools.read(7, true, 0, 3).unwrap(), none);
        spools.forget(7).unwrap();
        spools.forget(7).unwrap();
        assert_eq!(read(12, 3).unwrap(), none);
    }
}
