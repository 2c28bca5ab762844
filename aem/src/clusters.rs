//! Clusters of the site: each is a node here, which runs in this core. What it reports is fetched.

use crate::core::{Core, lock};
use crate::plan::host::NodeView;
use crate::work::Work;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use xos_api::node::units::{EndEnvelope, EnvelopeId};
use xos_base::NodeId;
use xos_net::Clusters;

/// After this long reports that could not be stored are fetched again.
const AGAIN: Duration = Duration::from_secs(1);

impl Core {
    /// The clusters, when the id is one's.
    pub(crate) fn cluster(&self, node: &NodeId) -> Option<&Arc<dyn Clusters>> {
        let clusters = self.world.clusters()?;
        let is_one = clusters.news().borrow().offers.contains_key(node);
        is_one.then_some(clusters)
    }

    /// The nodes of a cluster that have trees of these envelopes; none where it is no cluster.
    pub(crate) async fn nodes_of(
        &self,
        cluster: &NodeId,
        envelopes: &[EnvelopeId],
    ) -> BTreeSet<NodeId> {
        let mut nodes = BTreeSet::new();
        if let Some(clusters) = self.cluster(cluster) {
            for envelope in envelopes {
                nodes.extend(clusters.nodes_of(cluster, envelope).await);
            }
        }
        nodes
    }

    /// Takes over what clusters offer, and which nodes are in them.
    pub(crate) fn look_at_clusters(self: &Arc<Self>) {
        let Some(clusters) = self.world.clusters() else { return };
        let offers = clusters.news().borrow().offers.clone();
        let mut new = Vec::new();
        {
            let mut facts = lock(&self.host);
            facts.takes_from = clusters.takes_from();
            facts.seated = offers.values().flat_map(|o| o.nodes.iter().cloned()).collect();
            for (id, offer) in offers {
                let boot = facts.nodes.get(&id).and_then(|n| n.boot.clone());
                if boot.is_none() {
                    new.push(id.clone());
                }
                let (capacity, cluster) = (offer.capacity, Some(offer.largest));
                facts.nodes.insert(id, NodeView { capacity, key: offer.key, boot, cluster });
            }
        }
        for id in new {
            self.start_work(Work::Greet(id));
        }
        self.wake.notify_one();
    }

    /// Follows the clusters until the service stops.
    pub(crate) async fn follow_clusters(self: Arc<Self>) {
        let Some(clusters) = self.world.clusters().cloned() else { return };
        let mut news = clusters.news();
        loop {
            news.mark_unchanged();
            self.look_at_clusters();
            let all = self.take_reports(&*clusters).await;
            tokio::select! {
                changed = news.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = tokio::time::sleep(AGAIN), if !all => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Stores what clusters report; whether all of it is.
    pub(crate) async fn take_reports(self: &Arc<Self>, clusters: &dyn Clusters) -> bool {
        loop {
            let reports = clusters.reports().await;
            if reports.is_empty() {
                return true;
            }
            for (cluster, report) in reports {
                let envelope = report.envelope.clone();
                let end = report.after.saturating_add(report.events.len() as u64);
                let ack = match self.unit_events(&cluster, report).await {
                    Ok(ack) => ack,
                    Err(error) => {
                        tracing::info!(%error, %cluster, "a cluster's report is not stored yet");
                        return false;
                    }
                };
                // Of an envelope that is none of ours nothing is wanted.
                let stored = if ack.unknown { end } else { ack.stored };
                clusters.acknowledged(&cluster, &envelope, stored).await;
                if ack.unknown {
                    let job = envelope.job.clone();
                    let ended = clusters.end_envelope(&cluster, EndEnvelope { envelope }).await;
                    if let Err(error) = ended {
                        tracing::info!(%error, %cluster, %job, "a stray envelope is not ended yet");
                    }
                } else if stored < end {
                    return false;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
