//! What the agent keeps on the disk, and what waits when that takes nothing: programs go on, and
//! the lease with them, but nothing new is begun that would be forgotten.

use super::{Host, KEPT_FILE};
use crate::cluster::agent::Act;
use crate::cluster::messages::{Order, ToController, ToNode, TreeId};
use std::collections::VecDeque;
use std::io;

impl Host {
    /// Does what the agent wants, once its state is on the disk.
    pub(super) async fn perform(&mut self, mut acts: Vec<Act>) -> io::Result<()> {
        self.tell_lease(&mut acts).await?;
        let mut left: VecDeque<Act> = std::mem::take(&mut self.waiting);
        left.extend(acts);
        while let Some(act) = left.pop_front() {
            let kept = self.keep()? && self.has_room(&act);
            if let Act::Kill { tree, epoch } = act {
                // What would have been done to it before.
                self.waiting.retain(|act| !is_of(act, tree, epoch));
            }
            if !is_done_at_once(&act) && (!kept || !self.waiting.is_empty()) {
                self.waiting.push_back(act);
                continue;
            }
            left.extend(self.act(act).await?);
        }
        if self.keep()? && self.waiting.is_empty() && std::mem::take(&mut self.paused) {
            tracing::info!("the disk takes what this node keeps of its cluster again");
        }
        Ok(())
    }

    /// The disk takes nothing: orders wait, what runs goes on.
    pub(super) fn pause(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.paused, true) {
            let folder = self.setup.folder.display();
            tracing::error!(
                %error,
                "the disk of {folder} does not take what this node keeps of its cluster: it begins \
                 nothing new until there is room"
            );
        }
    }

    /// Whether the disk has what of the agent is to outlive it. A host that begins ends the cell
    /// that it finds, and with it all copies, so that nothing of these is kept: starts, moves and
    /// ends wait for no disk.
    fn keep(&mut self) -> io::Result<bool> {
        let lasting = self.agent.lasting();
        if self.on_disk.as_ref() == Some(&lasting) {
            return Ok(true);
        }
        let kept = serde_json::json!({ "node": self.setup.node, "agent": lasting });
        let bytes = serde_json::to_vec(&kept)?;
        match crate::disk::replace(&self.setup.folder.join(KEPT_FILE), &bytes) {
            Ok(()) => {
                self.on_disk = Some(lasting);
                Ok(true)
            }
            Err(error) => {
                self.pause(&error);
                Ok(false)
            }
        }
    }

    /// Whether there is room for what an act begins, of which something is written before long.
    fn has_room(&mut self, act: &Act) -> bool {
        if !begins(act) {
            return true;
        }
        match crate::disk::has_room(&self.setup.folder) {
            Ok(()) => true,
            Err(error) => {
                self.pause(&error);
                false
            }
        }
    }
}

/// Whether it has something be written that was not there: output, or an image.
fn begins(act: &Act) -> bool {
    matches!(
        act,
        Act::Start { .. }
            | Act::Dump { .. }
            | Act::Save { .. }
            | Act::Restore { .. }
            | Act::Hold { .. }
    )
}

/// Whether it is done also when nobody would know of it afterwards: what runs is to go on, to stand
/// still or to end in time, and images that are removed make room.
fn is_done_at_once(act: &Act) -> bool {
    match act {
        Act::Freeze | Act::Thaw | Act::Kill { .. } | Act::Discard { .. } | Act::Unspool { .. } => {
            true
        }
        // Nothing is begun by it.
        Act::Expect { .. } => true,
        Act::Say(message) => !matches!(message, ToController::Facts { .. }),
        _ => false,
    }
}

/// Whether something is done to a copy.
fn is_of(act: &Act, id: TreeId, of: u64) -> bool {
    match act {
        Act::Start { tree, epoch }
        | Act::Resume { tree, epoch }
        | Act::Dump { tree, epoch, .. }
        | Act::Restore { tree, epoch, .. }
        | Act::Save { tree, epoch, .. }
        | Act::Spool { tree, epoch, .. } => (*tree, *epoch) == (id, of),
        _ => false,
    }
}

/// Takes from what the controller says all that would begin something. It says it again.
pub(super) fn without_new(message: &mut ToNode) {
    if let ToNode::Told { orders, .. } = message {
        let ends = |order: &Order| {
            matches!(order, Order::Kill { .. } | Order::Discard { .. } | Order::Unspool { .. })
        };
        orders.retain(ends);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_base::Millis;

    #[test]
    fn with_a_full_disk_the_lease_goes_on_and_what_is_to_end_ends() {
        // wrong: all programs of a node would end with its disk's last byte, or a cancelled one
        // run on, or what makes room wait for room
        let (tree, epoch, version) = (TreeId(7), 1, 2);
        let kill = Order::Kill { tree, epoch };
        let discard = Order::Discard { tree, version };
        let orders = vec![Order::Start { tree, epoch }, kill.clone(), discard.clone()];
        let mut told = ToNode::Told { term: 1, sent: Millis(5), orders };
        without_new(&mut told);
        let expected = ToNode::Told { term: 1, sent: Millis(5), orders: vec![kill, discard] };
        assert_eq!(told, expected);
        let join = Act::Say(ToController::Join { after: 0 });
        for act in [Act::Freeze, Act::Thaw, Act::Discard { tree, version }, join] {
            assert!(is_done_at_once(&act), "{act:?}");
        }
        let facts = Act::Say(ToController::Facts { term: 1, facts: vec![] });
        for act in [Act::Start { tree, epoch }, Act::Abandon, facts] {
            assert!(!is_done_at_once(&act), "{act:?}");
        }
        assert!(begins(&Act::Start { tree, epoch }) && !begins(&Act::Resume { tree, epoch }));
        assert!(is_of(&Act::Resume { tree, epoch }, tree, 1));
        assert!(!is_of(&Act::Resume { tree, epoch }, tree, 2));
    }
}
