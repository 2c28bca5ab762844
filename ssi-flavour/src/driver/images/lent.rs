//! Images that CRIU reads with a person's rights: as long as it runs, a group of the person's may
//! read them. Nobody comes to them but who is given the folder, or may enter those above it, which
//! whoever keeps images closes (0700). They can be changed by nobody all the while.

use super::{Folder, ImageError};
use rustix::fs::{Mode, fchmod, fchown};
use rustix::process::{Gid, getegid};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// The modes of a folder and its files: nobody else's, and lent.
pub(super) const OWN: (u32, u32) = (0o700, 0o600);
pub(super) const LENT: (u32, u32) = (0o750, 0o640);

/// An image folder that a group may read until this is dropped.
pub(in crate::driver) struct Lent(PathBuf);

impl Lent {
    /// Lends the folder to a group.
    ///
    /// # Errors
    /// When it is not this program's user's alone, and those of the disk.
    pub(in crate::driver) fn to(path: &Path, gid: u32) -> Result<Lent, ImageError> {
        let dir = Folder::open(path)?;
        // From here on it is taken back, also when this fails.
        let lent = Lent(path.to_owned());
        let gid = Gid::from_raw(gid);
        set(&dir.fd, gid, LENT.0).map_err(dir.failed(""))?;
        for name in dir.names()? {
            set(dir.file(&name)?, gid, LENT.1).map_err(dir.failed(&name))?;
        }
        Ok(lent)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Err(error) = take_back(&self.0) {
            tracing::warn!(%error, "images stay readable for the group of their program");
        }
    }
}

/// The folder last: as long as it is lent, its files may be.
fn take_back(path: &Path) -> Result<(), ImageError> {
    let dir = Folder::open(path)?;
    for name in dir.names()? {
        set(dir.file(&name)?, getegid(), OWN.1).map_err(dir.failed(&name))?;
    }
    set(&dir.fd, getegid(), OWN.0).map_err(dir.failed(""))
}

fn set(file: impl AsFd, gid: Gid, mode: u32) -> std::io::Result<()> {
    fchown(&file, None, Some(gid))?;
    fchmod(&file, Mode::from_raw_mode(mode))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};

    /// If it failed, others could read what a program had in its memory for ever, or its images
    /// be lost when a node ends in the middle of a restart.
    #[test]
    fn lent_images_are_whole_and_come_back() {
        if !rustix::process::geteuid().is_root() {
            return println!("skipped: needs root to give files away");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("images");
        std::fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
        let pages = path.join("pages-1.img");
        let mut how = std::fs::OpenOptions::new();
        how.write(true).create_new(true).mode(0o600).open(&pages).unwrap();
        let seen = |path: &Path| {
            let seen = std::fs::metadata(path).unwrap();
            (seen.mode() & 0o7777, seen.uid(), seen.gid())
        };
        let lent = Lent::to(&path, 70_001).unwrap();
        assert_eq!((seen(&path), seen(&pages)), ((0o750, 0, 70_001), (0o640, 0, 70_001)));
        // Who ends without taking them back leaves them so.
        std::mem::forget(lent);
        drop(Lent::to(&path, 70_002).unwrap());
        assert_eq!((seen(&path), seen(&pages)), ((0o700, 0, 0), (0o600, 0, 0)));
    }
}
