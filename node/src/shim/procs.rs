//! Signalling the processes of a unit. Runs in the envelope's init, whose `/proc` shows the
//! envelope's processes only.

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::process::{getpriority_process, setpriority_process};
use std::collections::BTreeSet;
use xos_ssi::procs::{all, members, scan};

/// The priority of what goes before all others; see setpriority(2).
const FIRST: i32 = -20;
/// How often the processes are looked for while they are being stopped.
const STOP_ROUNDS_MAX: u32 = 16;

/// Signals the unit's processes: its session, its process group and every descendant.
///
/// For KILL they are stopped first until no new one appears, so that none forks out of reach. A
/// process that left the session and whose parents have ended is not found; it ends with the
/// envelope.
///
/// Init shares the envelope's processors with all of them: while it looks for some thousands that
/// run, it goes before them.
pub(super) fn signal(leader: i32, killing: bool) {
    let usual = getpriority_process(None);
    // Fails only where init is not allowed to, and then it takes longer.
    let first = usual.and_then(|_| setpriority_process(None, FIRST)).is_ok();
    signal_all(leader, killing);
    if let (Ok(usual), true) = (usual, first) {
        // Lowering is always allowed.
        let back = setpriority_process(None, usual);
        debug_assert!(back.is_ok(), "{back:?}");
    }
}

fn signal_all(leader: i32, killing: bool) {
    if !killing {
        for pid in members(&all(), leader) {
            send(pid, Signal::SIGTERM);
            // A stopped process would not see the TERM.
            send(pid, Signal::SIGCONT);
        }
        return;
    }
    let mut found = BTreeSet::from([leader]);
    send(leader, Signal::SIGSTOP);
    for _ in 0..STOP_ROUNDS_MAX {
        // Most are in its session, and stopped where they are seen.
        let seen = scan(|p| {
            if p.in_session(leader) && !found.contains(&p.pid) {
                send(p.pid, Signal::SIGSTOP);
            }
        });
        let new: Vec<i32> =
            members(&seen, leader).into_iter().filter(|p| found.insert(*p)).collect();
        if new.is_empty() {
            break;
        }
        new.into_iter().for_each(|p| send(p, Signal::SIGSTOP));
    }
    found.into_iter().for_each(|p| send(p, Signal::SIGKILL));
}

fn send(pid: i32, signal: Signal) {
    match kill(Pid::from_raw(pid), signal) {
        // It ended meanwhile, which is what was wanted.
        Ok(()) | Err(Errno::ESRCH) => {}
        // Init is root and signals its own pid namespace: nothing else is possible.
        Err(e) => debug_assert!(false, "kill {pid}: {e}"),
    }
}
