//! Reading and writing: striping, joining, sizes, lost writes, truncations, capabilities.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use xtreemfs_client::{Change, File, OpenMode, SetTime, Volume};

use crate::toy::{ALICE, World};

const WRITE: OpenMode =
    OpenMode { read: true, write: true, execute: false, truncate: false, append: false };
const READ: OpenMode =
    OpenMode { read: true, write: false, execute: false, truncate: false, append: false };

/// Bytes that differ from place to place.
fn pattern(length: usize, seed: u8) -> Bytes {
    (0..length).map(|n| (n / 7) as u8 ^ (n as u8).wrapping_mul(31) ^ seed).collect()
}

async fn create(volume: &Volume, name: &[u8]) -> File {
    volume.create(ALICE, volume.root(), name, 0o644, WRITE, false).await.unwrap().1
}

async fn open(volume: &Volume, name: &[u8], mode: OpenMode) -> File {
    let ino = volume.lookup(ALICE, volume.root(), name).await.unwrap().ino;
    volume.open(ALICE, ino, mode).await.unwrap().1
}

async fn read_all(volume: &Volume, name: &[u8]) -> Bytes {
    let file = open(volume, name, READ).await;
    let mut all = Vec::new();
    loop {
        let part = file.read(all.len() as u64, 100_000).await.unwrap();
        if part.is_empty() {
            file.close().await.unwrap();
            return all.into();
        }
        all.extend_from_slice(&part);
    }
}

#[tokio::test]
async fn what_is_written_in_any_portions_is_read_elsewhere_after_close() {
    let world = World::new(3, 4096);
    let data = pattern(100_003, 1);
    for (n, portion) in [1, 10, 999, 4096, 5000, 70_000].into_iter().enumerate() {
        let data = if portion == 1 { data.slice(..5000) } else { data.clone() };
        let name = format!("f{n}");
        let file = create(&world.volume, name.as_bytes()).await;
        for start in (0..data.len()).step_by(portion) {
            let part = data.slice(start..data.len().min(start + portion));
            file.write(start as u64, part).await.unwrap();
        }
        file.close().await.unwrap();
        assert!(read_all(&world.elsewhere(), name.as_bytes()).await == data, "portion {portion}");
    }
}

#[tokio::test(start_paused = true)]
async fn small_sequential_writes_are_joined() {
    let world = World::new(1, 128 << 10);
    let file = create(&world.volume, b"f").await;
    let data = pattern(64 << 10, 2);
    for start in (0..data.len()).step_by(512) {
        file.write(start as u64, data.slice(start..start + 512)).await.unwrap();
    }
    file.close().await.unwrap();
    assert_eq!(world.toy.writes.load(Ordering::Relaxed), 1, "128 writes, one request");
    assert!(read_all(&world.elsewhere(), b"f").await == data);
}

#[tokio::test]
async fn overlapping_writes_keep_their_order_and_readers_here_see_them_at_once() {
    let world = World::new(2, 4096);
    let file = create(&world.volume, b"f").await;
    let reader = open(&world.volume, b"f", READ).await;
    let mut expected = vec![0; 50_000];
    for round in 0..60u32 {
        let start = (round as usize * 7919) % 40_000;
        let length = 1 + (round as usize * 1237) % 9_999;
        let data = pattern(length, round as u8);
        expected[start..start + length].copy_from_slice(&data);
        file.write(start as u64, data).await.unwrap();
        let seen = reader.read(start as u64, length).await.unwrap();
        assert!(seen == expected[start..start + length], "round {round}");
    }
    let size = file.size() as usize;
    file.close().await.unwrap();
    assert!(read_all(&world.elsewhere(), b"f").await == expected[..size]);
}

#[tokio::test]
async fn holes_read_as_zeros() {
    let world = World::new(2, 4096);
    let file = create(&world.volume, b"f").await;
    file.write(50_000, Bytes::from_static(b"end")).await.unwrap();
    file.close().await.unwrap();
    let all = read_all(&world.elsewhere(), b"f").await;
    assert!(all.len() == 50_003 && all[..50_000].iter().all(|b| *b == 0) && all.ends_with(b"end"));
}

