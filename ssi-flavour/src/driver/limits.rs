//! Seeing a tree's limits where root may not, as in many containers: without `CAP_SYS_RESOURCE`
//! the kernel tells them only to whose real ids are all those of the process (prlimit(2);
//! `check_prlimit_permission` in kernel/sys.c). CRIU then runs with the tree's real ids, and
//! root's effective ones.
//!
//! What CRIU asks the kernel when it has no cache of the answers ends such a run: netfilter's
//! library leaves every program whose real and effective user differ (`xtables_init`, exit code
//! 111). So that cache is there before, made by a run with root's ids alone; and connections are
//! kept still without netfilter ([`super::net`]).

use super::criu::Criu;
use super::error::DriverError;
use super::explain::reason;
use super::{Cell, DumpOrder, proc};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use std::io::{ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `CAP_SYS_RESOURCE` (capabilities(7)), as a bit of `CapEff`.
const SYS_RESOURCE: u64 = 1 << 24;
/// Where CRIU keeps what it knows of the kernel, and what it writes first; it leaves the second
/// behind where it keeps none, and then never keeps one.
const CACHE: &str = "run/criu.kdat";
const NEW_CACHE: &str = "run/criu.kdat.tmp";
/// When nobody writes a new cache any more.
const ABANDONED: Duration = Duration::from_secs(60);

/// Real user and group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RealIds {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Those that CRIU needs for the tree of process `root`; `None`: it needs none but its own.
pub(super) fn real_ids(root: i32) -> Result<Option<RealIds>> {
    let (own, of) = (proc::own_status()?, proc::status(root)?);
    if own.effective & SYS_RESOURCE != 0 {
        return Ok(None);
    }
    let ids = RealIds { uid: of.uids[0], gid: of.gids[0] };
    Ok(Some(ids).filter(|ids| *ids != RealIds { uid: own.uids[0], gid: own.gids[0] }))
}

impl Criu {
    /// The real ids for saving a tree, once it can be saved with them.
    pub(super) async fn ready_ids(
        &self,
        order: &DumpOrder,
    ) -> std::result::Result<Option<RealIds>, DriverError> {
        let root = order.root;
        let ids = super::criu::blocking(move || real_ids(root)).await?;
        let ids = ids.map_err(DriverError::system(format!("look at process {root}")))?;
        if ids.is_none() {
            return Ok(None);
        }
        self.keep_cache(order.cell).await?;
        Ok(ids)
    }

    /// Makes CRIU's cache in a cell, if it has none.
    async fn keep_cache(&self, cell: Option<Cell>) -> std::result::Result<(), DriverError> {
        let root =
            cell.map_or("/".into(), |cell| PathBuf::from(format!("/proc/{}/root", cell.pid)));
        let _one = self.caching.lock().await;
        let looking = || DriverError::system("look for CRIU's cache");
        if root.join(CACHE).try_exists().map_err(looking())? {
            return Ok(());
        }
        remove_abandoned(&root.join(NEW_CACHE)).map_err(DriverError::system(format!(
            "remove /{NEW_CACHE}, which a CRIU left behind"
        )))?;
        let (_, said) = self.ask(cell, &["check", "--no-default-config"]).await?;
        if root.join(CACHE).try_exists().map_err(looking())? {
            return Ok(());
        }
        let run = root.join("run");
        let disk = statfs(&run).map_err(|e| looking()(e.into()))?.filesystem_type() != TMPFS_MAGIC;
        let cause = match disk {
            true => "/run is no tmpfs".to_owned(),
            false => reason(&said),
        };
        let why = format!(
            "root lacks CAP_SYS_RESOURCE, so that CRIU needs /{CACHE}, which it did not write: \
             {cause}"
        );
        Err(DriverError::Unable { why })
    }
}

/// Removes a file that nobody writes any more.
fn remove_abandoned(path: &Path) -> Result<()> {
    let removed = match path.symlink_metadata().and_then(|metadata| metadata.modified()) {
        // In the future: the clock was set.
        Ok(modified) if modified.elapsed().is_ok_and(|age| age < ABANDONED) => return Ok(()),
        Ok(_) => std::fs::remove_file(path),
        Err(e) => Err(e),
    };
    removed.or_else(|e| if e.kind() == ErrorKind::NotFound { Ok(()) } else { Err(e) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::time::SystemTime;

    #[test]
    fn only_an_old_new_cache_is_removed() {
        // wrong: another CRIU's would be torn, or one left behind would keep all caches away
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tmp");
        remove_abandoned(&path).unwrap();
        let file = File::create(&path).unwrap();
        remove_abandoned(&path).unwrap();
        assert!(path.exists());
        file.set_modified(SystemTime::now() - 2 * ABANDONED).unwrap();
        remove_abandoned(&path).unwrap();
        assert!(!path.exists());
    }
}
