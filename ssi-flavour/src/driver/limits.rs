//! CRIU runs with the tree's real ids, and root's effective ones. On a VO's volume root has no
//! rights, and who runs so acts there as the person. And where root lacks `CAP_SYS_RESOURCE`, as in
//! many containers, the kernel tells a tree's limits only to whose real ids are all those of the
//! process (prlimit(2); `check_prlimit_permission` in kernel/sys.c).
//!
//! What CRIU asks the kernel when it has no cache of the answers ends such a run: netfilter's
//! library leaves every program whose real and effective user differ (`xtables_init`, exit code
//! 111). So that cache is there before, made by a run with root's ids alone.

use super::criu::Criu;
use super::error::{DriverError, Step};
use super::explain::reason;
use super::{Cell, Tcp, proc};
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

/// Whose tree it is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whose {
    /// That of this process.
    Of(i32),
    /// That of this user.
    User(u32),
}

/// The ids that CRIU needs, if others than its own, and whether it can do without.
fn real_ids(whose: Whose) -> Result<(Option<RealIds>, bool)> {
    let own = proc::own_status()?;
    let ids = match whose {
        Whose::Of(root) => {
            let of = proc::status(root)?;
            RealIds { uid: of.uids[0], gid: of.gids[0] }
        }
        Whose::User(uid) => RealIds { uid, gid: own.gids[0] },
    };
    let ids = Some(ids).filter(|ids| *ids != RealIds { uid: own.uids[0], gid: own.gids[0] });
    Ok((ids, own.effective & SYS_RESOURCE != 0))
}

impl Criu {
    /// The real ids for saving or restoring a tree, once that can be done with them.
    pub(super) async fn ready_ids(
        &self,
        step: Step,
        whose: Whose,
        (cell, tcp): (Option<Cell>, Tcp),
    ) -> std::result::Result<Option<RealIds>, DriverError> {
        let ids = super::criu::blocking(move || real_ids(whose)).await?;
        let (ids, dispensable) = ids.map_err(DriverError::system("look whose tree it is"))?;
        if ids.is_none() {
            return Ok(None);
        }
        if tcp == Tcp::Established {
            // Locked by netfilter's library.
            if dispensable {
                return Ok(None);
            }
            return Err(DriverError::Refused {
                step,
                what: "connections of another user's program stay on a node where root lacks \
                       CAP_SYS_RESOURCE"
                    .to_owned(),
                next: "end the connections, or give the node's root that capability",
                log: None,
            });
        }
        match self.keep_cache(cell).await {
            Ok(()) => Ok(ids),
            Err(error) if dispensable => {
                tracing::warn!(%error, "programs with files on a volume do not move here");
                Ok(None)
            }
            Err(error) => Err(error),
        }
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
            "CRIU needs /{CACHE} to work with a person's real id, and did not write it: {cause}"
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
