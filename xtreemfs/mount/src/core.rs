//! The mount's state and the operations on names and attributes. Every one acts as one person; the
//! MRC decides, the mount only translates.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use fuser::{FileAttr, INodeNo, Notifier};
use tracing::warn;
use xtreemfs_client::{Attributes, Change, Error, Ino, Kind, Member, Statistics, Volume};

use crate::convert::{self, to_kernel, to_volume};
use crate::handles::Handles;
use crate::uidmap::UidMap;

/// How many inodes' last told attributes are remembered; when full, all are forgotten.
const TOLD_MAX: usize = 65_536;

/// How long the kernel may show attributes without asking.
const ATTRIBUTES_TTL: Duration = Duration::from_secs(1);

/// Attributes for the kernel, and how long it may go by them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown {
    pub(crate) attributes: FileAttr,
    pub(crate) ttl: Duration,
}

/// Everything the requests share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) volume: Volume,
    pub(crate) map: UidMap,
    pub(crate) handles: Handles,
    pub(crate) notifier: OnceLock<Notifier>,
    /// Size and times that the kernel has of an inode, to notice at open that they are old.
    told: Mutex<HashMap<Ino, (u64, i64, i64)>>,
    /// Files that somebody still has open to whom they were closed.
    closed: Mutex<HashSet<Ino>>,
    /// The last statistics that some person was given, for `df` by others.
    statistics: Mutex<Statistics>,
    /// The root's attributes likewise; `None` until a member has looked at it.
    root: Mutex<Option<Attributes>>,
}

impl Core {
    pub(crate) fn new(volume: Volume, map: UidMap) -> Core {
        Core {
            volume,
            map,
            handles: Handles::default(),
            notifier: OnceLock::new(),
            told: Mutex::default(),
            closed: Mutex::default(),
            statistics: Mutex::default(),
            root: Mutex::default(),
        }
    }

    /// Translates attributes for the kernel and remembers what it was told.
    pub(crate) fn tell(&self, attributes: &Attributes) -> Shown {
        {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.len() >= TOLD_MAX {
                told.clear();
            }
            told.insert(attributes.ino, stamp(attributes));
        }
        if attributes.ino == self.volume.root() {
            *self.root.lock().unwrap_or_else(PoisonError::into_inner) = Some(*attributes);
        }
        self.shown(attributes)
    }

    /// The kernel looks at each read of a cached page whether the attributes are new enough, and
    /// asks for the reader if not: so a file that was closed to somebody is asked for each time.
    fn shown(&self, attributes: &Attributes) -> Shown {
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        let ttl = if closed.contains(&attributes.ino) { Duration::ZERO } else { ATTRIBUTES_TTL };
        Shown { attributes: convert::attributes(attributes, &self.map), ttl }
    }

    /// Has the kernel drop what it holds of files that are closed to somebody who has them open.
    pub(crate) fn heed_closings(self: &Arc<Self>) {
        let core: Weak<Core> = Arc::downgrade(self);
        self.volume.on_closed(move |ino| {
            let Some(core) = core.upgrade() else { return };
            {
                let mut closed = core.closed.lock().unwrap_or_else(PoisonError::into_inner);
                if closed.len() >= TOLD_MAX {
                    closed.clear();
                }
                closed.insert(ino);
            }
            // It may wait for requests that need the runtime.
            tokio::task::spawn_blocking(move || core.invalidate(ino, 0));
        });
    }

    /// Makes the kernel ask again for attributes that an open showed to be old, before the open
    /// is answered: a reader then sees the size that the last close left.
    pub(crate) fn freshen(&self, attributes: &Attributes) {
        let same = {
            let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            told.get(&attributes.ino) == Some(&stamp(attributes))
        };
        if !same {
            self.invalidate(attributes.ino, -1);
        }
    }

    /// Drops what the kernel caches of an inode: attributes, and from `offset` on content
    /// (a negative offset leaves the content).
    pub(crate) fn invalidate(&self, ino: Ino, offset: i64) {
        let Some(notifier) = self.notifier.get() else { return };
        if let Err(error) = notifier.inval_inode(to_kernel(ino), offset, 0) {
            warn!(%ino, %error, "the kernel did not drop its cached attributes");
        }
    }

