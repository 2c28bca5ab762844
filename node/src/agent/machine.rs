//! What the machine has: processors, memory, architecture, local accounts.

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
    let bytes = fs::read("/etc/passwd")
        .map_err(|e| Error::internal(format!("cannot read /etc/passwd: {e}")))?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().any(|l| l.split(':').nth(2).is_some_and(|n| n.parse() == Ok(uid))))
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
    fn this_machine_has_something() {
        let c = capacity(None, None).unwrap();
        assert!(c.cpu_milli >= 1000 && c.memory_bytes > 0 && !c.arch.is_empty());
        assert!(local_users().unwrap().contains("root"));
        assert!(is_local(0).unwrap() && !is_local(1_900_000_001).unwrap());
    }
}
