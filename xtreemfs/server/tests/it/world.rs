//! A small world: one MRC, two OSDs, people with tickets.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use xtreemfs_proto::mrc::*;
use xtreemfs_proto::rpc::{Authenticate, AuthenticateRequest, ConnectRequest};
use xtreemfs_proto::serve::serve;
use xtreemfs_proto::{Channel, Errno, Procedure, RpcError};
use xtreemfs_server::mrc::{Mrc, MrcParts};
use xtreemfs_server::osd::{Osd, OsdParts, WriteVerifier};
use xtreemfs_server::{Peer, Role, Signer};

pub use crate::surroundings::Surroundings;

pub const LONG: Duration = Duration::from_secs(60);
pub const STRIPE: u32 = 4096;
/// Present time at the start of each test.
pub const START_MS: u64 = 1_800_000_000_000;
pub const SEED: [u8; 32] = [7; 32];
/// A VO whose home the OSDs did not hear yet.
pub const UNHEARD: &str = "unheard";

pub fn peer(id: &str, role: Role) -> Peer {
    Peer { id: id.into(), key: String::new(), role }
}

pub fn open_mrc(dir: &Path, around: &Arc<Surroundings>, checkpoint_bytes: u64) -> Arc<Mrc> {
    let random = AtomicU8::new(9);
    let parts = MrcParts {
        signer: Signer::from_seed(&SEED).unwrap(),
        authenticator: around.clone(),
        epochs: around.clone(),
        osds: around.clone(),
        policy: around.clone(),
        opens: around.clone(),
        clock: around.clone(),
        random: Box::new(move || [random.fetch_add(1, Ordering::SeqCst); 16]),
        checkpoint_bytes,
    };
    Mrc::open(dir, parts).unwrap()
}

pub fn open_osd(dir: &Path, around: &Arc<Surroundings>, id: &str, reserve_bytes: u64) -> Arc<Osd> {
    open_osd_in_boot(dir, around, id, reserve_bytes, 1)
}

/// The same on a machine that was started for the `boot`th time.
pub fn open_osd_in_boot(
    dir: &Path,
    around: &Arc<Surroundings>,
    id: &str,
    reserve_bytes: u64,
    boot: u64,
) -> Arc<Osd> {
    let parts = OsdParts {
        id: id.into(),
        trust: around.clone(),
        epochs: around.clone(),
        clock: around.clone(),
        had_objects: dir.exists(),
        reserve_bytes,
        verifier: WriteVerifier(boot),
    };
    Osd::open(dir, parts).unwrap()
}

/// A stream to a server, over memory.
pub fn connect<H: xtreemfs_proto::Handler>(handler: Arc<H>) -> Channel {
    let (near, far) = tokio::io::duplex(1 << 16);
    tokio::spawn(async move { serve(far, handler).await.unwrap() });
    Channel::new(near)
}

/// A stream to a server that its client has opened; each is a client of its own.
async fn opened<H, P>(handler: Arc<H>) -> Channel
where
    H: xtreemfs_proto::Handler,
    P: Procedure<Request = ConnectRequest>,
{
    static LAST: AtomicU64 = AtomicU64::new(0);
    let instance = u128::from(LAST.fetch_add(1, Ordering::SeqCst)).to_le_bytes();
    let channel = connect(handler);
    let request = ConnectRequest { instance: Bytes::copy_from_slice(&instance), number: 1 };
    call::<P>(&channel, None, request).await.unwrap();
    channel
}

pub async fn connect_mrc(mrc: &Arc<Mrc>, peer_id: &str) -> Channel {
    opened::<_, Connect>(mrc.connection(peer(peer_id, Role::Client))).await
}

pub async fn connect_osd(osd: &Arc<Osd>, peer_id: &str) -> Channel {
    let handler = osd.connection(peer(peer_id, Role::Client));
    opened::<_, xtreemfs_proto::osd::Connect>(handler).await
}

/// One call; the server's refusal if it refuses.
pub async fn call<P: Procedure>(
    channel: &Channel,
    slot: Option<u32>,
    request: P::Request,
) -> Result<P::Reply, RpcError> {
    match channel.call::<P>(slot, &request, Bytes::new(), LONG).await {
        Ok((reply, _)) => Ok(reply),
        Err(error) => Err(error.refusal().unwrap_or_else(|| panic!("{error}")).clone()),
    }
}

pub struct World {
    pub around: Arc<Surroundings>,
    pub mrc: Arc<Mrc>,
    pub osds: Vec<Arc<Osd>>,
    pub dir: TempDir,
    /// Volume id; its root is owned by member 1 of group 100, mode 0777.
    pub volume: String,
}

impl World {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let around = Surroundings::new();
        let mrc = open_mrc(&dir.path().join("mrc"), &around, 1 << 20);
        let osd = |id: &str| open_osd(&dir.path().join(id), &around, id, 0);
        let osds = vec![osd("osd-a"), osd("osd-b")];
        let volume = mrc.create_volume(&volume_request("home")).await.unwrap().id;
        around.learn("demo", &volume, mrc.public_key());
        Self { around, mrc, osds, dir, volume }
    }

    pub async fn mrc_channel(&self, peer_id: &str) -> Channel {
        connect_mrc(&self.mrc, peer_id).await
    }

    pub async fn osd_channel(&self, index: usize, peer_id: &str) -> Channel {
        connect_osd(&self.osds[index], peer_id).await
    }

    /// A person on machine `node-1`.
    pub async fn person(&self, member: u32, groups: &str, admin: bool) -> Person {
        let channel = self.mrc_channel("node-1").await;
        let slot = sign_in(&channel, &ticket("demo", member, groups, admin)).await.unwrap();
        Person { channel, slot, volume: self.volume.clone() }
    }
}

