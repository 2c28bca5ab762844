//! What is durable after a sync, and what is left of operations that nobody waits for any more.

use std::pin::pin;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::poll;
use tokio::task::JoinHandle;
use xtreemfs_client::limits::WRITE_BEHIND_BYTES;
use xtreemfs_client::{File, OpenMode, Volume};

use crate::toy::{ALICE, World, mrc_peer};

const WRITE: OpenMode =
    OpenMode { read: true, write: true, execute: false, truncate: false, append: false };
const READ: OpenMode =
    OpenMode { read: true, write: false, execute: false, truncate: false, append: false };

fn pattern(length: usize, seed: u8) -> Bytes {
    (0..length).map(|n| (n as u8).wrapping_mul(31) ^ seed).collect()
}

async fn create(volume: &Volume) -> File {
    volume.create(ALICE, volume.root(), b"f", 0o644, WRITE, false).await.unwrap().1
}

async fn open(volume: &Volume, mode: OpenMode) -> File {
    let ino = volume.lookup(ALICE, volume.root(), b"f").await.unwrap().ino;
    volume.open(ALICE, ino, mode).await.unwrap().1
}

async fn content(volume: &Volume) -> Bytes {
    open(volume, READ).await.read(0, 1 << 20).await.unwrap()
}

/// Gives the others their turn until something has happened.
async fn until(happened: impl Fn() -> bool) {
    while !happened() {
        tokio::task::yield_now().await;
    }
}

/// Begins an operation on a file beside the test.
fn beside<F>(file: &File, operation: impl FnOnce(File) -> F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    tokio::spawn(operation(file.clone()))
}

/// Elsewhere, a file that was cut to 10 bytes and then grew to 20000 has zeros behind the 10.
async fn nothing_came_back(world: &World) {
    let all = content(&world.elsewhere()).await;
    assert!(all.len() == 20_000 && all[10..].iter().all(|b| *b == 0));
}

/// The OSDs that were asked to sync since the last look.
fn synced(world: &World) -> Vec<String> {
    let mut synced = std::mem::take(&mut *world.toy.syncs.lock().unwrap());
    synced.sort();
    synced
}

/// If it failed, `sync FILE`, or a checkpointer that opens its file anew, would be told that data
/// are safe which no disk has.
#[tokio::test]
async fn a_sync_asks_every_osd_whoever_wrote() {
    let world = World::new(3, 4096);
    let all = ["osd0", "osd1", "osd2"];
    let file = create(&world.volume).await;
    file.write(0, pattern(20_000, 1)).await.unwrap();
    file.close().await.unwrap();
    assert!(synced(&world).is_empty(), "a close is no sync");
    for mode in [WRITE, READ] {
        let again = open(&world.volume, mode).await;
        again.sync().await.unwrap();
        assert_eq!(synced(&world), all, "written through another handle");
        again.sync().await.unwrap();
        assert_eq!(synced(&world), all, "another machine may have written since");
        again.close().await.unwrap();
    }
    open(&world.elsewhere(), READ).await.sync().await.unwrap();
    assert_eq!(synced(&world), all, "written on another machine");
}

/// If it failed, the second of two syncs would return before the data are on the disks.
#[tokio::test]
async fn two_syncs_at_once_both_wait_for_the_disks() {
    let world = World::new(2, 4096);
    let file = create(&world.volume).await;
    file.write(0, pattern(9000, 1)).await.unwrap();
    world.toy.hold.syncs.send_replace(true);
    let syncs = [(); 2].map(|()| beside(&file, |file| async move { file.sync().await }));
    until(|| world.toy.syncs.lock().unwrap().len() == 4).await;
    assert!(syncs.iter().all(|sync| !sync.is_finished()));
    world.toy.hold.syncs.send_replace(false);
    for sync in syncs {
        sync.await.unwrap().unwrap();
    }
}

