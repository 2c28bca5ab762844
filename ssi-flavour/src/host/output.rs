//! What trees wrote, kept with their checkpoints, and taken from there when their spools are lost.

use super::apart::OUTPUT;
use super::fetch::Fetch;
use super::streams::Parked;
use super::within::{Limited, Line};
use super::{Event, Host, Peers};
use crate::cell::proto::Tree;
use crate::cluster::agent::Act;
use crate::cluster::messages::{Offsets, Stretch, TreeId, Written};
use crate::ghost::spool::{Follow, Second, Spools, receive};
use crate::pids::NodeNumber;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long nothing may come of what another node sends, and how long all of it may take.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const WHOLE_MAX: Duration = Duration::from_secs(3600);
/// How often a node is asked that does not have all of it yet, and the pause before: the last that
/// a copy wrote may be on its way there.
const LOOKS_MAX: u32 = 25;
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How often a copy that needs its output for a new spool tries to get it from others, and the
/// pause before. Then it goes on without: it cannot write as long as it has no spool.
const TRIES_MAX: u32 = 5;
const TRY_AGAIN: Duration = Duration::from_secs(2);
/// Most spools of before that are told of at a time.
const LEFT_MAX: usize = 1024;

fn lock(second: &Mutex<Second>) -> MutexGuard<'_, Second> {
    second.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What output is fetched with, and where it is kept. All of it waits.
pub(super) struct Outputs {
    spools: Arc<Spools>,
    peers: Arc<dyn Peers>,
    here: NodeNumber,
}

impl Outputs {
    /// Keeps what a tree of user `owner`, whose spool is elsewhere, had written; `follow`: its copy
    /// is here, and what that writes is kept as well; `way`: until nobody wants it any more. It is
    /// on the disk when this returns. The error is for the person whose tree it is.
    pub(super) fn keep(
        &self,
        tree: TreeId,
        owner: u32,
        output: &Written,
        (follow, way): (Option<&Follow>, &Fetch),
    ) -> Result<(), String> {
        let failed = |e: io::Error| format!("what it wrote cannot be kept: {e}");
        self.spools.leave(tree.0, output.line.number).map_err(failed)?;
        let second = self.spools.second(tree.0, owner).map_err(failed)?;
        lock(&second).take_line(output.line).map_err(failed)?;
        if let Some(follow) = follow {
            follow.begin(&second).map_err(failed)?;
        }
        self.have(&second, tree, output, way)?;
        let mut second = lock(&second);
        second.join().and_then(|()| second.settle(output.upto)).map_err(failed)
    }

    /// Fetches what lacks, from the first of the nodes that has it.
    fn have(
        &self,
        second: &Mutex<Second>,
        tree: TreeId,
        output: &Written,
        way: &Fetch,
    ) -> Result<(), String> {
        let lacks = || lock(second).lacks(output.upto);
        let mut why = "no node has what it wrote".to_owned();
        for from in output.at.iter().filter(|node| **node != self.here) {
            for look in 0..LOOKS_MAX {
                if look > 0 {
                    std::thread::sleep(LOOK_AGAIN);
                }
                let Some((begin, upto)) = lacks() else { return Ok(()) };
                let ask = Stretch { from: begin, upto, line: output.line };
                if let Err(e) = self.fetch(second, *from, (tree, &ask), way) {
                    why = format!("cannot fetch what it wrote: {e}");
                    break;
                }
                why = format!("node {from} has not all that it wrote");
            }
        }
        if lacks().is_none() { Ok(()) } else { Err(why) }
    }

    fn fetch(
        &self,
        second: &Mutex<Second>,
        from: NodeNumber,
        (tree, ask): (TreeId, &Stretch),
        way: &Fetch,
    ) -> io::Result<()> {
        let line = Line::Through(self.peers.written(from, tree, ask)?);
        way.comes(&line)?;
        let received = Limited::new(line, SILENCE_MAX, WHOLE_MAX)
            .and_then(|mut from| receive(second, ask, &mut from));
        way.over();
        received
    }

    /// Makes what is kept of a tree the beginning of its spool at this node, with what of it others
    /// have; what its copy here reads is kept nowhere else from now on. Whether nothing is missing.
    fn adopt(
        &self,
        tree: Tree,
        owner: u32,
        output: &Written,
        (follow, parked): (&Follow, &Parked),
    ) -> io::Result<bool> {
        let line = output.line.number.saturating_add(1);
        if output.at.first() == Some(&self.here) && self.spools.reaches(tree.id, output.upto)? {
            // Nobody had it since this node did.
            self.spools.renew(tree, line)?;
            return Ok(true);
        }
        let second = self.spools.second(tree.id, owner)?;
        lock(&second).take_line(output.line)?;
        // What the last spool still takes, if it is there, would be missing here.
        parked.wait();
        let from = follow.stop();
        let [out, err] = [0, 1].map(|i| output.upto.both()[i].max(from[i]));
        let all = Written { upto: Offsets { out, err }, ..output.clone() };
        let way = Fetch::default();
        for attempt in 1..=TRIES_MAX {
            let Err(why) = self.have(&second, TreeId(tree.id), &all, &way) else { break };
            tracing::warn!(%tree, why, "its spool is to go on here, and not all is there");
            if all.at.iter().all(|node| *node == self.here) || attempt == TRIES_MAX {
                break;
            }
            std::thread::sleep(TRY_AGAIN);
        }
        lock(&second).join()?;
        self.spools.adopt(tree, from, line)
    }
}

impl Host {
    pub(super) fn outputs(&self) -> Outputs {
        let (spools, peers) = (self.setup.spools.clone(), self.setup.peers.clone());
        Outputs { spools, peers, here: self.setup.node }
    }

