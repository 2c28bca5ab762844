use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Why an operation on a testbed failed. Variants are grouped by who must act.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller has no right to make namespaces: run as root.
    #[error("a testbed needs root (it makes namespaces and cgroups); run this as root")]
    NeedsRoot,
    /// The folder cannot hold a testbed: choose or repair it.
    #[error("the folder {path} cannot hold a testbed: {reason}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: &'static str,
    },
    /// The folder holds no testbed.
    #[error("there is no testbed in {0}; `testbed list DIR` shows one that exists")]
    NoTestbed(PathBuf),
    /// The process that made the testbed in this folder still runs: end it, or use another folder.
    #[error("the testbed in {dir} belongs to process {pid}, which still runs; end it first")]
    InUse {
        /// The folder.
        dir: PathBuf,
        /// Its creator.
        pid: i32,
    },
    /// The helper program is missing: build it or name its path in the configuration.
    #[error(
        "the helper program `testbed` is not in {tried:?}; \
         run `cargo build -p xos-testbed` or set TestbedConfig::helper"
    )]
    NoHelper {
        /// Where it was looked for.
        tried: Vec<PathBuf>,
    },
    /// A name that cannot be a host's or a testbed's: choose another.
    #[error("`{0}` is no usable name: 1 to 63 of [a-z0-9.-], starting and ending with [a-z0-9]")]
    BadName(String),
    /// A prefix that cannot hold hosts: choose another.
    #[error("`{0}` is no usable prefix: write it as 10.77.0.0/16, with 8 to 29 bits")]
    BadPrefix(String),
    /// The address cannot be given to a host: choose another.
    #[error("the address {address} cannot be given to a host: {reason}")]
    BadAddress {
        /// The address asked for.
        address: Ipv4Addr,
        /// Why not.
        reason: &'static str,
    },
    /// Forwarding is only offered on loopback addresses: choose one.
    #[error("{0} is not a loopback address; a testbed is not opened to other machines")]
    NotLoopback(SocketAddr),
    /// Another program listens where the console shall be: end it.
    #[error(
        "{address} cannot be listened on: {source}; \
         `ss -ltnp 'sport = :{port}'` shows what does: end it and start again",
        port = .address.port()
    )]
    PortTaken {
        /// Where the console shall be.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A host of that name exists already: choose another name.
    #[error("the testbed has a host `{0}` already")]
    HostExists(HostLabel),
    /// No such host: check the name.
    #[error("the testbed has no host `{0}`")]
    NoSuchHost(HostLabel),
    /// The host is down: restart it first.
    #[error("the host `{0}` is down; restart it first")]
    HostDown(HostLabel),
    /// The testbed is full.
    #[error("a testbed holds at most {0} hosts")]
    Full(usize),
    /// A path in a host must be absolute: pass one from the root.
    #[error("{0} is not an absolute path; name files of a host from its root")]
    RelativePath(PathBuf),
    /// More bytes than the named limit.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What is too large.
        what: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// Something took longer than it may.
    #[error("{what} took longer than {limit:?}")]
    Deadline {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
    },
    /// A program in a host could not be started, or a host could not be set up.
    #[error("{what}: {reason}")]
    Start {
        /// What was to be started.
        what: String,
        /// What its helper said.
        reason: String,
    },
    /// A program in a host ended with another status than 0.
    #[error("`{command}` on host `{host}` ended with {exit}: {stderr}")]
    Failed {
        /// The command line.
        command: String,
        /// The host.
        host: HostLabel,
        /// How it ended.
        exit: crate::Exit,
        /// The end of what it wrote to standard error.
        stderr: String,
    },
    /// The program `ip` (iproute2) refused a change: the text says why.
    #[error("`ip` failed on `{script}`: {stderr}")]
    Network {
        /// The commands given to it.
        script: String,
        /// What it said.
        stderr: String,
    },
    /// The machine offers no usable cgroup hierarchy: mount cgroups.
    #[error("no cgroup hierarchy is mounted below /sys/fs/cgroup; mount one")]
    NoCgroups,
    /// The state file is damaged: remove the folder after checking for left-over processes.
    #[error("the state file {path} is damaged: {source}")]
    BadState {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The operating system refused something.
    #[error("{what}: {source}")]
    System {
        /// What was being done, to what.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
}

/// A host's name in an error (it may be one that is no valid [`crate::HostName`]).
pub type HostLabel = String;

/// Adds what was being done to a system error.
pub(crate) trait Context<T> {
    /// Wraps the error with `what`.
    fn context(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|error| Error::System { what: what(), source: error.into() })
    }
}
