//! The directory over a stream.

use std::sync::Arc;
use std::time::Duration;

use xtreemfs_proto::dir::*;
use xtreemfs_proto::rpc::{ErrorType, interface};
use xtreemfs_proto::{Errno, RpcError, mrc};
use xtreemfs_server::dir::{Dir, DirPolicy};
use xtreemfs_server::{Peer, Role};

use crate::world::*;

/// An OSD's id is its peer's; a volume's MRC address is.
struct Policy;

impl DirPolicy for Policy {
    fn may_register_volume(&self, peer: &Peer, volume: &Volume) -> bool {
        volume.mrc_address == peer.id
    }

    fn may_register_osd(&self, peer: &Peer, osd: &Osd) -> bool {
        osd.id == peer.id
    }
}

fn errno(error: RpcError) -> Errno {
    error.errno
}

/// A client, or a service that speaks for somebody else, must not be able to lead others astray.
#[tokio::test]
async fn only_entitled_services_register() {
    let around = Surroundings::new();
    let dir = Dir::new(Arc::new(Policy), around.clone());
    let connect_as = |id: &str, role| connect(dir.connection(peer(id, role)));
    let core = connect_as("core", Role::Service);
    let other = connect_as("other", Role::Service);
    let client = connect_as("core", Role::Client);

    let volume = Volume {
        id: "1".into(),
        name: "home".into(),
        vo: "demo".into(),
        mrc_address: "core".into(),
        mrc_key: vec![1; 32].into(),
    };
    let register = VolumeRegisterRequest { volume: Some(volume.clone()) };
    for wrong in [&client, &other] {
        let refused = call::<VolumeRegister>(wrong, None, register.clone()).await.map_err(errno);
        assert_eq!(refused, Err(Errno::EPERM));
    }
    call::<VolumeRegister>(&core, None, register).await.unwrap();
    let lookup = || VolumeLookupRequest { name: "home".into() };
    assert_eq!(call::<VolumeLookup>(&client, None, lookup()).await.unwrap(), volume);
    let all = call::<VolumeList>(&client, None, Default::default()).await.unwrap();
    assert_eq!(all.volumes, [volume]);

    let osd = |id: &str| Osd {
        id: id.into(),
        address: "site/host".into(),
        vos: vec!["demo".into()],
        ..Default::default()
    };
    let register = |id: &str| OsdRegisterRequest { osd: Some(osd(id)) };
    let refused = call::<OsdRegister>(&other, None, register("core")).await.map_err(errno);
    assert_eq!(refused, Err(Errno::EPERM));
    assert!(call::<OsdRegister>(&other, None, register("other")).await.unwrap().repeat_ms > 0);
    assert_eq!(dir.osds("demo").len(), 1);
    around.clock.forward(61_000);
    let list = call::<OsdList>(&client, None, Default::default()).await.unwrap();
    assert!(list.osds.is_empty(), "a silent OSD is still listed");
    let gone = call::<VolumeLookup>(&client, None, lookup()).await.map_err(errno);
    assert_eq!(gone, Err(Errno::ENOENT));

    let unregister = VolumeUnregisterRequest { id: "1".into() };
    let refused = call::<VolumeUnregister>(&client, None, unregister).await.map_err(errno);
    assert_eq!(refused.unwrap_err(), Errno::EPERM);
    let wrong = call::<mrc::Getattr>(&client, None, Default::default()).await.unwrap_err();
    assert_eq!(wrong.kind, ErrorType::InvalidInterfaceId, "{}", interface::DIR);
}

/// If it failed, an OSD or a client would hear of a closed folder late or never, or the person who
/// closes it would be told that all go by it while an OSD does not.
#[tokio::test]
async fn who_waits_hears_of_a_barrier_and_an_osd_confirms_by_asking_again() {
    let around = Surroundings::new();
    let dir = Dir::new(Arc::new(Policy), around.clone());
    let connect_as = |id: &str| connect(dir.connection(peer(id, Role::Service)));
    let (first, second, client) = (connect_as("osd-a"), connect_as("osd-b"), connect_as("node-1"));
    let asked = |known: u64, osd: bool| BarriersRequest {
        vos: vec!["demo".into()],
        known: vec![Barrier { vo: "demo".into(), volume: "home".into(), number: known }],
        wait_ms: 600_000,
        osd,
    };
    let refused = call::<Barriers>(&first, None, asked(0, true)).await.map_err(errno);
    assert_eq!(refused, Err(Errno::ENOENT), "it is no OSD yet");
    for (channel, id) in [(&first, "osd-a"), (&second, "osd-b")] {
        let vos = vec!["demo".into()];
        let osd = Osd { id: id.into(), address: id.into(), vos, ..Default::default() };
        let register = OsdRegisterRequest { osd: Some(osd) };
        call::<OsdRegister>(channel, None, register).await.unwrap();
    }
    let barrier = Barrier { vo: "demo".into(), volume: "home".into(), number: 5 };
    let raise = async {
        tokio::task::yield_now().await;
        dir.raise_barrier(&barrier, None);
    };
    let (told, also, ()) = tokio::join!(
        call::<Barriers>(&first, None, asked(0, true)),
        call::<Barriers>(&client, None, asked(0, false)),
        raise,
    );
    for told in [told.unwrap(), also.unwrap()] {
        assert_eq!(told.barriers, std::slice::from_ref(&barrier));
    }
    let behind = dir.confirmed(&barrier, &[], Duration::ZERO).await;
    assert_eq!(behind, ["osd-a", "osd-b"], "told, no more");
    // A client that runs beside an OSD, under its name, does not speak for it.
    let beside = BarriersRequest { wait_ms: 0, ..asked(5, false) };
    call::<Barriers>(&second, None, beside).await.unwrap();
    let goes_by = BarriersRequest { wait_ms: 0, ..asked(5, true) };
    call::<Barriers>(&first, None, goes_by.clone()).await.unwrap();
    // One that is not heard of, but has files below the folder.
    let also = ["osd-a".to_owned(), "osd-z".to_owned()];
    assert_eq!(dir.confirmed(&barrier, &also, Duration::ZERO).await, ["osd-b", "osd-z"]);
    // One that fell silent may serve by what it was shown before.
    around.clock.forward(61_000);
    assert_eq!(dir.confirmed(&barrier, &[], Duration::ZERO).await, ["osd-b"]);
    let vos = vec!["demo".into()];
    let osd = Osd { id: "osd-b".into(), address: "osd-b".into(), vos, ..Default::default() };
    call::<OsdRegister>(&second, None, OsdRegisterRequest { osd: Some(osd) }).await.unwrap();
    let (last, left) = tokio::join!(
        call::<Barriers>(&second, None, goes_by),
        dir.confirmed(&barrier, &[], Duration::from_secs(60)),
    );
    assert!(last.unwrap().barriers.is_empty(), "nothing new");
    assert!(left.is_empty());
}
