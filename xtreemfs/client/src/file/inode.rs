//! What the client knows of an inode that is open here, shared by all its handles: the size that
//! local readers see, what is under way, and what the MRC still has to be told.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::extents::{Extents, Range};
use super::report::Errors;
use super::writer::Tail;
use crate::limits::{ATTRIBUTES_TTL, WRITE_BEHIND_BYTES_PER_FILE};
use crate::volume::Shared;
use crate::{Attributes, Ino};

/// An inode that is open here.
#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) ino: Ino,
    pub(crate) shared: Arc<Shared>,
    /// The order lock: held while writes are dispatched, and by whoever must see none come.
    pub(super) order: tokio::sync::Mutex<Option<Tail>>,
    state: Mutex<State>,
    /// Changes whenever a write ends.
    pub(super) finished: watch::Sender<u64>,
    /// Bytes this file may still have under way.
    pub(super) room: Arc<Semaphore>,
    /// Changes with each local change of the content.
    content: AtomicU64,
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
    /// Something was written since the MRC was told.
    pub(super) dirty: bool,
    /// The MRC is being told.
    pub(super) committing: bool,
    /// When something local last changed, on the client's count of changes.
    changed: u64,
    pub(super) extents: Extents,
    /// The range of the tail, for readers.
    pub(super) tail: Option<Range>,
    pub(super) errors: Errors,
    /// OSDs written to since the last fsync, by index in the layout.
    pub(super) unsynced: BTreeSet<usize>,
    /// The last attributes from the MRC and when they were asked for.
    attributes: (Attributes, Instant),
    /// How many handles there are.
    pub(super) handles: usize,
}

impl State {
    /// Notes that data up to `end` are on the OSDs.
    pub(super) fn arrived(&mut self, end: u64) {
        self.certain = self.certain.max(end);
    }

    /// Nothing is under way, joined or untold.
    fn clean(&self) -> bool {
        !self.dirty && !self.committing && self.tail.is_none() && self.extents.idle()
    }
}

impl Inode {
    pub(crate) fn new(shared: Arc<Shared>, attributes: Attributes, epoch: u64) -> Inode {
        let state = State {
            size: attributes.size,
            epoch,
            certain: attributes.size,
            dirty: false,
            committing: false,
            changed: 0,
            extents: Extents::default(),
            tail: None,
            errors: Errors::default(),
            unsynced: BTreeSet::new(),
            attributes: (attributes, Instant::now()),
            handles: 0,
        };
        Inode {
            ino: attributes.ino,
            shared,
            order: tokio::sync::Mutex::new(None),
            state: Mutex::new(state),
            finished: watch::Sender::new(0),
            room: Arc::new(Semaphore::new(WRITE_BEHIND_BYTES_PER_FILE)),
            content: AtomicU64::new(0),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that changes with each local change of the content.
    pub(super) fn content(&self) -> u64 {
        self.content.load(Ordering::Acquire)
    }

    /// Notes a local change of the content.
    pub(super) fn content_changed(&self) {
        self.content.fetch_add(1, Ordering::AcqRel);
    }

    /// Notes that data up to `end` were accepted.
    pub(super) fn accepted(&self, end: u64) {
        let changed = self.shared.tick();
        let mut state = self.lock();
        state.size = state.size.max(end);
        state.dirty = true;
        state.changed = changed;
        drop(state);
        self.content_changed();
    }

    /// Notes a new size that the MRC knows: after a truncation or a commit.
    pub(super) fn settled(&self, attributes: &Attributes, epoch: u64, truncated: bool) {
        let changed = self.shared.tick();
        let mut state = self.lock();
        state.epoch = state.epoch.max(epoch);
        state.changed = changed;
        if truncated || state.clean() {
            state.size = attributes.size;
            state.certain = attributes.size;
        }
        state.attributes = (*attributes, Instant::now());
        drop(state);
        if truncated {
            self.content_changed();
        }
    }

    /// Brings attributes that the MRC sent in accord with what happened here: what was written
    /// and not yet told counts, and an answer asked for before a local change (`asked` on the
    /// client's count) does not bring an old size back.
    pub(crate) fn reconcile(&self, attributes: &mut Attributes, epoch: u64, asked: u64) {
        let mut state = self.lock();
        if state.clean() && state.changed <= asked && epoch >= state.epoch {
            if (state.size, state.epoch) != (attributes.size, epoch) {
                self.content_changed();
            }
            state.size = attributes.size;
            state.certain = attributes.size;
            state.epoch = epoch;
            state.attributes = (*attributes, Instant::now());
        } else {
            attributes.size = state.size;
        }
    }

    /// The attributes, if they are new enough to be shown without asking the MRC.
    pub(crate) fn fresh_attributes(&self) -> Option<Attributes> {
        let state = self.lock();
        let (mut attributes, at) = state.attributes;
        attributes.size = state.size;
        (at.elapsed() < ATTRIBUTES_TTL).then_some(attributes)
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