#[tokio::test]
async fn a_lost_write_is_told_and_leaves_no_size_behind() {
    let world = World::new(2, 4096);
    let file = create(&world.volume, b"f").await;
    file.write(0, pattern(5000, 3)).await.unwrap();
    file.sync().await.unwrap();
    world.toy.full.store(true, Ordering::Relaxed);
    file.write(5000, pattern(20_000, 4)).await.unwrap();
    assert_eq!(file.flush().await.unwrap_err().errno(), libc::ENOSPC, "the close must tell");
    assert_eq!(file.size(), 5000, "what never arrived is not part of the file");
    file.flush().await.unwrap();
    world.toy.full.store(false, Ordering::Relaxed);
    file.write(5000, pattern(10, 5)).await.unwrap();
    file.close().await.unwrap();
    assert_eq!(read_all(&world.elsewhere(), b"f").await.len(), 5010);
}

#[tokio::test]
async fn a_lost_write_is_told_by_the_next_write_too() {
    let world = World::new(1, 4096);
    let file = create(&world.volume, b"f").await;
    world.toy.full.store(true, Ordering::Relaxed);
    file.write(0, pattern(4096, 3)).await.unwrap();
    let reader = open(&world.volume, b"f", READ).await;
    reader.read(0, 4096).await.unwrap();
    let error = file.write(4096, pattern(4096, 3)).await.unwrap_err();
    assert_eq!(error.errno(), libc::ENOSPC);
    assert_eq!(file.close().await.unwrap_err().errno(), libc::ENOSPC);
}

#[tokio::test]
async fn an_append_goes_to_the_end_wherever_it_is_aimed() {
    let world = World::new(2, 4096);
    let first = create(&world.volume, b"f").await;
    first.write(0, Bytes::from_static(b"one ")).await.unwrap();
    let append = OpenMode { append: true, ..WRITE };
    let second = open(&world.volume, b"f", append).await;
    assert_eq!(second.write(0, Bytes::from_static(b"two ")).await.unwrap(), 4);
    assert_eq!(second.write(4, Bytes::from_static(b"three")).await.unwrap(), 8);
    first.close().await.unwrap();
    second.close().await.unwrap();
    assert_eq!(read_all(&world.elsewhere(), b"f").await, "one two three");
}

/// If it failed, a mapped file that was opened to append would grow by its own pages.
#[tokio::test]
async fn a_mapped_page_is_not_appended() {
    let world = World::new(2, 4096);
    let append = OpenMode { append: true, ..WRITE };
    let created = world.volume.create(ALICE, world.volume.root(), b"f", 0o644, append, false);
    let file = created.await.unwrap().1;
    file.write(0, Bytes::from_static(b"one two")).await.unwrap();
    file.write_back(0, Bytes::from_static(b"ONE")).await.unwrap();
    file.close().await.unwrap();
    assert_eq!(read_all(&world.elsewhere(), b"f").await, "ONE two");
}

#[tokio::test]
async fn truncation_cuts_and_what_follows_reads_as_zeros() {
    let world = World::new(2, 4096);
    let file = create(&world.volume, b"f").await;
    let data = pattern(20_000, 6);
    file.write(0, data.clone()).await.unwrap();
    assert_eq!(file.truncate(10_001).await.unwrap().size, 10_001);
    assert_eq!(file.truncate(15_000).await.unwrap().size, 15_000);
    file.write(15_000, Bytes::from_static(b"!")).await.unwrap();
    file.close().await.unwrap();
    let all = read_all(&world.elsewhere(), b"f").await;
    assert!(all.len() == 15_001 && all[..10_001] == data[..10_001] && all[15_000] == b'!');
    assert!(all[10_001..15_000].iter().all(|b| *b == 0), "old bytes must not come back");

    let emptied = open(&world.volume, b"f", OpenMode { truncate: true, ..WRITE }).await;
    assert_eq!(emptied.size(), 0);
    emptied.close().await.unwrap();
    assert!(read_all(&world.elsewhere(), b"f").await.is_empty());
}

#[tokio::test]
async fn a_truncation_on_another_machine_is_not_undone_by_an_older_size() {
    let world = World::new(1, 4096);
    let file = create(&world.volume, b"f").await;
    file.write(0, pattern(9000, 7)).await.unwrap();
    file.sync().await.unwrap();
    let there = world.elsewhere();
    open(&there, b"f", WRITE).await.truncate(100).await.unwrap();
    file.write(0, Bytes::from_static(b"x")).await.unwrap();
    file.close().await.unwrap();
    assert_eq!(read_all(&world.elsewhere(), b"f").await.len(), 100, "9000 would be the old size");
}

