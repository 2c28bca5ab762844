//! Write-behind: data are accepted into a bounded buffer and travel in the background.
//!
//! Order is kept where it matters: one write at a time is dispatched per inode (the order lock),
//! small sequential writes are joined, and a piece waits until no overlapping one is under way.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::{MutexGuard, OwnedSemaphorePermit};
use tokio::task::JoinHandle;

use super::extents::Range;
use super::inode::Inode;
use super::piece::{Piece, pieces};
use super::rights::Rights;
use crate::limits::JOINED_WRITE_BYTES;
use crate::{Error, Result};

/// Small sequential writes of one handle within one object, not yet sent.
#[derive(Debug)]
pub(crate) struct Tail {
    rights: Arc<Rights>,
    piece: Piece,
    data: BytesMut,
    held: Held,
}

impl Tail {
    fn end(&self) -> u64 {
        self.piece.at + self.data.len() as u64
    }

    fn range(&self) -> Range {
        Range::new(self.piece.at, self.data.len() as u64)
    }
}

/// The room that data take in the buffers, given back when they have arrived.
#[derive(Debug)]
struct Held {
    file: OwnedSemaphorePermit,
    client: OwnedSemaphorePermit,
}

/// The order lock of an inode, held by whoever dispatches.
pub(crate) type Order<'a> = MutexGuard<'a, Option<Tail>>;

impl Inode {
    /// Accepts data at `at`; they are on their way or joined to the tail when this returns.
    ///
    /// # Errors
    /// Only when the data themselves were written at once for want of room, and that failed.
    pub(super) async fn accept(
        self: &Arc<Self>,
        tail: &mut Order<'_>,
        rights: &Arc<Rights>,
        at: u64,
        mut data: Bytes,
    ) -> Result<()> {
        for piece in pieces(rights.layout(), Range::new(at, data.len() as u64)) {
            let part = data.split_to(piece.length.min(data.len()));
            self.accept_piece(tail, rights, piece, part).await?;
        }
        Ok(())
    }

    async fn accept_piece(
        self: &Arc<Self>,
        tail: &mut Order<'_>,
        rights: &Arc<Rights>,
        piece: Piece,
        data: Bytes,
    ) -> Result<()> {
        if !tail.as_ref().is_some_and(|t| joins(t, rights, &piece)) {
            self.send_tail(tail).await;
        }
        let Some(held) = self.room(data.len()).await else {
            self.send_tail(tail).await;
            return self.send_now(rights, piece, data).await;
        };
        let (end, ends_object) = (piece.at + data.len() as u64, piece.ends_object);
        match tail.as_mut() {
            Some(t) => {
                t.data.extend_from_slice(&data);
                t.held.file.merge(held.file);
                t.held.client.merge(held.client);
                t.piece.length = t.data.len();
            }
            None if ends_object || data.len() >= JOINED_WRITE_BYTES => {
                self.send(rights, piece, data, Some(held)).await;
                return Ok(());
            }
            None => {
                let rights = Arc::clone(rights);
                let data = BytesMut::from(data);
                **tail = Some(Tail { rights, piece, data, held });
            }
        }
        {
            let mut state = self.lock();
            state.tail = tail.as_ref().map(Tail::range);
            self.accepted(&mut state, end, rights);
        }
        let full = tail.as_ref().is_some_and(|t| t.data.len() >= JOINED_WRITE_BYTES);
        if ends_object || full {
            self.send_tail(tail).await;
        }
        Ok(())
    }

    /// Room for so many bytes: waits for the file's own share (what is under way gives it back),
    /// but not for the client's, which may be held by tails of other files.
    async fn room(&self, bytes: usize) -> Option<Held> {
        let count = u32::try_from(bytes).ok()?;
        let client =
            Arc::clone(&self.shared.room.write_behind).try_acquire_many_owned(count).ok()?;
        let file = Arc::clone(&self.room).acquire_many_owned(count).await.ok()?;
        Some(Held { file, client })
    }

