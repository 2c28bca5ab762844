//! What is kept at a node of trees whose spools are elsewhere: [`Second`].

use super::second::{Second, read, remove};
use super::spools::{Spools, locked};
use super::{KEPT_FILE, Kept};
use crate::cell::proto::Tree;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// In the folder of the spools: these folders.
const SECONDS_FOLDER: &str = "kept";

impl Spools {
    pub(super) fn second_folder(&self, tree: u64) -> PathBuf {
        self.folder.join(SECONDS_FOLDER).join(tree.to_string())
    }

    /// What is kept of a tree of user `owner`, whose spool is elsewhere; made if there is none.
    ///
    /// # Errors
    /// Those of the files.
    pub fn second(&self, tree: u64, owner: u32) -> io::Result<Arc<Mutex<Second>>> {
        let mut all = locked(&self.seconds);
        if let Some(second) = all.get(&tree) {
            return Ok(second.clone());
        }
        let second = Second::open(&self.second_folder(tree), owner, &self.quota)?;
        let second = Arc::new(Mutex::new(second));
        all.insert(tree, second.clone());
        Ok(second)
    }

    /// What is kept of a tree, if that is anything.
    pub(super) fn known_second(&self, tree: u64) -> io::Result<Option<Arc<Mutex<Second>>>> {
        match read::<Kept>(&self.second_folder(tree).join(KEPT_FILE))? {
            Some(kept) => self.second(tree, kept.owner).map(Some),
            None => Ok(None),
        }
    }

    /// Nothing of a tree is to be kept any more.
    ///
    /// # Errors
    /// Those of the files.
    pub fn forget_second(&self, tree: u64) -> io::Result<()> {
        let mut all = locked(&self.seconds);
        let Some(second) = all.remove(&tree) else {
            return remove(&self.second_folder(tree));
        };
        locked(&second).remove()
    }

    /// Removes what is kept of other trees than these.
    ///
    /// # Errors
    /// Those of the files.
    pub fn sweep_seconds(&self, kept: impl Fn(u64) -> bool) -> io::Result<()> {
        for tree in self.seconds()? {
            if !kept(tree) {
                self.forget_second(tree)?;
            }
        }
        Ok(())
    }

    /// The trees of which something is kept.
    pub(super) fn seconds(&self) -> io::Result<Vec<u64>> {
        let entries = match std::fs::read_dir(self.folder.join(SECONDS_FOLDER)) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut trees = Vec::new();
        for entry in entries {
            trees.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
        }
        Ok(trees)
    }

    /// What is kept of a tree becomes its spool, of the line with a number, unless bytes would be
    /// missing before those from which on its copy has them (`from`): then the spool begins there.
    /// A spool that is here from before goes. Whether nothing is missing.
    ///
    /// # Errors
    /// Those of the files.
    pub fn adopt(&self, tree: Tree, from: [u64; 2], line: u64) -> io::Result<bool> {
        let second = self.known_second(tree.id)?;
        let shared = self.state(tree.id);
        let mut state = locked(&shared);
        self.drop_spool(&mut state, tree.id)?;
        let mut adopted = false;
        if let Some(second) = second {
            locked(&self.seconds).remove(&tree.id);
            let folder = self.folder(tree.id);
            adopted = locked(&second).become_spool(tree.epoch, from, &folder)?;
            File::open(&self.folder)?.sync_all()?;
        }
        self.open_spool(&mut state, tree, from)?;
        state.renew(tree.epoch, line)?;
        Ok(adopted)
    }
}
