use std::fs::File;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat2};
use rustix::io::Errno;
use rustix::process::Signal;

use crate::command::{self, Cmd, Output, Process};
use crate::error::Context as _;
use crate::identity::{ProcessId, send, wait_killed};
use crate::launch::{Call, Lifeline};
use crate::state::{Lock, State};
use crate::{Error, HostName, Link, Result, etc, network};

/// Largest file that [`Host::read_file`] reads.
const FILE_SIZE_MAX: u64 = 256 << 20;
/// How long [`Host::run`] waits when the command names no limit.
pub(crate) const RUN_LIMIT: Duration = Duration::from_secs(60);

/// One host of a testbed. A handle: dropping it does nothing, copies mean the same host.
#[derive(Clone, Debug)]
pub struct Host {
    dir: PathBuf,
    name: HostName,
    lifeline: Option<Arc<Lifeline>>,
}

impl Host {
    pub(crate) fn new(dir: PathBuf, name: HostName, lifeline: Option<Arc<Lifeline>>) -> Self {
        Host { dir, name, lifeline }
    }

    /// Its name, known to all hosts of the testbed.
    pub fn name(&self) -> &HostName {
        &self.name
    }

    /// Its address.
    ///
    /// # Errors
    /// When the host or the testbed is gone.
    pub fn address(&self) -> Result<Ipv4Addr> {
        Ok(State::load(&self.dir)?.host(&self.name)?.address)
    }

    /// Its cable to the switch.
    pub fn link(&self) -> Link {
        Link { dir: self.dir.clone(), host: self.name.clone() }
    }

    /// Cuts it off from the network; see [`Link::cut`].
    ///
    /// # Errors
    /// As for [`Link::cut`].
    pub fn cut(&self) -> Result<()> {
        self.link().cut()
    }

    /// Ends the cut; see [`Link::heal`].
    ///
    /// # Errors
    /// As for [`Link::heal`].
    pub fn heal(&self) -> Result<()> {
        self.link().heal()
    }

    /// Starts a program and returns once it runs. It goes on when the answer is dropped.
    ///
    /// # Errors
    /// [`Error::HostDown`]; [`Error::Start`] with the reason when it cannot be started.
    pub fn spawn(&self, cmd: &Cmd) -> Result<Process> {
        command::spawn(&self.dir, &self.name, cmd)
    }

    /// Runs a program to its end, at most as long as [`Cmd::limit`] says, and collects its output.
    /// At the limit the program is killed; what it started itself goes on.
    ///
    /// # Errors
    /// As for [`Host::spawn`], or [`Error::Deadline`]. A status other than 0 is no error here; see
    /// [`Output::ok`].
    pub fn run(&self, cmd: &Cmd) -> Result<Output> {
        command::run(&self.dir, &self.name, cmd)
    }

    /// The pids, as seen from the machine, of all its processes, its first one included.
    ///
    /// # Errors
    /// When the testbed is gone.
    pub fn pids(&self) -> Result<Vec<i32>> {
        State::load(&self.dir)?.cgroups.members(Some(&self.name))
    }

    /// Sends a signal to one of its processes, named by its pid on the machine; `false` when there
    /// is no such process in this host.
    ///
    /// # Errors
    /// What the system refused.
    pub fn kill(&self, pid: i32, signal: Signal) -> Result<bool> {
        match State::load(&self.dir)?.cgroups.open_member(pid, Some(&self.name))? {
            Some(pidfd) => send(&pidfd, signal),
            None => Ok(false),
        }
    }

    /// Gives all its processes together at most so many thousandths of a processor, until the host
    /// is started anew.
    ///
    /// # Errors
    /// When the testbed is gone, or the machine has no controller for that.
    pub fn limit_cpu(&self, milli: u32) -> Result<()> {
        State::load(&self.dir)?.cgroups.limit_cpu(&self.name, milli)
    }

    /// Kills everything in the host at once, like a power cut; files in its own folders stay.
    /// The host is down afterwards.
    ///
    /// # Errors
    /// When a process does not end.
    pub fn crash(&self) -> Result<()> {
        let _lock = Lock::take(&self.dir)?;
        self.stop(&mut State::load(&self.dir)?)
    }

    /// Boots it, after a crash if it is up. No program runs then but its first process.
    ///
    /// # Errors
    /// As for [`crate::Testbed::add_host`]; the host is down then.
    pub fn restart(&self) -> Result<()> {
        let _lock = Lock::take(&self.dir)?;
        let mut state = State::load(&self.dir)?;
        self.stop(&mut state)?;
        if let Err(error) = self.start(&mut state) {
            if let Err(second) = self.stop(&mut state) {
                tracing::error!(host = %self.name, error = %second, "host not stopped");
            }
            return Err(error);
        }
        Ok(())
    }

    /// Writes a file of the host, replacing an older one and making missing folders (mode 0755).
    /// Links are followed as the host would follow them.
    ///
    /// # Errors
    /// [`Error::RelativePath`], [`Error::HostDown`], or what the system refused.
    pub fn write_file(&self, path: impl AsRef<Path>, content: &[u8], mode: u32) -> Result<()> {
        let path = path.as_ref();
        let what = || format!("writing {} on {}", path.display(), self.name);
        let inside = inside(path)?;
        let root = self.root()?;
        make_folders(&root, &inside).context(what)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let permissions = Mode::from_raw_mode(mode & 0o7777);
        let fd =
            openat2(&root, &inside, flags, permissions, ResolveFlags::IN_ROOT).context(what)?;
        // An older file has other permissions, and the caller's umask may have taken some.
        rustix::fs::fchmod(&fd, permissions).context(what)?;
        File::from(fd).write_all(content).context(what)
    }

