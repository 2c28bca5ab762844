use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, PipeReader, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio as StdStdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::error::Context as _;
use crate::host::RUN_LIMIT;
use crate::identity::send;
use crate::launch::{Call, open_log};
use crate::state::State;
use crate::status::{Message, StatusReader};
use crate::testbed::LOGS_DIR;
use crate::{Error, HostName, Result};

/// Most bytes kept of each of a program's outputs.
const OUTPUT_SIZE_MAX: u64 = 64 << 20;
/// Bytes of standard error shown in [`Error::Failed`].
const STDERR_SHOWN_MAX: usize = 2000;
/// The environment of programs; [`Cmd::env`] adds to it.
pub(crate) const ENVIRONMENT: [(&str, &str); 6] = [
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/root"),
    ("USER", "root"),
    ("LOGNAME", "root"),
    ("SHELL", "/bin/bash"),
    ("LANG", "C.UTF-8"),
];

/// Where a spawned program's standard output and error go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stdio {
    /// To `logs/<host>/<program>.log` in the testbed's folder.
    #[default]
    Log,
    /// To `logs/<host>/<name>.log`.
    LogAs(HostName),
    /// To pipes: [`Process::stdout`], [`Process::stderr`].
    Piped,
}

/// A program to start in a host, with root's rights and a fresh environment.
#[derive(Clone, Debug)]
pub struct Cmd {
    program: OsString,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    cwd: PathBuf,
    stdin: Vec<u8>,
    stdio: Stdio,
    cgroup: Option<HostName>,
    limit: Duration,
}

impl Cmd {
    /// `program`, a path in the host or a name looked up in its PATH.
    pub fn new(program: impl Into<OsString>) -> Self {
        Cmd {
            program: program.into(),
            args: Vec::new(),
            envs: Vec::new(),
            cwd: PathBuf::from("/"),
            stdin: Vec::new(),
            stdio: Stdio::default(),
            cgroup: None,
            limit: RUN_LIMIT,
        }
    }

    /// `bash -c script`.
    pub fn shell(script: impl Into<OsString>) -> Self {
        Cmd::new("bash").arg("-c").arg(script)
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of the environment.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.envs.push((name.into(), value.into()));
        self
    }

    /// The working folder, a path in the host; by default `/`.
    pub fn cwd(mut self, path: impl Into<PathBuf>) -> Self {
        self.cwd = path.into();
        self
    }

    /// What the program reads from its standard input; by default nothing.
    pub fn stdin(mut self, content: impl Into<Vec<u8>>) -> Self {
        self.stdin = content.into();
        self
    }

    /// Where the outputs of a spawned program go; [`crate::Host::run`] collects them always.
    pub fn stdio(mut self, stdio: Stdio) -> Self {
        self.stdio = stdio;
        self
    }

    /// Starts it in a cgroup of its own, `/<name>` in the host's view, as an init system does with
    /// a service; otherwise it runs in `/init` with the host's first process.
    pub fn own_cgroup(mut self, name: HostName) -> Self {
        self.cgroup = Some(name);
        self
    }

    /// How long [`crate::Host::run`] may take; by default 60 s.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Its command line, for people.
    fn line(&self) -> String {
        let words = std::iter::once(&self.program).chain(&self.args);
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    fn log_name(&self) -> String {
        match &self.stdio {
            Stdio::LogAs(name) => name.to_string(),
            _ => {
                let name = Path::new(&self.program).file_name().unwrap_or(&self.program);
                name.to_string_lossy().into_owned()
            }
        }
    }
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// Whether it ended with status 0.
    pub fn is_success(self) -> bool {
        self == Exit::Code(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(out, "status {code}"),
            Exit::Signal(number) => write!(out, "signal {number}"),
        }
    }
}

/// What [`crate::Host::run`] answers.
#[derive(Clone, Debug)]
pub struct Output {
    /// How the program ended.
    pub exit: Exit,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
    host: HostName,
    line: String,
}

impl Output {
    /// Standard output as text, if the program ended with status 0.
    ///
    /// # Errors
    /// [`Error::Failed`] otherwise.
    pub fn ok(self) -> Result<String> {
        if self.exit.is_success() {
            return Ok(String::from_utf8_lossy(&self.stdout).into_owned());
        }
        let tail = &self.stderr[self.stderr.len().saturating_sub(STDERR_SHOWN_MAX)..];
        Err(Error::Failed {
            command: self.line,
            host: self.host.to_string(),
            exit: self.exit,
            stderr: String::from_utf8_lossy(tail).trim().to_owned(),
        })
    }
}

/// A program started with [`crate::Host::spawn`]. Dropping this does not end it.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    pidfd: Option<OwnedFd>,
    status: StatusReader,
    exit: Option<Exit>,
    what: String,
    log: Option<PathBuf>,
    /// Its standard output, with [`Stdio::Piped`].
    pub stdout: Option<PipeReader>,
    /// Its standard error, with [`Stdio::Piped`].
    pub stderr: Option<PipeReader>,
}

impl Process {
    /// Its pid on the machine (in the host it has another one).
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Its log on the machine, unless its output is piped.
    pub fn log(&self) -> Option<&Path> {
        self.log.as_deref()
    }

