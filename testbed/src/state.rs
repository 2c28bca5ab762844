//! The testbed's state: one file in its folder, changed under a lock, read by anybody.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cgroup::Tree;
use crate::error::Context as _;
use crate::identity::ProcessId;
use crate::{Error, HostName, Prefix, Result, Share};

const STATE_FILE: &str = "state.json";
const STATE_FILE_NEW: &str = "state.json.new";
const LOCK_FILE: &str = "lock";
/// Permission bits that let others change a file.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Everything there is to know about a testbed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    pub(crate) name: HostName,
    /// The machine's boot: processes of another one are gone.
    boot: String,
    pub(crate) prefix: Prefix,
    pub(crate) helper: PathBuf,
    pub(crate) shares: Vec<Share>,
    pub(crate) creator: ProcessId,
    pub(crate) cgroups: Tree,
    pub(crate) switch: Option<ProcessId>,
    pub(crate) hosts: Vec<HostState>,
    pub(crate) forwards: Vec<Forward>,
}

/// One host.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HostState {
    pub(crate) name: HostName,
    /// Names its port of the switch: `h<port>`.
    pub(crate) port: u32,
    pub(crate) address: Ipv4Addr,
    /// Its first process; `None` while it is down.
    pub(crate) init: Option<ProcessId>,
    /// Whether its network is cut.
    pub(crate) cut: bool,
}

/// One forwarded port.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Forward {
    pub(crate) local: SocketAddr,
    pub(crate) host: HostName,
    pub(crate) port: u16,
    pub(crate) process: ProcessId,
}

impl State {
    /// A testbed without a switch and hosts.
    pub(crate) fn new(
        name: HostName,
        prefix: Prefix,
        helper: PathBuf,
        shares: Vec<Share>,
        cgroups: Tree,
    ) -> Result<Self> {
        Ok(State {
            name,
            boot: boot_id()?,
            prefix,
            helper,
            shares,
            creator: ProcessId::of(std::process::id().cast_signed())?,
            cgroups,
            switch: None,
            hosts: Vec::new(),
            forwards: Vec::new(),
        })
    }

    /// Reads the state of the testbed in `dir`; `None` when there is none.
    pub(crate) fn load_if_any(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(STATE_FILE);
        let what = || format!("reading {}", path.display());
        let no_follow = nix::fcntl::OFlag::O_NOFOLLOW.bits();
        let file = match OpenOptions::new().read(true).custom_flags(no_follow).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.context(what)?,
        };
        let meta = file.metadata().context(what)?;
        if meta.uid() != 0 || meta.mode() & WRITABLE_BY_OTHERS != 0 {
            // It names processes to kill and cgroups to remove.
            let reason = "its state file is not root's own; do not trust it, remove it";
            return Err(Error::Folder { path: dir.to_owned(), reason });
        }
        let text = io::read_to_string(file).context(what)?;
        let mut state: State = serde_json::from_str(&text)
            .map_err(|source| Error::BadState { path: path.clone(), source })?;
        if state.boot != boot_id()? {
            state.switch = None;
            state.forwards.clear();
            state.hosts.iter_mut().for_each(|host| host.init = None);
        }
        Ok(Some(state))
    }

    /// Reads the state of the testbed in `dir`.
    pub(crate) fn load(dir: &Path) -> Result<Self> {
        Self::load_if_any(dir)?.ok_or_else(|| Error::NoTestbed(dir.to_owned()))
    }

    /// Replaces the state file.
    pub(crate) fn save(&self, dir: &Path) -> Result<()> {
        let new = dir.join(STATE_FILE_NEW);
        let what = || format!("writing {}", new.display());
        let text = serde_json::to_string_pretty(self)
            .map_err(|source| Error::BadState { path: new.clone(), source })?;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .context(what)?;
        file.write_all(text.as_bytes()).context(what)?;
        std::fs::rename(&new, dir.join(STATE_FILE)).context(what)
    }

    /// The host of this name.
    pub(crate) fn host(&self, name: &HostName) -> Result<&HostState> {
        self.hosts
            .iter()
            .find(|host| host.name == *name)
            .ok_or_else(|| Error::NoSuchHost(name.to_string()))
    }

    /// The host of this name, to change it.
    pub(crate) fn host_mut(&mut self, name: &HostName) -> Result<&mut HostState> {
        self.hosts
            .iter_mut()
            .find(|host| host.name == *name)
            .ok_or_else(|| Error::NoSuchHost(name.to_string()))
    }

    /// Every process that the state names.
    pub(crate) fn processes(&self) -> impl Iterator<Item = ProcessId> + '_ {
        let inits = self.hosts.iter().filter_map(|host| host.init);
        inits.chain(self.forwards.iter().map(|forward| forward.process)).chain(self.switch)
    }
}

/// Removes the state and lock files: the testbed is no more.
pub(crate) fn remove(dir: &Path) -> Result<()> {
    for name in [STATE_FILE_NEW, STATE_FILE, LOCK_FILE] {
        let path = dir.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other.context(|| format!("removing {}", path.display()))?,
        }
    }
    Ok(())
}

/// Whoever holds this may change the testbed.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock. Its holders end within the limits of their own steps.
    pub(crate) fn take(dir: &Path) -> Result<Self> {
        let path = dir.join(LOCK_FILE);
        let what = || format!("locking {}", path.display());
        loop {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .context(what)?;
            file.lock().context(what)?;
            // The former holder may have removed the file with the testbed.
            match std::fs::metadata(&path) {
                Ok(now) if now.ino() == file.metadata().context(what)?.ino() => {
                    return Ok(Lock { _file: file });
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).context(what),
            }
        }
    }
}

fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(path).context(|| format!("reading {path}"))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let name: HostName = "t".parse().unwrap();
        State::new(name, Prefix::DEFAULT, "/h".into(), Vec::new(), Tree::empty_for_tests()).unwrap()
    }

    /// If it failed, a process of an earlier boot would be taken for one of ours.
    #[test]
    fn another_boot_has_no_processes() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: the state file must be root's");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut state = state();
        state.switch = Some(state.creator);
        state.save(dir.path()).unwrap();
        assert!(State::load(dir.path()).unwrap().switch.is_some());
        state.boot = "another".to_owned();
        state.save(dir.path()).unwrap();
        assert_eq!(State::load(dir.path()).unwrap().processes().count(), 0);
    }

    /// If it failed, a file planted by somebody else would name what root kills.
    #[test]
    fn a_state_file_others_may_write_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        state().save(dir.path()).unwrap();
        let path = dir.path().join(STATE_FILE);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        assert!(matches!(State::load(dir.path()), Err(Error::Folder { .. })));
    }
}
