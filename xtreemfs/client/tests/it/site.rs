//! The real DIR, MRC and OSDs in one process, over in-memory streams.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use xtreemfs_client::{Client, Config, Member, Volume};
use xtreemfs_proto::dir::{Osd as OsdEntry, Volume as VolumeEntry};
use xtreemfs_proto::mrc::VolumeCreateRequest;
use xtreemfs_server::dir::{Dir, DirPolicy};
use xtreemfs_server::mrc::record::VolumeRecord;
use xtreemfs_server::mrc::{
    FileOpen, Mrc, MrcParts, OpenAudit, OsdChoice, OsdStatus, VolumePolicy,
};
use xtreemfs_server::osd::{NoKey, Osd, OsdParts, VolumeTrust, WriteVerifier};
use xtreemfs_server::{
    AuthError, Authenticator, Clock, Epochs, Identity, Peer, PublicKey, Role, Signer, SystemClock,
    VoName, VolumeId,
};

use crate::memory::{Memory, People};

pub const ALICE: Member = Member(7);
pub const BOB: Member = Member(8);
/// Group of everybody.
pub const MEMBERS: u32 = 1;
/// Group of ALICE only.
pub const ARTISTS: u32 = 2;

const VO: &str = "demo.rennes";
pub const VOLUME: &str = "demo.rennes";
const MRC: &str = "rennes";
const SPACE: u64 = 1 << 40;

/// What the servers ask their surroundings.
#[derive(Default)]
pub struct Surroundings {
    /// Least valid epoch by member; 1 where absent.
    pub epochs: Mutex<HashMap<u32, u64>>,
    /// OSDs that registered.
    pub osds: Mutex<Vec<String>>,
    /// How often somebody asked for them.
    pub asked: AtomicU64,
    /// Whether more of them may register yet.
    pub starting: AtomicBool,
    /// The barrier that OSDs go by.
    pub barrier: AtomicU64,
    /// The directory, which tells mounts of it.
    dir: Mutex<Option<Arc<Dir>>>,
    key: Mutex<Option<PublicKey>>,
    random: AtomicU64,
}

impl Epochs for Surroundings {
    fn least_valid(&self, vo: &str, member: u32) -> Option<u64> {
        let least = self.epochs.lock().unwrap().get(&member).copied().unwrap_or(1);
        (vo == VO).then_some(least)
    }
}

#[async_trait]
impl Authenticator for Surroundings {
    async fn authenticate(&self, ticket: &[u8], _: &Peer) -> Result<Identity, AuthError> {
        let number = ticket.try_into().map_err(|_| AuthError::Refused("no ticket".into()))?;
        let member = u32::from_le_bytes(number);
        let groups = if member == ALICE.0 { vec![MEMBERS, ARTISTS] } else { vec![MEMBERS] };
        let epoch = self.least_valid(VO, member).unwrap_or(1);
        let expires_ms = SystemClock.now_ms() + 600_000;
        Ok(Identity { vo: VO.into(), member, groups, admin: false, epoch, expires_ms })
    }
}

#[async_trait]
impl OsdChoice for Surroundings {
    fn osds(&self, _: &str, _: &str) -> Vec<OsdStatus> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let osds = self.osds.lock().unwrap();
        let status = |id: &String| OsdStatus {
            id: id.clone(),
            site: "rennes".into(),
            free_bytes: SPACE,
            total_bytes: SPACE,
        };
        osds.iter().map(status).collect()
    }

    fn settled(&self) -> bool {
        !self.starting.load(Ordering::SeqCst)
    }

    fn site_of(&self, _: &str) -> String {
        "rennes".into()
    }

    fn home_of(&self, _: &str, _: u32) -> Option<String> {
        Some("rennes".into())
    }

    fn stores(&self, _: &str, site: &str) -> bool {
        ["rennes", "pisa"].contains(&site)
    }

    fn raised(&self, volume: &VolumeRecord, number: u64, by: u32) {
        self.barrier.fetch_max(number, Ordering::SeqCst);
        let (vo, volume) = (volume.vo.clone(), volume.id.clone());
        let dir = self.dir.lock().unwrap();
        let dir = dir.as_ref().unwrap();
        dir.raise_barrier(&xtreemfs_proto::dir::Barrier { vo, volume, number }, Some(by));
    }

    async fn confirmed(&self, _: &VolumeRecord, _: u64, _: &[String]) -> Vec<String> {
        Vec::new()
    }
}