/// If it failed, a program would take data for safe that a failing disk has lost.
#[tokio::test]
async fn a_failed_sync_is_told_to_every_handle() {
    let world = World::new(2, 4096);
    let file = create(&world.volume).await;
    let other = open(&world.volume, WRITE).await;
    file.write(0, pattern(9000, 1)).await.unwrap();
    world.toy.broken.store(true, Ordering::Relaxed);
    assert_eq!(file.sync().await.unwrap_err().errno(), libc::EIO);
    world.toy.broken.store(false, Ordering::Relaxed);
    assert_eq!(other.close().await.unwrap_err().errno(), libc::EIO, "whose data they were");
    file.sync().await.unwrap();
    file.close().await.unwrap();
}

/// If it failed, data that `write` had taken would be gone, and nobody told.
#[tokio::test]
async fn a_write_given_up_loses_nothing_that_was_acknowledged() {
    let world = World::new(1, 4096);
    let file = create(&world.volume).await;
    world.toy.hold.writes.send_replace(true);
    file.write(0, pattern(4096, 1)).await.unwrap();
    file.write(0, Bytes::from_static(b"acknowledged")).await.unwrap();
    {
        let mut elsewhere_in_the_file = pin!(file.write(9000, pattern(10, 2)));
        assert!(poll!(elsewhere_in_the_file.as_mut()).is_pending(), "the tail cannot travel yet");
        let mut flush = pin!(file.flush());
        assert!(poll!(flush.as_mut()).is_pending());
    }
    world.toy.hold.writes.send_replace(false);
    file.close().await.unwrap();
    let mut expected = pattern(4096, 1).to_vec();
    expected[..12].copy_from_slice(b"acknowledged");
    assert!(content(&world.elsewhere()).await == expected);
}

/// If it failed, an older write whose answer nobody waited for could land on a newer one.
#[tokio::test]
async fn a_write_under_way_is_not_overtaken_after_it_was_given_up() {
    let world = World::new(1, 1 << 20);
    let (file, root) = (create(&world.volume).await, world.volume.root());
    let fill = Bytes::from(vec![1; 128 << 10]);
    let mut others = Vec::new();
    // The client holds as much as it may: a further write waits for its own answer.
    for n in 0..WRITE_BEHIND_BYTES / fill.len() {
        let name = n.to_string();
        let made = world.volume.create(ALICE, root, name.as_bytes(), 0o644, WRITE, true).await;
        let other = made.unwrap().1;
        other.write(0, fill.clone()).await.unwrap();
        others.push(other);
    }
    world.toy.hold.writes.send_replace(true);
    {
        let mut older = pin!(file.write(0, Bytes::from_static(b"older")));
        assert!(poll!(older.as_mut()).is_pending());
        until(|| world.toy.writes.load(Ordering::Relaxed) == 1).await;
    }
    let mut newer = pin!(file.write(0, Bytes::from_static(b"newer")));
    for _ in 0..100 {
        assert!(poll!(newer.as_mut()).is_pending());
        tokio::task::yield_now().await;
    }
    assert_eq!(world.toy.writes.load(Ordering::Relaxed), 1, "it must wait for the older");
    world.toy.hold.writes.send_replace(false);
    newer.await.unwrap();
    file.close().await.unwrap();
    assert_eq!(content(&world.elsewhere()).await, "newer");
}

/// If it failed, the size would never be told: the file stays short though each close returns 0.
#[tokio::test]
async fn a_size_that_was_not_told_in_time_is_told_later() {
    let world = World::new(1, 4096);
    let file = create(&world.volume).await;
    file.write(0, pattern(100, 1)).await.unwrap();
    world.toy.hold.commits.send_replace(true);
    let flush = beside(&file, |file| async move { file.flush().await });
    until(|| world.toy.commits.load(Ordering::Relaxed) == 1).await;
    flush.abort();
    assert!(flush.await.unwrap_err().is_cancelled());
    // The request itself is lost as well.
    world.memory.cut(&mrc_peer());
    world.toy.hold.commits.send_replace(false);
    file.close().await.unwrap();
    assert_eq!(content(&world.elsewhere()).await, pattern(100, 1));
}

