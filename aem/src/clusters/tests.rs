use super::*;
use crate::state::HostRecord;
use crate::testing::{Asked, core, n1, opened, sent, took};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::Mutex;
use tokio::sync::watch;
use xos_api::Done;
use xos_api::aem::{HostCheckpoints, OutputPart, UnitCheckpoint, UnitEnd, UnitRun, Usage};
use xos_api::node::units::{
    Envelopes, KillUnits, StartUnits, UnitChange, UnitEvent, UnitEvents, UnitOutput, UnitsTaken,
};
use xos_api::node::{Capacity, Hello};
use xos_base::{Error, JobId, Kind, Membership, Millis, SiteId};
use xos_net::clusters::{ClusterNews, ClusterOffer};

/// One cluster, which reports what it is told to.
struct Played {
    news: watch::Sender<ClusterNews>,
    reports: Mutex<Vec<(NodeId, UnitEvents)>>,
    stored: Mutex<Vec<(EnvelopeId, u64)>>,
    ended: Mutex<Vec<EnvelopeId>>,
    heard: Mutex<Vec<NodeId>>,
}

#[async_trait]
impl Clusters for Played {
    fn news(&self) -> watch::Receiver<ClusterNews> {
        self.news.subscribe()
    }
    fn hears(&self, node: &NodeId, _: &Capacity) {
        lock(&self.heard).push(node.clone());
    }
    async fn list_envelopes(&self, _: &NodeId) -> Result<Envelopes, Error> {
        Ok(Envelopes::default())
    }
    async fn start_units(
        &self,
        _: &NodeId,
        _: StartUnits,
        _: &Membership,
    ) -> Result<UnitsTaken, Error> {
        Ok(UnitsTaken::default())
    }
    async fn kill_units(&self, _: &NodeId, _: KillUnits) -> Result<Done, Error> {
        Ok(Done {})
    }
    async fn end_envelope(&self, _: &NodeId, r: EndEnvelope) -> Result<Done, Error> {
        lock(&self.ended).push(r.envelope);
        Ok(Done {})
    }
    async fn unit_output(&self, _: &NodeId, _: UnitOutput) -> Result<OutputPart, Error> {
        Ok(OutputPart::default())
    }
    async fn checkpoints(
        &self,
        _: &NodeId,
        _: &EnvelopeId,
        units: &BTreeSet<u32>,
        saving: bool,
    ) -> Result<Vec<UnitCheckpoint>, Error> {
        let one = |unit: &u32| UnitCheckpoint { unit: *unit, saving, ..UnitCheckpoint::default() };
        Ok(units.iter().map(one).collect())
    }
    fn takes_from(&self) -> Vec<SiteId> {
        vec!["pisa".parse().unwrap()]
    }
    async fn leave(
        &self,
        _: &NodeId,
        _: &EnvelopeId,
        _: (u32, u16),
        _: Millis,
        _: bool,
    ) -> Result<Done, Error> {
        Ok(Done {})
    }
    async fn reports(&self) -> Vec<(NodeId, UnitEvents)> {
        lock(&self.reports).clone()
    }
    async fn acknowledged(&self, _: &NodeId, envelope: &EnvelopeId, stored: u64) {
        lock(&self.stored).push((envelope.clone(), stored));
        lock(&self.reports).retain(|(_, r)| r.envelope != *envelope);
    }
    async fn nodes_of(&self, _: &NodeId, _: &EnvelopeId) -> BTreeSet<NodeId> {
        BTreeSet::from([n1()])
    }
}

fn c1() -> NodeId {
    "c1.rennes".parse().unwrap()
}

fn job() -> JobId {
    "7.pisa".parse().unwrap()
}

/// The cluster `c1.rennes` of the one node `n1.rennes`.
fn play(world: &Asked) -> Arc<Played> {
    let capacity = Capacity { cpu_milli: 4000, memory_bytes: 1 << 40, arch: "x86_64".into() };
    let (largest, key) = ((2000, 1 << 39), "0".repeat(64));
    let offer = ClusterOffer { capacity, largest, key, nodes: BTreeSet::from([n1()]) };
    let offers = BTreeMap::from([(c1(), offer)]);
    let (reports, stored, ended, heard) = Default::default();
    let news = watch::channel(ClusterNews { offers, reports: 0 }).0;
    let played = Arc::new(Played { news, reports, stored, ended, heard });
    assert!(world.clusters.set(played.clone()).is_ok());
    played
}

