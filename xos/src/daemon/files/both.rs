//! DIR and MRC on one stream of a node. A node hears only of VOs that its site serves.

use super::knowledge::Knowledge;
use prost::Message;
use std::sync::Arc;
use xos_base::{NodeId, VoId};
use xtreemfs_proto::dir::{Barriers, OsdList, OsdRegister, VolumeList, VolumeLookup};
use xtreemfs_proto::rpc::interface;
use xtreemfs_proto::{Errno, Handler, Incoming, Outgoing, Room, RpcError};
use xtreemfs_server::dir::DirConnection;
use xtreemfs_server::mrc::MrcConnection;
use xtreemfs_server::{Budget, Share};

/// See the module's text; told apart by the interface.
pub(super) struct Both {
    pub(super) dir: Arc<DirConnection>,
    pub(super) mrc: Arc<MrcConnection>,
    pub(super) node: NodeId,
    pub(super) knowledge: Arc<Knowledge>,
    pub(super) requests: Arc<Budget>,
    pub(super) share: Share,
}

impl Both {
    /// Refuses a question about a VO that the node's site does not serve. Where many are named,
    /// those are left out: a node hears late that its site serves one no more, and the others must
    /// not wait for that.
    fn may_look(&self, request: &mut Incoming) -> Result<(), RpcError> {
        let site = self.node.site();
        if request.is::<Barriers>() {
            let mut asked = request.request::<Barriers>()?;
            asked.vos.retain(|vo| self.is_served(vo));
            request.message = asked.encode_to_vec().into();
            return Ok(());
        }
        if request.is::<OsdRegister>() {
            let mut asked = request.request::<OsdRegister>()?;
            if let Some(osd) = &mut asked.osd {
                osd.vos.retain(|vo| self.knowledge.given(vo).contains_key(&site));
            }
            request.message = asked.encode_to_vec().into();
            return Ok(());
        }
        let vo = if request.is::<VolumeLookup>() {
            request.request::<VolumeLookup>()?.name
        } else if request.is::<VolumeList>() {
            request.request::<VolumeList>()?.vo
        } else if request.is::<OsdList>() {
            request.request::<OsdList>()?.vo
        } else {
            return Ok(());
        };
        if self.is_served(&vo) {
            return Ok(());
        }
        Err(RpcError::errno(Errno::ENOENT, format!("site {site} does not serve that VO")))
    }

    fn is_served(&self, vo: &str) -> bool {
        let vo = vo.parse::<VoId>();
        vo.is_ok_and(|vo| self.knowledge.serves(&vo, &self.node.site()))
    }
}

impl Handler for Both {
    fn data_bytes_max(&self) -> usize {
        0
    }

    async fn room(&self, bytes: usize) -> Room {
        self.requests.room(&self.share, bytes).await
    }

    async fn handle(&self, mut request: Incoming) -> Result<Outgoing, RpcError> {
        if request.interface == interface::DIR {
            self.may_look(&mut request)?;
            self.dir.handle(request).await
        } else {
            self.mrc.handle(request).await
        }
    }
}
