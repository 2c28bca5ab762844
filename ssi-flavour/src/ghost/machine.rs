//! Streams with offsets and windows: what is sent, kept, acknowledged, sent again. No I/O.

use super::proto::{Control, DATA_BYTES_MAX, Message, Stream, VERSION};
use crate::cell::proto::Tree;
use std::collections::VecDeque;

/// Most bytes of a stream that its sender keeps and its receiver has not passed on.
pub const WINDOW_BYTES: usize = 256 * 1024;

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

/// The sending side of a stream.
#[derive(Debug)]
pub struct Outgoing {
    stream: Stream,
    /// Offset of the first byte that is kept: the first that was not passed on, of those that are
    /// written in this life of the tree.
    start: u64,
    kept: VecDeque<u8>,
    /// Up to where it was sent on this connection.
    sent: u64,
    ended: bool,
    end_sent: bool,
    /// What the other end has, from an earlier connection or life of the tree: until there nothing
    /// is sent.
    ahead: u64,
    /// Up to where the other end passed it on: its window begins there.
    passed: u64,
    refused: bool,
}

impl Outgoing {
    /// A stream that begins at an offset: 0, or where a checkpoint was taken.
    pub fn new(stream: Stream, start: u64) -> Outgoing {
        let (kept, ended, end_sent, refused) = (VecDeque::new(), false, false, false);
        let (sent, ahead, passed) = (start, start, start);
        Outgoing { stream, start, kept, sent, ended, end_sent, ahead, passed, refused }
    }

    /// Where the next byte goes.
    pub fn offset(&self) -> u64 {
        self.start + self.kept.len() as u64
    }

    /// Up to where the other end has it.
    pub fn acknowledged(&self) -> u64 {
        self.start
    }

    /// How many bytes it takes now.
    pub fn room(&self) -> usize {
        if self.ended || self.refused { 0 } else { WINDOW_BYTES.saturating_sub(self.kept.len()) }
    }

    /// Whether nobody reads it any more at the other end.
    pub fn is_refused(&self) -> bool {
        self.refused
    }

    /// Adds bytes, at most [`Outgoing::room`].
    pub fn push(&mut self, bytes: &[u8]) {
        debug_assert!(bytes.len() <= self.room(), "no room");
        self.kept.extend(bytes);
        self.forget();
    }

    /// No more comes.
    pub fn end(&mut self) {
        self.ended = true;
    }

    fn refuse(&mut self) {
        self.start = self.offset();
        self.sent = self.start;
        self.kept.clear();
        self.refused = true;
    }

    fn resume(&mut self, received: u64, passed: u64) -> Result<(), Fault> {
        let (stream, kept) = (self.stream, self.start);
        if received < kept {
            return Err(Fault::Forgotten { stream, asked: received, kept });
        }
        (self.ahead, self.passed) = (received, passed);
        (self.sent, self.end_sent) = (self.start, false);
        self.forget();
        Ok(())
    }

    fn acknowledge(&mut self, to: u64) -> Result<(), Fault> {
        if to > self.sent.max(self.ahead) && !self.refused {
            return Err(Fault::NotSent(self.stream));
        }
        self.passed = self.passed.max(to);
        self.forget();
        Ok(())
    }

    /// Drops what was passed on, and does not send what is at the other end.
    fn forget(&mut self) {
        let n = self.passed.saturating_sub(self.start).min(self.kept.len() as u64);
        self.kept.drain(..n as usize);
        self.start += n;
        self.sent = self.sent.max(self.ahead.clamp(self.start, self.offset()));
    }

    fn next(&mut self) -> Option<Message> {
        let at = (self.sent - self.start) as usize;
        // What waits at the other end from an earlier life may fill its window.
        let takes = (self.passed + WINDOW_BYTES as u64).saturating_sub(self.sent) as usize;
        let n = (self.kept.len() - at).min(DATA_BYTES_MAX).min(takes);
        let end = self.ended && at + n == self.kept.len();
        if self.refused || n == 0 && (!end || self.end_sent) {
            return None;
        }
        let bytes = self.kept.range(at..at + n).copied().collect();
        let offset = self.sent;
        self.sent += n as u64;
        self.end_sent |= end;
        Some(Message::Data { stream: self.stream, offset, end, bytes })
    }
}

