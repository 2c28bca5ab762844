//! What an OSD must refuse, and what the disk must keep.

use bytes::Bytes;
use xtreemfs_proto::capability::Cut;
use xtreemfs_proto::osd::*;
use xtreemfs_proto::{Access, Capability, Channel, Errno, Layout, RpcError};
use xtreemfs_server::Signer;

use crate::world::*;

pub fn good(world: &World) -> Capability {
    Capability {
        volume: world.volume.clone(),
        inode: 5,
        access: (Access::READ | Access::WRITE | Access::TRUNCATE | Access::DELETE).0,
        member: 10,
        epoch: 1,
        vo: "demo".into(),
        issued_ms: START_MS,
        expires_ms: START_MS + 600_000,
        truncate_epoch: 0,
        peer: "node-1".into(),
        layout: Some(layout()),
        admin: false,
        owed: Vec::new(),
        barrier: 7,
        parent: 1,
    }
}

fn layout() -> Layout {
    Layout { stripe_size: STRIPE, osds: vec!["osd-a".into(), "osd-b".into()] }
}

pub fn token(capability: &Capability) -> Bytes {
    Signer::from_seed(&SEED).unwrap().sign(capability).unwrap()
}

pub async fn read(
    channel: &Channel,
    capability: Bytes,
    object: u64,
    offset: u32,
    length: u32,
) -> Result<Bytes, RpcError> {
    let request = ReadRequest { capability, object, offset, length };
    match channel.call::<Read>(None, &request, Bytes::new(), LONG).await {
        Ok((_, data)) => Ok(data),
        Err(error) => Err(error.refusal().unwrap().clone()),
    }
}

pub async fn write(
    channel: &Channel,
    capability: Bytes,
    object: u64,
    offset: u32,
    data: &[u8],
) -> Result<WriteReply, RpcError> {
    let request = WriteRequest { capability, object, offset };
    match channel.call::<Write>(None, &request, Bytes::copy_from_slice(data), LONG).await {
        Ok((reply, _)) => Ok(reply),
        Err(error) => Err(error.refusal().unwrap().clone()),
    }
}

/// Every way in which a capability can be wrong must be refused; the unchanged one must not, so
/// that the refusals come from the change.
#[tokio::test]
async fn wrong_capabilities() {
    let world = World::new().await;
    let channel = world.osd_channel(0, "node-1").await;
    let good = good(&world);
    write(&channel, token(&good), 0, 0, b"secret").await.unwrap();

    let foreign_volume = "0123".to_owned();
    world.around.learn("demo", &foreign_volume, foreign_signer().public_key());
    let twice = vec!["osd-a".to_owned(), "osd-a".to_owned()];
    let with = |change: &dyn Fn(&mut Capability)| {
        let mut capability = good.clone();
        change(&mut capability);
        capability
    };
    let cases: Vec<(&str, Errno, Capability)> = vec![
        ("expired", Errno::EKEYEXPIRED, with(&|c| c.expires_ms = START_MS)),
        ("old epoch", Errno::EKEYREVOKED, with(&|c| c.epoch = 0)),
        ("unknown VO", Errno::EACCES, with(&|c| c.vo = "nowhere".into())),
        ("other VO than the volume's", Errno::EACCES, with(&|c| c.vo = "other".into())),
        ("VO outside", Errno::EACCES, with(&|c| c.vo = "..".into())),
        ("wrong mode", Errno::EACCES, with(&|c| c.access = Access::WRITE.0)),
        ("no mode", Errno::EACCES, with(&|c| c.access = 0)),
        ("wrong peer", Errno::EACCES, with(&|c| c.peer = "node-2".into())),
        ("volume of another MRC", Errno::EACCES, with(&|c| c.volume = foreign_volume.clone())),
        ("volume not served here", Errno::EACCES, with(&|c| c.volume = "4567".into())),
        ("volume outside", Errno::EACCES, with(&|c| c.volume = "../mrc".into())),
        ("valid too long", Errno::EACCES, with(&|c| c.expires_ms = START_MS + 600_001)),
        (
            "from the future",
            Errno::EACCES,
            with(&|c| {
                (c.issued_ms, c.expires_ms) = (START_MS + 60_001, START_MS + 70_000);
            }),
        ),
        ("no layout", Errno::EACCES, with(&|c| c.layout = None)),
        (
            "layout without this OSD",
            Errno::EACCES,
            with(&|c| {
                c.layout.as_mut().unwrap().osds = vec!["osd-b".into()];
            }),
        ),
        (
            "OSD twice",
            Errno::EACCES,
            with(&|c| {
                c.layout.as_mut().unwrap().osds = twice.clone();
            }),
        ),
        ("no stripe size", Errno::EACCES, with(&|c| c.layout.as_mut().unwrap().stripe_size = 0)),
    ];
    for (what, errno, capability) in cases {
        let error = read(&channel, token(&capability), 0, 0, 10).await.unwrap_err();
        assert_eq!(error.errno, errno, "{what}: {error}");
        assert!(
            write(&channel, token(&capability), 0, 0, b"x").await.is_err() || what == "wrong mode"
        );
    }
    let elsewhere = world.osd_channel(0, "node-2").await;
    assert_eq!(read(&elsewhere, token(&good), 0, 0, 10).await.unwrap_err().errno, Errno::EACCES);
    write(&channel, token(&good), 0, 0, b"secret").await.unwrap();
    assert_eq!(read(&channel, token(&good), 0, 0, 10).await.unwrap(), b"secret"[..]);
}

