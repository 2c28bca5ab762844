//! The last steps of a process that becomes a person's program: it is limited, gives up root, and
//! is replaced.
//!
//! Once an [`Exec`] is made, nothing here takes memory from the heap: the init of a shim makes some
//! processes in its own memory.

use crate::sys::{self, Texts};
use nix::errno::Errno;
use nix::unistd::{Gid, Uid};
use rustix::process::{Resource, Rlimit};
use std::ffi::CString;

/// Where programs are looked for when the environment has no `PATH`.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";

/// How much more readily than the rest the kernel ends a program of a cell when memory is short; see
/// proc_pid_oom_score_adj(5).
pub(crate) const OOM_SCORE: &str = "300";

/// Limits this process, never above what holds already; see setrlimit(2). `None` is no limit.
///
/// # Errors
/// The kernel's error.
pub fn limit(resource: Resource, soft: Option<u64>, hard: Option<u64>) -> Result<(), Errno> {
    let least = |a: Option<u64>, b: Option<u64>| match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    let maximum = least(hard, rustix::process::getrlimit(resource).maximum);
    let pair = Rlimit { current: least(soft, maximum), maximum };
    rustix::process::setrlimit(resource, pair).map_err(from_rustix)
}

/// Gives up root for good: groups, group, user, and proof that root cannot come back. From then on
/// no program that is run has more rights either.
///
/// # Errors
/// The kernel's error; `EPERM` when anything of root is left.
pub fn drop_to(uid: u32, gid: u32, groups: &[Gid]) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    nix::unistd::setgroups(groups)?;
    nix::unistd::setresgid(gid, gid, gid)?;
    nix::unistd::setresuid(uid, uid, uid)?;
    rustix::thread::set_no_new_privs(true).map_err(from_rustix)?;
    let now_uid = nix::unistd::getresuid()?;
    let now_gid = nix::unistd::getresgid()?;
    let caps = rustix::thread::capabilities(None).map_err(from_rustix)?;
    let dropped = [now_uid.real, now_uid.effective, now_uid.saved].iter().all(|u| *u == uid)
        && [now_gid.real, now_gid.effective, now_gid.saved].iter().all(|g| *g == gid)
        && caps.effective.is_empty()
        && caps.permitted.is_empty()
        && nix::unistd::setuid(Uid::from_raw(0)).is_err();
    if dropped { Ok(()) } else { Err(Errno::EPERM) }
}

/// What execve(2) is given for a program.
pub struct Exec {
    /// Where the program may be, in order.
    programs: Vec<CString>,
    /// Whether it is looked for in `PATH`.
    searched: bool,
    argv: Texts,
    env: Texts,
}

impl Exec {
    /// For a program, first of its arguments, and its whole environment. A name without a slash is
    /// looked for in the environment's `PATH`.
    ///
    /// # Errors
    /// `EINVAL` for texts with a zero byte.
    pub fn new(argv: &[String], env: &[(String, String)]) -> Result<Exec, Errno> {
        let text = |s: &str| CString::new(s).map_err(|_| Errno::EINVAL);
        let arguments: Result<_, _> = argv.iter().map(|a| text(a)).collect();
        let variables: Result<_, _> = env.iter().map(|(n, v)| text(&format!("{n}={v}"))).collect();
        let name = argv.first().map_or("", String::as_str);
        let programs = if name.contains('/') {
            vec![text(name)?]
        } else {
            let dirs = search_path(env).split(':').map(|d| if d.is_empty() { "." } else { d });
            dirs.map(|d| text(&format!("{d}/{name}"))).collect::<Result<_, _>>()?
        };
        Ok(Exec {
            programs,
            searched: !name.contains('/'),
            argv: Texts::new(arguments?),
            env: Texts::new(variables?),
        })
    }

    /// Where the program may be, in order.
    pub fn programs(&self) -> &[CString] {
        &self.programs
    }

    /// Replaces this process; returns why not. As execvp(3), without its shell for files that are
    /// no program.
    pub fn run(&self) -> Errno {
        let mut worst = Errno::ENOENT;
        for program in &self.programs {
            match sys::exec(program, &self.argv, &self.env) {
                Errno::ENOENT | Errno::ENOTDIR if self.searched => {}
                Errno::EACCES if self.searched => worst = Errno::EACCES,
                other => return other,
            }
        }
        worst
    }
}

/// Where programs are looked for with an environment.
pub fn search_path(env: &[(String, String)]) -> &str {
    env.iter().find(|(n, _)| n == "PATH").map_or(PATH_DEFAULT, |(_, v)| v)
}

fn from_rustix(e: rustix::io::Errno) -> Errno {
    Errno::from_raw(e.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(argv: &str, path: Option<&str>) -> Vec<String> {
        let env: Vec<_> = path.map(|p| ("PATH".to_owned(), p.to_owned())).into_iter().collect();
        let exec = Exec::new(&[argv.to_owned()], &env).unwrap();
        exec.programs().iter().map(|p| p.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_name_is_looked_for_and_a_path_is_not() {
        // wrong: another program than the one that is meant would run
        assert_eq!(places("/bin/true", Some("/x")), ["/bin/true"]);
        assert_eq!(places("bin/true", Some("/x")), ["bin/true"]);
        assert_eq!(places("true", Some("/x::/y")), ["/x/true", "./true", "/y/true"]);
        assert_eq!(places("true", None), ["/usr/local/bin/true", "/usr/bin/true", "/bin/true"]);
        let zero = Exec::new(&["true".to_owned(), "a\0b".to_owned()], &[]);
        assert_eq!(zero.err(), Some(Errno::EINVAL));
    }

    #[test]
    fn what_cannot_be_run_says_why() {
        // wrong: a file without permission would be reported as missing
        let env = [("PATH".to_owned(), "/no/such/folder:/etc".to_owned())];
        let run = |name: &str| Exec::new(&[name.to_owned()], &env).unwrap().run();
        assert_eq!((run("no-such-program"), run("passwd")), (Errno::ENOENT, Errno::EACCES));
        assert_eq!(run("/no/such/folder/program"), Errno::ENOENT);
    }
}
