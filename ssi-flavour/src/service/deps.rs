//! What the service works with: nodes, machines, VOs, records.

use super::Records;
use crate::wire::{
    ClusterForget, ClusterOutput, ClusterSignal, ClusterTell, ClusterWhy, Obstacles,
};
use async_trait::async_trait;
use std::sync::Arc;
use xos_api::Done;
use xos_api::aem::OutputPart;
use xos_api::cda::{IssueTicket, IssuedTicket};
use xos_api::vom::ServedVo;
use xos_base::when::Clock;
use xos_base::{Error, NodeId, SiteId};
use xos_net::{Audit, Rules, Standing};

/// How nodes of the site are reached.
#[async_trait]
pub trait NodesOut: Send + Sync {
    /// Tells a node what the controller decided.
    ///
    /// # Errors
    /// That it is not connected, or what it says.
    async fn tell(&self, node: &NodeId, r: ClusterTell) -> Result<Done, Error>;
    /// Sends a signal to a process there.
    ///
    /// # Errors
    /// As [`NodesOut::tell`].
    async fn signal(&self, node: &NodeId, r: ClusterSignal) -> Result<Done, Error>;
    /// Asks what keeps a tree from moving.
    ///
    /// # Errors
    /// As [`NodesOut::tell`].
    async fn why(&self, node: &NodeId, r: ClusterWhy) -> Result<Obstacles, Error>;
    /// Reads what a tree wrote.
    ///
    /// # Errors
    /// As [`NodesOut::tell`].
    async fn output(&self, node: &NodeId, r: ClusterOutput) -> Result<OutputPart, Error>;
    /// Has what trees wrote removed.
    ///
    /// # Errors
    /// As [`NodesOut::tell`].
    async fn forget(&self, node: &NodeId, r: ClusterForget) -> Result<Done, Error>;
}

#[async_trait]
impl NodesOut for xos_net::Nodes {
    async fn tell(&self, node: &NodeId, r: ClusterTell) -> Result<Done, Error> {
        self.call(node, r).await
    }

    async fn signal(&self, node: &NodeId, r: ClusterSignal) -> Result<Done, Error> {
        self.call(node, r).await
    }

    async fn why(&self, node: &NodeId, r: ClusterWhy) -> Result<Obstacles, Error> {
        self.call(node, r).await
    }

    async fn output(&self, node: &NodeId, r: ClusterOutput) -> Result<OutputPart, Error> {
        self.call(node, r).await
    }

    async fn forget(&self, node: &NodeId, r: ClusterForget) -> Result<Done, Error> {
        self.call(node, r).await
    }
}

/// The VOs that the site serves, and their homes.
#[async_trait]
pub trait Vos: Send + Sync {
    /// Those to which it has offered a share.
    ///
    /// # Errors
    /// That this is not known now.
    async fn served(&self) -> Result<Vec<ServedVo>, Error>;
    /// A node's right to act for a person, from the home of their VO.
    ///
    /// # Errors
    /// What the home says, or that it does not answer.
    async fn ticket(&self, home: &SiteId, r: IssueTicket) -> Result<IssuedTicket, Error>;
}

#[async_trait]
impl Vos for xos_net::Grid {
    async fn served(&self) -> Result<Vec<ServedVo>, Error> {
        self.call(self.site(), xos_api::vom::ServedVos {}).await
    }

    async fn ticket(&self, home: &SiteId, r: IssueTicket) -> Result<IssuedTicket, Error> {
        self.call(home, r).await
    }
}

/// The machines of the site.
#[async_trait]
pub trait Machines: Send + Sync {
    /// Whether a node has this name, whether it is heard or not.
    ///
    /// # Errors
    /// That this is not known now.
    async fn has(&self, node: &NodeId) -> Result<bool, Error>;
}

/// What the service works with.
pub struct Deps {
    /// The site.
    pub site: SiteId,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where clusters are kept.
    pub records: Arc<dyn Records>,
    /// The nodes.
    pub nodes: Arc<dyn NodesOut>,
    /// The site's machines.
    pub machines: Arc<dyn Machines>,
    /// The VOs.
    pub vos: Arc<dyn Vos>,
    /// The rules of VOs and site.
    pub rules: Arc<dyn Rules>,
    /// Who is a member.
    pub standing: Arc<dyn Standing>,
    /// The site's audit.
    pub audit: Arc<dyn Audit>,
}
