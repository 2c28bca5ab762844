//! The shim's loop: init, socket, log, timers. Decisions are in [`super::machine`].

use super::launch::{History, LaunchError, Plan, Shell, begin_log, io_error, note};
use super::log::Log;
use super::machine::{Do, Machine};
use super::{SPOOL_DIR, spool};
use crate::cgroup::EnvelopeCgroup;
use crate::event::Event;
use crate::proto::{CONNECTIONS_MAX, FromInit, OUTBOX_BYTES_MAX, Tell, ToInit};
use crate::spec::Limits;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::SystemTime;
use xos_base::Millis;
use xos_ssi::frame::{Frames, Outbox};
use xos_ssi::peer;

mod body;
mod calls;
mod ending;
mod init_process;
mod outputs;
mod reached;
mod telling;

use body::Body;
use init_process::InitProcess;
use outputs::Outputs;
use reached::Counted;
use telling::Telling;

/// How long until a failed write of the log is tried again, milliseconds.
const LOG_RETRY_MS: u64 = 1_000;
/// How long init may take to carry out a kill, milliseconds. It waits for nothing but a process
/// that it is just making, which others of the same person can stop.
const INIT_ANSWER_MS: u64 = 10_000;

/// Where the time comes from.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    /// Milliseconds that never go back.
    pub mono: fn() -> u64,
    /// Time of day.
    pub wall: fn() -> Millis,
}

impl Clock {
    /// The machine's clocks.
    pub(super) fn system() -> Clock {
        let mono = || {
            let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            (t.tv_sec as u64).saturating_mul(1000) + (t.tv_nsec as u64) / 1_000_000
        };
        Clock { mono, wall: || Millis::of(SystemTime::now()) }
    }
}

struct Connection {
    socket: UnixStream,
    inbox: Frames,
    outbox: Outbox,
    told: u64,
    alive: bool,
}

struct Serve<'a> {
    plan: &'a Plan,
    clock: Clock,
    log: Log,
    machine: Machine,
    spool: OwnedFd,
    init: InitProcess,
    connections: Vec<Connection>,
    /// Effects that wait for the log.
    after_flush: Vec<Do>,
    telling: Telling,
    /// How long the log was when that was told last.
    told: u64,
    retry_at: u64,
    counted: Counted,
    outputs: Outputs,
    /// When init is ended by force.
    end_at: Option<u64>,
    /// When init must have carried out a kill.
    answer_by: Option<u64>,
    /// When it goes to rest, while it has no work.
    rest_at: Option<u64>,
}

impl Connection {
    fn new(socket: UnixStream) -> Connection {
        let (inbox, outbox) = (Frames::default(), Outbox::default());
        Connection { socket, inbox, outbox, told: u64::MAX, alive: true }
    }
}

/// Runs the envelope to its end. `ready` is called once it takes requests.
pub(super) fn run(
    plan: &Plan,
    before: History,
    clock: Clock,
    ready: impl FnOnce() -> Result<(), LaunchError>,
) -> Result<(), LaunchError> {
    let r = Body::make(&plan.cgroup, &plan.spec.limits, Some(&plan.spec.account))
        .and_then(|body| start(plan, body, before, clock))
        .and_then(|(mut serve, listener)| {
            ready()?;
            serve.serve(&listener)
        });
    if r.is_err() {
        clean(&plan.cgroup);
    }
    r
}

/// Makes everything that needs no plan, then waits to be adopted and runs that envelope to its
/// end; or ends when the daemon at the other end of `held` does.
pub(super) fn run_shell(
    shell: &Shell,
    held: UnixStream,
    clock: Clock,
    ready: impl FnOnce() -> Result<(), LaunchError>,
) -> Result<(), LaunchError> {
    let r = Body::make(&shell.cgroup, &Limits::default(), None).and_then(|mut body| {
        ready()?;
        let Some(adopted) = body.wait(shell, held)? else {
            clean(&shell.cgroup);
            return Ok(());
        };
        let before = History { log: begin_log()?, ended: Vec::new() };
        let (mut serve, listener) = start(&adopted.plan, body, before, clock)?;
        serve.connections.push(adopted.by);
        serve.serve(&listener)
    });
    if r.is_err() {
        clean(&shell.cgroup);
    }
    r
}

