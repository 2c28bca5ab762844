//! System calls that need `unsafe`. Everything else in this crate is safe code. What a shim and its
//! init have in common with a cell is that crate's.
//!
//! Callers of [`fork`] and [`vfork`] are single-threaded: the shim starts no thread, ever.

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub use xos_ssi::sys::{
    Forked, Waited, close_from, default_signals, exit_now, fork, ignore_pipe, new_session_keyring,
    reap, single_threaded,
};

static TERM_CAME: AtomicBool = AtomicBool::new(false);

/// From now on TERM does not end this process; [`term_came`] tells of it. Not inherited: what this
/// process executes has the default action.
///
/// # Errors
/// The kernel's error.
pub fn note_term() -> io::Result<()> {
    extern "C" fn note(_: libc::c_int) {
        TERM_CAME.store(true, Ordering::Relaxed);
    }
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler only stores to an atomic, which is safe whatever it interrupts.
    unsafe { sigaction(Signal::SIGTERM, &action) }?;
    Ok(())
}

/// Whether TERM came since [`note_term`].
pub fn term_came() -> bool {
    TERM_CAME.load(Ordering::Relaxed)
}

/// Undoes [`ignore_pipe`].
pub fn default_pipe() {
    // SAFETY: SIG_DFL installs no code.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Whether some process has the file open for writing, asked by trying to take a read lease on
/// it, which the kernel grants only if nobody has. `None`: this file system has no leases.
pub fn has_writers(fd: BorrowedFd<'_>) -> Option<bool> {
    // SAFETY: F_SETLEASE passes an integer; the descriptor is borrowed, hence open.
    let r = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) };
    if r == 0 {
        // SAFETY: as above. Giving up a lease that we hold cannot fail, and closing gives it up.
        unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) };
        return Some(false);
    }
    (io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN)).then_some(true)
}

/// Takes a read lease that lasts as long as the file is open, and ignores the signal by which it is
/// broken. Whether the file system has leases.
#[cfg(test)]
pub fn hold_lease(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: the signal is ignored, no handler is installed; F_SETLEASE passes an integer, and
    // the descriptor is borrowed, hence open.
    unsafe {
        libc::signal(libc::SIGIO, libc::SIG_IGN);
        libc::fcntl(fd.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) == 0
    }
}

/// A stack for [`vfork`], with a page below it that nothing can write to.
pub struct Stack {
    base: NonNull<libc::c_void>,
}

/// Bytes of such a stack, the guard included.
const STACK_BYTES: usize = 256 * 1024;
/// Bytes of the guard.
const GUARD_BYTES: usize = 4096;

impl Stack {
    /// A new one.
    ///
    /// # Errors
    /// The kernel's error when memory is short.
    pub fn new() -> io::Result<Stack> {
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE);
        let flags = flags | libc::MAP_ANONYMOUS | libc::MAP_STACK;
        // SAFETY: a new anonymous mapping at an address that the kernel chooses.
        let p = unsafe { libc::mmap(std::ptr::null_mut(), STACK_BYTES, prot, flags, -1, 0) };
        let base = match NonNull::new(p) {
            Some(base) if p != libc::MAP_FAILED => base,
            _ => return Err(io::Error::last_os_error()),
        };
        let stack = Stack { base };
        // SAFETY: the first page of the mapping just made; stacks grow down to it.
        match unsafe { libc::mprotect(base.as_ptr(), GUARD_BYTES, libc::PROT_NONE) } {
            0 => Ok(stack),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping of this length made in `new`, used by nobody after this.
        unsafe { libc::munmap(self.base.as_ptr(), STACK_BYTES) };
    }
}

/// Makes a process that runs `child` in this one's memory, and waits until it has replaced itself
/// or ended with the code that `child` returns. Much cheaper than [`fork`], which copies the page
/// tables, and then each page that either side writes to.
///
/// `child` must not wait for anything that others can hold up, since this process waits for it;
/// and what it takes from the heap and does not give back before exec is lost for good.
///
/// # Errors
/// As [`fork`].
pub fn vfork(stack: &mut Stack, mut child: &mut dyn FnMut() -> i32) -> io::Result<i32> {
    extern "C" fn entry(child: *mut libc::c_void) -> libc::c_int {
        // SAFETY: what `vfork` passes below, which lives on its stack frame while it waits.
        let child = unsafe { &mut *child.cast::<&mut dyn FnMut() -> i32>() };
        child()
    }
    debug_assert!(single_threaded(), "vfork with threads");
    // SAFETY: one past the end of the mapping, aligned to a page: where a stack begins.
    let top = unsafe { stack.base.as_ptr().cast::<u8>().add(STACK_BYTES) };
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let arg = std::ptr::from_mut(&mut child).cast();
    // SAFETY: this process has one thread, which the kernel suspends (CLONE_VFORK) until the
    // child has exec'd or exited, so that memory is used by one of them at a time. The child has
    // the stack alone. A panic in it aborts it at the border of `entry`.
    match unsafe { libc::clone(entry, top.cast(), flags, arg) } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(pid),
    }
}

/// Memory shared with forked children, in which a child that fails before exec leaves the reason.
///
/// The mapping does not survive exec, so that no unit's program can write here.
pub struct Slots {
    words: NonNull<AtomicU64>,
    len: usize,
}

impl Slots {
    /// Room for `len` children.
    ///
    /// # Errors
    /// The kernel's error when memory is short.
    pub fn new(len: usize) -> io::Result<Slots> {
        // SAFETY: a new anonymous mapping at an address that the kernel chooses.
        let p = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len.max(1) * 8,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        match NonNull::new(p.cast()) {
            Some(words) if p != libc::MAP_FAILED => Ok(Slots { words, len }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn word(&self, slot: usize) -> Option<&AtomicU64> {
        // SAFETY: in bounds by the filter; the mapping is zeroed, aligned to a page, lives as long
        // as self, and is only touched through atomics.
        (slot < self.len).then(|| unsafe { self.words.add(slot).as_ref() })
    }

    /// Stores a child's word.
    pub fn set(&self, slot: usize, value: u64) {
        if let Some(w) = self.word(slot) {
            w.store(value, Ordering::Release);
        }
    }

    /// Reads and clears a child's word.
    pub fn take(&self, slot: usize) -> u64 {
        self.word(slot).map_or(0, |w| w.swap(0, Ordering::AcqRel))
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        // SAFETY: the mapping of this length made in `new`, used by nobody after this.
        unsafe { libc::munmap(self.words.as_ptr().cast(), self.len.max(1) * 8) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_keep_words_apart() {
        // wrong: one unit's start failure would be reported for another
        let s = Slots::new(3).unwrap();
        s.set(1, 7);
        s.set(9, 1);
        assert_eq!((s.take(0), s.take(1), s.take(1), s.take(9)), (0, 7, 0, 0));
    }

    #[test]
    fn writers_are_seen() {
        // wrong: a spool file that a left-over process still fills would be unlinked and grow
        // unseen
        use std::os::fd::AsFd;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let w = std::fs::File::create(&path).unwrap();
        let r = std::fs::File::open(&path).unwrap();
        match has_writers(r.as_fd()) {
            None => println!("skipped: no leases on this file system"),
            Some(busy) => {
                assert!(busy);
                drop(w);
                assert_eq!(has_writers(r.as_fd()), Some(false));
            }
        }
    }
}
