//! Reading: cut at the objects, fetched in parallel, holes filled with zeros.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::extents::Range;
use super::handle::Handle;
use super::piece::{Piece, pieces};
use super::rights::Rights;
use crate::Result;
use crate::limits::{PIECES_AT_ONCE, TRANSFER_BYTES_MAX};

impl Handle {
    /// Reads up to `length` bytes; fewer only at the end of the file.
    pub(super) async fn read_range(&self, offset: u64, length: usize) -> Result<Bytes> {
        self.rights.still().await?;
        let length = length.min(TRANSFER_BYTES_MAX) as u64;
        let size = self.inode.lock().size;
        let end = offset.saturating_add(length).min(size);
        if offset >= end {
            return Ok(Bytes::new());
        }
        let range = Range { start: offset, end };
        self.inode.readable(range).await;
        let content = self.inode.content();
        let rights = &self.rights;
        self.ahead.observe(range, size, content, |block| fetch_ahead(Arc::clone(rights), block));
        self.assemble(range, content).await
    }

    /// Takes what was read ahead and fetches the rest.
    async fn assemble(&self, range: Range, content: u64) -> Result<Bytes> {
        let mut parts = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let rest = Range { start: at, end: range.end };
            let ready = match self.ahead.take(rest, content) {
                Some((block, data)) => data.await.map(|data| (block, data)),
                None => None,
            };
            let Some((block, data)) = ready else {
                parts.push(fetch(&self.rights, rest).await?);
                break;
            };
            let from = usize::try_from(at - block.start).unwrap_or(usize::MAX).min(data.len());
            let to = usize::try_from(rest.end - block.start).unwrap_or(usize::MAX).min(data.len());
            if from >= to {
                parts.push(fetch(&self.rights, rest).await?);
                break;
            }
            parts.push(data.slice(from..to));
            at += (to - from) as u64;
        }
        Ok(join(parts))
    }
}

fn fetch_ahead(rights: Arc<Rights>, block: Range) -> BoxFuture<'static, Option<Bytes>> {
    async move { fetch(&rights, block).await.ok() }.boxed()
}

/// Reads a range from the OSDs; all of it counts as inside the file.
///
/// What an OSD does not hold is a hole and reads as zeros. But a file that was deleted on another
/// machine has nothing left either, and its readers must not be given zeros: the MRC knows.
async fn fetch(rights: &Arc<Rights>, range: Range) -> Result<Bytes> {
    let pieces = stream::iter(pieces(rights.layout(), range));
    let parts: Vec<(Bytes, Piece)> = pieces
        .map(|piece| async move { Ok((rights.read(&piece).await?, piece)) })
        .buffered(PIECES_AT_ONCE)
        .try_collect()
        .await?;
    if parts.iter().any(|(data, piece)| data.len() < piece.length) {
        rights.exists().await?;
    }
    Ok(join(parts.into_iter().map(|(data, piece)| fill(data, &piece)).collect()))
}

/// Fills a piece up with zeros.
fn fill(data: Bytes, piece: &Piece) -> Bytes {
    if data.len() >= piece.length {
        return data;
    }
    let mut filled = BytesMut::from(data);
    filled.resize(piece.length, 0);
    filled.freeze()
}

fn join(mut parts: Vec<Bytes>) -> Bytes {
    if parts.len() == 1 {
        return parts.swap_remove(0);
    }
    let mut joined = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    for part in parts {
        joined.extend_from_slice(&part);
    }
    joined.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_read_as_zeros() {
        let piece = Piece { osd: 0, object: 0, in_object: 0, at: 0, length: 4, ends_object: false };
        assert_eq!(fill(Bytes::from_static(b"ab"), &piece), b"ab\0\0".as_slice());
    }

    #[test]
    fn parts_are_joined_in_order() {
        assert_eq!(join(vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")]), "abc");
        assert!(join(Vec::new()).is_empty());
    }
}
