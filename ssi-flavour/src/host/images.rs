//! Images of other nodes, fetched to restore a tree here or to be kept; and images that came to
//! nothing.

use super::{Event, Host, Peers, Store, Work, wait};
use crate::cluster::messages::{TreeId, Written};
use crate::driver::images::verify;
use crate::pids::NodeNumber;
use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long nothing of an image may come until it is given up.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long all of it may take.
const FETCH_MAX: Duration = Duration::from_secs(6 * 3600);

/// An image on its way here, that can be given up.
#[derive(Debug, Default)]
pub(super) struct Fetch(Mutex<Way>);

#[derive(Debug, Default)]
struct Way {
    given_up: bool,
    socket: Option<UnixStream>,
}

impl Fetch {
    /// Nobody wants it any more.
    pub(super) fn give_up(&self) {
        let mut way = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        way.given_up = true;
        if let Some(socket) = way.socket.take() {
            // It may have ended by itself.
            let _gone = socket.shutdown(Shutdown::Both);
        }
    }

    /// It comes over this socket; an error when nobody wants it.
    fn comes(&self, socket: &UnixStream) -> io::Result<()> {
        let mut way = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if way.given_up {
            return Err(io::Error::other("it was given up"));
        }
        way.socket = Some(socket.try_clone()?);
        Ok(())
    }

    /// No more comes over that socket.
    fn over(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).socket = None;
    }
}

/// What comes, but neither silence nor drops for ever.
struct Limited {
    socket: UnixStream,
    until: Instant,
}

impl Limited {
    fn new(socket: UnixStream, silence: Duration, whole: Duration) -> io::Result<Limited> {
        socket.set_read_timeout(Some(silence))?;
        Ok(Limited { socket, until: Instant::now() + whole })
    }
}

impl Read for Limited {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let late = |why: &str| io::Error::new(ErrorKind::TimedOut, why.to_owned());
        if Instant::now() >= self.until {
            return Err(late("it takes too long"));
        }
        match self.socket.read(buf) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => Err(late("nothing of it comes")),
            read => read,
        }
    }
}

impl Host {
    /// Begins to fetch an image that is to be kept, and the output until then. One that nobody
    /// could restart is no copy.
    pub(super) fn hold(
        &self,
        (tree, attempt): (TreeId, u64),
        version: u64,
        from: BTreeSet<NodeNumber>,
        (owner, output): (u32, Option<Written>),
    ) {
        let follow = self.copies.get(&tree).map(|c| c.streaming.follow.clone());
        let outputs = self.outputs();
        let (store, peers, here) = (self.store.clone(), self.setup.peers.clone(), self.setup.node);
        let events = self.events.clone();
        tokio::spawn(async move {
            let fetched = wait(move || -> Result<bool, String> {
                fetch(&store, &*peers, here, &from, (tree, version), &Fetch::default())?;
                verify(&store.folder(tree, version), owner).map(drop).map_err(|why| {
                    let gone = store.discard(tree, version);
                    let left = gone.err().map(|e| format!("; and it stays: {e}"));
                    format!("what came is no image: {why}{}", left.unwrap_or_default())
                })?;
                let Some(output) = output else { return Ok(false) };
                outputs.keep(tree, owner, &output, follow.as_deref()).map(|()| true)
            });
            let done = fetched.await.map_err(|e| e.to_string()).flatten();
            if let Err(why) = &done {
                tracing::warn!(%tree, version, why, "no copy of a checkpoint was fetched");
            }
            // A host that is gone has nothing to keep.
            let _gone = events.send(Event::Held { tree, attempt, version, done });
        });
    }

    /// Removes an image: it is not there any more when this returns. What stays on the disk goes
    /// when the next host begins.
    pub(super) fn discard(&self, tree: TreeId, version: u64) {
        let stays = move |error: &io::Error| {
            tracing::warn!(%tree, version, %error, "an image stays");
        };
        match self.store.take_out(tree, version) {
            Ok(Some(out)) => {
                let store = self.store.clone();
                tokio::task::spawn_blocking(move || {
                    if let Err(error) = store.remove(tree, &out) {
                        stays(&error);
                    }
                });
            }
            Ok(None) => {}
            Err(error) => stays(&error),
        }
    }

    /// An image will not be used unless it is one that is kept, or made or fetched anew.
    pub(super) fn discard_unused(&self, tree: TreeId, version: u64) {
        let work = self.copies.get(&tree).and_then(|c| c.work.as_ref());
        let made = work.is_some_and(|w| w.version == version);
        let coming = self.restoring.get(&tree).and_then(|c| c.image.as_ref());
        let fetched = coming.is_some_and(|(other, _)| *other == version);
        if !made && !fetched && !self.agent.keeps(tree, version) {
            self.discard(tree, version);
        }
    }

    /// Nothing works at an image any more.
    pub(super) fn work_over(&mut self, number: u64) {
        if let Some((tree, version)) = self.making.remove(&number) {
            self.discard_unused(tree, version);
        }
    }

    /// An image is wanted no more. What works at it finds that out by itself.
    pub(super) fn give_up(&mut self, work: &Work) {
        if work.dumped.is_some() && !work.sealing {
            self.work_over(work.number);
        }
    }
}

/// Has an image here, from the first of the nodes that gives it, unless it is here already. The
/// error is for the person whose tree it is.
pub(super) fn fetch(
    store: &Store,
    peers: &dyn Peers,
    here: NodeNumber,
    nodes: &BTreeSet<NodeNumber>,
    (tree, version): (TreeId, u64),
    way: &Fetch,
) -> Result<(), String> {
    if store.has(tree, version) {
        return Ok(());
    }
    let mut why = "no node has its image".to_owned();
    let found = nodes.iter().filter(|n| **n != here).any(|from| {
        let got = peers.image(*from, tree, version).and_then(|socket| {
            way.comes(&socket)?;
            let mut image = Limited::new(socket, SILENCE_MAX, FETCH_MAX)?;
            let received = store.receive(tree, version, &mut image);
            way.over();
            received
        });
        got.map_err(|e| why = format!("cannot fetch its image: {e}")).is_ok()
    });
    if found { Ok(()) } else { Err(why) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn an_image_that_does_not_come_is_given_up() {
        // wrong: a node that hangs would keep a program, its image and a thread here for ever
        let hour = Duration::from_secs(3600);
        let (one, mut other) = UnixStream::pair().unwrap();
        let mut silent = Limited::new(one, Duration::from_millis(1), hour).unwrap();
        assert_eq!(silent.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
        other.write_all(b"x").unwrap();
        assert_eq!(silent.read(&mut [0]).unwrap(), 1);
        let (one, mut other) = UnixStream::pair().unwrap();
        other.write_all(b"x").unwrap();
        let mut slow = Limited::new(one, hour, Duration::ZERO).unwrap();
        assert_eq!(slow.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn an_image_that_nobody_wants_any_more_is_not_waited_for() {
        // wrong: a program that is ended while its image comes would stay until that is here
        let (one, _other) = UnixStream::pair().unwrap();
        let fetch = Fetch::default();
        fetch.comes(&one).unwrap();
        fetch.give_up();
        let mut image = Limited::new(one, SILENCE_MAX, FETCH_MAX).unwrap();
        assert_eq!(image.read(&mut [0]).unwrap(), 0);
        let (another, _other) = UnixStream::pair().unwrap();
        assert!(fetch.comes(&another).is_err(), "another node is not asked for it");
    }
}