impl OpenAudit for Surroundings {
    fn wants(&self, _: &str) -> bool {
        false
    }

    fn opened(&self, _: FileOpen) {}
}

impl VolumePolicy for Surroundings {
    fn may_manage(&self, _: &Peer, _: &str) -> bool {
        true
    }
}

impl DirPolicy for Surroundings {
    fn may_register_volume(&self, _: &Peer, _: &VolumeEntry) -> bool {
        true
    }

    fn may_register_osd(&self, _: &Peer, _: &OsdEntry) -> bool {
        true
    }
}

#[async_trait]
impl VolumeTrust for Surroundings {
    async fn volume_key(&self, vo: &VoName, _: &VolumeId) -> Result<PublicKey, NoKey> {
        let key = *self.key.lock().unwrap();
        key.filter(|_| vo.as_str() == VO).ok_or(NoKey::NotServed)
    }

    fn barrier(&self, _: &VoName, _: &VolumeId) -> u64 {
        self.barrier.load(Ordering::SeqCst)
    }
}

/// A site with one volume.
pub struct Site {
    pub memory: Arc<Memory>,
    pub people: Arc<People>,
    pub surroundings: Arc<Surroundings>,
    /// How long the clients' operations may take.
    pub deadline: Duration,
    folder: tempfile::TempDir,
}

/// How a site is made.
#[derive(Clone, Copy)]
pub struct Shape {
    pub width: usize,
    pub stripe_size: u32,
    /// The OSDs' disks are full.
    pub full: bool,
    pub deadline: Duration,
}

impl Default for Shape {
    fn default() -> Shape {
        let deadline = xtreemfs_client::limits::OPERATION_DEADLINE;
        Shape { width: 2, stripe_size: 128 << 10, full: false, deadline }
    }
}

fn node() -> Peer {
    Peer { id: "n1.rennes".into(), key: String::new(), role: Role::Client }
}

pub fn mrc_peer() -> xtreemfs_client::Peer {
    xtreemfs_client::Peer::Mrc(MRC.into())
}

pub fn osd_peer(n: usize) -> xtreemfs_client::Peer {
    xtreemfs_client::Peer::Osd(format!("osd{n}").into())
}

impl Site {
    pub async fn start(shape: Shape) -> Site {
        let site = Site {
            memory: Arc::default(),
            people: People::new([ALICE.0, BOB.0]),
            surroundings: Arc::default(),
            deadline: shape.deadline,
            folder: tempfile::tempdir().unwrap(),
        };
        for n in 0..shape.width {
            site.surroundings.osds.lock().unwrap().push(format!("osd{n}"));
            site.serve_osd(n, if shape.full { u64::MAX / 2 } else { 0 }, 1);
        }
        let mrc = site.serve_mrc();
        let volume = mrc
            .create_volume(&VolumeCreateRequest {
                name: VOLUME.into(),
                vo: VO.into(),
                owner: ALICE.0,
                group: MEMBERS,
                mode: 0o1777,
                stripe_size: shape.stripe_size,
                width: shape.width as u32,
                osds: Vec::new(),
            })
            .await
            .unwrap();
        site.serve_dir(&volume.id).await;
        site
    }

