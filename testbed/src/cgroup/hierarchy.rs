use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Version 1 controllers that hosts get; version 2 is always passed on.
const CONTROLLERS_V1: [&str; 5] = ["cpu", "cpuacct", "memory", "pids", "freezer"];
const CGROUP_DIR: &str = "/sys/fs/cgroup";

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hierarchy {
    /// Where the machine has it.
    pub(super) mount: PathBuf,
    /// Mount options that name a version 1 hierarchy; `None` for version 2.
    pub(super) v1: Option<String>,
}

impl Hierarchy {
    /// Its place below `/sys/fs/cgroup`, in a host too; empty when it is that folder itself.
    pub(crate) fn place(&self) -> Option<&Path> {
        self.mount.strip_prefix(CGROUP_DIR).ok()
    }

    /// Options that name a version 1 hierarchy; `None` for version 2.
    pub(crate) fn options(&self) -> Option<&str> {
        self.v1.as_deref()
    }

    pub(super) fn has_freezer(&self) -> bool {
        self.v1.as_deref().is_some_and(|options| options.split(',').any(|one| one == "freezer"))
    }
}

/// The hierarchies of /proc/self/mountinfo (proc(5)) that hosts get, each once.
pub(super) fn find(mountinfo: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((front, back)) = line.split_once(" - ") else { continue };
        let Some(mount) = front.split(' ').nth(4) else { continue };
        let mut back = back.split(' ');
        let (Some(kind), Some(options)) = (back.next(), back.nth(1)) else { continue };
        let v1 = match kind {
            "cgroup2" => None,
            "cgroup" => {
                let names: Vec<&str> =
                    options.split(',').filter(|one| CONTROLLERS_V1.contains(one)).collect();
                if names.is_empty() {
                    continue;
                }
                Some(names.join(","))
            }
            _ => continue,
        };
        let hierarchy = Hierarchy { mount: PathBuf::from(mount), v1 };
        let known = found.iter().any(|other| other.v1 == hierarchy.v1);
        if hierarchy.place().is_some() && !known {
            found.push(hierarchy);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, hosts would miss a controller, or get one twice.
    #[test]
    fn hierarchies_are_found_in_mountinfo() {
        let text = "\
30 23 0:27 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
32 30 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
33 30 0:30 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw,nsdelegate
34 30 0:28 / /elsewhere rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 30 0:31 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio
";
        let v1 = Hierarchy {
            mount: "/sys/fs/cgroup/cpu,cpuacct".into(),
            v1: Some("cpu,cpuacct".to_owned()),
        };
        let v2 = Hierarchy { mount: "/sys/fs/cgroup/unified".into(), v1: None };
        assert_eq!(find(text), [v1, v2]);
        let only = "30 23 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw";
        assert_eq!(find(only)[0].place(), Some(Path::new("")));
    }
}
