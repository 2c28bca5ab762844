//! Tells every connected node which sites are trusted, until it has taken that.

use std::time::Duration;
use tokio_util::sync::CancellationToken;
use xos_api::Done;
use xos_api::node::SetSites;
use xos_base::{Error, NodeId, SiteId};
use xos_net::{Nodes, Trust, for_each_node};

/// First pause after a node did not take what it was told.
const AGAIN_MIN: Duration = Duration::from_millis(500);
/// Longest pause until it is told again.
const AGAIN_MAX: Duration = Duration::from_secs(60);

/// Serves nodes as they come and go, until `stop`.
pub async fn run(site: SiteId, nodes: Nodes, trust: Trust, stop: CancellationToken) {
    let serve = |node: NodeId| {
        let (site, nodes, trust) = (site.clone(), nodes.clone(), trust.clone());
        async move { tell(&site, &node, &trust, |sites| nodes.call(&node, sites)).await }
    };
    let all = for_each_node("trusted sites", nodes.changes(), || nodes.connected(), serve);
    stop.run_until_cancelled(all).await;
}

/// Keeps one node informed: one call after the other, so that the newest list is the last, and
/// again until the node has taken it. Ended from outside when the node goes.
async fn tell<F>(site: &SiteId, node: &NodeId, trust: &Trust, call: impl Fn(SetSites) -> F)
where
    F: Future<Output = Result<Done, Error>>,
{
    let mut changed = trust.changes();
    let mut pause = AGAIN_MIN;
    loop {
        changed.mark_unchanged();
        let mut sites = trust.descriptors();
        sites.sort_by_key(|s| s.site != *site);
        let again = match call(SetSites { sites }).await {
            Ok(Done {}) => {
                pause = AGAIN_MIN;
                None
            }
            Err(error) => {
                tracing::warn!(%node, %error, ?pause, "a node has not taken the trusted sites");
                let longer = (pause * 2).min(AGAIN_MAX);
                Some(std::mem::replace(&mut pause, longer))
            }
        };
        let due = async {
            match again {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = changed.changed() => if changed.is_err() { return },
            () = due => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use xos_base::Millis;
    use xos_cda::SiteKeys;

    #[tokio::test]
    async fn a_node_is_told_until_it_has_taken_the_newest_list() {
        // wrong: a site that is trusted no more would stay so on a node that did not hear of it, or
        // that was told an older list last
        let folder = tempfile::tempdir().unwrap();
        let trust = Trust::new();
        let ids = ["rennes", "pisa"].map(|name| name.parse::<SiteId>().unwrap());
        for id in &ids {
            let state = folder.path().join(id.as_str());
            let keys = SiteKeys::create_or_open(&state, id, &[], None, Millis(1)).unwrap();
            trust.add(keys.descriptor(Vec::new())).unwrap();
        }
        let [rennes, pisa] = &ids;
        let heard: Mutex<Vec<Vec<SiteId>>> = Mutex::default();
        let call = |r: SetSites| {
            let mut heard = heard.lock().unwrap();
            heard.push(r.sites.into_iter().map(|s| s.site).collect());
            let n = heard.len();
            if n == 1 {
                // While the first call is under way.
                trust.remove(pisa);
            }
            async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                if n == 2 { Err(Error::unavailable("a broken stream")) } else { Ok(Done {}) }
            }
        };
        let node = rennes.node("n1").unwrap();
        let told = tell(rennes, &node, &trust, call);
        assert!(tokio::time::timeout(Duration::from_secs(2), told).await.is_err());
        let (old, new) = (vec![rennes.clone(), pisa.clone()], vec![rennes.clone()]);
        assert_eq!(*heard.lock().unwrap(), [old, new.clone(), new]);
    }
}
