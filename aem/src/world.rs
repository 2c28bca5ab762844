//! What the job service asks of others: the VO service, the VO's home, other cores, its nodes.
//! One trait, so that tests put machines of their own in their place.

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use std::sync::Arc;
use tokio::sync::broadcast;
use xos_api::Done;
use xos_api::aem::{
    AckHosted, CancelHosted, Checkpoints, HostCheckpoints, HostEvents, HostItem, HostLeave,
    HostOutput, HostReply, HostUnits, OutputPart,
};
use xos_api::cda::{IssueMandate, IssueTicket, IssuedTicket, Mandate};
use xos_api::node::SetTicket;
use xos_api::node::sessions::{ListSessions, OpenSessions};
use xos_api::node::units::{
    EndEnvelope, Envelopes, KillUnits, ListEnvelopes, StartUnits, UnitOutput, UnitsTaken,
};
use xos_api::vom::{ErasedVo, ErasedVos, ServedVo, ServedVos, VoSnapshot, VoView};
use xos_base::when::Clock;
use xos_base::{Error, Membership, Millis, NodeId, SiteId, VoId};
use xos_net::{Clusters, Grid, NodeChange, Nodes, submission, ticket};

/// The rest of the world, for the job service.
#[async_trait]
pub trait World: Send + Sync + 'static {
    /// The VOs served here.
    async fn served(&self) -> Result<Vec<ServedVo>, Error>;
    /// The VOs that were served here and are erased.
    async fn erased(&self) -> Result<Vec<ErasedVo>, Error>;
    /// A VO as known here.
    async fn view(&self, vo: &VoId) -> Result<VoSnapshot, Error>;
    /// Checks a signed submission to this site; gives the digest of its job's description.
    ///
    /// # Errors
    /// What is wrong with it.
    fn check_submission(&self, jws: &str, vo: &VoId, now: Millis) -> Result<String, Error>;
    /// The mandate for a job, from the VO's home.
    async fn mandate(&self, request: IssueMandate) -> Result<String, Error>;
    /// Checks a mandate.
    ///
    /// # Errors
    /// What is wrong with it.
    fn check_mandate(&self, jws: &str, now: Millis) -> Result<Mandate, Error>;
    /// A ticket for a node, from the VO's home.
    async fn ticket(&self, home: &SiteId, request: IssueTicket) -> Result<IssuedTicket, Error>;
    /// Asks another core to run units.
    async fn host_units(&self, site: &SiteId, request: HostUnits) -> Result<HostReply, Error>;
    /// Asks another core to end units.
    async fn cancel_hosted(&self, site: &SiteId, request: CancelHosted) -> Result<Done, Error>;
    /// Reads output kept at another core's nodes.
    async fn host_output(&self, site: &SiteId, request: HostOutput) -> Result<OutputPart, Error>;
    /// Asks another core about checkpoints of units there.
    async fn host_checkpoints(
        &self,
        site: &SiteId,
        request: HostCheckpoints,
    ) -> Result<Checkpoints, Error>;
    /// Asks another core to let a unit there go.
    async fn host_leave(&self, site: &SiteId, request: HostLeave) -> Result<Done, Error>;
    /// Listens to another core.
    async fn host_events(
        &self,
        site: &SiteId,
        request: HostEvents,
    ) -> Result<BoxStream<'static, Result<HostItem, Error>>, Error>;
    /// Tells another core what is stored here.
    async fn ack_hosted(&self, site: &SiteId, request: AckHosted) -> Result<Done, Error>;
    /// The clusters of the site, if it can have any. By their ids they are reached as nodes are.
    fn clusters(&self) -> Option<&Arc<dyn Clusters>> {
        None
    }
    /// Nodes that come and go.
    fn node_changes(&self) -> broadcast::Receiver<NodeChange>;
    /// Whether a node is connected.
    fn is_connected(&self, node: &NodeId) -> bool;
    /// What a node has.
    async fn list_envelopes(&self, node: &NodeId) -> Result<Envelopes, Error>;
    /// Sends units to a node.
    async fn start_units(&self, node: &NodeId, request: StartUnits) -> Result<UnitsTaken, Error>;
    /// Ends units on a node.
    async fn kill_units(&self, node: &NodeId, request: KillUnits) -> Result<Done, Error>;
    /// Ends an envelope.
    async fn end_envelope(&self, node: &NodeId, request: EndEnvelope) -> Result<Done, Error>;
    /// Reads output on a node.
    async fn unit_output(&self, node: &NodeId, request: UnitOutput) -> Result<OutputPart, Error>;
    /// Renews a node's ticket.
    async fn set_ticket(&self, node: &NodeId, request: SetTicket) -> Result<Done, Error>;
    /// The sessions that are open on a node.
    async fn sessions(&self, node: &NodeId, request: ListSessions) -> Result<OpenSessions, Error>;
}

