//! What an OSD has not heard yet, which is no refusal.

use xtreemfs_proto::{Capability, Errno};

use crate::capabilities::{good, read, token, write};
use crate::world::*;

/// Clients take a refusal as final and drop what they wanted to write. If an OSD refused what it
/// only has not heard of yet, each restart of it would lose data that applications have been told
/// were accepted.
#[tokio::test]
async fn a_volume_and_a_member_that_were_not_heard_of_may_be_tried_again() {
    let world = World::new().await;
    let channel = world.osd_channel(0, "node-1").await;
    let unheard = token(&Capability { vo: UNHEARD.into(), ..good(&world) });
    for refused in [
        read(&channel, unheard.clone(), 0, 0, 9).await.map(drop),
        write(&channel, unheard.clone(), 0, 0, b"kept").await.map(drop),
    ] {
        assert_eq!(refused.unwrap_err().errno, Errno::EAGAIN);
    }
    // The home is heard, of its members nothing yet: the MRC knew them when it made this.
    world.around.learn(UNHEARD, &world.volume, world.mrc.public_key());
    let error = write(&channel, unheard.clone(), 0, 0, b"kept").await.unwrap_err();
    assert_eq!(error.errno, Errno::EAGAIN, "{error}");
    assert!(error.message.contains("membership"), "{error}");
    // After a while, silence says that they are none: a new capability is to be asked for.
    world.around.clock.forward(xtreemfs_server::osd::NEWS_MS_MAX);
    let error = write(&channel, unheard, 0, 0, b"kept").await.unwrap_err();
    assert_eq!(error.errno, Errno::EKEYREVOKED, "{error}");
    // What was heard of is not waited for.
    let old = token(&Capability { epoch: 0, ..good(&world) });
    assert_eq!(read(&channel, old, 0, 0, 9).await.unwrap_err().errno, Errno::EKEYREVOKED);
    let none = token(&Capability { vo: "nowhere".into(), ..good(&world) });
    assert_eq!(read(&channel, none, 0, 0, 9).await.unwrap_err().errno, Errno::EACCES);
}

/// If it failed, who holds a file open when they are removed would be told only by the age of their
/// capability, ten seconds after all else of theirs has ended; or who is let in again would lose
/// what they write before this OSD has heard of it.
#[tokio::test]
async fn who_was_removed_is_told_at_once_and_nobody_else() {
    let world = World::new().await;
    let channel = world.osd_channel(0, "node-1").await;
    let capability = good(&world);
    let young = token(&capability);
    write(&channel, young.clone(), 0, 0, b"kept").await.unwrap();
    let put = async |for_good: bool| {
        world.around.out.lock().unwrap().insert(capability.member, for_good);
        write(&channel, young.clone(), 0, 0, b"more").await.unwrap_err().errno
    };
    assert_eq!(put(false).await, Errno::EAGAIN, "suspended: may be in again by now");
    assert_eq!(put(true).await, Errno::EKEYREVOKED, "removed: the clock stands still");
    world.around.out.lock().unwrap().clear();
    write(&channel, young.clone(), 0, 0, b"back").await.unwrap();
}
