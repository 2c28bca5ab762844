//! What the owner of a folder alone decides: closed to all others, pinned to a site.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use xtreemfs_proto::mrc::*;
use xtreemfs_proto::{Capability, Channel, Errno};

use crate::capabilities::{read, write};
use crate::world::*;

const BOTH: u32 = open_flags::READ | open_flags::WRITE;

fn set(person: &Person, inode: u64, closed: Option<bool>, pin: Option<Pin>) -> FolderSetRequest {
    FolderSetRequest { volume: person.volume.clone(), inode, closed, pin }
}

async fn close(person: &Person, inode: u64) -> Result<FolderReply, Errno> {
    person.call::<FolderSet>(set(person, inode, Some(true), None)).await
}

fn at(site: &str) -> Option<Pin> {
    Some(Pin { site: site.into(), home: false })
}

async fn show(person: &Person, inode: u64) -> Result<FolderReply, Errno> {
    person.call::<FolderShow>(person.inode(inode)).await
}

/// A way to the OSD that has a file's first object.
async fn first_osd(world: &World, capability: &Bytes) -> Channel {
    let layout = Capability::peek(capability).unwrap().layout.unwrap();
    world.osd_channel(usize::from(layout.osds[0] == "osd-b"), "node-1").await
}

/// Ann's folder, open to all, with a folder of Bob's and a file of Ann's in it.
struct Scene {
    world: World,
    ann: Person,
    bob: Person,
    admin: Person,
    folder: u64,
    bobs: u64,
    file: u64,
}

async fn scene() -> Scene {
    let world = World::new().await;
    let ann = world.person(10, "100", false).await;
    let bob = world.person(11, "100", false).await;
    let admin = world.person(12, "100", true).await;
    let folder = ann.mkdir(ROOT_INODE, "ann", 0o777).await.unwrap().inode;
    let bobs = bob.mkdir(folder, "bob", 0o777).await.unwrap().inode;
    let file = ann.file(folder, "f", 0o666).await.unwrap();
    Scene { world, ann, bob, admin, folder, bobs, file }
}

/// If it failed, somebody would still reach what its owner has closed: a member by name, by number
/// or by what is their own in it, or an administrator by their role.
#[tokio::test]
async fn a_closed_folder_is_closed_to_everybody_but_its_owner() {
    let Scene { world: _world, ann, bob, admin, folder, bobs, file } = scene().await;
    let own = bob.file(bobs, "own", 0o600).await.unwrap();
    for person in [&bob, &admin] {
        assert_eq!(close(person, folder).await.unwrap_err(), Errno::EPERM, "not theirs");
    }
    let told = close(&ann, folder).await.unwrap();
    assert_eq!((told.closed, told.others), (true, vec![11]));
    for person in [&bob, &admin] {
        let closed = Err(Errno::EACCES);
        assert_eq!(person.lookup(folder, "f").await.map(drop), closed);
        assert_eq!(person.getattr(file).await.map(drop), closed);
        assert_eq!(person.open(file, open_flags::READ).await.map(drop), closed);
        assert_eq!(person.list(folder, 0, 0).await.map(drop), closed);
        assert_eq!(person.file(folder, "new", 0o666).await.map(drop), closed);
        assert_eq!(person.unlink(folder, "f").await.map(drop), closed);
        assert_eq!(person.getattr(own).await.map(drop), closed, "also what is theirs");
        assert_eq!(person.list(bobs, 0, 0).await.map(drop), closed);
        assert_eq!(person.rename((bobs, "own"), (ROOT_INODE, "o"), 0).await.map(drop), closed);
        assert_eq!(person.truncate(file, 0, Bytes::new()).await.map(drop), closed);
        assert_eq!(show(person, file).await.map(drop), closed);
        let open = set(person, folder, Some(false), None);
        assert_eq!(person.call::<FolderSet>(open).await.map(drop), Err(Errno::EPERM));
        let mask = AccessRequest { volume: person.volume.clone(), inode: folder, mask: 1 };
        assert_eq!(person.call::<Access>(mask).await.map(drop), closed);
    }
    let taken = admin.chown(folder, Some(12), None).await;
    assert_eq!(taken.map(drop), Err(Errno::EPERM), "an administrator would own it, and open it");
    assert_eq!(ann.open(file, BOTH).await.map(drop), Ok(()));
    assert_eq!(ann.list(folder, 0, 0).await.unwrap().entries.len(), 2);
    ann.call::<FolderSet>(set(&ann, folder, Some(false), None)).await.unwrap();
    assert_eq!(bob.open(file, open_flags::READ).await.map(drop), Ok(()));
}

