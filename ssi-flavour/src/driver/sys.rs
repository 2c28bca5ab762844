//! Starting a process with what only the child itself can do before its program runs.

use rustix::io::{FdFlags, fcntl_setfd, write};
use std::os::fd::OwnedFd;
use tokio::process::Command;

/// Has the child of `command` begin a session of its own, make files for its user alone, enter
/// control groups (`cgroups`: their files `cgroup.procs`, open for writing), and keep the
/// descriptors `kept`, under the numbers that they have here.
pub(super) fn prepare(command: &mut Command, cgroups: Vec<OwnedFd>, kept: Vec<OwnedFd>) {
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
        Ok(())
    };
    // SAFETY: between fork and exec the closure only makes system calls (setsid, umask, write,
    // fcntl): it allocates nothing, takes no lock and frees nothing.
    unsafe {
        command.pre_exec(child);
    }
}
