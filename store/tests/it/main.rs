//! The store against real files, kills and full disks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod conformance;
mod full_disk;
mod journal_kill;
mod kill;
mod mutated;
mod redb;

use std::{path::Path, sync::Arc};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    unistd::geteuid,
};

/// A file system of `bytes`, gone when dropped; `None`, with the reason printed, where we may not.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(bytes: usize) -> Option<Arc<Self>> {
        if !geteuid().is_root() {
            println!("skipped: mounting a small disk needs root");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={bytes}");
        let tmpfs = Some("tmpfs");
        if let Err(errno) =
            mount(tmpfs, dir.path(), tmpfs, MsFlags::empty(), Some(options.as_str()))
        {
            println!("skipped: no small disk could be mounted: {errno}");
            return None;
        }
        Some(Arc::new(Self(dir)))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        umount2(self.path(), MntFlags::MNT_DETACH).unwrap();
    }
}

/// Takes all space that is left, and gives it back when dropped.
struct Ballast(std::path::PathBuf);

impl Ballast {
    fn fill(dir: &Path) -> Self {
        use std::io::Write;
        let path = dir.join("ballast");
        let mut file = std::fs::File::create(&path).unwrap();
        let block = vec![0; 4096];
        while file.write_all(&block).is_ok() {}
        Self(path)
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}
