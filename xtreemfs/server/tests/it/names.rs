//! Entries of directories: names, create, remove, list, links, attributes.

use xtreemfs_proto::mrc::*;
use xtreemfs_proto::{Capability, Errno};

use crate::world::*;

const RW: u32 = open_flags::READ | open_flags::WRITE;

/// The sizes of the truncations that a capability names.
fn owed(token: &[u8]) -> Vec<u64> {
    Capability::peek(token).unwrap().owed.iter().map(|cut| cut.size).collect()
}

fn may_cut(token: &[u8]) -> bool {
    xtreemfs_proto::Access(Capability::peek(token).unwrap().access)
        .has(xtreemfs_proto::Access::TRUNCATE)
}

/// A person's names must be kept byte for byte, and those that cannot be must be refused with the
/// error that POSIX programs expect.
#[tokio::test]
async fn names_of_all_kinds() {
    let world = World::new().await;
    let ann = world.person(10, "100", false).await;
    for name in ["plain", "new\nline", "-rf *", "ü", &"x".repeat(255)] {
        let inode = ann.file(ROOT_INODE, name, 0o644).await.unwrap();
        assert_eq!(ann.lookup(ROOT_INODE, name).await.unwrap().inode, inode);
    }
    for name in ["", ".", "..", "a/b", "a\0"] {
        assert_eq!(ann.file(ROOT_INODE, name, 0o644).await, Err(Errno::EINVAL), "{name:?}");
        assert_eq!(ann.lookup(ROOT_INODE, name).await, Err(Errno::EINVAL));
        assert_eq!(ann.mkdir(ROOT_INODE, name, 0o755).await, Err(Errno::EINVAL));
        assert_eq!(ann.unlink(ROOT_INODE, name).await, Err(Errno::EINVAL));
        let to = (ROOT_INODE, name);
        assert_eq!(ann.rename((ROOT_INODE, "plain"), to, 0).await, Err(Errno::EINVAL));
    }
    let long = "x".repeat(300);
    assert_eq!(ann.file(ROOT_INODE, &long, 0o644).await, Err(Errno::ENAMETOOLONG));
    assert_eq!(ann.lookup(ROOT_INODE, &long).await, Err(Errno::ENAMETOOLONG));
    assert_eq!(ann.lookup(ROOT_INODE, "nothing").await, Err(Errno::ENOENT));
}

/// Create and open must behave as open(2) with O_CREAT, O_EXCL and O_TRUNC.
#[tokio::test]
async fn create_and_open() {
    let world = World::new().await;
    let ann = world.person(10, "100", false).await;
    let made = ann.create(ROOT_INODE, "f", 0o640, RW | open_flags::EXCLUSIVE).await.unwrap();
    let attr = made.attr.unwrap();
    assert!(made.created);
    assert!(owed(&made.capability).is_empty());
    assert_eq!((attr.owner, attr.group, attr.mode, attr.nlink, attr.size), (10, 100, 0o640, 1, 0));
    assert_eq!(made.layout.unwrap().osds.len(), 2);

    let again = ann.create(ROOT_INODE, "f", 0o777, RW).await.unwrap();
    assert!(!again.created);
    assert_eq!(again.attr.unwrap(), attr, "an existing file keeps its mode");
    let exclusive = RW | open_flags::EXCLUSIVE;
    assert_eq!(ann.create(ROOT_INODE, "f", 0o640, exclusive).await, Err(Errno::EEXIST));

    ann.commit(again.capability, 5000).await.unwrap();
    let cut = ann.open(attr.inode, RW | open_flags::TRUNCATE).await.unwrap();
    assert_eq!((cut.attr.unwrap().size, owed(&cut.capability)), (0, vec![0]));
    assert!(cut.attr.unwrap().truncate_epoch > attr.truncate_epoch);

    let dir = ann.mkdir(ROOT_INODE, "d", 0o755).await.unwrap();
    assert_eq!(ann.open(dir.inode, RW).await, Err(Errno::EISDIR));
    assert_eq!(ann.file(attr.inode, "x", 0o644).await, Err(Errno::ENOTDIR));
    for flags in [0, open_flags::TRUNCATE | open_flags::READ, 64 | RW] {
        assert_eq!(ann.open(attr.inode, flags).await, Err(Errno::EINVAL), "{flags:#x}");
    }
    assert_eq!(ann.open(999, RW).await, Err(Errno::ESTALE));
}

