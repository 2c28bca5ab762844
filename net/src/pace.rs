//! A limit of time for every head of a request on a connection: actix has one for the first only.

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;
use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// What a connection is at. Clones are of the same connection.
#[derive(Clone, Default)]
pub(crate) struct Pace(Rc<State>);

#[derive(Default)]
struct State {
    /// Whether a request is served; else a head is awaited, or is coming.
    serving: Cell<bool>,
    /// How many heads have come.
    heads: Cell<u64>,
}

impl Pace {
    /// The head of a request has come; it is served until what is returned is dropped.
    pub(crate) fn serve(&self) -> Serving {
        self.0.serving.set(true);
        self.0.heads.set(self.0.heads.get().wrapping_add(1));
        Serving(self.clone())
    }
}

/// A request is being served.
pub(crate) struct Serving(Pace);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.0.serving.set(false);
    }
}

/// An answer's body, and what must be held until it is sent.
pub(crate) struct Sent<B, H> {
    body: B,
    _held: H,
}

impl<B, H> Sent<B, H> {
    pub(crate) fn new(body: B, held: H) -> Sent<B, H> {
        Sent { body, _held: held }
    }
}

impl<B: MessageBody + Unpin, H: Unpin> MessageBody for Sent<B, H> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(cx)
    }
}

/// A connection whose heads must come within their time.
pub(crate) struct Paced<S> {
    inner: S,
    pace: Pace,
    head: Duration,
    idle: Duration,
    /// When the present head must be here; `None` while a request is served.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Whether the head has begun.
    begun: bool,
    /// How many heads had come when that was set.
    heads: u64,
}

impl<S> Paced<S> {
    /// `inner`, on which a head may take `head`, and begin `idle` after the last request.
    pub(crate) fn new(inner: S, head: Duration, idle: Duration) -> Paced<S> {
        let pace = Pace::default();
        Paced { inner, pace, head, idle, deadline: None, begun: false, heads: 0 }
    }

    pub(crate) fn inner(&self) -> &S {
        &self.inner
    }

    pub(crate) fn pace(&self) -> Pace {
        self.pace.clone()
    }

    fn late(&mut self, cx: &mut Context<'_>) -> bool {
        let idle = self.idle;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(idle)));
        deadline.as_mut().poll(cx).is_ready()
    }
}

fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the head of a request came too slowly")
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let State { serving, heads } = &*self.pace.0;
        let (serving, heads) = (serving.get(), heads.get());
        if heads != self.heads {
            (self.heads, self.deadline, self.begun) = (heads, None, false);
        }
        if serving {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        if self.late(cx) {
            return Poll::Ready(Err(too_slow()));
        }
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if buf.filled().len() > before && !self.begun {
            self.begun = true;
            let by = Instant::now() + self.head;
            if let Some(deadline) = &mut self.deadline {
                deadline.as_mut().reset(by);
            }
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const HEAD: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(75);

    fn due<S>(core: &Paced<S>) -> Instant {
        core.deadline.as_ref().expect("no limit").deadline()
    }

    /// If it failed, a head in drips would hold its connection for ever, or a slow body or answer,
    /// or a connection that is used again, would be cut off.
    #[tokio::test]
    async fn every_head_has_its_time_and_what_is_served_has_none() {
        let (mut client, core) = tokio::io::duplex(64);
        let mut core = Paced::new(core, HEAD, IDLE);
        for body in [true, false, true] {
            let idle_since = Instant::now();
            assert!(core.read_exact(&mut [0]).now_or_never().is_none());
            assert!(due(&core) >= idle_since + IDLE, "an idle connection has less than its time");
            client.write_all(b"he").await.unwrap();
            core.read_exact(&mut [0; 2]).await.unwrap();
            let by = due(&core);
            assert!(by <= Instant::now() + HEAD);
            client.write_all(b"ad").await.unwrap();
            core.read_exact(&mut [0; 2]).await.unwrap();
            assert_eq!(due(&core), by, "drips lengthen the time of a head");
            let serving = core.pace().serve();
            if body {
                client.write_all(b"body").await.unwrap();
                core.read_exact(&mut [0; 4]).await.unwrap();
                assert!(core.deadline.is_none(), "a body has the time of a head");
            }
            drop(serving);
        }
    }

    /// If it failed, the limits above would be numbers without effect.
    #[tokio::test]
    async fn a_head_that_is_late_ends_the_connection() {
        let short = Duration::from_millis(50);
        for (drips, head, idle) in [(true, short, IDLE), (false, HEAD, short)] {
            let (mut client, core) = tokio::io::duplex(64);
            let mut core = Paced::new(core, head, idle);
            let drip = async {
                let mut tick = tokio::time::interval(Duration::from_millis(5));
                while drips && client.write_all(b"x").await.is_ok() {
                    tick.tick().await;
                }
                std::future::pending::<()>().await;
            };
            let read = async {
                loop {
                    if let Err(e) = core.read_exact(&mut [0]).await {
                        return e;
                    }
                }
            };
            let e = tokio::select! {
                () = drip => unreachable!("it waits for ever"),
                e = read => e,
            };
            assert_eq!(e.kind(), io::ErrorKind::TimedOut);
        }
    }
}
