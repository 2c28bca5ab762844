//! Spools that are not those of their trees any more.

use super::spools::{Spools, State, forget, locked};
use super::{KEPT_FILE, OUTCOME_FILE};
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

    /// The spool that is here goes on as one of a line, with a newer copy.
    ///
    /// # Errors
    /// Those of the files.
    pub fn renew(&self, tree: Tree, line: u64) -> io::Result<()> {
        let shared = self.state(tree.id);
        let mut state = locked(&shared);
        self.recall(&mut state, tree.id)?;
        state.renew(tree.epoch, line)
    }

    /// The spool of a line is elsewhere: one that is here from before goes.
    ///
    /// # Errors
    /// That it is of this line or a later one: that it is elsewhere was said before. Those of the
    /// files.
    pub fn leave(&self, tree: u64, line: u64) -> io::Result<()> {
        let shared = self.state(tree);
        let mut state = locked(&shared);
        self.recall(&mut state, tree)?;
        if let Some(spool) = &state.spool {
            if spool.kept.line >= line || self.stands(tree) {
                return Err(io::Error::other("the tree's spool is here"));
            }
            self.drop_spool(&mut state, tree)?;
        }
        drop(state);
        forget(&self.open, tree, &shared);
        Ok(())
    }

    /// Whether the spool of a tree is here of which it is not known that it is over.
    pub fn is_unfinished(&self, tree: u64) -> bool {
        let folder = self.folder(tree);
        let over = folder.join(OUTCOME_FILE).exists() || self.stands(tree);
        folder.join(KEPT_FILE).exists() && !over
    }

    /// Whether a copy's relay is connected to a tree's spool.
    pub fn is_served(&self, tree: u64) -> bool {
        let shared = locked(&self.open).get(&tree).cloned();
        shared.is_some_and(|shared| locked(&shared).relay.is_some())
    }
}