fn clean(cgroup: &EnvelopeCgroup) {
    let end = cgroup.kill().and_then(|()| cgroup.remove());
    note(end.err().map(|e| e.to_string()));
}

fn start(
    plan: &Plan,
    body: Body,
    before: History,
    clock: Clock,
) -> Result<(Serve<'_>, UnixListener), LaunchError> {
    let Body { spool, init, listener } = body;
    let mut machine = Machine::new(plan.spec.slots);
    let kept_bytes = match before.ended.is_empty() {
        true => 0,
        false => spool::total(Path::new(SPOOL_DIR)).map_err(io_error("measure its output"))?,
    };
    machine.resume(before.ended);
    let mut serve = Serve {
        plan,
        clock,
        log: before.log,
        machine,
        spool,
        init,
        connections: Vec::new(),
        after_flush: Vec::new(),
        telling: Telling::default(),
        told: 0,
        retry_at: 0,
        counted: Counted::default(),
        outputs: Outputs::new(kept_bytes),
        end_at: None,
        answer_by: None,
        rest_at: None,
    };
    let opened = Event::Opened { envelope: plan.spec.id.clone(), boot: plan.boot.clone() };
    serve.log.record((clock.wall)(), opened).map_err(io_error("begin the envelope's log"))?;
    if !serve.log.flush() {
        return Err(LaunchError::Shim(serve.log.trouble().unwrap_or_default().to_owned()));
    }
    Ok((serve, listener))
}

