//! A core on a journal of its own, in a world that only notes what it is asked.

use crate::config::Config;
use crate::core::{Core, lock};
use crate::ledger::Ledger;
use crate::plan::host::NodeView;
use crate::world::World;
use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::{RwLock, broadcast};
use xos_api::Done;
use xos_api::aem::*;
use xos_api::cda::{IssueMandate, IssueTicket, IssuedTicket, Mandate};
use xos_api::node::sessions::{ListSessions, OpenSession, OpenSessions};
use xos_api::node::units::*;
use xos_api::node::{Capacity, SetTicket};
use xos_api::policy::{Action, Denial, Place};
use xos_api::vom::{ErasedVo, ServedVo, ServingSite, Terms, VoSnapshot, VoState};
use xos_base::when::{Clock, SystemClock};
use xos_base::{Error, Membership, Millis, NodeId, SiteId, VoId};
use xos_net::audit::{Remembered, Teller};
use xos_net::{Clusters, NodeChange, Rules, Standing};

/// The world: says yes to everything at once, and notes what left the core.
pub(crate) struct Asked {
    calls: Mutex<Vec<&'static str>>,
    /// What nodes say they have.
    pub(crate) has: Mutex<Envelopes>,
    /// The units that nodes were sent.
    pub(crate) started: Mutex<Vec<StartUnits>>,
    /// What nodes answer to the next orders, instead of yes.
    pub(crate) refusals: Mutex<VecDeque<Error>>,
    /// What other sites were asked to run.
    pub(crate) offers: Mutex<Vec<HostUnits>>,
    /// What other sites were asked to let go.
    pub(crate) leaves: Mutex<Vec<HostLeave>>,
    /// What they answer to that next, instead of yes.
    pub(crate) stays: Mutex<VecDeque<Error>>,
    /// Of whose output they were asked: site, run, offset, most bytes.
    pub(crate) reads: Mutex<Vec<(SiteId, Option<u16>, u64, u32)>>,
    /// What they answer to that.
    pub(crate) outputs: Mutex<VecDeque<Result<OutputPart, Error>>>,
    /// Whether the members that somebody asks about are suspended.
    pub(crate) suspended: Mutex<bool>,
    /// The VOs that are erased.
    pub(crate) erased: Mutex<Vec<ErasedVo>>,
    /// What rules refuse, and how.
    pub(crate) denial: Mutex<Option<(Action, Denial)>>,
    /// The sessions that nodes tell of; those that are not here do not answer.
    pub(crate) open: Mutex<BTreeMap<NodeId, Vec<OpenSession>>>,
    /// The nodes that are connected.
    pub(crate) connected: Mutex<BTreeSet<NodeId>>,
    /// Taken for writing by tests: no ticket comes from rennes as long as they hold it.
    pub(crate) home: RwLock<()>,
    /// The clusters of the site.
    pub(crate) clusters: OnceLock<Arc<dyn Clusters>>,
    changes: broadcast::Sender<NodeChange>,
}

impl Asked {
    fn note(&self, call: &'static str) {
        lock(&self.calls).push(call);
    }

    /// What it was asked since the last time.
    pub(crate) fn take(&self) -> Vec<&'static str> {
        std::mem::take(&mut lock(&self.calls))
    }
}

impl Standing for Asked {
    fn effective(&self, m: &Membership, _: Millis) -> Result<Membership, Error> {
        match *lock(&self.suspended) {
            true => Err(Error::denied(format!("{} is suspended", m.person))),
            false => Ok(m.clone()),
        }
    }
}

impl Rules for Asked {
    fn judge(&self, _: &Membership, action: Action, _: &Place) -> Result<(), Denial> {
        match &*lock(&self.denial) {
            Some((denied, denial)) if *denied == action => Err(denial.clone()),
            _ => Ok(()),
        }
    }
}

