//! Control groups of a test's own.

use std::collections::BTreeSet;
use xos_ssi::cgroup::discover::hierarchies;
use xos_ssi::cgroup::{Cgroup, Part, Version};

/// A group of this name without a process, below which there can be limits. `None`, with the reason
/// printed, where this machine gives none.
pub fn own_group(name: &str) -> Option<Cgroup> {
    let text = |path: &str| std::fs::read_to_string(path).unwrap();
    let mut parts = Vec::new();
    for h in hierarchies(&text("/proc/self/mountinfo"), &text("/proc/self/cgroup")) {
        let dir = match h.version {
            Version::V1 => h.own.join(name),
            // Its root may hold processes beside groups with limits.
            Version::V2 => h.point.join(name),
        };
        if std::fs::create_dir(&dir).is_err() {
            continue;
        }
        let wanted = ["cpu", "cpuacct", "memory", "pids", "freezer"];
        let offered = std::fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
        let mut all: BTreeSet<&str> = h.controllers.iter().map(String::as_str).collect();
        all.extend(offered.split_whitespace());
        let controllers = wanted.into_iter().filter(|c| all.contains(c)).map(str::to_owned);
        let controllers: BTreeSet<String> = controllers.collect();
        if h.version == Version::V1 && controllers.is_empty() {
            std::fs::remove_dir(&dir).unwrap();
            continue;
        }
        parts.push(Part { version: h.version, controllers, dir });
    }
    let mut group = Cgroup { parts };
    if let Some(error) = group.delegate() {
        println!("no limits: {error}");
    }
    let has = |c: &str| group.parts.iter().any(|part| part.controllers.contains(c));
    if ["cpu", "memory", "pids"].into_iter().all(has) {
        return Some(group);
    }
    println!("skipped: this machine gives this test no control groups for all limits");
    leave_none(&group);
    None
}

/// Ends what is in the groups below one, and removes all of them.
pub fn leave_none(group: &Cgroup) {
    for name in group.names().unwrap_or_default() {
        let below = group.child(&name);
        if let Err(e) = below.kill().and_then(|()| below.remove()) {
            println!("left behind: {e}");
        }
    }
    if let Err(e) = group.remove() {
        println!("left behind: {e}");
    }
}
