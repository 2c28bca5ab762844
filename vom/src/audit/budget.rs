//! How much of the audit nodes may fill: whoever is root on one could fill the core's disk with
//! what never happened.

use std::collections::HashMap;
use std::time::Duration;
use xos_api::audit::Event;
use xos_base::{Millis, NodeId};

/// How many events of one node are taken a second, over a long time. One counts for each started
/// KiB of its texts.
pub const NODE_EVENTS_PER_S: u64 = 100;
/// How many are taken at once: what a node kept while its core did not answer.
pub const NODE_EVENTS_BURST: u64 = 100_000;
/// How often it is told of one node that it is over that.
const TOLD_EVERY: Duration = Duration::from_secs(3600);

/// Whether a report is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is.
    Taken,
    /// The node must wait.
    Over,
    /// The same, and that is to be noted.
    OverAndTold,
}

/// What each node may still report.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    nodes: HashMap<NodeId, Left>,
}

#[derive(Debug)]
struct Left {
    /// In thousandths of an event.
    milli: u64,
    at: Millis,
    told: Option<Millis>,
}

impl Budget {
    /// Takes `events` of a node at `now`, or none of them.
    pub(crate) fn take(&mut self, node: &NodeId, events: &[Event], now: Millis) -> Verdict {
        let full = NODE_EVENTS_BURST * 1000;
        let fresh = || Left { milli: full, at: now, told: None };
        let left = self.nodes.entry(node.clone()).or_insert_with(fresh);
        // An event a second is a thousandth of one a millisecond.
        let since = u64::try_from(now.since(left.at).as_millis()).unwrap_or(u64::MAX);
        let gained = since.saturating_mul(NODE_EVENTS_PER_S);
        left.milli = left.milli.saturating_add(gained).min(full);
        left.at = now;
        let wanted = cost(events);
        if wanted <= left.milli {
            left.milli -= wanted;
            return Verdict::Taken;
        }
        if left.told.is_some_and(|t| now.since(t) < TOLD_EVERY) {
            return Verdict::Over;
        }
        left.told = Some(now);
        Verdict::OverAndTold
    }

    /// What was taken could not be stored: the node will report it again.
    pub(crate) fn give_back(&mut self, node: &NodeId, events: u64) {
        if let Some(left) = self.nodes.get_mut(node) {
            left.milli = left.milli.saturating_add(events).min(NODE_EVENTS_BURST * 1000);
        }
    }
}

/// What events cost of a node's part.
pub(crate) fn cost(events: &[Event]) -> u64 {
    events.iter().map(weight).sum::<u64>().saturating_mul(1000)
}

fn weight(event: &Event) -> u64 {
    let bytes = event.what.len() + event.who.len() + event.on.len() + event.why.len();
    1 + bytes as u64 / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a rooted node would fill the core's disk; or an honest one could not tell what
    /// it kept while its core was away.
    #[test]
    fn a_node_fills_no_more_than_its_part() {
        let mut budget = Budget::default();
        let [n1, n2]: [NodeId; 2] = ["n1.rennes", "n2.rennes"].map(|n| n.parse().unwrap());
        let events = vec![Event::new(Millis(1), "start_unit"); 500];
        let at = Millis::from_secs(1000);
        let mut taken = 0;
        while budget.take(&n1, &events, at) == Verdict::Taken {
            taken += 500;
        }
        assert_eq!(taken, NODE_EVENTS_BURST);
        assert_eq!(budget.take(&n1, &events, at), Verdict::Over, "it is told once");
        assert_eq!(budget.take(&n2, &events, at), Verdict::Taken, "others are not held up");
        let later = at.plus(Duration::from_secs(500 / NODE_EVENTS_PER_S));
        assert_eq!(budget.take(&n1, &events, later), Verdict::Taken);
        assert_eq!(budget.take(&n1, &events, later), Verdict::Over);
        budget.give_back(&n1, cost(&events));
        assert_eq!(budget.take(&n1, &events, later), Verdict::Taken, "it was not stored");
        // A clock set back gives nothing.
        assert_eq!(budget.take(&n1, &events, at), Verdict::Over);
        let long = Event { why: "x".repeat(2000), ..Event::new(Millis(1), "x") };
        assert_eq!(weight(&long), 2);
    }
}
