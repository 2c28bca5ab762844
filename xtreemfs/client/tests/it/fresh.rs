//! What a reader sees of what was written and cut here a moment ago, whatever comes late.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use xtreemfs_client::{File, OpenMode, Volume};

use crate::toy::{ALICE, World};

const OPEN: OpenMode =
    OpenMode { read: true, write: true, execute: false, truncate: false, append: false };

/// Bytes of an object.
const OBJECT: usize = 4096;

async fn create(volume: &Volume) -> File {
    volume.create(ALICE, volume.root(), b"f", 0o644, OPEN, false).await.unwrap().1
}

/// Gives the others their turn until something has happened.
async fn until(happened: impl Fn() -> bool) {
    while !happened() {
        tokio::task::yield_now().await;
    }
}

/// If it failed, a program that reads a file in sequence would be given bytes from before its own
/// write: those that were read ahead while the write was joined or under way.
#[tokio::test(start_paused = true)]
async fn what_was_read_ahead_beside_a_write_is_not_handed_out_after_it() {
    for length in [3, OBJECT] {
        let world = World::new(1, OBJECT as u32);
        let file = create(&world.volume).await;
        file.write(0, Bytes::from(vec![1; 4 * OBJECT])).await.unwrap();
        file.flush().await.unwrap();
        world.toy.hold.writes.send_replace(true);
        let new = Bytes::from(vec![2; length]);
        file.write(3 * OBJECT as u64, new.clone()).await.unwrap();
        // The second one has the last two objects read ahead.
        for object in 0..2 {
            let seen = file.read(object * OBJECT as u64, OBJECT).await.unwrap();
            assert!(seen.len() == OBJECT && seen.iter().all(|byte| *byte == 1));
        }
        until(|| world.toy.reads.load(Ordering::Relaxed) == 4).await;
        world.toy.hold.writes.send_replace(false);
        let seen = file.read(3 * OBJECT as u64, OBJECT).await.unwrap();
        assert!(seen.starts_with(&new), "{length} bytes written, and the old ones read");
        assert!(seen.len() == OBJECT && seen[length..].iter().all(|byte| *byte == 1));
        file.close().await.unwrap();
    }
}

/// If it failed, a file would have its old size again after it was cut, with zeros behind the cut,
/// and what is appended would lie behind them.
#[tokio::test]
async fn a_size_told_before_a_truncation_does_not_come_back_after_it() {
    let world = World::new(1, OBJECT as u32);
    let file = create(&world.volume).await;
    let (ino, size) = (file.ino(), 3 * OBJECT as u64);
    file.write(0, Bytes::from(vec![1; 3 * OBJECT])).await.unwrap();
    world.toy.hold.told.send_replace(true);
    let flushed = tokio::spawn({
        let file = file.clone();
        async move { file.flush().await }
    });
    until(|| world.toy.inodes.lock().unwrap()[&ino.0].attr.size == size).await;
    file.truncate(100).await.unwrap();
    world.toy.hold.told.send_replace(false);
    flushed.await.unwrap().unwrap();
    assert_eq!(file.size(), 100);
    assert!(file.read(100, 10).await.unwrap().is_empty());
    // Nor at the MRC, which is told again after the next write.
    file.write(0, Bytes::from_static(b"x")).await.unwrap();
    file.close().await.unwrap();
    let there = world.elsewhere();
    let seen = there.lookup(ALICE, there.root(), b"f").await.unwrap();
    assert_eq!(seen.size, 100);
}
