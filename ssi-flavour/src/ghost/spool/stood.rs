//! Ghosts that stand for trees at this node, as the processes that they replaced.

use super::guest;
use super::spools::{Spools, forget, locked};
use crate::cluster::messages::Outcome;
use std::io;
use std::os::unix::net::UnixStream;

/// How it is with a tree for which a ghost stands at this node: nobody else wants its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stood {
    /// The ghost is there, and the tree not over.
    Stands,
    /// The ghost ended; the word that the tree is over is to come.
    Left,
    /// The tree is over; the ghost does not have all of it yet.
    Over,
}

impl Spools {
    /// As [`Spools::attach`], for the ghost of user `uid` at this node that stands for a tree: what
    /// the tree wrote goes when both are over, since nobody else wants it. Waits for the ghost's
    /// end. Whether the tree is over by then; else it goes on without a ghost. How many stand is
    /// the caller's to limit.
    ///
    /// # Errors
    /// That the spool cannot be opened.
    pub fn stand(&self, tree: u64, uid: u32, socket: UnixStream) -> io::Result<bool> {
        locked(&self.stood).insert(tree, Stood::Stands);
        let shared = self.state(tree);
        let comer = {
            let mut state = locked(&shared);
            self.recall(&mut state, tree)?;
            if let Some(spool) = &mut state.spool {
                spool.lasts = false;
            }
            state.owned_by(uid)?;
            if state.outcome.is_some() {
                locked(&self.stood).insert(tree, Stood::Over);
            }
            state.come(&socket)?
        };
        if let Err(error) = guest::serve(&shared, socket, comer) {
            tracing::debug!(tree, %error, "a ghost is gone");
        }
        // The word that it is over may have come before this was noted.
        let (over, told) = {
            let state = locked(&shared);
            (state.is_over(), state.outcome.is_some())
        };
        forget(&self.open, tree, &shared);
        let ended = {
            let mut stood = locked(&self.stood);
            let ended = told || stood.get(&tree) == Some(&Stood::Over);
            match ended {
                true => stood.remove(&tree),
                false => stood.insert(tree, Stood::Left),
            };
            ended
        };
        if ended {
            self.forget(tree)?;
        }
        Ok(over || ended)
    }

    /// The trees for which ghosts stand here that do not know that these are over, or stood until
    /// they left.
    pub fn ghosts(&self) -> Vec<u64> {
        let stood = locked(&self.stood);
        let waits = stood.iter().filter(|(_, how)| **how != Stood::Over);
        waits.map(|(tree, _)| *tree).collect()
    }

    /// As [`Spools::finish`], of a tree that nobody knows: what is known of it here counts.
    ///
    /// # Errors
    /// Those of the file.
    pub fn forsake(&self, tree: u64, outcome: &Outcome) -> io::Result<()> {
        let how = locked(&self.stood).get(&tree).copied();
        match how {
            None | Some(Stood::Over) => Ok(()),
            Some(Stood::Stands | Stood::Left) => self.finish(tree, outcome),
        }
    }

    /// Notes that a tree is over. How it was with the ghost that stands for it here, or stood; one
    /// that has left has nobody who wants to know.
    pub(super) fn note_over(&self, tree: u64) -> Option<Stood> {
        let mut stood = locked(&self.stood);
        let how = stood.get(&tree).copied()?;
        match how {
            Stood::Left => stood.remove(&tree),
            Stood::Stands | Stood::Over => stood.insert(tree, Stood::Over),
        };
        Some(how)
    }

