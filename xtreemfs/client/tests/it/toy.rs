//! A toy MRC and OSDs in memory, for what real servers do not do on command: full disks, lapsing
//! capabilities, truncations at the wrong moment. It knows no permissions.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use prost::Message;
use tokio::sync::watch;
use tokio::time::Instant;
use xtreemfs_client::{Client, Config, Member, Peer, Volume};
use xtreemfs_proto::mrc::{self, Attr, AttrReply, Kind, OpenReply, open_flags};
use xtreemfs_proto::rpc::{Authenticate, AuthenticateReply};
use xtreemfs_proto::{
    Capability, Errno, Handler, Incoming, Layout, Outgoing, Procedure, RpcError, capability, osd,
};

use crate::memory::{Memory, People};

pub const ALICE: Member = Member(7);
pub const BOB: Member = Member(8);

/// One OSD's objects of one file.
pub type Objects = BTreeMap<u64, Vec<u8>>;

/// The toy's state and its switches.
pub struct Toy {
    pub inodes: Mutex<HashMap<u64, Node>>,
    pub objects: Mutex<HashMap<(String, u64), Objects>>,
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
    pub told_epoch: Mutex<Option<u32>>,
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
    pub syncs: watch::Sender<bool>,
}

async fn pass(gate: &watch::Sender<bool>) {
    gate.subscribe().wait_for(|held| !held).await.unwrap();
}

/// A lapsed capability is renewed for so long.
const LAPSED_MS_MAX: u64 = 3_600_000;

#[derive(Default)]
pub struct Node {
    pub attr: Attr,
    names: BTreeMap<Bytes, u64>,
}

struct Mrc(Arc<Toy>);
struct Osd(Arc<Toy>, String);

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

    fn capability(&self, node: &Attr) -> Bytes {
        let issued_ms = self.now_ms();
        let body = Capability {
            inode: node.inode,
            issued_ms,
            expires_ms: issued_ms + self.valid_ms.load(Ordering::Relaxed),
            truncate_epoch: node.truncate_epoch,
            layout: Some(self.layout.clone()),
            ..Capability::default()
        };
        capability::join(&[0; capability::SIGNATURE_BYTES], &body.encode_to_vec())
    }

    fn opened(&self, attr: Attr, truncated: bool, created: bool) -> OpenReply {
        let (layout, capability) = (Some(self.layout.clone()), self.capability(&attr));
        OpenReply { attr: Some(attr), layout, capability, truncated, created }
    }

    fn create(&self, request: &mrc::CreateRequest) -> Result<OpenReply, RpcError> {
        let mut inodes = self.inodes.lock().unwrap();
        let parent = inodes.get(&request.parent).ok_or(Errno::ESTALE)?;
        let inode = parent.names.get(&request.name).copied();
        if inode.is_some() && request.flags & open_flags::EXCLUSIVE != 0 {
            return Err(Errno::EEXIST.into());
        }
        let number = inode.unwrap_or(inodes.len() as u64 + 100);
        if inode.is_none() {
            let kind = Kind::File.into();
            let attr =
                Attr { inode: number, kind, mode: request.mode, nlink: 1, ..Attr::default() };
            inodes.insert(number, Node { attr, ..Node::default() });
            let parent = inodes.get_mut(&request.parent).ok_or(Errno::ESTALE)?;
            parent.names.insert(request.name.clone(), number);
        }
        drop(inodes);
        let cut = request.flags & open_flags::TRUNCATE != 0 && inode.is_some();
        let attr = self.change(number, |attr| {
            if cut {
                attr.size = 0;
                attr.truncate_epoch += 1;
            }
        })?;
        Ok(self.opened(attr, cut, inode.is_none()))
    }

    fn change(&self, inode: u64, change: impl FnOnce(&mut Attr)) -> Result<Attr, RpcError> {
        let mut inodes = self.inodes.lock().unwrap();
        let node = inodes.get_mut(&inode).ok_or(Errno::ESTALE)?;
        change(&mut node.attr);
        Ok(node.attr)
    }

    fn commit(&self, request: &mrc::SizeCommitRequest) -> Result<mrc::SizeCommitReply, RpcError> {
        let held = Capability::peek(&request.capability).ok_or(Errno::EACCES)?;
        let mut stale_epoch = false;
        let attr = self.change(held.inode, |attr| {
            stale_epoch = held.truncate_epoch < attr.truncate_epoch;
            if !stale_epoch {
                attr.size = attr.size.max(request.size);
                attr.mtime_ns = request.mtime_ns;
            }
        })?;
        Ok(mrc::SizeCommitReply { attr: Some(attr), stale_epoch })
    }

    fn unlink(&self, request: &mrc::NameRequest) -> Result<mrc::UnlinkReply, RpcError> {
        let mut inodes = self.inodes.lock().unwrap();
        let parent = inodes.get_mut(&request.parent).ok_or(Errno::ESTALE)?;
        let inode = parent.names.remove(&request.name).ok_or(Errno::ENOENT)?;
        let node = inodes.remove(&inode).ok_or(Errno::ENOENT)?;
        let (layout, capability) = (Some(self.layout.clone()), self.capability(&node.attr));
        let deleted = Some(mrc::Deleted { inode, layout, capability });
        Ok(mrc::UnlinkReply { inode, deleted })
    }
}