/// Removing must give the objects' capability for files only, once, and never empty a directory
/// by the way.
#[tokio::test]
async fn unlink_and_rmdir() {
    let world = World::new().await;
    let ann = world.person(10, "100", false).await;
    let dir = ann.mkdir(ROOT_INODE, "d", 0o755).await.unwrap().inode;
    let file = ann.file(dir, "f", 0o644).await.unwrap();
    assert_eq!(ann.rmdir(ROOT_INODE, "d").await, Err(Errno::ENOTEMPTY));
    assert_eq!(ann.unlink(ROOT_INODE, "d").await, Err(Errno::EISDIR));
    assert_eq!(ann.rmdir(dir, "f").await, Err(Errno::ENOTDIR));
    assert_eq!(ann.rmdir(dir, "nothing").await, Err(Errno::ENOENT));

    let removed = ann.unlink(dir, "f").await.unwrap();
    assert_eq!(removed.inode, file);
    let deleted = removed.deleted.unwrap();
    assert_eq!(deleted.inode, file);
    let request = CapabilityRequest { capability: deleted.capability };
    assert!(ann.call::<Renew>(request).await.is_ok(), "deleting may take longer than ten minutes");
    assert_eq!(ann.unlink(dir, "f").await, Err(Errno::ENOENT));
    assert_eq!(ann.getattr(file).await, Err(Errno::ESTALE));

    ann.rmdir(ROOT_INODE, "d").await.unwrap();
    assert_eq!(ann.file(dir, "late", 0o644).await, Err(Errno::ESTALE), "in a removed directory");
    let again = ann.file(ROOT_INODE, "g", 0o644).await.unwrap();
    assert!(again > file, "an inode number came twice: old objects would show up in a new file");
}

/// A listing must give each entry once, whatever is removed or added while it goes on.
#[tokio::test]
async fn readdir_in_portions() {
    let world = World::new().await;
    let ann = world.person(10, "100", false).await;
    for n in 0..50 {
        ann.file(ROOT_INODE, &format!("f{n:02}"), 0o600).await.unwrap();
    }
    let (mut cookie, mut seen) = (0, Vec::new());
    loop {
        let part = ann.list(ROOT_INODE, cookie, 7).await.unwrap();
        assert!(part.entries.len() <= 7);
        for entry in &part.entries {
            let name = String::from_utf8(entry.name.to_vec()).unwrap();
            assert_eq!(entry.attr.unwrap().mode, 0o600);
            cookie = entry.cookie;
            ann.unlink(ROOT_INODE, &name).await.unwrap();
            seen.push(name);
        }
        if part.end {
            break;
        }
    }
    let expected: Vec<_> = (0..50).map(|n| format!("f{n:02}")).collect();
    assert_eq!(seen, expected);
    let rest = ann.list(ROOT_INODE, 0, 0).await.unwrap();
    assert!(rest.entries.is_empty() && rest.end && rest.parent == ROOT_INODE);
}

/// `find`, `du` and `tar` rely on link counts and times of directories.
#[tokio::test]
async fn directories_count_and_carry_times() {
    let world = World::new().await;
    let ann = world.person(10, "100", false).await;
    let dir = ann.mkdir(ROOT_INODE, "d", 0o755).await.unwrap();
    assert_eq!(dir.nlink, 2);
    ann.mkdir(dir.inode, "sub", 0o755).await.unwrap();
    world.around.clock.forward(1000);
    ann.file(dir.inode, "f", 0o644).await.unwrap();
    let after = ann.getattr(dir.inode).await.unwrap();
    assert_eq!((after.nlink, after.size), (3, 2));
    assert_eq!(after.mtime_ns, dir.mtime_ns + 1_000_000_000);
    ann.rmdir(dir.inode, "sub").await.unwrap();
    assert_eq!(ann.getattr(dir.inode).await.unwrap().nlink, 2);
    let space = ann.call::<Statfs>(VolumeRequest { volume: world.volume.clone() }).await.unwrap();
    assert_eq!((space.inodes, space.free_bytes), (3, 2 << 40));
}

/// Symbolic links keep their target byte for byte; hard links are refused, not faked.
#[tokio::test]
async fn links() {
    let world = World::new().await;
    let ann = world.person(10, "100", false).await;
    let symlink = |name: &str, target: &str| SymlinkRequest {
        volume: world.volume.clone(),
        parent: ROOT_INODE,
        name: b(name),
        target: b(target),
    };
    let target = "../x\ny/".repeat(500);
    let link = ann.call::<Symlink>(symlink("l", &target)).await.unwrap().attr.unwrap();
    assert_eq!((link.kind(), link.mode, link.size), (Kind::Symlink, 0o777, target.len() as u64));
    let read = ann.call::<Readlink>(ann.inode(link.inode)).await.unwrap();
    assert_eq!(read.target, target.as_bytes());
    assert_eq!(ann.call::<Symlink>(symlink("l", "x")).await, Err(Errno::EEXIST));
    assert_eq!(ann.call::<Symlink>(symlink("m", "")).await, Err(Errno::EINVAL));
    let long = "x".repeat(4096);
    assert_eq!(ann.call::<Symlink>(symlink("m", &long)).await, Err(Errno::ENAMETOOLONG));
    assert_eq!(ann.open(link.inode, RW).await, Err(Errno::ELOOP));
    assert_eq!(ann.call::<Readlink>(ann.inode(ROOT_INODE)).await, Err(Errno::EINVAL));
    assert!(ann.unlink(ROOT_INODE, "l").await.unwrap().deleted.is_none());
    assert_eq!(ann.call::<Readlink>(ann.inode(link.inode)).await, Err(Errno::ESTALE));

    let inode = ann.file(ROOT_INODE, "f", 0o644).await.unwrap();
    let request =
        LinkRequest { volume: world.volume.clone(), inode, parent: ROOT_INODE, name: b("g") };
    assert_eq!(ann.call::<Link>(request).await, Err(Errno::ENOTSUP));
}