/// If it failed, whoever had a file open when its folder was closed would go on for as long as a
/// capability lasts, or for ever by renewing it.
#[tokio::test]
async fn what_others_have_open_ends_at_once() {
    let Scene { world, ann, bob, folder, file, .. } = scene().await;
    let held = bob.open(file, BOTH).await.unwrap().capability;
    let osd = first_osd(&world, &held).await;
    let owners = ann.open(file, BOTH).await.unwrap().capability;
    write(&osd, held.clone(), 0, 0, b"before").await.unwrap();
    assert!(close(&ann, folder).await.unwrap().unconfirmed.is_empty());
    for refused in [
        read(&osd, held.clone(), 0, 0, 6).await.map(drop),
        write(&osd, held.clone(), 0, 0, b"after!").await.map(drop),
    ] {
        assert_eq!(refused.unwrap_err().errno, Errno::EKEYREVOKED);
    }
    let renew = |capability| CapabilityRequest { capability };
    assert_eq!(bob.call::<Renew>(renew(held.clone())).await.map(drop), Err(Errno::EACCES));
    assert_eq!(bob.commit(held.clone(), 9).await.map(drop), Err(Errno::EACCES));
    assert_eq!(bob.truncate(file, 0, held).await.map(drop), Err(Errno::EACCES));
    let renewed = ann.call::<Renew>(renew(owners)).await.unwrap().capability;
    assert_eq!(read(&osd, renewed, 0, 0, 9).await.unwrap(), b"before"[..]);
}

/// If it failed, an OSD that was not reached would count as told, and the owner would believe that
/// nobody reads any more.
#[tokio::test]
async fn an_osd_that_was_not_told_is_named() {
    let Scene { world, ann, folder, .. } = scene().await;
    world.around.deaf.store(true, Ordering::SeqCst);
    assert_eq!(close(&ann, folder).await.unwrap().unconfirmed, ["osd-a", "osd-b"]);
    world.around.deaf.store(false, Ordering::SeqCst);
    let barrier = || world.around.barrier.load(Ordering::SeqCst);
    assert!(close(&ann, folder).await.unwrap().unconfirmed.is_empty(), "said again");
    let first = barrier();
    close(&ann, folder).await.unwrap();
    assert_eq!(barrier(), first, "nothing was open that others would have to renew");
    ann.call::<FolderSet>(set(&ann, folder, Some(false), None)).await.unwrap();
    assert_eq!(barrier(), first);
    close(&ann, folder).await.unwrap();
    assert!(barrier() > first);
}

/// If it failed, a file that is moved into a closed folder would stay open to those who have it
/// open, or one that is moved out of it would stay closed.
#[tokio::test]
async fn what_moves_into_a_closed_folder_is_closed() {
    let Scene { world, ann, bob, folder, .. } = scene().await;
    close(&ann, folder).await.unwrap();
    let outside = ann.mkdir(ROOT_INODE, "outside", 0o777).await.unwrap().inode;
    let file = ann.file(outside, "g", 0o666).await.unwrap();
    let held = bob.open(file, open_flags::READ).await.unwrap().capability;
    let osd = first_osd(&world, &held).await;
    read(&osd, held.clone(), 0, 0, 1).await.unwrap();
    // The folder around it, too.
    ann.rename((ROOT_INODE, "outside"), (folder, "inside"), 0).await.unwrap();
    assert_eq!(read(&osd, held, 0, 0, 1).await.unwrap_err().errno, Errno::EKEYREVOKED);
    assert_eq!(bob.open(file, open_flags::READ).await.map(drop), Err(Errno::EACCES));
    let before = world.around.barrier.load(Ordering::SeqCst);
    ann.rename((outside, "g"), (folder, "g"), 0).await.unwrap();
    assert_eq!(world.around.barrier.load(Ordering::SeqCst), before, "within it nothing is shut");
    ann.rename((folder, "g"), (ROOT_INODE, "g"), 0).await.unwrap();
    assert_eq!(bob.open(file, open_flags::READ).await.map(drop), Ok(()));
}