    /// The root as last seen, for those who have no rights here (`mount`, `df`). The MRC tells only
    /// members, so before one has looked it is made up, and the kernel, which keeps attributes for
    /// everybody, must not show that to a member.
    pub(crate) fn root_for_anyone(&self, ino: INodeNo) -> Option<Shown> {
        let root = self.volume.root();
        if to_volume(ino) != root {
            return None;
        }
        let seen = *self.root.lock().unwrap_or_else(PoisonError::into_inner);
        Some(match seen {
            Some(seen) => self.shown(&seen),
            None => Shown { ttl: Duration::ZERO, ..self.shown(&unseen_root(root)) },
        })
    }

    pub(crate) async fn lookup(
        &self,
        who: Member,
        parent: INodeNo,
        name: &[u8],
    ) -> Result<Shown, Error> {
        let parent = to_volume(parent);
        Ok(self.tell(&self.volume.lookup(who, parent, name).await?))
    }

    pub(crate) async fn attributes(&self, who: Member, ino: INodeNo) -> Result<Shown, Error> {
        let ino = to_volume(ino);
        Ok(self.tell(&self.volume.attributes(who, ino).await?))
    }

    /// Changes attributes; with a handle a change of size uses the right the handle was opened
    /// with (`ftruncate`).
    pub(crate) async fn change(
        &self,
        who: Member,
        ino: INodeNo,
        change: Change,
        handle: Option<u64>,
    ) -> Result<Shown, Error> {
        let ino = to_volume(ino);
        if let (Some(handle), Some(size)) = (handle, change.size) {
            let attributes = self.handles.file(handle)?.file.truncate(size).await?;
            let rest = Change { size: None, ..change };
            if rest == Change::default() {
                return Ok(self.tell(&attributes));
            }
            return Ok(self.tell(&self.volume.change(who, ino, rest).await?));
        }
        Ok(self.tell(&self.volume.change(who, ino, change).await?))
    }

    pub(crate) async fn read_link(&self, who: Member, ino: INodeNo) -> Result<Vec<u8>, Error> {
        let target = self.volume.read_link(who, to_volume(ino)).await?;
        Ok(target.to_vec())
    }

    pub(crate) async fn make_directory(
        &self,
        who: Member,
        parent: INodeNo,
        name: &[u8],
        mode: u32,
    ) -> Result<Shown, Error> {
        let parent = to_volume(parent);
        Ok(self.tell(&self.volume.make_directory(who, parent, name, mode & 0o7777).await?))
    }

    pub(crate) async fn symlink(
        &self,
        who: Member,
        parent: INodeNo,
        name: &[u8],
        target: &[u8],
    ) -> Result<Shown, Error> {
        let parent = to_volume(parent);
        Ok(self.tell(&self.volume.symlink(who, parent, name, target).await?))
    }

    pub(crate) async fn unlink(
        &self,
        who: Member,
        parent: INodeNo,
        name: &[u8],
    ) -> Result<(), Error> {
        self.volume.unlink(who, to_volume(parent), name).await
    }

    pub(crate) async fn remove_directory(
        &self,
        who: Member,
        parent: INodeNo,
        name: &[u8],
    ) -> Result<(), Error> {
        self.volume.remove_directory(who, to_volume(parent), name).await
    }

    pub(crate) async fn rename(
        &self,
        who: Member,
        from: (INodeNo, &[u8]),
        to: (INodeNo, &[u8]),
        no_replace: bool,
    ) -> Result<(), Error> {
        let from = (to_volume(from.0), from.1);
        let to = (to_volume(to.0), to.1);
        self.volume.rename(who, from, to, no_replace).await
    }

    pub(crate) async fn access(&self, who: Member, ino: INodeNo, mask: u32) -> Result<(), Error> {
        self.volume.access(who, to_volume(ino), mask).await
    }

    pub(crate) async fn statistics(&self, who: Member) -> Result<Statistics, Error> {
        let statistics = self.volume.statistics(who).await?;
        *self.statistics.lock().unwrap_or_else(PoisonError::into_inner) = statistics;
        Ok(statistics)
    }

    /// The statistics last given to somebody, for those who have no rights here.
    pub(crate) fn statistics_for_anyone(&self) -> Statistics {
        *self.statistics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamp(attributes: &Attributes) -> (u64, i64, i64) {
    (attributes.size, attributes.modified_ns, attributes.changed_ns)
}

/// What a root looks like that no member has looked at yet.
fn unseen_root(ino: Ino) -> Attributes {
    Attributes {
        ino,
        kind: Kind::Directory,
        mode: 0o755,
        links: 2,
        owner: u32::MAX,
        group: u32::MAX,
        size: 0,
        accessed_ns: 0,
        modified_ns: 0,
        changed_ns: 0,
    }
}
