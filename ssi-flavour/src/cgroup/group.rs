//! A control group: its folders, one per hierarchy.

use super::files::{io, make, read, remove, write};
use super::{CgroupError, FILE_BYTES_MAX, KILL_ROUNDS_MAX, Limits, Part, Version};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;

/// Period of the processor quota, in microseconds: the kernel's own default.
const CPU_PERIOD_US: u64 = 100_000;
/// Most memory that a group's end gives back to the kernel, in bytes.
const RECLAIM_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What a group has used since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupUsage {
    /// Processor time of all its processes, in microseconds; absent where nothing counts it.
    pub cpu_us: Option<u64>,
    /// Most memory at a time, page cache included, in bytes; absent where nothing counts it.
    pub memory_peak_bytes: Option<u64>,
    /// How many processes the kernel ended because the memory limit was reached.
    pub oom_kills: u64,
}

/// The folders of a control group, one per hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cgroup {
    /// The folders.
    pub parts: Vec<Part>,
}

impl Cgroup {
    fn with(&self, controller: &str) -> Option<&Part> {
        self.parts.iter().find(|p| p.controllers.contains(controller))
    }

    fn v2(&self) -> Option<&Part> {
        self.parts.iter().find(|p| p.version == Version::V2)
    }

    /// Makes the folders and sets the limits.
    ///
    /// # Errors
    /// [`CgroupError`]; a limit that this machine cannot hold is one.
    pub fn create(&self, limits: &Limits) -> Result<(), CgroupError> {
        self.make()?;
        self.limit(limits)
    }

    /// Makes the folders without any limit.
    ///
    /// # Errors
    /// The first folder that cannot be made.
    pub fn make(&self) -> Result<(), CgroupError> {
        self.parts.iter().try_for_each(|p| make(&p.dir))
    }

    /// Whether any of the folders is there.
    pub fn is_there(&self) -> bool {
        self.parts.iter().any(|p| p.dir.exists())
    }

    /// The group of this name below it. Makes nothing. The name is one component of a path.
    pub fn child(&self, name: &str) -> Cgroup {
        let part = |p: &Part| Part { dir: p.dir.join(name), ..p.clone() };
        Cgroup { parts: self.parts.iter().map(part).collect() }
    }

