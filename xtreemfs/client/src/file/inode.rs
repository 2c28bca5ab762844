//! What the client knows of an inode that is open here, shared by all its handles: the size that
//! local readers see, what is under way, and what the MRC still has to be told.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures_util::future::join_all;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use xtreemfs_proto::layout::FILE_BYTES_MAX;

use super::extents::{Extents, Range};
use super::report::Errors;
use super::rights::{Known, Rights};
use super::unsynced::{Mark, Unsynced};
use super::writer::{Order, Tail};
use crate::limits::{ATTRIBUTES_TTL, WRITE_BEHIND_BYTES_PER_FILE};
use crate::mrc::Dated;
use crate::shared::Shared;
use crate::{Attributes, Error, Ino, Member};

/// An inode that is open here.
#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) ino: Ino,
    pub(crate) shared: Arc<Shared>,
    /// The order lock: held while writes are dispatched, and by whoever must see none come.
    pub(super) order: tokio::sync::Mutex<Option<Tail>>,
    state: Mutex<State>,
    /// Held while the MRC is told, one at a time.
    pub(super) committing: tokio::sync::Mutex<()>,
    /// Changes whenever a write ends.
    pub(super) finished: watch::Sender<u64>,
    /// Bytes this file may still have under way.
    pub(super) room: Arc<Semaphore>,
    /// See [`Inode::content`].
    content: AtomicU64,
    pub(crate) known: Arc<Known>,
}

/// The part behind the plain lock; never held across a wait.
#[derive(Debug)]
pub(super) struct State {
    /// The size that readers here see.
    pub(super) size: u64,
    /// Which truncation the size belongs to; grows with each.
    pub(super) epoch: u64,
    /// The size the MRC knows, and the end of what has arrived at the OSDs since.
    pub(super) certain: u64,
    /// Something was accepted or arrived since the MRC was told.
    pub(super) dirty: bool,
    /// The end of what arrived at the OSDs since the MRC was told; 0 when nothing did.
    pub(super) untold_end: u64,
    /// The MRC is being told.
    pub(super) committing: bool,
    /// When something was last written here, nanoseconds since 1970.
    pub(super) wrote_ns: i64,
    /// When something local last changed, on the client's count of changes.
    changed: u64,
    pub(super) extents: Extents,
    /// The range of the tail, for readers.
    pub(super) tail: Option<Range>,
    pub(super) errors: Errors,
    pub(super) unsynced: Unsynced,
    /// The last attributes from the MRC and when they were asked for.
    attributes: (Attributes, Instant),
    /// The rights of all handles, for renewal.
    pub(super) rights: Vec<Weak<Rights>>,
    /// The rights of the handle that wrote last, for the commits in between.
    pub(super) writer: Option<Arc<Rights>>,
}

impl State {
    /// Notes that data up to `end` are on an OSD. They may have been accepted before the MRC was
    /// last told, and arrived after.
    pub(super) fn arrived(&mut self, end: u64) {
        self.dirty = true;
        self.certain = self.certain.max(end);
        self.untold_end = self.untold_end.max(end);
    }

    /// Puts what the MRC has not been told yet over what it said.
    fn overlay(&self, attributes: &mut Attributes) {
        attributes.size = self.size;
        if self.dirty {
            attributes.modified_ns = attributes.modified_ns.max(self.wrote_ns);
            attributes.changed_ns = attributes.changed_ns.max(self.wrote_ns);
        }
    }

    /// Nothing is under way, joined or untold.
    fn clean(&self) -> bool {
        !self.dirty && !self.committing && self.tail.is_none() && self.extents.idle()
    }
}

impl Inode {
    /// An inode of which so much was not synced when it was open here before.
    pub(crate) fn new(shared: Arc<Shared>, dated: &Dated, unsynced: Unsynced) -> Inode {
        let Dated { attributes, epoch } = *dated;
        let state = State {
            size: attributes.size,
            epoch,
            certain: attributes.size,
            dirty: false,
            untold_end: 0,
            committing: false,
            wrote_ns: 0,
            changed: 0,
            extents: Extents::default(),
            tail: None,
            errors: Errors::default(),
            unsynced,
            attributes: (attributes, Instant::now()),
            rights: Vec::new(),
            writer: None,
        };
        Inode {
            ino: attributes.ino,
            shared,
            order: tokio::sync::Mutex::new(None),
            state: Mutex::new(state),
            committing: tokio::sync::Mutex::default(),
            finished: watch::Sender::new(0),
            room: Arc::new(Semaphore::new(WRITE_BEHIND_BYTES_PER_FILE)),
            content: AtomicU64::new(0),
            known: Arc::new(Known { nameless: AtomicBool::new(false), epoch: epoch.into() }),
        }
    }

