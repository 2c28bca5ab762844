//! The connection of a relay.

use super::spools::{Spools, State, locked};
use crate::ghost::link::Link;
use crate::ghost::wake::Wake;
use rustix::event::{PollFd, PollFlags, poll};
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

impl Spools {
    /// Serves one connection of a relay, to its end or the tree's. Waits.
    pub(super) fn serve_relay(
        &self,
        shared: &Mutex<State>,
        number: u64,
        wake: &Wake,
        socket: UnixStream,
    ) -> io::Result<()> {
        let mut link = Link::new(socket)?;
        {
            let mut state = locked(shared);
            if !state.is_relay(number) {
                return Ok(());
            }
            let Some(spool) = &mut state.spool else { return Ok(()) };
            link.push(&spool.connected())?;
        }
        loop {
            link.flush()?;
            let out = if link.wants_to_write() { PollFlags::OUT } else { PollFlags::empty() };
            let mut fds =
                [PollFd::new(&link, PollFlags::IN | out), PollFd::new(wake, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            wake.clear();
            let open = link.fill()?;
            let (over, owner) = {
                let mut state = locked(shared);
                if !state.is_relay(number) {
                    return Ok(());
                }
                let over = state.relay_round(&mut link)?;
                (over, state.spool.as_ref().map(|spool| spool.kept.owner))
            };
            if let Some(owner) = owner
                && self.quota.wants_look(owner)
                && let Err(error) = self.shed(owner)
            {
                tracing::warn!(owner, %error, "the output of programs that are over is not tidied");
            }
            if over {
                return link.finish();
            }
            if !open {
                return Ok(());
            }
        }
    }
}