/// If it failed, who has a file of a closed folder open could go on reading it after it lost its
/// name; or a closing would take their unlinked files from people in quite other folders.
#[tokio::test]
async fn a_file_without_a_name_is_closed_with_the_folder_that_it_lay_in() {
    let Scene { world, ann, bob, folder, file, .. } = scene().await;
    let elsewhere = bob.file(ROOT_INODE, "tmp", 0o600).await.unwrap();
    let inside = bob.open(file, open_flags::READ).await.unwrap().capability;
    let outside = bob.open(elsewhere, BOTH).await.unwrap().capability;
    let deleted = ann.unlink(folder, "f").await.unwrap().deleted.unwrap().capability;
    bob.unlink(ROOT_INODE, "tmp").await.unwrap();
    close(&ann, folder).await.unwrap();
    let renew = |capability| CapabilityRequest { capability };
    assert_eq!(bob.call::<Renew>(renew(inside)).await.map(drop), Err(Errno::EACCES));
    assert_eq!(bob.call::<Renew>(renew(outside)).await.map(drop), Ok(()));
    // What is left of the file goes, however late its objects are deleted.
    let osd = world.osd_channel(0, "node-1").await;
    let request = xtreemfs_proto::osd::FileRequest { capability: deleted };
    call::<xtreemfs_proto::osd::Unlink>(&osd, None, request).await.unwrap();
}

/// If it failed, a restart of the MRC, also from an older copy of its folder, would open what was
/// closed, or give capabilities that no OSD takes.
#[tokio::test]
async fn closed_and_pinned_outlive_a_restart() {
    let Scene { world, ann, bob, folder, file, .. } = scene().await;
    close(&ann, folder).await.unwrap();
    ann.call::<FolderSet>(set(&ann, folder, None, at("b"))).await.unwrap();
    let World { around, mrc, osds, dir, volume } = world;
    drop((ann, bob, mrc));
    let mrc = crate::crash::reopen(&dir.path().join("mrc")).await.unwrap();
    let channel = connect_mrc(&mrc, "node-1").await;
    let slot = sign_in(&channel, &ticket("demo", 10, "100", false)).await.unwrap();
    let ann = Person { channel, slot, volume: volume.clone() };
    let shown = show(&ann, folder).await.unwrap();
    assert_eq!((shown.closed, shown.pin.as_str()), (true, "b"));
    let channel = connect_mrc(&mrc, "node-1").await;
    let slot = sign_in(&channel, &ticket("demo", 11, "100", false)).await.unwrap();
    let bob = Person { channel, slot, volume };
    assert_eq!(bob.open(file, open_flags::READ).await.map(drop), Err(Errno::EACCES));
    let capability = ann.open(file, open_flags::READ).await.unwrap().capability;
    let barrier = Capability::peek(&capability).unwrap().barrier;
    assert!(barrier >= around.barrier.load(Ordering::SeqCst));
    let first = Capability::peek(&capability).unwrap().layout.unwrap().osds[0] == "osd-b";
    let osd = connect_osd(&osds[usize::from(first)], "node-1").await;
    read(&osd, capability, 0, 0, 1).await.unwrap();
}

/// If it failed, a pinned folder's files would lie at other sites too, below sub-folders or when
/// the site is away; or it would not be said which lie elsewhere from before.
#[tokio::test]
async fn a_pinned_folders_new_files_lie_at_its_site_alone() {
    let Scene { ann, bob, folder, bobs, world: _world, .. } = scene().await;
    let pin = |site| set(&ann, folder, None, at(site));
    assert_eq!(bob.call::<FolderSet>(set(&bob, folder, None, at("b"))).await, Err(Errno::EPERM));
    assert_eq!(ann.call::<FolderSet>(pin("nowhere")).await, Err(Errno::EINVAL), "gives nothing");
    let told = ann.call::<FolderSet>(pin("b")).await.unwrap();
    assert_eq!((told.files, told.elsewhere, told.complete), (1, 1, true));
    assert_eq!(told.elsewhere_names, [b("f")]);
    let deep = ann.mkdir(bobs, "deep", 0o777).await.unwrap().inode;
    for name in ["1", "2", "3", "4"] {
        let layout = bob.create(deep, name, 0o600, BOTH).await.unwrap().layout.unwrap();
        assert_eq!(layout.osds, ["osd-b"]);
    }
    ann.call::<FolderSet>(pin("c")).await.unwrap();
    let refused = bob.create(deep, "5", 0o600, BOTH).await.map(drop);
    assert_eq!(refused, Err(Errno::ENOSPC), "no OSD of that site is up: never another's");
    assert_eq!(bob.lookup(deep, "5").await.map(drop), Err(Errno::ENOENT));
    ann.call::<FolderSet>(pin("")).await.unwrap();
    let layout = bob.create(deep, "5", 0o600, BOTH).await.unwrap().layout.unwrap();
    assert_eq!(layout.osds.len(), 2, "no longer pinned");
    let home = Some(Pin { site: String::new(), home: true });
    let told = ann.call::<FolderSet>(set(&ann, folder, None, home.clone())).await.unwrap();
    assert_eq!((told.pin.as_str(), told.pinned_here), ("b", true));
    let told = show(&bob, bobs).await.unwrap();
    assert_eq!((told.pin.as_str(), told.pinned_here), ("b", false));
    let unknown = bob.call::<FolderSet>(set(&bob, bobs, None, home)).await;
    assert_eq!(unknown, Err(Errno::EINVAL), "whose home is not known names the site");
}

