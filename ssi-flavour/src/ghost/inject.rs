//! Turns a process into a ghost: has a stopped original, whose copy now runs elsewhere, execute
//! the ghost, by ptrace(2). It keeps its pid, its parent and its descriptors.

use nix::unistd::Pid;
use std::io;
use std::path::Path;

/// Why a process was not turned into a ghost; it is as it was.
#[derive(Debug, thiserror::Error)]
pub enum InjectError {
    /// It must not be.
    #[error("process {pid} cannot become a ghost: {why}")]
    Refused {
        /// Which.
        pid: i32,
        /// Why, for who asked.
        why: String,
    },
    /// The kernel refused.
    #[error("process {pid} did not become a ghost: {what}: {error}")]
    System {
        /// Which.
        pid: i32,
        /// What failed.
        what: &'static str,
        /// The kernel's error.
        error: io::Error,
    },
}

/// Has the process, which must be of this user and stopped or about to be, execute a program. It
/// stays stopped if it was: SIGCONT lets it go on. Waits until it has executed it.
///
/// # Errors
/// Why not: of another user, privileged, traced, confined by seccomp, or another processor than
/// x86_64; or that the program is not seen from its mount namespace.
pub fn inject(
    pid: i32,
    uid: u32,
    program: &Path,
    argv: &[String],
    env: &[String],
) -> Result<(), InjectError> {
    check(pid, uid, program).map_err(|why| InjectError::Refused { pid, why })?;
    let exec = arch::Exec { program, argv, env };
    exec.run(Pid::from_raw(pid)).map_err(|(what, error)| InjectError::System { pid, what, error })
}

fn check(pid: i32, uid: u32, program: &Path) -> Result<(), String> {
    use std::os::unix::fs::MetadataExt;
    if !cfg!(target_arch = "x86_64") {
        return Err("this processor is not supported: start the program through a ghost".into());
    }
    let read = |e: io::Error| format!("cannot look at it: {e}");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(read)?;
    may_be_traced(&status, uid)?;
    // The kernel gives the folder to root where memory is not the user's to look at.
    if std::fs::metadata(format!("/proc/{pid}")).map_err(read)?.uid() != uid {
        return Err("it is privileged".to_owned());
    }
    let relative = program.strip_prefix("/").map_err(|_| "the ghost's path is relative")?;
    let there = Path::new(&format!("/proc/{pid}/root")).join(relative);
    let of = |path: &Path| std::fs::metadata(path).map(|m| (m.dev(), m.ino()));
    match (of(program), of(&there)) {
        (Ok(here), Ok(there)) if here == there => Ok(()),
        _ => Err(format!("{} is not seen from its mount namespace", program.display())),
    }
}