/// The home of another VO may list a volume with the id of this one's, with its own key, and sign
/// what it likes for it: nothing of this VO's may be read, changed, cut or deleted by that, nor may
/// this VO's own services be shut out.
#[tokio::test]
async fn a_volume_that_another_vo_claims_stays_out_of_its_reach() {
    let world = World::new().await;
    let channel = world.osd_channel(0, "node-1").await;
    let good = good(&world);
    write(&channel, token(&good), 0, 0, b"secret").await.unwrap();
    world.around.learn("other", &world.volume, foreign_signer().public_key());

    let sign = |capability: &Capability| foreign_signer().sign(capability).unwrap();
    let posing = sign(&good);
    assert_eq!(read(&channel, posing, 0, 0, 9).await.unwrap_err().errno, Errno::EACCES);
    let claim = Capability { vo: "other".into(), truncate_epoch: 9, ..good.clone() };
    let owed = vec![Cut { epoch: 10, size: 0 }];
    let cut = sign(&Capability { truncate_epoch: 10, owed, ..claim.clone() });
    let claim = sign(&claim);
    assert_eq!(read(&channel, claim.clone(), 0, 0, 9).await.unwrap(), b""[..], "read");
    write(&channel, claim.clone(), 0, 0, b"planted").await.unwrap();
    let file = FileRequest { capability: claim.clone() };
    assert_eq!(call::<Size>(&channel, None, file.clone()).await.unwrap().size, 7, "its own");
    call::<Truncate>(&channel, None, FileRequest { capability: cut }).await.unwrap();
    call::<Unlink>(&channel, None, file).await.unwrap();

    assert_eq!(read(&channel, token(&good), 0, 0, 9).await.unwrap(), b"secret"[..]);
    assert_eq!(write(&channel, token(&good), 0, 0, b"mine").await.unwrap().truncate_epoch, 0);
    // The same after a restart, whoever is heard of first.
    let again = open_osd(&world.dir.path().join("osd-a"), &world.around, "osd-a", 0);
    let channel = connect_osd(&again, "node-1").await;
    assert_eq!(read(&channel, token(&good), 0, 0, 9).await.unwrap(), b"mineet"[..]);
}

/// A token with any bit changed must be refused: every field is covered by the signature.
#[tokio::test]
async fn tampered_bits() {
    let world = World::new().await;
    let channel = world.osd_channel(0, "node-1").await;
    let token = token(&good(&world));
    for place in 0..token.len() {
        let mut bent = token.to_vec();
        bent[place] ^= 1 << (place % 8);
        let error = read(&channel, bent.into(), 0, 0, 10).await.unwrap_err();
        assert_eq!(error.errno, Errno::EACCES, "byte {place}: {error}");
    }
    for length in [0, 1, 63, 64, token.len() - 1] {
        assert!(read(&channel, token.slice(..length), 0, 0, 10).await.is_err(), "{length} bytes");
    }
    assert!(read(&channel, token, 0, 0, 10).await.is_ok());
}

/// A capability that was believed once must not be believed for ever.
#[tokio::test]
async fn remembered_capabilities_lapse() {
    let world = World::new().await;
    let channel = world.osd_channel(0, "node-1").await;
    let token = token(&good(&world));
    read(&channel, token.clone(), 0, 0, 10).await.unwrap();
    world.around.least_epochs.lock().unwrap().insert(10, 2);
    let error = read(&channel, token.clone(), 0, 0, 10).await.unwrap_err();
    assert_eq!(error.errno, Errno::EKEYREVOKED);
    world.around.least_epochs.lock().unwrap().clear();
    read(&channel, token.clone(), 0, 0, 10).await.unwrap();
    world.around.clock.forward(600_000);
    let error = read(&channel, token.clone(), 0, 0, 10).await.unwrap_err();
    assert_eq!(error.errno, Errno::EKEYEXPIRED);
    let second = world.osd_channel(0, "node-2").await;
    assert_eq!(read(&second, token, 0, 0, 10).await.unwrap_err().errno, Errno::EACCES);
}