    /// Notes that there was a truncation: whatever is asked of the OSDs from now on knows of it.
    pub(super) fn truncation_known(&self, epoch: u64) {
        self.known.epoch.fetch_max(epoch, Ordering::AcqRel);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that changes when the bytes on the OSDs have changed from here: with the end of
    /// each write, before those who wait for it go on. What was asked for under an older number
    /// may lack it.
    pub(super) fn content(&self) -> u64 {
        self.content.load(Ordering::Acquire)
    }

    /// Notes that the bytes on the OSDs have changed.
    pub(super) fn content_changed(&self) {
        self.content.fetch_add(1, Ordering::AcqRel);
    }

    /// Notes that data up to `end` were accepted from a handle with these rights. Under the same
    /// lock they are noted as joined or under way: who sees the new size waits for them.
    pub(super) fn accepted(&self, state: &mut State, end: u64, rights: &Arc<Rights>) {
        state.size = state.size.max(end);
        state.dirty = true;
        state.wrote_ns = (self.shared.now_ns)();
        state.changed = self.shared.tick();
        state.writer = Some(Arc::clone(rights));
    }

    /// Takes over what the MRC says after a commit or a truncation of ours. What it said before a
    /// truncation that is known here may come after that one's answer, and then says nothing of
    /// the size any more.
    pub(crate) fn settled(&self, dated: &Dated, truncated: bool) {
        let changed = self.shared.tick();
        self.truncation_known(dated.epoch);
        let mut state = self.lock();
        state.changed = changed;
        if dated.epoch >= state.epoch {
            state.epoch = dated.epoch;
            let untouched = !state.dirty && state.tail.is_none() && state.extents.idle();
            if truncated || untouched {
                state.size = dated.attributes.size;
                state.certain = dated.attributes.size;
            }
            if truncated {
                state.untold_end = 0;
            }
            state.attributes = (dated.attributes, Instant::now());
        }
        drop(state);
        if truncated {
            self.content_changed();
        }
    }

    /// Takes over a truncation of ours that the MRC has made and the OSDs have yet to make.
    pub(crate) fn cut_begun(&self, dated: &Dated) -> Mark {
        self.settled(dated, true);
        self.lock().unsynced.mark()
    }

    /// Notes that every OSD has made it, to `size` bytes.
    pub(crate) fn cut_done(&self, begun: Mark, size: u64) {
        if size == 0 {
            self.lock().unsynced.cut_away(begun);
        }
        self.content_changed();
    }

    /// What was not synced, to be kept when the last handle is closed.
    pub(crate) fn take_unsynced(&self) -> Unsynced {
        std::mem::take(&mut self.lock().unsynced)
    }

    /// Lengthens a file that has lost its last name, of which the MRC knows nothing any more: its
    /// size lives here alone. `None` for any other file, and for a cut.
    pub(crate) fn grow_nameless(&self, size: u64) -> Option<Attributes> {
        let mut state = self.lock();
        if !self.is_nameless() || size < state.size || size > FILE_BYTES_MAX {
            return None;
        }
        state.size = size;
        state.certain = size;
        let mut attributes = state.attributes.0;
        state.overlay(&mut attributes);
        drop(state);
        self.content_changed();
        Some(attributes)
    }

    /// Takes over a truncation by another client that a commit of ours ran into; what was written
    /// here before may have been cut, so that of it only what ends at `left` counts.
    pub(super) fn truncated_elsewhere(&self, dated: &Dated, left: u64) {
        let mut state = self.lock();
        if dated.epoch <= state.epoch {
            return;
        }
        state.epoch = dated.epoch;
        state.certain = dated.attributes.size.max(left).max(state.untold_end);
        let joined = state.tail.map_or(0, |tail| tail.end);
        state.size = state.certain.max(joined).max(state.extents.end_of_all());
        drop(state);
        self.content_changed();
    }

    /// Brings attributes that the MRC sent in accord with what happened here: what was written
    /// and not yet told counts, and an answer asked for before a local change (`asked` on the
    /// client's count) does not bring an old size back.
    pub(crate) fn reconcile(&self, dated: &mut Dated, asked: u64) {
        self.truncation_known(dated.epoch);
        let mut state = self.lock();
        if state.clean() && state.changed <= asked && dated.epoch >= state.epoch {
            let (size, epoch) = (dated.attributes.size, dated.epoch);
            if (state.size, state.epoch) != (size, epoch) {
                self.content_changed();
            }
            state.size = size;
            state.certain = size;
            state.untold_end = 0;
            state.epoch = epoch;
            state.attributes = (dated.attributes, Instant::now());
        } else {
            state.overlay(&mut dated.attributes);
        }
    }

    /// Whether something was written here.
    pub(crate) fn was_written(&self) -> bool {
        self.lock().wrote_ns != 0
    }

    /// Has all handles ask for new capabilities; whether each has got one.
    pub(crate) async fn regain(&self) -> bool {
        let rights: Vec<Arc<Rights>> = {
            let state = self.lock();
            state.rights.iter().filter_map(Weak::upgrade).collect()
        };
        // All are asked, whatever the others hear.
        join_all(rights.iter().map(|rights| rights.regain())).await.into_iter().all(|got| got)
    }

    /// Notes that the last name is gone.
    pub(crate) fn lost_name(&self) {
        self.known.nameless.store(true, Ordering::Release);
        self.lock().attributes.0.links = 0;
    }

    /// Whether its last name was removed here.
    pub(super) fn is_nameless(&self) -> bool {
        self.known.nameless.load(Ordering::Acquire)
    }

    /// The attributes, for somebody who has the file open here: if they are new enough to be shown
    /// without asking the MRC, or if the MRC has none any more.
    pub(crate) fn known_attributes(&self, who: Member) -> Option<Attributes> {
        let state = self.lock();
        let mut rights = state.rights.iter().filter_map(Weak::upgrade);
        if !rights.any(|rights| rights.who() == who && !rights.is_lost()) {
            return None;
        }
        let (mut attributes, at) = state.attributes;
        state.overlay(&mut attributes);
        (self.is_nameless() || at.elapsed() < ATTRIBUTES_TTL).then_some(attributes)
    }

    /// After lost writes, readers must not see a size that never came to be.
    pub(super) fn forget_lost(&self) {
        let mut state = self.lock();
        if state.errors.untold().is_some() && state.extents.idle() && state.tail.is_none() {
            state.size = state.certain;
        }
    }

    /// Waits until no write numbered up to `up_to` that overlaps `range` is under way.
    pub(super) async fn until_free(&self, range: Range, up_to: u64) {
        let mut finished = self.finished.subscribe();
        while self.lock().extents.busy(&range, up_to) {
            if finished.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until everything accepted so far is on the OSDs or has failed.
    pub(crate) async fn settle(self: &Arc<Self>) {
        let mut tail = self.order.lock().await;
        self.send_tail(&mut tail).await;
        let latest = self.lock().extents.latest();
        drop(tail);
        self.until_free(Range::all(), latest).await;
        self.forget_lost();
    }

    /// Waits like [`Inode::settle`] and keeps writes from being dispatched while the answer lives.
    pub(crate) async fn quiet(self: &Arc<Self>) -> Order<'_> {
        let mut tail = self.order.lock().await;
        self.send_tail(&mut tail).await;
        self.until_free(Range::all(), u64::MAX).await;
        tail
    }

    /// The error of a lost write that no flush, sync or close has returned.
    pub(crate) fn untold(&self) -> Option<Error> {
        self.lock().errors.untold().cloned()
    }

    /// Waits until what was accepted for `range` can be read back from the OSDs.
    pub(super) async fn readable(self: &Arc<Self>, range: Range) {
        let joined = self.lock().tail.is_some_and(|tail| tail.overlaps(&range));
        if joined {
            let mut tail = self.order.lock().await;
            self.send_tail(&mut tail).await;
        }
        let latest = self.lock().extents.latest();
        self.until_free(range, latest).await;
    }
}
