//! The client against the real servers.

use bytes::Bytes;
use std::sync::atomic::Ordering;
use xtreemfs_client::{Change, File, Ino, Kind, Member, OpenMode, Volume};

use crate::site::{ALICE, ARTISTS, BOB, MEMBERS, Shape, Site, bytes_under, mrc_peer, osd_peer};

const WRITE: OpenMode =
    OpenMode { read: true, write: true, execute: false, truncate: false, append: false };
const READ: OpenMode =
    OpenMode { read: true, write: false, execute: false, truncate: false, append: false };

fn pattern(length: usize, seed: u8) -> Bytes {
    (0..length).map(|n| (n / 7) as u8 ^ (n as u8).wrapping_mul(31) ^ seed).collect()
}

async fn create(volume: &Volume, who: Member, name: &[u8], mode: u32) -> File {
    volume.create(who, volume.root(), name, mode, WRITE, true).await.unwrap().1
}

async fn write(volume: &Volume, who: Member, name: &[u8], mode: u32, data: &Bytes) -> Ino {
    let file = create(volume, who, name, mode).await;
    for start in (0..data.len()).step_by(1 << 20) {
        let part = data.slice(start..data.len().min(start + (1 << 20)));
        file.write(start as u64, part).await.unwrap();
    }
    file.close().await.unwrap();
    file.ino()
}

async fn read(volume: &Volume, who: Member, ino: Ino) -> Bytes {
    let (attributes, file) = volume.open(who, ino, READ).await.unwrap();
    let mut all = Vec::new();
    while (all.len() as u64) < attributes.size {
        let part = file.read(all.len() as u64, 1 << 20).await.unwrap();
        assert!(!part.is_empty(), "the file ends before its size");
        all.extend_from_slice(&part);
    }
    file.close().await.unwrap();
    all.into()
}

