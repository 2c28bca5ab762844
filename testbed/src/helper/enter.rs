use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sched::setns;
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, setsid};
use rustix::process::{Signal, set_parent_process_death_signal};

use super::{Caller, OF_A_HOST, leave_behind, tell};
use crate::cgroup::{Entrance, INIT};
use crate::command::ENVIRONMENT;
use crate::error::Context as _;
use crate::host::open_init;
use crate::state::State;
use crate::status::{Message, StatusWriter};
use crate::sys::{self, Side, SingleThread};
use crate::{Error, Exit, HostName, Result};

/// A program to run in a host.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The host.
    pub host: HostName,
    /// The cgroup of its own, if it gets one.
    pub cgroup: Option<HostName>,
    /// The working folder in the host.
    pub cwd: PathBuf,
    /// The program and its arguments.
    pub command: Vec<OsString>,
}

/// `testbed enter`: starts a program in a host, leaves a process behind that waits for its end and
/// reports it.
///
/// # Errors
/// What the system refused; the caller has been told.
pub fn enter(caller: &Caller, entry: &Entry) -> Result<()> {
    caller.serve(|status, state| {
        state.cgroups.join_tools()?;
        // The parent's answer is not the program's pid, which only the process left behind knows.
        let mut quiet = StatusWriter::new(null()?.into());
        if !leave_behind(&mut quiet)? {
            return Ok(());
        }
        let gate = Gate::open(&state, entry)?;
        let (pid, outcome) = gate.start(entry, Terminal::None)?;
        tell(status, &Message::Pid(pid.as_raw()))?;
        if let Some(reason) = outcome.failure()? {
            return Err(Error::Start { what: first(entry), reason });
        }
        tell(status, &Message::Ready)?;
        release_stdio()?;
        let message = match wait(pid)? {
            Exit::Code(code) => Message::Exit(code),
            Exit::Signal(number) => Message::Signal(number),
        };
        tell(status, &message)
    })
}

/// `testbed exec`: runs a program in a host on the caller's terminal and waits for its end.
///
/// # Errors
/// [`Error::NoSuchHost`], [`Error::HostDown`], [`Error::Start`], or what the system refused.
pub fn exec(dir: &Path, entry: &Entry) -> Result<Exit> {
    let state = State::load(dir)?;
    let gate = Gate::open(&state, entry)?;
    let (pid, outcome) = gate.start(entry, Terminal::Shared)?;
    if let Some(reason) = outcome.failure()? {
        return Err(Error::Start { what: first(entry), reason });
    }
    sys::ignore_keyboard().context(|| "ignoring the keyboard's signals".to_owned())?;
    wait(pid)
}

fn first(entry: &Entry) -> String {
    let program = entry.command.first().map(|word| word.to_string_lossy().into_owned());
    format!("starting {} on {}", program.unwrap_or_default(), entry.host)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Terminal {
    /// The program leads a session without a terminal.
    None,
    /// The program is in the caller's session and ends with the caller.
    Shared,
}

/// The way into a host, open.
struct Gate {
    init: OwnedFd,
    entrance: Entrance,
}

impl Gate {
    fn open(state: &State, entry: &Entry) -> Result<Gate> {
        let host = state.host(&entry.host)?;
        let init = host.init.ok_or_else(|| Error::HostDown(entry.host.to_string()))?;
        let leaf = entry.cgroup.as_ref().map_or(INIT, HostName::as_str);
        let entrance = state.cgroups.entrance(&entry.host, leaf)?;
        Ok(Gate { init: open_init(init, &entry.host)?, entrance })
    }

    /// Moves this process into the host's namespaces and starts the program there.
    fn start(self, entry: &Entry, terminal: Terminal) -> Result<(Pid, Outcome)> {
        let proof = SingleThread::check().context(|| "starting a process".to_owned())?;
        setns(&self.init, OF_A_HOST).context(|| format!("entering {}", entry.host))?;
        let (read, write) = std::io::pipe().context(|| "making a pipe".to_owned())?;
        match sys::fork(&proof).context(|| "starting a process".to_owned())? {
            Side::Parent(pid) => Ok((Pid::from_raw(pid), Outcome(File::from(OwnedFd::from(read))))),
            Side::Child => {
                drop(read);
                let mut answer = File::from(OwnedFd::from(write));
                let Err(error) = self.become_program(entry, terminal);
                // The parent may be gone; then there is nobody to tell.
                let told = answer.write_all(error.to_string().as_bytes());
                std::process::exit(if told.is_ok() { 127 } else { 126 });
            }
        }
    }

    fn become_program(
        &self,
        entry: &Entry,
        terminal: Terminal,
    ) -> Result<std::convert::Infallible> {
        self.entrance.join()?;
        match terminal {
            Terminal::None => {
                setsid().context(|| "starting a session".to_owned())?;
            }
            Terminal::Shared => set_parent_process_death_signal(Some(Signal::HUP))
                .context(|| "tying the program to this one".to_owned())?,
        }
        let (program, args) = entry.command.split_first().ok_or_else(|| Error::Start {
            what: first(entry),
            reason: "no program is named".to_owned(),
        })?;
        umask(Mode::from_bits_truncate(0o022));
        let mut command = Command::new(program);
        command.args(args).current_dir(&entry.cwd);
        if terminal == Terminal::Shared {
            command.env_clear().envs(ENVIRONMENT);
            command.envs(std::env::vars_os().filter(|(name, _)| name == "TERM"));
        }
        Err(command.exec()).context(|| format!("running {}", program.to_string_lossy()))
    }
}

/// Tells whether the program was started: the pipe closes by itself when it was.
struct Outcome(File);

impl Outcome {
    fn failure(mut self) -> Result<Option<String>> {
        let mut text = String::new();
        self.0.read_to_string(&mut text).context(|| "learning of the start".to_owned())?;
        Ok((!text.is_empty()).then_some(text))
    }
}

fn wait(pid: Pid) -> Result<Exit> {
    loop {
        match waitpid(pid, None) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(Exit::Code(code)),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(Exit::Signal(signal as i32)),
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error).context(|| "waiting for the program".to_owned()),
        }
    }
}

fn null() -> Result<File> {
    File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .context(|| "opening /dev/null".to_owned())
}

/// Lets go of the program's pipes, so that their readers see its end.
fn release_stdio() -> Result<()> {
    let null = null()?;
    dup2_stdin(&null)
        .and_then(|()| dup2_stdout(&null))
        .and_then(|()| dup2_stderr(&null))
        .context(|| "letting go of standard input and output".to_owned())
}