    /// Sends what was joined so far. It stays where it is until it can travel, so that whoever is
    /// dropped while waiting leaves it to the next who comes.
    pub(super) async fn send_tail(self: &Arc<Self>, tail: &mut Order<'_>) {
        let Some(range) = tail.as_ref().map(Tail::range) else { return };
        self.until_free(range, u64::MAX).await;
        if let Some(Tail { rights, piece, data, held }) = tail.take() {
            let number = {
                let mut state = self.lock();
                state.tail = None;
                state.extents.begin(range)
            };
            self.dispatch(number, &rights, piece, data.freeze(), Some(held));
        }
    }

    /// Puts a piece under way as soon as no overlapping one is.
    async fn send(
        self: &Arc<Self>,
        rights: &Arc<Rights>,
        piece: Piece,
        data: Bytes,
        held: Option<Held>,
    ) -> JoinHandle<Result<()>> {
        let range = Range::new(piece.at, data.len() as u64);
        self.until_free(range, u64::MAX).await;
        let number = {
            let mut state = self.lock();
            self.accepted(&mut state, range.end, rights);
            state.extents.begin(range)
        };
        self.dispatch(number, rights, piece, data, held)
    }

    /// Writes a piece and waits for it: the client holds as much as it may.
    async fn send_now(
        self: &Arc<Self>,
        rights: &Arc<Rights>,
        piece: Piece,
        data: Bytes,
    ) -> Result<()> {
        let written = self.send(rights, piece, data, None).await;
        written.await.unwrap_or_else(|_| Err(given_up()))
    }

    /// Writes a piece that is noted as under way, in a task of its own, which goes on when nobody
    /// waits for it: what is sent again later must not overtake it.
    fn dispatch(
        self: &Arc<Self>,
        number: u64,
        rights: &Arc<Rights>,
        piece: Piece,
        data: Bytes,
        held: Option<Held>,
    ) -> JoinHandle<Result<()>> {
        let under_way = UnderWay { inode: Arc::clone(self), number, done: false };
        let rights = Arc::clone(rights);
        tokio::spawn(async move {
            let result = rights.write(&piece, data).await;
            under_way.ended(&rights, &piece, &result);
            drop(held);
            result.map(drop)
        })
    }
}

fn given_up() -> Error {
    Error::local(libc::EIO, "a write was given up before the OSD answered")
}

/// Whether a piece continues the tail: same handle, same object, right behind it.
fn joins(tail: &Tail, rights: &Arc<Rights>, piece: &Piece) -> bool {
    Arc::ptr_eq(&tail.rights, rights)
        && tail.piece.object == piece.object
        && tail.end() == piece.at
        && tail.data.len() + piece.length <= JOINED_WRITE_BYTES.max(piece.length)
}

/// A piece under way; also when its task is dropped or panics it is taken off the table, and then
/// counts as lost.
struct UnderWay {
    inode: Arc<Inode>,
    number: u64,
    done: bool,
}

impl UnderWay {
    /// Notes the outcome before anybody who waits for it is woken.
    fn ended(mut self, rights: &Rights, piece: &Piece, result: &Result<u64>) {
        self.done = true;
        let mut state = self.inode.lock();
        match result {
            Ok(verifier) => {
                state.arrived(piece.at + piece.length as u64);
                if state.unsynced.wrote(piece.osd, *verifier) {
                    state.errors.record(self.inode.lost_by(rights, piece.osd));
                }
            }
            Err(error) => state.errors.record(error.clone()),
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        // Blocks that were read ahead while it was under way may lack it. So this comes first: who
        // waited for it must not be handed one.
        self.inode.content_changed();
        let mut state = self.inode.lock();
        state.extents.end(self.number);
        if !self.done {
            state.errors.record(given_up());
        }
        drop(state);
        self.inode.finished.send_modify(|n| *n += 1);
    }
}
