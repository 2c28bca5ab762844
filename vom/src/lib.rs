//! Virtual organizations: life cycle, members, groups, roles, policies, shares. And the site's
//! audit ([`audit`]).
//!
//! A VO is the sum of its log: signed, numbered changes, each bound to the one before it. Its home
//! site decides and signs them; the sites that serve it follow the log and hold the same state
//! ([`state::Vo`]). What a credential is worth at a site is asked of that state, in memory
//! ([`xos_net::Standing`]).
//!
//! A request runs like this: who asks ([`policy::Subject`]), may they ([`policy::Policy`] gives a
//! [`policy::Grant`]), what changes ([`decide::decide`]), sign and store ([`live::Live::commit`]);
//! other sites and nodes learn of it afterwards ([`replica`], [`push`]).

pub mod audit;
pub mod decide;
pub mod effects;
mod ends;
mod kept;
pub mod live;
pub mod log;
pub mod names;
mod ops;
pub mod policy;
mod push;
pub mod registry;
mod replica;
pub mod rules;
pub mod served;
mod sites;
pub mod state;
pub mod text;
mod told;

pub use kept::Kept;

use crate::audit::AuditLog;
use crate::effects::{Holders, Homes, NodeLink};
use crate::ends::Graves;
use crate::live::{Live, Vos};
use crate::names::{Names, Table};
use crate::policy::Policy;
use crate::registry::Registry;
use crate::rules::own::Own;
use crate::rules::{Judge, Rules};
use crate::served::{Home, Todo, UID_BLOCKS_MAX};
use crate::sites::Shares;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use xos_api::vom::ServingSite;
use xos_base::when::Clock;
use xos_base::{Error, Membership, Millis, SiteId, VoId};
use xos_net::audit::Teller;
use xos_net::sign::Signer;
use xos_net::{Audit, Trust};
use xos_store::Store;

/// Most VOs that one site is home of.
pub const VOS_MAX: usize = 10_000;
/// Most checkpoints written at a time.
const CHECKPOINTS_MAX: usize = 1;
/// Shortest lease that can be set.
const LEASE_MIN: Duration = Duration::from_secs(120);

/// The section `[vom]` of `xosd.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Who may found VOs at this site: `"anyone"` of this site, or `"site-admins"`.
    /// Default: `"anyone"`.
    pub found: Found,
    /// How many blocks of 65,536 uids and gids each VO gets at this site, 1 to 16. Members whose
    /// number lies beyond have no account here. Default: 1.
    pub uid_blocks: u32,
    /// How long a VO's home may be unheard by this site, and this core by a node, before nobody of
    /// that VO is let in any more and running work is held, in seconds, at least 120. Where the
    /// VO's own lease is smaller, that counts: an hour, or as `xos vo lease` set it.
    /// Default: 3600.
    pub lease_s: u64,
    /// For how long running work of a VO is held once the lease is over, in seconds; then it is
    /// ended, by this core for all its nodes, and by a node that does not hear it. Where the VO's
    /// own time is smaller, that counts: a day, or as `xos vo grace` set it. 0: work ends with the
    /// lease. Default: 86400.
    pub grace_s: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config { found: Found::Anyone, uid_blocks: 1, lease_s: 3600, grace_s: 86_400 }
    }
}

/// Who may found VOs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Found {
    /// Any person of this site.
    Anyone,
    /// This site's administrators.
    SiteAdmins,
}

/// What vom works with.
pub struct Deps {
    /// This site.
    pub site: SiteId,
    /// The registry.
    pub store: Arc<dyn Store>,
    /// This site's signing key.
    pub signer: Arc<Signer>,
    /// The trusted sites and their keys.
    pub trust: Trust,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The cores of other sites: [`xos_net::Grid`].
    pub homes: Arc<dyn Homes>,
    /// This site's nodes: [`xos_net::Nodes`].
    pub nodes: Arc<dyn NodeLink>,
    /// The site's audit, which is searched, verified and witnessed.
    pub log: Arc<AuditLog>,
    /// The cores of other sites, which witness it: [`xos_net::Grid`].
    pub holders: Arc<dyn Holders>,
    /// Is told what happens: that audit.
    pub audit: Arc<dyn Audit>,
}

