//! A volume that does not answer.

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use tempfile::TempDir;

/// A mount whose server says nothing: who touches it waits.
pub struct Silent {
    dir: TempDir,
    /// The server's end.
    fuse: File,
}

impl Silent {
    /// `None`, with the reason printed, where this machine cannot have one.
    pub fn new() -> Option<Silent> {
        if !rustix::process::getuid().is_root() {
            println!("skipped: needs root");
            return None;
        }
        let fuse = OpenOptions::new().read(true).write(true).open("/dev/fuse");
        let fuse = fuse.map_err(|e| println!("skipped: /dev/fuse: {e}")).ok()?;
        let dir = tempfile::tempdir().unwrap();
        let fd = fuse.as_raw_fd();
        let options = format!("fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other");
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        let mounted =
            mount(Some("silent"), dir.path(), Some("fuse"), flags, Some(options.as_str()));
        mounted.map_err(|e| println!("skipped: mount: {e}")).ok()?;
        Some(Silent { dir, fuse })
    }

    /// Says to the kernel that it is there, so that it is asked: first that, by FUSE_INIT of
    /// fuse(4), as of version 7.31.
    pub fn begin(&self) {
        let asked = self.take();
        let numbers: [u32; 2] = [7, 31];
        let mut reply = Vec::new();
        reply.extend(80u32.to_le_bytes());
        reply.extend(0i32.to_le_bytes());
        reply.extend(&asked[8..16]);
        reply.extend(numbers.iter().flat_map(|n| n.to_le_bytes()));
        // Read ahead and flags; requests in the background; most bytes of one; grain of time.
        reply.extend([0; 12]);
        reply.extend(4096u32.to_le_bytes());
        reply.extend(1u32.to_le_bytes());
        reply.resize(80, 0);
        (&self.fuse).write_all(&reply).unwrap();
    }

    /// Takes a request, and says nothing: who made it cannot be killed any more.
    pub fn take(&self) -> Vec<u8> {
        let mut asked = vec![0; 64 * 1024];
        let n = (&self.fuse).read(&mut asked).unwrap();
        asked.truncate(n);
        asked
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // Nothing else can be done about it.
        let _stays = umount2(self.dir.path(), MntFlags::MNT_DETACH);
    }
}
