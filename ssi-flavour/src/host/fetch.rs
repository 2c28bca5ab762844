//! An image on its way here, or what goes with it.

use super::apart::Apart;
use super::within::Line;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// An image on its way here, that can be given up.
#[derive(Debug, Default)]
pub(super) struct Fetch {
    way: Mutex<Way>,
    told: Notify,
}

#[derive(Debug, Default)]
struct Way {
    given_up: bool,
    line: Option<Line>,
}

impl Fetch {
    fn way(&self) -> MutexGuard<'_, Way> {
        self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody wants it any more.
    pub(super) fn give_up(&self) {
        let line = {
            let mut way = self.way();
            way.given_up = true;
            way.line.take()
        };
        if let Some(line) = line {
            line.end();
        }
        self.told.notify_waiters();
    }

    /// Waits until nobody wants it any more.
    async fn given_up(&self) {
        // What is told from now on is heard.
        let told = self.told.notified();
        let over = self.way().given_up;
        if !over {
            told.await;
        }
    }

    /// Fetches it in one of these threads. None is waited for any more when nobody wants it.
    pub(super) async fn by<T: Send + 'static>(
        &self,
        threads: &'static Apart,
        fetch: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let place = tokio::select! {
            place = threads.place() => place.map_err(|e| e.to_string())?,
            () = self.given_up() => return Err("it was given up".to_owned()),
        };
        place.run(fetch).await.map_err(|e| e.to_string()).flatten()
    }

    /// It comes over this one; an error when nobody wants it.
    pub(super) fn comes(&self, line: &Line) -> io::Result<()> {
        let mut way = self.way();
        if way.given_up {
            return Err(io::Error::other("it was given up"));
        }
        way.line = Some(line.again()?);
        Ok(())
    }

    /// No more comes over that one.
    pub(super) fn over(&self) {
        self.way().line = None;
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::{SILENCE_MAX, WHOLE_MAX};
    use super::super::within::Limited;
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    #[test]
    fn an_image_that_nobody_wants_any_more_is_not_waited_for() {
        // wrong: a program that is ended while its image comes would stay until that is here
        let (one, _other) = UnixStream::pair().unwrap();
        let fetch = Fetch::default();
        let line = Line::Through(one);
        fetch.comes(&line).unwrap();
        fetch.give_up();
        let mut image = Limited::new(line, SILENCE_MAX, WHOLE_MAX).unwrap();
        assert_eq!(image.read(&mut [0]).unwrap(), 0);
        let (another, _other) = UnixStream::pair().unwrap();
        assert!(fetch.comes(&Line::Through(another)).is_err(), "another node is not asked for it");
    }

    #[tokio::test]
    async fn what_waits_for_a_thread_can_be_given_up() {
        // wrong: a program that is ended would stay as long as other nodes hold up other images
        static ONE: Apart = Apart::new("one", 1);
        let fetch = Arc::new(Fetch::default());
        let _place = ONE.place().await.unwrap();
        let of = fetch.clone();
        let waits = tokio::spawn(async move { of.by(&ONE, || Ok(())).await });
        tokio::task::yield_now().await;
        fetch.give_up();
        assert!(waits.await.unwrap().is_err());
        assert!(fetch.by(&ONE, || Ok(())).await.is_err(), "nor is it begun later");
    }
}