/// Each right opens its own procedures only.
#[tokio::test]
async fn rights_at_the_osd() {
    let world = World::new().await;
    let channel = world.osd_channel(0, "node-1").await;
    let base = good(&world);
    for (access, allowed) in [
        (Access::READ, [true, false, false, false, true]),
        (Access::WRITE, [false, true, false, false, true]),
        (Access::TRUNCATE, [false, false, true, false, true]),
        (Access::DELETE, [false, false, false, true, false]),
    ] {
        let capability = token(&Capability { access: access.0, ..base.clone() });
        let file = FileRequest { capability: capability.clone() };
        let results = [
            read(&channel, capability.clone(), 0, 0, 1).await.map(drop),
            write(&channel, capability, 0, 0, b"x").await.map(drop),
            call::<Truncate>(&channel, None, file.clone()).await.map(drop),
            call::<Unlink>(&channel, None, file.clone()).await.map(drop),
            call::<Fsync>(&channel, None, file).await.map(drop),
        ];
        for (result, allowed) in results.into_iter().zip(allowed) {
            assert_eq!(
                result.map_err(|error| error.errno),
                if allowed { Ok(()) } else { Err(Errno::EACCES) },
                "{access:?}"
            );
        }
    }
}

/// Ranges outside the file, or of objects on another OSD, must not reach the disk.
#[tokio::test]
async fn wrong_ranges() {
    let world = World::new().await;
    let channel = world.osd_channel(0, "node-1").await;
    let token = token(&good(&world));
    let errno = |object, offset, length| {
        let request = read(&channel, token.clone(), object, offset, length);
        async { request.await.map_err(|error| error.errno) }
    };
    assert_eq!(errno(1, 0, 1).await, Err(Errno::EINVAL), "lies on osd-b");
    assert_eq!(errno(0, STRIPE, 1).await, Err(Errno::EINVAL), "offset outside the object");
    assert_eq!(errno(0, 0, (8 << 20) + 1).await, Err(Errno::EINVAL), "longer than a record");
    assert_eq!(errno(u64::MAX - 1, 0, 1).await, Err(Errno::EFBIG));
    assert_eq!(errno(1 << 40, 0, 1).await, Err(Errno::EFBIG));
    assert_eq!(errno(1 << 30, 0, 1).await, Ok(Bytes::new()), "nothing there");
    let error = write(&channel, token, 1 << 40, 0, b"x").await.unwrap_err();
    assert_eq!(error.errno, Errno::EFBIG);
}

/// On a full disk a write must fail cleanly: what was there stays, and can be overwritten.
#[tokio::test]
async fn full_disk() {
    let world = World::new().await;
    let token = token(&good(&world));
    let channel = world.osd_channel(0, "node-1").await;
    write(&channel, token.clone(), 0, 0, b"kept").await.unwrap();
    let dir = world.dir.path().join("osd-a");
    let full = open_osd(&dir, &world.around, "osd-a", u64::MAX);
    assert_eq!(full.space().unwrap().free_bytes, 0);
    let channel = connect_osd(&full, "node-1").await;
    let error = write(&channel, token.clone(), 0, 4, b"more").await.unwrap_err();
    assert_eq!(error.errno, Errno::ENOSPC);
    write(&channel, token.clone(), 0, 0, b"over").await.unwrap();
    assert_eq!(read(&channel, token, 0, 0, 99).await.unwrap(), b"over"[..]);
}

