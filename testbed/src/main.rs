//! `testbed`: a look into a testbed, and the helper program of the library.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use xos_testbed::helper::{self, Caller, Entry};
use xos_testbed::{Error, Exit, HostName, Testbed};

/// Exit status for our own errors, as of env(1) and ssh(1): not one of the program's.
const FAILED: u8 = 125;
/// Added to a signal's number in an exit status, as shells do.
const SIGNAL_BASE: i32 = 128;

/// Many hosts on one machine: look into a testbed, or end it.
#[derive(Parser)]
#[command(name = "testbed", version)]
struct Cli {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Run a program in a host, on this terminal: `testbed exec DIR HOST -- bash`
    Exec {
        /// The testbed's folder
        dir: PathBuf,
        /// The host's name
        host: HostName,
        /// The program and its arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// List the hosts: name, address, pid of the first process, state
    List {
        /// The testbed's folder
        dir: PathBuf,
    },
    /// End a testbed, running or crashed, and leave nothing but its logs
    Destroy {
        /// The testbed's folder
        dir: PathBuf,
    },
    #[command(hide = true)]
    Switch(CallerArgs),
    #[command(hide = true)]
    HostInit {
        #[command(flatten)]
        caller: CallerArgs,
        #[arg(long)]
        host: HostName,
    },
    #[command(hide = true)]
    Enter {
        #[command(flatten)]
        caller: CallerArgs,
        #[arg(long)]
        host: HostName,
        #[arg(long)]
        cgroup: Option<HostName>,
        #[arg(long)]
        cwd: PathBuf,
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    #[command(hide = true)]
    Forward {
        #[command(flatten)]
        caller: CallerArgs,
        #[arg(long)]
        listen_fd: RawFd,
        #[arg(long)]
        target: SocketAddr,
    },
}

#[derive(Args)]
struct CallerArgs {
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    status_fd: RawFd,
}

impl From<CallerArgs> for Caller {
    fn from(CallerArgs { dir, status_fd }: CallerArgs) -> Self {
        Caller { dir, status_fd }
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().action) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("testbed: {error}");
            ExitCode::from(FAILED)
        }
    }
}

fn run(action: Action) -> Result<ExitCode, Error> {
    match action {
        Action::Exec { dir, host, command } => {
            let entry = Entry { host, cgroup: None, cwd: PathBuf::from("/"), command };
            let status = match helper::exec(&dir, &entry)? {
                Exit::Code(code) => code,
                Exit::Signal(number) => SIGNAL_BASE + number,
            };
            return Ok(ExitCode::from(u8::try_from(status).unwrap_or(FAILED)));
        }
        Action::List { dir } => list(&Testbed::open(dir)?)?,
        Action::Destroy { dir } => Testbed::open(dir)?.destroy()?,
        Action::Switch(caller) => helper::switch(&caller.into())?,
        Action::HostInit { caller, host } => helper::host_init(&caller.into(), &host)?,
        Action::Enter { caller, host, cgroup, cwd, command } => {
            helper::enter(&caller.into(), &Entry { host, cgroup, cwd, command })?;
        }
        Action::Forward { caller, listen_fd, target } => {
            helper::forward(&caller.into(), listen_fd, target)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(testbed: &Testbed) -> Result<(), Error> {
    println!("{:<24} {:<15} {:>8} STATE", "HOST", "ADDRESS", "PID");
    for host in testbed.hosts()? {
        let (pid, state) = match (host.init, host.cut) {
            (None, _) => ("-".to_owned(), "down"),
            (Some(pid), true) => (pid.to_string(), "cut"),
            (Some(pid), false) => (pid.to_string(), "up"),
        };
        println!("{:<24} {:<15} {pid:>8} {state}", host.name, host.address);
    }
    Ok(())
}
