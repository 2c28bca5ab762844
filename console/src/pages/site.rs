//! The pages of the site's administrators: what waits for them, and everything that is theirs.

pub(crate) mod clients;
pub(crate) mod cluster;
pub(crate) mod clusters;
pub(crate) mod names;
pub(crate) mod nodes;
pub(crate) mod people;
pub(crate) mod sites;
pub(crate) mod vos;

use super::clusters::served_here;
use crate::view::{Frame, cut, page};
use crate::visit::{Shown, Stop, Visit};
use askama::Template;
use std::collections::HashSet;
use std::time::Duration;
use xos_api::cda::{ListMachines, WhoAmI};
use xos_api::cluster::{ClusterNodeState, ListClusters};
use xos_api::site::ConnectedNodes;
use xos_api::vom::ServedVos;
use xos_base::{Error, Millis};

/// A certificate that ends within this time is told: a node renews its own long before.
const ENDS_SOON: Duration = Duration::from_secs(24 * 3600);

/// Longest reason of a node that failed, in characters.
const WHY_SHOWN: usize = 200;

/// What stands at the top of all pages of the site.
pub(crate) struct SiteHead {
    pub(crate) tab: &'static str,
}

impl SiteHead {
    pub(crate) fn new(tab: &'static str) -> SiteHead {
        SiteHead { tab }
    }
}

/// Lets nobody but the site's administrators on, as the core says of the visitor now.
pub(super) async fn administrator(visit: &Visit) -> Result<(), Stop> {
    let me = visit.ask(WhoAmI {}).await?;
    if me.site_admin {
        return Ok(());
    }
    Err(Error::denied(format!("{} does not administer this site", me.caller))
        .hint("ask one of its administrators")
        .into())
}

/// A question before something that cannot be undone.
pub(super) struct Ask {
    pub(super) heading: String,
    pub(super) text: String,
    /// Where the yes goes.
    pub(super) action: String,
    /// What a reason is called, where one may be given.
    pub(super) reason: Option<&'static str>,
    pub(super) button: &'static str,
    /// Where a no goes.
    pub(super) back: String,
}

#[derive(Template)]
#[template(path = "site_confirm.html")]
struct Confirm {
    frame: Frame,
    site_head: SiteHead,
    ask: Ask,
    reason_max: usize,
}

/// The page that asks.
pub(super) async fn confirm(visit: &Visit, tab: &'static str, ask: Ask) -> Shown {
    administrator(visit).await?;
    let frame = Frame::of(visit, &ask.heading, "site").await;
    let reason_max = xos_api::vom::REASON_MAX;
    page(&Confirm { frame, site_head: SiteHead::new(tab), ask, reason_max })
}

/// Something that is shown once.
pub(super) struct Once {
    pub(super) heading: String,
    pub(super) text: String,
    /// What it is called, and the text itself.
    pub(super) shown: Vec<(&'static str, String)>,
    pub(super) back: &'static str,
}

#[derive(Template)]
#[template(path = "site_once.html")]
struct OnceView {
    frame: Frame,
    site_head: SiteHead,
    once: Once,
}

/// The page that shows it.
pub(super) async fn once(visit: &Visit, tab: &'static str, once: Once) -> Shown {
    let frame = Frame::of(visit, &once.heading, "site").await;
    page(&OnceView { frame, site_head: SiteHead::new(tab), once })
}

#[derive(Template)]
#[template(path = "site.html")]
struct Overview {
    frame: Frame,
    site_head: SiteHead,
    waiting: Vec<Waiting>,
    served: usize,
    nodes: usize,
    connected: usize,
}

/// Something that waits, and the page where it is seen to.
struct Waiting {
    text: String,
    path: &'static str,
}

/// The first page: what waits.
pub(crate) async fn show(visit: Visit) -> Shown {
    administrator(&visit).await?;
    let served = visit.ask(ServedVos {}).await?;
    let machines = visit.ask(ListMachines {}).await?;
    let connected: HashSet<_> = visit.ask(ConnectedNodes {}).await?.into_iter().collect();
    let mut waiting = Vec::new();
    let mut wait = |text: String, path| waiting.push(Waiting { text, path });
    for s in &served {
        if let Some(trouble) = &s.trouble {
            wait(format!("{}: {trouble}", s.vo), "/site/vos");
        }
        if s.offered.is_some() {
            wait(format!("{} has not answered the offered share yet", s.vo), "/site/vos");
        }
    }
    for m in &machines {
        if !connected.contains(&m.node) {
            wait(format!("{} is not connected", m.node), "/site/nodes");
        }
        if ends_soon(m.certificate_until, visit.console.clock.now()) {
            wait(format!("the certificate of {} ends soon", m.node), "/site/nodes");
        }
    }
    let clusters = if served_here(&visit) { visit.ask(ListClusters {}).await? } else { Vec::new() };
    for (c, n) in clusters.iter().flat_map(|c| c.nodes.iter().map(move |n| (c, n))) {
        if n.state == ClusterNodeState::Failed {
            let why = cut(&n.reason, WHY_SHOWN);
            wait(format!("{} failed in {}: {why}", n.node, c.cluster), "/site/clusters");
        }
    }
    let frame = Frame::of(&visit, "Site", "site").await;
    let (served, nodes, connected) = (served.len(), machines.len(), connected.len());
    let site_head = SiteHead::new("overview");
    page(&Overview { frame, site_head, waiting, served, nodes, connected })
}

fn ends_soon(until: Millis, now: Millis) -> bool {
    until < now.plus(ENDS_SOON)
}
