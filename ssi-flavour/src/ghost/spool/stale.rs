//! Spools that are not those of their trees any more.

use super::spools::{Spools, State, forget, locked};
use crate::cell::proto::Tree;
use std::io;
use std::net::Shutdown;

impl Spools {
    /// A spool that is here from before is not the tree's any more.
    pub(super) fn drop_spool(&self, state: &mut State, tree: u64) -> io::Result<()> {
        if let Some(relay) = state.relay.take() {
            // Its end may have come already.
            let _gone = relay.socket.shutdown(Shutdown::Both);
        }
        (state.spool, state.outcome) = (None, None);
        self.forget(tree)
    }

    /// Removes a spool that no copy after this one wrote to and no copy writes to now: its tree has
    /// another one.
    ///
    /// # Errors
    /// Those of the folder.
    pub fn unspool(&self, tree: Tree) -> io::Result<()> {
        let shared = self.state(tree.id);
        let mut state = locked(&shared);
        self.recall(&mut state, tree.id)?;
        let used = state.relay.is_some() || state.epoch > tree.epoch || state.outcome.is_some();
        if !used && !self.stands(tree.id) {
            self.drop_spool(&mut state, tree.id)?;
        }
        drop(state);
        forget(&self.open, tree.id, &shared);
        Ok(())
    }

    /// Whether a copy's relay is connected to a tree's spool.
    pub fn is_served(&self, tree: u64) -> bool {
        let shared = locked(&self.open).get(&tree).cloned();
        shared.is_some_and(|shared| locked(&shared).relay.is_some())
    }
}