/// The receiving side of a stream.
#[derive(Debug)]
pub struct Incoming {
    stream: Stream,
    passed: u64,
    waiting: VecDeque<u8>,
    end: Option<u64>,
    acknowledged: u64,
    refused: bool,
}

impl Incoming {
    /// A stream of which what is before the offset was passed on already.
    pub fn new(stream: Stream, start: u64) -> Incoming {
        let (waiting, end, refused) = (VecDeque::new(), None, false);
        Incoming { stream, passed: start, waiting, end, acknowledged: start, refused }
    }

    /// Which it is.
    pub fn stream(&self) -> Stream {
        self.stream
    }

    /// Up to where it is here.
    pub fn received(&self) -> u64 {
        self.passed + self.waiting.len() as u64
    }

    /// Up to where it was passed on.
    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// Some of what is to be passed on next; empty when there is nothing.
    pub fn front(&self) -> &[u8] {
        self.waiting.as_slices().0
    }

    /// So many bytes of [`Incoming::front`] were passed on.
    pub fn pass(&mut self, n: usize) {
        let n = n.min(self.waiting.len());
        self.waiting.drain(..n);
        self.passed += n as u64;
    }

    /// Nobody takes it any more: what comes is dropped.
    pub fn refuse(&mut self) {
        self.pass(self.waiting.len());
        self.refused = true;
    }

    /// Whether nobody takes it.
    pub fn is_refused(&self) -> bool {
        self.refused
    }

    /// Whether all was passed on and no more comes.
    pub fn is_over(&self) -> bool {
        self.end == Some(self.passed)
    }

    fn accept(&mut self, offset: u64, bytes: &[u8], end: bool) -> Result<(), Fault> {
        let (stream, have) = (self.stream, self.received());
        if offset > have {
            return Err(Fault::Gap { stream, have, got: offset });
        }
        let known = usize::try_from(have - offset).unwrap_or(usize::MAX).min(bytes.len());
        let new = &bytes[known..];
        let late = self.end.is_some() && !new.is_empty();
        if late || self.waiting.len() + new.len() > WINDOW_BYTES {
            return Err(Fault::Overrun(stream));
        }
        self.waiting.extend(new);
        if self.refused {
            self.pass(new.len());
        }
        // An end that lies before what is here is that of a stream that is written again.
        if end && offset + bytes.len() as u64 == self.received() {
            self.end = Some(self.received());
        }
        Ok(())
    }

    fn acknowledgement(&mut self) -> Option<Message> {
        if self.passed == self.acknowledged {
            return None;
        }
        self.acknowledged = self.passed;
        Some(Message::Control(Control::Passed { stream: self.stream, offset: self.passed }))
    }
}

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Where the parent and the terminal are.
    Ghost,
    /// Where the tree is.
    Relay,
}

/// One end of the streams between a ghost and its relay.
#[derive(Debug)]
pub struct Machine {
    role: Role,
    tree: Tree,
    joined: bool,
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
        Machine { role: Role::Ghost, tree, joined: false, out, into }
    }

    /// The end at the tree, where input and signals were passed on up to these offsets, and output
    /// and error are written from those: all 0 for a new tree, else as it was when the tree was
    /// dumped.
    pub fn relay(tree: Tree, passed: [u64; 2], written: [u64; 2]) -> Machine {
        let out = [(Stream::Output, written[0]), (Stream::Error, written[1])];
        let into = [(Stream::Input, passed[0]), (Stream::Signals, passed[1])];
        let out = out.map(|(s, start)| Outgoing::new(s, start));
        let into = into.map(|(s, start)| Incoming::new(s, start));
        Machine { role: Role::Relay, tree, joined: false, out, into }
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
            passed: [self.into[0].passed, self.into[1].passed],
            refused: [self.into[0].refused, self.into[1].refused],
            terminal,
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
            Message::Control(lost @ Control::Lost { .. }) => Ok(Some(lost)),
            _ if !self.joined => Err(Fault::Order),
            Message::Control(Control::Passed { stream, offset }) => {
                self.outgoing(stream)?.acknowledge(offset)?;
                Ok(None)
            }
            Message::Control(Control::Refused { stream }) => {
                self.outgoing(stream)?.refuse();
                Ok(None)
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
        self.join(*version, *tree, *epoch)?;
        for (i, out) in self.out.iter_mut().enumerate() {
            match refused[i] || out.refused {
                true => out.refuse(),
                false => out.resume(received[i], passed[i])?,
            }
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