/// The job's first unit of four is sent to the cluster.
async fn send_first(core: &Arc<Core>) {
    let mut open = opened(&job());
    if let HostRecord::Opened { node, .. } = &mut open {
        *node = c1();
    }
    let change = core.ledger.transact(|txn| {
        [took(&job()), open, sent(&job())].into_iter().for_each(|r| txn.put(r));
        Ok(())
    });
    core.ledger.stored(change.unwrap().1).await.unwrap();
}

/// If it failed, the processors of a cluster's nodes would be given twice, or not at all.
#[tokio::test]
async fn a_cluster_is_a_node_and_its_nodes_are_seated() {
    let (core, world, _dir) = core(|_| {}).await;
    let played = play(&world);
    core.look_at_clusters();
    {
        let facts = lock(&core.host);
        assert_eq!(facts.seated, BTreeSet::from([n1()]));
        let c = &facts.nodes[&c1()];
        assert_eq!((c.capacity.cpu_milli, c.cluster), (4000, Some((2000, 1 << 39))));
    }
    // A node that comes under the cluster's name would get its units.
    let capacity = Capacity { cpu_milli: 1, memory_bytes: 1, arch: "x86_64".into() };
    let key = "0".repeat(64);
    let hello = |node| Hello { node, version: String::new(), capacity: capacity.clone(), key };
    assert_eq!(core.hello(hello(c1())).unwrap_err().kind, Kind::Conflict);
    assert!(lock(&played.heard).is_empty());
}

/// If it failed, units in clusters would never end for their owners, or an envelope that nobody
/// knows would stay for ever.
#[tokio::test]
async fn what_a_cluster_reports_is_stored_and_acknowledged() {
    let (core, world, _dir) = core(|_| {}).await;
    let played = play(&world);
    send_first(&core).await;
    let how = UnitEnd::Exit { code: 0 };
    let ended = UnitChange::Ended { how, usage: Usage::default(), output: None };
    let event = |what| UnitEvent { unit: 0, attempt: 0, at: Millis(5), what };
    let known = EnvelopeId { job: job(), serial: 1 };
    let stray = EnvelopeId { job: job(), serial: 9 };
    for envelope in [known.clone(), stray.clone()] {
        let events = vec![event(UnitChange::Started), event(ended.clone())];
        lock(&played.reports).push((c1(), UnitEvents { envelope, after: 0, events }));
    }
    assert!(core.take_reports(&*played).await);
    assert_eq!(*lock(&played.stored), [(known, 2), (stray.clone(), 2)]);
    assert_eq!(*lock(&played.ended), [stray]);
    let open = core.ledger.read(|s| s.hosted.placement(&job()).unwrap().envelopes[&1].open.len());
    assert_eq!(open, 0);
}

/// If it failed, a unit that waits, or that runs on a plain node, would seem to have a checkpoint.
#[tokio::test]
async fn of_units_that_run_in_clusters_checkpoints_are_told() {
    let (core, world, _dir) = core(|_| {}).await;
    let played = play(&world);
    send_first(&core).await;
    let ask =
        |save| HostCheckpoints { job: job(), units: vec![UnitRun { first: 0, count: 4 }], save };
    assert!(core.checkpoints_here(ask(true)).await.unwrap().units.is_empty(), "none runs yet");
    let what = UnitChange::Started;
    let events = vec![UnitEvent { unit: 0, attempt: 0, at: Millis(5), what }];
    let envelope = EnvelopeId { job: job(), serial: 1 };
    lock(&played.reports).push((c1(), UnitEvents { envelope, after: 0, events }));
    assert!(core.take_reports(&*played).await);
    let told = core.checkpoints_here(ask(true)).await.unwrap().units;
    assert_eq!(told.iter().map(|u| (u.unit, u.saving)).collect::<Vec<_>>(), [(0, true)]);
}
