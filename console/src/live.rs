//! Streams to a browser. A task on the main runtime feeds each; it ends with its session, so that
//! nothing is shown after signing out.

use crate::session::Session;
use crate::visit::{Stop, Visit};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, unfold};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc;
use xos_base::Error;
use xos_base::when::Clock;

/// A stream lives no longer; the browser opens the next one, with a fresh proof.
const STREAM_LIFE_MAX: Duration = Duration::from_secs(10 * 60);
/// How often an empty line goes out, and the session is looked at, when nothing happens.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// The line that tells a page's script to look again.
pub(crate) const AGAIN: &[u8] = b"{\"over\":false}\n";
/// Most parts of a stream that wait for the browser.
const WAITING_MAX: usize = 8;

/// Keeps a stream's place among those of its session.
pub(crate) fn place(visit: &Visit) -> Result<OwnedSemaphorePermit, Stop> {
    visit.session.streams.clone().try_acquire_owned().map_err(|_| {
        Stop::Failed(
            Error::limited("this session follows too many things at the same time")
                .hint("close some of the console's tabs"),
        )
    })
}

/// Lines for a browser, from `items`, with an empty line now and then.
pub(crate) fn lines(
    visit: &Visit,
    items: BoxStream<'static, Bytes>,
) -> Result<BoxStream<'static, Result<Bytes, Error>>, Stop> {
    let place = place(visit)?;
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    let feed = Feed { session: visit.session.clone(), clock: visit.console.clock.clone(), sender };
    visit.console.runtime.spawn(async move {
        if tokio::time::timeout(STREAM_LIFE_MAX, feed.run(items)).await.is_err() {
            tracing::debug!("a stream reached its longest life");
        }
        drop(place);
    });
    Ok(received(receiver))
}

/// A stream that now and then tells an open page to look again.
pub(crate) fn ticks(every: Duration) -> BoxStream<'static, Bytes> {
    unfold((), move |()| async move {
        tokio::time::sleep(every).await;
        Some((Bytes::from_static(AGAIN), ()))
    })
    .boxed()
}

struct Feed {
    session: Arc<Session>,
    clock: Arc<dyn Clock>,
    sender: mpsc::Sender<Result<Bytes, Error>>,
}

impl Feed {
    /// Passes items on until they, the session or the browser end.
    async fn run(self, mut items: BoxStream<'static, Bytes>) {
        loop {
            let next = tokio::select! {
                () = self.sender.closed() => return,
                () = self.session.ended() => return,
                item = items.next() => match item {
                    Some(item) => item,
                    None => return,
                },
                () = tokio::time::sleep(HEARTBEAT) => Bytes::from_static(b"\n"),
            };
            if !self.session.lives(self.clock.now()) || self.sender.send(Ok(next)).await.is_err() {
                return;
            }
        }
    }
}

/// A part of what must come whole.
pub(crate) enum Part {
    /// Some of it.
    Bytes(Bytes),
    /// That was all.
    End,
}

/// What a channel receives, as a stream that fails when it ends without [`Part::End`].
pub(crate) fn whole(receiver: mpsc::Receiver<Part>) -> BoxStream<'static, Result<Bytes, Error>> {
    unfold(Some(receiver), |receiver| async move {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Part::Bytes(bytes)) => Some((Ok(bytes), Some(receiver))),
            Some(Part::End) => None,
            None => Some((Err(Error::unavailable("this broke off")), None)),
        }
    })
    .boxed()
}

/// What a channel receives, as a stream.
pub(crate) fn received<T: Send + 'static>(receiver: mpsc::Receiver<T>) -> BoxStream<'static, T> {
    unfold(receiver, |mut r| async move { r.recv().await.map(|item| (item, r)) }).boxed()
}
