//! Ends of trees. A process that hangs in the kernel is waited for in a task of its own: the others
//! go on meanwhile, and the tree is ended only when all of it is.

use super::cell::Calls;
use super::{Event, Held, Host, wait};
use crate::cell::CallError;
use crate::cell::proto::{Exit, Tree};
use crate::cluster::agent::Act;
use crate::cluster::messages::TreeId;
use crate::ghost::proto::Steer;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// From one look to the next whether all of a tree has ended, at first and at most.
const LOOK_MIN: Duration = Duration::from_millis(5);
const LOOK_MAX: Duration = Duration::from_secs(1);
/// When a tree that does not die is spoken of.
const HANGS: Duration = Duration::from_secs(20);

impl Host {
    /// Ends a copy, or what is being made of it; then [`Event::Killed`].
    pub(super) fn kill(&mut self, id: TreeId, epoch: u64) {
        let tree = Tree { id: id.0, epoch };
        if let Some(c) = self.coming(id, epoch) {
            // When it is there. What makes it may be waiting for something.
            c.dying = true;
            if let Some((_, fetch)) = &c.image {
                fetch.give_up();
                return;
            }
            let calls = self.calls.clone();
            tokio::task::spawn_blocking(move || {
                if let Err(error) = calls.end(tree) {
                    tracing::warn!(%tree, %error, "the cell does not end what is being started");
                }
            });
            return;
        }
        self.put_off.remove(&id);
        self.preparing.remove(&id);
        let held = match self.copies.get(&id) {
            Some(c) if c.epoch == epoch => self.copies.remove(&id),
            _ => None,
        };
        if let Some(link) = held.as_ref().and_then(|c| c.link.as_ref()) {
            // Its peers do not hear that it ends: the tree may go on elsewhere.
            link.open(false);
        }
        if let Some(work) = held.as_ref().and_then(|c| c.work.as_ref()) {
            self.give_up(work);
        }
        if self.setup.spools.is_unfinished(id.0) {
            // The tree may have one elsewhere before long.
            self.left.insert(id, epoch);
        }
        self.end(tree, held);
    }

    /// Ends all of a tree in the cell, however long that takes; with it goes what the copy has of
    /// this process, after the processes.
    pub(super) fn end(&self, tree: Tree, held: Option<Held>) {
        let (calls, events) = (self.calls.clone(), self.events.clone());
        let groups = self.groups.clone();
        tokio::spawn(async move {
            let (mut pause, mut waited) = (LOOK_MIN, Duration::ZERO);
            // A host that is gone has no programs: the cell ends with it.
            while !events.is_closed() {
                let calls = calls.clone();
                let asked = wait(move || calls.end(tree)).await;
                let why = match asked.map_err(CallError::from).flatten() {
                    Ok(left) if left.is_empty() => break,
                    Ok(left) => format!("its processes {left:?} hang in the kernel"),
                    Err(e) => e.to_string(),
                };
                if waited >= HANGS {
                    tracing::warn!(%tree, why, "it does not die, and is waited for");
                    waited = Duration::ZERO;
                }
                tokio::time::sleep(pause).await;
                (waited, pause) = (waited + pause, (pause * 2).min(LOOK_MAX));
            }
            // That of a shell's /proc waits for the cell.
            let gone = move || {
                groups.close(tree);
                drop(held);
            };
            let _dropped = wait(gone).await;
            let _gone = events.send(Event::Killed { tree });
        });
    }

    /// The first process of a copy ended by itself, or could not begin.
    pub(super) fn exited(&mut self, tree: Tree, exit: Exit) -> Vec<Act> {
        let id = TreeId(tree.id);
        if let Some(c) = self.coming(id, tree.epoch) {
            // Until it is known that it is there.
            c.exit = Some(exit);
            return Vec::new();
        }
        let Some(c) = self.copy(id, tree.epoch) else { return Vec::new() };
        c.exit = Some(exit);
        // It ends with its last output; of a copy that never ran there is none.
        c.streaming.tell(Steer::Exited { exit });
        if c.runs { Vec::new() } else { self.ended(tree) }
    }
}

/// Has all of a tree stand still. The cell's init does so by itself when the lease is over, with
/// what makes processes too fast now, too.
pub(super) async fn halt(calls: Arc<Calls>, tree: Tree) -> io::Result<()> {
    match wait(move || calls.halt(tree)).await? {
        Ok(()) => Ok(()),
        Err(CallError::Refused(why)) => {
            tracing::warn!(%tree, %why, "it does not stand still yet");
            Ok(())
        }
        Err(CallError::Link(e)) => Err(e),
    }
}