    fn mrc_parts(&self) -> MrcParts {
        let around = self.surroundings.clone();
        let signer = Signer::from_seed(&[9; 32]).unwrap();
        *around.key.lock().unwrap() = Some(signer.public_key());
        let random = around.clone();
        MrcParts {
            signer,
            authenticator: around.clone(),
            epochs: around.clone(),
            osds: around.clone(),
            policy: around.clone(),
            opens: around.clone(),
            clock: Arc::new(SystemClock),
            checkpoint_bytes: xtreemfs_server::mrc::store::LOG_BYTES_CHECKPOINT,
            random: Box::new(move || {
                u128::from(random.random.fetch_add(1, Ordering::Relaxed)).to_be_bytes()
            }),
        }
    }

    /// Starts the MRC, or starts it again from what is on its disk.
    pub fn serve_mrc(&self) -> Arc<Mrc> {
        let mrc = Mrc::open(&self.folder.path().join("mrc"), self.mrc_parts()).unwrap();
        let served = mrc.clone();
        self.memory.serve(mrc_peer(), move || served.connection(node()));
        mrc
    }

    /// Starts the MRC again from its disk, as soon as the old one has let it go.
    pub async fn serve_mrc_again(&self) {
        while Mrc::open(&self.folder.path().join("mrc"), self.mrc_parts()).is_err() {
            tokio::task::yield_now().await;
        }
        self.serve_mrc();
    }

    /// Starts an OSD, or starts it again from its disk, in the `boot`th boot of its machine.
    pub fn serve_osd(&self, n: usize, reserve_bytes: u64, boot: u64) {
        let id = format!("osd{n}");
        let around = self.surroundings.clone();
        let parts = OsdParts {
            id: id.clone(),
            trust: around.clone(),
            epochs: around,
            clock: Arc::new(SystemClock),
            had_objects: false,
            reserve_bytes,
            verifier: WriteVerifier(boot),
        };
        let osd = Osd::open(&self.osd_folder(n), parts).unwrap();
        self.memory.serve(osd_peer(n), move || osd.connection(node()));
    }

    async fn serve_dir(&self, volume: &str) {
        let dir = Dir::new(self.surroundings.clone(), Arc::new(SystemClock));
        *self.surroundings.dir.lock().unwrap() = Some(dir.clone());
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let service = Peer { id: MRC.into(), key: String::new(), role: Role::Service };
        let connection = dir.connection(service);
        let serving = tokio::spawn(xtreemfs_proto::serve::serve(theirs, connection));
        let entry = VolumeEntry {
            id: volume.into(),
            name: VOLUME.into(),
            vo: VO.into(),
            mrc_address: MRC.into(),
            mrc_key: vec![0; 32].into(),
        };
        let request = xtreemfs_proto::dir::VolumeRegisterRequest { volume: Some(entry) };
        let channel = xtreemfs_proto::Channel::new(ours);
        channel
            .call::<xtreemfs_proto::dir::VolumeRegister>(
                None,
                &request,
                Default::default(),
                Duration::from_secs(5),
            )
            .await
            .unwrap();
        drop(channel);
        serving.await.unwrap().unwrap();
        let peer = xtreemfs_client::Peer::Dir("dir".into());
        self.memory.serve(peer, move || dir.connection(node()));
    }

    /// Where an OSD keeps its objects.
    pub fn osd_folder(&self, n: usize) -> std::path::PathBuf {
        self.folder.path().join(format!("osd{n}"))
    }

    /// The volume as one machine sees it; another call is another machine.
    pub async fn volume(&self) -> Volume {
        let config = Config { deadline: self.deadline, ..Config::new("dir") };
        let client = Client::new(config, self.memory.clone(), self.people.clone());
        client.volume(VOLUME).await.unwrap()
    }
}

/// How many bytes of objects lie under a folder; hidden files are none.
pub fn bytes_under(folder: &Path) -> u64 {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let metadata = entry.metadata().unwrap();
        sum += if metadata.is_dir() { bytes_under(&entry.path()) } else { metadata.len() };
    }
    sum
}