    /// The names of the groups below it.
    ///
    /// # Errors
    /// The first folder that cannot be listed.
    pub fn names(&self) -> Result<BTreeSet<String>, CgroupError> {
        let mut names = BTreeSet::new();
        for p in &self.parts {
            for entry in std::fs::read_dir(&p.dir).map_err(io("list it", &p.dir))? {
                let entry = entry.map_err(io("list it", &p.dir))?;
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    names.extend(entry.file_name().to_str().map(str::to_owned));
                }
            }
        }
        Ok(names)
    }

    /// Gives its controllers to the groups below it, which version 2 does not do by itself; it may
    /// hold no process then. What the kernel refuses to give it has no more; why.
    pub fn delegate(&mut self) -> Option<CgroupError> {
        let part = self.parts.iter_mut().find(|p| p.version == Version::V2)?;
        let (dir, mut trouble) = (part.dir.clone(), None);
        part.controllers.retain(|c| {
            let given = write(&dir, "cgroup.subtree_control", &format!("+{c}"));
            given.map_err(|e| trouble = Some(e)).is_ok()
        });
        trouble
    }

    /// Only the folder by which processes are stopped; `None` where the machine has neither v2 nor
    /// the freezer. Who is moved there stays in all other hierarchies where they are.
    pub fn stopping(&self) -> Option<Cgroup> {
        let part = self.v2().or_else(|| self.with("freezer"))?;
        Some(Cgroup { parts: vec![part.clone()] })
    }

    /// Sets or changes the limits; what `limits` leaves out becomes unlimited.
    ///
    /// # Errors
    /// [`CgroupError`]; a limit that this machine cannot hold is one.
    pub fn limit(&self, limits: &Limits) -> Result<(), CgroupError> {
        self.limit_cpu(limits.cpu_millis)?;
        self.limit_memory(limits.memory_bytes)?;
        let pids = self.with("pids").ok_or(CgroupError::NoController("the number of processes"))?;
        write(&pids.dir, "pids.max", &limits.pids.to_string())
    }

    fn limit_cpu(&self, millis: Option<u64>) -> Result<(), CgroupError> {
        let quota = millis.map(|m| m.saturating_mul(CPU_PERIOD_US / 1000).to_string());
        match (self.with("cpu"), quota) {
            (None, None) => Ok(()),
            (None, Some(_)) => Err(CgroupError::NoController("processor time")),
            (Some(p), quota) if p.version == Version::V2 => {
                let quota = quota.unwrap_or_else(|| "max".to_owned());
                write(&p.dir, "cpu.max", &format!("{quota} {CPU_PERIOD_US}"))
            }
            (Some(p), quota) => {
                write(&p.dir, "cpu.cfs_period_us", &CPU_PERIOD_US.to_string())?;
                write(&p.dir, "cpu.cfs_quota_us", &quota.unwrap_or_else(|| "-1".to_owned()))
            }
        }
    }

    fn limit_memory(&self, bytes: Option<u64>) -> Result<(), CgroupError> {
        let Some(p) = self.with("memory") else {
            return bytes.map_or(Ok(()), |_| Err(CgroupError::NoController("memory")));
        };
        if p.version == Version::V2 {
            let value = bytes.map_or_else(|| "max".to_owned(), |b| b.to_string());
            write(&p.dir, "memory.max", &value)?;
            let swap = if bytes.is_some() { "0" } else { "max" };
            return write_if_there(&p.dir, "memory.swap.max", swap);
        }
        let value = bytes.map_or_else(|| "-1".to_owned(), |b| b.to_string());
        // memory + swap may never be below memory: going down, memory first; going up, both.
        if write(&p.dir, "memory.limit_in_bytes", &value).is_err() {
            write_if_there(&p.dir, "memory.memsw.limit_in_bytes", &value)?;
            write(&p.dir, "memory.limit_in_bytes", &value)?;
        }
        write_if_there(&p.dir, "memory.memsw.limit_in_bytes", &value)
    }

    /// Moves the calling process, which must have one thread, into the cgroup.
    ///
    /// # Errors
    /// The folder that refused.
    pub fn join(&self) -> Result<(), CgroupError> {
        self.parts.iter().try_for_each(|p| write(&p.dir, "cgroup.procs", "0"))
    }

    /// Moves another process into the cgroup, with all of its threads.
    ///
    /// # Errors
    /// The folder that refused; the process may be gone.
    pub fn take(&self, pid: u32) -> Result<(), CgroupError> {
        self.parts.iter().try_for_each(|p| write(&p.dir, "cgroup.procs", &pid.to_string()))
    }

    /// Stops (`true`) or continues every process. The kernel completes it shortly after.
    ///
    /// # Errors
    /// [`CgroupError::NoController`] where the machine has neither v2 nor the freezer.
    pub fn freeze(&self, frozen: bool) -> Result<(), CgroupError> {
        if let Some(p) = self.v2() {
            return write(&p.dir, "cgroup.freeze", if frozen { "1" } else { "0" });
        }
        let p = self.with("freezer").ok_or(CgroupError::NoController("running (freezer)"))?;
        write(&p.dir, "freezer.state", if frozen { "FROZEN" } else { "THAWED" })
    }

    /// Ends every process at once, frozen ones too. A cgroup that is gone has none.
    ///
    /// # Errors
    /// [`CgroupError`] when the kernel refuses or processes stay.
    pub fn kill(&self) -> Result<(), CgroupError> {
        if let Some(p) = self.v2() {
            if !p.dir.exists() {
                return Ok(());
            }
            if p.dir.join("cgroup.kill").exists() {
                // A frozen v2 cgroup dies without being thawed.
                return write(&p.dir, "cgroup.kill", "1");
            }
        }
        let Some(p) = self.with("freezer").or(self.v2()) else { return Ok(()) };
        if !p.dir.exists() {
            return Ok(());
        }
        for _ in 0..KILL_ROUNDS_MAX {
            let procs = pids(&p.dir)?;
            if procs.is_empty() {
                return Ok(());
            }
            // While frozen nobody forks, and no pid in the list can end and be used again.
            self.freeze(true)?;
            for pid in pids(&p.dir)? {
                match kill(Pid::from_raw(pid), Signal::SIGKILL) {
                    Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                    Err(e) => return Err(io("end a process of it", &p.dir)(e.into())),
                }
            }
            self.freeze(false)?;
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Err(CgroupError::StillBusy(p.dir.clone()))
    }

    /// The processes, as our own pid namespace sees them.
    ///
    /// # Errors
    /// [`CgroupError`] when the list cannot be read.
    pub fn processes(&self) -> Result<Vec<i32>, CgroupError> {
        let mut all = Vec::new();
        for p in self.parts.iter().filter(|p| p.dir.exists()) {
            all.extend(pids(&p.dir)?);
        }
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    /// What it has used. What cannot be read is absent.
    pub fn usage(&self) -> CgroupUsage {
        let number = |p: &Part, file: &str| {
            read(&p.dir.join(file), FILE_BYTES_MAX).ok().and_then(|t| t.trim().parse().ok())
        };
        let v1_cpu = |p: &Part| number(p, "cpuacct.usage").map(|ns: u64| ns / 1000);
        // Every v2 cgroup counts processor time, with the controller or without.
        let cpu_us = self
            .with("cpuacct")
            .and_then(v1_cpu)
            .or_else(|| self.v2().and_then(|p| field(&p.dir.join("cpu.stat"), "usage_usec")));
        let memory_peak_bytes = self.with("memory").and_then(|p| {
            ["memory.peak", "memory.max_usage_in_bytes", "memory.current"]
                .iter()
                .find_map(|f| number(p, f))
        });
        CgroupUsage { cpu_us, memory_peak_bytes, oom_kills: self.oom_kills() }
    }

    /// How many processes died of the memory limit so far.
    pub fn oom_kills(&self) -> u64 {
        let file = |p: &Part| match p.version {
            Version::V1 => p.dir.join("memory.oom_control"),
            Version::V2 => p.dir.join("memory.events"),
        };
        self.with("memory").and_then(|p| field(&file(p), "oom_kill")).unwrap_or(0)
    }

    /// How often a new process or thread was refused because of the limit so far.
    pub fn forks_refused(&self) -> u64 {
        let count = |p: &Part| field(&p.dir.join("pids.events"), "max");
        self.with("pids").and_then(count).unwrap_or(0)
    }

    /// Gives back the few pages of files that are left. They would keep the kernel's part of the
    /// cgroup until memory is short, and each of those that stay makes all accounting of memory
    /// slower. Where there are many pages, the next job may want the files: they stay.
    fn let_go_of_memory(&self) {
        let Some(p) = self.with("memory") else { return };
        let (used, file, all) = match p.version {
            Version::V1 => ("memory.usage_in_bytes", "memory.force_empty", "0".to_owned()),
            Version::V2 => ("memory.current", "memory.reclaim", RECLAIM_BYTES_MAX.to_string()),
        };
        let used = read(&p.dir.join(used), FILE_BYTES_MAX).ok();
        let used: Option<u64> = used.and_then(|text| text.trim().parse().ok());
        if used.is_some_and(|bytes| bytes > 0 && bytes <= RECLAIM_BYTES_MAX)
            && let Err(error) = write_if_there(&p.dir, file, &all)
        {
            // What is written back just now, or was never there, cannot be given back.
            tracing::debug!(%error, "pages of files stay");
        }
    }

    /// Removes the folders; no process may be left.
    ///
    /// # Errors
    /// The first folder that cannot be removed; the others are removed.
    pub fn remove(&self) -> Result<(), CgroupError> {
        self.let_go_of_memory();
        let mut first = Ok(());
        for p in &self.parts {
            let r = remove(&p.dir);
            if first.is_ok() {
                first = r;
            }
        }
        first
    }
}

fn pids(dir: &Path) -> Result<Vec<i32>, CgroupError> {
    let text = read(&dir.join("cgroup.procs"), FILE_BYTES_MAX)?;
    // 0 stands for a process that our pid namespace cannot see.
    Ok(text.lines().filter_map(|l| l.parse().ok()).filter(|p| *p > 0).collect())
}

/// The number after `name` in a file of lines `name number`.
fn field(path: &Path, name: &str) -> Option<u64> {
    let text = read(path, FILE_BYTES_MAX).ok()?;
    text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

fn write_if_there(dir: &Path, file: &'static str, value: &str) -> Result<(), CgroupError> {
    if dir.join(file).exists() { write(dir, file, value) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that stands for a hierarchy; its files take whatever is written.
    fn parent(dir: &Path, version: Version, files: &[&str]) -> Cgroup {
        for name in files {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let controllers = ["cpu", "memory", "pids"].map(str::to_owned).into();
        Cgroup { parts: vec![Part { version, controllers, dir: dir.to_owned() }] }
    }

    #[test]
    fn groups_below_have_the_limits_that_they_are_given() {
        // wrong: a program of a cluster would use all of its node, or be limited by another's limit
        let limits = Limits { cpu_millis: Some(500), memory_bytes: Some(9 << 20), pids: 7 };
        let dir = tempfile::tempdir().unwrap();
        let text = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        let files = ["cgroup.subtree_control", "7.1/cpu.max", "7.1/memory.max", "7.1/pids.max"];
        let mut two = parent(dir.path(), Version::V2, &files);
        assert!(two.delegate().is_none());
        assert!(text("cgroup.subtree_control").starts_with('+'));
        two.child("7.1").limit(&limits).unwrap();
        assert_eq!(text("7.1/cpu.max"), "50000 100000");
        assert_eq!((text("7.1/memory.max"), text("7.1/pids.max")), ("9437184".into(), "7".into()));
        assert_eq!(two.names().unwrap(), BTreeSet::from(["7.1".to_owned()]), "files are no groups");
        let files = [
            "8.1/cpu.cfs_period_us",
            "8.1/cpu.cfs_quota_us",
            "8.1/memory.limit_in_bytes",
            "8.1/pids.max",
        ];
        let mut one = parent(dir.path(), Version::V1, &files);
        assert!(one.delegate().is_none(), "version 1 has nothing to give");
        one.child("8.1").limit(&limits).unwrap();
        assert_eq!(text("8.1/cpu.cfs_quota_us"), "50000");
        assert_eq!(text("8.1/memory.limit_in_bytes"), "9437184");
        assert_eq!(text("8.1/pids.max"), "7");
    }

    #[test]
    fn what_the_kernel_does_not_give_is_no_limit() {
        // wrong: a program would run as if it were limited, where nothing limits it
        let dir = tempfile::tempdir().unwrap();
        let mut group = parent(dir.path(), Version::V2, &[]);
        assert!(group.delegate().is_some());
        let refused = group.child("7.1").limit(&Limits::default());
        assert!(matches!(refused, Err(CgroupError::NoController(_))), "{refused:?}");
    }
}
