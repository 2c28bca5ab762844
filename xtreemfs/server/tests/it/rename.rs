//! Corner cases of rename(2).

use xtreemfs_proto::Errno;
use xtreemfs_proto::mrc::{ROOT_INODE, VolumeCreateRequest, rename_flags};
use xtreemfs_server::NO_MEMBER;

use crate::world::*;

const NOREPLACE: u32 = rename_flags::NOREPLACE;

/// Editors save by renaming over the old file: the old one must be gone, named in the answer, and
/// the new one must be all there.
#[tokio::test]
async fn over_a_file() {
    let world = World::new().await;
    let ann = world.person(10, "100", false).await;
    let new = ann.file(ROOT_INODE, "new", 0o644).await.unwrap();
    let old = ann.file(ROOT_INODE, "old", 0o644).await.unwrap();
    let (from, to) = ((ROOT_INODE, "new"), (ROOT_INODE, "old"));
    assert_eq!(ann.rename(from, to, NOREPLACE).await, Err(Errno::EEXIST));
    let reply = ann.rename(from, to, 0).await.unwrap();
    assert_eq!((reply.attr.unwrap().inode, reply.overwritten), (new, old));
    assert_eq!(reply.deleted.unwrap().inode, old);
    assert_eq!(ann.lookup(ROOT_INODE, "old").await.unwrap().inode, new);
    assert_eq!(ann.lookup(ROOT_INODE, "new").await, Err(Errno::ENOENT));
    assert_eq!(ann.getattr(old).await, Err(Errno::ESTALE));
    let root = ann.getattr(ROOT_INODE).await.unwrap();
    assert_eq!(root.size, 1, "the directory counts wrongly");
    assert_eq!(ann.list(ROOT_INODE, 0, 0).await.unwrap().entries.len(), 1);

    let reply = ann.rename(to, to, 0).await.unwrap();
    assert_eq!((reply.overwritten, reply.deleted), (0, None), "onto itself nothing happens");
    assert_eq!(ann.lookup(ROOT_INODE, "old").await.unwrap().inode, new);
    ann.rename(to, (ROOT_INODE, "free"), NOREPLACE).await.unwrap();
}

/// Files and directories must not take one another's place, and a full directory none at all.
#[tokio::test]
async fn over_something_of_another_kind() {
    let world = World::new().await;
    let ann = world.person(10, "100", false).await;
    ann.file(ROOT_INODE, "f", 0o644).await.unwrap();
    let d = ann.mkdir(ROOT_INODE, "d", 0o755).await.unwrap().inode;
    let full = ann.mkdir(ROOT_INODE, "full", 0o755).await.unwrap().inode;
    ann.file(full, "x", 0o644).await.unwrap();
    let at = |name| (ROOT_INODE, name);
    assert_eq!(ann.rename(at("f"), at("d"), 0).await, Err(Errno::EISDIR));
    assert_eq!(ann.rename(at("d"), at("f"), 0).await, Err(Errno::ENOTDIR));
    assert_eq!(ann.rename(at("d"), at("full"), 0).await, Err(Errno::ENOTEMPTY));
    assert_eq!(ann.rename(at("gone"), at("f"), 0).await, Err(Errno::ENOENT));
    let reply = ann.rename(at("full"), at("d"), 0).await.unwrap();
    assert_eq!((reply.overwritten, reply.deleted), (d, None));
    assert!(ann.lookup(full, "x").await.is_ok());
    let root = ann.getattr(ROOT_INODE).await.unwrap();
    assert_eq!((root.size, root.nlink), (2, 3));
    assert_eq!(ann.rename(at("f"), at("g"), rename_flags::EXCHANGE).await, Err(Errno::ENOTSUP));
    assert_eq!(ann.rename(at("f"), at("g"), 8).await, Err(Errno::EINVAL));
}