/// If it failed, a folder's owner would be shown names that they may not list.
#[tokio::test]
async fn what_lies_below_is_told_as_far_as_the_person_may_list_it() {
    let Scene { ann, bob, folder, bobs, world: _world, .. } = scene().await;
    bob.file(bobs, "secret", 0o600).await.unwrap();
    bob.chmod(bobs, 0o700).await.unwrap();
    let told = ann.call::<FolderSet>(set(&ann, folder, None, at("b"))).await.unwrap();
    assert_eq!((told.complete, told.others), (false, vec![11]));
    assert_eq!(told.elsewhere_names, [b("f")]);
}

/// If it failed, what lies beyond the first page of a look would be missing, or counted twice; or
/// what is too much for one answer would be told as if it were all.
#[tokio::test]
async fn a_large_folder_is_looked_at_in_pages() {
    let Scene { ann, bob, folder, bobs, world: _world, .. } = scene().await;
    for n in 0..300 {
        ann.mkdir(folder, &format!("d{n}"), 0o777).await.unwrap();
        bob.file(bobs, &format!("f{n}"), 0o600).await.unwrap();
    }
    let told = show(&ann, folder).await.unwrap();
    assert_eq!((told.files, told.complete, told.others), (301, true, vec![11]));
    bob.chmod(bobs, 0o700).await.unwrap();
    let told = show(&ann, folder).await.unwrap();
    assert_eq!((told.files, told.complete, told.others), (1, false, vec![11]));
}

/// If it failed, a VO that asks for it would not learn who opens which file, or one that does not
/// would be watched; or names that their owner has closed to all would stand in the audit.
#[tokio::test]
async fn opens_are_told_when_they_are_asked_for() {
    let Scene { world, ann, bob, folder, bobs, file, .. } = scene().await;
    let told = || std::mem::take(&mut *world.around.opens.lock().unwrap());
    ann.open(file, BOTH).await.unwrap();
    assert!(told().is_empty(), "nobody asked");
    world.around.wants_opens.store(true, Ordering::SeqCst);
    ann.open(file, BOTH).await.unwrap();
    bob.create(bobs, "new", 0o600, open_flags::WRITE).await.unwrap();
    let private = ann.mkdir(ROOT_INODE, "private", 0o700).await.unwrap().inode;
    let hidden = ann.file(private, "hidden", 0o666).await.unwrap();
    bob.open(hidden, open_flags::READ).await.unwrap_err();
    close(&ann, folder).await.unwrap();
    bob.open(file, open_flags::READ).await.unwrap_err();
    bob.create(bobs, "x", 0o600, open_flags::WRITE).await.unwrap_err();
    ann.open(file, open_flags::READ).await.unwrap();
    bob.open(1 << 60, open_flags::READ).await.unwrap_err();
    let told = told();
    let seen = told.iter().map(|open| {
        let how = (open.read, open.write, open.created, open.refused.is_some());
        (open.member, open.path.clone(), open.whole, how)
    });
    let expected = [
        (10, b("ann/f"), true, (true, true, false, false)),
        (11, b("ann/bob/new"), true, (false, true, true, false)),
        (10, b("private/hidden"), true, (true, true, true, false)),
        (11, b("private"), false, (true, false, false, true)),
        (11, b("ann"), false, (true, false, false, true)),
        (11, b("ann"), false, (false, true, false, true)),
        (10, b(""), false, (true, false, false, false)),
    ];
    assert_eq!(seen.collect::<Vec<_>>(), expected);
    let inodes: Vec<_> = told[3..].iter().map(|open| open.inode).collect();
    assert_eq!(inodes, [hidden, file, bobs, file]);
    assert!(told.iter().all(|open| open.vo == "demo" && open.peer == "node-1"));
}
