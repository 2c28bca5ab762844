//! Streams with offsets and windows: what is sent, kept, acknowledged, sent again. No I/O.

mod streams;

pub use streams::{Incoming, Outgoing};

use super::proto::{Control, GhostId, Message, Stream, VERSION};
use crate::cell::proto::Tree;

/// Most bytes of a stream that its sender keeps and its receiver has not passed on.
pub const WINDOW_BYTES: usize = 256 * 1024;
/// No stream is longer, so that sums of offsets are safe.
const OFFSET_MAX: u64 = u64::MAX / 2;

/// The other end cannot be this one's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It speaks another version.
    #[error("the other end speaks version {0} of the protocol, this one {VERSION}")]
    Version(u32),
    /// It is another tree's.
    #[error("the other end is of tree {theirs}, this one of {ours}")]
    OtherTree {
        /// The other end's.
        theirs: u64,
        /// This end's.
        ours: u64,
    },
    /// The copy of the tree that this connection leads to is not the newest any more.
    #[error("epoch {old} of the tree has been replaced by epoch {new}")]
    Superseded {
        /// The copy's.
        old: u64,
        /// The newest that is known.
        new: u64,
    },
    /// It said something before [`Control::Hello`], or said that twice.
    #[error("the other end does not keep to the protocol")]
    Order,
    /// Bytes are missing.
    #[error("bytes {have} to {got} of {stream:?} are missing")]
    Gap {
        /// Of which stream.
        stream: Stream,
        /// What is here.
        have: u64,
        /// Where it goes on.
        got: u64,
    },
    /// It sends more than it may.
    #[error("more of {0:?} than its window takes, or after its end")]
    Overrun(Stream),
    /// It asks again for what it had acknowledged.
    #[error("{stream:?} is to go on at byte {asked}, but is kept from {kept} on only")]
    Forgotten {
        /// Of which stream.
        stream: Stream,
        /// From where it wants it.
        asked: u64,
        /// From where it is kept.
        kept: u64,
    },
    /// It acknowledges what it was not sent.
    #[error("more of {0:?} acknowledged than was sent")]
    NotSent(Stream),
}

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Where the parent and the terminal are.
    Ghost,
    /// Where the tree is.
    Relay,
}

/// Where what an end sends begins, which it learns when it meets the other one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begin {
    /// It knows.
    Known,
    /// After what the other end has.
    Received,
    /// After what the other end passed on.
    Passed,
}

/// One end of the streams between a ghost and its relay.
#[derive(Debug)]
pub struct Machine {
    role: Role,
    tree: Tree,
    joined: bool,
    begin: Begin,
    /// What the other end asks for again may be gone: it is told so, and the streams go on.
    forgets: bool,
    /// Who attaches.
    ghost: Option<GhostId>,
    /// The two that this end sends, in their order.
    pub out: [Outgoing; 2],
    /// The two that it receives, in their order.
    pub into: [Incoming; 2],
}

impl Machine {
    /// The end at the ghost.
    pub fn ghost(tree: Tree) -> Machine {
        let out = [Stream::Input, Stream::Signals].map(|s| Outgoing::new(s, 0));
        let into = [Stream::Output, Stream::Error].map(|s| Incoming::new(s, 0));
        Machine::of(Role::Ghost, tree, out, into)
    }

    fn of(role: Role, tree: Tree, out: [Outgoing; 2], into: [Incoming; 2]) -> Machine {
        let (joined, begin, forgets, ghost) = (false, Begin::Known, false, None);
        Machine { role, tree, joined, begin, forgets, ghost, out, into }
    }

    /// The end at a ghost that attaches to a spool: what it writes follows what others wrote.
    pub fn guest(tree: Tree, ghost: GhostId) -> Machine {
        Machine { begin: Begin::Received, ghost: Some(ghost), ..Machine::ghost(tree) }
    }

    /// The end at a spool, towards the relay: an earlier process may have served it, and what it
    /// had passed on is forgotten.
    pub fn spool(tree: Tree) -> Machine {
        Machine { begin: Begin::Passed, forgets: true, ..Machine::ghost(tree) }
    }

    /// The end at a spool, towards a ghost, where output and error are sent from these offsets.
    pub fn host(tree: Tree, written: [u64; 2]) -> Machine {
        Machine { forgets: true, ..Machine::relay(tree, [0; 2], written) }
    }

    /// The end at the tree, where input and signals were passed on up to these offsets, and output
    /// and error are written from those: all 0 for a new tree, else as it was when the tree was
    /// dumped.
    pub fn relay(tree: Tree, passed: [u64; 2], written: [u64; 2]) -> Machine {
        let out = [(Stream::Output, written[0]), (Stream::Error, written[1])];
        let into = [(Stream::Input, passed[0]), (Stream::Signals, passed[1])];
        let out = out.map(|(s, start)| Outgoing::new(s, start));
        let into = into.map(|(s, start)| Incoming::new(s, start));
        Machine::of(Role::Relay, tree, out, into)
    }

