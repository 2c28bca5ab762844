//! The envelope's init: pid 1 of its pid namespace, parent of its units.

use super::SPOOL_DIR;
use super::child::{self, Ready};
use super::procs;
use super::spool;
use crate::cgroup::EnvelopeCgroup;
use crate::event::{Outcome, UnitUsage};
use crate::proto::{FromInit, ToInit};
use crate::spec::{Account, SLOTS_MAX, UnitSpec};
use crate::sys::{self, Forked, Slots, Stack, Waited};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::DumpableBehavior;
use std::collections::HashMap;
use std::fmt::Display;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::SystemTime;
use xos_base::Millis;
use xos_ssi::frame::{self, Frames};

/// How many ended processes are collected before requests are looked at again.
const REAP_ROUND_MAX: u32 = 512;
/// Where POSIX shared memory lies (shm_overview(7)).
const SHARED_MEMORY: &str = "/dev/shm";
/// Longest message for the launcher, in characters.
const ERROR_CHARS_MAX: usize = 1000;

struct Unit {
    spec: Box<UnitSpec>,
    slot: u32,
    started: Millis,
}

struct Init {
    /// Absent in a shell that is nobody's yet.
    account: Option<Account>,
    shim: UnixStream,
    spool: OwnedFd,
    failures: Slots,
    stack: Stack,
    /// By process id of the unit's first process.
    units: HashMap<i32, Unit>,
    out: Vec<u8>,
}

/// Runs in the child that the shim forked after it left its pid namespace. Ends when the shim
/// does, or by KILL.
pub(super) fn run(cgroup: &EnvelopeCgroup, account: Option<&Account>, mut shim: UnixStream) -> ! {
    let parts = prepare(cgroup).and_then(|parts| match account {
        Some(_) => own_mounts().map(|()| parts),
        None => Ok(parts),
    });
    let Parts { spool, failures, stack, children } = match parts {
        Ok(parts) => parts,
        Err(e) => {
            let mut out = Vec::new();
            let told = frame::push(&not_ready(&e), &mut out).and_then(|()| shim.write_all(&out));
            sys::exit_now(if told.is_ok() { 1 } else { 2 });
        }
    };
    let account = account.cloned();
    let (units, out) = Default::default();
    let mut init = Init { account, shim, spool, failures, stack, units, out };
    let r = init.tell(&FromInit::Ready { error: None }).and_then(|()| init.serve(&children));
    sys::exit_now(if r.is_ok() { 0 } else { 1 })
}

fn not_ready(why: &str) -> FromInit {
    FromInit::Ready { error: Some(why.chars().take(ERROR_CHARS_MAX).collect()) }
}

fn no<E: Display>(what: &str) -> impl FnOnce(E) -> String + '_ {
    move |e| format!("{what}: {e}")
}

/// A mount namespace as the node's is now, with a `/proc` and shared memory of the envelope's own.
/// In a shell this waits for the adoption: where mounts do not propagate, what was mounted since
/// would be missing.
fn own_mounts() -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(no("make a mount namespace"))?;
    // Mounts made on the node later appear here too; nothing mounted here appears there.
    let slave = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, slave, None::<&str>)
        .map_err(no("separate the mounts"))?;
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), plain, None::<&str>)
        .map_err(no("mount /proc for the envelope"))?;
    if !Path::new(SHARED_MEMORY).is_dir() {
        return Ok(());
    }
    // What lies there counts as memory of the envelope, whose limit bounds it, and ends with it.
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), SHARED_MEMORY, Some("tmpfs"), plain, Some("mode=1777"))
        .map_err(no("mount shared memory for the envelope"))
}

struct Parts {
    spool: OwnedFd,
    failures: Slots,
    stack: Stack,
    children: SignalFd,
}

fn prepare(cgroup: &EnvelopeCgroup) -> Result<Parts, String> {
    // A unit's process has this memory for a moment, and the person's uid.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(no("keep memory to itself"))?;
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(no("bind init to the shim"))?;
    cgroup.join().map_err(no("enter the control group"))?;
    sys::new_session_keyring().map_err(no("leave root's keyring"))?;
    // System V segments outlive the processes that made them, but not their namespace.
    unshare(CloneFlags::CLONE_NEWIPC).map_err(no("make an IPC namespace"))?;
    let spool = spool::open_dir(Path::new(SPOOL_DIR)).map_err(no("open the spool folder"))?;
    std::env::set_current_dir("/").map_err(no("enter /"))?;
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None).map_err(no("block signals"))?;
    let children = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(no("watch children"))?;
    let failures = Slots::new(SLOTS_MAX as usize).map_err(no("reserve memory"))?;
    let stack = Stack::new().map_err(no("reserve memory"))?;
    Ok(Parts { spool, failures, stack, children })
}

