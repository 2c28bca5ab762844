//! Why a person may use a file, or may not.

use xtreemfs_proto::Errno;
use xtreemfs_proto::mrc::*;

use crate::world::*;

const READ: u32 = 4;
const WRITE: u32 = 2;

async fn explain(person: &Person, path: &str, want: u32) -> Result<Vec<ExplainStep>, Errno> {
    let names = path.split('/').filter(|name| !name.is_empty()).map(b).collect();
    let (volume, way) = (person.volume.clone(), Some(Way { names, want }));
    let request = ExplainRequest { volume, inode: ROOT_INODE, way };
    let reply = person.call::<Explain>(request).await?;
    assert!(reply.away.is_empty(), "all object servers are up: {:?}", reply.away);
    Ok(reply.steps)
}

/// Which step was refused, and with what; it is the last one.
fn refused(steps: &[ExplainStep]) -> Option<(usize, i32)> {
    let at = steps.iter().position(|step| step.errno != 0)?;
    assert_eq!(at + 1, steps.len(), "what lies behind a refusal is told: {steps:?}");
    Some((at, steps[at].errno))
}

/// What keeps a person from Ann's file.
async fn of(person: &Person, want: u32) -> Option<(usize, i32)> {
    refused(&explain(person, "ann/sub/f", want).await.unwrap())
}

/// If it failed, the reason told would be another than the one that keeps the person out, or who
/// may not search a folder would learn what is in it.
#[tokio::test]
async fn the_first_refusal_on_the_way_is_the_one_that_opens_meet() {
    let world = World::new().await;
    let ann = world.person(10, "100", false).await;
    let bob = world.person(11, "100", false).await;
    let dir = ann.mkdir(ROOT_INODE, "ann", 0o755).await.unwrap().inode;
    let sub = ann.mkdir(dir, "sub", 0o755).await.unwrap().inode;
    let file = ann.file(sub, "f", 0o644).await.unwrap();
    assert_eq!(of(&bob, READ).await, None);
    assert_eq!(of(&bob, WRITE).await, Some((3, Errno::EACCES.0)));
    assert_eq!(bob.open(file, open_flags::WRITE).await.map(drop), Err(Errno::EACCES));
    assert_eq!(of(&ann, READ | WRITE).await, None);
    let steps = explain(&bob, "ann/sub/f", WRITE).await.unwrap();
    assert_eq!((steps[3].owner, steps[3].mode), (10, 0o644));

    ann.chmod(sub, 0o700).await.unwrap();
    assert_eq!(of(&bob, READ).await, Some((2, Errno::EACCES.0)));
    assert_eq!(bob.open(file, open_flags::READ).await.map(drop), Err(Errno::EACCES));
    let hidden = explain(&bob, "ann/sub/nothing", READ).await.unwrap();
    assert_eq!(refused(&hidden), Some((2, Errno::EACCES.0)), "whether it is there is told");

    ann.chmod(sub, 0o755).await.unwrap();
    let (volume, closed) = (ann.volume.clone(), Some(true));
    let close = FolderSetRequest { volume, inode: dir, closed, pin: None };
    ann.call::<FolderSet>(close).await.unwrap();
    assert_eq!(of(&bob, READ).await, Some((1, Errno::EACCES.0)));
    let steps = explain(&bob, "ann/sub/f", READ).await.unwrap();
    assert!(steps[1].closed && steps[1].message.contains("closed"), "{steps:?}");
    assert_eq!(of(&ann, READ).await, None, "the owner");

    let gone = explain(&ann, "ann/none", READ).await.unwrap();
    assert_eq!(refused(&gone), Some((2, Errno::ENOENT.0)));
    let far = "a/".repeat(WAY_NAMES_MAX + 1);
    assert_eq!(explain(&ann, &far, READ).await.unwrap_err(), Errno::EINVAL);
    assert_eq!(explain(&ann, "ann", 8).await.unwrap_err(), Errno::EINVAL);
}
