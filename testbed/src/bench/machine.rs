//! What the figures were taken on.

use super::samples::Samples;
use crate::Result;
use crate::error::Context as _;
use std::fmt;
use std::fs::{File, read_to_string};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// How often the disk is asked to keep something.
const SYNCS: usize = 50;

/// The machine, as far as it explains figures.
#[derive(Clone, Debug)]
pub struct Machine {
    processors: usize,
    model: String,
    kernel: String,
    memory_gib: f64,
    disk: String,
    sync_ms: Samples,
    load: String,
}

impl Machine {
    /// Looks at this machine, and at the disk that holds `folder`.
    ///
    /// # Errors
    /// What the system refused.
    pub fn look(folder: &Path) -> Result<Machine> {
        let cpu = read("/proc/cpuinfo")?;
        let model = cpu.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or_default();
        let memory = read("/proc/meminfo")?;
        let kib = memory.lines().find_map(|l| l.strip_prefix("MemTotal:"));
        let kib = kib.and_then(|l| l.trim().trim_end_matches(" kB").parse::<f64>().ok());
        Ok(Machine {
            processors: processors(),
            model: model.trim_start_matches([' ', '\t', ':']).to_owned(),
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            memory_gib: kib.unwrap_or(f64::NAN) / f64::from(1 << 20),
            disk: disk(folder)?,
            sync_ms: syncs(folder)?,
            load: load()?,
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "processors  {} of {}", self.processors, self.model)?;
        writeln!(out, "memory      {:.0} GiB", self.memory_gib)?;
        writeln!(out, "kernel      Linux {}", self.kernel)?;
        writeln!(out, "disk        {}", self.disk)?;
        writeln!(out, "fdatasync   {} ms (an append of 4 KiB)", self.sync_ms)?;
        write!(out, "load        {} (what else ran makes figures worse)", self.load)
    }
}

/// How many processors this process may use.
pub(super) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The load averages over 1, 5 and 15 minutes.
pub(super) fn load() -> Result<String> {
    Ok(read("/proc/loadavg")?.split(' ').take(3).collect::<Vec<_>>().join(" "))
}

fn read(path: &str) -> Result<String> {
    read_to_string(path).context(|| format!("reading {path}"))
}

/// File system and device of the longest mount point above `folder`.
fn disk(folder: &Path) -> Result<String> {
    let folder = folder.canonicalize().context(|| format!("finding {}", folder.display()))?;
    let mounts = read("/proc/self/mounts")?;
    let words = mounts.lines().map(|l| l.split(' ').collect::<Vec<_>>());
    let above = words.filter(|w| w.len() > 2 && folder.starts_with(w[1]));
    let found = above.max_by_key(|w| w[1].len());
    Ok(found.map_or_else(|| "unknown".to_owned(), |w| format!("{} on {}", w[2], w[0])))
}

fn syncs(folder: &Path) -> Result<Samples> {
    let what = || format!("writing in {}", folder.display());
    let mut file: File = tempfile::tempfile_in(folder).context(what)?;
    let mut all = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let begin = Instant::now();
        file.write_all(&[7; 4096]).context(what)?;
        file.sync_data().context(what)?;
        all.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    Ok(Samples::new(all))
}

/// Has the kernel move processes between control groups without waiting, as `xosd` has it on a
/// node (`favor_dynmods`): that of a host of the testbed may not, since the machine is not its own.
/// It lasts until the machine starts anew.
///
/// # Errors
/// What `mount` said.
pub fn favor_moves() -> std::result::Result<(), String> {
    let script = "mount --options-source mtab -o remount,favordynmods \
        \"$(findmnt -fn -o TARGET -t cgroup2)\"";
    let out = Command::new("sh").args(["-c", script]).output().map_err(|e| e.to_string())?;
    let said = String::from_utf8_lossy(&out.stderr);
    if out.status.success() { Ok(()) } else { Err(said.trim().to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, figures would be published without what they were taken on.
    #[test]
    fn a_machine_can_be_described() {
        let folder = tempfile::tempdir().unwrap();
        let text = Machine::look(folder.path()).unwrap().to_string();
        assert_eq!(text.lines().count(), 6, "{text}");
        assert!(!text.contains("NaN") && !text.contains("unknown"), "{text}");
    }
}
