//! What must be so.

use super::*;

impl World {
    pub(super) fn two_live(&self) {
        for tree in self.births.keys() {
            let live: Vec<String> = self
                .nodes
                .iter()
                .filter(|(_, n)| n.is_live(*tree))
                .map(|(n, node)| format!("{n} (epoch {})", node.procs[tree].epoch))
                .collect();
            assert!(live.len() < 2, "tree {tree} lives on {} at {}", live.join(" and "), self.t);
        }
    }

    pub(super) fn look_at_copies(&mut self) {
        let Some(controller) = &self.controller else { return };
        for (tree, t) in controller.state().trees.iter().filter(|(_, t)| !t.state.is_final()) {
            let Some(of) = t.checkpoint.as_ref().filter(|_| t.restartable) else { continue };
            // One that is elsewhere too is let go of at nodes, and does not stay there for ever.
            if of.shared {
                self.copied.remove(&tree);
            } else if of.nodes.len() >= COPIES {
                self.copied.insert(tree);
            }
        }
    }

    pub(super) fn is_over(&self) -> bool {
        let Some(controller) = &self.controller else { return false };
        controller.state().trees.iter().next().is_none()
            && controller.state().trees.queue().is_empty()
            && self.nodes.values().all(|n| n.procs.is_empty())
            && self.nodes.values().all(|n| n.ghosts.is_disjoint(&self.forsaken))
    }

    pub(super) fn check(&self) {
        let Some(controller) = &self.controller else { panic!("no controller") };
        if let Some((id, t)) = controller.state().trees.iter().next() {
            panic!("tree {id} hangs: {:?}, confirmed {}", t.state, t.confirmed);
        }
        assert!(controller.state().trees.queue().is_empty(), "something waits for ever");
        assert_eq!(
            self.costs.under_way().count(),
            0,
            "moves of trees that are over are waited for"
        );
        for (n, node) in &self.nodes {
            assert!(node.procs.is_empty(), "{n} keeps copies of trees that are over");
            let waits = !node.ghosts.is_disjoint(&self.forsaken);
            assert!(!waits, "a ghost at {n} waits for a tree that nobody knows");
        }
        let log = || self.log.iter().chain(&self.over).flat_map(Record::parts);
        let failed = log().any(|r| {
            matches!(r, Record::Member(MemberRecord::Became { state: NodeState::Failed, .. }))
        });
        let mut ends: BTreeMap<TreeId, Outcome> = BTreeMap::new();
        for r in log() {
            let (tree, outcome) = match r {
                Record::Tree(TreeRecord::Ended { tree, end, .. }) => (*tree, Outcome::Ended(*end)),
                Record::Tree(TreeRecord::Lost { tree, reason }) => {
                    self.check_lost(*tree, reason, failed);
                    (*tree, Outcome::Lost { reason: reason.clone() })
                }
                _ => continue,
            };
            let waited = self.killed.contains(&tree) && !self.started.contains(&tree);
            if let Outcome::Ended(end) = &outcome
                && !waited
            {
                assert_eq!(*end, End::Exit { code: 0 }, "tree {tree}: nobody killed it");
                let received = self.intakes.get(&tree).map_or(0, |i| i.received);
                assert_eq!(received, self.goals[&tree], "tree {tree}: output is missing");
                self.check_spool(tree);
            }
            assert!(ends.insert(tree, outcome).is_none(), "tree {tree} ended twice");
        }
        let ended: BTreeSet<TreeId> = ends.keys().copied().collect();
        let known: BTreeSet<TreeId> = self.known.difference(&self.forsaken).copied().collect();
        assert_eq!(ended, known, "a tree is gone without an end");
        for (tree, outcome) in self.finished.iter().filter(|(t, _)| !self.forsaken.contains(t)) {
            assert_eq!(ends.get(tree), Some(outcome), "tree {tree}: its ghost knows better");
        }
    }

    /// All that the tree wrote is in its spool, unless nobody had what was before.
    fn check_spool(&self, tree: TreeId) {
        let home = self.homes.get(&tree).map_or(self.births[&tree], |(_, node)| *node);
        let node = &self.nodes[&home];
        if node.dead {
            return;
        }
        let part = node.spools.spool(tree);
        let part = part.unwrap_or_else(|| panic!("tree {tree}: {home} has no spool"));
        assert_eq!(part.ends, self.goals[&tree], "tree {tree}: its spool lacks its end");
        let whole = part.begins == 0 || self.lossy.contains(&tree);
        assert!(whole, "tree {tree}: its spool begins at {}", part.begins);
    }

    /// Of what a tree had written until an offset none of the nodes that are reached has all, in
    /// the tree's last spool, when a new one begins without.
    pub(super) fn is_nowhere(
        &self,
        tree: TreeId,
        upto: u64,
        here: NodeNumber,
        reached: &BTreeMap<NodeNumber, Spools>,
    ) {
        let trees = self.controller.as_ref().map(|c| &c.state().trees);
        if !trees.is_some_and(|all| all.tree(tree).is_some_and(|t| t.restartable)) {
            return;
        }
        let last = self.homes.get(&tree).map_or(self.births[&tree], |(_, node)| *node);
        let part = reached.get(&last).filter(|_| last != here).and_then(|of| of.spool(tree));
        let has = part.is_some_and(|part| part.begins == 0 && part.ends >= upto);
        assert!(!has, "tree {tree}: {last} has what a spool at {here} begins without");
    }

    /// How many trees lost their spools and nothing of what they had written.
    pub(in crate::cluster::sim) fn taken_over(&self) -> usize {
        self.taken.difference(&self.lossy).count()
    }

    fn check_lost(&self, tree: TreeId, reason: &str, failed: bool) {
        if reason.contains("not served any more") {
            assert!(!self.started.contains(&tree), "tree {tree} is lost, and ran");
            return;
        }
        assert!(failed && !reason.is_empty(), "tree {tree} is lost: {reason}");
        // No more than one node was lost for good.
        let copied = self.copied.contains(&tree) && !reason.contains("restarts failed");
        assert!(!copied, "tree {tree} is lost, and two nodes had a checkpoint of it: {reason}");
    }
}
