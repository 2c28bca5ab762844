use std::fs::DirBuilder;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::process::{Signal, geteuid};

use crate::cgroup::Tree;
use crate::error::Context as _;
use crate::identity::{ProcessId, send, wait_killed};
use crate::launch::{Call, Lifeline, find_helper};
use crate::state::{self, Forward, HostState, Lock, State};
use crate::{Error, Host, HostName, HostSpec, Result, TestbedConfig, network, sys};

/// Most hosts of a testbed: ports of the kernel's bridge, less some for later use.
const HOSTS_MAX: usize = 1000;
/// Folder, in the testbed's, of the hosts' files.
pub(crate) const HOSTS_DIR: &str = "hosts";
/// Folder, in the testbed's, of logs; it stays when the testbed is destroyed.
pub(crate) const LOGS_DIR: &str = "logs";
/// In it, says what the folder is.
const LOGS_NOTE_FILE: &str = "README";
const LOGS_NOTE: &str = "What the programs on the hosts of a testbed wrote, by host.\n";

/// Many hosts on one machine. See the crate's description.
///
/// Dropping the value that [`Testbed::create`] answered destroys the testbed unless it is detached;
/// dropping one from [`Testbed::open`] does nothing.
#[derive(Debug)]
pub struct Testbed {
    dir: PathBuf,
    owned: bool,
    lifeline: Option<Arc<Lifeline>>,
}

/// What [`Testbed::hosts`] says about a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostStatus {
    /// Its name.
    pub name: HostName,
    /// Its address.
    pub address: Ipv4Addr,
    /// The pid, on the machine, of its first process; `None` while it is down.
    pub init: Option<i32>,
    /// Whether its network is cut.
    pub cut: bool,
}

impl Testbed {
    /// Makes a testbed without hosts. What an earlier one left in the same folder, running or not,
    /// is destroyed first, unless the process that created it still runs.
    ///
    /// # Errors
    /// [`Error::NeedsRoot`], [`Error::Folder`], [`Error::InUse`], [`Error::NoHelper`],
    /// [`Error::NoCgroups`], or what the system refused; nothing is left behind then.
    pub fn create(config: TestbedConfig) -> Result<Self> {
        if !geteuid().is_root() {
            return Err(Error::NeedsRoot);
        }
        let helper = find_helper(config.helper.as_deref())?;
        let dir = prepare_folder(&config.dir)?;
        let mut lock = Lock::take(&dir)?;
        if let Some(old) = State::load_if_any(&dir)? {
            if old.creator.is_alive()? {
                return Err(Error::InUse { dir, pid: old.creator.pid });
            }
            tear_down(&dir, &old)?;
            // The lock's file went with the rest.
            drop(lock);
            lock = Lock::take(&dir)?;
        }
        note_logs(&dir.join(LOGS_DIR))?;
        let cgroups = Tree::plan(&config.name, &dir)?;
        let mut state = State::new(config.name, config.prefix, helper, config.shares, cgroups)?;
        // From here on a crash of this process leaves a testbed that can be opened and destroyed.
        state.save(&dir)?;
        let lifeline = if config.detach { None } else { Some(Arc::new(Lifeline::new()?)) };
        let testbed = Testbed { dir, owned: !config.detach, lifeline };
        let started = testbed.start(&mut state);
        let answer = match started {
            Ok(()) => Ok(testbed),
            Err(error) => {
                testbed.abandon(&state);
                Err(error)
            }
        };
        drop(lock);
        answer
    }

    fn start(&self, state: &mut State) -> Result<()> {
        // A crash may have left processes that no state file names.
        state.cgroups.sweep()?;
        state.cgroups.remove()?;
        state.cgroups.create()?;
        let mut call = Call::new(&state.helper, "switch", &self.dir)?;
        call.command.stdin(Lifeline::stdin(self.lifeline.as_deref())?);
        let process = call.run(|| "starting the switch".to_owned())?.process?;
        state.switch = Some(process);
        state.save(&self.dir)?;
        network::set_up_switch(&network::switch(state)?, state.prefix)
    }

    /// Removes a testbed that could not be made; the first error is the one to report.
    fn abandon(mut self, state: &State) {
        self.owned = false;
        if let Err(error) = tear_down(&self.dir, state) {
            tracing::error!(dir = %self.dir.display(), %error, "testbed not removed");
        }
    }

