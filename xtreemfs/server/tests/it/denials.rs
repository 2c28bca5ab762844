//! What the MRC must refuse, whatever the node says.

use bytes::Bytes;
use xtreemfs_proto::mrc::*;
use xtreemfs_proto::rpc::{Authenticate, AuthenticateRequest, ErrorType};
use xtreemfs_proto::{Access as Rights, Capability, Errno};
use xtreemfs_server::Role;

use crate::world::*;

const RW: u32 = open_flags::READ | open_flags::WRITE;

/// Without a valid identity nothing is answered; the client must learn whether a new ticket helps.
#[tokio::test]
async fn slots() {
    let world = World::new().await;
    let channel = world.mrc_channel("node-1").await;
    let getattr = |slot| {
        let request = InodeRequest { volume: world.volume.clone(), inode: ROOT_INODE };
        call::<Getattr>(&channel, slot, request)
    };
    for slot in [None, Some(0), Some(77)] {
        let error = getattr(slot).await.unwrap_err();
        assert_eq!((error.kind, error.errno), (ErrorType::AuthFailed, Errno::EACCES));
    }
    let error = sign_in(&channel, "nonsense").await.unwrap_err();
    assert_eq!((error.kind, error.errno), (ErrorType::AuthFailed, Errno::EACCES));

    let slot = sign_in(&channel, &ticket("demo", 10, "100", false)).await.unwrap();
    let second = sign_in(&channel, &ticket("demo", 11, "100", false)).await.unwrap();
    assert_ne!(slot, second);
    getattr(Some(slot)).await.unwrap();

    world.around.least_epochs.lock().unwrap().insert(10, 2);
    let error = getattr(Some(slot)).await.unwrap_err();
    assert_eq!((error.kind, error.errno), (ErrorType::AuthFailed, Errno::EKEYREVOKED));
    getattr(Some(second)).await.unwrap();

    world.around.clock.forward(900_000);
    let error = getattr(Some(second)).await.unwrap_err();
    assert_eq!((error.kind, error.errno), (ErrorType::AuthFailed, Errno::EKEYEXPIRED));
    let error = sign_in(&channel, &ticket("demo", 11, "100", false)).await.unwrap_err();
    assert_eq!(error.errno, Errno::EKEYEXPIRED, "a lapsed ticket gives no slot");
}

/// A renewal takes the old slot over, but only for the same person: else one person's open
/// requests would go on as somebody else's.
#[tokio::test]
async fn renewing_a_slot() {
    let world = World::new().await;
    let ann = world.person(10, "100", false).await;
    let renew = |member, replace| {
        let ticket = ticket("demo", member, "100", false).into();
        let request = AuthenticateRequest { ticket, replace };
        call::<Authenticate>(&ann.channel, None, request)
    };
    assert_eq!(renew(10, Some(ann.slot)).await.unwrap().slot, ann.slot);
    assert_ne!(renew(11, Some(ann.slot)).await.unwrap().slot, ann.slot);
    assert_eq!(renew(10, None).await.unwrap().valid_ms, 900_000);
}

/// Member numbers mean nothing outside their VO: member 1 of another VO is somebody else.
#[tokio::test]
async fn another_vo() {
    let world = World::new().await;
    let channel = world.mrc_channel("node-1").await;
    let slot = sign_in(&channel, &ticket("other", 1, "100", true)).await.unwrap();
    let stranger = Person { channel, slot, volume: world.volume.clone() };
    assert_eq!(stranger.getattr(ROOT_INODE).await, Err(Errno::EACCES));
    assert_eq!(stranger.mkdir(ROOT_INODE, "d", 0o755).await, Err(Errno::EACCES));
    let request = VolumeRequest { volume: world.volume.clone() };
    assert_eq!(stranger.call::<Statfs>(request).await.unwrap_err(), Errno::EACCES);
    let nowhere = Person { volume: "nothere".into(), ..world.person(1, "100", true).await };
    assert_eq!(nowhere.getattr(ROOT_INODE).await, Err(Errno::ENOENT));
}