/// proc_pid_status(5).
fn may_be_traced(status: &str, uid: u32) -> Result<(), String> {
    let field = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
        line.map(|l| l.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    };
    match field("Uid") {
        Some(uids) if uids.iter().all(|u| *u == uid.to_string()) => {}
        Some(_) => return Err("it runs as another user, or setuid".to_owned()),
        None => return Err("the kernel does not say whose it is".to_owned()),
    }
    if field("TracerPid") != Some(vec!["0".to_owned()]) {
        return Err("a debugger traces it".to_owned());
    }
    match field("Seccomp") {
        None => Ok(()),
        Some(mode) if mode == ["0"] => Ok(()),
        Some(_) => Err("its system calls are confined (seccomp)".to_owned()),
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod arch {
    use super::{Path, Pid, io};

    pub(super) struct Exec<'a> {
        pub program: &'a Path,
        pub argv: &'a [String],
        pub env: &'a [String],
    }

    impl Exec<'_> {
        pub(super) fn run(&self, _pid: Pid) -> Result<(), (&'static str, io::Error)> {
            Err(("execute in it", io::ErrorKind::Unsupported.into()))
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod arch {
    use super::{Path, Pid, io};
    use nix::errno::Errno;
    use nix::sys::ptrace::{self, AddressType, Options};
    use nix::sys::signal::{Signal, kill};
    use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
    use nix::sys::wait::{WaitStatus, waitpid};
    use std::io::{IoSlice, IoSliceMut};
    use std::os::unix::ffi::OsStrExt;

    type Failed = (&'static str, io::Error);

    /// `syscall; int3`: where it comes back, it failed.
    const CODE: [u8; 3] = [0x0f, 0x05, 0xcc];

    pub(super) struct Exec<'a> {
        pub program: &'a Path,
        pub argv: &'a [String],
        pub env: &'a [String],
    }

    /// Texts and lists as they lie in the process's memory.
    struct Image {
        bytes: Vec<u8>,
        argv: u64,
        env: u64,
    }

    fn no(what: &'static str) -> impl FnOnce(Errno) -> Failed {
        move |e| (what, e.into())
    }

    impl Exec<'_> {
        pub(super) fn run(&self, pid: Pid) -> Result<(), Failed> {
            ptrace::seize(pid, Options::PTRACE_O_TRACEEXEC).map_err(no("trace it"))?;
            let mut signals = Vec::new();
            let done = self.traced(pid, &mut signals);
            // What it got meanwhile it gets now. A process that is gone needs nothing.
            let detached = ptrace::detach(pid, None).map_err(no("let it go"));
            for signal in signals {
                kill(pid, signal).map_err(no("pass a signal on"))?;
            }
            done.and(detached)
        }

        fn traced(&self, pid: Pid, signals: &mut Vec<Signal>) -> Result<(), Failed> {
            ptrace::interrupt(pid).map_err(no("stop it"))?;
            while !matches!(wait(pid, signals)?, WaitStatus::PtraceEvent(..)) {
                ptrace::cont(pid, None).map_err(no("stop it"))?;
            }
            let regs = ptrace::getregs(pid).map_err(no("read its registers"))?;
            // On its stack, upwards: below it may lie nothing yet.
            let base = regs.rsp & !15;
            let image = self.image(base);
            let mut before = vec![0; image.bytes.len()];
            let at = [RemoteIoVec { base: base as usize, len: before.len() }];
            let n = process_vm_readv(pid, &mut [IoSliceMut::new(&mut before)], &at);
            if n.map_err(no("read its stack"))? != image.bytes.len() {
                return Err(("read its stack", io::ErrorKind::UnexpectedEof.into()));
            }
            let code_at = regs.rip as AddressType;
            let code = ptrace::read(pid, code_at).map_err(no("read its code"))?;
            let mut word = code.to_le_bytes();
            word[..CODE.len()].copy_from_slice(&CODE);
            let mut call = regs;
            call.rax = libc::SYS_execve as u64;
            // It is in no system call that the kernel would begin again.
            call.orig_rax = u64::MAX;
            (call.rdi, call.rsi, call.rdx) = (base, image.argv, image.env);
            let write = |bytes: &[u8]| {
                let n = process_vm_writev(pid, &[IoSlice::new(bytes)], &at);
                n.map(drop).map_err(no("write its stack"))
            };
            let executed = write(&image.bytes)
                .and_then(|()| {
                    let word = i64::from_le_bytes(word);
                    ptrace::write(pid, code_at, word).map_err(no("write its code"))
                })
                .and_then(|()| ptrace::setregs(pid, call).map_err(no("write its registers")))
                .and_then(|()| execute(pid, signals));
            if executed.is_err() {
                write(&before)?;
                ptrace::write(pid, code_at, code).map_err(no("put its code back"))?;
                ptrace::setregs(pid, regs).map_err(no("put its registers back"))?;
            }
            executed
        }

        fn image(&self, base: u64) -> Image {
            let mut bytes = self.program.as_os_str().as_bytes().to_vec();
            bytes.push(0);
            let mut put = |texts: &[String]| {
                let mut list = Vec::new();
                for text in texts {
                    list.push(base + bytes.len() as u64);
                    bytes.extend_from_slice(text.as_bytes());
                    bytes.push(0);
                }
                list.push(0);
                list
            };
            let lists = [put(self.argv), put(self.env)];
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            let [argv, env] = lists.map(|list| {
                let at = base + bytes.len() as u64;
                list.iter().for_each(|p| bytes.extend_from_slice(&p.to_le_bytes()));
                at
            });
            Image { bytes, argv, env }
        }
    }

    fn execute(pid: Pid, signals: &mut Vec<Signal>) -> Result<(), Failed> {
        loop {
            ptrace::cont(pid, None).map_err(no("let it execute"))?;
            match wait(pid, signals)? {
                WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_EXEC) => return Ok(()),
                WaitStatus::Stopped(_, Signal::SIGTRAP) => {
                    let rax = ptrace::getregs(pid).map_err(no("read its registers"))?.rax;
                    return Err(("execute in it", Errno::from_raw(-(rax as i64) as i32).into()));
                }
                _ => {}
            }
        }
    }

    fn wait(pid: Pid, signals: &mut Vec<Signal>) -> Result<WaitStatus, Failed> {
        let status = waitpid(pid, None).map_err(no("wait for it"))?;
        match status {
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => {
                Err(("it ended meanwhile", Errno::ESRCH.into()))
            }
            WaitStatus::Stopped(_, signal) if signal != Signal::SIGTRAP => {
                signals.push(signal);
                Ok(status)
            }
            _ => Ok(status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_of_the_user_is_left_alone() {
        // wrong: a setuid program would run the caller's code
        let status = |uids: &str, tracer: &str, seccomp: &str| {
            format!("Name:\tx\nTracerPid:\t{tracer}\nUid:\t{uids}\nSeccomp:\t{seccomp}\n")
        };
        assert_eq!(may_be_traced(&status("7\t7\t7\t7", "0", "0"), 7), Ok(()));
        for bad in [
            status("7\t0\t0\t0", "0", "0"),
            status("8\t8\t8\t8", "0", "0"),
            status("7\t7\t7\t7", "9", "0"),
            status("7\t7\t7\t7", "0", "2"),
            String::new(),
        ] {
            assert!(may_be_traced(&bad, 7).is_err(), "{bad}");
        }
    }
}
