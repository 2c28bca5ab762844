//! A disk that is really full: writes fail with `ENOSPC` and leave nothing half done, what was
//! acknowledged stays, and work goes on by itself once there is room again.

use crate::capabilities::{good, read, token, write};
use crate::world::*;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::io::Write;
use std::path::{Path, PathBuf};
use xtreemfs_proto::Errno;
use xtreemfs_proto::mrc::ROOT_INODE;
use xtreemfs_proto::osd::{FileRequest, Fsync};

/// So small that a checkpoint is due again and again.
const CHECKPOINT_BYTES: u64 = 16 << 10;

/// A file system of a few bytes, gone when dropped; `None`, with the reason printed, where we may
/// not make one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(bytes: usize) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = std::ffi::CString::new(format!("size={bytes}")).unwrap();
        let made = mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), Some(&*options));
        if let Err(errno) = made {
            println!("skipped: no small disk could be mounted (needs root): {errno}");
            return None;
        }
        Some(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(self.path(), UnmountFlags::DETACH).unwrap();
    }
}

/// Takes all space that is left, and gives it back when dropped.
struct Ballast(PathBuf);

impl Ballast {
    fn fill(dir: &Path) -> Self {
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

/// Makes files with long names until one is refused; the names that were acknowledged, and the
/// refused one.
async fn fill(person: &Person, kind: &str) -> (Vec<String>, String, Errno) {
    let mut made = Vec::new();
    for n in 0..100_000 {
        let name = format!("{kind}-{n}-{}", "x".repeat(200));
        match person.file(ROOT_INODE, &name, 0o644).await {
            Ok(_) => made.push(name),
            Err(errno) => return (made, name, errno),
        }
    }
    panic!("the small disk took more than it holds");
}

async fn there(person: &Person, names: &[String]) {
    for name in names {
        assert!(person.lookup(ROOT_INODE, name).await.is_ok(), "{name} is lost");
    }
    let root = person.getattr(ROOT_INODE).await.unwrap();
    assert_eq!(root.size, names.len() as u64, "the root counts its entries wrongly");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mrc_refuses_keeps_what_it_has_and_goes_on() {
    mrc_on_a_full_disk(1 << 30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_on_a_full_disk_lose_nothing() {
    mrc_on_a_full_disk(CHECKPOINT_BYTES).await;
}

async fn mrc_on_a_full_disk(checkpoint_bytes: u64) {
    let Some(disk) = SmallDisk::new(1 << 20) else { return };
    let dir = disk.path().join("mrc");
    let mrc = open_mrc(&dir, &Surroundings::new(), checkpoint_bytes);
    mrc.create_volume(&volume_request("home")).await.unwrap();
    let ann = crate::crash::person(&mrc, 10).await;
    let mut all = Vec::new();
    for round in 0..3 {
        let before = format!("before-{round}");
        ann.file(ROOT_INODE, &before, 0o644).await.unwrap();
        all.push(before);
        let ballast = Ballast::fill(disk.path());
        let (made, refused, errno) = fill(&ann, &format!("full-{round}")).await;
        assert_eq!(errno, Errno::ENOSPC);
        all.extend(made);
        // Refused is not there, what else was asked is answered, and more is refused as well.
        assert_eq!(ann.lookup(ROOT_INODE, &refused).await, Err(Errno::ENOENT));
        // A checkpoint may give space back at any time.
        if checkpoint_bytes > CHECKPOINT_BYTES {
            assert_eq!(ann.mkdir(ROOT_INODE, &refused, 0o755).await, Err(Errno::ENOSPC));
            let rename = ann.rename((ROOT_INODE, &all[0]), (ROOT_INODE, &refused), 1).await;
            assert_eq!(rename.err(), Some(Errno::ENOSPC));
        }
        there(&ann, &all).await;
        drop(ballast);
        // A name that was refused can be made now.
        ann.file(ROOT_INODE, &refused, 0o644).await.unwrap();
        all.push(refused);
        there(&ann, &all).await;
    }
    drop((ann, mrc));
    let mrc = crate::crash::reopen(&dir).await.unwrap();
    there(&crate::crash::person(&mrc, 11).await, &all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_osd_refuses_keeps_what_it_has_and_goes_on() {
    let Some(disk) = SmallDisk::new(1 << 20) else { return };
    let world = World::new().await;
    let osd = open_osd(&disk.path().join("osd"), &world.around, "osd-a", 0);
    let channel = connect_osd(&osd, "node-1").await;
    let token = token(&good(&world));
    let sync = || call::<Fsync>(&channel, None, FileRequest { capability: token.clone() });
    write(&channel, token.clone(), 0, 0, &[7; 1000]).await.unwrap();
    sync().await.unwrap();
    let ballast = Ballast::fill(disk.path());
    // Object 0 and 2 lie here, each of a stripe; far beyond what the disk has.
    let mut refused = None;
    for object in (2..1000).step_by(2) {
        if let Err(error) = write(&channel, token.clone(), object, 0, &[8; 4096]).await {
            refused = Some((object, error.errno));
            break;
        }
    }
    let (object, errno) = refused.expect("the small disk took more than it holds");
    assert_eq!(errno, Errno::ENOSPC);
    assert_eq!(read(&channel, token.clone(), 0, 0, 1000).await.unwrap(), [7; 1000][..]);
    // What is there can be written over, and synced.
    write(&channel, token.clone(), 0, 0, &[9; 1000]).await.unwrap();
    sync().await.unwrap();
    assert_eq!(read(&channel, token.clone(), 0, 0, 1000).await.unwrap(), [9; 1000][..]);
    drop(ballast);
    write(&channel, token.clone(), object, 0, &[8; 4096]).await.unwrap();
    sync().await.unwrap();
    assert_eq!(read(&channel, token, object, 0, 4096).await.unwrap(), [8; 4096][..]);
}
