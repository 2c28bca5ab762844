//! The end of an envelope.

use super::super::launch::{LaunchError, io_error, note};
use super::super::machine::Do;
use super::super::{SOCKET_FILE, spool};
use super::{INIT_ANSWER_MS, LOG_RETRY_MS, Serve};
use crate::event::{Cause, Event};
use crate::proto::GRACE_MS_MAX;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::WaitOptions;

/// How long after the last grace an ending envelope is ended by force, milliseconds.
const END_EXTRA_MS: u64 = 2_000;
/// How long the last messages may take at the end, milliseconds.
const FAREWELL_MS: u64 = 1_000;

impl Serve<'_> {
    /// An ending envelope: once no unit runs, or the grace is over, init goes.
    pub(super) fn finish_when_due(&mut self, now: u64) -> Result<(), LaunchError> {
        let Some(at) = self.end_at else { return Ok(()) };
        if now >= at || self.machine.running().next().is_none() {
            self.kill_init()?;
            self.end_at = Some(now + LOG_RETRY_MS);
        }
        Ok(())
    }

    /// An init that does not carry out a kill is ended, and everything in the envelope with it.
    pub(super) fn doubt_init(&mut self, now: u64) -> Result<(), LaunchError> {
        let Some(by) = self.answer_by.filter(|by| *by <= now) else { return Ok(()) };
        let (.., frozen, _) = self.machine.counts();
        if frozen {
            self.answer_by = Some(by.max(now) + INIT_ANSWER_MS);
            return Ok(());
        }
        self.answer_by = None;
        note(Some("the envelope's init did not carry out a kill and was ended".to_owned()));
        self.kill_init()
    }

    /// Without work for a while an envelope ends as if it were asked to; its files stay, and a new
    /// shim can go on with them.
    pub(super) fn rest_when_due(&mut self, now: u64, out: &mut Vec<Do>) {
        let works = !self.machine.is_idle() || self.log.trouble().is_some();
        if works || self.end_at.is_some() {
            self.rest_at = None;
            return;
        }
        let rest_at = now.saturating_add(self.plan.spec.rest_after_ms);
        if *self.rest_at.get_or_insert(rest_at) <= now {
            self.rest_at = None;
            self.begin_end(0, out);
        }
    }

    /// Begins the end. A frozen envelope goes at once: it is thawed only to die.
    pub(super) fn begin_end(&mut self, grace_ms: u64, out: &mut Vec<Do>) {
        let now = self.now();
        let (.., frozen, _) = self.machine.counts();
        self.machine.set_ending();
        let grace_ms = if frozen { 0 } else { grace_ms.min(GRACE_MS_MAX) };
        self.machine.kill_all(Cause::EnvelopeEnded, grace_ms, now, out);
        let at = if frozen { now } else { now + grace_ms + END_EXTRA_MS };
        self.end_at = Some(self.end_at.map_or(at, |old| old.min(at)));
        if frozen {
            let thawed = self.plan.cgroup.kill().and_then(|()| self.plan.cgroup.freeze(false));
            note(thawed.err().map(|e| e.to_string()));
            self.machine.thawed(now);
        }
    }

    /// Init is dead: nothing of the envelope runs any more.
    pub(super) fn close(&mut self) -> Result<(), LaunchError> {
        rustix::process::waitpid(Some(self.init.pid), WaitOptions::empty())
            .map_err(io_error("collect init"))?;
        // Whoever finds no socket waits for the lock, and then finds the log closed.
        std::fs::remove_file(SOCKET_FILE).map_err(io_error("remove the socket"))?;
        let cause = match (self.end_at.is_some(), self.oom_rose()) {
            (true, _) => Cause::EnvelopeEnded,
            (_, true) => Cause::MemoryLimit,
            _ => Cause::InitDied,
        };
        // Whoever entered the cgroup from outside goes too.
        note(self.plan.cgroup.kill().err().map(|e| e.to_string()));
        let usage = self.plan.cgroup.usage();
        let running: Vec<_> =
            self.machine.running().flat_map(|(_, k, s)| spool::names(k, s)).collect();
        for (_, name) in running {
            self.settle(name);
        }
        self.settle_spare(true);
        note(self.plan.cgroup.remove().err().map(|e| e.to_string()));
        let mut out = Vec::new();
        self.machine.init_died(cause, &mut out);
        out.push(Do::Record(Event::Closed { usage, torn: false }));
        self.init.socket = None;
        self.perform(out)?;
        note(self.log.trouble().map(str::to_owned));
        while self.log.trouble().is_some() {
            // The disk is full: ends are kept here until they can be recorded.
            let pause = Timespec { tv_sec: (LOG_RETRY_MS / 1000) as i64, tv_nsec: 0 };
            poll(&mut [], Some(&pause)).map_err(io_error("wait for the disk"))?;
            self.perform(Vec::new())?;
        }
        // From now on the records count as complete, also when the machine stops.
        self.log.sync().map_err(io_error("bring the envelope's log to the disk"))?;
        self.farewell();
        Ok(())
    }

    /// Sends what is left to send, for a short while.
    fn farewell(&mut self) {
        let until = self.now() + FAREWELL_MS;
        self.send();
        while self.connections.iter().any(|c| !c.outbox.is_empty()) && self.now() < until {
            let mut fds: Vec<_> =
                self.connections.iter().map(|c| PollFd::new(&c.socket, PollFlags::OUT)).collect();
            let wait = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            if poll(&mut fds, Some(&wait)).is_err() {
                return;
            }
            drop(fds);
            self.send();
        }
    }
}
