//! Content: written, read, appended, truncated, mapped, in parallel, through lost connections.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};

use crate::site::{Shape, bytes_under, mrc_peer, osd_peer};
use crate::world::{ALICE, World, acting_as, errno, pattern, sh};

#[test]
fn a_large_file_is_striped_and_comes_back() {
    let Some(mut world) = World::start(Shape::default()) else { return };
    let (path, data) = (world.join("large"), pattern((64 << 20) + 4321, 1));
    acting_as(ALICE, || {
        std::fs::write(&path, &data).unwrap();
        assert!(std::fs::read(&path).unwrap() == data);
        assert_eq!(path.metadata().unwrap().len(), data.len() as u64);
    });
    let sum =
        sh(ALICE, &world.path, "sha256sum < large; dd if=large bs=77k 2>/dev/null | sha256sum");
    let sums: Vec<&str> = sum.lines().collect();
    assert_eq!(sums[0], sums[1]);
    let shares = [0, 1].map(|n| bytes_under(&world.site.osd_folder(n)));
    assert!(shares.iter().all(|share| *share > 30 << 20), "shares {shares:?}");

    world.unmount().unwrap();
    let elsewhere = world.runtime.block_on(async {
        let volume = world.site.volume().await;
        let who = crate::site::ALICE;
        volume.lookup(who, volume.root(), b"large").await.unwrap().size
    });
    assert_eq!(elsewhere, data.len() as u64, "another machine must know the size");
}

#[test]
fn append_truncate_seek_and_holes() {
    let Some(world) = World::start(Shape::default()) else { return };
    let path = world.join("f");
    acting_as(ALICE, || {
        std::fs::write(&path, "one ").unwrap();
        let mut append = OpenOptions::new().append(true).open(&path).unwrap();
        append.write_all(b"two ").unwrap();
        append.write_all(b"three").unwrap();
        drop(append);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one two three");

        let mut file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        file.set_len(7).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 7);
        file.set_len(300_000).unwrap();
        file.seek(SeekFrom::Start(200_000)).unwrap();
        file.write_all(b"middle").unwrap();
        let mut all = Vec::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut all).unwrap();
        assert_eq!(
            (all.len(), &all[..7], &all[200_000..200_006]),
            (300_000, &b"one two"[..], &b"middle"[..])
        );
        assert!(all[7..200_000].iter().all(|b| *b == 0));

        let emptied = OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
        assert_eq!(emptied.metadata().unwrap().len(), 0);
        emptied.sync_all().unwrap();
        emptied.sync_data().unwrap();
    });
    sh(
        ALICE,
        &world.path,
        "truncate -s 5M f && test $(stat -c %s f) = 5242880 && : > f && test ! -s f",
    );
}

#[test]
fn many_small_writes_and_direct_ones() {
    let Some(world) = World::start(Shape::default()) else { return };
    sh(
        ALICE,
        &world.path,
        "for i in $(seq 1 2000); do echo line $i; done > lines
         test $(wc -l < lines) = 2000 && test \"$(tail -n 1 lines)\" = 'line 2000'
         dd if=/dev/urandom of=direct bs=64k count=40 oflag=direct 2>/dev/null
         dd if=/dev/urandom of=sync bs=4k count=40 oflag=sync 2>/dev/null
         test $(stat -c %s direct) = 2621440 && cp direct copy && cmp direct copy
         dd if=direct iflag=direct bs=128k 2>/dev/null | cmp - copy
         test $(stat -c %s sync) = 163840",
    );
}

#[test]
fn parallel_writers_to_one_file_and_to_many() {
    let Some(world) = World::start(Shape::default()) else { return };
    const PART: usize = 1_000_003;
    let path = world.join("shared");
    acting_as(ALICE, || {
        let file = File::create(&path).unwrap();
        std::thread::scope(|scope| {
            for n in 0..6u8 {
                let (file, dir) = (&file, &world.path);
                scope.spawn(move || {
                    acting_as(ALICE, || {
                        let data = pattern(PART, n);
                        file.write_all_at(&data, u64::from(n) * PART as u64).unwrap();
                        std::fs::write(dir.join(format!("own{n}")), &data).unwrap();
                    });
                });
            }
        });
        file.sync_all().unwrap();
        drop(file);
        let all = std::fs::read(&path).unwrap();
        for n in 0..6u8 {
            let at = usize::from(n) * PART;
            assert!(all[at..at + PART] == pattern(PART, n), "part {n}");
            let own = std::fs::read(world.join(&format!("own{n}"))).unwrap();
            assert!(own == pattern(PART, n), "file {n}");
        }
    });
}