    /// Sends a signal; does nothing when the program has ended.
    ///
    /// # Errors
    /// What the system refused.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        match &self.pidfd {
            Some(pidfd) => send(pidfd, signal).map(|_| ()),
            None => Ok(()),
        }
    }

    /// How it ended, or `None` while it runs.
    ///
    /// # Errors
    /// When its end cannot be learned.
    pub fn try_wait(&mut self) -> Result<Option<Exit>> {
        self.wait_until(Instant::now())
    }

    /// Waits for its end, at most `limit`.
    ///
    /// # Errors
    /// [`Error::Deadline`]; the program goes on then.
    pub fn wait(&mut self, limit: Duration) -> Result<Exit> {
        let exit = self.wait_until(Instant::now() + limit)?;
        exit.ok_or_else(|| Error::Deadline { what: self.what.clone(), limit })
    }

    fn wait_until(&mut self, deadline: Instant) -> Result<Option<Exit>> {
        if self.exit.is_none() {
            self.exit = match self.status.next(Some(deadline))? {
                None => None,
                Some(Message::Exit(code)) => Some(Exit::Code(code)),
                Some(Message::Signal(number)) => Some(Exit::Signal(number)),
                Some(other) => {
                    let reason = format!("unexpected answer {other:?}");
                    return Err(Error::Start { what: self.what.clone(), reason });
                }
            };
        }
        Ok(self.exit)
    }
}

/// Starts `cmd` in a host, with its outputs where the command says.
pub(crate) fn spawn(dir: &Path, host: &HostName, cmd: &Cmd) -> Result<Process> {
    if cmd.stdio == Stdio::Piped {
        let pipe = || std::io::pipe().context(|| "making a pipe".to_owned());
        let ((out, out_end), (err, err_end)) = (pipe()?, pipe()?);
        let mut process = start(dir, host, cmd, out_end.into(), err_end.into())?;
        (process.stdout, process.stderr) = (Some(out), Some(err));
        return Ok(process);
    }
    let folder = dir.join(LOGS_DIR).join(host.as_str());
    let path = folder.join(format!("{}.log", cmd.log_name()));
    let log = open_log(&path)?;
    let second = log.try_clone().context(|| "copying a log".to_owned())?;
    let mut process = start(dir, host, cmd, log.into(), second.into())?;
    process.log = Some(path);
    Ok(process)
}

/// Runs `cmd` in a host to its end.
pub(crate) fn run(dir: &Path, host: &HostName, cmd: &Cmd) -> Result<Output> {
    // Files, not pipes: a daemon that the program leaves behind keeps pipes open.
    let (out, err) = (scratch(dir)?, scratch(dir)?);
    let copy = |file: &File| file.try_clone().context(|| "copying a file".to_owned());
    let mut process = start(dir, host, cmd, copy(&out)?.into(), copy(&err)?.into())?;
    let exit = match process.wait(cmd.limit) {
        Err(error @ Error::Deadline { .. }) => {
            process.signal(Signal::KILL)?;
            return Err(error);
        }
        other => other?,
    };
    let line = cmd.line();
    let (stdout, stderr) = (collect(out, &line)?, collect(err, &line)?);
    Ok(Output { exit, stdout, stderr, host: host.clone(), line })
}

fn start(
    dir: &Path,
    host: &HostName,
    cmd: &Cmd,
    stdout: StdStdio,
    stderr: StdStdio,
) -> Result<Process> {
    let state = State::load(dir)?;
    let down = || Error::HostDown(host.to_string());
    if !state.host(host)?.init.ok_or_else(down)?.is_alive()? {
        return Err(down());
    }
    let what = format!("`{}` on {host}", cmd.line());
    let mut call = Call::new(&state.helper, "enter", dir)?;
    call.arg("--host").arg(host.as_str()).arg("--cwd").arg(&cmd.cwd);
    if let Some(name) = &cmd.cgroup {
        call.arg("--cgroup").arg(name.as_str());
    }
    call.arg("--").arg(&cmd.program);
    call.command.args(&cmd.args);
    call.command.envs(ENVIRONMENT).envs(cmd.envs.iter().map(|(name, value)| (name, value)));
    call.command.stdout(stdout).stderr(stderr);
    if !cmd.stdin.is_empty() {
        let mut file = scratch(dir)?;
        file.write_all(&cmd.stdin)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .context(|| format!("writing the input of {what}"))?;
        call.command.stdin(file);
    }
    let started = call.run(|| what.clone())?;
    let (pid, status) = (started.pid, started.status);
    // A program may end before it is looked at: then there is nothing to send signals to.
    let pidfd = match started.process {
        Ok(process) => process.open()?,
        Err(Error::System { source, .. }) if source.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    Ok(Process { pid, pidfd, status, exit: None, what, log: None, stdout: None, stderr: None })
}

/// A nameless file for a program's input or output.
fn scratch(dir: &Path) -> Result<File> {
    tempfile::tempfile_in(dir).context(|| format!("making a file in {}", dir.display()))
}

fn collect(mut file: File, line: &str) -> Result<Vec<u8>> {
    let what = || format!("reading the output of `{line}`");
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).context(what)?;
    file.take(OUTPUT_SIZE_MAX + 1).read_to_end(&mut bytes).context(what)?;
    if bytes.len() as u64 > OUTPUT_SIZE_MAX {
        return Err(Error::TooLarge {
            what: format!("the output of `{line}`"),
            limit: OUTPUT_SIZE_MAX,
        });
    }
    Ok(bytes)
}