/// The real world: this core's [`Grid`] and [`Nodes`].
#[derive(Clone)]
pub struct GridWorld {
    grid: Grid,
    nodes: Nodes,
    clusters: Option<(Arc<dyn Clusters>, Arc<dyn Clock>)>,
}

impl GridWorld {
    /// Over the core's own connections.
    pub fn new(grid: Grid, nodes: Nodes) -> GridWorld {
        GridWorld { grid, nodes, clusters: None }
    }

    /// With clusters beside the nodes.
    #[must_use]
    pub fn with_clusters(self, clusters: Arc<dyn Clusters>, clock: Arc<dyn Clock>) -> GridWorld {
        GridWorld { clusters: Some((clusters, clock)), ..self }
    }

    /// The clusters, when it is one that is meant.
    fn cluster(&self, node: &NodeId) -> Option<&dyn Clusters> {
        let (clusters, _) = self.clusters.as_ref()?;
        let is_one = clusters.news().borrow().offers.contains_key(node);
        is_one.then_some(&**clusters)
    }

    /// Whom the ticket of an order to a cluster names.
    fn person(&self, cluster: &NodeId, order: &StartUnits) -> Result<Membership, Error> {
        let unknown = || Error::not_found(format!("there is no cluster {cluster} here"));
        let (clusters, clock) = self.clusters.as_ref().ok_or_else(unknown)?;
        let key = clusters.news().borrow().offers.get(cluster).map(|o| o.key.clone());
        let key = key.ok_or_else(unknown)?;
        let (trust, now) = (self.grid.trust(), clock.now());
        let shown = (cluster, key.as_str());
        let (member, _) = ticket::verify_ticket_of(trust, &order.ticket, shown, now)?;
        if member.vo != order.vo {
            return Err(Error::invalid("the ticket is for another VO than the units"));
        }
        Ok(member)
    }
}

#[async_trait]
impl World for GridWorld {
    async fn served(&self) -> Result<Vec<ServedVo>, Error> {
        self.grid.call(self.grid.site(), ServedVos {}).await
    }

    async fn erased(&self) -> Result<Vec<ErasedVo>, Error> {
        self.grid.call(self.grid.site(), ErasedVos {}).await
    }

    async fn view(&self, vo: &VoId) -> Result<VoSnapshot, Error> {
        self.grid.call(self.grid.site(), VoView { vo: vo.clone() }).await
    }

    fn check_submission(&self, jws: &str, vo: &VoId, now: Millis) -> Result<String, Error> {
        let (member, s) = submission::verify(self.grid.trust(), jws, now)?;
        if s.owner != *self.grid.site() || s.vo != *vo || member.vo != *vo {
            return Err(Error::unauthenticated(format!(
                "the signed submission is for {} at {}, not for {vo} at {}",
                s.vo,
                s.owner,
                self.grid.site()
            )));
        }
        Ok(s.digest)
    }

