//! Directory service: which volumes and OSDs there are, and where.
//!
//! It holds nothing that is not told again: MRCs and OSDs register at start and at each interval,
//! so a restarted directory is complete after one interval, and nothing of it is kept on disk.

mod barriers;
mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use xtreemfs_proto::dir::{
    Barriers as BarriersProc, Osd, OsdList, OsdListReply, OsdRegister, RegisterReply, Volume,
    VolumeList, VolumeListReply, VolumeLookup, VolumeRegister, VolumeUnregister,
};
use xtreemfs_proto::rpc::{Empty, interface};
use xtreemfs_proto::{Errno, Handler, Incoming, Outgoing, Procedure, RpcError};

use crate::identity::{Peer, Role};
use crate::time::Clock;

use barriers::Barriers;
pub use barriers::{ASKED_MAX, OWNERS_PAUSE_MAX, PAUSE, WAIT_MAX};
use state::State;
pub use state::{OSD_VOS_MAX, OSDS_MAX, OSDS_PER_SITE_MAX, VOLUMES_MAX};

/// How often services repeat their registration.
pub const REPEAT_INTERVAL: Duration = Duration::from_secs(15);
/// A directory that has run for this long knows who is there: an interval, and what a registration
/// may take. Shorter than clients wait for a file to be created.
pub const SETTLED_AFTER: Duration = Duration::from_secs(20);
/// An OSD or volume not heard of for this long is no longer listed.
pub const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Knows which peers may register what. Asked only about peers that are services.
pub trait DirPolicy: Send + Sync + 'static {
    /// Whether `peer` runs the MRC of this volume.
    fn may_register_volume(&self, peer: &Peer, volume: &Volume) -> bool;

    /// Whether `peer` speaks for this OSD, at this address, for these VOs.
    fn may_register_osd(&self, peer: &Peer, osd: &Osd) -> bool;

    /// The site of `peer`: of the list of OSDs each has a share. Unless told, each peer is its own.
    fn site_of(&self, peer: &Peer) -> String {
        peer.id.clone()
    }
}

/// A directory server.
pub struct Dir {
    state: Mutex<State>,
    barriers: Barriers,
    policy: Arc<dyn DirPolicy>,
    clock: Arc<dyn Clock>,
    since_ms: u64,
}

impl std::fmt::Debug for Dir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dir").finish_non_exhaustive()
    }
}

impl Dir {
    /// An empty directory.
    pub fn new(policy: Arc<dyn DirPolicy>, clock: Arc<dyn Clock>) -> Arc<Self> {
        let since_ms = clock.now_ms();
        let (state, barriers) = Default::default();
        Arc::new(Self { state, barriers, policy, clock, since_ms })
    }

    /// Whether everybody had the time to register since the start.
    pub fn is_settled(&self) -> bool {
        let age_ms = self.clock.now_ms().saturating_sub(self.since_ms);
        u128::from(age_ms) >= SETTLED_AFTER.as_millis()
    }

    /// The handler for one connection from `peer`.
    pub fn connection(self: &Arc<Self>, peer: Peer) -> Arc<DirConnection> {
        Arc::new(DirConnection { dir: self.clone(), peer })
    }

    /// The OSDs heard of lately that serve `vo` (all for an empty one), sorted by id: as many as
    /// fit into one answer.
    pub fn osds(&self, vo: &str) -> Vec<Osd> {
        self.lock().osds(vo, self.clock.now_ms())
    }

    /// Shows each OSD heard of lately that serves `vo`, and its site; `show` must not wait.
    pub fn each_osd(&self, vo: &str, show: impl FnMut(&str, &Osd)) {
        self.lock().each_osd(vo, self.clock.now_ms(), show);
    }

    /// The volumes of `vo` (all for an empty one), sorted by name.
    pub fn volumes(&self, vo: &str) -> Vec<Volume> {
        self.lock().volumes(vo, self.clock.now_ms())
    }

    /// Refuses what is no OSD heard of lately.
    fn lists_osd(&self, id: &str) -> Result<(), RpcError> {
        if self.lock().has_osd(id, self.clock.now_ms()) {
            return Ok(());
        }
        let text = format!("no OSD {id} is registered: register it first");
        Err(RpcError::errno(Errno::ENOENT, text))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection to a directory.
#[derive(Debug)]
pub struct DirConnection {
    dir: Arc<Dir>,
    peer: Peer,
}

impl Handler for DirConnection {
    fn data_bytes_max(&self) -> usize {
        0
    }

    async fn handle(&self, incoming: Incoming) -> Result<Outgoing, RpcError> {
        if incoming.interface != interface::DIR {
            return Err(incoming.unknown(interface::DIR));
        }
        let now_ms = self.dir.clock.now_ms();
        match incoming.proc {
            VolumeLookup::PROC => {
                let request = incoming.request::<VolumeLookup>()?;
                let volume = self.dir.lock().volume(&request.name, now_ms)?;
                Ok(Outgoing::reply::<VolumeLookup>(&volume))
            }
            VolumeList::PROC => {
                let volumes = self.dir.volumes(&incoming.request::<VolumeList>()?.vo);
                Ok(Outgoing::reply::<VolumeList>(&VolumeListReply { volumes }))
            }
            OsdList::PROC => {
                let osds = self.dir.osds(&incoming.request::<OsdList>()?.vo);
                Ok(Outgoing::reply::<OsdList>(&OsdListReply { osds }))
            }
            BarriersProc::PROC => {
                let request = incoming.request::<BarriersProc>()?;
                Ok(Outgoing::reply::<BarriersProc>(&self.barriers(&request).await?))
            }
            VolumeRegister::PROC => {
                let volume = incoming.request::<VolumeRegister>()?.volume.unwrap_or_default();
                self.need(self.dir.policy.may_register_volume(&self.peer, &volume))?;
                self.dir.lock().register_volume(volume, &self.peer.id, now_ms)?;
                Ok(Outgoing::reply::<VolumeRegister>(&repeat()))
            }
            VolumeUnregister::PROC => {
                let id = incoming.request::<VolumeUnregister>()?.id;
                self.need(true)?;
                self.dir.lock().unregister_volume(&id, &self.peer.id)?;
                Ok(Outgoing::reply::<VolumeUnregister>(&Empty {}))
            }
            OsdRegister::PROC => {
                let osd = incoming.request::<OsdRegister>()?.osd.unwrap_or_default();
                self.need(self.dir.policy.may_register_osd(&self.peer, &osd))?;
                let site = self.dir.policy.site_of(&self.peer);
                self.dir.lock().register_osd(
                    osd,
                    (self.peer.id.as_str(), site.as_str()),
                    now_ms,
                )?;
                Ok(Outgoing::reply::<OsdRegister>(&repeat()))
            }
            _ => Err(incoming.unknown(interface::DIR)),
        }
    }
}

impl DirConnection {
    fn need(&self, allowed: bool) -> Result<(), RpcError> {
        if allowed && self.peer.role == Role::Service {
            return Ok(());
        }
        let text = format!("peer {} may not register this", self.peer.id);
        Err(RpcError::errno(Errno::EPERM, text))
    }
}

fn repeat() -> RegisterReply {
    RegisterReply { repeat_ms: REPEAT_INTERVAL.as_millis() as u64 }
}