fn attributes<P: Procedure<Reply = AttrReply>>(attr: Attr) -> Result<Outgoing, RpcError> {
    Ok(Outgoing::reply::<P>(&AttrReply { attr: Some(attr) }))
}

impl Handler for Mrc {
    async fn handle(&self, r: Incoming) -> Result<Outgoing, RpcError> {
        self.0.or_cut(mrc_peer(), self.answer(r)).await
    }
}

impl Mrc {
    async fn answer(&self, r: Incoming) -> Result<Outgoing, RpcError> {
        let toy = &self.0;
        if r.is::<mrc::Connect>() {
            return Ok(Outgoing::reply::<mrc::Connect>(&Default::default()));
        }
        if r.is::<Authenticate>() {
            let ticket = r.request::<Authenticate>()?.ticket;
            let slot = u32::from_le_bytes(ticket[..4].try_into().unwrap());
            let reply = AuthenticateReply { slot, expires_ms: 0, valid_ms: 600_000 };
            return Ok(Outgoing::reply::<Authenticate>(&reply));
        }
        if r.is::<mrc::Lookup>() {
            let request = r.request::<mrc::Lookup>()?;
            let inodes = toy.inodes.lock().unwrap();
            let parent = inodes.get(&request.parent).ok_or(Errno::ESTALE)?;
            let inode = parent.names.get(&request.name).ok_or(Errno::ENOENT)?;
            return attributes::<mrc::Lookup>(inodes[inode].attr);
        }
        if r.is::<mrc::Getattr>() {
            let inode = r.request::<mrc::Getattr>()?.inode;
            return attributes::<mrc::Getattr>(toy.change(inode, |_| ())?);
        }
        if r.is::<mrc::Setattr>() {
            let request = r.request::<mrc::Setattr>()?;
            let attr = toy.change(request.inode, |attr| {
                attr.mtime_ns = request.mtime.and_then(|t| t.ns).unwrap_or(attr.mtime_ns);
            })?;
            return attributes::<mrc::Setattr>(attr);
        }
        if r.is::<mrc::Create>() {
            let reply = toy.create(&r.request::<mrc::Create>()?)?;
            return Ok(Outgoing::reply::<mrc::Create>(&reply));
        }
        if r.is::<mrc::Open>() {
            let request = r.request::<mrc::Open>()?;
            let cut = request.flags & open_flags::TRUNCATE != 0;
            let attr = toy.change(request.inode, |attr| {
                if cut {
                    attr.size = 0;
                    attr.truncate_epoch += 1;
                }
            })?;
            return Ok(Outgoing::reply::<mrc::Open>(&toy.opened(attr, cut, false)));
        }
        if r.is::<mrc::Renew>() {
            toy.renewals.fetch_add(1, Ordering::Relaxed);
            let old = Capability::peek(&r.request::<mrc::Renew>()?.capability).unwrap();
            if old.expires_ms + LAPSED_MS_MAX <= toy.now_ms() {
                return Err(Errno::EKEYEXPIRED.into());
            }
            let gone = Attr { inode: old.inode, ..Attr::default() };
            let attr = toy.change(old.inode, |_| ()).unwrap_or(gone);
            toy.lapsed.store(false, Ordering::Relaxed);
            let reply = mrc::CapabilityReply { capability: toy.capability(&attr) };
            return Ok(Outgoing::reply::<mrc::Renew>(&reply));
        }
        if r.is::<mrc::SizeCommit>() {
            let request = r.request::<mrc::SizeCommit>()?;
            toy.commits.fetch_add(1, Ordering::Relaxed);
            pass(&toy.hold.commits).await;
            let reply = toy.commit(&request)?;
            return Ok(Outgoing::reply::<mrc::SizeCommit>(&reply));
        }
        if r.is::<mrc::Truncate>() {
            let request = r.request::<mrc::Truncate>()?;
            let attr = toy.change(request.inode, |attr| {
                attr.size = request.size;
                attr.truncate_epoch += 1;
            })?;
            return Ok(Outgoing::reply::<mrc::Truncate>(&toy.opened(attr, true, false)));
        }
        if r.is::<mrc::Unlink>() {
            let reply = toy.unlink(&r.request::<mrc::Unlink>()?)?;
            return Ok(Outgoing::reply::<mrc::Unlink>(&reply));
        }
        Err(r.unknown(mrc::Lookup::INTERFACE))
    }
}