/// An inode number alone must open nothing: a node could try them all.
#[tokio::test]
async fn inodes_below_a_closed_directory() {
    let world = World::new().await;
    let (ann, bob) = (world.person(10, "100", false).await, world.person(11, "101", false).await);
    let private = ann.mkdir(ROOT_INODE, "private", 0o700).await.unwrap().inode;
    let open = ann.mkdir(private, "open", 0o777).await.unwrap().inode;
    let file = ann.file(open, "f", 0o666).await.unwrap();
    let denied = Errno::EACCES;
    assert_eq!(bob.getattr(file).await, Err(denied));
    assert_eq!(bob.open(file, RW).await, Err(denied));
    assert_eq!(bob.truncate(file, 0, Bytes::new()).await, Err(denied));
    assert_eq!(bob.chown(file, None, None).await, Err(denied));
    assert_eq!(bob.lookup(open, "f").await, Err(denied));
    assert_eq!(bob.list(open, 0, 0).await, Err(denied));
    assert_eq!(bob.file(open, "g", 0o600).await, Err(denied));
    assert_eq!(bob.unlink(open, "f").await, Err(denied));
    assert_eq!(bob.rename((open, "f"), (ROOT_INODE, "f"), 0).await, Err(denied));
    bob.getattr(private).await.unwrap();
    world.person(12, "102", true).await.open(file, RW).await.unwrap();
    ann.chmod(private, 0o711).await.unwrap();
    bob.open(file, RW).await.unwrap();
}

/// Who may change whose attributes.
#[tokio::test]
async fn attributes() {
    let world = World::new().await;
    let ann = world.person(10, "100,103", false).await;
    let bob = world.person(11, "100", false).await;
    let admin = world.person(12, "104", true).await;
    let file = ann.file(ROOT_INODE, "f", 0o664).await.unwrap();
    assert_eq!(bob.chmod(file, 0o777).await, Err(Errno::EPERM));
    assert_eq!(bob.chown(file, Some(11), None).await, Err(Errno::EPERM));
    assert_eq!(bob.chown(file, None, Some(100)).await.unwrap().group, 100, "nothing changes");
    assert_eq!(ann.chown(file, Some(11), None).await, Err(Errno::EPERM), "giving away");
    assert_eq!(ann.chown(file, None, Some(104)).await, Err(Errno::EPERM), "a foreign group");

    assert_eq!(ann.chmod(file, 0o6775).await.unwrap().mode, 0o6775);
    let changed = ann.chown(file, None, Some(103)).await.unwrap();
    assert_eq!((changed.group, changed.mode), (103, 0o775), "set-id bits survived a chown");
    assert_eq!(admin.chown(file, Some(11), Some(104)).await.unwrap().owner, 11);
    assert_eq!(bob.chmod(file, 0o2775).await.unwrap().mode, 0o775, "setgid of a foreign group");
    assert_eq!(ann.chmod(file, 0o777).await, Err(Errno::EPERM), "she gave it away");

    let time = |ns| Some(SetTime { ns });
    let at_will = SetattrRequest { mtime: time(Some(5)), ..ann.change(file) };
    assert_eq!(ann.call::<Setattr>(at_will.clone()).await, Err(Errno::EPERM));
    let now = SetattrRequest { mtime: time(None), ..ann.change(file) };
    assert_eq!(ann.call::<Setattr>(now.clone()).await, Err(Errno::EACCES));
    bob.chmod(file, 0o777).await.unwrap();
    ann.call::<Setattr>(now).await.unwrap();
    let attr = bob.call::<Setattr>(at_will).await.unwrap().attr.unwrap();
    assert_eq!(attr.mtime_ns, 5);

    let both = SetattrRequest { mode: Some(0), owner: Some(10), ..bob.change(file) };
    assert_eq!(bob.call::<Setattr>(both).await, Err(Errno::EPERM));
    assert_eq!(bob.getattr(file).await.unwrap().mode, 0o777, "half of a refused change was made");
}

/// Opening gives no more rights at the OSDs than the person has.
#[tokio::test]
async fn capabilities_follow_the_mode() {
    let world = World::new().await;
    let (ann, bob) = (world.person(10, "100", false).await, world.person(11, "101", false).await);
    let file = ann.file(ROOT_INODE, "f", 0o644).await.unwrap();
    let rights = |token: &Bytes| Rights(Capability::peek(token).unwrap().access);
    let opened = bob.open(file, open_flags::READ).await.unwrap();
    assert_eq!(rights(&opened.capability), Rights::READ);
    assert_eq!(bob.open(file, RW).await, Err(Errno::EACCES));
    assert_eq!(bob.open(file, open_flags::WRITE | open_flags::TRUNCATE).await, Err(Errno::EACCES));
    assert_eq!(bob.commit(opened.capability.clone(), 5).await, Err(Errno::EACCES));
    assert_eq!(bob.truncate(file, 0, opened.capability).await, Err(Errno::EACCES));

    ann.chmod(file, 0o222).await.unwrap();
    let opened = bob.open(file, open_flags::WRITE).await.unwrap();
    assert_eq!(rights(&opened.capability), Rights::WRITE);
    ann.chmod(file, 0o600).await.unwrap();
    bob.truncate(file, 0, opened.capability.clone()).await.unwrap();

    let capability = Capability::peek(&opened.capability).unwrap();
    assert_eq!((capability.member, &*capability.vo, &*capability.peer), (11, "demo", "node-1"));
    assert_eq!(capability.expires_ms, START_MS + 600_000);
}

