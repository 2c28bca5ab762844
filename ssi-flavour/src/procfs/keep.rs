//! The program `xos-proc`: the keeper, which mounts and watches, and the server, which answers.
//! Each takes the mount away when the other dies.

use super::feed::Feed;
use super::fs::{Merged, REAL};
use super::local::Local;
use super::{FILE_SYSTEM, READY};
use crate::alone::no;
use crate::cell::HELPER_PIDS;
use crate::pids::NodeNumber;
use crate::sys::{self, Forked, Wait};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::statfs::{FUSE_SUPER_MAGIC, statfs};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// How often a server that died is replaced; after that the real `/proc` stays.
const RESTARTS_MAX: u32 = 5;
/// From one look whether a server that was killed is gone to the next.
const LOOK: Duration = Duration::from_millis(2);
/// Where a merged `/proc` is mounted.
const PROC: &str = "/proc";
/// The keeper and its server go last when memory is short, as far as root may have it so.
const OOM_SCORE: &[u8] = b"-900";

/// What is to be served.
struct Order {
    socket: PathBuf,
    uid: u32,
    here: NodeNumber,
}

/// How a server came to its end.
enum Over {
    Asked,
    Died,
}

/// Keeps a merged `/proc`: the whole of the program `xos-proc <socket> <uid> <number of the node>`.
/// It writes [`READY`] once it is mounted, in a mount namespace of its own, and ends by SIGTERM.
pub fn proc_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Some(order) = parse(args) else {
        complain("usage: xos-proc <socket of the node's agent> <user> <node, 1 to 127>");
        return ExitCode::from(2);
    };
    match keep(&order) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            complain(&why);
            ExitCode::FAILURE
        }
    }
}

/// To the agent, which started this, and may be gone.
fn complain(text: &str) {
    let _unheard = writeln!(io::stderr(), "xos-proc: {text}");
}

fn parse(args: impl IntoIterator<Item = OsString>) -> Option<Order> {
    let mut args = args.into_iter();
    let socket = PathBuf::from(args.next()?);
    let uid = args.next()?.to_str()?.parse().ok()?;
    let here = NodeNumber::try_from(args.next()?.to_str()?.parse::<u8>().ok()?).ok()?;
    args.next().is_none().then_some(Order { socket, uid, here })
}

fn keep(order: &Order) -> Result<(), String> {
    sys::close_from(3).map_err(no("close what was inherited"))?;
    sys::ignore_pipe();
    // Root is not everywhere allowed to.
    let _unprotected = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    let mut mask = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        mask.add(signal);
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None).map_err(no("block signals"))?;
    let signals =
        SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC).map_err(no("watch signals"))?;
    let outside = File::open("/proc/self/ns/mnt").map_err(no("open the cell's mounts"))?;
    unshare(CloneFlags::CLONE_NEWNS).map_err(no("make a mount namespace"))?;
    // Mounts made in the cell later appear here too; nothing mounted here appears there.
    let slave = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, slave, None::<&str>)
        .map_err(no("separate the mounts"))?;
    for restarts in 0..=RESTARTS_MAX {
        match round(order, &outside, &signals, restarts == 0)? {
            Over::Asked => return Ok(()),
            Over::Died => complain("the server died; the real /proc is there until it is back"),
        }
    }
    Err(format!("the server died {} times: the real /proc stays", RESTARTS_MAX + 1))
}

/// One server, from its start to its end.
fn round(order: &Order, outside: &File, signals: &SignalFd, first: bool) -> Result<Over, String> {
    let device = File::options().read(true).write(true).open("/dev/fuse");
    let device = device.map_err(no("open /dev/fuse, which the kernel has for FUSE"))?;
    // The server sees by its end of the pipe that the keeper lives.
    let (life, mut alive) = io::pipe().map_err(no("make a pipe"))?;
    // The real /proc is there now, so that fork may look whether there are threads.
    match fork_low().map_err(no("fork the server"))? {
        Forked::Child => {
            drop(alive);
            if let Err(why) = serve(order, outside, device, life) {
                complain(&why);
            }
            sys::exit_now(1)
        }
        Forked::Parent(server) => {
            drop(life);
            let over = cover(device).and_then(|()| {
                let over = watch(server, &mut alive, signals, first);
                // Whatever came, nothing of it stays. Not even a server that hangs holds this up.
                let gone = umount2(PROC, MntFlags::MNT_DETACH);
                gone.map_err(no("take the merged /proc away"))?;
                over
            });
            end(server);
            // Only now: a server that is alone would take away what is on top of /proc then.
            drop(alive);
            over
        }
    }
}

/// A process with a pid that no tree can have ([`HELPER_PIDS`]).
fn fork_low() -> io::Result<Forked> {
    for pid in HELPER_PIDS {
        match sys::fork_as(pid) {
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {}
            other => return other,
        }
    }
    Err(io::Error::other("all pids of helpers are taken"))
}

/// Mounts the merged `/proc`. From then on the server alone holds it: when it dies, what waits for
/// it gets errors.
fn cover(device: File) -> Result<(), String> {
    let options = format!(
        "fd={},rootmode=40555,user_id=0,group_id=0,default_permissions,allow_other",
        device.as_raw_fd()
    );
    let flags = plain() | MsFlags::MS_RDONLY;
    mount(Some("xos-proc"), PROC, Some(FILE_SYSTEM), flags, Some(options.as_str()))
        .map_err(no("mount the merged /proc"))
}

