//! Images of other nodes, fetched to restore a tree here or to be kept.

use super::{Event, Host, Peers, Store, wait};
use crate::cluster::messages::TreeId;
use crate::driver::images::verify;
use crate::pids::NodeNumber;
use std::collections::BTreeSet;

impl Host {
    /// Begins to fetch an image that is to be kept. One that nobody could restart is no copy.
    pub(super) fn hold(
        &self,
        (tree, attempt): (TreeId, u64),
        version: u64,
        from: BTreeSet<NodeNumber>,
        owner: u32,
    ) {
        let (store, peers, here) = (self.store.clone(), self.setup.peers.clone(), self.setup.node);
        let events = self.events.clone();
        tokio::spawn(async move {
            let fetched = wait(move || -> Result<(), String> {
                fetch(&store, &*peers, here, &from, (tree, version))?;
                verify(&store.folder(tree, version), owner).map(drop).map_err(|why| {
                    let gone = store.discard(tree, version);
                    let left = gone.err().map(|e| format!("; and it stays: {e}"));
                    format!("what came is no image: {why}{}", left.unwrap_or_default())
                })
            });
            let done = fetched.await.map_err(|e| e.to_string()).flatten();
            if let Err(why) = &done {
                tracing::warn!(%tree, version, why, "no copy of a checkpoint was fetched");
            }
            // A host that is gone has nothing to keep.
            let _gone = events.send(Event::Held { tree, attempt, version, done });
        });
    }
}

/// Has an image here, from the first of the nodes that gives it, unless it is here already. The
/// error is for the person whose tree it is.
pub(super) fn fetch(
    store: &Store,
    peers: &dyn Peers,
    here: NodeNumber,
    nodes: &BTreeSet<NodeNumber>,
    (tree, version): (TreeId, u64),
) -> Result<(), String> {
    if store.has(tree, version) {
        return Ok(());
    }
    let mut why = "no node has its image".to_owned();
    let found = nodes.iter().filter(|n| **n != here).any(|from| {
        let got = peers
            .image(*from, tree, version)
            .and_then(|mut image| store.receive(tree, version, &mut *image));
        got.map_err(|e| why = format!("cannot fetch its image: {e}")).is_ok()
    });
    if found { Ok(()) } else { Err(why) }
}