/// Capabilities are bound to person, machine and epoch also when they come back to the MRC.
#[tokio::test]
async fn capabilities_of_others() {
    let world = World::new().await;
    let (ann, bob) = (world.person(10, "100", false).await, world.person(11, "101", false).await);
    let token = ann.create(ROOT_INODE, "f", 0o666, RW).await.unwrap().capability;
    let renew = |token: &Bytes| CapabilityRequest { capability: token.clone() };
    assert_eq!(bob.call::<Renew>(renew(&token)).await, Err(Errno::EACCES));
    assert_eq!(bob.commit(token.clone(), 9).await, Err(Errno::EACCES));
    let channel = world.mrc_channel("node-2").await;
    let slot = sign_in(&channel, &ticket("demo", 10, "100", false)).await.unwrap();
    let elsewhere = Person { channel, slot, volume: world.volume.clone() };
    assert_eq!(elsewhere.call::<Renew>(renew(&token)).await, Err(Errno::EACCES));
    let mut bent = token.to_vec();
    *bent.last_mut().unwrap() ^= 1;
    assert_eq!(ann.call::<Renew>(renew(&bent.into())).await, Err(Errno::EACCES));
    assert_eq!(ann.call::<Renew>(renew(&Bytes::new())).await, Err(Errno::EACCES));
    let other = ann.file(ROOT_INODE, "g", 0o600).await.unwrap();
    assert_eq!(ann.truncate(other, 0, token.clone()).await, Err(Errno::EACCES), "another file");
    ann.call::<Renew>(renew(&token)).await.unwrap();

    world.around.least_epochs.lock().unwrap().insert(10, 2);
    let new_ticket = format!("demo 10 100 - 2 {}", START_MS + 900_000);
    let slot = sign_in(&ann.channel, &new_ticket).await.unwrap();
    let ann = Person { slot, ..ann };
    assert_eq!(ann.call::<Renew>(renew(&token)).await, Err(Errno::EKEYREVOKED));
}

/// Only services that the policy names manage volumes.
#[tokio::test]
async fn volumes() {
    let world = World::new().await;
    let client = world.mrc_channel("node-1").await;
    let service = connect(world.mrc.connection(peer("core", Role::Service)));
    let create =
        |name: &str, vo: &str| VolumeCreateRequest { vo: vo.into(), ..volume_request(name) };
    let errno = |error: xtreemfs_proto::RpcError| error.errno;
    let refused = call::<VolumeCreate>(&client, None, create("a", "demo")).await.map_err(errno);
    assert_eq!(refused, Err(Errno::EPERM));
    let refused = call::<VolumeCreate>(&service, None, create("a", "other")).await.map_err(errno);
    assert_eq!(refused, Err(Errno::EPERM));
    for bad in [create("", "demo"), create("a/b", "demo"), create("a\n", "demo")] {
        let refused = call::<VolumeCreate>(&service, None, bad).await.map_err(errno);
        assert_eq!(refused, Err(Errno::EINVAL));
    }
    let taken = call::<VolumeCreate>(&service, None, create("home", "demo")).await.map_err(errno);
    assert_eq!(taken, Err(Errno::EEXIST));

    let request = VolumeRequest { volume: world.volume.clone() };
    let refused = call::<VolumeDelete>(&client, None, request.clone()).await.map_err(errno);
    assert_eq!(refused.unwrap_err(), Errno::EPERM);
    let ann = world.person(10, "100", false).await;
    ann.file(ROOT_INODE, "f", 0o644).await.unwrap();
    call::<VolumeDelete>(&service, None, request).await.unwrap();
    assert_eq!(ann.getattr(ROOT_INODE).await, Err(Errno::ENOENT));
    assert!(world.mrc.volumes().unwrap().is_empty());
    let made = call::<VolumeCreate>(&service, None, create("home", "demo")).await.unwrap();
    assert_eq!(made.key, world.mrc.public_key().0[..]);
    let ann = Person { volume: made.id, ..ann };
    assert!(ann.list(ROOT_INODE, 0, 0).await.unwrap().entries.is_empty(), "old files came back");
}
