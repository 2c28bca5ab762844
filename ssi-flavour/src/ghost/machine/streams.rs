//! The two sides of one stream.

use super::{Fault, WINDOW_BYTES};
use crate::ghost::proto::{Control, DATA_BYTES_MAX, Message, Stream};
use std::collections::VecDeque;

/// The sending side of a stream.
#[derive(Debug)]
pub struct Outgoing {
    pub(super) stream: Stream,
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
    /// The other end is to be told where it begins.
    begins: bool,
}

impl Outgoing {
    /// A stream that begins at an offset: 0, or where a checkpoint was taken.
    pub fn new(stream: Stream, start: u64) -> Outgoing {
        let (kept, ended, end_sent, refused) = (VecDeque::new(), false, false, false);
        let (sent, ahead, passed) = (start, start, start);
        let begins = false;
        Outgoing { stream, start, kept, sent, ended, end_sent, ahead, passed, refused, begins }
    }

    /// Where the next byte goes.
    pub fn offset(&self) -> u64 {
        self.start + self.kept.len() as u64
    }

    /// Up to where the other end has it.
    pub fn acknowledged(&self) -> u64 {
        self.start
    }

    /// Up to where the other end has it from an earlier connection or life of the tree.
    pub fn ahead(&self) -> u64 {
        self.ahead
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

    /// Whether that was said.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// What is not acknowledged yet, from [`Outgoing::acknowledged`] on.
    pub fn kept(&self) -> Vec<u8> {
        self.kept.iter().copied().collect()
    }

    /// What the other end has of somebody who is gone is not written again: what comes next
    /// follows it.
    pub fn catch_up(&mut self) {
        if self.offset() < self.ahead {
            self.kept.clear();
            self.follow(self.ahead);
        }
    }

    /// What is written here begins at an offset: before it others wrote.
    pub(super) fn follow(&mut self, at: u64) {
        (self.start, self.sent, self.ahead, self.passed) = (at, at, at, at);
    }

    pub(super) fn refuse(&mut self) {
        self.start = self.offset();
        self.sent = self.start;
        self.kept.clear();
        self.refused = true;
    }

    pub(super) fn resume(
        &mut self,
        received: u64,
        passed: u64,
        forgets: bool,
    ) -> Result<(), Fault> {
        let (stream, kept) = (self.stream, self.start);
        self.begins = received < kept;
        if self.begins && !forgets {
            return Err(Fault::Forgotten { stream, asked: received, kept });
        }
        (self.ahead, self.passed) = match self.begins {
            // What waits there stays in its window.
            true => (kept, kept.saturating_sub(received.saturating_sub(passed))),
            false => (received, passed),
        };
        (self.sent, self.end_sent) = (self.start, false);
        self.forget();
        Ok(())
    }

    pub(super) fn acknowledge(&mut self, to: u64) -> Result<(), Fault> {
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

    pub(super) fn next(&mut self) -> Option<Message> {
        if std::mem::take(&mut self.begins) && !self.refused {
            let (stream, offset) = (self.stream, self.start);
            return Some(Message::Control(Control::Begins { stream, offset }));
        }
        let at = (self.sent - self.start) as usize;
        // What waits at the other end from an earlier life may fill its window.
        let takes = self.passed.saturating_add(WINDOW_BYTES as u64);
        let takes = takes.saturating_sub(self.sent) as usize;
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
    pub(super) stream: Stream,
    passed: u64,
    waiting: VecDeque<u8>,
    end: Option<u64>,
    acknowledged: u64,
    /// How much of what was passed on was not taken there yet: it is not acknowledged.
    untaken: u64,
    refused: bool,
}

impl Incoming {
    /// A stream of which what is before the offset was passed on already.
    pub fn new(stream: Stream, start: u64) -> Incoming {
        let (waiting, end, refused) = (VecDeque::new(), None, false);
        let (acknowledged, untaken) = (start, 0);
        Incoming { stream, passed: start, waiting, end, acknowledged, untaken, refused }
    }

    /// A stream of which some is here and was not passed on.
    pub fn holding(stream: Stream, passed: u64, waiting: Vec<u8>) -> Incoming {
        Incoming { waiting: waiting.into(), ..Incoming::new(stream, passed) }
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

    /// Up to where it was passed on and taken: what is acknowledged.
    pub fn taken(&self) -> u64 {
        self.passed.saturating_sub(self.untaken)
    }

    /// So much of what was passed on lies there untaken: it is to be sent again when that is lost.
    pub fn leave(&mut self, untaken: u64) {
        self.untaken = untaken;
    }

    /// What waits from an offset on, at most `most` bytes.
    pub fn after(&self, offset: u64, most: usize) -> Vec<u8> {
        let from = usize::try_from(offset.saturating_sub(self.passed)).unwrap_or(usize::MAX);
        let from = from.min(self.waiting.len());
        self.waiting.iter().skip(from).take(most).copied().collect()
    }

    /// Whether it ends at an offset.
    pub fn ends_at(&self, offset: u64) -> bool {
        self.end == Some(offset)
    }

    /// What is before the offset is not to be had any more: how much that is.
    pub(super) fn skip(&mut self, offset: u64) -> u64 {
        let lost = offset.saturating_sub(self.received());
        self.passed += lost;
        lost
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
        (self.refused, self.untaken) = (true, 0);
    }

    /// Whether nobody takes it.
    pub fn is_refused(&self) -> bool {
        self.refused
    }

    /// Whether all was passed on and no more comes.
    pub fn is_over(&self) -> bool {
        self.end == Some(self.passed)
    }

    pub(super) fn accept(&mut self, offset: u64, bytes: &[u8], end: bool) -> Result<(), Fault> {
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

    pub(super) fn acknowledgement(&mut self) -> Option<Message> {
        if self.taken() <= self.acknowledged {
            return None;
        }
        self.acknowledged = self.taken();
        Some(Message::Control(Control::Passed { stream: self.stream, offset: self.acknowledged }))
    }
}