impl Osd {
    fn held(&self, token: &[u8]) -> Result<Capability, RpcError> {
        if self.0.lapsed.load(Ordering::Relaxed) {
            return Err(Errno::EKEYEXPIRED.into());
        }
        let held = Capability::peek(token).ok_or(RpcError::from(Errno::EACCES))?;
        if held.expires_ms <= self.0.now_ms() {
            return Err(Errno::EKEYEXPIRED.into());
        }
        Ok(held)
    }

    fn epoch(&self, inode: u64) -> u32 {
        let told = *self.0.told_epoch.lock().unwrap();
        let known = || self.0.change(inode, |_| ()).map_or(0, |attr| attr.truncate_epoch);
        told.unwrap_or_else(known)
    }

    /// The end of the last byte that this OSD holds of a file.
    fn size(&self, inode: u64) -> u64 {
        let objects = self.0.objects.lock().unwrap();
        let held = objects.get(&(self.1.clone(), inode));
        let stripe = u64::from(self.0.layout.stripe_size);
        let ends = held.into_iter().flatten().map(|(o, data)| o * stripe + data.len() as u64);
        ends.max().unwrap_or(0)
    }

    /// The bytes of this OSD's objects from `object` on, one after the other.
    fn read(&self, r: &osd::ReadRequest) -> Result<Bytes, RpcError> {
        let inode = self.held(&r.capability)?.inode;
        let objects = self.0.objects.lock().unwrap();
        let held = objects.get(&(self.1.clone(), inode));
        let (stripe, width) = (u64::from(self.0.layout.stripe_size), self.0.layout.width());
        let mut data = Vec::new();
        for at in u64::from(r.offset)..u64::from(r.offset) + u64::from(r.length) {
            let object = r.object + (at / stripe) * width;
            let byte = held.and_then(|o| o.get(&object)?.get((at % stripe) as usize));
            data.push(byte.copied());
        }
        let end = data.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        Ok(data.into_iter().take(end).map(Option::unwrap_or_default).collect())
    }

