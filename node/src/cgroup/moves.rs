//! Moving processes between control groups without waiting.

use super::discover::{MOUNTINFO_BYTES_MAX, Version};
use super::{discover, read};
use crate::programs;
use std::path::Path;
use std::time::Duration;

/// How long the mount's change may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Of util-linux; the options that the mount has, which it is told to keep, it reads of the kernel.
const MOUNT: &str = "/usr/bin/mount";

/// Has the kernel move processes at once. Else it waits before each move, for some 5 to 15 ms, until
/// every processor has heard that none may fork meanwhile (`cgroup_threadgroup_rwsem`,
/// kernel/cgroup/cgroup.c), and each first unit of a job and each session waits with it. With the
/// option `favordynmods` of the hierarchy of version 2 (Linux 6.0, cgroup-v2.rst) it waits once and
/// for all, and forks cost a little more. It counts for all hierarchies, and from Linux 6.18 on
/// until the machine starts anew.
///
/// # Errors
/// Why it cannot be had here, as in a container.
pub async fn favor_moves() -> Result<(), String> {
    let text =
        |path: &str| read(Path::new(path), MOUNTINFO_BYTES_MAX).map_err(|e| format!("{path}: {e}"));
    let all = discover::hierarchies(&text("/proc/self/mountinfo")?, &text("/proc/self/cgroup")?);
    let v2 = all.into_iter().find(|h| h.version == Version::V2);
    let point = v2.ok_or("no hierarchy of version 2 is mounted")?.point;
    let arguments = ["--options-source", "mtab", "-o", "remount,favordynmods", "--"]
        .map(str::to_owned)
        .into_iter();
    let arguments: Vec<String> = arguments.chain([point.display().to_string()]).collect();
    programs::run(MOUNT, &arguments, LIMIT).await.map_err(|why| format!("{MOUNT}: {why}"))?;
    // In a namespace of control groups the kernel passes over the option without a word.
    let favored = text("/proc/self/mountinfo")?.lines().any(|line| line.contains("favordynmods"));
    if favored { Ok(()) } else { Err("the kernel does not take it here".to_owned()) }
}
