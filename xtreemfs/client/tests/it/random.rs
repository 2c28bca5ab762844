//! Seeded random operations on one file, compared with a model after each read and at the end.

use bytes::Bytes;
use xtreemfs_client::{Change, File, Ino, OpenMode, Volume};

use crate::site::{ALICE, Shape, Site, mrc_peer, osd_peer};

const OPEN: OpenMode =
    OpenMode { read: true, write: true, execute: false, truncate: false, append: false };

/// Where the file ends at most.
const SIZE_MAX: u64 = 300_000;

/// A small generator of numbers that look random (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit.max(1)
    }
}

struct Run {
    site: Site,
    volume: Volume,
    ino: Ino,
    files: Vec<File>,
    model: Vec<u8>,
    random: Random,
}

impl Run {
    async fn start(seed: u64) -> Run {
        let shape = Shape { width: 3, stripe_size: 8 << 10, ..Shape::default() };
        let site = Site::start(shape).await;
        let volume = site.volume().await;
        let (attributes, file) =
            volume.create(ALICE, volume.root(), b"f", 0o644, OPEN, true).await.unwrap();
        let random = Random(seed);
        Run { site, volume, ino: attributes.ino, files: vec![file], model: Vec::new(), random }
    }

    fn file(&mut self) -> File {
        let n = self.random.below(self.files.len() as u64) as usize;
        self.files[n].clone()
    }

    fn resize(&mut self, size: u64) {
        self.model.resize(size as usize, 0);
    }

    async fn step(&mut self) {
        let (file, size) = (self.file(), self.model.len() as u64);
        match self.random.below(100) {
            0..40 => {
                let small = self.random.below(2) == 0;
                let length = 1 + self.random.below(if small { 600 } else { 40_000 });
                let near = self.random.below(2) == 0;
                let at = if near { size } else { self.random.below(SIZE_MAX - length) };
                let at = at.min(SIZE_MAX - length);
                let first = self.random.below(256) as u8;
                let data: Bytes =
                    (0..length).map(|n| first.wrapping_add((n % 251) as u8)).collect();
                self.resize(size.max(at + length));
                self.model[at as usize..(at + length) as usize].copy_from_slice(&data);
                assert_eq!(file.write(at, data).await.unwrap(), at);
            }
            40..75 => {
                let (at, length) = (self.random.below(SIZE_MAX), self.random.below(60_000));
                let (start, end) = (at.min(size) as usize, (at + length).min(size) as usize);
                let seen = file.read(at, length as usize).await.unwrap();
                assert!(seen == self.model[start..end.max(start)], "read of {length} at {at}");
            }
            75..82 => {
                let size = self.random.below(SIZE_MAX);
                self.resize(size);
                if self.random.below(2) == 0 {
                    file.truncate(size).await.unwrap();
                } else {
                    let change = Change { size: Some(size), ..Change::default() };
                    self.volume.change(ALICE, self.ino, change).await.unwrap();
                }
            }
            82..86 => file.flush().await.unwrap(),
            86..90 => file.sync().await.unwrap(),
            90..94 if self.files.len() < 4 => {
                let (seen, file) = self.volume.open(ALICE, self.ino, OPEN).await.unwrap();
                assert_eq!(seen.size, size, "size at open");
                self.files.push(file);
            }
            94..96 if self.files.len() > 1 => self.files.swap_remove(0).close().await.unwrap(),
            96..98 => {
                let seen = self.volume.lookup(ALICE, self.volume.root(), b"f").await.unwrap();
                assert_eq!(seen.size, size, "size at look-up");
            }
            _ => match self.random.below(4) {
                0 => self.site.memory.cut(&mrc_peer()),
                n => self.site.memory.cut(&osd_peer(n as usize - 1)),
            },
        }
    }

    /// Closes everything and compares with what another machine sees.
    async fn finish(mut self) {
        for file in self.files.drain(..) {
            file.close().await.unwrap();
        }
        let there = self.site.volume().await;
        let (attributes, file) = there.open(ALICE, self.ino, OPEN).await.unwrap();
        assert_eq!(attributes.size, self.model.len() as u64);
        assert!(file.read(0, SIZE_MAX as usize).await.unwrap() == self.model);
        file.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_operations_agree_with_a_model() {
    for seed in [1, 0x5eed, 0xabcd_ef01, 77_777] {
        println!("seed {seed:#x}");
        let mut run = Run::start(seed).await;
        for _ in 0..400 {
            run.step().await;
        }
        run.finish().await;
    }
}