#[test]
fn an_unlinked_file_lives_on_while_it_is_open() {
    let Some(world) = World::start(Shape::default()) else { return };
    let path = world.join("gone");
    acting_as(ALICE, || {
        let options = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
        let mut file = options.unwrap();
        file.write_all(&pattern(500_000, 3)).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.write_all(b"more").unwrap();
        let mut all = Vec::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut all).unwrap();
        assert!(all.len() == 500_004 && all.ends_with(b"more"));
        assert_eq!(file.metadata().unwrap().len(), 500_004);
        assert_eq!(errno(path.metadata()), Some(libc::ENOENT));
    });
}

#[test]
fn a_file_mapped_into_memory_is_written_back() {
    let Some(world) = World::start(Shape::default()) else { return };
    let Some(python) = ["/usr/bin/python3"].into_iter().find(|p| std::path::Path::new(p).exists())
    else {
        eprintln!("skipped: no python3 to map a file with");
        return;
    };
    let script = format!(
        "{python} -c '
import mmap, os
f = open(\"m\", \"w+b\"); f.truncate(1000000)
m = mmap.mmap(f.fileno(), 1000000)
m[999990:1000000] = b\"0123456789\"; m.flush(); m.close(); f.close()
assert open(\"m\", \"rb\").read()[-10:] == b\"0123456789\"
'"
    );
    sh(ALICE, &world.path, &script);
    sh(ALICE, &world.path, "test \"$(tail -c 10 m)\" = 0123456789");
}

/// If it failed, a database that appends and maps its file would be corrupted by its own pages.
#[test]
fn a_file_opened_to_append_is_written_back_in_place() {
    let Some(world) = World::start(Shape::default()) else { return };
    let Some(python) = ["/usr/bin/python3"].into_iter().find(|p| std::path::Path::new(p).exists())
    else {
        eprintln!("skipped: no python3 to map a file with");
        return;
    };
    let script = format!(
        "{python} -c '
import mmap, os
f = os.open(\"m\", os.O_RDWR | os.O_APPEND | os.O_CREAT)
os.write(f, b\"0123456789\" * 1000)
m = mmap.mmap(f, 10000)
m[0:4] = b\"HEAD\"; m.flush(); m.close(); os.write(f, b\"tail\"); os.close(f)
'"
    );
    sh(ALICE, &world.path, &script);
    sh(
        ALICE,
        &world.path,
        "test $(stat -c %s m) = 10004 &&
         test $(head -c 8 m) = HEAD4567 && test $(tail -c 5 m) = 9tail",
    );
}

#[test]
fn connections_cut_in_mid_stream_are_made_anew() {
    let Some(world) = World::start(Shape { stripe_size: 32 << 10, ..Shape::default() }) else {
        return;
    };
    let (path, data) = (world.join("f"), pattern(20 << 20, 5));
    let memory = world.site.memory.clone();
    acting_as(ALICE, || {
        let mut file = File::create(&path).unwrap();
        for (n, part) in data.chunks(500_000).enumerate() {
            file.write_all(part).unwrap();
            memory.cut(&osd_peer(n % 2));
            if n % 7 == 0 {
                memory.cut(&mrc_peer());
            }
        }
        file.sync_all().unwrap();
        memory.cut(&mrc_peer());
        drop(file);
        memory.cut(&osd_peer(0));
        assert!(std::fs::read(&path).unwrap() == data);
    });
}

#[test]
fn a_full_disk_is_told_to_the_writer() {
    let Some(world) = World::start(Shape { full: true, ..Shape::default() }) else { return };
    let path = world.join("f");
    acting_as(ALICE, || {
        let mut file = File::create(&path).unwrap();
        file.write_all(b"accepted at first").unwrap();
        assert_eq!(errno(file.sync_all()), Some(libc::ENOSPC));
    });
    let (code, text) =
        crate::world::shell(ALICE, &world.path, "dd if=/dev/zero of=g bs=1M count=30 conv=fsync");
    assert!(code == Some(1) && text.contains("No space left on device"), "{text}");
}

#[test]
fn synchronous_writes_reach_the_osds_before_they_return() {
    let Some(world) = World::start(Shape::default()) else { return };
    let file = acting_as(ALICE, || {
        let mut options = OpenOptions::new();
        options.write(true).create(true).custom_flags(libc::O_DSYNC);
        let mut file = options.open(world.join("f")).unwrap();
        file.write_all(&pattern(100_000, 1)).unwrap();
        assert_eq!(file.metadata().unwrap().size(), 100_000);
        file
    });
    let held: u64 = [0, 1].map(|n| bytes_under(&world.site.osd_folder(n))).iter().sum();
    assert!(held >= 100_000, "{held} bytes at the OSDs");
    drop(file);
}