/// A core of `rennes` with the node `n1.rennes`, four processors of it for `demo.rennes`, which
/// `pisa` serves too. Nothing runs by itself. The folder is to be kept as long as the core.
pub(crate) async fn core(
    change: impl FnOnce(&mut Config),
) -> (Arc<Core>, Arc<Asked>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let (core, world) = core_in(dir.path(), change).await;
    (core, world, dir)
}

/// The same with its journal in that folder, as after a restart.
pub(crate) async fn core_in(
    dir: &Path,
    change: impl FnOnce(&mut Config),
) -> (Arc<Core>, Arc<Asked>) {
    let site: SiteId = "rennes".parse().unwrap();
    let mut config = Config::default();
    change(&mut config);
    let world = Arc::new(Asked {
        calls: Mutex::default(),
        has: Mutex::new(Envelopes { boot: "1".into(), envelopes: vec![] }),
        started: Mutex::default(),
        refusals: Mutex::default(),
        offers: Mutex::default(),
        leaves: Mutex::default(),
        reads: Mutex::default(),
        outputs: Mutex::default(),
        stays: Mutex::default(),
        suspended: Mutex::default(),
        erased: Mutex::default(),
        denial: Mutex::default(),
        open: Mutex::default(),
        connected: Mutex::new(BTreeSet::from([super::n1()])),
        home: RwLock::new(()),
        clusters: OnceLock::new(),
        changes: broadcast::channel(1).0,
    });
    let ledger = Ledger::open(site.clone(), dir).unwrap();
    let (w, all, rules) = (world.clone(), world.clone(), world.clone());
    let told =
        (Arc::new(SystemClock) as Arc<dyn Clock>, Teller::new(Arc::new(Remembered::default())));
    let core = Arc::new(Core::new(config, site, ledger, w, all, rules, told));
    let vo: VoId = "demo.rennes".parse().unwrap();
    core.views.view(&*core.world, &vo, core.now()).await.unwrap();
    let capacity = Capacity { cpu_milli: 4000, memory_bytes: 1 << 40, arch: "x86_64".into() };
    let view = NodeView { capacity, key: "0".repeat(64), boot: Some("1".into()), cluster: None };
    let mut host = lock(&core.host);
    host.nodes.insert("n1.rennes".parse().unwrap(), view);
    let share = ShareRoom { vo: vo.clone(), cpu_milli: 4000, memory_bytes: 1 << 40 };
    host.shares.insert(vo, share);
    drop(host);
    (core, world)
}

fn terms() -> Terms {
    Terms { cpu_milli: 4000, memory_bytes: 1 << 40, storage_bytes: 0, until: None, version: 1 }
}