    /// The tree, in the highest epoch that is known.
    pub fn tree(&self) -> Tree {
        self.tree
    }

    /// Whether both ends have said hello on this connection.
    pub fn is_joined(&self) -> bool {
        self.joined
    }

    /// What is said first on a new connection.
    pub fn connected(&mut self, terminal: bool) -> Message {
        self.joined = false;
        Message::Control(Control::Hello {
            version: VERSION,
            tree: self.tree.id,
            epoch: self.tree.epoch,
            received: [self.into[0].received(), self.into[1].received()],
            passed: [self.into[0].taken(), self.into[1].taken()],
            refused: [self.into[0].is_refused(), self.into[1].is_refused()],
            terminal,
            ghost: self.ghost,
        })
    }

    /// Takes a message. What is not about streams is given back.
    ///
    /// # Errors
    /// That the connection is to be dropped; after [`Fault::Superseded`] at the ghost another one
    /// may be better.
    pub fn take(&mut self, message: Message) -> Result<Option<Control>, Fault> {
        match message {
            Message::Control(hello @ Control::Hello { .. }) => {
                self.meet(&hello).map(|()| Some(hello))
            }
            Message::Control(end @ (Control::Lost { .. } | Control::Replaced)) => Ok(Some(end)),
            _ if !self.joined => Err(Fault::Order),
            Message::Control(Control::Passed { stream, offset }) => {
                self.outgoing(stream)?.acknowledge(offset)?;
                Ok(None)
            }
            Message::Control(Control::Refused { stream }) => {
                self.outgoing(stream)?.refuse();
                Ok(None)
            }
            Message::Control(Control::Begins { stream, offset }) => {
                let into = self.into.iter_mut().find(|i| i.stream == stream);
                let into = into.filter(|_| offset <= OFFSET_MAX).ok_or(Fault::Order)?;
                let lost = into.skip(offset) > 0;
                Ok(lost.then_some(Control::Begins { stream, offset }))
            }
            Message::Control(other) => Ok(Some(other)),
            Message::Data { stream, offset, end, bytes } => {
                let into = self.into.iter_mut().find(|i| i.stream == stream);
                into.ok_or(Fault::Order)?.accept(offset, &bytes, end)?;
                Ok(None)
            }
        }
    }

    fn meet(&mut self, hello: &Control) -> Result<(), Fault> {
        let Control::Hello { version, tree, epoch, received, passed, refused, .. } = hello else {
            return Err(Fault::Order);
        };
        if received.iter().chain(passed).any(|offset| *offset > OFFSET_MAX) {
            return Err(Fault::Order);
        }
        self.join(*version, *tree, *epoch)?;
        let begin = std::mem::replace(&mut self.begin, Begin::Known);
        for (i, out) in self.out.iter_mut().enumerate() {
            match begin {
                Begin::Known => {}
                Begin::Received => out.follow(received[i]),
                Begin::Passed => out.follow(passed[i]),
            }
            match refused[i] || out.is_refused() {
                true => out.refuse(),
                false => out.resume(received[i], passed[i], self.forgets)?,
            }
        }
        if let Some(ghost) = &mut self.ghost {
            ghost.again = true;
        }
        Ok(())
    }

    fn join(&mut self, version: u32, tree: u64, epoch: u64) -> Result<(), Fault> {
        let ours = self.tree;
        if self.joined {
            return Err(Fault::Order);
        }
        if version != VERSION {
            return Err(Fault::Version(version));
        }
        if tree != ours.id {
            return Err(Fault::OtherTree { theirs: tree, ours: ours.id });
        }
        let (old, new) = match self.role {
            Role::Ghost => (epoch, ours.epoch),
            Role::Relay => (ours.epoch, epoch),
        };
        if old < new {
            return Err(Fault::Superseded { old, new });
        }
        // A newer copy replaces the one known so far.
        self.tree.epoch = old;
        self.joined = true;
        Ok(())
    }

    fn outgoing(&mut self, stream: Stream) -> Result<&mut Outgoing, Fault> {
        self.out.iter_mut().find(|o| o.stream == stream).ok_or(Fault::Order)
    }

    /// The next thing to send on this connection.
    pub fn next_message(&mut self) -> Option<Message> {
        if !self.joined {
            return None;
        }
        let acknowledgement = self.into.iter_mut().find_map(Incoming::acknowledgement);
        acknowledgement.or_else(|| self.out.iter_mut().find_map(Outgoing::next))
    }
}

#[cfg(test)]
mod tests;
