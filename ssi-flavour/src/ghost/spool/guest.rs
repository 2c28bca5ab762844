//! The connection of a ghost that attached to a spool.

use super::Spool;
use super::spools::{Standing, State, locked};
use crate::cell::proto::{Exit, Tree};
use crate::cluster::messages::Outcome;
use crate::ghost::link::Link;
use crate::ghost::machine::{Incoming, Machine, Outgoing};
use crate::ghost::proto::{Control, FRAME_BYTES_MAX, GhostId, Message, Stream, decode};
use crate::ghost::wake::Wake;
use rustix::event::{PollFd, PollFlags, poll};
use std::io::{self, ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long a ghost may take to say who it is, and to take its last word.
const GREETING_MAX: Duration = Duration::from_secs(20);

/// Serves one connection of a ghost, to its end or the tree's. Waits.
/// `comer`: its number among those that have not said who they are.
pub(super) fn serve(shared: &Mutex<State>, mut socket: UnixStream, comer: u64) -> io::Result<()> {
    socket.set_read_timeout(Some(GREETING_MAX))?;
    socket.set_write_timeout(Some(GREETING_MAX))?;
    let hello = first(&mut socket);
    locked(shared).comes_no_more(comer);
    let hello = hello?;
    let Message::Control(Control::Hello { ghost, .. }) = &hello else {
        return Err(io::Error::new(ErrorKind::InvalidData, "a ghost that does not say hello"));
    };
    // One that does not say who it is is another one each time.
    let who = ghost.unwrap_or(GhostId { number: 0, again: false, late: false });
    let wake = Arc::new(Wake::new()?);
    let admitted = locked(shared).admit(who, &socket, &wake)?;
    let mut link = Link::new(socket)?;
    let Some(number) = admitted else { return dismiss(link) };
    let mut guest = Guest { hello, who, machine: None, told: false };
    let served = guest.live(shared, number, &wake, &mut link);
    locked(shared).leave_guest(number);
    match served {
        Ok(true) => dismiss(link),
        Ok(false) => Ok(()),
        Err(e) => Err(e),
    }
}

/// The first frame.
fn first(socket: &mut UnixStream) -> io::Result<Message> {
    let mut frame = vec![0; 4];
    socket.read_exact(&mut frame)?;
    let len = u32::from_le_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize;
    if len > FRAME_BYTES_MAX {
        return Err(io::Error::new(ErrorKind::InvalidData, "a frame over 64 KiB"));
    }
    frame.resize(4 + len, 0);
    socket.read_exact(&mut frame[4..])?;
    let torn = || io::Error::new(ErrorKind::InvalidData, "a torn frame");
    decode(&frame)?.map(|(message, _)| message).ok_or_else(torn)
}

fn dismiss(mut link: Link) -> io::Result<()> {
    link.push(&Message::Control(Control::Replaced))?;
    link.finish()
}

struct Guest {
    hello: Message,
    who: GhostId,
    /// The end towards the ghost, once it was greeted.
    machine: Option<Machine>,
    /// It was told how the tree ended.
    told: bool,
}

impl Guest {
    /// Serves until the ghost is gone or told the last. Whether another one took its place.
    fn live(
        &mut self,
        shared: &Mutex<State>,
        number: u64,
        wake: &Wake,
        link: &mut Link,
    ) -> io::Result<bool> {
        let mut open = true;
        loop {
            {
                let mut state = locked(shared);
                match state.standing(number, self.who.number) {
                    Standing::Served => {}
                    Standing::Again => return Ok(false),
                    Standing::Replaced => return Ok(true),
                }
                if self.round(&mut state, link)? {
                    drop(state);
                    return link.finish().map(|()| false);
                }
            }
            if !open {
                return Ok(false);
            }
            link.flush()?;
            // What it says before it was greeted waits with the kernel.
            let reads = if self.machine.is_some() { PollFlags::IN } else { PollFlags::empty() };
            let out = if link.wants_to_write() { PollFlags::OUT } else { PollFlags::empty() };
            let mut fds = [PollFd::new(&*link, reads | out), PollFd::new(wake, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            let gone = fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR);
            wake.clear();
            // What it said before it hung up counts.
            open = if self.machine.is_some() { link.fill()? } else { !gone };
        }
    }

    /// Takes what the ghost said and adds what there is for it. Whether that is the last.
    fn round(&mut self, state: &mut State, link: &mut Link) -> io::Result<bool> {
        if let (None, Some(exit)) = (&state.spool, state.exit()) {
            return self.part(exit, link);
        }
        if self.machine.is_none() {
            self.machine = self.greet(state, link)?;
        }
        let Some(machine) = &mut self.machine else { return lost(state, None, link) };
        let exit = state.exit();
        let Some(spool) = &mut state.spool else { return lost(state, None, link) };
        let before = spool.towards_relay();
        while let Some(message) = link.take()? {
            match machine.take(message).map_err(io::Error::other)? {
                Some(Control::Size(size)) => (spool.size, spool.size_told) = (Some(size), false),
                Some(Control::ExitTaken) => return Ok(true),
                _ => {}
            }
        }
        let streams = machine.into.iter_mut().zip(&mut spool.machine.out);
        for (into, out) in streams {
            if out.is_refused() && !into.is_refused() {
                into.refuse();
                link.push(&Message::Control(Control::Refused { stream: into.stream() }))?;
            }
            if into.is_refused() {
                continue;
            }
            let new = into.after(out.offset(), out.room());
            out.push(&new);
            if into.ends_at(out.offset()) {
                out.end();
            }
            let taken = out.acknowledged().saturating_sub(into.passed());
            into.pass(usize::try_from(taken).unwrap_or(usize::MAX));
        }
        spool.give(machine)?;
        while let Some(message) = machine.next_message() {
            link.push(&message)?;
        }
        let mut outs = machine.out.iter().zip(spool.written());
        let all = outs.all(|(out, end)| out.is_refused() || out.offset() >= end);
        if let (Some(exit), true, false) = (exit, all, self.told) {
            link.push(&Message::Control(Control::Exit { exit, ends: spool.written() }))?;
            self.told = true;
        }
        if spool.towards_relay() != before
            && let Some(relay) = &state.relay
        {
            relay.wake.wake();
        }
        lost(state, self.machine.as_ref(), link)
    }

    /// A tree that ended and never wrote anything here, as one that was not let start.
    fn part(&self, exit: Exit, link: &mut Link) -> io::Result<bool> {
        if let Message::Control(Control::Hello { tree, epoch, received, .. }) = &self.hello {
            let mut machine = Machine::host(Tree { id: *tree, epoch: *epoch }, *received);
            link.push(&machine.connected(false))?;
            link.push(&Message::Control(Control::Exit { exit, ends: *received }))?;
        }
        Ok(true)
    }

    /// Says hello, once it is known how much input the tree has had or that it takes no more.
    fn greet(&self, state: &mut State, link: &mut Link) -> io::Result<Option<Machine>> {
        let over = state.exit().is_some() || state.outcome.is_some();
        let Some(spool) = &mut state.spool else { return Ok(None) };
        if !over && !spool.heard {
            return Ok(None);
        }
        let Message::Control(Control::Hello { received, .. }) = &self.hello else {
            return Ok(None);
        };
        if !self.who.again {
            spool.machine.out.iter_mut().for_each(Outgoing::catch_up);
        }
        let (from, end) = (spool.begins(), spool.written());
        let starts = [0, 1].map(|i| match self.who.late && !self.who.again {
            true => end[i],
            false => received[i].clamp(from[i], end[i]),
        });
        let mut machine = Machine::host(spool.machine.tree(), starts);
        for (i, stream) in [Stream::Input, Stream::Signals].into_iter().enumerate() {
            let out = &spool.machine.out[i];
            machine.into[i] = Incoming::holding(stream, out.acknowledged(), out.kept());
            let ended = out.has_ended() && !self.who.again;
            if over || ended || out.is_refused() {
                machine.into[i].refuse();
            }
        }
        link.push(&machine.connected(spool.terminal))?;
        machine.take(self.hello.clone()).map_err(io::Error::other)?;
        Ok(Some(machine))
    }
}

/// A tree that is lost: the ghost is told when it has all that there is.
fn lost(state: &State, machine: Option<&Machine>, link: &mut Link) -> io::Result<bool> {
    let why = match &state.outcome {
        Some(Outcome::Lost { reason }) if state.exit().is_none() => reason.clone(),
        _ => return Ok(false),
    };
    let written = state.spool.as_ref().map_or([0, 0], Spool::written);
    let has = |machine: &Machine| {
        let mut outs = machine.out.iter().zip(written);
        outs.all(|(out, end)| out.is_refused() || out.acknowledged() >= end)
    };
    // One that is not greeted yet gets the output first, where there is any.
    if !machine.map_or(state.spool.is_none(), has) {
        return Ok(false);
    }
    link.push(&Message::Control(Control::Lost { why }))?;
    Ok(true)
}
