//! What all users of one volume share: the MRC, the cached directories and the open inodes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures_util::stream::{self, StreamExt};
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tracing::{debug, error, warn};

use crate::closings::Closings;
use crate::file::File;
use crate::file::inode::Inode;
use crate::file::rights::{Grant, Rights, delete_objects, truncate_objects};
use crate::file::unsynced::Closed;
use crate::limits::{
    CARE_AT_ONCE, COMMIT_PERIOD, DELETIONS_MAX, LEFT_MAX, LISTED_TTL, OPEN_FILES_MAX,
    READ_AHEAD_BYTES, WRITE_BEHIND_BYTES,
};
use crate::mrc::{Dated, Deleted, Mrc, Opened};
use crate::seen::Seen;
use crate::{Attributes, Error, Ino, Member, OpenMode, Result};

/// Room for data in memory, over all volumes of a client.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    pub(crate) write_behind: Arc<Semaphore>,
    pub(crate) read_ahead: Arc<Semaphore>,
}

impl Room {
    pub(crate) fn new() -> Room {
        Room {
            write_behind: Arc::new(Semaphore::new(WRITE_BEHIND_BYTES)),
            read_ahead: Arc::new(Semaphore::new(READ_AHEAD_BYTES)),
        }
    }
}

/// The state of one volume in this client.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) mrc: Arc<Mrc>,
    pub(crate) now_ns: fn() -> i64,
    pub(crate) room: Room,
    pub(crate) seen: Seen,
    pub(crate) closings: Closings,
    open: Mutex<Open>,
    /// Counts local changes; see [`Inode::reconcile`].
    ticks: AtomicU64,
    deletions: Arc<Semaphore>,
}

/// The inodes that are open here.
#[derive(Debug, Default)]
struct Open {
    inodes: HashMap<Ino, Kept>,
    handles: usize,
    closed: Closed,
    /// Files that were written here, and when their last handle was closed.
    left: HashMap<Ino, Instant>,
}

#[derive(Debug)]
struct Kept {
    inode: Arc<Inode>,
    handles: usize,
    /// Set when the last name went while it is open: its objects go with the last handle.
    deleted: Option<(Member, Grant)>,
}

impl Open {
    fn leave(&mut self, ino: Ino) {
        if self.left.len() >= LEFT_MAX {
            self.left.retain(|_, at| at.elapsed() < LISTED_TTL);
        }
        self.left.insert(ino, Instant::now());
    }
}

