//! The real world over TLS, with nodes in process.

use crate::node::{Envelope, Node};
use crate::world::Inner;
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream::BoxStream;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::broadcast;
use xos_aem::world::{GridWorld, World};
use xos_api::Done;
use xos_api::aem::*;
use xos_api::cda::{IssueMandate, IssueTicket, IssuedTicket, Mandate};
use xos_api::node::SetTicket;
use xos_api::node::sessions::{ListSessions, OpenSession, OpenSessions};
use xos_api::node::units::*;
use xos_api::vom::{ErasedVo, ServedVo, VoSnapshot};
use xos_base::{Error, Millis, NodeId, SiteId, VoId};
use xos_net::NodeChange;

/// The real world, with nodes in process.
pub struct TestWorld {
    pub grid: GridWorld,
    pub nodes: BTreeMap<NodeId, Arc<Node>>,
    pub changes: broadcast::Sender<NodeChange>,
    pub site: std::sync::Weak<Inner>,
}

impl TestWorld {
    fn node(&self, node: &NodeId) -> Result<Arc<Node>, Error> {
        self.nodes.get(node).cloned().ok_or_else(|| Error::unavailable("no such node"))
    }

    fn report(&self, node: Arc<Node>, envelope: EnvelopeId) {
        if let Some(site) = self.site.upgrade() {
            tokio::spawn(site.report(node, envelope));
        }
    }
}

#[async_trait]
impl World for TestWorld {
    async fn served(&self) -> Result<Vec<ServedVo>, Error> {
        self.grid.served().await
    }
    async fn erased(&self) -> Result<Vec<ErasedVo>, Error> {
        self.grid.erased().await
    }
    async fn view(&self, vo: &VoId) -> Result<VoSnapshot, Error> {
        self.grid.view(vo).await
    }
    fn check_submission(&self, jws: &str, vo: &VoId, now: Millis) -> Result<String, Error> {
        self.grid.check_submission(jws, vo, now)
    }
    async fn mandate(&self, r: IssueMandate) -> Result<String, Error> {
        self.grid.mandate(r).await
    }
    fn check_mandate(&self, jws: &str, now: Millis) -> Result<Mandate, Error> {
        self.grid.check_mandate(jws, now)
    }
    async fn ticket(&self, home: &SiteId, r: IssueTicket) -> Result<IssuedTicket, Error> {
        self.grid.ticket(home, r).await
    }
    async fn host_units(&self, site: &SiteId, r: HostUnits) -> Result<HostReply, Error> {
        self.grid.host_units(site, r).await
    }
    async fn cancel_hosted(&self, site: &SiteId, r: CancelHosted) -> Result<Done, Error> {
        self.grid.cancel_hosted(site, r).await
    }
    async fn host_output(&self, site: &SiteId, r: HostOutput) -> Result<OutputPart, Error> {
        self.grid.host_output(site, r).await
    }
    async fn host_checkpoints(
        &self,
        site: &SiteId,
        r: HostCheckpoints,
    ) -> Result<Checkpoints, Error> {
        self.grid.host_checkpoints(site, r).await
    }
    async fn host_leave(&self, site: &SiteId, r: HostLeave) -> Result<Done, Error> {
        self.grid.host_leave(site, r).await
    }
    async fn host_events(
        &self,
        site: &SiteId,
        r: HostEvents,
    ) -> Result<BoxStream<'static, Result<HostItem, Error>>, Error> {
        self.grid.host_events(site, r).await
    }
    async fn ack_hosted(&self, site: &SiteId, r: AckHosted) -> Result<Done, Error> {
        self.grid.ack_hosted(site, r).await
    }
    fn node_changes(&self) -> broadcast::Receiver<NodeChange> {
        self.changes.subscribe()
    }
    fn is_connected(&self, node: &NodeId) -> bool {
        self.site.upgrade().is_some_and(|site| site.connected.lock().unwrap().contains(node))
    }
    async fn list_envelopes(&self, node: &NodeId) -> Result<Envelopes, Error> {
        let node = self.node(node)?;
        let envelopes = node.envelopes.lock().unwrap();
        let status = |(id, e): (&EnvelopeId, &Envelope)| EnvelopeStatus {
            envelope: id.clone(),
            last: e.events.len() as u64,
        };
        let all: Vec<EnvelopeStatus> = envelopes.iter().map(status).collect();
        drop(envelopes);
        for s in &all {
            self.report(node.clone(), s.envelope.clone());
        }
        Ok(Envelopes { boot: "1".into(), envelopes: all })
    }
    async fn start_units(&self, node: &NodeId, r: StartUnits) -> Result<UnitsTaken, Error> {
        assert_eq!(r.ticket, format!("ticket for {node}"));
        let node = self.node(node)?;
        let taken = node.run(&r);
        self.report(node, r.envelope);
        Ok(taken)
    }
    async fn kill_units(&self, node: &NodeId, r: KillUnits) -> Result<Done, Error> {
        let node = self.node(node)?;
        node.kill(&r);
        self.report(node, r.envelope);
        Ok(Done {})
    }
    async fn end_envelope(&self, node: &NodeId, r: EndEnvelope) -> Result<Done, Error> {
        self.node(node)?.envelopes.lock().unwrap().remove(&r.envelope);
        Ok(Done {})
    }
    async fn unit_output(&self, node: &NodeId, r: UnitOutput) -> Result<OutputPart, Error> {
        let data = STANDARD.encode(format!("unit {} on {node}\n", r.unit));
        Ok(OutputPart::new(data, true))
    }
    async fn set_ticket(&self, _: &NodeId, _: SetTicket) -> Result<Done, Error> {
        Ok(Done {})
    }
    async fn sessions(&self, node: &NodeId, r: ListSessions) -> Result<OpenSessions, Error> {
        let person = format!("alice@{}", r.vo.site()).parse()?;
        let session = OpenSession { person, service: "sshd".into(), since: Millis(7) };
        self.node(node).map(|_| OpenSessions { sessions: vec![session], more: false })
    }
}
