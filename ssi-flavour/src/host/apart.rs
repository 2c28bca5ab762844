//! Threads of their own for what other machines, or file systems, can hold as long as they like.
//! The runtime's threads are left to what the agent's own cell and folder answer: the lease of all
//! that runs here is renewed by them.

use std::io;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

/// For images that copies are to be made of.
pub(super) static IMAGES: Apart = Apart::new("image", 16);
/// For checkpoints that are to be kept, with the output until then.
pub(super) static HOLDS: Apart = Apart::new("hold", 8);
/// For output that a spool here is to begin with.
pub(super) static OUTPUT: Apart = Apart::new("output", 8);
/// For the files of programs.
pub(super) static FILES: Apart = Apart::new("files", 16);

/// So many threads.
pub(super) struct Apart {
    name: &'static str,
    places: Semaphore,
}

/// One of them, that is not begun yet.
pub(super) struct Place {
    name: &'static str,
    permit: SemaphorePermit<'static>,
}

impl Apart {
    pub(super) const fn new(name: &'static str, most: usize) -> Apart {
        Apart { name, places: Semaphore::const_new(most) }
    }

    /// The next one that is free.
    ///
    /// # Errors
    /// None, as long as nobody closes what counts them.
    pub(super) async fn place(&'static self) -> io::Result<Place> {
        let permit = self.places.acquire().await.map_err(io::Error::other)?;
        Ok(Place { name: self.name, permit })
    }

    /// Does what waits in the next one that is free; see [`Place::run`].
    ///
    /// # Errors
    /// As [`Place::run`].
    pub(super) async fn run<T: Send + 'static>(
        &'static self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        self.place().await?.run(work).await
    }
}

impl Place {
    /// Does what waits. If nobody waits for it any more it goes on, and keeps its place.
    ///
    /// # Errors
    /// That the system gives no thread, or the work broke off.
    pub(super) async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let (done, doing) = oneshot::channel();
        let Place { name, permit } = self;
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let result = work();
            drop(permit);
            // Who waited for it may be gone.
            let _gone = done.send(result);
        })?;
        doing.await.map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[tokio::test]
    async fn what_hangs_takes_no_more_threads_than_its_own() {
        // wrong: a peer that sends nothing, or a volume that does not answer, would take the
        // threads by which the lease is renewed, and all programs of the node stop
        static TWO: Apart = Apart::new("two", 2);
        let all: Vec<_> = (0..2)
            .map(|n| {
                let (end, ends) = channel::<()>();
                let hangs = tokio::spawn(TWO.run(move || {
                    // Until the other end is dropped.
                    let _ended = ends.recv();
                    n
                }));
                (end, hangs)
            })
            .collect();
        while TWO.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let mut third = Box::pin(TWO.run(|| 2));
        let early = at_once(&mut third).await;
        assert!(early.is_none(), "there is no place for it");
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        for (n, (end, hangs)) in all.into_iter().enumerate() {
            drop(end);
            assert_eq!(hangs.await.unwrap().unwrap(), n);
        }
        assert_eq!(third.await.unwrap(), 2);
    }

    /// What is there at once.
    async fn at_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        tokio::select! {
            biased;
            there = future => Some(there),
            () = std::future::ready(()) => None,
        }
    }

    #[tokio::test]
    async fn what_breaks_off_gives_its_place_back() {
        // wrong: after some errors no image would come any more
        static ONE: Apart = Apart::new("one", 1);
        let broken = ONE.run(|| assert!(ONE.places.available_permits() > 0, "on purpose")).await;
        assert!(broken.is_err());
        assert_eq!(ONE.run(|| 7).await.unwrap(), 7);
    }
}
