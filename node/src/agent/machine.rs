//! What the machine has: processors, memory, architecture, local accounts.

use crate::spec::{PIDS_DEFAULT, PIDS_MIN};
use std::collections::HashSet;
use std::fs;
use xos_api::node::Capacity;
use xos_base::Error;

/// What this machine offers to units, as configured or as found.
///
/// # Errors
/// [`xos_base::Kind::Internal`] when `/proc/meminfo` cannot be read.
pub fn capacity(cpu_milli: Option<u32>, memory_bytes: Option<u64>) -> Result<Capacity, Error> {
    let memory_bytes = match memory_bytes {
        Some(bytes) => bytes,
        None => {
            let text = fs::read_to_string("/proc/meminfo")
                .map_err(|e| Error::internal(format!("cannot read /proc/meminfo: {e}")))?;
            total_memory(&text)
                .ok_or_else(|| Error::internal("/proc/meminfo has no line MemTotal"))?
                / 10
                * 9
        }
    };
    let cpu_milli = cpu_milli.unwrap_or_else(|| {
        let n = std::thread::available_parallelism().map_or(1, usize::from);
        u32::try_from(n).unwrap_or(u32::MAX).saturating_mul(1000)
    });
    Ok(Capacity { cpu_milli, memory_bytes, arch: std::env::consts::ARCH.to_owned() })
}

/// The part of the kernel's processes that one job may have: the rest is the machine's own, and the
/// other jobs'.
const PROCESSES_PART: u32 = 4;

/// Most processes of one job on this machine, as configured or by what the kernel can have.
///
/// # Errors
/// [`xos_base::Kind::Invalid`] when nothing could run with what is configured,
/// [`xos_base::Kind::Internal`] when the kernel's limits cannot be read.
pub fn processes(configured: Option<u32>) -> Result<u32, Error> {
    match configured {
        Some(few) if few < PIDS_MIN => Err(Error::invalid(format!(
            "[node] processes is {few}, and no unit can run with fewer than {PIDS_MIN}"
        ))),
        // The kernel takes no larger limit.
        Some(most) => Ok(most.min(kernel_number("pid_max")?)),
        None => {
            let most = kernel_number("pid_max")?.min(kernel_number("threads-max")?);
            Ok((most / PROCESSES_PART).max(PIDS_DEFAULT))
        }
    }
}

fn kernel_number(name: &str) -> Result<u32, Error> {
    let path = format!("/proc/sys/kernel/{name}");
    let text = fs::read_to_string(&path)
        .map_err(|e| Error::internal(format!("cannot read {path}: {e}")))?;
    let number = text.trim().parse::<u32>();
    number.map_err(|_| Error::internal(format!("{path} is no number: {}", text.trim())))
}

fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The names of the machine's own users, so that no grid account takes one. Read from the file,
/// not through NSS: that would ask this very program.
///
/// # Errors
/// [`xos_base::Kind::Internal`] when `/etc/passwd` cannot be read.
pub fn local_users() -> Result<HashSet<String>, Error> {
    let bytes = fs::read("/etc/passwd")
        .map_err(|e| Error::internal(format!("cannot read /etc/passwd: {e}")))?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().filter_map(|l| l.split(':').next()).map(str::to_owned).collect())
}

/// Whether a uid is one of the machine's own users'.
///
/// # Errors
/// As [`local_users`].
pub fn is_local(uid: u32) -> Result<bool, Error> {
    Ok(local_uids()?.contains(&uid))
}

/// The uids of the machine's own users.
///
/// # Errors
/// As [`local_users`].
pub fn local_uids() -> Result<HashSet<u32>, Error> {
    let bytes = fs::read("/etc/passwd")
        .map_err(|e| Error::internal(format!("cannot read /etc/passwd: {e}")))?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().filter_map(|l| l.split(':').nth(2)?.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        let text = "MemFree: 1 kB\nMemTotal:       24576 kB\n";
        assert_eq!(total_memory(text), Some(24576 * 1024));
        assert_eq!(total_memory("MemTotal: x kB"), None);
    }

    #[test]
    fn a_configured_number_of_processes_is_taken_or_refused() {
        // wrong: the administrator's word would not count, or no unit could ever start, and only
        // each person's unit would say so
        assert_eq!(processes(Some(PIDS_MIN)), Ok(PIDS_MIN));
        assert!(processes(Some(u32::MAX)).unwrap() < u32::MAX, "the kernel would refuse the limit");
        let few = processes(Some(PIDS_MIN - 1)).unwrap_err();
        assert!(few.to_string().contains("[node] processes is 2"), "{few}");
    }

    #[test]
    fn this_machine_has_something() {
        let c = capacity(None, None).unwrap();
        assert!(c.cpu_milli >= 1000 && c.memory_bytes > 0 && !c.arch.is_empty());
        assert!(local_users().unwrap().contains("root"));
        assert!(processes(None).unwrap() >= PIDS_DEFAULT);
        assert!(is_local(0).unwrap() && !is_local(1_900_000_001).unwrap());
    }
}