/// Truncations are ordered by their epoch, and a writer learns that one happened.
#[tokio::test]
async fn truncate_epochs() {
    let world = World::new().await;
    let channel = world.osd_channel(0, "node-1").await;
    let base = good(&world);
    let epoch = |truncate_epoch| token(&Capability { truncate_epoch, ..base.clone() });
    let cut = |epoch, size| {
        let owed = vec![Cut { epoch, size }];
        token(&Capability { truncate_epoch: epoch, owed, ..base.clone() })
    };
    let truncate = |number, size| {
        let request = FileRequest { capability: cut(number, size) };
        call::<Truncate>(&channel, None, request)
    };
    assert_eq!(write(&channel, epoch(0), 0, 0, &[1; 100]).await.unwrap().truncate_epoch, 0);
    assert_eq!(truncate(2, 50).await.unwrap().size, 50);
    assert_eq!(truncate(1, 0).await.unwrap().size, 50, "an older truncation came late");
    assert_eq!(write(&channel, epoch(0), 0, 0, b"x").await.unwrap().truncate_epoch, 2);
    assert_eq!(truncate(3, 1 << 30).await.unwrap().size, 50, "made longer");
    assert_eq!(truncate(3, 0).await.unwrap().size, 50, "it came twice");
    let nothing = FileRequest { capability: epoch(3) };
    assert_eq!(call::<Truncate>(&channel, None, nothing).await.unwrap().size, 50, "none is owed");
    assert_eq!(truncate(4, u64::MAX).await.unwrap_err().errno, Errno::EACCES);
    let newer = Capability { owed: vec![Cut { epoch: 5, size: 0 }], ..base.clone() };
    let newer = FileRequest { capability: token(&newer) };
    assert_eq!(call::<Size>(&channel, None, newer).await.unwrap_err().errno, Errno::EACCES);
}

/// A truncation that its client did not bring to this OSD is made before anything else is done
/// under a capability that names it. If it were not, what was cut off would come back when the file
/// grows, or a late truncation would take what was written since.
#[tokio::test]
async fn an_owed_truncation_is_made_first() {
    let world = World::new().await;
    let channel = world.osd_channel(0, "node-1").await;
    let base = good(&world);
    let owed = |cuts: &[(u64, u64)]| {
        let owed: Vec<Cut> = cuts.iter().map(|&(epoch, size)| Cut { epoch, size }).collect();
        let truncate_epoch = owed.last().map_or(0, |cut| cut.epoch);
        token(&Capability { truncate_epoch, owed, ..base.clone() })
    };
    write(&channel, token(&base), 0, 0, &[1; 100]).await.unwrap();
    assert_eq!(read(&channel, owed(&[(1, 80)]), 0, 0, 200).await.unwrap().len(), 80);
    let size = FileRequest { capability: owed(&[(1, 80), (2, 90)]) };
    assert_eq!(call::<Size>(&channel, None, size).await.unwrap().size, 80);
    write(&channel, owed(&[(3, 10)]), 0, 20, b"new").await.unwrap();
    let expected = [&[1; 10][..], &[0; 10], b"new"].concat();
    // The third was made here, so that what was written since stays, also when it is made longer.
    for cuts in [&[(3, 10)][..], &[(3, 10), (4, 50)], &[(3, 10)], &[(2, 0)]] {
        assert_eq!(read(&channel, owed(cuts), 0, 0, 200).await.unwrap(), expected);
        let late = FileRequest { capability: owed(cuts) };
        assert_eq!(call::<Truncate>(&channel, None, late).await.unwrap().size, 23);
    }
    // Both at once: the lesser counts.
    assert_eq!(read(&channel, owed(&[(5, 5), (6, 15)]), 0, 0, 200).await.unwrap().len(), 5);
}

/// A writer learns by the verifier alone that its unsynced data are lost with the machine's memory;
/// and a restart of the OSD, which loses nothing, must not look like that.
#[tokio::test]
async fn writes_and_syncs_tell_of_a_new_boot_only() {
    let world = World::new().await;
    let capability = token(&good(&world));
    for boot in [1, 1, 2] {
        let dir = world.dir.path().join("osd-a");
        let osd = open_osd_in_boot(&dir, &world.around, "osd-a", 0, boot);
        let channel = connect_osd(&osd, "node-1").await;
        let file = FileRequest { capability: capability.clone() };
        let synced = call::<Fsync>(&channel, None, file).await.unwrap();
        let written = write(&channel, capability.clone(), 0, 0, b"x").await.unwrap();
        assert_eq!((synced.verifier, written.verifier), (boot, boot));
    }
}

/// Deleting must leave nothing readable and harm nobody else.
#[tokio::test]
async fn deletion() {
    let world = World::new().await;
    let channel = world.osd_channel(0, "node-1").await;
    let base = good(&world);
    let file = |inode| token(&Capability { inode, ..base.clone() });
    for inode in [5, 6] {
        write(&channel, file(inode), 0, 0, b"data").await.unwrap();
        call::<Fsync>(&channel, None, FileRequest { capability: file(inode) }).await.unwrap();
    }
    for _ in 0..2 {
        call::<Unlink>(&channel, None, FileRequest { capability: file(5) }).await.unwrap();
    }
    assert_eq!(read(&channel, file(5), 0, 0, 9).await.unwrap(), b""[..]);
    assert_eq!(read(&channel, file(6), 0, 0, 9).await.unwrap(), b"data"[..]);
}
