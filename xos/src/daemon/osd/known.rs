//! What an object server knows of VOs: which are stored here, their volumes' keys, their members.

use super::asking::Asking;
use super::barriers::Barriers;
use super::keys::Keys;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use xos_api::node::VolumeMount;
use xos_base::{Error, SiteId, VoId};
use xos_node::agent::Members;
use xtreemfs_proto::dir::Volume;
use xtreemfs_server::osd::{NoKey, VolumeTrust};
use xtreemfs_server::{Epochs, PublicKey, VoName, VolumeId};

/// How long a question to a home may take.
const ASK_LIMIT: Duration = Duration::from_secs(20);

/// The homes of VOs: only a VO's home says which volumes it has.
#[async_trait::async_trait]
pub trait Homes: Send + Sync + 'static {
    /// What the home of `vo` lists for it.
    async fn volumes_of(&self, home: &SiteId, vo: &VoName) -> Result<Vec<Volume>, Error>;
}

/// See the module's text.
pub struct Known {
    homes: Arc<dyn Homes>,
    keys: Arc<Keys>,
    /// Of the volumes.
    pub barriers: Barriers,
    asking: Arc<Asking>,
    members: RwLock<HashMap<String, Members>>,
    listed: RwLock<Listed>,
    /// Wakes who serves the homes, one.
    pub changed: Notify,
    /// Wakes those who register: whoever told of volumes may have started anew.
    pub told: Notify,
}

/// The volumes of this node.
#[derive(Default)]
struct Listed {
    volumes: Vec<VolumeMount>,
    /// Whether the core has told them since the start. Before, there may be others.
    told: bool,
}

impl Known {
    /// Knows the keys and barriers that are kept, and nothing else.
    pub fn new(homes: Arc<dyn Homes>, keys: Keys, barriers: Barriers) -> Known {
        Known {
            homes,
            keys: Arc::new(keys),
            barriers,
            asking: Arc::default(),
            members: RwLock::default(),
            listed: RwLock::default(),
            changed: Notify::new(),
            told: Notify::new(),
        }
    }

    fn listed(&self) -> RwLockReadGuard<'_, Listed> {
        self.listed.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn listed_mut(&self) -> RwLockWriteGuard<'_, Listed> {
        self.listed.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The volumes as the core told them before the start.
    pub fn volumes_kept(&self, volumes: &[VolumeMount]) {
        {
            let mut listed = self.listed_mut();
            if !listed.told {
                listed.volumes = volumes.to_vec();
            }
        }
        self.changed.notify_one();
    }

    /// The volumes as the core tells them now.
    pub fn volumes_told(&self, volumes: &[VolumeMount]) {
        *self.listed_mut() = Listed { volumes: volumes.to_vec(), told: true };
        self.changed.notify_one();
        self.told.notify_waiters();
    }

    /// The members of a VO: who may act, and who is out.
    pub fn members(&self, vo: &VoId, members: Members) {
        let mut all = self.members.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(vo.to_string(), members);
    }

    /// What is known of the members of a VO.
    fn of<T>(&self, vo: &str, look: impl FnOnce(&Members) -> T) -> Option<T> {
        self.members.read().unwrap_or_else(PoisonError::into_inner).get(vo).map(look)
    }

    /// The VOs whose objects are kept here, by home.
    pub fn homes(&self) -> BTreeMap<SiteId, Vec<VoId>> {
        let mut homes: BTreeMap<SiteId, Vec<VoId>> = BTreeMap::new();
        for v in self.listed().volumes.iter().filter(|v| v.store) {
            homes.entry(v.home.clone()).or_default().push(v.vo.clone());
        }
        homes
    }

    /// Asks `home` about its VOs that are stored here and of which it has not told since the start:
    /// keys that were kept may be old.
    pub async fn hear(&self, home: &SiteId) {
        for vo in self.homes().remove(home).unwrap_or_default() {
            let Some(vo) = VoName::parse(vo.as_str()) else { continue };
            if !self.asking.is_heard(&vo) {
                self.ask(&vo, home.clone(), Instant::now()).await;
            }
        }
    }

    /// The home of a VO that is stored here. Nobody else is asked: another home has no say in it,
    /// and cannot delay it.
    fn home_of(&self, vo: &VoName) -> Result<SiteId, NoKey> {
        let listed = self.listed();
        let stored = listed.volumes.iter().find(|v| v.store && v.vo.as_str() == vo.as_str());
        match stored {
            Some(v) => Ok(v.home.clone()),
            None if listed.told => Err(NoKey::NotServed),
            None => Err(NoKey::NotYet),
        }
    }

    /// Asks the home of `vo`, if it is the time; whether it told of volumes. The question goes on
    /// when the caller does not wait for its end, so that no hurried caller uses up the turns.
    async fn ask(&self, vo: &VoName, home: SiteId, now: Instant) -> bool {
        let Some(question) = self.asking.begin(vo, now) else { return false };
        let served: HashSet<VoName> =
            self.listed().volumes.iter().filter_map(|v| VoName::parse(v.vo.as_str())).collect();
        let (homes, keys, asking) = (self.homes.clone(), self.keys.clone(), self.asking.clone());
        let vo = vo.clone();
        let asked = tokio::spawn(async move {
            let late = |_| Err(Error::unavailable("no answer in time"));
            let answer = tokio::time::timeout(ASK_LIMIT, homes.volumes_of(&home, &vo)).await;
            let heard = match answer.unwrap_or_else(late) {
                Ok(listed) => keys.learn(&vo, listed),
                Err(e) => {
                    tracing::warn!(%vo, error = %e, "a VO's volumes are not known");
                    false
                }
            };
            if heard {
                asking.heard(&vo);
                match tokio::task::spawn_blocking(move || keys.keep(&served)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(e)) => tracing::warn!(error = %e, "keys of volumes are not kept"),
                    Err(e) => tracing::error!(error = %e, "keys of volumes are not kept"),
                }
            }
            drop(question);
            heard
        });
        asked.await.unwrap_or(false)
    }

    async fn key_at(
        &self,
        vo: &VoName,
        volume: &VolumeId,
        now: Instant,
    ) -> Result<PublicKey, NoKey> {
        if let Some(key) = self.keys.find(vo, volume) {
            return Ok(key);
        }
        let home = self.home_of(vo)?;
        let heard = self.ask(vo, home, now).await;
        // Without an answer of now the id may be a new one.
        let unknown = if heard { NoKey::NotServed } else { NoKey::NotYet };
        self.keys.find(vo, volume).ok_or(unknown)
    }
}

#[async_trait::async_trait]
impl VolumeTrust for Known {
    async fn volume_key(&self, vo: &VoName, volume: &VolumeId) -> Result<PublicKey, NoKey> {
        self.key_at(vo, volume, Instant::now()).await
    }

    fn barrier(&self, vo: &VoName, volume: &VolumeId) -> u64 {
        self.barriers.find(vo, volume)
    }
}

impl Epochs for Known {
    fn least_valid(&self, vo: &str, member: u32) -> Option<u64> {
        self.of(vo, |members| members.acting.get(&member).copied()).flatten()
    }

    fn has_left(&self, vo: &str, member: u32) -> bool {
        self.of(vo, |members| members.has_left(member)).unwrap_or(false)
    }
}

#[cfg(test)]
mod tests;
