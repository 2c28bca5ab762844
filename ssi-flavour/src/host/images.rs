//! Images of other nodes, fetched to restore a tree here or to be kept; and images that came to
//! nothing.

use super::apart::{HOLDS, IMAGES};
use super::fetch::Fetch;
use super::line::{self, SILENCE_MAX, WHOLE_MAX};
use super::memory::with_room;
use super::travel::receive;
use super::within::{Limited, Line};
use super::{Event, Host, Peers, Store, Work, wait};
use crate::cluster::agent::Act;
use crate::cluster::messages::{TreeId, Written};
use crate::cluster::trees::{HOLD_MAX, STEP_MAX};
use crate::driver::images::verify;
use crate::pids::NodeNumber;
use std::collections::BTreeSet;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use xos_base::Millis;

/// How long an image stays that was fetched before its copy is to be made: both steps of a move.
const EXPECT_MAX: Duration = STEP_MAX.saturating_mul(2);
/// After how many heartbeats an image of a move is made a checkpoint: until then the core has said
/// whether it is wanted.
const KEEP_BEATS: u32 = 3;

/// How an image is taken.
#[derive(Clone, Copy)]
pub(super) struct Taking {
    /// Straight from who sends it, where that is reached.
    pub(super) direct: bool,
    /// It is to be on the disk when it is whole.
    pub(super) lasts: bool,
    /// So many bytes may come.
    pub(super) most: u64,
}

/// An image that comes before its copy is to be made.
pub(super) struct Expected {
    pub(super) version: u64,
    pub(super) way: Arc<Fetch>,
    pub(super) fetched: JoinHandle<Result<(), String>>,
    since: Millis,
}