fn plain() -> MsFlags {
    MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC
}

/// Lets the server go to work, and waits for its end or the agent's word.
fn watch(
    server: i32,
    alive: &mut PipeWriter,
    signals: &SignalFd,
    first: bool,
) -> Result<Over, String> {
    alive.write_all(&[1]).map_err(no("tell the server"))?;
    let real = format!("{PROC}/{REAL}");
    match mount(Some("proc"), real.as_str(), Some("proc"), plain(), Some("hidepid=2")) {
        Ok(()) => {}
        Err(e) if first => return Err(format!("mount the real /proc below the merged one: {e}")),
        Err(_) => return Ok(Over::Died),
    }
    if first {
        io::stdout().write_all(READY.as_bytes()).map_err(no("tell the agent"))?;
        io::stdout().flush().map_err(no("tell the agent"))?;
    }
    loop {
        let signal = match signals.read_signal() {
            Ok(Some(signal)) => signal,
            Ok(None) | Err(Errno::EINTR) => continue,
            Err(e) => return Err(format!("hear of signals: {e}")),
        };
        if signal.ssi_signo != libc::SIGCHLD.unsigned_abs() {
            return Ok(Over::Asked);
        }
        loop {
            match sys::wait_any().map_err(no("wait for the server"))? {
                Wait::Changed(w) if w.pid == server && !stopped(w.status) => {
                    return Ok(Over::Died);
                }
                Wait::Changed(_) => {}
                Wait::Nothing => break,
                Wait::Childless => return Ok(Over::Died),
            }
        }
    }
}

fn stopped(status: i32) -> bool {
    libc::WIFSTOPPED(status) || libc::WIFCONTINUED(status)
}

/// Ends the server, if it has not ended: the pid of one that was collected may be another's.
fn end(server: i32) {
    let mut killed = false;
    loop {
        match sys::wait_any() {
            Ok(Wait::Childless) | Err(_) => return,
            Ok(Wait::Changed(_)) => {}
            Ok(Wait::Nothing) if killed => std::thread::sleep(LOOK),
            Ok(Wait::Nothing) => {
                // It is this process's child, and not collected: nobody else has its pid.
                let _gone = sys::kill(server, libc::SIGKILL);
                killed = true;
            }
        }
    }
}

/// The server: answers the kernel until the mount is gone.
fn serve(order: &Order, outside: &File, device: File, mut life: PipeReader) -> Result<(), String> {
    // The cell's own mounts: what this process itself reads in /proc must not come back to it.
    setns(outside, CloneFlags::CLONE_NEWNS).map_err(no("leave the shell's mounts"))?;
    let keeper = nix::unistd::getppid();
    let inside = File::open(format!("/proc/{keeper}/ns/mnt"));
    let inside = inside.map_err(no("open the shell's mounts"))?;
    life.read_exact(&mut [0]).map_err(no("hear from the keeper"))?;
    let lifeline = std::thread::Builder::new().name("keeper".to_owned());
    lifeline.spawn(move || outlive(life, inside)).map_err(no("start a thread"))?;
    let feed = Feed::new(&order.socket, order.uid, order.here);
    let merged = Merged::new(feed, Local::at(Path::new(PROC)), std::time::SystemTime::now());
    let (acl, config) = (fuser::SessionACL::All, fuser::Config::default());
    let session = fuser::Session::from_fd(merged, OwnedFd::from(device), acl, config);
    let session = session.map_err(no("begin with FUSE"))?;
    session.run().map_err(no("answer the kernel"))
}

/// Waits until the keeper is dead, takes the mount away in its stead and ends the server.
fn outlive(mut life: PipeReader, inside: File) {
    // Nothing comes but the end.
    while matches!(life.read(&mut [0]), Ok(n) if n > 0) {}
    // A thread that shares its folders with others cannot change its mounts.
    let gone = unshare(CloneFlags::CLONE_FS)
        .and_then(|()| setns(&inside, CloneFlags::CLONE_NEWNS))
        .and_then(|()| statfs(PROC))
        .and_then(|top| match top.filesystem_type() {
            FUSE_SUPER_MAGIC => umount2(PROC, MntFlags::MNT_DETACH),
            // The keeper had taken it away.
            _ => Ok(()),
        });
    if let Err(e) = gone {
        complain(&format!("take the merged /proc away: {e}"));
    }
    sys::exit_now(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_words_are_refused() {
        // wrong: a shell would show another person's processes, or another node's
        let parse = |words: &[&str]| parse(words.iter().map(OsString::from));
        assert!(parse(&["/run/s", "1000", "3"]).is_some());
        for bad in [
            &["/run/s", "1000"][..],
            &["/run/s", "-1", "3"],
            &["/run/s", "1000", "0"],
            &["/run/s", "1000", "128"],
            &["/run/s", "1000", "3", "x"],
        ] {
            assert!(parse(bad).is_none(), "{bad:?}");
        }
    }
}
