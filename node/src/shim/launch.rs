//! From the daemon's request to a shim that stands alone.

use super::serve::{self, Clock};
use super::{LOCK_FILE, LOG_FILE, NOTES_FILE, PLAN_FILE, SHELL_FILE, SOCKET_FILE};
use crate::cgroup::EnvelopeCgroup;
use crate::envelopes::recover::recover_held;
use crate::event::Outcome;
use crate::shim::log::Log;
use crate::spec::{EnvelopeSpec, SpecError, UnitKey};
use crate::sys::{self, Forked};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::SystemTime;
use xos_base::Millis;
use xos_ssi::alone;

/// Longest plan, in bytes.
const PLAN_BYTES_MAX: u64 = 1024 * 1024;
/// How much less readily than the rest the kernel ends a shim when memory is short.
const OOM_SCORE: &[u8] = b"-500";
/// What the shim writes to the launcher when all is well.
const READY: &str = "ready";

/// What a shim is to do; written by the daemon before it starts one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The envelope.
    pub spec: EnvelopeSpec,
    /// Its cgroup, to be made by the shim.
    pub cgroup: EnvelopeCgroup,
    /// The kernel's boot id.
    pub boot: String,
}

impl Plan {
    /// Reads the plan in an envelope's folder.
    ///
    /// # Errors
    /// [`LaunchError`].
    pub fn read(dir: &Path) -> Result<Plan, LaunchError> {
        let plan: Plan = read_json(&dir.join(PLAN_FILE))?;
        plan.spec.check()?;
        Ok(plan)
    }
}

/// What a shim without a plan makes ahead; written by the daemon before it starts one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shell {
    /// Its cgroup, to be made by the shim; an envelope that it becomes keeps it.
    pub cgroup: EnvelopeCgroup,
}

impl Shell {
    /// Reads what is in a shell's folder.
    ///
    /// # Errors
    /// [`LaunchError`].
    pub fn read(dir: &Path) -> Result<Shell, LaunchError> {
        read_json(&dir.join(SHELL_FILE))
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, LaunchError> {
    let mut text = String::new();
    File::open(path)
        .and_then(|f| f.take(PLAN_BYTES_MAX).read_to_string(&mut text))
        .map_err(io_error("read the plan"))?;
    serde_json::from_str(&text).map_err(LaunchError::Plan)
}

/// What is in the folder that a shim was started for.
enum Order {
    Envelope(Box<Plan>),
    Shell(Shell),
}

impl Order {
    fn read() -> Result<Order, LaunchError> {
        let here = Path::new(".");
        if here.join(PLAN_FILE).exists() {
            return Ok(Order::Envelope(Box::new(Plan::read(here)?)));
        }
        Ok(Order::Shell(Shell::read(here)?))
    }
}

/// Why no shim stands.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The machine refused something.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The plan is not one of ours.
    #[error("the envelope's plan cannot be read: {0}")]
    Plan(serde_json::Error),
    /// The plan asks for something impossible.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A shim runs for this envelope.
    #[error("a shim runs for this envelope already: attach to it")]
    Running,
    /// The shim gave up.
    #[error("{0}")]
    Shim(String),
}

pub(super) fn io_error<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> LaunchError {
    move |e| LaunchError::Io { doing, source: e.into() }
}

/// Takes an envelope's lock, which a living shim holds. `None`: it is held.
///
/// # Errors
/// When the lock file cannot be opened.
pub fn lock(dir: &Path) -> io::Result<Option<File>> {
    alone::take(&dir.join(LOCK_FILE))
}

/// Starts the shim for an envelope's folder; see [`super::shim_main`].
pub(super) fn run(dir: &Path) -> Result<(), LaunchError> {
    sys::close_from(3).map_err(io_error("close what was inherited"))?;
    sys::ignore_pipe();
    // Relative names from here on: the socket's must be short, and a shell's folder is renamed.
    std::env::set_current_dir(dir).map_err(io_error("enter the envelope's folder"))?;
    let order = Order::read()?;
    let lock =
        lock(Path::new(".")).map_err(io_error("lock the envelope"))?.ok_or(LaunchError::Running)?;
    let (mut from_shim, to_launcher) = io::pipe().map_err(io_error("make a pipe"))?;
    match sys::fork().map_err(io_error("fork"))? {
        Forked::Parent(_) => {
            drop(to_launcher);
            let mut said = String::new();
            from_shim.read_to_string(&mut said).map_err(io_error("hear from the shim"))?;
            match said.as_str() {
                READY => Ok(()),
                "" => Err(LaunchError::Shim("the shim died while starting".into())),
                why => Err(LaunchError::Shim(why.to_owned())),
            }
        }
        Forked::Child => {
            drop(from_shim);
            let mut launcher = Some(to_launcher);
            let r = stand_alone(&order, &mut launcher);
            if let (Err(e), Some(mut to)) = (&r, launcher) {
                // The launcher repeats it to the daemon; without a launcher nobody asks.
                let told = to.write_all(e.to_string().as_bytes());
                note(told.err().map(|t| format!("{e}; not told: {t}")));
            } else if let Err(e) = &r {
                note(Some(e.to_string()));
            }
            drop(lock);
            sys::exit_now(if r.is_ok() { 0 } else { 1 })
        }
    }
}

fn stand_alone(order: &Order, launcher: &mut Option<io::PipeWriter>) -> Result<(), LaunchError> {
    nix::unistd::setsid().map_err(io_error("leave the session"))?;
    sys::default_signals();
    sys::ignore_pipe();
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    // A shell is held by the daemon at the other end of its standard input.
    let held = io::stdin().as_fd().try_clone_to_owned();
    let held = held.map_err(io_error("keep the connection to xosd"))?;
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.map_err(io_error("open /dev/null"))?;
    nix::unistd::dup2_stdin(&null).map_err(io_error("let go of standard input"))?;
    nix::unistd::dup2_stdout(&null).map_err(io_error("let go of standard output"))?;
    nix::unistd::dup2_stderr(&null).map_err(io_error("let go of standard error"))?;
    drop(null);
    rustix::thread::set_name(c"xos-shim").map_err(io_error("take a name"))?;
    if let Err(e) = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE) {
        note(Some(format!("not protected when memory is short (needs CAP_SYS_RESOURCE): {e}")));
    }
    let ready = || {
        if let Some(mut to) = launcher.take() {
            to.write_all(READY.as_bytes()).map_err(io_error("tell the launcher"))?;
        }
        Ok(())
    };
    match order {
        Order::Envelope(plan) => {
            drop(held);
            serve::run(plan, continue_log(plan)?, Clock::system(), ready)
        }
        Order::Shell(shell) => serve::run_shell(shell, held.into(), Clock::system(), ready),
    }
}