impl Init {
    fn serve(&mut self, children: &SignalFd) -> std::io::Result<()> {
        let mut inbox = Frames::default();
        let mut more = false;
        loop {
            self.flush()?;
            let mut fds =
                [PollFd::new(&self.shim, PollFlags::IN), PollFd::new(children, PollFlags::IN)];
            let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            match poll(&mut fds, more.then_some(&now)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            let [asked, ended] = fds.map(|f| !f.revents().is_empty());
            if asked {
                if !inbox.fill(&mut &self.shim)? {
                    return Ok(());
                }
                while let Some(message) = inbox.next()? {
                    self.handle(message)?;
                }
            }
            if ended {
                while children.read_signal()?.is_some() {}
            }
            if ended || more {
                more = self.reap()?;
            }
        }
    }

    fn handle(&mut self, message: ToInit) -> std::io::Result<()> {
        match message {
            ToInit::Adopt { account } => {
                if self.account.is_some() {
                    return Err(std::io::Error::other("adopted twice"));
                }
                let ready = own_mounts();
                self.account = Some(*account);
                self.tell(
                    &ready.map_or_else(|e| not_ready(&e), |()| FromInit::Ready { error: None }),
                )
            }
            ToInit::Start { slot, unit } => self.start(slot, unit),
            ToInit::Signal { slot, kill } => {
                let leader = self.units.iter().find(|(_, u)| u.slot == slot).map(|(pid, _)| *pid);
                if let Some(leader) = leader {
                    procs::signal(leader, kill);
                }
                self.tell(&FromInit::Signalled {})
            }
        }
    }

    fn start(&mut self, slot: u32, spec: Box<UnitSpec>) -> std::io::Result<()> {
        let Some(account) = &self.account else {
            return Err(std::io::Error::other("a unit before its account"));
        };
        let started = Millis::of(SystemTime::now());
        match begin(&spec, account, self.spool.as_fd(), &self.failures, slot, &mut self.stack) {
            Ok(pid) => {
                self.units.insert(pid, Unit { spec, slot, started });
                Ok(())
            }
            Err(e) => {
                let errno = e.raw_os_error().unwrap_or(libc::EIO);
                let reason = if errno == libc::EAGAIN {
                    "cannot make a process: the envelope's limit of processes is reached".to_owned()
                } else {
                    format!("cannot make a process: {}", Errno::from_raw(errno).desc())
                };
                let outcome = Outcome::StartFailed { reason, errno };
                self.tell(&FromInit::Ended { slot, outcome, usage: None })
            }
        }
    }

    /// Collects processes that ended. Whether there may be more.
    fn reap(&mut self) -> std::io::Result<bool> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        for _ in 0..REAP_ROUND_MAX {
            let pid = match waitid(Id::All, flags) {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(false),
                Ok(status) => match status.pid() {
                    Some(pid) => pid,
                    None => return Ok(false),
                },
                Err(Errno::EINTR) => continue,
                Err(e) => return Err(e.into()),
            };
            if self.units.contains_key(&pid.as_raw()) {
                // Not yet collected, so that the group's number cannot belong to anybody else.
                match nix::sys::signal::killpg(pid, Signal::SIGKILL) {
                    Ok(()) | Err(Errno::ESRCH | Errno::EPERM) => {}
                    Err(e) => return Err(e.into()),
                }
            }
            let reaped = sys::reap(pid.as_raw())?;
            if let Some(unit) = self.units.remove(&pid.as_raw()) {
                let ended = self.ended(&unit, &reaped);
                self.tell(&ended)?;
            }
        }
        Ok(true)
    }

    fn ended(&self, unit: &Unit, r: &Waited) -> FromInit {
        let slot = unit.slot;
        let failed = child::unpack(self.failures.take(slot as usize));
        if let (Some(failure), Some(account)) = (failed, &self.account) {
            let reason = child::reason(failure, &unit.spec, account);
            let outcome = Outcome::StartFailed { reason, errno: failure.1 as i32 };
            return FromInit::Ended { slot, outcome, usage: None };
        }
        let outcome = if libc::WIFSIGNALED(r.status) {
            Outcome::Signaled { signal: libc::WTERMSIG(r.status) as u8, cause: None }
        } else {
            Outcome::Exited { code: libc::WEXITSTATUS(r.status) as u8, cause: None }
        };
        let usage = UnitUsage {
            started: unit.started,
            ended: Millis::of(SystemTime::now()),
            user_us: r.user_us,
            system_us: r.system_us,
            max_rss_bytes: r.max_rss_bytes,
            ..UnitUsage::default()
        };
        FromInit::Ended { slot, outcome, usage: Some(usage) }
    }

    fn tell(&mut self, message: &FromInit) -> std::io::Result<()> {
        frame::push(message, &mut self.out)
    }

    /// The shim always reads, so this waits for it only shortly.
    fn flush(&mut self) -> std::io::Result<()> {
        self.shim.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }
}

/// Makes a unit's process. What fails in it is found under its slot.
fn begin(
    spec: &UnitSpec,
    account: &Account,
    spool: BorrowedFd<'_>,
    failures: &Slots,
    slot: u32,
    stack: &mut Stack,
) -> std::io::Result<i32> {
    let unit = Ready::new(spec, account)?;
    let mut become_unit = || {
        failures.set(slot as usize, child::pack(unit.run(spool)));
        child::FAILED_CODE
    };
    if unit.is_quick() {
        return sys::vfork(stack, &mut become_unit);
    }
    match sys::fork()? {
        Forked::Parent(pid) => Ok(pid),
        Forked::Child => sys::exit_now(become_unit()),
    }
}
