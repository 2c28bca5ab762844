//! What the servers of these tests are told by their surroundings.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use xtreemfs_server::mrc::record::VolumeRecord;
use xtreemfs_server::mrc::{FileOpen, OpenAudit, OsdChoice, OsdStatus, VolumePolicy};
use xtreemfs_server::osd::{NoKey, VolumeTrust};
use xtreemfs_server::{
    AuthError, Authenticator, Clock, Epochs, Identity, Peer, PublicKey, VoName, VolumeId,
};

use crate::world::{START_MS, UNHEARD};

/// A clock that stands still until the test moves it.
#[derive(Debug)]
pub struct TestClock(AtomicU64);

impl TestClock {
    pub fn forward(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// What the servers are told by their surroundings.
pub struct Surroundings {
    pub clock: TestClock,
    pub least_epochs: Mutex<HashMap<u32, u64>>,
    /// Members of any VO who are out, and whether for good.
    pub out: Mutex<HashMap<u32, bool>>,
    /// By VO and volume.
    pub volume_keys: Mutex<HashMap<(VoName, VolumeId), PublicKey>>,
    /// The barrier that OSDs go by, and whether they hear of it.
    pub barrier: AtomicU64,
    pub deaf: AtomicBool,
    /// Whether opens are told, and those that were.
    pub wants_opens: AtomicBool,
    pub opens: Mutex<Vec<FileOpen>>,
}

impl Surroundings {
    /// What a VO's own services say: that it has a volume, and with which key.
    pub fn learn(&self, vo: &str, volume: &str, key: PublicKey) {
        let place = (VoName::parse(vo).unwrap(), VolumeId::parse(volume).unwrap());
        self.volume_keys.lock().unwrap().insert(place, key);
    }

    pub fn new() -> Arc<Self> {
        let clock = TestClock(AtomicU64::new(START_MS));
        Arc::new(Self {
            clock,
            least_epochs: Mutex::default(),
            out: Mutex::default(),
            volume_keys: Mutex::default(),
            barrier: AtomicU64::new(0),
            deaf: AtomicBool::new(false),
            wants_opens: AtomicBool::new(false),
            opens: Mutex::default(),
        })
    }
}

impl Clock for Surroundings {
    fn now(&self) -> Duration {
        self.clock.now()
    }
}

impl Epochs for Surroundings {
    fn least_valid(&self, vo: &str, member: u32) -> Option<u64> {
        let known = vo == "demo" || vo == "other";
        let known = known && !self.out.lock().unwrap().contains_key(&member);
        known.then(|| self.least_epochs.lock().unwrap().get(&member).copied().unwrap_or(1))
    }

    fn has_left(&self, _vo: &str, member: u32) -> bool {
        self.out.lock().unwrap().get(&member) == Some(&true)
    }
}

/// A ticket of these tests: `vo member groups admin epoch expires_ms`, blank-separated.
#[async_trait]
impl Authenticator for Surroundings {
    async fn authenticate(&self, ticket: &[u8], _peer: &Peer) -> Result<Identity, AuthError> {
        let text = std::str::from_utf8(ticket).unwrap_or_default();
        let parts: Vec<&str> = text.split(' ').collect();
        let &[vo, member, groups, admin, epoch, expires] = &parts[..] else {
            return Err(AuthError::Refused("not a ticket".into()));
        };
        Ok(Identity {
            vo: vo.into(),
            member: member.parse().unwrap(),
            groups: groups.split(',').map(|group| group.parse().unwrap()).collect(),
            admin: admin == "admin",
            epoch: epoch.parse().unwrap(),
            expires_ms: expires.parse().unwrap(),
        })
    }
}

#[async_trait]
impl OsdChoice for Surroundings {
    fn osds(&self, _volume: &str, _vo: &str) -> Vec<OsdStatus> {
        let osd = |id: &str| OsdStatus {
            id: id.into(),
            site: self.site_of(id),
            free_bytes: 1 << 40,
            total_bytes: 1 << 41,
        };
        vec![osd("osd-a"), osd("osd-b")]
    }

    fn settled(&self) -> bool {
        true
    }

    /// `osd-a` stands at the site `a`.
    fn site_of(&self, osd: &str) -> String {
        osd.strip_prefix("osd-").unwrap_or_default().into()
    }

    /// Of even members the site `b`, of others nobody knows it.
    fn home_of(&self, _vo: &str, member: u32) -> Option<String> {
        member.is_multiple_of(2).then(|| "b".into())
    }

    fn stores(&self, _vo: &str, site: &str) -> bool {
        ["a", "b", "c"].contains(&site)
    }

    fn raised(&self, _volume: &VolumeRecord, barrier: u64, _by: u32) {
        if !self.deaf.load(Ordering::SeqCst) {
            self.barrier.fetch_max(barrier, Ordering::SeqCst);
        }
    }

    async fn confirmed(
        &self,
        _volume: &VolumeRecord,
        barrier: u64,
        _also: &[String],
    ) -> Vec<String> {
        let behind = self.barrier.load(Ordering::SeqCst) < barrier;
        if behind { vec!["osd-a".into(), "osd-b".into()] } else { Vec::new() }
    }
}

impl OpenAudit for Surroundings {
    fn wants(&self, _vo: &str) -> bool {
        self.wants_opens.load(Ordering::SeqCst)
    }

    fn opened(&self, open: FileOpen) {
        self.opens.lock().unwrap().push(open);
    }
}

impl VolumePolicy for Surroundings {
    fn may_manage(&self, _peer: &Peer, vo: &str) -> bool {
        vo == "demo"
    }
}

#[async_trait]
impl VolumeTrust for Surroundings {
    async fn volume_key(&self, vo: &VoName, volume: &VolumeId) -> Result<PublicKey, NoKey> {
        let key = self.volume_keys.lock().unwrap().get(&(vo.clone(), volume.clone())).copied();
        key.ok_or(if vo.as_str() == UNHEARD { NoKey::NotYet } else { NoKey::NotServed })
    }

    fn barrier(&self, _vo: &VoName, _volume: &VolumeId) -> u64 {
        self.barrier.load(Ordering::SeqCst)
    }
}
