//! The testbed's cgroups: `<hierarchy>/xos-testbed-<name>-<id>/<host>/{init,<program>}`.
//!
//! A host's own cgroup is the root of its cgroup namespace and stays empty, so that version 2 lets
//! it hand controllers to the cgroups below; the host's processes live in `init` or, like services
//! of an init system, each in a cgroup of its own. What the testbed runs beside the hosts lives in
//! `_tools`. All processes of a testbed can thus be found by their cgroup alone.

mod controllers;
mod hierarchy;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use serde::{Deserialize, Serialize};

pub(crate) use self::hierarchy::Hierarchy;
use crate::error::Context as _;
use crate::identity::{send, wait_killed};
use crate::{Error, HostName, Result};

/// What the cgroups of every testbed are called at first.
const PREFIX: &str = "xos-testbed-";
/// Cgroup of the switch, forwarders and the parents of programs. No host can be called so.
const TOOLS: &str = "_tools";
/// Cgroup, below the host's, of its first process and of programs without one of their own.
pub(crate) const INIT: &str = "init";
/// Rounds of killing what is found in the cgroups; processes may fork while they are read.
const SWEEP_ROUNDS_MAX: usize = 1000;
/// How long an emptied cgroup may stay busy: the kernel detaches ended processes a little later.
const REMOVE_LIMIT: Duration = Duration::from_secs(10);
const REMOVE_RETRY: Duration = Duration::from_millis(5);
/// Processor time is shared out anew so often: the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;

/// The testbed's cgroups in all hierarchies.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tree {
    /// A single path component, unique for the testbed's folder.
    base: HostName,
    pub(crate) hierarchies: Vec<Hierarchy>,
}