/// A VO that is at home here, as the file services need to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Homed {
    /// The VO.
    pub vo: VoId,
    /// The volumes recorded for it.
    pub volumes: Vec<String>,
    /// Whether it is not suspended.
    pub active: bool,
    /// Whether the audit notes which of its files are opened.
    pub audit_opens: bool,
    /// The sites that serve it, also while it is suspended.
    pub sites: Vec<ServingSite>,
}

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct Vom {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) site: SiteId,
    config: Config,
    registry: Registry,
    signer: Arc<Signer>,
    trust: Trust,
    clock: Arc<dyn Clock>,
    homes: Arc<dyn Homes>,
    nodes: Arc<dyn NodeLink>,
    log: Arc<AuditLog>,
    holders: Arc<dyn Holders>,
    /// What is held of other sites' audits.
    heads: audit::heads::Heads,
    /// What of the audit nodes may fill.
    budget: Mutex<audit::Budget>,
    looks: ops::audit::Looks,
    told: Teller,
    policy: Policy,
    vos: Vos,
    graves: Graves,
    shares: Shares,
    names: Names,
    rules: Rules,
    /// Rises when any VO's log grows.
    grown: watch::Sender<u64>,
    /// What is wrong with the view of a VO.
    troubles: Mutex<BTreeMap<VoId, String>>,
    outsiders: Mutex<ops::applications::Limiter>,
    /// Held while a VO is founded.
    founding: tokio::sync::Mutex<()>,
    readers: Mutex<BTreeMap<(VoId, SiteId), usize>>,
    /// The VOs whose share is worked for.
    working: Mutex<BTreeSet<VoId>>,
    tasks: Mutex<JoinSet<()>>,
    checkpoints: Arc<Semaphore>,
}

impl Vom {
    /// Reads the registry and begins to follow the VOs served.
    ///
    /// # Errors
    /// Those of the registry and of a setting out of its bounds.
    pub async fn start(config: Config, deps: Deps) -> Result<Vom, Error> {
        check(&config)?;
        let heads = audit::heads::Heads::new(deps.store.clone());
        let registry = Registry::new(deps.store);
        let (vos, graves) = (Vos::default(), Graves::new(registry.graves().await?));
        for id in registry.known().await? {
            if graves.has(&id) {
                continue; // This core stopped while it erased it, which is gone on with.
            }
            let (state, chain, checkpointed) = registry.load(&id).await?;
            let heard = registry.heard(&id).await?;
            vos.add(Live::new(state, chain, checkpointed, heard));
        }
        let shares = Shares::new(registry.served().await?);
        let (names, version) = registry.names().await?;
        let names = Names::new(Table::new(names), version);
        let (book, stored) = registry.rules().await?;
        let rules = Rules::new(Judge::new().await?, Own::new(book, stored));
        let inner = Arc::new(Inner {
            site: deps.site,
            config,
            registry,
            signer: deps.signer,
            trust: deps.trust,
            clock: deps.clock,
            homes: deps.homes,
            nodes: deps.nodes,
            log: deps.log,
            holders: deps.holders,
            heads,
            budget: Mutex::default(),
            looks: ops::audit::Looks::default(),
            told: Teller::new(deps.audit),
            policy: Policy::built_in().await?,
            vos,
            graves,
            shares,
            names,
            rules,
            grown: watch::Sender::new(0),
            troubles: Mutex::default(),
            outsiders: Mutex::default(),
            founding: tokio::sync::Mutex::default(),
            readers: Mutex::default(),
            working: Mutex::default(),
            tasks: Mutex::default(),
            checkpoints: Arc::new(Semaphore::new(CHECKPOINTS_MAX)),
        });
        inner.spawn(push::run(inner.clone()));
        inner.spawn(ops::enrolment::sweep(inner.clone()));
        inner.spawn(ends::run(inner.clone()));
        inner.spawn(rules::own::follow(inner.clone()));
        inner.spawn(audit::exchange::run(inner.clone()));
        for served in inner.shares.all() {
            inner.work_for(&served.vo);
        }
        Ok(Vom { inner })
    }

    /// Rises when any VO known here changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.grown.subscribe()
    }

    /// The VOs that are at home here.
    pub fn homed(&self) -> Vec<Homed> {
        let now = self.inner.clock.now();
        let all = self.inner.vos.after(None, usize::MAX);
        all.iter()
            .filter(|live| live.id().site() == self.inner.site)
            .map(|live| {
                let state = live.read();
                Homed {
                    vo: live.id().clone(),
                    volumes: state.volumes.iter().cloned().collect(),
                    active: state.active(),
                    audit_opens: state.audit_opens,
                    sites: state.serving(now),
                }
            })
            .collect()
    }

    /// Ends everything that runs in the background. What was acknowledged is stored already.
    pub fn stop(&self) {
        let mut tasks = self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.abort_all();
    }
}

fn check(config: &Config) -> Result<(), Error> {
    if !(1..=UID_BLOCKS_MAX).contains(&config.uid_blocks) {
        return Err(Error::invalid(format!(
            "[vom] uid_blocks = {} is not between 1 and {UID_BLOCKS_MAX}",
            config.uid_blocks
        )));
    }
    if config.lease_s < LEASE_MIN.as_secs() {
        return Err(Error::invalid(format!(
            "[vom] lease_s = {} is below {}",
            config.lease_s,
            LEASE_MIN.as_secs()
        )));
    }
    Ok(())
}

