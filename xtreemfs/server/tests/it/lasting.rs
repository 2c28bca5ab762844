//! What was said must last: capabilities over a crash and an unlink, and a damaged log.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use xtreemfs_proto::mrc::{CapabilityRequest, ROOT_INODE, Renew, open_flags};
use xtreemfs_proto::{Access, Capability, Errno};
use xtreemfs_server::mrc::{Mrc, StoreError};

use crate::crash::{person, reopen};
use crate::world::*;

/// So large that there is one log.
const NO_CHECKPOINT: u64 = 1 << 30;

async fn new_mrc(dir: &Path) -> Arc<Mrc> {
    let mrc = open_mrc(dir, &Surroundings::new(), NO_CHECKPOINT);
    mrc.create_volume(&volume_request("home")).await.unwrap();
    mrc
}

fn log(dir: &Path) -> PathBuf {
    dir.join(format!("log.{:016x}", 0))
}

/// Else what a capability was signed for, before a crash took its file back, opens the file that
/// gets the number next.
#[tokio::test]
async fn a_capability_over_a_crash_opens_no_other_file() {
    let dir = tempfile::tempdir().unwrap();
    let mrc = new_mrc(dir.path()).await;
    let ann = person(&mrc, 10).await;
    let before = std::fs::read(log(dir.path())).unwrap();
    let lost = ann.create(ROOT_INODE, "lost", 0o600, open_flags::WRITE).await.unwrap();
    drop((ann, mrc));
    drop(reopen(dir.path()).await.unwrap());
    std::fs::write(log(dir.path()), before).unwrap();
    let mrc = reopen(dir.path()).await.unwrap();
    let bob = person(&mrc, 11).await;
    assert_eq!(bob.lookup(ROOT_INODE, "lost").await, Err(Errno::ENOENT));
    let other = bob.create(ROOT_INODE, "other", 0o600, open_flags::WRITE).await.unwrap();
    assert_ne!(lost.attr.unwrap().inode, other.attr.unwrap().inode);
}

/// Else a file that was unlinked while open (`tmpfile`) dies when its first capability lapses, or
/// the deletion of a large file stops; and renewing must give no more than there was.
#[tokio::test]
async fn capabilities_of_an_unlinked_file_are_renewed_as_they_were() {
    let world = World::new().await;
    let ann = world.person(10, "100", false).await;
    let opened = ann.create(ROOT_INODE, "f", 0o600, open_flags::WRITE).await.unwrap();
    let removed = ann.unlink(ROOT_INODE, "f").await.unwrap().deleted.unwrap();
    world.around.clock.forward(500_000);
    for (old, access) in [
        (opened.capability.clone(), Capability::peek(&opened.capability).unwrap().access),
        (removed.capability, Access::DELETE.0),
    ] {
        let renewed = ann.call::<Renew>(CapabilityRequest { capability: old.clone() }).await;
        let (old, new) = (
            Capability::peek(&old).unwrap(),
            Capability::peek(&renewed.unwrap().capability).unwrap(),
        );
        assert_eq!(new.access, access);
        assert!(new.expires_ms > old.expires_ms);
        let (issued_ms, expires_ms) = (old.issued_ms, old.expires_ms);
        assert_eq!(Capability { issued_ms, expires_ms, ..new }, old, "the rest is as it was");
    }
    let bob = world.person(11, "100", false).await;
    let stolen = CapabilityRequest { capability: opened.capability };
    assert_eq!(bob.call::<Renew>(stolen).await.err(), Some(Errno::EACCES));
}

/// Cutting a log where a record is damaged that others follow would lose what was acknowledged: the
/// server must say so, and leave the file as it is for whoever repairs it.
#[tokio::test]
async fn damage_inside_the_newest_log_is_no_torn_end() {
    let dir = tempfile::tempdir().unwrap();
    let mrc = new_mrc(dir.path()).await;
    let ann = person(&mrc, 10).await;
    for n in 0..20 {
        ann.file(ROOT_INODE, &format!("f{n}"), 0o644).await.unwrap();
    }
    drop((ann, mrc));
    drop(reopen(dir.path()).await.unwrap());
    let mut bytes = std::fs::read(log(dir.path())).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(log(dir.path()), &bytes).unwrap();
    let error = reopen(dir.path()).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert!(std::fs::read(log(dir.path())).unwrap() == bytes, "it changed the damaged log");
}
