//! A toy MRC and OSDs in memory, for what real servers do not do on command: full disks, lapsing
//! capabilities, truncations at the wrong moment. It knows no permissions.

mod mrc;
mod osd;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;
use xtreemfs_client::{Client, Config, Member, Peer, Volume};
use xtreemfs_proto::capability::Cut;
use xtreemfs_proto::mrc::{Attr, Kind};
use xtreemfs_proto::{Errno, Layout, Outgoing, RpcError};

use crate::memory::{Memory, People};
use mrc::Mrc;
use osd::Osd;

pub const ALICE: Member = Member(7);
pub const BOB: Member = Member(8);

/// One OSD's objects of one file.
pub type Objects = BTreeMap<u64, Vec<u8>>;

/// The toy's state and its switches.
pub struct Toy {
    pub inodes: Mutex<HashMap<u64, Node>>,
    pub objects: Mutex<HashMap<(String, u64), Objects>>,
    /// The newest truncation that an OSD has made of a file.
    made: Mutex<HashMap<(String, u64), u64>>,
    pub layout: Layout,
    pub valid_ms: AtomicU64,
    pub full: AtomicBool,
    pub lapsed: AtomicBool,
    pub reads: AtomicU32,
    pub writes: AtomicU32,
    pub commits: AtomicU32,
    pub renewals: AtomicU32,
    /// Who was asked to make a file durable.
    pub syncs: Mutex<Vec<String>>,
    /// The OSDs' verifiers; 1 where absent.
    verifiers: Mutex<HashMap<String, u64>>,
    /// The OSDs' disks fail at a sync, and that of `osd1` when a file is cut.
    pub broken: AtomicBool,
    /// How many truncations the OSDs say that they know of; the truth where absent.
    pub told_epoch: Mutex<Option<u64>>,
    /// Held up while true.
    pub hold: Hold,
    /// Every so manieth request of a server cuts all connections to it: in turn before it is
    /// carried out and after.
    pub cut_every: AtomicU32,
    requests: AtomicU32,
    memory: Arc<Memory>,
    start: Instant,
}

/// Answers that do not come, by kind of request.
pub struct Hold {
    pub writes: watch::Sender<bool>,
    pub commits: watch::Sender<bool>,
    /// Commits that were made.
    pub told: watch::Sender<bool>,
    pub syncs: watch::Sender<bool>,
}

async fn pass(gate: &watch::Sender<bool>) {
    gate.subscribe().wait_for(|held| !held).await.unwrap();
}

#[derive(Default)]
pub struct Node {
    pub attr: Attr,
    /// Truncations that the OSDs are not known to have made.
    pub owed: Vec<Cut>,
    names: BTreeMap<Bytes, u64>,
}

pub fn osd_peer(n: usize) -> Peer {
    Peer::Osd(format!("osd{n}").into())
}

pub fn mrc_peer() -> Peer {
    Peer::Mrc("mrc".into())
}

/// A toy site and a client of it.
pub struct World {
    pub toy: Arc<Toy>,
    pub memory: Arc<Memory>,
    pub volume: Volume,
}

impl World {
    pub fn new(width: usize, stripe_size: u32) -> World {
        let osds: Vec<String> = (0..width).map(|n| format!("osd{n}")).collect();
        let kind = Kind::Directory.into();
        let root = Node { attr: Attr { inode: 1, kind, ..Attr::default() }, ..Node::default() };
        let memory = Arc::new(Memory::default());
        let toy = Arc::new(Toy {
            inodes: Mutex::new(HashMap::from([(1, root)])),
            objects: Mutex::default(),
            made: Mutex::default(),
            layout: Layout { stripe_size, osds },
            valid_ms: AtomicU64::new(600_000),
            full: AtomicBool::new(false),
            lapsed: AtomicBool::new(false),
            reads: AtomicU32::new(0),
            writes: AtomicU32::new(0),
            commits: AtomicU32::new(0),
            renewals: AtomicU32::new(0),
            syncs: Mutex::default(),
            verifiers: Mutex::default(),
            broken: AtomicBool::new(false),
            told_epoch: Mutex::default(),
            hold: Hold {
                writes: watch::Sender::new(false),
                commits: watch::Sender::new(false),
                told: watch::Sender::new(false),
                syncs: watch::Sender::new(false),
            },
            cut_every: AtomicU32::new(0),
            requests: AtomicU32::new(0),
            memory: memory.clone(),
            start: Instant::now(),
        });
        let mrc = toy.clone();
        memory.serve(mrc_peer(), move || Arc::new(Mrc(mrc.clone())));
        for n in 0..width {
            let toy = toy.clone();
            memory.serve(osd_peer(n), move || Arc::new(Osd(toy.clone(), format!("osd{n}"))));
        }
        let volume = client(&memory).volume_at("volume".into(), "mrc".into());
        World { toy, memory, volume }
    }

    /// The same volume as another machine sees it.
    pub fn elsewhere(&self) -> Volume {
        client(&self.memory).volume_at("volume".into(), "mrc".into())
    }
}

fn client(memory: &Arc<Memory>) -> Client {
    let config = Config { now_ns: || 1_000_000_007, ..Config::new("dir") };
    Client::new(config, memory.clone(), People::new([ALICE.0, BOB.0]))
}

impl Toy {
    fn verifier(&self, osd: &str) -> u64 {
        self.verifiers.lock().unwrap().get(osd).copied().unwrap_or(1)
    }

    /// The machine of an OSD loses power, and comes back.
    pub fn lose_power(&self, osd: &str) {
        *self.verifiers.lock().unwrap().entry(osd.to_owned()).or_insert(1) += 1;
    }

    /// Carries a request out, unless its connection is to be cut.
    async fn or_cut(
        &self,
        peer: Peer,
        work: impl Future<Output = Result<Outgoing, RpcError>>,
    ) -> Result<Outgoing, RpcError> {
        let every = self.cut_every.load(Ordering::Relaxed);
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        if every == 0 || !number.is_multiple_of(every) {
            return work.await;
        }
        if number.is_multiple_of(2 * every) {
            drop(work.await);
        }
        self.memory.cut(&peer);
        // The task that runs this is part of what was cut.
        std::future::pending().await
    }

    fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// Cuts a file at the MRC.
    fn cut(&self, inode: u64, size: u64) -> Result<Attr, RpcError> {
        let mut inodes = self.inodes.lock().unwrap();
        let node = inodes.get_mut(&inode).ok_or(Errno::ESTALE)?;
        node.attr.size = size;
        node.attr.truncate_epoch += 1;
        node.owed.push(Cut { epoch: node.attr.truncate_epoch, size });
        Ok(node.attr)
    }

    fn change(&self, inode: u64, change: impl FnOnce(&mut Attr)) -> Result<Attr, RpcError> {
        let mut inodes = self.inodes.lock().unwrap();
        let node = inodes.get_mut(&inode).ok_or(Errno::ESTALE)?;
        change(&mut node.attr);
        Ok(node.attr)
    }
}