impl Host {
    /// Begins to fetch an image that is to be kept, and the output until then. One that nobody
    /// could restart is no copy. What was fetched of the tree before is given up.
    pub(super) fn hold(
        &mut self,
        (tree, attempt): (TreeId, u64),
        version: u64,
        from: BTreeSet<NodeNumber>,
        (owner, output): (u32, Option<Written>),
    ) {
        let follow = self.copies.get(&tree).map(|c| c.streaming.follow.clone());
        let outputs = self.outputs();
        let (fetching, events) = (self.fetching(), self.events.clone());
        let way = Arc::new(Fetch::default());
        if let Some((_, before)) = self.holding.insert(tree, (version, way.clone())) {
            before.give_up();
        }
        tokio::spawn(async move {
            let of = way.clone();
            let fetched = way.by(&HOLDS, move || -> Result<bool, String> {
                fetching.fetch(&from, (tree, version), &of, (true, None))?;
                let store = &fetching.store;
                let found = verify(&store.folder(tree, version), owner);
                let found = found.map_err(|why| why.to_string());
                let lasts = found.and_then(|manifest| match manifest.lasts() {
                    true => Ok(()),
                    false => Err("it is of a move".to_owned()),
                });
                lasts.map_err(|why| {
                    let gone = store.discard(tree, version);
                    let left = gone.err().map(|e| format!("; and it stays: {e}"));
                    format!("what came is no image: {why}{}", left.unwrap_or_default())
                })?;
                let Some(output) = output else { return Ok(false) };
                outputs.keep(tree, owner, &output, (follow.as_deref(), &of)).map(|()| true)
            });
            tokio::pin!(fetched);
            let done = match tokio::time::timeout(HOLD_MAX, &mut fetched).await {
                Ok(done) => done,
                // The core waits for it no longer either.
                Err(_late) => {
                    way.give_up();
                    fetched.await
                }
            };
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
        if let Some((_, way)) = self.holding.get(&tree).filter(|(of, _)| *of == version) {
            way.give_up();
        }
        let stays = move |error: &io::Error| {
            tracing::warn!(%tree, version, %error, "an image stays");
        };
        match self.store.take_out(tree, version) {
            Ok(out) if out.is_empty() => {}
            Ok(out) => {
                let store = self.store.clone();
                tokio::task::spawn_blocking(move || {
                    if let Err(error) = store.remove(tree, &out) {
                        stays(&error);
                    }
                });
            }
            Err(error) => stays(&error),
        }
    }

    /// Begins to fetch an image that another node makes, or is about to make: so that the program
    /// there does not stand still before the way is made, and not until all is sent.
    pub(super) fn expect(&mut self, tree: TreeId, version: u64, from: NodeNumber) {
        let known = self.expected.get(&tree).is_some_and(|e| e.version >= version);
        // The order to restore it would be refused.
        let nobody_s = !self.jobs.contains_key(&tree);
        if known || nobody_s || self.is_fetched(tree, version) {
            return;
        }
        self.unexpect(tree);
        let (fetching, way) = (self.fetching(), Arc::new(Fetch::default()));
        let (of, nodes) = (way.clone(), BTreeSet::from([from]));
        let fetched = tokio::spawn(async move {
            let coming = of.clone();
            let fetch = move || fetching.fetch(&nodes, (tree, version), &coming, (false, None));
            of.by(&IMAGES, fetch).await
        });
        let since = self.setup.clock.up();
        self.expected.insert(tree, Expected { version, way, fetched, since });
    }

    pub(super) fn fetching(&self) -> Fetching {
        let (store, peers) = (self.store.clone(), self.setup.peers.clone());
        Fetching { store, peers, here: self.setup.node, direct: self.setup.direct }
    }

    /// Whether a copy is being made of an image.
    fn is_fetched(&self, tree: TreeId, version: u64) -> bool {
        let coming = self.restoring.get(&tree).and_then(|c| c.image.as_ref());
        coming.is_some_and(|(other, _)| *other == version)
    }

    /// An image that comes is wanted no more.
    pub(super) fn unexpect(&mut self, tree: TreeId) {
        let Some(Expected { version, way, fetched, .. }) = self.expected.remove(&tree) else {
            return;
        };
        way.give_up();
        let store = self.store.clone();
        let kept = self.agent.keeps(tree, version) || self.is_fetched(tree, version);
        tokio::spawn(async move {
            // What came of it before.
            if fetched.await.is_ok_and(|came| came.is_ok()) && !kept {
                let gone = wait(move || store.discard(tree, version)).await.flatten();
                if let Err(error) = gone {
                    tracing::warn!(%tree, version, %error, "an image stays");
                }
            }
        });
    }

    /// Gives up what was expected for too long, and makes checkpoints of images of moves that are
    /// wanted for longer.
    pub(super) fn tidy_images(&mut self) {
        let now = self.setup.clock.up();
        let late = self.expected.iter().filter(|(_, e)| now.since(e.since) >= EXPECT_MAX);
        let late: Vec<TreeId> = late.map(|(tree, _)| *tree).collect();
        late.into_iter().for_each(|tree| self.unexpect(tree));
        // Who fetches has it as well.
        self.holding.retain(|_, (_, way)| Arc::strong_count(way) > 1);
        let brief: BTreeSet<(TreeId, u64)> = self.agent.brief().collect();
        self.brief.retain(|image, _| brief.contains(image));
        let after = self.setup.times.heartbeat().saturating_mul(KEEP_BEATS);
        for (tree, version) in brief {
            let since = *self.brief.entry((tree, version)).or_insert(Some(now));
            // As long as a copy stands still somebody may be fetching it.
            let moves = self.copies.get(&tree).is_some_and(|c| !c.runs);
            let due = since.is_some_and(|since| now.since(since) >= after);
            if due && !moves && !self.is_fetched(tree, version) {
                self.brief.insert((tree, version), None);
                let (store, events) = (self.store.clone(), self.events.clone());
                tokio::spawn(async move {
                    let done = wait(move || store.keep(tree, version)).await.flatten();
                    let done = done.map_err(|e| e.to_string());
                    // A host that is gone has nothing to keep.
                    let _gone = events.send(Event::Kept { tree, version, done });
                });
            }
        }
    }

    /// An image of a move is a checkpoint now, or is not.
    pub(super) fn kept(
        &mut self,
        tree: TreeId,
        version: u64,
        done: Result<(), String>,
    ) -> Vec<Act> {
        self.brief.remove(&(tree, version));
        let wanted = self.agent.brief().any(|image| image == (tree, version));
        match done {
            Ok(()) if wanted => self.agent.held(tree, 0, version, Ok(false)).into_iter().collect(),
            Ok(()) => {
                self.discard_unused(tree, version);
                Vec::new()
            }
            Err(why) => {
                if wanted {
                    tracing::warn!(%tree, version, why, "the image of a move is no checkpoint yet");
                }
                Vec::new()
            }
        }
    }

    /// An image will not be used unless it is one that is kept, or made or fetched anew.
    pub(super) fn discard_unused(&self, tree: TreeId, version: u64) {
        let work = self.copies.get(&tree).and_then(|c| c.work.as_ref());
        let made = work.is_some_and(|w| w.version == version);
        let expected = self.expected.get(&tree).is_some_and(|e| e.version == version);
        let fetched = expected || self.is_fetched(tree, version);
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
        if let Some(writing) = &work.writing {
            writing.give_up();
        }
        if work.dumped.is_some() && !work.sealing {
            self.work_over(work.number);
        }
    }
}

/// What a node fetches images with.
pub(super) struct Fetching {
    pub(super) store: Store,
    pub(super) peers: Arc<dyn Peers>,
    here: NodeNumber,
    direct: bool,
}

impl Fetching {
    /// Has an image here, on the disk if it `lasts`, from the first of the nodes that gives it,
    /// unless it is here already; of so many bytes, if that is known. The error is for the person
    /// whose tree it is.
    pub(super) fn fetch(
        &self,
        nodes: &BTreeSet<NodeNumber>,
        (tree, version): (TreeId, u64),
        way: &Fetch,
        (lasts, bytes): (bool, Option<u64>),
    ) -> Result<(), String> {
        if self.store.has(tree, version) {
            return Ok(());
        }
        let taking = Taking { direct: self.direct, lasts, most: bytes.map_or(u64::MAX, with_room) };
        let mut why = "no node has its image".to_owned();
        let found = nodes.iter().filter(|n| **n != self.here).any(|from| {
            let got = self.peers.image(*from, tree, version);
            let got = got.and_then(|socket| self.take(socket, (tree, version), way, taking));
            got.map_err(|e| why = format!("cannot fetch its image: {e}")).is_ok()
        });
        if found { Ok(()) } else { Err(why) }
    }

    /// Takes an image from who sends it at the other end of a socket, as long as it is wanted and
    /// comes in time.
    pub(super) fn take(
        &self,
        socket: UnixStream,
        image: (TreeId, u64),
        way: &Fetch,
        Taking { direct, lasts, most }: Taking,
    ) -> io::Result<()> {
        way.comes(&Line::Through(socket.try_clone()?))?;
        let received = line::take(socket, direct).and_then(|(line, key)| {
            way.comes(&line)?;
            let from = Limited::new(line, SILENCE_MAX, WHOLE_MAX)?;
            receive(&self.store, image, from, &key, (lasts, most))
        });
        way.over();
        received
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read, Write};

    #[test]
    fn an_image_that_does_not_come_is_given_up() {
        // wrong: a node that hangs would keep a program, its image and a thread here for ever
        let hour = Duration::from_secs(3600);
        let (one, mut other) = UnixStream::pair().unwrap();
        let mut silent = Limited::new(Line::Through(one), Duration::from_millis(1), hour).unwrap();
        assert_eq!(silent.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
        other.write_all(b"x").unwrap();
        assert_eq!(silent.read(&mut [0]).unwrap(), 1);
        let (one, mut other) = UnixStream::pair().unwrap();
        other.write_all(b"x").unwrap();
        let mut slow = Limited::new(Line::Through(one), hour, Duration::ZERO).unwrap();
        assert_eq!(slow.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
    }
}
