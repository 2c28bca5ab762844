//! The calls that need `unsafe`, each behind a safe function.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::ForkResult;

/// The two sides of [`fork`].
pub(crate) enum Side {
    /// The caller, with the pid of its child.
    Parent(i32),
    /// The new process.
    Child,
}

/// Shows that the process had a single thread, as the helper program has until it forwards.
#[derive(Debug)]
pub(crate) struct SingleThread(());

impl SingleThread {
    /// Asks the kernel. Before the process enters a host: /proc is another one there.
    pub(crate) fn check() -> io::Result<Self> {
        match std::fs::read_dir("/proc/self/task")?.count() {
            1 => Ok(SingleThread(())),
            count => Err(io::Error::other(format!("refusing to fork with {count} threads"))),
        }
    }
}

/// Forks. Only for the helper program.
pub(crate) fn fork(_proof: &SingleThread) -> io::Result<Side> {
    // SAFETY: the process has one thread (see the proof; the helper starts threads only in the
    // forwarder, after its last fork), so no lock can be held by another one and the child may go
    // on as if nothing had happened.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Side::Parent(child.as_raw())),
        ForkResult::Child => Ok(Side::Child),
    }
}

/// Lets the program that `command` starts inherit `fd` under its present number.
pub(crate) fn inherit(command: &mut Command, fd: OwnedFd) -> RawFd {
    let number = fd.as_raw_fd();
    // SAFETY: the closure makes one fcntl call, which is async-signal-safe, and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            fcntl(&fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
            Ok(())
        });
    }
    number
}

/// Lets the program that `command` starts run in the namespaces `kinds` of the process `pidfd`.
pub(crate) fn enter(command: &mut Command, pidfd: OwnedFd, kinds: CloneFlags) {
    // SAFETY: the closure makes one setns call, which is async-signal-safe, and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            setns(&pidfd, kinds)?;
            Ok(())
        });
    }
}

/// Takes over an inherited file descriptor, once, and hides it from programs started later.
pub(crate) fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: only asks whether the number is open; a wrong one answers EBADF.
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // SAFETY: the number is open (checked above), and the helper's main function adopts each
    // number from its command line exactly once, before it opens anything else.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Ignores the terminal's keyboard signals, which are meant for the program in the foreground.
pub(crate) fn ignore_keyboard() -> io::Result<()> {
    for which in [Signal::SIGINT, Signal::SIGQUIT] {
        // SAFETY: SIG_IGN installs no handler.
        unsafe { signal(which, SigHandler::SigIgn) }?;
    }
    Ok(())
}
