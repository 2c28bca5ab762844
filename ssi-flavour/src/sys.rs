//! System calls that need `unsafe`, for cells and ghosts, and for the shims of nodes. All else in
//! this crate is safe code, but for what the child that becomes CRIU does (`driver/sys.rs`).
//!
//! Callers of [`fork`] and [`fork_as`] are single-threaded: neither a cell's init nor a ghost nor a
//! shim nor its init nor the keeper of a merged `/proc` starts a thread, ever.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, RawFd};

/// Who returned from [`fork`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forked {
    /// The caller; the child has this pid, as the caller's pid namespace sees it.
    Parent(i32),
    /// The new process.
    Child,
}

/// Makes a copy of this process.
///
/// # Errors
/// The kernel's error.
pub fn fork() -> io::Result<Forked> {
    debug_assert!(single_threaded(), "fork with threads");
    // SAFETY: the process has one thread (callers never start another), so that the child finds
    // every lock free and memory consistent.
    forked(i64::from(unsafe { libc::fork() }))
}

/// As [`fork`], with a pid that the caller chose in its own pid namespace (clone3(2), `set_tid`).
///
/// # Errors
/// The kernel's error; `EEXIST` when the pid is taken, `EINVAL` when the namespace has no such.
pub fn fork_as(pid: i32) -> io::Result<Forked> {
    debug_assert!(single_threaded(), "fork with threads");
    let wanted = [pid];
    // struct clone_args as of Linux 5.5: flags, pidfd, child_tid, parent_tid, exit_signal, stack,
    // stack_size, tls, set_tid, set_tid_size.
    let mut args = [0u64; 10];
    args[4] = libc::SIGCHLD as u64;
    args[8] = wanted.as_ptr() as u64;
    args[9] = 1;
    let bytes = std::mem::size_of_val(&args);
    // SAFETY: both arrays outlive the call. Without CLONE_VM and without a stack this is fork: the
    // child goes on from here on its copy of the stack. The process has one thread, as above.
    forked(unsafe { libc::syscall(libc::SYS_clone3, args.as_ptr(), bytes) })
}

fn forked(result: i64) -> io::Result<Forked> {
    match i32::try_from(result) {
        Ok(0) => Ok(Forked::Child),
        Ok(pid) if pid > 0 => Ok(Forked::Parent(pid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether this process has exactly one thread.
pub fn single_threaded() -> bool {
    std::fs::read_dir("/proc/self/task").map(|d| d.count() == 1).unwrap_or(true)
}

/// Ends this process at once, without running exit handlers of the program it was forked from.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// What became of a child and what it used; times in microseconds, memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waited {
    /// Its pid.
    pub pid: i32,
    /// The raw status of wait(2).
    pub status: i32,
    /// User processor time.
    pub user_us: u64,
    /// System processor time.
    pub system_us: u64,
    /// Largest resident set.
    pub max_rss_bytes: u64,
}

/// What [`wait_any`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// A child ended (and is collected), stopped, or goes on.
    Changed(Waited),
    /// No child has changed.
    Nothing,
    /// There is no child.
    Childless,
}

/// Looks for a child that ended, stopped or goes on, without waiting for one.
///
/// # Errors
/// The kernel's error.
pub fn wait_any() -> io::Result<Wait> {
    match wait(-1, libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED) {
        Ok(Some(waited)) => Ok(Wait::Changed(waited)),
        Ok(None) => Ok(Wait::Nothing),
        Err(e) if e.raw_os_error() == Some(libc::ECHILD) => Ok(Wait::Childless),
        Err(e) if e.raw_os_error() == Some(libc::EINTR) => Ok(Wait::Nothing),
        Err(e) => Err(e),
    }
}

/// Collects one ended child, which must exist (see `waitid` with `WNOWAIT`).
///
/// # Errors
/// The kernel's error, `ECHILD` when there is no such child, `EAGAIN` when it has not ended.
pub fn reap(pid: i32) -> io::Result<Waited> {
    wait(pid, libc::WNOHANG)?.ok_or_else(|| io::Error::from_raw_os_error(libc::EAGAIN))
}

fn wait(pid: i32, flags: i32) -> io::Result<Option<Waited>> {
    let mut status = 0;
    // SAFETY: all-zero is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: wait4 writes into both places, which outlive the call.
    let pid = unsafe { libc::wait4(pid, &mut status, flags, &mut usage) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        _ => Ok(Some(Waited {
            pid,
            status,
            user_us: micros(usage.ru_utime),
            system_us: micros(usage.ru_stime),
            max_rss_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(1024),
        })),
    }
}

fn micros(t: libc::timeval) -> u64 {
    let part = |v: i64| u64::try_from(v).unwrap_or(0);
    part(t.tv_sec).saturating_mul(1_000_000).saturating_add(part(t.tv_usec))
}

/// Closes every descriptor from `first` on.
///
/// # Errors
/// The kernel's error (`ENOSYS` before Linux 5.9).
pub fn close_from(first: RawFd) -> io::Result<()> {
    close_range(first, 0)
}

/// Has every descriptor from `first` on closed by exec.
///
/// # Errors
/// The kernel's error (`EINVAL` before Linux 5.11).
pub fn close_on_exec_from(first: RawFd) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    close_range(first, CLOSE_RANGE_CLOEXEC)
}

fn close_range(first: RawFd, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: without flags it is called only where no owned descriptor from `first` on is used
    // again: first thing in a new program, and before exec.
    let r = unsafe { libc::syscall(libc::SYS_close_range, first as libc::c_uint, u32::MAX, flags) };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives every signal its default action. Signals that cannot be changed stay as they are.
pub fn default_signals() {
    // Past the C library, which would leave alone the two signals that it keeps for itself. The
    // kernel's struct is four words, all zero for the default action without flags or mask.
    let default = [0u64; 4];
    for signal in 1..=64 {
        // SAFETY: installs no code; the struct outlives the call and no old one is asked for. The
        // kernel refuses KILL and STOP, which is what is wanted.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                8,
            )
        };
    }
}

