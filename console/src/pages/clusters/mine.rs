//! A member's programs in the clusters of all sites that serve the VO.

use super::{Asker, ProgramRow, Summary, Whose, program_rows};
use crate::backend::in_time;
use crate::live;
use crate::pages::sign_in::kindly;
use crate::pages::vo::{self, Head};
use crate::view::{Frame, When, page};
use crate::visit::{Reply, Shown, Stop, Visit};
use askama::Template;
use futures_util::future::join_all;
use std::time::Duration;
use xos_api::cluster::{ClusterView, ListTrees};
use xos_api::vom::{MemberState, ServingSite, WhoServes};
use xos_base::SiteId;

/// Most sites that one page asks.
const SITES_MAX: usize = 32;
/// Most clusters of one site.
const CLUSTERS_MAX: usize = 64;
/// Most programs that are shown of one cluster.
const PROGRAMS_MAX: usize = 100;
/// How often an open page looks again.
const AGAIN_EVERY: Duration = Duration::from_secs(10);

#[derive(Template)]
#[template(path = "clusters.html")]
struct View {
    frame: Frame,
    head: Head,
    /// When the sites were asked.
    at: When,
    /// The visitor can act in the VO.
    acts: bool,
    troubles: Vec<String>,
    sites: Vec<AtSite>,
}

/// What one site has.
struct AtSite {
    site: String,
    /// None: the site has no clusters at all.
    clusters: Option<Vec<Here>>,
}

/// A cluster with the visitor's programs.
struct Here {
    summary: Summary,
    programs: Vec<ProgramRow>,
    /// There are more.
    more: bool,
}

/// The page.
pub(crate) async fn show(visit: Visit) -> Shown {
    let info = vo::info(&visit).await?;
    let vo = visit.vo()?;
    let mut serving = visit.ask_either(&vo, WhoServes { vo: vo.clone() }).await?;
    let acts = info.me.as_ref().is_some_and(|m| m.state == MemberState::Active);
    let mut troubles = Vec::new();
    if serving.len() > SITES_MAX {
        let left_out = serving.len() - SITES_MAX;
        troubles.push(format!("{left_out} more sites serve this VO and were not asked."));
    }
    // Who cannot act in the VO proves no membership.
    serving.truncate(if acts { SITES_MAX } else { 0 });
    let whose = Whose::Vo(vo.clone());
    let asked: Vec<_> = serving.into_iter().map(|s| at_site(&visit, &whose, s)).collect();
    let mut sites = Vec::new();
    for answer in join_all(asked).await {
        match answer? {
            Ok(site) => sites.push(site),
            Err(trouble) => troubles.push(trouble),
        }
    }
    page(&View {
        frame: Frame::of(&visit, &format!("My programs in clusters of {vo}"), "vos").await,
        head: Head::new(&info, "clusters"),
        at: visit.console.clock.now().into(),
        acts,
        troubles,
        sites,
    })
}

/// Asks one site; that it does not answer is told on the page.
async fn at_site(
    visit: &Visit,
    whose: &Whose,
    serving: ServingSite,
) -> Result<Result<AtSite, String>, Stop> {
    let site = serving.site;
    match in_time(&site, clusters(visit, whose, &site)).await {
        Ok(clusters) => Ok(Ok(AtSite { site: site.to_string(), clusters })),
        Err(Stop::Failed(e)) => {
            Ok(Err(format!("{site}: {} What runs in its clusters is missing.", kindly(&e))))
        }
        Err(stop) => Err(stop),
    }
}

async fn clusters(visit: &Visit, whose: &Whose, site: &SiteId) -> Result<Option<Vec<Here>>, Stop> {
    let asker = Asker::of(visit, whose, site).await?;
    let Some(all) = asker.clusters(visit).await? else { return Ok(None) };
    let mut shown = Vec::new();
    // A site that tells of another's clusters, or of more than it may have, is not followed.
    for c in all.iter().filter(|c| c.cluster.site() == *site).take(CLUSTERS_MAX) {
        shown.push(here(visit, whose, &asker, c).await?);
    }
    Ok(Some(shown))
}

async fn here(visit: &Visit, whose: &Whose, asker: &Asker, c: &ClusterView) -> Result<Here, Stop> {
    let mut trees = asker.call(visit, ListTrees { cluster: c.cluster.clone() }).await?;
    trees.retain(|t| whose.shows(visit, t));
    let (programs, more) = program_rows(whose, &c.cluster, trees, PROGRAMS_MAX);
    Ok(Here { summary: c.into(), programs, more })
}

/// Tells an open page now and then to look again.
pub(crate) async fn events(visit: Visit) -> Shown {
    let vo = visit.vo()?;
    // Whoever may not see the VO keeps no stream open.
    visit.ask_either(&vo, WhoServes { vo: vo.clone() }).await?;
    Ok(Reply::Lines(live::lines(&visit, live::ticks(AGAIN_EVERY))?))
}