/// If it failed, a renewed capability would bring back the size from before the truncation.
#[tokio::test]
async fn a_renewed_capability_does_not_undo_a_truncation_elsewhere() {
    let world = World::new(2, 4096);
    let file = create(&world.volume, b"f").await;
    file.write(0, pattern(9000, 7)).await.unwrap();
    file.sync().await.unwrap();
    let there = world.elsewhere();
    open(&there, b"f", WRITE).await.truncate(100).await.unwrap();
    // As OSDs do that were started since.
    *world.toy.told_epoch.lock().unwrap() = Some(0);
    world.toy.lapsed.store(true, Ordering::Relaxed);
    file.write(120, Bytes::from_static(b"x")).await.unwrap();
    file.close().await.unwrap();
    assert_eq!(world.toy.renewals.load(Ordering::Relaxed), 1);
    let all = read_all(&world.elsewhere(), b"f").await;
    assert_eq!(all.len(), 121, "9000 would be the old size");
    assert!(all[..100] == pattern(9000, 7)[..100] && all.ends_with(b"x"));
}

/// If it failed, one rooted node with an OSD could make every client forget sizes, and blind it
/// for truncations on other machines.
#[tokio::test]
async fn an_osd_that_lies_about_truncations_is_not_believed() {
    let world = World::new(2, 4096);
    *world.toy.told_epoch.lock().unwrap() = Some(u64::MAX);
    let file = create(&world.volume, b"f").await;
    file.write(0, pattern(20_000, 7)).await.unwrap();
    file.flush().await.unwrap();
    file.write(0, pattern(10, 8)).await.unwrap();
    file.flush().await.unwrap();
    let there = world.elsewhere();
    assert_eq!(there.lookup(ALICE, there.root(), b"f").await.unwrap().size, 20_000);
    open(&there, b"f", WRITE).await.truncate(50).await.unwrap();
    let seen = world.volume.lookup(ALICE, world.volume.root(), b"f").await.unwrap();
    assert_eq!(seen.size, 50, "the MRC's word counts");
    file.write(60, pattern(10, 8)).await.unwrap();
    file.close().await.unwrap();
    assert_eq!(read_all(&world.elsewhere(), b"f").await.len(), 70);
}

#[tokio::test]
async fn a_lapsed_capability_is_renewed_and_the_write_repeated() {
    let world = World::new(1, 4096);
    let file = create(&world.volume, b"f").await;
    world.toy.lapsed.store(true, Ordering::Relaxed);
    file.write(0, pattern(4096, 8)).await.unwrap();
    file.close().await.unwrap();
    assert_eq!(world.toy.renewals.load(Ordering::Relaxed), 1);
    assert_eq!(read_all(&world.elsewhere(), b"f").await.len(), 4096);
}

#[tokio::test]
async fn a_set_time_outlives_the_close() {
    let world = World::new(1, 4096);
    let file = create(&world.volume, b"f").await;
    file.write(0, pattern(10, 9)).await.unwrap();
    let change = Change { modified: Some(SetTime::At(42)), ..Change::default() };
    world.volume.change(ALICE, file.ino(), change).await.unwrap();
    file.close().await.unwrap();
    let attributes = world.elsewhere().attributes(ALICE, file.ino()).await.unwrap();
    assert_eq!((attributes.modified_ns, attributes.size), (42, 10), "tar and cp -p set it so");
}

#[tokio::test]
async fn an_unlinked_file_lives_on_for_its_handle_and_then_goes() {
    let world = World::new(2, 4096);
    let file = create(&world.volume, b"f").await;
    file.write(0, pattern(9000, 10)).await.unwrap();
    file.sync().await.unwrap();
    world.volume.unlink(ALICE, world.volume.root(), b"f").await.unwrap();
    file.write(9000, pattern(10, 11)).await.unwrap();
    assert_eq!(file.read(8999, 100).await.unwrap().len(), 11);
    let attributes = world.volume.attributes(ALICE, file.ino()).await.unwrap();
    assert_eq!((attributes.links, attributes.size), (0, 9010));
    assert_eq!(file.truncate(12_000).await.unwrap().size, 12_000, "as temporary files are made");
    assert!(file.read(9010, 5000).await.unwrap() == vec![0; 2990]);
    assert!(!world.toy.objects.lock().unwrap().is_empty(), "its content must still be there");
    file.close().await.unwrap();
    world.volume.flush().await.unwrap();
    assert!(world.toy.objects.lock().unwrap().is_empty(), "nothing may be left behind");
}