/// A directory moved below itself would vanish from the tree with all it holds.
#[tokio::test]
async fn into_itself() {
    let world = World::new().await;
    let ann = world.person(10, "100", false).await;
    let a = ann.mkdir(ROOT_INODE, "a", 0o755).await.unwrap().inode;
    let b = ann.mkdir(a, "b", 0o755).await.unwrap().inode;
    let c = ann.mkdir(b, "c", 0o755).await.unwrap().inode;
    for below in [a, b, c] {
        assert_eq!(ann.rename((ROOT_INODE, "a"), (below, "x"), 0).await, Err(Errno::EINVAL));
    }
    assert_eq!(ann.rename((b, "c"), (ROOT_INODE, "a"), 0).await, Err(Errno::ENOTEMPTY));
    ann.rename((b, "c"), (ROOT_INODE, "c"), 0).await.unwrap();
    assert_eq!(ann.list(c, 0, 0).await.unwrap().parent, ROOT_INODE);
    ann.rename((ROOT_INODE, "a"), (c, "a"), 0).await.unwrap();
    let root = ann.getattr(ROOT_INODE).await.unwrap();
    assert_eq!((root.size, root.nlink), (1, 3));
    assert_eq!(ann.getattr(b).await.unwrap().nlink, 2);
}

/// Renaming needs the right to write to both directories, to a moved directory itself, and heeds
/// the sticky bit at both ends.
#[tokio::test]
async fn rights() {
    let world = World::new().await;
    let (ann, bob) = (world.person(10, "100", false).await, world.person(11, "101", false).await);
    let own = ann.mkdir(ROOT_INODE, "own", 0o755).await.unwrap().inode;
    let shared = ann.mkdir(ROOT_INODE, "shared", 0o1777).await.unwrap().inode;
    ann.file(own, "f", 0o666).await.unwrap();
    ann.file(shared, "ann", 0o666).await.unwrap();
    bob.file(shared, "bob", 0o666).await.unwrap();
    let denied = Err(Errno::EACCES);
    assert_eq!(bob.rename((own, "f"), (shared, "f"), 0).await, denied);
    assert_eq!(bob.rename((shared, "bob"), (own, "bob"), 0).await, denied);
    assert_eq!(bob.rename((shared, "ann"), (shared, "x"), 0).await, Err(Errno::EPERM));
    assert_eq!(bob.rename((shared, "bob"), (shared, "ann"), 0).await, Err(Errno::EPERM));
    bob.rename((shared, "bob"), (shared, "bob2"), 0).await.unwrap();

    let dir = ann.mkdir(ROOT_INODE, "dir", 0o555).await.unwrap().inode;
    assert_eq!(bob.rename((ROOT_INODE, "dir"), (shared, "dir"), 0).await, denied);
    bob.rename((ROOT_INODE, "dir"), (ROOT_INODE, "dir2"), 0).await.unwrap();
    assert_eq!(ann.lookup(ROOT_INODE, "dir2").await.unwrap().inode, dir);
}

/// Nobody may be above the others at the top of a volume that all share: not its founder, nor
/// whoever comes with the number that stands for nobody.
#[tokio::test]
async fn a_root_that_is_nobodys_binds_everybody() {
    let world = World::new().await;
    let request =
        VolumeCreateRequest { owner: NO_MEMBER, mode: 0o1770, ..volume_request("shared") };
    let volume = world.mrc.create_volume(&request).await.unwrap().id;
    let person = |member| {
        let (world, volume) = (&world, volume.clone());
        async move { Person { volume, ..world.person(member, "100", false).await } }
    };
    let (founder, bob) = (person(1).await, person(11).await);
    bob.mkdir(ROOT_INODE, "bob", 0o700).await.unwrap();
    bob.file(ROOT_INODE, "file", 0o666).await.unwrap();
    let denied = Some(Errno::EPERM);
    assert_eq!(founder.rmdir(ROOT_INODE, "bob").await.err(), denied);
    assert_eq!(founder.unlink(ROOT_INODE, "file").await.err(), denied);
    for name in ["bob", "file"] {
        let taken = founder.rename((ROOT_INODE, name), (ROOT_INODE, "mine"), 0).await;
        assert_eq!(taken.err(), denied, "{name}");
    }
    assert_eq!(founder.chmod(ROOT_INODE, 0o777).await.err(), denied);
    assert_eq!(founder.chown(ROOT_INODE, Some(1), None).await.err(), denied);
    let channel = world.mrc_channel("node-1").await;
    let error = sign_in(&channel, &ticket("demo", NO_MEMBER, "100", false)).await.unwrap_err();
    assert_eq!(error.errno, Errno::EACCES);
    bob.rename((ROOT_INODE, "bob"), (ROOT_INODE, "bob2"), 0).await.unwrap();
    bob.unlink(ROOT_INODE, "file").await.unwrap();
    founder.mkdir(ROOT_INODE, "own", 0o700).await.unwrap();
    founder.rmdir(ROOT_INODE, "own").await.unwrap();
}
