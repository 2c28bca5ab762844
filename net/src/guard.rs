//! Streams that are cut when whoever proved to be at their other end is refused: its key was
//! withdrawn, or its site is trusted no more.

use crate::caller::{Caller, Principal};
use crate::trust::Trust;
use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use xos_base::{NodeId, SiteId};

/// Who is at the other end of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proved {
    /// The site whose root vouches for it.
    pub site: SiteId,
    /// The node and the fingerprint of its key, when it is one.
    pub node: Option<(NodeId, String)>,
}

impl Proved {
    /// What is known of a caller.
    pub fn of(caller: &Caller) -> Proved {
        let key = || caller.key().unwrap_or_default().to_owned();
        match caller.principal() {
            Principal::Core(site) => Proved { site: site.clone(), node: None },
            Principal::Person(person) => Proved { site: person.site(), node: None },
            Principal::Member(m) => Proved { site: m.vo.site(), node: None },
            Principal::Node(n) => Proved { site: n.site(), node: Some((n.clone(), key())) },
        }
    }
}

/// The open guards of a [`Trust`].
#[derive(Clone, Default)]
pub(crate) struct Guards(Arc<Mutex<Open>>);

#[derive(Default)]
struct Open {
    next: u64,
    all: HashMap<u64, (Proved, CancellationToken)>,
}

impl Guards {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, proved: Proved) -> Guard {
        let cut = CancellationToken::new();
        let mut open = self.lock();
        let id = open.next;
        open.next += 1;
        open.all.insert(id, (proved, cut.clone()));
        drop(open);
        Guard { guards: self.clone(), id, cut }
    }

    /// Cuts all that `site` vouched for: another root stands for its name now.
    pub(crate) fn cut(&self, site: &SiteId) {
        for (proved, cut) in self.lock().all.values() {
            if proved.site == *site {
                cut.cancel();
            }
        }
    }

    /// Cuts what `trust` refuses by now.
    pub(crate) fn sweep(&self, trust: &Trust) {
        let all: Vec<_> = self.lock().all.values().cloned().collect();
        for (proved, cut) in all {
            if !cut.is_cancelled() && !trust.takes(&proved) {
                tracing::warn!(site = %proved.site, node = ?proved.node, "refused: a stream is cut");
                cut.cancel();
            }
        }
    }
}

/// Watches over one stream as long as it lives.
pub struct Guard {
    guards: Guards,
    id: u64,
    cut: CancellationToken,
}

impl Guard {
    /// Is cancelled when the stream must end.
    pub fn cut(&self) -> &CancellationToken {
        &self.cut
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.guards.lock().all.remove(&self.id);
    }
}

/// A stream that fails from the moment its guard is cut.
pub struct Guarded<S> {
    inner: S,
    // Reader and writer may be two tasks: each waits for itself.
    reading: Pin<Box<WaitForCancellationFutureOwned>>,
    writing: Pin<Box<WaitForCancellationFutureOwned>>,
    _guard: Guard,
}

impl<S> Guarded<S> {
    /// `inner` under `guard`.
    pub fn new(inner: S, guard: Guard) -> Guarded<S> {
        let wait = || Box::pin(guard.cut.clone().cancelled_owned());
        Guarded { reading: wait(), writing: wait(), inner, _guard: guard }
    }

    /// The stream itself.
    pub fn stream(&self) -> &S {
        &self.inner
    }
}

fn refused() -> io::Error {
    let why = "the peer is refused here since: its key or its site was withdrawn";
    io::Error::new(io::ErrorKind::ConnectionAborted, why)
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.reading.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(refused()));
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.writing.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(refused()));
        }
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.writing.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(refused()));
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