/// Makes a write to a closed socket an error instead of the end of this process.
pub fn ignore_pipe() {
    // SAFETY: SIG_IGN installs no code.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Sends a signal by its number, real-time signals too, to a process or, for a negative number, to
/// a process group; see kill(2).
///
/// # Errors
/// The kernel's error; `ESRCH` when there is no such process.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: kill takes numbers alone.
    if unsafe { libc::kill(pid, signal) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has whoever opens a file from now on, by whichever name, wait until it is closed here, or the
/// kernel's time for that is over (F_SETLEASE of F_WRLCK in fcntl(2)).
///
/// # Errors
/// The kernel's: `EAGAIN` when somebody else has the file open or mapped; `EINVAL` where the file
/// system has no leases.
pub fn lease(file: impl AsFd) -> io::Result<()> {
    // include/uapi/asm-generic/fcntl.h
    const F_SETSIG: libc::c_int = 10;
    let fd = file.as_fd().as_raw_fd();
    // Who waits is told of by a signal, which without that ends this process (SIGIO).
    for (order, value) in [(F_SETSIG, libc::SIGURG), (libc::F_SETLEASE, libc::F_WRLCK)] {
        // SAFETY: both orders take numbers alone, and the descriptor is open as long as `file` is.
        if unsafe { libc::fcntl(fd, order, value) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Leaves the session keyring of whoever started us for a new, empty one, so that a program does
/// not possess keys of root. A kernel without keyrings has none to leave.
///
/// # Errors
/// The kernel's error.
pub fn new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring; no memory is passed.
    let r = unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<u8>())
    };
    let e = io::Error::last_os_error();
    if r >= 0 || e.raw_os_error() == Some(libc::ENOSYS) { Ok(()) } else { Err(e) }
}

/// Brings the loopback of this thread's network namespace up, or takes it down; see netdevice(7).
///
/// # Errors
/// The kernel's error.
pub fn loopback(up: bool) -> io::Result<()> {
    let mut request = device(b"lo");
    request.ifr_ifru.ifru_flags = if up { UP } else { 0 };
    set(libc::SIOCSIFFLAGS, &request)
}

/// Makes a network device with an address in this thread's network namespace. Each packet (IP) that
/// is sent to the networks of the address below `mask` is read from the file that is returned, and
/// what is written to that arrives. With the file the device goes, which keeps the namespace.
///
/// # Errors
/// The kernel's error; `NotFound` where there is no `/dev/net/tun`.
pub fn packet_device(address: Ipv4Addr, mask: Ipv4Addr, mtu: u16) -> io::Result<File> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    let mut request = device(b"xos0");
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the file is open, and the request outlives the call.
    if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    request.ifr_ifru.ifru_addr = socket_address(address);
    set(libc::SIOCSIFADDR, &request)?;
    request.ifr_ifru.ifru_addr = socket_address(mask);
    set(libc::SIOCSIFNETMASK, &request)?;
    request.ifr_ifru.ifru_mtu = mtu.into();
    set(libc::SIOCSIFMTU, &request)?;
    request.ifr_ifru.ifru_flags = UP;
    set(libc::SIOCSIFFLAGS, &request)?;
    Ok(file)
}

const UP: libc::c_short = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;

/// A request for a network device.
fn device(name: &[u8]) -> libc::ifreq {
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    request
}

/// As struct sockaddr_in has it: two bytes of a port, then the address.
fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let mut sa_data = [0; 14];
    for (to, from) in sa_data[2..6].iter_mut().zip(address.octets()) {
        *to = from as libc::c_char;
    }
    libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data }
}

fn set(what: libc::c_ulong, request: &libc::ifreq) -> io::Result<()> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: the socket is open, the request outlives the call, and what is set of it was set.
    let r = unsafe { libc::ioctl(socket.as_raw_fd(), what, request) };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Texts as execve(2) takes them.
pub struct Texts {
    pointers: Vec<*const libc::c_char>,
    _owned: Vec<CString>,
}

impl Texts {
    /// Arguments, or an environment.
    pub fn new(owned: Vec<CString>) -> Texts {
        // The texts lie on the heap and stay there while the vector is moved.
        let pointers = owned.iter().map(|t| t.as_ptr()).chain([std::ptr::null()]).collect();
        Texts { pointers, _owned: owned }
    }
}

/// Replaces this process, without taking memory. Returns only when that failed.
pub fn exec(program: &CStr, argv: &Texts, env: &Texts) -> nix::errno::Errno {
    // SAFETY: the program is a text with its end, both lists end with a null and point to texts
    // that live as long as they.
    unsafe { libc::execve(program.as_ptr(), argv.pointers.as_ptr(), env.pointers.as_ptr()) };
    nix::errno::Errno::last()
}