/// What is owed is named by every capability until it is made, whoever asks and after a restart
/// too: else an OSD that its client did not reach would keep what was cut off.
#[tokio::test]
async fn owed_truncations() {
    let world = World::new().await;
    let ann = world.person(10, "100", false).await;
    let opened = ann.create(ROOT_INODE, "f", 0o644, RW).await.unwrap();
    let (inode, old) = (opened.attr.unwrap().inode, opened.capability);
    let first = ann.truncate(inode, 50, old.clone()).await.unwrap().capability;
    let second = ann.truncate(inode, 900, old.clone()).await.unwrap().capability;
    assert_eq!(owed(&second), [50, 900], "made longer, and the first not yet made");
    let renewed = ann.call::<Renew>(CapabilityRequest { capability: old.clone() }).await.unwrap();
    assert_eq!(owed(&renewed.capability), [50, 900]);
    assert!(may_cut(&renewed.capability), "a writer could not make it");
    let read = ann.open(inode, open_flags::READ).await.unwrap().capability;
    assert_eq!((owed(&read), may_cut(&read)), (vec![50, 900], false));
    let made = |capability| ann.call::<CutMade>(CapabilityRequest { capability });
    assert_eq!(made(read).await, Err(Errno::EACCES));
    made(first).await.unwrap();
    assert_eq!(owed(&ann.open(inode, RW).await.unwrap().capability), [900], "the newer one");
    made(second).await.unwrap();
    let done = ann.open(inode, RW).await.unwrap().capability;
    assert_eq!((owed(&done), may_cut(&done)), (vec![], false));
    // What a smaller one cuts off needs no older one.
    for size in [3, 5, 2, 2] {
        ann.truncate(inode, size, old.clone()).await.unwrap();
    }
    assert_eq!(owed(&ann.open(inode, RW).await.unwrap().capability), [2]);
    for size in 3..18 {
        ann.truncate(inode, size, old.clone()).await.unwrap();
    }
    assert_eq!(ann.truncate(inode, 18, old.clone()).await, Err(Errno::EIO), "without bound");
    ann.truncate(inode, 0, old).await.unwrap();
}

/// Sizes must follow truncations: a late commit from before a truncation would bring back bytes
/// that are gone.
#[tokio::test]
async fn sizes_and_truncations() {
    let world = World::new().await;
    let ann = world.person(10, "100", false).await;
    let opened = ann.create(ROOT_INODE, "f", 0o644, RW).await.unwrap();
    let (inode, old) = (opened.attr.unwrap().inode, opened.capability);
    let size = |reply: SizeCommitReply| (reply.attr.unwrap().size, reply.stale_epoch);
    assert_eq!(size(ann.commit(old.clone(), 9000).await.unwrap()), (9000, false));
    assert_eq!(size(ann.commit(old.clone(), 100).await.unwrap()), (9000, false));

    let cut = ann.truncate(inode, 50, old.clone()).await.unwrap();
    assert_eq!((cut.attr.unwrap().size, owed(&cut.capability)), (50, vec![50]));
    assert_eq!(size(ann.commit(old.clone(), 9000).await.unwrap()), (50, true));
    let renewed = ann.call::<Renew>(CapabilityRequest { capability: old }).await.unwrap();
    assert_eq!(size(ann.commit(renewed.capability, 70).await.unwrap()), (70, false));

    let too_large = (1 << 50) + 1;
    assert_eq!(ann.truncate(inode, too_large, Default::default()).await, Err(Errno::EFBIG));
    let grown = ann.truncate(inode, 1 << 40, Default::default()).await.unwrap();
    assert_eq!(grown.attr.unwrap().size, 1 << 40);
    let (_, commits) = (ann.unlink(ROOT_INODE, "f").await.unwrap(), grown.capability);
    assert_eq!(ann.commit(commits, 1).await, Err(Errno::ESTALE));
}
