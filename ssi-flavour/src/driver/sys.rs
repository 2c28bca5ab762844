//! Starting a process with what only the child itself can do before its program runs.

use super::limits::RealIds;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::io::{FdFlags, fcntl_setfd, write};
use std::os::fd::OwnedFd;
use tokio::process::Command;
use xos_base::accounts::OWN_ID;

/// Has the child of `command` begin a session of its own, make files for its user alone, enter
/// control groups (`cgroups`: their files `cgroup.procs`, open for writing), keep the
/// descriptors `kept`, under the numbers that they have here, act on volumes for a person (`person`:
/// their uid), and take real ids (`real`), while its effective and saved ones stay.
pub(super) fn prepare(
    command: &mut Command,
    cgroups: Vec<OwnedFd>,
    kept: Vec<OwnedFd>,
    person: Option<u32>,
    real: Option<RealIds>,
) {
    // -1: as it is (setresuid(2)).
    let (same_user, same_group) = (Uid::from_raw(u32::MAX), Gid::from_raw(u32::MAX));
    let child = move || -> std::io::Result<()> {
        nix::unistd::setsid()?;
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
        for procs in &cgroups {
            // Itself (cgroups(7)).
            write(procs, b"0")?;
        }
        for fd in &kept {
            fcntl_setfd(fd, FdFlags::empty())?;
        }
        if let Some(person) = person {
            setgroups(&[Gid::from_raw(person), Gid::from_raw(OWN_ID)])?;
        }
        if let Some(real) = real {
            setresgid(Gid::from_raw(real.gid), same_group, same_group)?;
            setresuid(Uid::from_raw(real.uid), same_user, same_user)?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure only makes system calls (setsid, umask, write,
    // fcntl, setgroups, setresgid, setresuid; nix calls the C library, which tells other threads,
    // of which the child has none): it allocates nothing, takes no lock and frees nothing.
    unsafe {
        command.pre_exec(child);
    }
}