pub fn volume_request(name: &str) -> VolumeCreateRequest {
    VolumeCreateRequest {
        name: name.into(),
        vo: "demo".into(),
        owner: 1,
        group: 100,
        mode: 0o777,
        stripe_size: STRIPE,
        width: 2,
        osds: Vec::new(),
    }
}

pub fn ticket(vo: &str, member: u32, groups: &str, admin: bool) -> String {
    let admin = if admin { "admin" } else { "-" };
    format!("{vo} {member} {groups} {admin} 1 {}", START_MS + 900_000)
}

pub async fn sign_in(channel: &Channel, ticket: &str) -> Result<u32, RpcError> {
    let ticket = Bytes::copy_from_slice(ticket.as_bytes());
    let request = AuthenticateRequest { ticket, replace: None };
    Ok(call::<Authenticate>(channel, None, request).await?.slot)
}

/// Somebody with a slot, and short ways to say what she does.
pub struct Person {
    pub channel: Channel,
    pub slot: u32,
    pub volume: String,
}

pub fn b(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

impl Person {
    pub async fn call<P: Procedure>(&self, request: P::Request) -> Result<P::Reply, Errno> {
        call::<P>(&self.channel, Some(self.slot), request).await.map_err(|error| error.errno)
    }

    pub fn at(&self, parent: u64, name: &str) -> NameRequest {
        NameRequest { volume: self.volume.clone(), parent, name: b(name) }
    }

    pub fn inode(&self, inode: u64) -> InodeRequest {
        InodeRequest { volume: self.volume.clone(), inode }
    }

    pub async fn lookup(&self, parent: u64, name: &str) -> Result<Attr, Errno> {
        Ok(self.call::<Lookup>(self.at(parent, name)).await?.attr.unwrap())
    }

    pub async fn getattr(&self, inode: u64) -> Result<Attr, Errno> {
        Ok(self.call::<Getattr>(self.inode(inode)).await?.attr.unwrap())
    }

    pub async fn mkdir(&self, parent: u64, name: &str, mode: u32) -> Result<Attr, Errno> {
        let request = MkdirRequest { volume: self.volume.clone(), parent, name: b(name), mode };
        Ok(self.call::<Mkdir>(request).await?.attr.unwrap())
    }

    pub async fn create(
        &self,
        parent: u64,
        name: &str,
        mode: u32,
        flags: u32,
    ) -> Result<OpenReply, Errno> {
        let (volume, name) = (self.volume.clone(), b(name));
        self.call::<Create>(CreateRequest { volume, parent, name, mode, flags }).await
    }

    /// Makes a file; its inode number.
    pub async fn file(&self, parent: u64, name: &str, mode: u32) -> Result<u64, Errno> {
        let flags = open_flags::READ | open_flags::WRITE | open_flags::EXCLUSIVE;
        Ok(self.create(parent, name, mode, flags).await?.attr.unwrap().inode)
    }

    pub async fn open(&self, inode: u64, flags: u32) -> Result<OpenReply, Errno> {
        self.call::<Open>(OpenRequest { volume: self.volume.clone(), inode, flags }).await
    }

    pub async fn unlink(&self, parent: u64, name: &str) -> Result<UnlinkReply, Errno> {
        self.call::<Unlink>(self.at(parent, name)).await
    }

    pub async fn rmdir(&self, parent: u64, name: &str) -> Result<(), Errno> {
        self.call::<Rmdir>(self.at(parent, name)).await.map(drop)
    }

    pub async fn rename(
        &self,
        (parent, name): (u64, &str),
        (new_parent, new_name): (u64, &str),
        flags: u32,
    ) -> Result<RenameReply, Errno> {
        let (name, new_name) = (b(name), b(new_name));
        let volume = self.volume.clone();
        let request = RenameRequest { volume, parent, name, new_parent, new_name, flags };
        self.call::<Rename>(request).await
    }

    pub fn change(&self, inode: u64) -> SetattrRequest {
        SetattrRequest { volume: self.volume.clone(), inode, ..Default::default() }
    }

    pub async fn chmod(&self, inode: u64, mode: u32) -> Result<Attr, Errno> {
        let request = SetattrRequest { mode: Some(mode), ..self.change(inode) };
        Ok(self.call::<Setattr>(request).await?.attr.unwrap())
    }

    pub async fn chown(
        &self,
        inode: u64,
        owner: Option<u32>,
        group: Option<u32>,
    ) -> Result<Attr, Errno> {
        let request = SetattrRequest { owner, group, ..self.change(inode) };
        Ok(self.call::<Setattr>(request).await?.attr.unwrap())
    }

    pub async fn list(&self, inode: u64, cookie: u64, limit: u32) -> Result<ReaddirReply, Errno> {
        let volume = self.volume.clone();
        self.call::<Readdir>(ReaddirRequest { volume, inode, cookie, limit }).await
    }

    pub async fn truncate(
        &self,
        inode: u64,
        size: u64,
        capability: Bytes,
    ) -> Result<OpenReply, Errno> {
        let volume = self.volume.clone();
        self.call::<Truncate>(TruncateRequest { volume, inode, size, capability }).await
    }

    pub async fn commit(&self, capability: Bytes, size: u64) -> Result<SizeCommitReply, Errno> {
        let request = SizeCommitRequest { capability, size, mtime_ns: 1 };
        self.call::<SizeCommit>(request).await
    }
}

/// Some other MRC.
pub fn foreign_signer() -> Signer {
    Signer::from_seed(&[8; 32]).unwrap()
}