    /// A copy's output is to go to a spool here, which begins with what was kept.
    pub(super) fn spool_here(
        &mut self,
        id: TreeId,
        epoch: u64,
        output: Option<Written>,
    ) -> Vec<Act> {
        let tree = Tree { id: id.0, epoch };
        // Of one that is not there yet it is said again.
        let Some(c) = self.copies.get(&id).filter(|c| c.epoch == epoch) else { return Vec::new() };
        if c.streaming.is_turned() {
            return self.agent.spooled(id, epoch).into_iter().collect();
        }
        let owner = self.jobs.get(&id).map(|job| job.account.uid);
        let (Some(output), Some(owner)) = (output, owner) else { return self.turned(tree) };
        if self.adopting.contains(&tree) {
            return Vec::new();
        }
        let (follow, parked) = (c.streaming.follow.clone(), c.streaming.park());
        let outputs = self.outputs();
        self.adopting.insert(tree);
        let events = self.events.clone();
        tokio::spawn(async move {
            let adopting = move || outputs.adopt(tree, owner, &output, (&*follow, &parked));
            let adopted = OUTPUT.run(adopting).await.flatten();
            match adopted {
                Ok(true) => {}
                Ok(false) => tracing::warn!(%tree, "what it wrote before is lost with its spool"),
                Err(error) => {
                    tracing::warn!(%tree, %error, "what it wrote before is not in its spool here");
                }
            }
            // A host that is gone has no copies.
            let _gone = events.send(Event::Adopted { tree });
        });
        Vec::new()
    }

    /// What its spool here begins with is there.
    pub(super) fn turned(&mut self, tree: Tree) -> Vec<Act> {
        self.adopting.remove(&tree);
        let (id, here) = (TreeId(tree.id), self.setup.node);
        if let Some(job) = self.jobs.get(&id) {
            self.collects(id, job);
        }
        let Some(c) = self.copy(id, tree.epoch) else { return Vec::new() };
        c.streaming.turn(here);
        self.agent.spooled(id, tree.epoch).into_iter().collect()
    }

    /// With the last checkpoint of a tree goes what is kept of its output.
    pub(super) fn let_go(&self, tree: TreeId) {
        if self.agent.keeps_some(tree) {
            return;
        }
        let spools = self.setup.spools.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = spools.forget_second(tree.0) {
                tracing::warn!(%tree, %error, "what was kept of its output stays");
            }
        });
    }

    /// Looks for spools of trees that may have other ones by now: the core says which.
    pub(super) fn look_for_spools(&mut self) {
        match self.setup.spools.unfinished() {
            Ok(found) => {
                let found = found.into_iter();
                self.left = found.map(|(id, epoch)| (TreeId(id), epoch)).collect();
            }
            Err(error) => tracing::warn!(%error, "spools of before are not looked through"),
        }
    }

    /// Of these, those that no copy writes to now.
    pub(super) fn left_spools(&self) -> Vec<(TreeId, u64)> {
        let spools = &self.setup.spools;
        let left = self.left.iter().filter(|(tree, _)| !spools.is_served(tree.0));
        left.map(|(tree, epoch)| (*tree, *epoch)).take(LEFT_MAX).collect()
    }

    /// A spool is not its tree's any more.
    pub(super) fn unspool(&mut self, id: TreeId, epoch: u64) {
        self.left.remove(&id);
        let spools = self.setup.spools.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = spools.unspool(Tree { id: id.0, epoch }) {
                tracing::warn!(tree = %id, %error, "a spool stays that is its tree's no more");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::messages::Line;
    use crate::ghost::relay;
    use crate::ghost::spool::{OUTPUT_FILE, Piece};
    use crate::host::streams::tests::Near;
    use crate::host::streams::{Places, Streaming, Wanted};

    const TREE: Tree = Tree { id: 7, epoch: 2 };

    #[test]
    fn what_only_the_last_node_has_is_fetched_when_that_is_back() {
        // wrong: with each new start of the node that collects a program's output, all that it
        // wrote after its checkpoint, and then all before that, would be gone
        let (dir, before) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (here, last) = (2u8.try_into().unwrap(), 1u8.try_into().unwrap());
        let theirs = Spools::new(before.path());
        theirs.adopt(Tree { epoch: 1, ..TREE }, [0; 2], 0).unwrap();
        std::fs::write(theirs.folder(TREE.id).join(OUTPUT_FILE), "abcdefgh").unwrap();
        let peers: Arc<dyn Peers> = Arc::new(Near { first: Mutex::default(), spools: theirs });
        // The copy has what is after the first six bytes.
        let now = relay::Offsets { output: 6, ..relay::Offsets::default() };
        let (places, wanted) =
            (Places { now, first: [0; 2] }, Wanted { terminal_of: None, input: false });
        let (events, _told) = tokio::sync::mpsc::unbounded_channel();
        let made = Streaming::new((TREE, false), here, wanted, places, peers.clone(), events);
        let (streaming, _fds) = made.unwrap();
        let parked = streaming.park();
        streaming.go();
        let spools = Arc::new(Spools::new(dir.path()));
        let outputs = Outputs { spools: spools.clone(), peers, here };
        let upto = Offsets { out: 3, err: 0 };
        let output = Written { upto, line: Line::default(), at: vec![last] };
        let way = (&*streaming.follow, &parked);
        assert!(outputs.adopt(TREE, 100_001, &output, way).unwrap());
        let Piece { bytes, .. } = spools.read(TREE.id, false, 0, 100).unwrap();
        assert_eq!(bytes, b"abcdef");
    }
}