/// If it failed, the end of a file that is written while its size is being told would be lost.
#[tokio::test]
async fn what_arrives_after_the_size_was_told_is_told_too() {
    let world = World::new(1, 4096);
    let file = create(&world.volume).await;
    file.write(0, pattern(4096, 1)).await.unwrap();
    world.toy.hold.commits.send_replace(true);
    let first = beside(&file, |file| async move { file.flush().await });
    until(|| world.toy.commits.load(Ordering::Relaxed) == 1).await;
    let mut second = pin!(file.flush());
    assert!(poll!(second.as_mut()).is_pending(), "one tells at a time");
    world.toy.hold.writes.send_replace(true);
    file.write(4096, pattern(4096, 2)).await.unwrap();
    world.toy.hold.commits.send_replace(false);
    first.await.unwrap().unwrap();
    second.await.unwrap();
    world.toy.hold.writes.send_replace(false);
    file.close().await.unwrap();
    assert_eq!(content(&world.elsewhere()).await.len(), 8192);
}

/// If it failed, bytes from before a truncation would come back when the file grows.
#[tokio::test]
async fn a_truncation_given_up_reaches_the_osds() {
    let world = World::new(2, 4096);
    let file = create(&world.volume).await;
    file.write(0, pattern(20_000, 1)).await.unwrap();
    file.flush().await.unwrap();
    {
        let mut truncation = pin!(file.truncate(10));
        assert!(poll!(truncation.as_mut()).is_pending());
    }
    let cut = || world.toy.objects.lock().unwrap().values().flatten().all(|(n, _)| *n == 0);
    until(cut).await;
    file.truncate(20_000).await.unwrap();
    nothing_came_back(&world).await;
}

/// If it failed, bytes from before a truncation that an OSD did not make would come back.
#[tokio::test]
async fn a_file_that_an_osd_has_not_cut_does_not_show_its_old_bytes() {
    let world = World::new(2, 4096);
    let file = create(&world.volume).await;
    file.write(0, pattern(20_000, 1)).await.unwrap();
    file.flush().await.unwrap();
    world.toy.broken.store(true, Ordering::Relaxed);
    assert_eq!(file.truncate(10).await.unwrap_err().errno(), libc::EIO);
    world.toy.broken.store(false, Ordering::Relaxed);
    assert_eq!(file.size(), 10, "the MRC has cut it");
    file.write(15_000, pattern(10, 2)).await.unwrap();
    file.truncate(20_000).await.unwrap();
    file.close().await.unwrap();
    let mut expected = pattern(20_000, 1).to_vec();
    expected[10..].fill(0);
    expected[15_000..15_010].copy_from_slice(&pattern(10, 2));
    assert!(content(&world.elsewhere()).await == expected);
}

/// The same when the client that cut it is gone: the next one that writes has it made, and says so
/// to the MRC.
#[tokio::test]
async fn a_truncation_of_a_client_that_died_is_made_by_the_next() {
    let world = World::new(2, 4096);
    let file = create(&world.volume).await;
    file.write(0, pattern(20_000, 1)).await.unwrap();
    file.flush().await.unwrap();
    world.toy.broken.store(true, Ordering::Relaxed);
    file.truncate(10).await.unwrap_err();
    world.toy.broken.store(false, Ordering::Relaxed);
    let owed = || world.toy.inodes.lock().unwrap().values().any(|node| !node.owed.is_empty());
    assert!(owed());
    let elsewhere = world.elsewhere();
    assert_eq!(content(&elsewhere).await, pattern(20_000, 1)[..10]);
    let again = open(&elsewhere, WRITE).await;
    until(|| !owed()).await;
    again.write(12_000, pattern(10, 2)).await.unwrap();
    again.close().await.unwrap();
    let all = content(&world.elsewhere()).await;
    assert!(all.len() == 12_010 && all[10..12_000].iter().all(|b| *b == 0));
    assert_eq!(all[12_000..], pattern(10, 2));
}