impl Tree {
    /// The cgroups, not yet made, of the testbed called `name` in the folder `dir`.
    pub(crate) fn plan(name: &HostName, dir: &Path) -> Result<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")
            .context(|| "reading /proc/self/mountinfo".to_owned())?;
        let hierarchies = hierarchy::find(&mounts);
        if hierarchies.is_empty() {
            return Err(Error::NoCgroups);
        }
        // The same folder always gets the same cgroups: a crash before the state was written
        // leaves nothing that the next testbed in this folder does not take over.
        let id = fnv1a(dir.as_os_str().as_encoded_bytes());
        let short: String = name.as_str().chars().take(24).collect();
        let base = format!("{PREFIX}{short}-{id:016x}").parse()?;
        Ok(Tree { base, hierarchies })
    }

    /// A number of this testbed's own.
    pub(crate) fn id(&self) -> u64 {
        fnv1a(self.base.as_str().as_bytes())
    }

    #[cfg(test)]
    pub(crate) fn empty_for_tests() -> Self {
        Tree { base: "none".parse().expect("a name"), hierarchies: Vec::new() }
    }

    fn roots(&self) -> impl Iterator<Item = (&Hierarchy, PathBuf)> {
        self.hierarchies.iter().map(|one| (one, one.mount.join(self.base.as_str())))
    }

    /// Whether any of them is there.
    pub(crate) fn is_there(&self) -> bool {
        self.roots().any(|(_, root)| root.exists())
    }

    /// Makes the testbed's own cgroups. What is switched on for that in the root of the machine is
    /// noted, see [`controllers`].
    pub(crate) fn create(&self) -> Result<()> {
        for (hierarchy, root) in self.roots() {
            make(&root)?;
            if hierarchy.v1.is_none() {
                controllers::switch_on(&hierarchy.mount, &root)?;
                controllers::hand_down(&root)?;
            }
            make(&root.join(TOOLS))?;
        }
        Ok(())
    }

    /// Makes a host's cgroups anew: what an earlier life of the host left is removed.
    pub(crate) fn create_host(&self, host: &HostName) -> Result<()> {
        for (_, root) in self.roots() {
            let own = root.join(host.as_str());
            remove_tree(&own)?;
            make(&own)?;
            make(&own.join(INIT))?;
        }
        Ok(())
    }

    /// Lets version 2 controllers be used below the host's cgroup, once it holds no process itself.
    pub(crate) fn enable_host(&self, host: &HostName) -> Result<()> {
        let v2 = self.roots().filter(|(hierarchy, _)| hierarchy.v1.is_none());
        for (_, root) in v2 {
            controllers::hand_down(&root.join(host.as_str()))?;
        }
        Ok(())
    }

    /// Gives all processes of a host together at most so many thousandths of a processor.
    pub(crate) fn limit_cpu(&self, host: &HostName, milli: u32) -> Result<()> {
        let quota_us = u64::from(milli) * CPU_PERIOD_US / 1000;
        for (hierarchy, root) in self.roots() {
            let (file, text) = match &hierarchy.v1 {
                None => ("cpu.max", format!("{quota_us} {CPU_PERIOD_US}")),
                Some(_) => ("cpu.cfs_quota_us", quota_us.to_string()),
            };
            // Only one hierarchy has the controller.
            let path = root.join(host.as_str()).join(file);
            if path.exists() {
                return std::fs::write(&path, text)
                    .context(|| format!("writing {}", path.display()));
            }
        }
        let reason = "this machine gives control groups no controller cpu".to_owned();
        Err(Error::Start { what: format!("limiting the processors of {host}"), reason })
    }

    /// Moves the calling process among the testbed's tools.
    pub(crate) fn join_tools(&self) -> Result<()> {
        self.roots().try_for_each(|(_, root)| join(&open_procs(&root.join(TOOLS))?))
    }

    /// Moves the calling process to the host's own cgroup, to make it a namespace's root.
    pub(crate) fn join_host(&self, host: &HostName) -> Result<()> {
        self.roots().try_for_each(|(_, root)| join(&open_procs(&root.join(host.as_str()))?))
    }

    /// Opens the way to a cgroup of the host, made if missing, for use after the caller has lost
    /// sight of the hierarchies; see [`Entrance::join`].
    pub(crate) fn entrance(&self, host: &HostName, leaf: &str) -> Result<Entrance> {
        let mut files = Vec::new();
        for (_, root) in self.roots() {
            let path = root.join(host.as_str()).join(leaf);
            make(&path)?;
            files.push(open_procs(&path)?);
        }
        Ok(Entrance(files))
    }

    /// Thaws a host's version 1 cgroups: a frozen process does not die of SIGKILL there.
    pub(crate) fn thaw_host(&self, host: &HostName) -> Result<()> {
        self.thaw(Some(host))
    }

    fn thaw(&self, host: Option<&HostName>) -> Result<()> {
        for (_, root) in self.roots().filter(|(hierarchy, _)| hierarchy.has_freezer()) {
            for cgroup in subtree(&Self::top(&root, host))? {
                write_if_there(&cgroup.join("freezer.state"), "THAWED")?;
            }
        }
        Ok(())
    }

    /// Kills every process in the testbed's cgroups and waits for their end.
    pub(crate) fn sweep(&self) -> Result<()> {
        for _ in 0..SWEEP_ROUNDS_MAX {
            let mut killed = Vec::new();
            for pid in self.members(None)? {
                if let Some(pidfd) = self.open_member(pid, None)? {
                    send(&pidfd, Signal::KILL)?;
                    killed.push((pid, pidfd));
                }
            }
            if killed.is_empty() {
                return Ok(());
            }
            self.thaw(None)?;
            for (pid, pidfd) in killed {
                wait_killed(&pidfd, || format!("the end of process {pid} of {}", self.base))?;
            }
        }
        Err(Error::TooLarge {
            what: format!("the number of rounds to kill what runs in {}", self.base),
            limit: SWEEP_ROUNDS_MAX as u64,
        })
    }

    /// Removes the testbed's cgroups, which hold no process any more, and puts back what was
    /// switched on for them.
    pub(crate) fn remove(&self) -> Result<()> {
        self.roots().try_for_each(|(hierarchy, root)| match hierarchy.v1 {
            None => controllers::remove(&hierarchy.mount, &root),
            Some(_) => remove_tree(&root),
        })
    }

    fn top(root: &Path, host: Option<&HostName>) -> PathBuf {
        host.map_or_else(|| root.to_owned(), |host| root.join(host.as_str()))
    }

    /// The pids, as seen from the machine, in the cgroups of a host or of the whole testbed.
    pub(crate) fn members(&self, host: Option<&HostName>) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        for (_, root) in self.roots() {
            for cgroup in subtree(&Self::top(&root, host))? {
                let text = read_if_there(&cgroup.join("cgroup.procs"))?;
                pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
            }
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// A descriptor of the process if it still is in one of these cgroups.
    pub(crate) fn open_member(&self, pid: i32, host: Option<&HostName>) -> Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(pid) else { return Ok(None) };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error).context(|| format!("opening process {pid:?}")),
        };
        if crate::identity::has_ended(&pidfd)? {
            return Ok(None);
        }
        let own = read_if_there(Path::new(&format!("/proc/{}/cgroup", pid.as_raw_nonzero())))?;
        let ours = own.lines().any(|line| {
            let mut parts = line.split('/').skip_while(|part| *part != self.base.as_str());
            parts.next().is_some() && host.is_none_or(|host| parts.next() == Some(host.as_str()))
        });
        Ok(ours.then_some(pidfd))
    }
}