    /// Whether a ghost stands here for a tree, or stood.
    pub(super) fn stands(&self, tree: u64) -> bool {
        locked(&self.stood).contains_key(&tree)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::proto::{Exit, Tree};
    use crate::cluster::messages::End;
    use crate::ghost::proto::{Control, Message, Steer, Stream, decode, encode};
    use crate::ghost::relay::{Ends, Offsets, Owner, Relay};
    use std::io::{Read, Write};
    use std::sync::Arc;

    const TREE: Tree = Tree { id: 7, epoch: 1 };

    /// A tree that wrote `text` and ended; its relay is served until all is taken.
    fn tree(spools: &Spools, text: &str) {
        let (_, input) = io::pipe().unwrap();
        let (output, mut writes) = io::pipe().unwrap();
        let (error, _) = io::pipe().unwrap();
        writes.write_all(text.as_bytes()).unwrap();
        drop(writes);
        let ends =
            Ends::Pipes { input: Some(input.into()), output: output.into(), error: error.into() };
        let (owner, relays) = UnixStream::pair().unwrap();
        let mut relay = Relay::new(TREE, ends, Offsets::default(), relays).unwrap();
        Owner::new(owner.try_clone().unwrap()).tell(Steer::Exited { exit: Exit::Code(3) }).unwrap();
        let (one, other) = UnixStream::pair().unwrap();
        spools.serve(TREE, [0, 0], one).unwrap();
        relay.serve(other).unwrap();
        drop(owner);
    }

    /// What a ghost that stands is told until it was told how the tree ended, which it takes.
    fn ghost(mut socket: UnixStream) -> (Vec<u8>, Exit) {
        let mut machine = crate::ghost::machine::Machine::ghost(TREE);
        let say = |message: &Message, to: &mut UnixStream| {
            let mut bytes = Vec::new();
            encode(message, &mut bytes).unwrap();
            to.write_all(&bytes).unwrap();
        };
        say(&machine.connected(false), &mut socket);
        let (mut bytes, mut got) = (Vec::new(), Vec::new());
        loop {
            while let Some((message, n)) = decode(&bytes).unwrap() {
                bytes.drain(..n);
                match message {
                    Message::Data { stream: Stream::Output, bytes, .. } => got.extend(bytes),
                    Message::Control(Control::Exit { exit, .. }) => {
                        say(&Message::Control(Control::ExitTaken), &mut socket);
                        return (got, exit);
                    }
                    _ => {}
                }
            }
            let mut buf = [0; 4096];
            let n = socket.read(&mut buf).unwrap();
            assert!(n > 0, "hung up");
            bytes.extend_from_slice(&buf[..n]);
        }
    }

    #[test]
    fn nothing_stays_of_what_a_ghost_took() {
        // wrong: the output of each line that make has placed would stay on the node's disk
        let ended = Outcome::Ended(End::Exit { code: 3 });
        for late in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let spools = Arc::new(Spools::new(dir.path()));
            tree(&spools, "made");
            assert!(spools.folder(TREE.id).exists());
            let (one, other) = UnixStream::pair().unwrap();
            let standing = spools.clone();
            let thread = std::thread::spawn(move || standing.stand(TREE.id, 100_001, one).unwrap());
            if late {
                spools.finish(TREE.id, &ended).unwrap();
            }
            assert_eq!(ghost(other), (b"made".to_vec(), Exit::Code(3)));
            assert!(thread.join().unwrap(), "it is over");
            if !late {
                spools.finish(TREE.id, &ended).unwrap();
            }
            assert!(!spools.folder(TREE.id).exists());
        }
    }

    #[test]
    fn a_ghost_that_is_gone_early_is_told_of() {
        // wrong: a line of make that was killed would go on elsewhere
        let dir = tempfile::tempdir().unwrap();
        let spools = Spools::new(dir.path());
        let (one, other) = UnixStream::pair().unwrap();
        drop(other);
        assert!(!spools.stand(TREE.id, 100_001, one).unwrap());
        spools.finish(TREE.id, &Outcome::Ended(End::Signal { number: 9 })).unwrap();
        assert!(!spools.folder(TREE.id).exists());
    }

    #[test]
    fn what_a_ghost_takes_waits_for_no_disk() {
        // wrong: each line that make has placed would wait for the disk twice; or what others may
        // ask for would be gone with the power
        let dir = tempfile::tempdir().unwrap();
        let spools = Spools::new(dir.path());
        let lasts = || locked(&spools.state(TREE.id)).spool.as_ref().unwrap().lasts;
        tree(&spools, "made");
        assert!(lasts());
        let (one, other) = UnixStream::pair().unwrap();
        let standing = spools.clone();
        let thread = std::thread::spawn(move || standing.stand(TREE.id, 100_001, one).unwrap());
        ghost(other);
        assert!(!lasts());
        thread.join().unwrap();
    }
}