/// A writer that tells its size while a truncation elsewhere has reached the MRC and no OSD must
/// not bring the old size back, with zeros where its bytes were.
#[tokio::test]
async fn a_size_told_amid_a_truncation_elsewhere_is_the_cut_one() {
    let world = World::new(2, 4096);
    let file = create(&world.volume).await;
    let elsewhere = open(&world.elsewhere(), WRITE).await;
    file.write(0, pattern(20_000, 1)).await.unwrap();
    world.toy.hold.commits.send_replace(true);
    let flush = beside(&file, |file| async move { file.flush().await });
    until(|| world.toy.commits.load(Ordering::Relaxed) == 1).await;
    world.toy.broken.store(true, Ordering::Relaxed);
    elsewhere.truncate(10).await.unwrap_err();
    world.toy.broken.store(false, Ordering::Relaxed);
    world.toy.hold.commits.send_replace(false);
    flush.await.unwrap().unwrap();
    file.close().await.unwrap();
    assert_eq!(content(&world.elsewhere()).await, pattern(20_000, 1)[..10]);
}

/// If it failed, a program would take data for safe that an OSD lost with its machine's memory.
#[tokio::test]
async fn data_lost_with_an_osds_power_are_told_to_every_handle() {
    let world = World::new(2, 4096);
    let file = create(&world.volume).await;
    let other = open(&world.volume, WRITE).await;
    file.write(0, pattern(9000, 1)).await.unwrap();
    file.flush().await.unwrap();
    world.toy.lose_power("osd1");
    let error = file.sync().await.unwrap_err();
    assert_eq!(error.errno(), libc::EIO);
    assert!(error.to_string().contains("osd1"), "{error}");
    assert_eq!(other.close().await.unwrap_err().errno(), libc::EIO, "whose data they were");
    file.sync().await.unwrap();
    // What was synced outlives it: no false alarm.
    file.write(0, pattern(9000, 2)).await.unwrap();
    file.sync().await.unwrap();
    world.toy.lose_power("osd0");
    file.sync().await.unwrap();
    file.write(0, pattern(9000, 3)).await.unwrap();
    file.close().await.unwrap();
}

/// If it failed, a program that goes on writing over the loss would be told of it by nothing.
#[tokio::test]
async fn a_write_after_the_power_came_back_tells_of_the_loss() {
    let world = World::new(1, 4096);
    let file = create(&world.volume).await;
    file.write(0, pattern(4096, 1)).await.unwrap();
    file.flush().await.unwrap();
    world.toy.lose_power("osd0");
    file.write(4096, pattern(4096, 2)).await.unwrap();
    assert_eq!(file.close().await.unwrap_err().errno(), libc::EIO);
}

/// If it failed, `sync FILE` after the writer closed the file would say that lost data are safe.
#[tokio::test]
async fn a_loss_between_close_and_sync_is_told_to_whoever_syncs() {
    let world = World::new(2, 4096);
    let file = create(&world.volume).await;
    file.write(0, pattern(9000, 1)).await.unwrap();
    file.close().await.unwrap();
    world.toy.lose_power("osd0");
    let again = open(&world.volume, READ).await;
    assert_eq!(again.sync().await.unwrap_err().errno(), libc::EIO);
    again.sync().await.unwrap();
    again.close().await.unwrap();
    // Not of what was cut away since: the next write is all that there is.
    let file = open(&world.volume, WRITE).await;
    file.write(0, pattern(9000, 2)).await.unwrap();
    file.close().await.unwrap();
    world.toy.lose_power("osd0");
    let file = open(&world.volume, OpenMode { truncate: true, ..WRITE }).await;
    file.write(0, pattern(9000, 3)).await.unwrap();
    file.sync().await.unwrap();
    file.close().await.unwrap();
}

/// If it failed, what was written while a sync was under way would count as synced by it.
#[tokio::test]
async fn what_is_written_during_a_sync_is_not_covered_by_it() {
    let world = World::new(1, 4096);
    let file = create(&world.volume).await;
    file.write(0, pattern(4096, 1)).await.unwrap();
    world.toy.hold.syncs.send_replace(true);
    let sync = beside(&file, |file| async move { file.sync().await });
    until(|| world.toy.syncs.lock().unwrap().len() == 1).await;
    file.write(4096, pattern(4096, 2)).await.unwrap();
    file.flush().await.unwrap();
    world.toy.hold.syncs.send_replace(false);
    sync.await.unwrap().unwrap();
    world.toy.lose_power("osd0");
    assert_eq!(file.sync().await.unwrap_err().errno(), libc::EIO);
}