#[async_trait]
impl World for Asked {
    async fn served(&self) -> Result<Vec<ServedVo>, Error> {
        Ok(Vec::new())
    }
    async fn erased(&self) -> Result<Vec<ErasedVo>, Error> {
        Ok(lock(&self.erased).clone())
    }
    async fn view(&self, vo: &VoId) -> Result<VoSnapshot, Error> {
        let site = |s: &str| ServingSite { site: s.parse().unwrap(), terms: terms() };
        let own = ServedVo {
            vo: vo.clone(),
            base: 1_879_048_192,
            size: 65_536,
            accepted: Some(terms()),
            offered: None,
            serving: true,
            trouble: None,
        };
        Ok(VoSnapshot {
            vo: vo.clone(),
            number: 1,
            heard: SystemClock.now(),
            state: VoState::Active,
            volumes: vec![],
            sites: vec![site("rennes"), site("pisa")],
            own: Some(own),
        })
    }
    fn check_submission(&self, _: &str, _: &VoId, _: Millis) -> Result<String, Error> {
        Err(Error::unsupported("no submissions here"))
    }
    async fn mandate(&self, _: IssueMandate) -> Result<String, Error> {
        self.note("mandate");
        Ok("m".into())
    }
    fn check_mandate(&self, _: &str, _: Millis) -> Result<Mandate, Error> {
        Err(Error::unauthenticated("no mandates here"))
    }
    async fn ticket(&self, home: &SiteId, _: IssueTicket) -> Result<IssuedTicket, Error> {
        let _home = match home.as_str() {
            "rennes" => Some(self.home.read().await),
            _ => None,
        };
        let expires = SystemClock.now().plus(Duration::from_secs(900));
        Ok(IssuedTicket { ticket: "t".into(), expires })
    }
    async fn host_units(&self, _: &SiteId, r: HostUnits) -> Result<HostReply, Error> {
        self.note("host_units");
        lock(&self.offers).push(r.clone());
        if r.until < SystemClock.now() {
            let refusal = Refusal { rule: "late".into(), text: "too late".into(), later: true };
            return Ok(HostReply { accepted: vec![], refusal: Some(refusal) });
        }
        Ok(HostReply { accepted: r.units, refusal: None })
    }
    async fn cancel_hosted(&self, _: &SiteId, _: CancelHosted) -> Result<Done, Error> {
        self.note("cancel_hosted");
        Ok(Done {})
    }
    async fn host_output(&self, site: &SiteId, r: HostOutput) -> Result<OutputPart, Error> {
        lock(&self.reads).push((site.clone(), r.attempt, r.offset, r.limit));
        let part = lock(&self.outputs).pop_front();
        part.unwrap_or_else(|| Err(Error::unsupported("no output here")))
    }
    async fn host_checkpoints(&self, _: &SiteId, _: HostCheckpoints) -> Result<Checkpoints, Error> {
        Err(Error::unavailable("pisa is not reached"))
    }
    async fn host_leave(&self, _: &SiteId, r: HostLeave) -> Result<Done, Error> {
        self.note("host_leave");
        lock(&self.leaves).push(r);
        lock(&self.stays).pop_front().map_or(Ok(Done {}), Err)
    }
    async fn host_events(
        &self,
        _: &SiteId,
        _: HostEvents,
    ) -> Result<BoxStream<'static, Result<HostItem, Error>>, Error> {
        Ok(stream::empty().boxed())
    }
    async fn ack_hosted(&self, _: &SiteId, _: AckHosted) -> Result<Done, Error> {
        self.note("ack_hosted");
        Ok(Done {})
    }
    fn clusters(&self) -> Option<&Arc<dyn Clusters>> {
        self.clusters.get()
    }
    fn node_changes(&self) -> broadcast::Receiver<NodeChange> {
        self.changes.subscribe()
    }
    fn is_connected(&self, node: &NodeId) -> bool {
        lock(&self.connected).contains(node)
    }
    async fn list_envelopes(&self, _: &NodeId) -> Result<Envelopes, Error> {
        Ok(lock(&self.has).clone())
    }
    async fn start_units(&self, _: &NodeId, r: StartUnits) -> Result<UnitsTaken, Error> {
        self.note("start_units");
        lock(&self.started).push(r);
        if let Some(refusal) = lock(&self.refusals).pop_front() {
            return Err(refusal);
        }
        Ok(UnitsTaken { new: 1 })
    }
    async fn kill_units(&self, _: &NodeId, _: KillUnits) -> Result<Done, Error> {
        self.note("kill_units");
        Ok(Done {})
    }
    async fn end_envelope(&self, _: &NodeId, _: EndEnvelope) -> Result<Done, Error> {
        self.note("end_envelope");
        Ok(Done {})
    }
    async fn unit_output(&self, _: &NodeId, _: UnitOutput) -> Result<OutputPart, Error> {
        Err(Error::unsupported("no output here"))
    }
    async fn set_ticket(&self, _: &NodeId, _: SetTicket) -> Result<Done, Error> {
        self.note("set_ticket");
        Ok(Done {})
    }
    async fn sessions(&self, node: &NodeId, _: ListSessions) -> Result<OpenSessions, Error> {
        let open = lock(&self.open).get(node).cloned();
        match open {
            Some(sessions) => Ok(OpenSessions { sessions, more: false }),
            None => std::future::pending().await,
        }
    }
}