    /// Reads a file of the host.
    ///
    /// # Errors
    /// [`Error::RelativePath`], [`Error::HostDown`], [`Error::TooLarge`] above 256 MiB, or what the
    /// system refused.
    pub fn read_file(&self, path: impl AsRef<Path>) -> Result<Vec<u8>> {
        let path = path.as_ref();
        let what = || format!("reading {} on {}", path.display(), self.name);
        let (inside, root) = (inside(path)?, self.root()?);
        // Without NONBLOCK a FIFO in the host would hold the caller for ever.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd =
            openat2(&root, &inside, flags, Mode::empty(), ResolveFlags::IN_ROOT).context(what)?;
        let mut content = Vec::new();
        File::from(fd).take(FILE_SIZE_MAX + 1).read_to_end(&mut content).context(what)?;
        if content.len() as u64 > FILE_SIZE_MAX {
            return Err(Error::TooLarge { what: what(), limit: FILE_SIZE_MAX });
        }
        Ok(content)
    }

    /// The root folder as the host's first process sees it.
    fn root(&self) -> Result<OwnedFd> {
        let state = State::load(&self.dir)?;
        let down = || Error::HostDown(self.name.to_string());
        let init = state.host(&self.name)?.init.ok_or_else(down)?;
        let what = || format!("opening the root folder of {}", self.name);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let path = format!("/proc/{}/root", init.pid);
        let root = match rustix::fs::open(&path, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::SRCH | Errno::ACCESS) if !init.is_alive()? => {
                return Err(down());
            }
            other => other.context(what)?,
        };
        // Asked after opening: it was this process's root then, not a recycled pid's.
        if init.is_alive()? { Ok(root) } else { Err(down()) }
    }

    pub(crate) fn update_hosts_file(&self, state: &State) -> Result<()> {
        let present = self.read_file("/etc/hosts")?;
        let text = etc::hosts_file(&String::from_utf8_lossy(&present), state);
        self.write_file("/etc/hosts", text.as_bytes(), 0o644)
    }

    /// Kills the host's processes and removes its cable. The caller holds the testbed's lock.
    pub(crate) fn stop(&self, state: &mut State) -> Result<()> {
        let (init, port) = {
            let host = state.host(&self.name)?;
            (host.init, host.port)
        };
        if let Some(pidfd) = init.map(|init| init.open()).transpose()?.flatten() {
            send(&pidfd, Signal::KILL)?;
            state.cgroups.thaw_host(&self.name)?;
            // The first process of a pid namespace ends after all others in it.
            wait_killed(&pidfd, || format!("the end of host {}", self.name))?;
        }
        state.host_mut(&self.name)?.init = None;
        state.save(&self.dir)?;
        network::unplug(&network::switch(state)?, port)
    }

    /// Boots the host. The caller holds the testbed's lock and has stopped an earlier life.
    pub(crate) fn start(&self, state: &mut State) -> Result<()> {
        state.cgroups.create_host(&self.name)?;
        let mut call = Call::new(&state.helper, "host-init", &self.dir)?;
        call.arg("--host").arg(self.name.as_str());
        call.command.stdin(Lifeline::stdin(self.lifeline.as_deref())?);
        let init = call.run(|| format!("starting the host {}", self.name))?.process?;
        // Written before anything else can fail: this is what `stop` kills.
        state.host_mut(&self.name)?.init = Some(init);
        state.save(&self.dir)?;
        state.cgroups.enable_host(&self.name)?;
        let pidfd = open_init(init, &self.name)?;
        network::plug(state, state.host(&self.name)?, (init.pid, &pidfd))
    }
}

pub(crate) fn open_init(init: ProcessId, name: &HostName) -> Result<OwnedFd> {
    init.open()?.ok_or_else(|| Error::HostDown(name.to_string()))
}

/// The path relative to the host's root.
fn inside(path: &Path) -> Result<PathBuf> {
    match path.strip_prefix("/") {
        Ok(rest) if !path.components().any(|part| part == Component::ParentDir) => {
            Ok(rest.to_owned())
        }
        _ => Err(Error::RelativePath(path.to_owned())),
    }
}

fn make_folders(root: &OwnedFd, file: &Path) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |path: &Path| openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT);
    let mut parent =
        root.try_clone().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::MFILE))?;
    let mut path = PathBuf::new();
    for part in file.parent().into_iter().flat_map(Path::components) {
        path.push(part);
        parent = match open(&path) {
            Err(Errno::NOENT) => {
                mkdirat(&parent, part.as_os_str(), Mode::from_raw_mode(0o755))?;
                open(&path)?
            }
            other => other?,
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, `..` could be used to name a file that the host does not have.
    #[test]
    fn paths_are_absolute() {
        assert_eq!(inside(Path::new("/etc/hosts")).unwrap(), Path::new("etc/hosts"));
        for bad in ["etc/hosts", "/etc/../x", ""] {
            assert!(inside(Path::new(bad)).is_err(), "{bad}");
        }
    }
}