fn errno<T: std::fmt::Debug>(result: xtreemfs_client::Result<T>) -> i32 {
    result.unwrap_err().errno()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_is_striped_and_read_on_another_machine() {
    let site = Site::start(Shape { width: 3, stripe_size: 64 << 10, ..Shape::default() }).await;
    let data = pattern((9 << 20) + 12_345, 1);
    let ino = write(&site.volume().await, ALICE, b"f", 0o644, &data).await;
    assert!(read(&site.volume().await, ALICE, ino).await == data);
    for n in 0..3 {
        assert!(bytes_under(&site.osd_folder(n)) > 2 << 20, "OSD {n} holds no share of it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_cut_off_in_mid_stream_lose_nothing() {
    let site = Site::start(Shape { width: 2, stripe_size: 16 << 10, ..Shape::default() }).await;
    let (volume, data) = (site.volume().await, pattern(6 << 20, 2));
    let file = create(&volume, ALICE, b"f", 0o644).await;
    for (n, start) in (0..data.len()).step_by(100_000).enumerate() {
        let part = data.slice(start..data.len().min(start + 100_000));
        file.write(start as u64, part).await.unwrap();
        match n % 4 {
            0 => site.memory.cut(&osd_peer(0)),
            1 => site.memory.cut(&osd_peer(1)),
            2 => site.memory.cut(&mrc_peer()),
            _ => {}
        }
    }
    file.sync().await.unwrap();
    site.memory.cut(&mrc_peer());
    file.close().await.unwrap();
    assert!(read(&site.volume().await, ALICE, file.ino()).await == data);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_mrc_that_starts_again_is_found_again() {
    let site = Site::start(Shape::default()).await;
    let volume = site.volume().await;
    let file = create(&volume, ALICE, b"f", 0o644).await;
    file.write(0, pattern(100_000, 3)).await.unwrap();
    site.memory.stop(&mrc_peer());
    let closing = tokio::spawn({
        let file = file.clone();
        async move { file.close().await }
    });
    tokio::task::yield_now().await;
    site.serve_mrc_again().await;
    closing.await.unwrap().unwrap();
    assert_eq!(read(&site.volume().await, ALICE, file.ino()).await, pattern(100_000, 3));
}

/// If it failed, `fsync` would succeed over a power loss in which an OSD lost the file; or each
/// restart of an OSD would be told as such a loss.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_osd_that_lost_power_is_told_from_one_that_was_restarted() {
    let site = Site::start(Shape::default()).await;
    let volume = site.volume().await;
    let file = create(&volume, ALICE, b"f", 0o644).await;
    file.write(0, pattern(1 << 20, 3)).await.unwrap();
    file.flush().await.unwrap();
    site.memory.stop(&osd_peer(1));
    site.serve_osd(1, 0, 1);
    file.sync().await.unwrap();
    file.write(0, pattern(1 << 20, 4)).await.unwrap();
    file.flush().await.unwrap();
    site.memory.stop(&osd_peer(1));
    // Not even the names reached the disk.
    std::fs::remove_dir_all(site.osd_folder(1)).unwrap();
    site.serve_osd(1, 0, 2);
    assert_eq!(errno(file.sync().await), libc::EIO);
    file.write(0, pattern(1 << 20, 4)).await.unwrap();
    file.sync().await.unwrap();
    file.close().await.unwrap();
    assert_eq!(read(&site.volume().await, ALICE, file.ino()).await, pattern(1 << 20, 4));
}

#[tokio::test]
async fn the_mrc_decides_by_the_person() {
    let site = Site::start(Shape::default()).await;
    let (volume, root) = (site.volume().await, Ino(1));
    let secret = write(&volume, ALICE, b"secret", 0o600, &pattern(10, 1)).await;
    let public = write(&volume, ALICE, b"public", 0o644, &pattern(10, 2)).await;
    assert_eq!(errno(volume.open(BOB, secret, READ).await), libc::EACCES);
    assert_eq!(errno(volume.open(BOB, public, WRITE).await), libc::EACCES);
    assert_eq!(read(&volume, BOB, public).await, pattern(10, 2));
    assert_eq!(errno(volume.unlink(BOB, root, b"public").await), libc::EPERM, "sticky");
    let stranger = volume.lookup(Member(99), root, b"public").await;
    assert_eq!(errno(stranger), libc::EACCES, "no ticket, no rights");

    let attributes = volume.make_directory(ALICE, root, b"home", 0o700).await.unwrap();
    let inner = volume.make_directory(ALICE, attributes.ino, b"inner", 0o755).await.unwrap();
    volume.lookup(ALICE, attributes.ino, b"inner").await.unwrap();
    let found = volume.lookup(BOB, attributes.ino, b"inner").await;
    assert_eq!(errno(found), libc::EACCES, "what Alice looked up must not help Bob");
    assert_eq!(errno(volume.attributes(BOB, inner.ino).await), libc::EACCES);
    assert_eq!(errno(volume.list(BOB, attributes.ino, 0).await), libc::EACCES);

    let open = Change { mode: Some(0o750), group: Some(MEMBERS), ..Change::default() };
    volume.change(ALICE, attributes.ino, open).await.unwrap();
    volume.lookup(BOB, attributes.ino, b"inner").await.unwrap();
    let closed = Change { group: Some(ARTISTS), ..Change::default() };
    volume.change(ALICE, attributes.ino, closed).await.unwrap();
    let found = volume.lookup(BOB, attributes.ino, b"inner").await;
    assert_eq!(errno(found), libc::EACCES, "a change here counts at once");
}

/// If it failed, a writer would be told that all is well while its bytes are nowhere: OSDs forget
/// truncations of files that they hold nothing of.
#[tokio::test]
async fn what_is_written_after_a_truncation_elsewhere_counts() {
    let site = Site::start(Shape { stripe_size: 4096, ..Shape::default() }).await;
    let (here, there) = (site.volume().await, site.volume().await);
    let file = create(&here, ALICE, b"f", 0o644).await;
    let cut = OpenMode { truncate: true, ..WRITE };
    there.open(ALICE, file.ino(), cut).await.unwrap().1.close().await.unwrap();
    file.write(0, pattern(5000, 1)).await.unwrap();
    file.close().await.unwrap();
    assert_eq!(read(&site.volume().await, ALICE, file.ino()).await, pattern(5000, 1));
}

#[tokio::test]
async fn a_removed_member_loses_open_files_too() {
    let site = Site::start(Shape::default()).await;
    let volume = site.volume().await;
    let file = create(&volume, ALICE, b"f", 0o644).await;
    file.write(0, pattern(200_000, 1)).await.unwrap();
    file.sync().await.unwrap();
    site.surroundings.epochs.lock().unwrap().insert(ALICE.0, u64::MAX);
    site.people.0.lock().unwrap().remove(&ALICE);
    assert_eq!(errno(file.read(0, 10).await), libc::EACCES);
    file.write(0, pattern(200_000, 2)).await.unwrap();
    assert_eq!(errno(file.close().await), libc::EACCES, "nothing of it may be lost in silence");
}

#[tokio::test]
async fn a_new_epoch_is_followed_while_the_ticket_is_good() {
    let site = Site::start(Shape::default()).await;
    let volume = site.volume().await;
    let file = create(&volume, ALICE, b"f", 0o644).await;
    site.surroundings.epochs.lock().unwrap().insert(ALICE.0, 5);
    site.people.0.lock().unwrap().insert(ALICE, 2);
    file.write(0, pattern(200_000, 1)).await.unwrap();
    file.close().await.unwrap();
    assert_eq!(read(&site.volume().await, ALICE, file.ino()).await, pattern(200_000, 1));
}

#[tokio::test]
async fn names_come_and_go() {
    let site = Site::start(Shape::default()).await;
    let (volume, root) = (site.volume().await, Ino(1));
    let odd = [b"a\nb".to_vec(), vec![b'n'; 255], "prénom \u{1F3A8}".into(), vec![0xff, 0xfe]];
    for name in &odd {
        write(&volume, ALICE, name, 0o644, &pattern(3, 1)).await;
        volume.lookup(ALICE, root, name).await.unwrap();
    }
    let listed = volume.list(ALICE, root, 0).await.unwrap();
    assert!(listed.last && listed.entries.len() == odd.len());
    assert!(odd.iter().all(|name| listed.entries.iter().any(|e| e.name == *name)));
    assert_eq!(errno(volume.lookup(ALICE, root, &[b'n'; 256]).await), libc::ENAMETOOLONG);

    volume.rename(ALICE, (root, b"a\nb"), (root, &odd[1]), true).await.unwrap_err();
    volume.rename(ALICE, (root, b"a\nb"), (root, &odd[1]), false).await.unwrap();
    assert_eq!(errno(volume.lookup(ALICE, root, b"a\nb").await), libc::ENOENT);
    let link = volume.symlink(ALICE, root, b"link", b"../over/there").await.unwrap();
    assert_eq!((link.kind, link.size), (Kind::Symlink, 13));
    assert_eq!(volume.read_link(ALICE, link.ino).await.unwrap(), "../over/there");
    volume.unlink(ALICE, root, b"link").await.unwrap();
    assert_eq!(errno(volume.remove_directory(ALICE, root, &odd[1]).await), libc::ENOTDIR);
}

/// If it failed, `ls -l` by anybody would show the kernel a size from before the last writes: it
/// would cut off its pages behind that, and a program that appends would write over its own data.
#[tokio::test]
async fn a_listing_does_not_hide_what_is_being_written() {
    let site = Site::start(Shape::default()).await;
    let (volume, root) = (site.volume().await, Ino(1));
    let file = volume.create(ALICE, root, b"f", 0o644, WRITE, false).await.unwrap().1;
    file.write(0, pattern(1000, 1)).await.unwrap();
    file.flush().await.unwrap();
    file.write(1000, pattern(9000, 2)).await.unwrap();
    for who in [BOB, ALICE] {
        volume.list(who, root, 0).await.unwrap();
        assert_eq!(volume.lookup(who, root, b"f").await.unwrap().size, 10_000);
    }
    volume.list(BOB, root, 0).await.unwrap();
    file.close().await.unwrap();
    assert_eq!(volume.lookup(BOB, root, b"f").await.unwrap().size, 10_000, "listed before");
}

#[tokio::test]
async fn a_long_directory_is_listed_whole_and_once() {
    let site = Site::start(Shape::default()).await;
    let (volume, root) = (site.volume().await, Ino(1));
    for n in 0..2500u32 {
        volume.symlink(ALICE, root, format!("l{n}").as_bytes(), b"x").await.unwrap();
    }
    let (mut after, mut names) = (0, std::collections::HashSet::new());
    loop {
        let page = volume.list(ALICE, root, after).await.unwrap();
        for entry in page.entries {
            assert!(names.insert(entry.name), "listed twice");
            after = entry.cookie;
        }
        if page.last {
            break;
        }
    }
    assert_eq!(names.len(), 2500);
}

#[tokio::test]
async fn deleted_content_leaves_the_disks() {
    let site = Site::start(Shape::default()).await;
    let volume = site.volume().await;
    write(&volume, ALICE, b"f", 0o644, &pattern(3 << 20, 1)).await;
    write(&volume, ALICE, b"g", 0o644, &pattern(3 << 20, 2)).await;
    volume.rename(ALICE, (Ino(1), b"f"), (Ino(1), b"g"), false).await.unwrap();
    volume.unlink(ALICE, Ino(1), b"g").await.unwrap();
    volume.flush().await.unwrap();
    let left: u64 = (0..2).map(|n| bytes_under(&site.osd_folder(n))).sum();
    assert!(left < 100_000, "{left} bytes stay behind");
}

/// If it failed, programs would be told that disks are full whenever a core is restarted.
#[tokio::test]
async fn a_directory_that_starts_is_waited_for() {
    let site = Site::start(Shape::default()).await;
    let volume = site.volume().await;
    let around = &site.surroundings;
    let osds = std::mem::take(&mut *around.osds.lock().unwrap());
    around.starting.store(true, Ordering::SeqCst);
    let make = |name| volume.create(ALICE, volume.root(), name, 0o644, WRITE, true);
    let register = async {
        // Asked again, the client is waiting.
        while around.asked.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
        *around.osds.lock().unwrap() = osds;
    };
    let (made, ()) = tokio::join!(make(b"f"), register);
    made.unwrap();
    around.osds.lock().unwrap().clear();
    around.starting.store(false, Ordering::SeqCst);
    assert_eq!(errno(make(b"g").await), libc::ENOSPC, "no OSD at all is told");
}

#[tokio::test]
async fn a_full_disk_is_told() {
    let site = Site::start(Shape { full: true, ..Shape::default() }).await;
    let volume = site.volume().await;
    let file = create(&volume, ALICE, b"f", 0o644).await;
    file.write(0, pattern(1000, 1)).await.unwrap();
    assert_eq!(errno(file.close().await), libc::ENOSPC);
    let there = site.volume().await;
    assert_eq!(there.attributes(ALICE, file.ino()).await.unwrap().size, 0);
}
