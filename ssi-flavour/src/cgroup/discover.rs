//! Where this process stands in the control group hierarchies: v2, v1, and both at once.
//!
//! Sources: proc_pid_mountinfo(5), cgroups(7), kernel Documentation/admin-guide/cgroup-v2.rst.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

pub use super::Version;

/// Most bytes read of mountinfo; a machine with more mounts than that hides its hierarchies.
pub const MOUNTINFO_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// One mounted hierarchy and our own place in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Its interface.
    pub version: Version,
    /// v1: its controllers. v2: empty here, they stand in the folder's own files.
    pub controllers: BTreeSet<String>,
    /// Where it is mounted.
    pub point: PathBuf,
    /// The folder of the cgroup that we are in.
    pub own: PathBuf,
}

/// The hierarchies in which this process has a visible place, from the texts of
/// `/proc/self/mountinfo` and `/proc/self/cgroup`. Lines that make no sense are passed over.
pub fn hierarchies(mountinfo: &str, own: &str) -> Vec<Hierarchy> {
    let places = places(own);
    let mut found: Vec<Hierarchy> = Vec::new();
    for m in mountinfo.lines().filter_map(mount) {
        let place = places.iter().find(|p| match m.version {
            Version::V2 => p.controllers.is_empty(),
            Version::V1 => p.controllers.iter().any(|c| m.options.contains(c)),
        });
        let Some(place) = place else { continue };
        let Some(own) = below(&m.root, &m.point, &place.path) else { continue };
        let known = |h: &Hierarchy| h.version == m.version && h.controllers == place.controllers;
        if !found.iter().any(known) {
            let controllers = place.controllers.clone();
            found.push(Hierarchy { version: m.version, controllers, point: m.point, own });
        }
    }
    found
}

struct Mount {
    version: Version,
    root: PathBuf,
    point: PathBuf,
    options: BTreeSet<String>,
}

fn mount(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(3);
    let (root, point) = (unescape(left.next()?), unescape(left.next()?));
    let mut right = right.split(' ');
    let version = match right.next()? {
        "cgroup" => Version::V1,
        "cgroup2" => Version::V2,
        _ => return None,
    };
    let options = right.nth(1).unwrap_or("").split(',').map(str::to_owned).collect();
    Some(Mount { version, root: root.into(), point: point.into(), options })
}

struct Place {
    controllers: BTreeSet<String>,
    path: PathBuf,
}

fn places(own: &str) -> Vec<Place> {
    own.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let controllers = parts.next()?.split(',').filter(|c| !c.is_empty());
            let controllers = controllers.map(str::to_owned).collect();
            Some(Place { controllers, path: parts.next()?.into() })
        })
        .collect()
}

/// The folder of the cgroup `path` under a mount that shows the hierarchy from `root` on.
fn below(root: &Path, point: &Path, path: &Path) -> Option<PathBuf> {
    let rest = path.strip_prefix(root).ok()?;
    // "/.." stands for a place outside our cgroup namespace: not reachable.
    rest.components().all(|c| matches!(c, Component::Normal(_))).then(|| point.join(rest))
}

/// Undoes the octal escapes of mountinfo (`\040` for a blank).
fn unescape(s: &str) -> String {
    let mut out = Vec::with_capacity(s.len());
    let bytes = s.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        let code = (bytes[i] == b'\\')
            .then(|| s.get(i + 1..i + 4))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        out.push(code.unwrap_or(bytes[i]));
        i += if code.is_some() { 4 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn pure_v2_under_systemd() {
        // wrong: a Debian 12 machine would have no limits at all
        let h = hierarchies(
            "35 24 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n",
            "0::/system.slice/xosd.service\n",
        );
        assert_eq!(h.len(), 1);
        assert_eq!(h[0].version, Version::V2);
        assert_eq!(h[0].own, Path::new("/sys/fs/cgroup/system.slice/xosd.service"));
    }

    #[test]
    fn hybrid_with_joint_controllers_and_an_own_place() {
        // wrong: limits would be set on the machine's root, or on another's cgroup
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
            32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
            35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
            40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let own = "9:name=systemd:/\n4:memory:/api/x\n2:cpu,cpuacct:/\n0::/\n";
        let h = hierarchies(mounts, own);
        assert_eq!(h.len(), 4);
        assert_eq!(h[0].controllers, set(&["cpu", "cpuacct"]));
        assert_eq!(h[1].own, Path::new("/sys/fs/cgroup/memory/api/x"));
        assert_eq!(h[3].version, Version::V2);
    }

    #[test]
    fn a_mount_that_shows_only_a_part() {
        // wrong: in a container the path would be doubled (/docker/a/docker/a)
        let h = hierarchies(
            "35 24 0:30 /docker/a /sys/fs/cg\\040x rw - cgroup2 cgroup rw\n",
            "0::/docker/a/b\n",
        );
        assert_eq!(h[0].own, Path::new("/sys/fs/cg x/b"));
        let outside = "35 24 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        assert!(hierarchies(outside, "0::/../other\n").is_empty());
    }

    #[test]
    fn nonsense_is_passed_over() {
        // wrong: an odd line would end the daemon
        assert!(hierarchies("\n - \n1 2 3 - cgroup\nä\\9 - cgroup2 x", "::\n0\n\n:").is_empty());
    }
}
