//! Which orders still count when a control stream breaks.
//!
//! The core asks a node that came back what it has ([`ListEnvelopes`]), and places elsewhere what
//! it sent and does not find in the answer. So nothing may be started by an order of an earlier
//! stream once that answer was made. Where can such an order be?
//!
//! - *Not read yet, or read and not begun* (its task waits for a thread, or for the disk that
//!   makes the home): [`Fence::enter`] comes after, finds a newer stream and refuses. Nothing was
//!   made.
//! - *Between entering and the shim's answer* (it makes the envelope, or sends units to it): it
//!   holds the fence, and [`Fence::settle`] waits for it. All of that has an end: a shim stands
//!   within 30 s or is discarded, and answers within 30 s or counts as slow. Then the answer has
//!   the envelope.
//! - *Given up, but its message lies in a shim's socket*: the envelope is known, hence in the
//!   answer; the core sends the units again, and the shim knows them.
//! - *A stream broke, and the next one has not asked yet*: orders of the next one may come first;
//!   they hold the fence like any other.
//! - *This daemon is killed*: its orders end with it. What they sent is in a shim with a log,
//!   which the next daemon finds and lists. A launcher that still starts a shim finds the folder
//!   locked or gone, and a shim that was never spoken to has no units.
//!
//! [`ListEnvelopes`]: xos_api::node::units::ListEnvelopes

use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{RwLock, RwLockReadGuard};
use xos_base::Error;

/// One control stream of this daemon; a later one is larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream(u64);

/// Keeps orders of earlier streams out.
#[derive(Debug, Default)]
pub(super) struct Fence {
    newest: AtomicU64,
    /// Held for reading by each order that may start something.
    orders: RwLock<()>,
}

impl Fence {
    /// A new stream begins: orders of those before are refused from now on.
    pub(super) fn begin(&self) -> Stream {
        Stream(self.newest.fetch_add(1, Ordering::SeqCst) + 1)
    }

    /// Lets an order in, which counts as under way until the guard is dropped.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unavailable`] when its stream is not the newest.
    pub(super) async fn enter(&self, stream: Stream) -> Result<RwLockReadGuard<'_, ()>, Error> {
        let guard = self.orders.read().await;
        // After the lock: whoever waits in `settle` has begun its stream before.
        if self.newest.load(Ordering::SeqCst) == stream.0 {
            return Ok(guard);
        }
        Err(Error::unavailable("the control stream of this order is over")
            .hint("the core sends it again once it knows what the node has"))
    }

    /// Waits until no order is under way. Those of streams before `stream` are over then, for
    /// good.
    ///
    /// # Errors
    /// As [`Fence::enter`].
    pub(super) async fn settle(&self, stream: Stream) -> Result<(), Error> {
        drop(self.orders.write().await);
        drop(self.enter(stream).await?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Poll, Waker};

    #[tokio::test]
    async fn an_old_order_is_waited_for_or_refused() {
        // wrong: a unit that the core has placed elsewhere would start here too
        let fence = Fence::default();
        let old = fence.begin();
        let under_way = fence.enter(old).await.unwrap();
        let new = fence.begin();
        let mut settle = Box::pin(fence.settle(new));
        let mut now = Context::from_waker(Waker::noop());
        assert!(settle.as_mut().poll(&mut now).is_pending(), "an order is under way");
        // one that came while the list waits
        let mut late = Box::pin(fence.enter(old));
        assert!(!matches!(late.as_mut().poll(&mut now), Poll::Ready(Ok(_))));
        drop(under_way);
        settle.await.unwrap();
        assert!(late.await.is_err());
        assert!(fence.enter(old).await.is_err());
        assert!(fence.settle(old).await.is_err());
        drop(fence.enter(new).await.unwrap());
    }
}
