//! The folder of a node's objects, which must be the same at each start.

use crate::daemon::durable;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use xos_base::NodeId;
use xtreemfs_server::osd::{ObjectsError, Osd, OsdParts};

/// Says that the node had an object server, and which.
fn id_file(folder: &Path) -> PathBuf {
    folder.join("osd.id")
}

fn has_objects(folder: &Path, node: &str) -> std::io::Result<bool> {
    match std::fs::read_to_string(id_file(folder)) {
        Ok(id) => Ok(id.trim() == node),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Whether `node` is the one whose state lies in `folder`, and has an object server.
pub fn is_own(folder: &Path, node: &NodeId) -> bool {
    has_objects(folder, node.as_str()).unwrap_or_else(|e| {
        tracing::warn!(error = %e, "cannot read this node's object server id");
        false
    })
}

/// Opens the object store in `path`. A node that had one before takes no other folder for it: with
/// its disk not mounted it would serve zeros for every file.
pub fn open(path: &Path, folder: &Path, mut parts: OsdParts) -> Result<Arc<Osd>, String> {
    let node = parts.id.clone();
    let known = id_file(folder);
    let told = |e: std::io::Error| format!("{}: {e}", known.display());
    parts.had_objects = has_objects(folder, &node).map_err(told)?;
    if parts.had_objects {
        return Osd::open(path, parts).map_err(|e| match e {
            ObjectsError::Missing { .. } => format!(
                "{e} To begin anew there, without the objects kept before, remove {} first",
                known.display()
            ),
            e => e.to_string(),
        });
    }
    if let Some(above) = path.parent() {
        std::fs::create_dir_all(above).map_err(|e| format!("{}: {e}", above.display()))?;
    }
    let osd = Osd::open(path, parts).map_err(|e| e.to_string())?;
    // Only now, so that a crash in between does not leave a node that looks for objects in vain.
    durable::replace(&known, node.as_bytes()).map_err(|e| e.to_string())?;
    Ok(osd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use xtreemfs_server::osd::{NoKey, VolumeTrust, WriteVerifier};
    use xtreemfs_server::{Epochs, PublicKey, VoName, VolumeId};

    struct Nobody;

    #[async_trait::async_trait]
    impl VolumeTrust for Nobody {
        async fn volume_key(&self, _: &VoName, _: &VolumeId) -> Result<PublicKey, NoKey> {
            Err(NoKey::NotServed)
        }

        fn barrier(&self, _: &VoName, _: &VolumeId) -> u64 {
            0
        }
    }

    impl Epochs for Nobody {
        fn least_valid(&self, _: &str, _: u32) -> Option<u64> {
            None
        }
    }

    /// Else a node whose object disk is not mounted serves zeros for every file, and takes new
    /// objects on the wrong disk; and the error must say what to look at.
    #[test]
    fn a_node_does_not_take_an_empty_folder_for_its_objects() {
        let dir = tempfile::tempdir().unwrap();
        let (state, disk) = (dir.path().join("node"), dir.path().join("disk/objects"));
        std::fs::create_dir_all(&state).unwrap();
        let open = || {
            let parts = OsdParts {
                id: "n1.rennes".into(),
                trust: Arc::new(Nobody),
                epochs: Arc::new(Nobody),
                clock: Arc::new(xtreemfs_server::SystemClock),
                had_objects: false,
                reserve_bytes: 0,
                verifier: WriteVerifier(1),
            };
            super::open(&disk, &state, parts).map(drop)
        };
        open().unwrap();
        assert_eq!(std::fs::read(id_file(&state)).unwrap(), b"n1.rennes");
        open().unwrap();
        // Unmounted: the mount point is there, and empty.
        std::fs::rename(&disk, dir.path().join("elsewhere")).unwrap();
        std::fs::create_dir(&disk).unwrap();
        let error = open().unwrap_err();
        assert!(error.contains("is its disk mounted") && error.contains("osd.id"), "{error}");
        assert!(std::fs::read_dir(&disk).unwrap().next().is_none(), "it wrote there");
        std::fs::remove_file(id_file(&state)).unwrap();
        open().unwrap();
    }
}