    /// An existing testbed, running or crashed, made by this or another process.
    ///
    /// # Errors
    /// [`Error::NoTestbed`], [`Error::BadState`], or [`Error::Folder`] when the state is not
    /// root's.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let dir = match dir.canonicalize() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NoTestbed(dir.to_owned()));
            }
            other => other.context(|| format!("finding {}", dir.display()))?,
        };
        State::load(&dir)?;
        Ok(Testbed { dir, owned: false, lifeline: None })
    }

    /// Ends what runs of a testbed called `name` whose folder was removed under it, state and all.
    /// Whether there was anything.
    ///
    /// # Errors
    /// When something does not end or go.
    pub fn end_lost(name: &HostName, dir: impl AsRef<Path>) -> Result<bool> {
        let dir = dir.as_ref();
        let whole = || format!("finding {}", dir.display());
        let dir = match dir.canonicalize() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::path::absolute(dir).context(whole)?
            }
            other => other.context(whole)?,
        };
        let cgroups = Tree::plan(name, &dir)?;
        if !cgroups.is_there() {
            return Ok(false);
        }
        cgroups.sweep()?;
        cgroups.remove()?;
        Ok(true)
    }

    /// Removes the logs that a testbed left in its folder. Whether there were any.
    ///
    /// # Errors
    /// When they cannot be removed.
    pub fn remove_logs(dir: impl AsRef<Path>) -> Result<bool> {
        let logs = dir.as_ref().join(LOGS_DIR);
        // No other folder of this name is taken for one of ours.
        if !logs.join(LOGS_NOTE_FILE).exists() {
            return Ok(false);
        }
        remove_folder(&logs)?;
        Ok(true)
    }

    /// The testbed's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Adds a host and starts it. All hosts know its name at once.
    ///
    /// # Errors
    /// [`Error::HostExists`], [`Error::BadAddress`], [`Error::Full`], [`Error::Start`], or what the
    /// system refused; the host does not exist then.
    pub fn add_host(&self, spec: HostSpec) -> Result<Host> {
        let _lock = Lock::take(&self.dir)?;
        let mut state = State::load(&self.dir)?;
        let host = admit(&state, spec)?;
        let handle = self.handle(&host.name);
        state.hosts.push(host);
        state.save(&self.dir)?;
        if let Err(error) = handle.start(&mut state).and_then(|()| self.tell_hosts(&state)) {
            if let Err(second) = self.forget_host(&mut state, &handle) {
                tracing::error!(host = %handle.name(), error = %second, "host not removed");
            }
            return Err(error);
        }
        Ok(handle)
    }

    fn forget_host(&self, state: &mut State, host: &Host) -> Result<()> {
        host.stop(state)?;
        state.hosts.retain(|other| other.name != *host.name());
        state.save(&self.dir)?;
        remove_folder(&self.dir.join(HOSTS_DIR).join(host.name().as_str()))
    }

    /// Brings /etc/hosts of all running hosts up to date.
    fn tell_hosts(&self, state: &State) -> Result<()> {
        for host in state.hosts.iter().filter(|host| host.init.is_some()) {
            match self.handle(&host.name).update_hosts_file(state) {
                // It may have crashed; it reads the list when it restarts.
                Ok(()) | Err(Error::HostDown(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The host of this name, running or not.
    ///
    /// # Errors
    /// [`Error::NoSuchHost`], or the testbed is gone.
    pub fn host(&self, name: &str) -> Result<Host> {
        let state = State::load(&self.dir)?;
        let found = state.hosts.iter().find(|host| host.name.as_str() == name);
        found.map(|host| self.handle(&host.name)).ok_or_else(|| Error::NoSuchHost(name.to_owned()))
    }

    /// All hosts, in the order in which they were added.
    ///
    /// # Errors
    /// When the testbed is gone.
    pub fn hosts(&self) -> Result<Vec<HostStatus>> {
        let describe = |host: HostState| {
            let alive =
                host.init.map(|init| init.is_alive().map(|alive| alive.then_some(init.pid)));
            let init = alive.transpose()?.flatten();
            Ok(HostStatus { name: host.name, address: host.address, init, cut: host.cut })
        };
        State::load(&self.dir)?.hosts.into_iter().map(describe).collect()
    }

    fn handle(&self, name: &HostName) -> Host {
        Host::new(self.dir.clone(), name.clone(), self.lifeline.clone())
    }

    /// Forwards connections to `local`, a loopback address of the machine (port 0: any free one),
    /// to `port` of a host; answers the address in use. Lives as long as the testbed, also over
    /// restarts of the host, which sees the switch as the peer.
    ///
    /// # Errors
    /// [`Error::NotLoopback`], [`Error::NoSuchHost`], or the address is taken.
    pub fn forward(&self, local: SocketAddr, host: &str, port: u16) -> Result<SocketAddr> {
        if !local.ip().is_loopback() {
            return Err(Error::NotLoopback(local));
        }
        let name: HostName = host.parse()?;
        let _lock = Lock::take(&self.dir)?;
        let mut state = State::load(&self.dir)?;
        let target = SocketAddr::from((state.host(&name)?.address, port));
        let what = || format!("listening on {local}");
        let listener = TcpListener::bind(local).context(what)?;
        let local = listener.local_addr().context(what)?;
        let mut call = Call::new(&state.helper, "forward", &self.dir)?;
        let number = sys::inherit(&mut call.command, listener.into());
        call.arg("--listen-fd").arg(number.to_string()).arg("--target").arg(target.to_string());
        call.command.stdin(Lifeline::stdin(self.lifeline.as_deref())?);
        let process = call.run(|| format!("forwarding {local} to {target}"))?.process?;
        state.forwards.push(Forward { local, host: name, port, process });
        state.save(&self.dir)?;
        Ok(local)
    }

    /// Ends everything and removes every process, namespace, cgroup and file of the testbed, except
    /// the logs in its folder. May be repeated after an error.
    ///
    /// # Errors
    /// When something does not end or go; the state file stays then.
    pub fn destroy(mut self) -> Result<()> {
        self.owned = false;
        destroy(&self.dir)
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        if !self.owned {
            return;
        }
        match destroy(&self.dir) {
            Ok(()) | Err(Error::NoTestbed(_)) => {}
            Err(error) => {
                tracing::error!(dir = %self.dir.display(), %error, "testbed not destroyed");
            }
        }
    }
}

fn destroy(dir: &Path) -> Result<()> {
    // Looked at first: the lock would make a file in a folder that is no testbed's.
    State::load(dir)?;
    let _lock = Lock::take(dir)?;
    tear_down(dir, &State::load(dir)?)
}

/// Ends and removes all of a testbed. The caller holds its lock.
fn tear_down(dir: &Path, state: &State) -> Result<()> {
    let mut killed = Vec::new();
    for process in state.processes() {
        if let Some(pidfd) = process.open()? {
            send(&pidfd, Signal::KILL)?;
            killed.push((process, pidfd));
        }
    }
    for host in &state.hosts {
        state.cgroups.thaw_host(&host.name)?;
    }
    for (ProcessId { pid, .. }, pidfd) in &killed {
        wait_killed(pidfd, || format!("the end of process {pid}"))?;
    }
    state.cgroups.sweep()?;
    state.cgroups.remove()?;
    remove_folder(&dir.join(HOSTS_DIR))?;
    state::remove(dir)
}

fn remove_folder(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.context(|| format!("removing {}", path.display())),
    }
}

/// Makes the folder, or checks that an existing one is fit.
fn prepare_folder(path: &Path) -> Result<PathBuf> {
    let what = || format!("making the folder {}", path.display());
    let unfit = |reason| Err(Error::Folder { path: path.to_owned(), reason });
    DirBuilder::new().recursive(true).mode(0o700).create(path).context(what)?;
    let path = path.canonicalize().context(what)?;
    let meta = path.metadata().context(what)?;
    if meta.uid() != geteuid().as_raw() || meta.mode() & 0o022 != 0 {
        return unfit("others may write to it; make it root's own with mode 0700");
    }
    let known = ["state.json", "state.json.new", "lock"];
    let has_state = path.join(known[0]).exists();
    let logs = path.join(LOGS_DIR).join(LOGS_NOTE_FILE).exists();
    for entry in path.read_dir().context(what)? {
        let name = entry.context(what)?.file_name();
        let known = known.iter().any(|&one| name == one) || (logs && name == LOGS_DIR);
        if !has_state && !known {
            return unfit("it holds other files; name an empty or a new one");
        }
    }
    Ok(path)
}

/// Makes the folder for logs, known as a testbed's.
fn note_logs(logs: &Path) -> Result<()> {
    let what = || format!("making the folder {}", logs.display());
    DirBuilder::new().recursive(true).mode(0o700).create(logs).context(what)?;
    std::fs::write(logs.join(LOGS_NOTE_FILE), LOGS_NOTE).context(what)
}

/// The host that `spec` asks for, if the testbed can take it.
fn admit(state: &State, spec: HostSpec) -> Result<HostState> {
    let HostSpec { name, address } = spec;
    if state.hosts.iter().any(|host| host.name == name) {
        return Err(Error::HostExists(name.to_string()));
    }
    if state.hosts.len() >= HOSTS_MAX {
        return Err(Error::Full(HOSTS_MAX));
    }
    let taken = |wanted: Ipv4Addr| state.hosts.iter().any(|host| host.address == wanted);
    let address = match address {
        Some(address) => {
            let taken = taken(address).then_some("another host has it");
            if let Some(reason) = state.prefix.objection(address).or(taken) {
                return Err(Error::BadAddress { address, reason });
            }
            address
        }
        None => (2..)
            .map_while(|number| state.prefix.host(number))
            .find(|&address| !taken(address))
            .ok_or(Error::Full(state.hosts.len()))?,
    };
    let port = state.hosts.iter().map(|host| host.port + 1).max().unwrap_or(1);
    Ok(HostState { name, port, address, init: None, cut: false })
}