impl Serve<'_> {
    fn now(&self) -> u64 {
        (self.clock.mono)()
    }

    fn serve(&mut self, listener: &UnixListener) -> Result<(), LaunchError> {
        loop {
            let init_ended = self.wait(listener)?;
            if init_ended {
                self.machine.halt();
                // Ends that it reported before it died.
                while self.init.socket.is_some() {
                    self.hear_init()?;
                }
                return self.close();
            }
            self.hear_init()?;
            for i in 0..self.connections.len() {
                self.hear_connection(i);
            }
            let now = self.now();
            let mut out = Vec::new();
            self.machine.tick(now, &mut out);
            self.check_spools(now, &mut out);
            self.machine.fill(now, &mut out);
            self.doubt_init(now)?;
            self.rest_when_due(now, &mut out);
            self.perform(out)?;
            self.finish_when_due(now)?;
            self.send();
        }
    }

    /// Waits for something to do and takes new connections. Whether init is dead, and with it
    /// every process of the envelope.
    fn wait(&mut self, listener: &UnixListener) -> Result<bool, LaunchError> {
        let timeout = self.due().map(|at| {
            let ms = at.saturating_sub(self.now());
            Timespec { tv_sec: (ms / 1000) as i64, tv_nsec: (ms % 1000 * 1_000_000) as i64 }
        });
        let mut fds = vec![PollFd::new(&self.init.fd, PollFlags::IN)];
        let ask = |o: &Outbox| {
            if o.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT }
        };
        if let Some(s) = &self.init.socket {
            fds.push(PollFd::new(s, ask(&self.init.outbox)));
        }
        for c in &self.connections {
            fds.push(PollFd::new(&c.socket, ask(&c.outbox)));
        }
        let room = self.connections.len() < CONNECTIONS_MAX;
        if room {
            fds.push(PollFd::new(listener, PollFlags::IN));
        }
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(io_error("wait")(e)),
        }
        let init_ended = !fds[0].revents().is_empty();
        let knock = room && fds.last().is_some_and(|f| !f.revents().is_empty());
        drop(fds);
        if knock {
            self.accept(listener);
        }
        Ok(init_ended)
    }

    fn accept(&mut self, listener: &UnixListener) {
        let Ok((socket, _)) = listener.accept() else { return };
        let own = rustix::process::getuid().as_raw();
        let root = peer::uid(&socket).is_ok_and(|uid| uid == own);
        if root && socket.set_nonblocking(true).is_ok() {
            self.connections.push(Connection::new(socket));
        }
    }

    /// When something is due without anybody asking.
    fn due(&self) -> Option<u64> {
        let retry = self.log.trouble().map(|_| self.retry_at);
        let watched = self.machine.running().next().is_some()
            || !self.outputs.left_open.is_empty()
            || !self.outputs.spare.is_empty()
            || (self.machine.is_short() && !self.machine.is_idle());
        let spools = watched.then_some(self.outputs.check_at);
        let tell =
            self.telling.due(self.machine.is_idle()).filter(|_| self.log.trouble().is_none());
        let all = [
            self.machine.next_due(),
            retry,
            spools,
            self.end_at,
            self.answer_by,
            self.rest_at,
            tell,
        ];
        all.into_iter().flatten().min()
    }

    fn hear_init(&mut self) -> Result<(), LaunchError> {
        let Some(socket) = &mut self.init.socket else { return Ok(()) };
        let open = self.init.inbox.fill(socket).and_then(|open| {
            self.init.outbox.flush(socket)?;
            Ok(open)
        });
        if !matches!(open, Ok(true)) {
            // It is dying; its pidfd tells when it and all below it are gone.
            self.init.socket = None;
            self.kill_init()?;
        }
        let mut out = Vec::new();
        while let Some(message) = self.init.inbox.next().map_err(io_error("hear from init"))? {
            match message {
                FromInit::Ended { slot, outcome, usage } => {
                    self.unit_ended(slot, outcome, usage, &mut out);
                }
                FromInit::Signalled {} => self.answer_by = None,
                FromInit::Ready { .. } => {}
            }
        }
        self.machine.fill(self.now(), &mut out);
        self.perform(out)
    }

    /// Records first; then, once they are on file, the rest in order.
    fn perform(&mut self, out: Vec<Do>) -> Result<(), LaunchError> {
        for d in out {
            match d {
                Do::Record(event) => {
                    let at = (self.clock.wall)();
                    self.telling.grown(self.now(), matches!(event, Event::Ended { .. }));
                    self.log.record(at, event).map_err(io_error("record an event"))?;
                }
                other => self.after_flush.push(other),
            }
        }
        let now = self.now();
        if self.log.trouble().is_some() && now < self.retry_at {
            return Ok(());
        }
        if !self.log.flush() {
            self.retry_at = now + LOG_RETRY_MS;
            return Ok(());
        }
        for d in std::mem::take(&mut self.after_flush) {
            let message = match d {
                Do::Spawn(slot, unit) => {
                    self.hand_on(&unit);
                    self.count_from_here(slot);
                    ToInit::Start { slot, unit }
                }
                Do::Signal(slot, kill) => {
                    if kill {
                        self.answer_by.get_or_insert(now + INIT_ANSWER_MS);
                    }
                    ToInit::Signal { slot, kill }
                }
                Do::Record(_) => continue,
            };
            self.init.outbox.push(&message).map_err(io_error("speak to init"))?;
        }
        if let Some(socket) = &mut self.init.socket {
            // An error here is a dying init, which its pidfd reports.
            if self.init.outbox.flush(socket).is_err() {
                self.init.socket = None;
            }
        }
        Ok(())
    }

    fn kill_init(&self) -> Result<(), LaunchError> {
        match rustix::process::pidfd_send_signal(&self.init.fd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(e) => Err(io_error("end the envelope's init")(e)),
        }
    }

    /// Tells everybody how long the log is, when that is due, and writes what the sockets take.
    fn send(&mut self) {
        let (now, idle) = (self.now(), self.machine.is_idle());
        if self.log.trouble().is_none() && self.telling.is_due(now, idle) {
            self.told = self.log.len();
        }
        let bytes = self.told;
        for c in &mut self.connections {
            if c.told != bytes && c.outbox.is_empty() {
                c.told = bytes;
                c.alive &= c.outbox.push(&Tell::Log { bytes }).is_ok();
            }
            c.alive &= c.outbox.flush(&mut c.socket).is_ok();
            c.alive &= c.outbox.len() <= OUTBOX_BYTES_MAX;
        }
        self.connections.retain(|c| c.alive);
    }
}