pub(super) fn begin_log() -> Result<Log, LaunchError> {
    Log::create(Path::new(LOG_FILE)).map_err(io_error("begin the envelope's log"))
}

/// A log, and how the units in it ended that were taken before.
pub(super) struct History {
    pub log: Log,
    pub ended: Vec<(UnitKey, Outcome)>,
}

/// The log of an envelope; one that rested goes on. The caller holds the lock.
fn continue_log(plan: &Plan) -> Result<History, LaunchError> {
    if !Path::new(LOG_FILE).exists() {
        return Ok(History { log: begin_log()?, ended: Vec::new() });
    }
    let now = Millis::of(SystemTime::now());
    let (before, _) = recover_held(Path::new("."), &plan.cgroup, &plan.boot, &plan.boot, now)
        .map_err(|e| LaunchError::Shim(e.to_string()))?;
    if before.torn {
        let text = "records of what it started may be missing: it cannot be opened again";
        return Err(LaunchError::Shim(text.to_owned()));
    }
    alone::remove_socket(Path::new(SOCKET_FILE)).map_err(io_error("remove an old socket"))?;
    let at = before.cursor;
    let log = Log::resume(Path::new(LOG_FILE), at.offset, at.seq);
    let log = log.map_err(io_error("go on with the envelope's log"))?;
    Ok(History { log, ended: before.ended })
}

/// Leaves a line for the administrator. What fails here has nowhere left to be said.
pub(super) fn note(text: Option<String>) {
    let Some(text) = text else { return };
    let mut how = File::options();
    let file = how.append(true).create(true).mode(0o600).open(NOTES_FILE);
    let written = file.and_then(|mut f| writeln!(f, "{} {text}", Millis::of(SystemTime::now())));
    debug_assert!(written.is_ok(), "{written:?}");
}
