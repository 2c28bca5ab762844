//! What becomes of the trees when a node's term ended: nothing that it ran under the term runs, or
//! ever will.

use super::messages::TreeId;
use super::trees::{Step, Tree, TreeRecord, TreeState, Trees, after_crash};
use crate::pids::NodeNumber;
use xos_base::Millis;

/// The trees of which the node had something. Those that were born there and are elsewhere go on
/// without their ghost.
pub(super) fn term_ended(
    trees: &Trees,
    node: NodeNumber,
    reason: &str,
    now: Millis,
) -> Vec<TreeRecord> {
    let mut out = Vec::new();
    for (tree, t) in trees.iter() {
        let home = t.home() == Some(node);
        if home && t.state.is_final() {
            out.push(TreeRecord::Forgotten { tree });
            continue;
        }
        // Before the end of the tree, so that nobody waits for a ghost to hear of it.
        if home {
            out.push(TreeRecord::Orphaned { tree });
        }
        if t.holding.as_ref().is_some_and(|h| h.node == node) {
            out.push(TreeRecord::NotHeld { tree, node, reason: reason.to_owned() });
        }
        out.extend(of_copies(tree, t, node, reason, now));
    }
    out
}

fn of_copies(
    tree: TreeId,
    t: &Tree,
    node: NodeNumber,
    reason: &str,
    now: Millis,
) -> Option<TreeRecord> {
    match &t.state {
        TreeState::Starting | TreeState::Running if t.node == node => {
            Some(after_crash(tree, t, reason, now))
        }
        TreeState::Leaving { image: None, .. } if t.node == node => {
            Some(after_crash(tree, t, reason, now))
        }
        // Its image is on the disk of that node alone: one before it may be elsewhere.
        TreeState::Leaving { image: Some(_), .. } if t.node == node => {
            let reason = reason.to_owned();
            Some(TreeRecord::Stayed { tree, reason, at: now })
        }
        TreeState::Moving { step, .. } if t.node == node => Some(match step {
            // The target may have all of it, and will say.
            Step::Restoring { .. } => TreeRecord::SourceLost { tree },
            Step::Dumping | Step::Undoing { .. } => after_crash(tree, t, reason, now),
        }),
        TreeState::Moving { to, step, .. } if *to == node => Some(match step {
            Step::Restoring { source_lost: true, .. } => after_crash(tree, t, reason, now),
            _ => TreeRecord::Undone { tree, reason: reason.to_owned() },
        }),
        TreeState::Restarting { to, reason, .. } if *to == node => {
            Some(TreeRecord::Waits { tree, reason: reason.clone(), at: now })
        }
        _ => None,
    }
}
