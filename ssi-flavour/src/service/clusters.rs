//! The clusters of a site, each under a lock of its own: a disk that is slow to keep one of them
//! holds up no other. Nobody holds two at a time.

use super::one::Cluster;
use super::ops::no_cluster;
use crate::pids::NodeNumber;
use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use tokio::sync::{Mutex, OwnedMutexGuard};
use xos_base::{ClusterId, Error, NodeId};

/// A cluster that nobody else has until this is dropped. Held while its records are written:
/// whatever follows from a decision waits for them.
pub(super) type Held = OwnedMutexGuard<Cluster>;

#[derive(Debug, Default)]
struct All {
    clusters: BTreeMap<ClusterId, Arc<Mutex<Cluster>>>,
    /// The nodes that are or were in a cluster, and the one in which they are.
    nodes: BTreeMap<NodeId, Option<ClusterId>>,
    /// Names that a node or a cluster is about to get, as often as somebody is about that.
    taking: BTreeMap<String, (Taker, usize)>,
}

/// Who is about to get a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taker {
    Node,
    Cluster,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Clusters {
    /// Never held while something is waited for.
    all: Arc<std::sync::Mutex<All>>,
}

/// A name that nothing of the other kind gets until this is dropped. Nodes and clusters are kept by
/// different services: who checked that there is no such node and who checked that there is no such
/// cluster would else both go on.
#[derive(Debug)]
pub(super) struct Name {
    all: Arc<std::sync::Mutex<All>>,
    name: String,
}

impl Drop for Name {
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, count)) = all.taking.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                all.taking.remove(&self.name);
            }
        }
    }
}

impl Clusters {
    pub fn new(clusters: impl IntoIterator<Item = Cluster>) -> Clusters {
        let all = Clusters::default();
        clusters.into_iter().for_each(|c| all.insert(c));
        all
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one, which there was not, with its nodes.
    pub fn insert(&self, c: Cluster) {
        let mut all = self.lock();
        for (number, m) in c.controller.state().members.iter() {
            let left = c.settings.left.contains(&number);
            // Where it is in one, that one it is in, whichever it left.
            let seat = all.nodes.entry(m.id.clone()).or_default();
            if !left {
                *seat = Some(c.id.clone());
            }
        }
        all.clusters.insert(c.id.clone(), Arc::new(Mutex::new(c)));
    }

    /// All, by their names.
    pub fn list(&self) -> Vec<(ClusterId, Arc<Mutex<Cluster>>)> {
        self.lock().clusters.iter().map(|(id, c)| (id.clone(), Arc::clone(c))).collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().clusters.len()
    }

    /// Whether one has this name.
    pub fn has(&self, name: &str) -> bool {
        self.lock().clusters.keys().any(|id| id.as_str() == name)
    }

    fn take_name(&self, name: &str, taker: Taker) -> Option<Name> {
        let mut all = self.lock();
        if all.clusters.keys().any(|id| id.as_str() == name) {
            return None;
        }
        let (by, count) = all.taking.entry(name.to_owned()).or_insert((taker, 0));
        // The same machine may ask again.
        if *by != taker {
            return None;
        }
        *count += 1;
        Some(Name { all: Arc::clone(&self.all), name: name.to_owned() })
    }

    /// The name of a node that joins; none: a cluster has it, or is about to.
    pub fn name_for_node(&self, name: &str) -> Option<Name> {
        self.take_name(name, Taker::Node)
    }

    /// The name of a cluster that is made; none: one has it, or a node is about to.
    pub fn name_for_cluster(&self, name: &str) -> Option<Name> {
        self.take_name(name, Taker::Cluster)
    }

    /// Whether a node that is or was in one has this name.
    pub fn has_node(&self, name: &str) -> bool {
        self.lock().nodes.keys().any(|id| id.as_str() == name)
    }

    /// One by its name.
    pub async fn find(&self, id: &ClusterId) -> Option<Held> {
        let cluster = self.lock().clusters.get(id).cloned()?;
        Some(cluster.lock_owned().await)
    }

    /// One by its name.
    ///
    /// # Errors
    /// [`xos_base::Kind::NotFound`].
    pub async fn of(&self, id: &ClusterId) -> Result<Held, Error> {
        self.find(id).await.ok_or_else(|| no_cluster(id))
    }

    /// The one in which a node is.
    pub fn seat_of(&self, node: &NodeId) -> Option<ClusterId> {
        self.lock().nodes.get(node).cloned().flatten()
    }

    /// The one in which a node is, and its number there.
    pub async fn at(&self, node: &NodeId) -> Option<(Held, NodeNumber)> {
        let c = self.find(&self.seat_of(node)?).await?;
        // It may have left since.
        let number = c.number(node)?;
        Some((c, number))
    }

    /// Nodes are in a cluster from now on, as is kept.
    pub fn seat<'a>(&self, id: &ClusterId, nodes: impl IntoIterator<Item = &'a NodeId>) {
        let mut all = self.lock();
        all.nodes.extend(nodes.into_iter().map(|node| (node.clone(), Some(id.clone()))));
    }

    /// A node is in none any more, as is kept.
    pub fn unseat(&self, node: &NodeId) {
        self.lock().nodes.insert(node.clone(), None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, two administrators who act at the same moment could give a node and a cluster
    /// one name, and jobs for one go to the other; or a name be of no use to anybody any more.
    #[test]
    fn a_name_is_given_to_one_kind_at_a_time() {
        let all = Clusters::default();
        let joins = all.name_for_node("n7.rennes").unwrap();
        let again = all.name_for_node("n7.rennes").unwrap();
        assert!(all.name_for_cluster("n7.rennes").is_none());
        assert!(all.name_for_cluster("c1.rennes").is_some(), "another name");
        drop(joins);
        assert!(all.name_for_cluster("n7.rennes").is_none(), "the machine asked twice");
        drop(again);
        let made = all.name_for_cluster("n7.rennes").unwrap();
        assert!(all.name_for_node("n7.rennes").is_none());
        drop(made);
        assert!(all.name_for_node("n7.rennes").is_some(), "it was not made");
    }
}