    fn write(&self, r: &osd::WriteRequest, data: &[u8]) -> Result<(), RpcError> {
        let inode = self.held(&r.capability)?.inode;
        if self.0.full.load(Ordering::Relaxed) {
            return Err(Errno::ENOSPC.into());
        }
        let mut objects = self.0.objects.lock().unwrap();
        let held = objects.entry((self.1.clone(), inode)).or_default();
        let (stripe, width) = (u64::from(self.0.layout.stripe_size), self.0.layout.width());
        for (at, byte) in (u64::from(r.offset)..).zip(data) {
            let object = held.entry(r.object + (at / stripe) * width).or_default();
            let at = (at % stripe) as usize;
            object.resize(object.len().max(at + 1), 0);
            object[at] = *byte;
        }
        Ok(())
    }

    fn truncate(&self, r: &osd::TruncateRequest) -> Result<(), RpcError> {
        let inode = self.held(&r.capability)?.inode;
        let stripe = u64::from(self.0.layout.stripe_size);
        let mut objects = self.0.objects.lock().unwrap();
        let held = objects.entry((self.1.clone(), inode)).or_default();
        held.retain(|object, data| {
            data.truncate(r.size.saturating_sub(object * stripe) as usize);
            !data.is_empty()
        });
        Ok(())
    }
}

impl Handler for Osd {
    async fn handle(&self, r: Incoming) -> Result<Outgoing, RpcError> {
        let peer = Peer::Osd(self.1.as_str().into());
        self.0.or_cut(peer, self.answer(r)).await
    }
}

impl Osd {
    async fn answer(&self, r: Incoming) -> Result<Outgoing, RpcError> {
        if r.is::<osd::Connect>() {
            return Ok(Outgoing::reply::<osd::Connect>(&Default::default()));
        }
        if r.is::<osd::Read>() {
            self.0.reads.fetch_add(1, Ordering::Relaxed);
            let data = self.read(&r.request::<osd::Read>()?)?;
            return Ok(Outgoing::with_data::<osd::Read>(&osd::ReadReply {}, data));
        }
        if r.is::<osd::Write>() {
            self.0.writes.fetch_add(1, Ordering::Relaxed);
            let request = r.request::<osd::Write>()?;
            pass(&self.0.hold.writes).await;
            self.write(&request, &r.data)?;
            let inode = self.held(&request.capability)?.inode;
            let (truncate_epoch, verifier) = (self.epoch(inode), self.0.verifier(&self.1));
            let reply = osd::WriteReply { truncate_epoch, verifier };
            return Ok(Outgoing::reply::<osd::Write>(&reply));
        }
        if r.is::<osd::Truncate>() {
            if self.0.broken.load(Ordering::Relaxed) && self.1 == "osd1" {
                return Err(Errno::EIO.into());
            }
            self.truncate(&r.request::<osd::Truncate>()?)?;
            return Ok(Outgoing::reply::<osd::Truncate>(&Default::default()));
        }
        if r.is::<osd::Fsync>() {
            self.held(&r.request::<osd::Fsync>()?.capability)?;
            self.0.syncs.lock().unwrap().push(self.1.clone());
            pass(&self.0.hold.syncs).await;
            if self.0.broken.load(Ordering::Relaxed) {
                return Err(Errno::EIO.into());
            }
            let verifier = self.0.verifier(&self.1);
            return Ok(Outgoing::reply::<osd::Fsync>(&osd::FsyncReply { verifier }));
        }
        if r.is::<osd::Size>() {
            let size = self.size(self.held(&r.request::<osd::Size>()?.capability)?.inode);
            return Ok(Outgoing::reply::<osd::Size>(&osd::SizeReply { size }));
        }
        if r.is::<osd::Unlink>() {
            let inode = self.held(&r.request::<osd::Unlink>()?.capability)?.inode;
            self.0.objects.lock().unwrap().remove(&(self.1.clone(), inode));
            return Ok(Outgoing::reply::<osd::Unlink>(&Default::default()));
        }
        Err(r.unknown(osd::Read::INTERFACE))
    }
}
