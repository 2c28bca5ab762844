//! When nodes were heard.

use crate::pids::NodeNumber;
use std::collections::BTreeMap;
use xos_base::Millis;

/// When each node was heard. Not stored: a controller that begins anew takes all of them as heard
/// when it began, for any of them may have been answered just before.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    nodes: BTreeMap<NodeNumber, (Millis, Option<Millis>)>,
}

impl Heard {
    /// A heartbeat came at `now`, sent at `sent` by the node's clock; none: the node joined, or may
    /// have been heard by the controller before this one.
    pub fn note(&mut self, node: NodeNumber, now: Millis, sent: Option<Millis>) {
        let (at, newest) = self.nodes.entry(node).or_insert((now, sent));
        *at = now.max(*at);
        // A late one does not shorten what a newer one gave.
        *newest = sent.map(|sent| newest.map_or(sent, |n| n.max(sent)));
    }

    /// Since when it is silent.
    pub fn at(&self, node: NodeNumber) -> Option<Millis> {
        self.nodes.get(&node).map(|(at, _)| *at)
    }

    /// When its newest heartbeat was sent, by its clock.
    pub fn sent(&self, node: NodeNumber) -> Option<Millis> {
        self.nodes.get(&node).and_then(|(_, sent)| *sent)
    }

    /// Its term ended.
    pub fn forget(&mut self, node: NodeNumber) {
        self.nodes.remove(&node);
    }
}