impl Inner {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        // Forget those that are over, so that the set does not grow.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Starts the background work for a share, unless it runs.
    pub(crate) fn work_for(self: &Arc<Inner>, vo: &VoId) {
        let fresh = {
            let mut working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
            working.insert(vo.clone())
        };
        if fresh {
            let (inner, vo) = (self.clone(), vo.clone());
            self.spawn(async move {
                replica::run(inner.clone(), vo.clone()).await;
                inner.working.lock().unwrap_or_else(PoisonError::into_inner).remove(&vo);
            });
        }
    }

    /// What is to be done for a share.
    pub(crate) fn todo(&self, vo: &VoId) -> Todo {
        if self.graves.has(vo) {
            return Todo::Rest;
        }
        let live = self.vos.one(vo);
        let state = live.as_ref().map(|l| l.read());
        self.shares.with(vo, |s| s.todo(&self.site, state.as_deref())).unwrap_or(Todo::Rest)
    }

    /// Notes what is wrong with the view of a VO, or that nothing is; whether that is new.
    pub(crate) fn set_trouble(&self, vo: &VoId, trouble: Option<String>) -> bool {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let former = match &trouble {
            Some(t) => troubles.insert(vo.clone(), t.clone()),
            None => troubles.remove(vo),
        };
        former != trouble
    }

    pub(crate) fn trouble(&self, vo: &VoId) -> Option<String> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).get(vo).cloned()
    }

    /// A VO's log has grown: nodes and readers learn it, and a checkpoint may be due.
    pub(crate) fn grown(self: &Arc<Inner>, live: &Arc<Live>) {
        self.grown.send_modify(|n| *n = n.wrapping_add(1));
        let Ok(permit) = self.checkpoints.clone().try_acquire_owned() else { return };
        let (inner, live) = (self.clone(), live.clone());
        self.spawn(async move {
            if let Err(error) = live.checkpoint(&inner.registry).await {
                tracing::error!(vo = %live.id(), %error, "no checkpoint; the log is complete");
            }
            drop(permit);
        });
    }

    /// How long a VO goes on here when nothing is heard, in seconds: the smaller of its own lease
    /// and this site's.
    pub(crate) fn lease_s(&self, vo: &state::Vo) -> u64 {
        vo.lease_s().min(self.config.lease_s)
    }

    /// For how long a VO's work is held here once the lease is over, in seconds: the smaller of its
    /// own time and this site's.
    pub(crate) fn grace_s(&self, vo: &state::Vo) -> u64 {
        vo.grace_s().min(self.config.grace_s)
    }

    /// What the VO's home is to this site now. `vo` is what `live` holds.
    pub(crate) fn home_of(&self, live: &Live, vo: &state::Vo, now: Millis) -> Home {
        let home = live.id().site();
        if home == self.site {
            return Home::Heard;
        }
        if self.trust.descriptor(&home).is_err() {
            return Home::Forgotten;
        }
        let (unheard, surely) = live.unheard(now, self.clock.up());
        let lease = Duration::from_secs(self.lease_s(vo));
        if unheard <= lease {
            Home::Heard
        } else if surely <= lease + Duration::from_secs(self.grace_s(vo)) {
            Home::Lapsed
        } else {
            Home::Lost
        }
    }
}

impl xos_net::Standing for Vom {
    fn effective(&self, m: &Membership, now: Millis) -> Result<Membership, Error> {
        let inner = &self.inner;
        let unknown = || {
            Error::denied(format!("site {} does not serve {}", inner.site, m.vo))
                .hint("`xos vo share list` shows the sites that do")
        };
        let live = inner.vos.one(&m.vo).ok_or_else(unknown)?;
        let state = live.read();
        if m.vo.site() != inner.site {
            let accepted = |s: &served::Served| s.accepted(&inner.site, &state).cloned();
            let terms = inner.shares.with(&m.vo, accepted).flatten().ok_or_else(unknown)?;
            if terms.until.is_some_and(|end| end <= now) {
                return Err(Error::denied(format!(
                    "the share of site {} for {} ended at {}",
                    inner.site,
                    m.vo,
                    terms.until.unwrap_or_default()
                ))
                .hint(state::owners_hint(&state)));
            }
            let (here, home) = (&inner.site, m.vo.site());
            let why = match inner.home_of(&live, &state, now) {
                Home::Heard => None,
                Home::Lapsed | Home::Lost => Some(format!(
                    "site {here} has not heard from {home}, the home of {}, since {}",
                    m.vo,
                    live.heard()
                )),
                Home::Forgotten => {
                    Some(format!("site {here} trusts {home}, the home of {}, no more", m.vo))
                }
            };
            if let Some(why) = why {
                let hint = format!("ask the administrator of site {here}");
                return Err(Error::denied(why).hint(hint));
            }
        }
        state.effective(m, now)
    }
}
