//! The clusters of the site, for its administrators.

use super::{SiteHead, administrator};
use crate::chart::{Chart, Part};
use crate::pages::clusters::{Summary, served_here};
use crate::view::{Frame, page};
use crate::visit::{Shown, Visit, done};
use askama::Template;
use xos_api::cluster::{CreateCluster, ListClusters};
use xos_base::ClusterId;

#[derive(Template)]
#[template(path = "site_clusters.html")]
struct View {
    frame: Frame,
    site_head: SiteHead,
    /// The core has a section `[cluster]`.
    served: bool,
    clusters: Vec<Summary>,
    load_chart: Chart,
}

/// The list.
pub(crate) async fn show(visit: Visit) -> Shown {
    administrator(&visit).await?;
    let served = served_here(&visit);
    let all = if served { visit.ask(ListClusters {}).await? } else { Vec::new() };
    let clusters: Vec<Summary> = all.iter().map(Summary::from).collect();
    page(&View {
        frame: Frame::of(&visit, "Clusters", "site").await,
        site_head: SiteHead::new("clusters"),
        served,
        load_chart: load_chart(&clusters),
        clusters,
    })
}

fn load_chart(clusters: &[Summary]) -> Chart {
    let part = |c: &Summary| Part {
        label: c.cluster.clone(),
        text: format!("{} of {}", c.load, c.cpus),
        value: c.load_milli,
        of: Some(c.cpus.saturating_mul(1000)),
    };
    let title = "Load of each cluster, of its processors";
    Chart::new("clusters", title, clusters.iter().map(part).collect())
}

/// Makes a cluster without nodes.
pub(crate) async fn create(visit: Visit) -> Shown {
    let site = visit.console.grid.site();
    let cluster: ClusterId = format!("{}.{site}", visit.form.text("label")).parse()?;
    visit.ask(CreateCluster { cluster: cluster.clone() }).await?;
    let notice = format!("{cluster} is made. Add nodes to it below.");
    done(&visit, format!("/site/cluster/{cluster}"), notice)
}