    async fn mandate(&self, request: IssueMandate) -> Result<String, Error> {
        self.grid.call(&request.vo.site(), request).await
    }

    fn check_mandate(&self, jws: &str, now: Millis) -> Result<Mandate, Error> {
        ticket::verify_mandate(self.grid.trust(), jws, now)
    }

    async fn ticket(&self, home: &SiteId, request: IssueTicket) -> Result<IssuedTicket, Error> {
        self.grid.call(home, request).await
    }

    async fn host_units(&self, site: &SiteId, request: HostUnits) -> Result<HostReply, Error> {
        self.grid.call(site, request).await
    }

    async fn cancel_hosted(&self, site: &SiteId, request: CancelHosted) -> Result<Done, Error> {
        self.grid.call(site, request).await
    }

    async fn host_output(&self, site: &SiteId, request: HostOutput) -> Result<OutputPart, Error> {
        self.grid.call(site, request).await
    }

    async fn host_checkpoints(
        &self,
        site: &SiteId,
        request: HostCheckpoints,
    ) -> Result<Checkpoints, Error> {
        self.grid.call(site, request).await
    }

    async fn host_leave(&self, site: &SiteId, request: HostLeave) -> Result<Done, Error> {
        self.grid.call(site, request).await
    }

    async fn host_events(
        &self,
        site: &SiteId,
        request: HostEvents,
    ) -> Result<BoxStream<'static, Result<HostItem, Error>>, Error> {
        self.grid.subscribe(site, request).await
    }

    async fn ack_hosted(&self, site: &SiteId, request: AckHosted) -> Result<Done, Error> {
        self.grid.call(site, request).await
    }

    fn clusters(&self) -> Option<&Arc<dyn Clusters>> {
        self.clusters.as_ref().map(|(clusters, _)| clusters)
    }

    fn node_changes(&self) -> broadcast::Receiver<NodeChange> {
        self.nodes.changes()
    }

    fn is_connected(&self, node: &NodeId) -> bool {
        self.cluster(node).is_some() || self.nodes.is_connected(node)
    }

    async fn list_envelopes(&self, node: &NodeId) -> Result<Envelopes, Error> {
        if let Some(clusters) = self.cluster(node) {
            return clusters.list_envelopes(node).await;
        }
        self.nodes.call(node, ListEnvelopes {}).await
    }

    async fn start_units(&self, node: &NodeId, request: StartUnits) -> Result<UnitsTaken, Error> {
        if let Some(clusters) = self.cluster(node) {
            let member = self.person(node, &request)?;
            return clusters.start_units(node, request, &member).await;
        }
        self.nodes.call(node, request).await
    }

    async fn kill_units(&self, node: &NodeId, request: KillUnits) -> Result<Done, Error> {
        if let Some(clusters) = self.cluster(node) {
            return clusters.kill_units(node, request).await;
        }
        self.nodes.call(node, request).await
    }

    async fn end_envelope(&self, node: &NodeId, request: EndEnvelope) -> Result<Done, Error> {
        if let Some(clusters) = self.cluster(node) {
            return clusters.end_envelope(node, request).await;
        }
        self.nodes.call(node, request).await
    }

    async fn unit_output(&self, node: &NodeId, request: UnitOutput) -> Result<OutputPart, Error> {
        if let Some(clusters) = self.cluster(node) {
            return clusters.unit_output(node, request).await;
        }
        self.nodes.call(node, request).await
    }

    async fn set_ticket(&self, node: &NodeId, request: SetTicket) -> Result<Done, Error> {
        self.nodes.call(node, request).await
    }

    async fn sessions(&self, node: &NodeId, request: ListSessions) -> Result<OpenSessions, Error> {
        if self.cluster(node).is_some() {
            // They are at its nodes, which are asked by themselves.
            return Ok(OpenSessions::default());
        }
        self.nodes.call(node, request).await
    }
}
