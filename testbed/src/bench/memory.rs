//! What our processes on a host use of memory and processors.

use crate::error::Context as _;
use crate::{Host, Result};
use nix::unistd::{SysconfVar, sysconf};
use std::fs::read_to_string;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

/// How often the memory of short-lived processes is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Our programs, as the kernel names their processes.
const OURS: [&str; 2] = ["xosd", "xos-shim"];

/// The most that the daemon of a host held since it started, in bytes (VmHWM).
pub(super) fn daemon_peak(host: &Host, program: &str) -> Result<u64> {
    let mut peak = 0;
    for pid in host.pids()? {
        if name(pid)? == program && !is_mount(pid)? {
            peak += field(pid, "status", "VmHWM:")?;
        }
    }
    Ok(peak)
}

/// The processor time that the daemon of a host used since it started, in seconds.
pub(super) fn processor_seconds(host: &Host, program: &str) -> Result<f64> {
    let mut ticks = 0;
    for pid in host.pids()? {
        if name(pid)? == program && !is_mount(pid)? {
            ticks += processor_ticks(&text(pid, "stat")?);
        }
    }
    let what = || "asking how the kernel counts processor time".to_owned();
    let rate = sysconf(SysconfVar::CLK_TCK).context(what)?;
    #[allow(clippy::cast_precision_loss)]
    Ok(rate.map_or(f64::NAN, |rate| ticks as f64 / rate as f64))
}

/// What the processes of a program hold on a host now (VmRSS), in bytes.
pub(super) fn resident(host: &Host, program: &str) -> Result<u64> {
    let mut sum = 0;
    for pid in host.pids()? {
        if name(pid)? == program {
            sum += field(pid, "status", "VmRSS:")?;
        }
    }
    Ok(sum)
}

/// User and system time in a line as proc_pid_stat(5) has it; 0 when the process has ended. The
/// name of the program, in parentheses, may hold anything.
fn processor_ticks(stat: &str) -> u64 {
    let (_, fields) = stat.rsplit_once(')').unwrap_or_default();
    let fields = fields.split_whitespace().skip(11).take(2);
    fields.filter_map(|field| field.parse::<u64>().ok()).sum()
}

/// What all our processes but the daemon hold now, in bytes: shims and mounts. Pages that several
/// share count once (Pss).
fn others_now(host: &Host) -> Result<u64> {
    let mut sum = 0;
    for pid in host.pids()? {
        let name = name(pid)?;
        if OURS.contains(&name.as_str()) && (name != "xosd" || is_mount(pid)?) {
            sum += field(pid, "smaps_rollup", "Pss:")?;
        }
    }
    Ok(sum)
}

/// Looks again and again until dropped or asked.
pub(super) struct Watch {
    stop: std::sync::Arc<AtomicBool>,
    thread: JoinHandle<Result<u64>>,
}

impl Watch {
    /// Watches the processes of `host` besides its daemon.
    pub(super) fn start(host: Host) -> Watch {
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut most = 0;
            while !seen.load(Ordering::Relaxed) {
                most = most.max(others_now(&host)?);
                sleep(LOOK_EVERY);
            }
            Ok(most)
        });
        Watch { stop, thread }
    }

    /// The most that was seen, in bytes.
    pub(super) fn end(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|_| Err(super::failed("watching memory", "it broke")))
    }
}

fn name(pid: i32) -> Result<String> {
    Ok(text(pid, "comm")?.trim().to_owned())
}

/// `xosd mount` is a process of its own.
fn is_mount(pid: i32) -> Result<bool> {
    Ok(text(pid, "cmdline")?.split('\0').nth(1) == Some("mount"))
}

/// A field in KiB of a process's file, in bytes; 0 when the process has ended.
fn field(pid: i32, file: &str, name: &str) -> Result<u64> {
    let text = text(pid, file)?;
    let found = text.lines().find_map(|l| l.strip_prefix(name));
    Ok(found.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024)
}

/// A file of a process; empty when the process has ended.
fn text(pid: i32, file: &str) -> Result<String> {
    match read_to_string(format!("/proc/{pid}/{file}")) {
        Ok(text) => Ok(text),
        Err(e) if e.kind() == ErrorKind::NotFound || e.raw_os_error() == Some(ESRCH) => {
            Ok(String::new())
        }
        other => other.context(|| format!("reading {file} of process {pid}")),
    }
}

const ESRCH: i32 = rustix::io::Errno::SRCH.raw_os_error();

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, memory would be reported as 0.
    #[test]
    fn memory_is_read_in_bytes() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(field(own, "status", "VmHWM:").unwrap() > 1 << 20);
        assert!(field(own, "smaps_rollup", "Pss:").unwrap() > 100_000);
        assert_eq!(field(i32::MAX, "status", "VmHWM:").unwrap(), 0, "a process that has ended");
        assert!(!is_mount(own).unwrap());
    }

    /// If it failed, a core would look as if its work cost nothing, or another field be counted.
    #[test]
    fn processor_time_is_that_of_user_and_system() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 14 15 16 17 18";
        assert_eq!(processor_ticks(stat), 14 + 15);
        assert_eq!(processor_ticks(""), 0);
    }
}
