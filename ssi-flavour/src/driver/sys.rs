//! Starting a process with what only the child itself can do before its program runs.

use super::limits::RealIds;
use crate::cell::proto::Rlimit;
use crate::program::{OOM_SCORE, limit};
use crate::sys::{close_from, exit_now, new_session_keyring};
use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{FdFlags, fcntl_setfd, write};
use rustix::process::Resource;
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};
use std::io::Result;
use std::os::fd::{AsFd, OwnedFd};
use tokio::process::Command;
use xos_base::accounts::OWN_ID;

/// Exit code of who waits for the child of namespaces, when that cannot be waited for.
const LOST_CODE: i32 = 127;
/// Added to the number of the signal that ended that child, as shells do.
pub(super) const SIGNAL_CODE: i32 = 128;

/// With whose rights a process runs.
pub(super) enum Rights {
    /// Root's.
    Root {
        /// For whom it acts on volumes: their uid.
        person: Option<u32>,
        /// Real ids, while the effective and saved ones stay.
        real: Option<RealIds>,
    },
    /// A person's for good, and some of root's.
    Person(As),
}

/// A person's account, as a program of theirs has it, and what it may beyond that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct As {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// As the kernel has them: sorted.
    pub(super) groups: Vec<rustix::process::Gid>,
    pub(super) capabilities: CapabilitySet,
}

/// What a process is to be.
pub(super) struct Child {
    /// Control groups to enter: their files `cgroup.procs`, open for writing.
    pub(super) cgroups: Vec<OwnedFd>,
    /// Descriptors that it keeps, under the numbers that they have here.
    pub(super) kept: Vec<OwnedFd>,
    /// Namespaces to enter.
    pub(super) namespaces: Vec<OwnedFd>,
    /// For a time namespace of its own: the text of its `timens_offsets` (time_namespaces(7)).
    pub(super) clocks: Option<String>,
    /// Whose rights it has at last.
    pub(super) rights: Rights,
    /// With a person's rights: of all processes of theirs.
    pub(super) processes: Option<Rlimit>,
}

/// Has the child of `command` begin a session of its own, make files for its user alone, and be
/// what `child` says. With namespaces, the program is the child of that child, which ends as it
/// ends.
pub(super) fn prepare(command: &mut Command, child: Child) {
    let prepared = move || -> Result<()> {
        nix::unistd::setsid()?;
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
        for procs in &child.cgroups {
            // Itself (cgroups(7)).
            write(procs, b"0")?;
        }
        for fd in &child.kept {
            fcntl_setfd(fd, FdFlags::empty())?;
        }
        if let Rights::Person(_) = &child.rights {
            // Here /proc is this process's; what it becomes, and makes, has that too.
            let how = OFlags::WRONLY | OFlags::CLOEXEC;
            let file = open(c"/proc/self/oom_score_adj", how, Mode::empty())?;
            write(file, OOM_SCORE.as_bytes())?;
        }
        if let Some(offsets) = &child.clocks {
            own_clocks(offsets)?;
        }
        for namespace in &child.namespaces {
            let any = rustix::thread::ThreadNameSpaceType::empty();
            rustix::thread::move_into_thread_name_spaces(namespace.as_fd(), any)?;
        }
        // Who enters pids or own clocks has only its children in them.
        if child.clocks.is_some() || !child.namespaces.is_empty() {
            go_on_in_a_child()?;
        }
        match &child.rights {
            Rights::Root { person, real } => stay_root(*person, *real),
            Rights::Person(of) => {
                // What CRIU makes has CRIU's, and with it whatever keys are in there.
                new_session_keyring()?;
                if let Some(most) = &child.processes {
                    limit(Resource::Nproc, most.soft, most.hard)?;
                }
                become_person(of)
            }
        }
    };
    // SAFETY: between fork and exec the closure only makes system calls; of what is in the C
    // library, setsid, umask, setgroups, setresgid and setresuid would tell other threads, of which
    // the child has none. It allocates nothing, takes no lock and frees nothing.
    unsafe {
        command.pre_exec(prepared);
    }
}

/// Has children live in a new time namespace.
fn own_clocks(offsets: &str) -> Result<()> {
    // SAFETY: only a new namespace for children is made; descriptors and memory stay as they are.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWTIME)? };
    let how = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = open(c"/proc/self/timens_offsets", how, Mode::empty())?;
    write(file, offsets.as_bytes())?;
    Ok(())
}

/// Returns in a child; the process itself waits for that and ends as it does.
fn go_on_in_a_child() -> Result<()> {
    const NONE: libc::c_long = 0;
    let signal = libc::c_long::from(libc::SIGCHLD);
    // SAFETY: without CLONE_VM and without a stack this is fork, but for what the C library does
    // around it: the process has one thread and takes no lock, so that nothing of it is needed.
    let forked = unsafe { libc::syscall(libc::SYS_clone, signal, NONE, NONE, NONE, NONE) };
    let child = match i32::try_from(forked) {
        Ok(0) => return Ok(()),
        Ok(child) if child > 0 => Pid::from_raw(child),
        _ => return Err(std::io::Error::last_os_error()),
    };
    // What others wait for the end of is the child's alone.
    let _none_left = close_from(0);
    loop {
        match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, code)) => exit_now(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => exit_now(SIGNAL_CODE + signal as i32),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => exit_now(LOST_CODE),
        }
    }
}

fn stay_root(person: Option<u32>, real: Option<RealIds>) -> Result<()> {
    // -1: as it is (setresuid(2)).
    let (same_user, same_group) = (Uid::from_raw(u32::MAX), Gid::from_raw(u32::MAX));
    if let Some(person) = person {
        setgroups(&[Gid::from_raw(person), Gid::from_raw(OWN_ID)])?;
    }
    if let Some(real) = real {
        setresgid(Gid::from_raw(real.gid), same_group, same_group)?;
        setresuid(Uid::from_raw(real.uid), same_user, same_user)?;
    }
    Ok(())
}

/// Gives up root for good, but for some capabilities, which a program that is run then has too
/// (ambient ones, capabilities(7)).
fn become_person(of: &As) -> Result<()> {
    use rustix::process::{Gid, Uid};
    use rustix::thread;
    let bits = || (0..u64::BITS).map(|number| CapabilitySet::from_bits_retain(1 << number));
    let kept = of.capabilities;
    for one in bits().filter(|one| !kept.contains(*one)) {
        match thread::remove_capability_from_bounding_set(one) {
            // The kernel knows no more.
            Err(rustix::io::Errno::INVAL) => break,
            removed => removed?,
        }
    }
    thread::set_thread_groups(&of.groups)?;
    thread::set_keep_capabilities(true)?;
    let (uid, gid) = (Uid::from_raw(of.uid), Gid::from_raw(of.gid));
    thread::set_thread_res_gid(gid, gid, gid)?;
    thread::set_thread_res_uid(uid, uid, uid)?;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: kept };
    thread::set_capabilities(None, sets)?;
    for one in bits().filter(|one| kept.contains(*one)) {
        thread::configure_capability_in_ambient_set(one, true)?;
    }
    thread::set_no_new_privs(true)?;
    if thread::set_thread_uid(Uid::ROOT).is_ok() {
        return Err(rustix::io::Errno::PERM.into());
    }
    Ok(())
}