/// If it failed, a file that a program holds open after removing it would die under it, or its
/// content would stay on the OSDs for ever.
#[tokio::test(start_paused = true)]
async fn an_unlinked_file_outlives_its_capabilities() {
    let world = World::new(2, 4096);
    let file = create(&world.volume, b"f").await;
    file.write(0, pattern(9000, 10)).await.unwrap();
    file.sync().await.unwrap();
    world.volume.unlink(ALICE, world.volume.root(), b"f").await.unwrap();
    tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
    assert_eq!(file.read(0, 9000).await.unwrap(), pattern(9000, 10));
    file.write(9000, pattern(10, 11)).await.unwrap();
    file.close().await.unwrap();
    world.volume.flush().await.unwrap();
    assert!(world.toy.objects.lock().unwrap().is_empty(), "nothing may be left behind");
}

#[tokio::test]
async fn sequential_readers_are_read_ahead_for() {
    let world = World::new(2, 64 << 10);
    let file = create(&world.volume, b"f").await;
    let data = pattern(1 << 20, 12);
    file.write(0, data.clone()).await.unwrap();
    file.close().await.unwrap();
    let there = world.elsewhere();
    let file = open(&there, b"f", READ).await;
    for start in (0..data.len()).step_by(4096) {
        let part = file.read(start as u64, 4096).await.unwrap();
        assert!(part == data[start..start + 4096], "at {start}");
    }
    let reads = world.toy.reads.load(Ordering::Relaxed);
    assert!(reads < 40, "256 reads of 16 objects took {reads} requests");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_cut_in_mid_stream_lose_nothing() {
    let world = World::new(2, 16 << 10);
    let data = pattern(1 << 20, 13);
    world.toy.cut_every.store(9, Ordering::Relaxed);
    let file = create(&world.volume, b"f").await;
    for start in (0..data.len()).step_by(50_000) {
        let part = data.slice(start..data.len().min(start + 50_000));
        file.write(start as u64, part).await.unwrap();
    }
    file.sync().await.unwrap();
    file.close().await.unwrap();
    assert!(read_all(&world.elsewhere(), b"f").await == data);
    assert!(world.memory.connects.load(Ordering::Relaxed) > 10, "nothing was cut");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_files_share_the_room_without_waiting_for_each_other() {
    let world = World::new(2, 64 << 10);
    let mut files = Vec::new();
    for n in 0..400u32 {
        let file = create(&world.volume, format!("f{n}").as_bytes()).await;
        // 400 tails of 100 KiB are more than the client may hold at once.
        file.write(0, pattern(63_000, n as u8)).await.unwrap();
        file.write(63_000, pattern(40_000, n as u8)).await.unwrap();
        files.push(file);
    }
    for file in files {
        file.close().await.unwrap();
    }
    let all = read_all(&world.elsewhere(), b"f399").await;
    assert!(all.len() == 103_000 && all[..63_000] == pattern(63_000, 143)[..]);
}

#[tokio::test(start_paused = true)]
async fn an_open_file_is_looked_after() {
    let world = World::new(1, 4096);
    world.toy.valid_ms.store(30_000, Ordering::Relaxed);
    let file = create(&world.volume, b"f").await;
    file.write(0, pattern(100, 1)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(7)).await;
    let there = world.elsewhere();
    let size = there.lookup(ALICE, there.root(), b"f").await.unwrap().size;
    assert_eq!(size, 100, "others see a file grow while it is open");
    assert_eq!(world.toy.commits.load(Ordering::Relaxed), 1);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(world.toy.renewals.load(Ordering::Relaxed) >= 1, "renewed without being used");
    assert_eq!(world.toy.commits.load(Ordering::Relaxed), 1, "nothing new, nothing told");
    file.close().await.unwrap();
}

#[tokio::test]
async fn readers_of_a_file_deleted_elsewhere_are_told_and_not_given_zeros() {
    let world = World::new(2, 4096);
    let file = create(&world.volume, b"f").await;
    file.write(0, pattern(20_000, 1)).await.unwrap();
    file.close().await.unwrap();
    let reader = open(&world.volume, b"f", READ).await;
    let there = world.elsewhere();
    there.unlink(ALICE, there.root(), b"f").await.unwrap();
    there.flush().await.unwrap();
    assert_eq!(reader.read(0, 100).await.unwrap_err().errno(), libc::ESTALE);
}