/// Open `cgroup.procs` files of one cgroup in every hierarchy.
#[derive(Debug)]
pub(crate) struct Entrance(Vec<File>);

impl Entrance {
    /// Moves the calling process in.
    pub(crate) fn join(&self) -> Result<()> {
        self.0.iter().try_for_each(join)
    }
}

fn open_procs(cgroup: &Path) -> Result<File> {
    let path = cgroup.join("cgroup.procs");
    File::options().write(true).open(&path).context(|| format!("opening {}", path.display()))
}

fn join(mut procs: &File) -> Result<()> {
    procs.write_all(b"0").context(|| "joining a cgroup".to_owned())
}

fn make(path: &Path) -> Result<()> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.context(|| format!("making the cgroup {}", path.display())),
    }
}

/// `top` and all cgroups below it, parents first; none when it is gone.
fn subtree(top: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![top.to_owned()];
    let mut next = 0;
    while let Some(path) = found.get(next).cloned() {
        next += 1;
        let entries = match std::fs::read_dir(&path) {
            Err(error) if is_gone(&error) => {
                next -= 1;
                found.remove(next);
                continue;
            }
            other => other.context(|| format!("listing {}", path.display()))?,
        };
        for entry in entries {
            let entry = match entry {
                Err(error) if is_gone(&error) => continue,
                other => other.context(|| format!("listing {}", path.display()))?,
            };
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

fn remove_tree(top: &Path) -> Result<()> {
    let deadline = Instant::now() + REMOVE_LIMIT;
    for path in subtree(top)?.iter().rev() {
        loop {
            match std::fs::remove_dir(path) {
                Ok(()) => break,
                Err(error) if is_gone(&error) => break,
                Err(error)
                    if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline =>
                {
                    std::thread::sleep(REMOVE_RETRY);
                }
                other => other.context(|| format!("removing the cgroup {}", path.display()))?,
            }
        }
    }
    Ok(())
}

fn is_gone(error: &io::Error) -> bool {
    let no_device = rustix::io::Errno::NODEV.raw_os_error();
    let no_process = rustix::io::Errno::SRCH.raw_os_error();
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error().is_some_and(|code| code == no_device || code == no_process)
}

fn read_if_there(path: &Path) -> Result<String> {
    match std::fs::read_to_string(path) {
        Err(error) if is_gone(&error) => Ok(String::new()),
        // A cgroup that holds threads only, or a domain made invalid: it lists no processes.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(String::new()),
        other => other.context(|| format!("reading {}", path.display())),
    }
}

fn write_if_there(path: &Path, text: &str) -> Result<()> {
    match File::options()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
    {
        Err(error) if is_gone(&error) => Ok(()),
        other => other.context(|| format!("writing {}", path.display())),
    }
}

/// The 64-bit FNV-1a hash (Fowler, Noll, Vo): short, and the same in every build.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, two testbeds of one name would share cgroups, and one would kill the other's.
    #[test]
    fn folders_do_not_share_cgroups() {
        assert_ne!(fnv1a(b"/tmp/a"), fnv1a(b"/tmp/b"));
        assert!(TOOLS.parse::<HostName>().is_err());
    }

    /// If it failed, a node that is to have a part of the machine would have all of it.
    #[test]
    fn a_host_has_its_part_of_a_processor() {
        let machine = tempfile::tempdir().unwrap();
        let hierarchies = vec![Hierarchy { mount: machine.path().to_owned(), v1: None }];
        let tree = Tree { base: "xos-testbed-a".parse().unwrap(), hierarchies };
        let host: HostName = "n1".parse().unwrap();
        let own = machine.path().join("xos-testbed-a/n1");
        std::fs::create_dir_all(&own).unwrap();
        assert!(tree.limit_cpu(&host, 250).is_err(), "the controller is not there");
        std::fs::write(own.join("cpu.max"), "max 100000").unwrap();
        tree.limit_cpu(&host, 250).unwrap();
        assert_eq!(std::fs::read_to_string(own.join("cpu.max")).unwrap(), "25000 100000");
    }
}