impl Shared {
    pub(crate) fn new(mrc: Mrc, now_ns: fn() -> i64, room: Room) -> Shared {
        Shared {
            mrc: Arc::new(mrc),
            now_ns,
            room,
            seen: Seen::default(),
            closings: Closings::default(),
            open: Mutex::default(),
            ticks: AtomicU64::new(0),
            deletions: Arc::new(Semaphore::new(DELETIONS_MAX)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next number of the count of local changes.
    pub(crate) fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// The count of local changes so far; taken before a request is sent.
    pub(crate) fn asked(&self) -> u64 {
        self.ticks.load(Ordering::Acquire)
    }

    /// The inode, if it is open here.
    pub(crate) fn inode(&self, ino: Ino) -> Option<Arc<Inode>> {
        self.lock().inodes.get(&ino).map(|kept| Arc::clone(&kept.inode))
    }

    /// Whether a file is open here, or was written here so shortly ago that an older listing may
    /// still be remembered.
    pub(crate) fn is_in_use(&self, ino: Ino) -> bool {
        let open = self.lock();
        open.inodes.contains_key(&ino)
            || open.left.get(&ino).is_some_and(|at| at.elapsed() < LISTED_TTL)
    }

    /// Brings attributes from the MRC in accord with what is open here.
    pub(crate) fn reconciled(&self, mut dated: Dated, asked: u64) -> Attributes {
        if let Some(inode) = self.inode(dated.attributes.ino) {
            inode.reconcile(&mut dated, asked);
        }
        dated.attributes
    }

    /// Refuses another handle when there are as many as there may be.
    pub(crate) fn has_room(&self) -> Result<()> {
        if self.lock().handles < OPEN_FILES_MAX {
            return Ok(());
        }
        let reason = format!("more than {OPEN_FILES_MAX} files are open on this volume");
        Err(Error::local(libc::ENFILE, reason))
    }

    /// Makes a handle of what an open brought.
    pub(crate) async fn opened(
        self: &Arc<Self>,
        who: Member,
        mode: OpenMode,
        opened: Opened,
        asked: u64,
    ) -> Result<(Attributes, File)> {
        let Opened { mut dated, grant } = opened;
        let ino = dated.attributes.ino;
        let inode = {
            let mut open = self.lock();
            open.handles += 1;
            let Open { inodes, closed, .. } = &mut *open;
            let kept = inodes.entry(ino).or_insert_with(|| {
                let unsynced = closed.take(ino);
                let inode = Arc::new(Inode::new(Arc::clone(self), &dated, unsynced));
                Kept { inode, handles: 0, deleted: None }
            });
            kept.handles += 1;
            Arc::clone(&kept.inode)
        };
        let kept = grant.clone();
        let (mrc, known) = (Arc::clone(&self.mrc), Arc::clone(&inode.known));
        let rights = Rights::new(mrc, who, ino, mode, grant, known);
        let file = File::new(Arc::clone(&inode), rights, mode);
        if mode.truncate {
            self.cut(who, Some(&inode), &dated, &kept).await?;
        } else if let Err(error) = self.make_cut(who, &kept).await {
            debug!(%ino, %error, "an OSD has yet to make an earlier truncation");
        }
        inode.reconcile(&mut dated, asked);
        Ok((dated.attributes, file))
    }

    /// Cuts or lengthens an open file with the right of one of its handles.
    pub(crate) async fn truncate(
        self: &Arc<Self>,
        ino: Ino,
        size: u64,
        rights: &Rights,
    ) -> Result<Attributes> {
        let present = rights.current().await?;
        let (attributes, grant) =
            self.truncate_with(rights.who(), ino, size, Some(present)).await?;
        if let Some(grant) = grant {
            rights.adopt(grant);
        }
        Ok(attributes)
    }

    /// Cuts or lengthens a file. What was written here before is on the OSDs first, and no write
    /// from here comes in between. The MRC cuts first, and names the truncation in capabilities
    /// until every OSD has made it, so that none does anything for the file before that.
    pub(crate) async fn truncate_with(
        self: &Arc<Self>,
        who: Member,
        ino: Ino,
        size: u64,
        grant: Option<Arc<Grant>>,
    ) -> Result<(Attributes, Option<Grant>)> {
        let (shared, inode) = (Arc::clone(self), self.inode(ino));
        to_its_end(async move {
            let _order = match &inode {
                Some(inode) => Some(inode.quiet().await),
                None => None,
            };
            if let Some(attributes) = inode.as_ref().and_then(|inode| inode.grow_nameless(size)) {
                return Ok((attributes, None));
            }
            let opened = shared.mrc.truncate(who, ino, size, grant.as_deref()).await?;
            shared.cut(who, inode.as_deref(), &opened.dated, &opened.grant).await?;
            Ok((opened.dated.attributes, Some(opened.grant)))
        })
        .await
    }

    /// Has the OSDs make a truncation of ours that the MRC has made.
    async fn cut(
        &self,
        who: Member,
        inode: Option<&Inode>,
        dated: &Dated,
        grant: &Grant,
    ) -> Result<()> {
        let size = dated.attributes.size;
        let begun = inode.map(|inode| inode.cut_begun(dated));
        self.make_cut(who, grant).await?;
        match (inode, begun) {
            (Some(inode), Some(begun)) => inode.cut_done(begun, size),
            _ if size == 0 => drop(self.lock().closed.take(dated.attributes.ino)),
            _ => {}
        }
        Ok(())
    }

    /// Has the OSDs make the truncations that a capability names, if any, and lets the MRC know,
    /// which nobody waits for.
    async fn make_cut(&self, who: Member, grant: &Grant) -> Result<()> {
        if !grant.owed {
            return Ok(());
        }
        truncate_objects(&self.mrc.links, grant).await?;
        let (mrc, grant) = (Arc::clone(&self.mrc), grant.clone());
        tokio::spawn(async move {
            if let Err(error) = mrc.cut_made(who, &grant).await {
                debug!(%error, "the MRC was not told that a truncation was made");
            }
        });
        Ok(())
    }

    /// Gives a handle up. With the last one of an unlinked file its objects go.
    pub(crate) async fn closed(self: &Arc<Self>, inode: &Arc<Inode>) {
        let gone = {
            let mut open = self.lock();
            open.handles = open.handles.saturating_sub(1);
            match open.inodes.get_mut(&inode.ino) {
                Some(kept) if kept.handles > 1 => {
                    kept.handles -= 1;
                    None
                }
                Some(_) => {
                    let kept = open.inodes.remove(&inode.ino);
                    if let Some(Kept { inode, deleted: None, .. }) = &kept {
                        open.closed.keep(inode.ino, inode.take_unsynced());
                        if inode.was_written() {
                            open.leave(inode.ino);
                        }
                    }
                    kept
                }
                None => None,
            }
        };
        let Some(kept) = gone else { return };
        if let Some(lost) = kept.inode.untold() {
            error!(ino = %inode.ino, error = %lost, "written data were lost; no close returned it");
        }
        if let Some((who, grant)) = kept.deleted {
            self.delete(who, inode.ino, grant).await;
        }
    }

    /// Lets a file go that has lost its last name: now, or with its last handle.
    pub(crate) async fn nameless(self: &Arc<Self>, who: Member, deleted: Deleted) {
        let Deleted { ino, grant } = deleted;
        {
            let mut open = self.lock();
            if let Some(kept) = open.inodes.get_mut(&ino) {
                kept.inode.lost_name();
                kept.deleted = Some((who, grant));
                return;
            }
        }
        self.delete(who, ino, grant).await;
    }

    /// Deletes objects in the background; waits for it when there is much to delete.
    async fn delete(self: &Arc<Self>, who: Member, ino: Ino, grant: Grant) {
        let shared = Arc::clone(self);
        let permit = Arc::clone(&self.deletions).try_acquire_owned().ok();
        let crowded = permit.is_none();
        let work = tokio::spawn(async move {
            // Fails only if the semaphore is closed, which it never is.
            let _permit = match permit {
                Some(permit) => Ok(permit),
                None => Arc::clone(&shared.deletions).acquire_owned().await,
            };
            let grant = match grant.is_fresh() {
                true => Ok(grant),
                false => shared.mrc.renew(who, &grant).await,
            };
            let result = match grant {
                Ok(grant) => delete_objects(&shared.mrc.links, &grant).await,
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                warn!(%ino, %error, "the content of a deleted file stays on an OSD");
            }
        });
        if crowded && let Err(error) = work.await {
            warn!(%ino, %error, "the content of a deleted file stays on an OSD");
        }
    }

    /// Renews the rights to delete the content of unlinked files that are still open: once they
    /// have lapsed nobody gets them again, and the content would stay for ever.
    async fn keep_deletions(&self) {
        let due: Vec<(Ino, Member, Grant)> = {
            let open = self.lock();
            let deleted = open.inodes.iter().filter_map(|(ino, kept)| {
                let (who, grant) = kept.deleted.as_ref()?;
                Some((*ino, *who, grant.clone()))
            });
            deleted.filter(|(_, _, grant)| !grant.is_fresh()).collect()
        };
        let renew = |(ino, who, grant): (Ino, Member, Grant)| async move {
            match self.mrc.renew(who, &grant).await {
                Ok(grant) => {
                    if let Some(kept) = self.lock().inodes.get_mut(&ino) {
                        kept.deleted = Some((who, grant));
                    }
                }
                Err(error) => debug!(
                    %ino, %error,
                    "the right to delete an unlinked file's content was not renewed; \
                     will be tried again"
                ),
            }
        };
        stream::iter(due).for_each_concurrent(CARE_AT_ONCE, renew).await;
    }

    /// Waits until no deletion is under way.
    pub(crate) async fn deletions_done(&self) {
        // Fails only if the semaphore is closed, which it never is.
        let all = u32::try_from(DELETIONS_MAX).unwrap_or(u32::MAX);
        drop(self.deletions.acquire_many(all).await);
    }

    /// Every inode that is open here.
    pub(crate) fn inodes(&self) -> Vec<Arc<Inode>> {
        self.lock().inodes.values().map(|kept| Arc::clone(&kept.inode)).collect()
    }
}

/// Looks after open files until the volume is no longer used.
pub(crate) async fn care(shared: Weak<Shared>) {
    let mut period = interval_at(Instant::now() + COMMIT_PERIOD, COMMIT_PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        period.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        let inodes = stream::iter(shared.inodes());
        inodes.for_each_concurrent(CARE_AT_ONCE, |inode| async move { inode.care().await }).await;
        shared.keep_deletions().await;
    }
}

/// Does work to its end, also when whoever waits for it gives up.
pub(crate) async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::local(libc::EIO, format!("an operation was broken off: {error}"))),
    }
}
