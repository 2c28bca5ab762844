//! VOs that are erased: their volumes go at the MRC, their objects at every object server.

use super::Files;
use crate::daemon::durable;
use std::collections::{BTreeSet, HashMap};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use xos_api::node::{ERASED_VOS_MAX, EraseVolumes};
use xos_base::{Error, NodeId, VoId};
use xtreemfs_proto::Errno;

/// The VOs that are erased, kept in a file, and which nodes know of them.
pub(super) struct Erased {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// It only grows.
    vos: BTreeSet<VoId>,
    /// How many of them each node has confirmed since it connected.
    told: HashMap<NodeId, usize>,
}

impl Erased {
    /// Those in the file `path`.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when it cannot be read: what is to be erased must not stay.
    pub(super) fn open(path: PathBuf) -> Result<Erased, Error> {
        let damaged =
            |e: &dyn std::fmt::Display| Error::internal(format!("{}: {e}", path.display()));
        let vos = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|e| damaged(&e))?,
            Err(e) if e.kind() == ErrorKind::NotFound => BTreeSet::new(),
            Err(e) => return Err(damaged(&e)),
        };
        let state = Mutex::new(State { vos, told: HashMap::new() });
        Ok(Erased { path, state })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has(&self, vo: &VoId) -> bool {
        self.lock().vos.contains(vo)
    }

    /// Notes one; durable on return.
    fn note(&self, vo: &VoId) -> Result<(), Error> {
        let mut state = self.lock();
        if state.vos.contains(vo) {
            return Ok(());
        }
        let mut vos = state.vos.clone();
        vos.insert(vo.clone());
        let text = serde_json::to_vec(&vos)
            .map_err(|e| Error::internal(format!("cannot write {}: {e}", self.path.display())))?;
        durable::replace(&self.path, text)?;
        state.vos = vos;
        Ok(())
    }

    /// A node connected: it may have been away, or be another machine.
    pub(super) fn anew(&self, node: &NodeId) {
        self.lock().told.remove(node);
    }

    /// What a node has yet to be told.
    fn owed(&self, node: &NodeId) -> Vec<VoId> {
        let state = self.lock();
        if state.told.get(node).copied().unwrap_or(0) == state.vos.len() {
            return Vec::new();
        }
        state.vos.iter().cloned().collect()
    }

    fn confirmed(&self, node: &NodeId, count: usize) {
        self.lock().told.insert(node.clone(), count);
    }
}

impl Files {
    /// Erases what is kept for a VO: at its home the volume, at every node of this site its
    /// objects; at those that are away when they come back. To be called once the VO's own log,
    /// which its home signs, says that it is erased. Calling it again does nothing.
    ///
    /// # Errors
    /// [`xos_base::Kind::Conflict`] while the VO has accounts here; when it cannot be noted.
    pub async fn erase(&self, vo: &VoId) -> Result<(), Error> {
        if self.erased.has(vo) {
            return Ok(());
        }
        if self.parts.vom.kept().iter().any(|kept| kept.vo == *vo) {
            return Err(Error::conflict(format!("{vo} still has accounts here")));
        }
        self.erased.note(vo)?;
        self.carry_out().await;
        Ok(())
    }

    /// What of it is left to do; what fails is tried again the next time.
    pub(super) async fn carry_out(&self) {
        if let Err(e) = self.delete_volumes().await {
            tracing::warn!(error = %e, "the volume of a VO that is erased is still there");
        }
        let told = self.parts.nodes.connected().into_iter().map(|node| async move {
            if let Err(e) = self.tell(&node).await {
                tracing::warn!(%node, error = %e, "a node still keeps objects of erased VOs");
            }
        });
        futures_util::future::join_all(told).await;
    }

    async fn tell(&self, node: &NodeId) -> Result<(), Error> {
        let vos = self.erased.owed(node);
        for part in vos.chunks(ERASED_VOS_MAX) {
            self.parts.nodes.call(node, EraseVolumes { vos: part.to_vec() }).await?;
        }
        if !vos.is_empty() {
            self.erased.confirmed(node, vos.len());
        }
        Ok(())
    }

    /// One that cannot be deleted keeps no other; the last error is told.
    async fn delete_volumes(&self) -> Result<(), Error> {
        let fault = |e: xtreemfs_proto::RpcError| Error::internal(format!("volumes: {e}"));
        let mut last = Ok(());
        for volume in self.mrc.volumes().map_err(fault)? {
            if !volume.vo.parse().is_ok_and(|vo| self.erased.has(&vo)) {
                continue;
            }
            match self.mrc.delete_volume(&volume.id).await {
                Ok(()) => tracing::info!(vo = volume.vo, "volume deleted"),
                Err(e) if e.errno == Errno::ENOENT => {}
                Err(e) => last = Err(fault(e)),
            }
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a VO that is erased would come back with a restart of the core, or a node that
    /// was away would keep its objects for ever.
    #[test]
    fn what_is_erased_stays_so_and_each_node_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("erased.json");
        let (old, older): (VoId, VoId) =
            ("old.rennes".parse().unwrap(), "older.pisa".parse().unwrap());
        let (here, away): (NodeId, NodeId) =
            ("n1.rennes".parse().unwrap(), "n2.rennes".parse().unwrap());
        let erased = Erased::open(path.clone()).unwrap();
        assert!(erased.owed(&here).is_empty());
        erased.note(&old).unwrap();
        erased.note(&old).unwrap();
        assert_eq!(erased.owed(&here), std::slice::from_ref(&old));
        erased.confirmed(&here, 1);
        assert!(erased.owed(&here).is_empty());
        assert_eq!(erased.owed(&away), std::slice::from_ref(&old));
        erased.note(&older).unwrap();
        assert_eq!(erased.owed(&here).len(), 2, "another one");
        erased.confirmed(&here, 2);
        erased.anew(&here);
        assert_eq!(erased.owed(&here).len(), 2, "it came back");
        let again = Erased::open(path.clone()).unwrap();
        assert!(again.has(&old) && again.has(&older));
        std::fs::write(&path, "{").unwrap();
        assert!(Erased::open(path).is_err(), "nothing is forgotten in silence");
    }
}
