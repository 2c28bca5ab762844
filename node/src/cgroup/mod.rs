//! Control groups of envelopes, on v1, v2 and mixed machines.
//!
//! Everything lies below the cgroup in which the daemon was started, in a folder named after the
//! instance. Where that is, and one group by itself, is [`xos_ssi::cgroup`]'s.

mod moves;

pub use moves::favor_moves;
pub use xos_ssi::cgroup::discover;
pub use xos_ssi::cgroup::{
    Cgroup as EnvelopeCgroup, CgroupError, CgroupUsage as EnvelopeUsage, Part,
};

use crate::spec::EnvelopeId;
use discover::{Hierarchy, MOUNTINFO_BYTES_MAX, Version};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use xos_ssi::cgroup::FILE_BYTES_MAX;
use xos_ssi::cgroup::files::{make, read, remove, write};

/// The controllers that envelopes use, where the machine has them.
pub const WANTED: [&str; 5] = ["cpu", "cpuacct", "memory", "pids", "freezer"];

/// The place for envelopes' cgroups on this machine.
#[derive(Clone, Debug)]
pub struct Cgroups {
    parts: Vec<Part>,
    /// Why v2 controllers that exist here could not be had.
    trouble: Option<String>,
}

impl Cgroups {
    /// Finds the hierarchies and makes the instance's folder in each. On v2 this moves the daemon
    /// into the leaf `<instance>.daemon`, because a cgroup with controllers for its children may
    /// hold no process itself.
    ///
    /// `instance` keeps several daemons on one machine apart. `parent` names another place than
    /// the daemon's own cgroup, as a path below the mount point of v2: a cgroup that was given to
    /// the daemon and holds no process itself. With envelopes below its own cgroup a daemon cannot
    /// be started again by systemd, which would have to put it beside them ("no internal
    /// processes" in the kernel's cgroup-v2.rst). v1 has no such rule.
    ///
    /// # Errors
    /// [`CgroupError::NoHierarchy`], or the first folder that cannot be made.
    pub fn prepare(instance: &EnvelopeId, parent: Option<&Path>) -> Result<Cgroups, CgroupError> {
        let mountinfo = read(Path::new("/proc/self/mountinfo"), MOUNTINFO_BYTES_MAX)?;
        let own = read(Path::new("/proc/self/cgroup"), FILE_BYTES_MAX)?;
        let mut hierarchies = discover::hierarchies(&mountinfo, &own);
        if let Some(parent) = parent {
            let parent = parent.strip_prefix("/").unwrap_or(parent);
            let v2 = hierarchies.iter_mut().filter(|h| h.version == Version::V2);
            v2.for_each(|h| h.own = h.point.join(parent));
        }
        Cgroups::prepare_in(instance, &hierarchies)
    }

    /// As [`Cgroups::prepare`], in the given hierarchies.
    ///
    /// # Errors
    /// As [`Cgroups::prepare`].
    pub fn prepare_in(
        instance: &EnvelopeId,
        hierarchies: &[Hierarchy],
    ) -> Result<Cgroups, CgroupError> {
        let mut made = Cgroups { parts: Vec::new(), trouble: None };
        for h in hierarchies {
            match h.version {
                Version::V1 => {
                    let controllers = wanted(h.controllers.iter().map(String::as_str));
                    if !controllers.is_empty() {
                        made.add(h.version, controllers, h.own.join(instance.as_str()))?;
                    }
                }
                Version::V2 => made.prepare_v2(instance, &h.own)?,
            }
        }
        if made.parts.is_empty() { Err(CgroupError::NoHierarchy) } else { Ok(made) }
    }

    fn add(
        &mut self,
        version: Version,
        controllers: BTreeSet<String>,
        dir: PathBuf,
    ) -> Result<(), CgroupError> {
        make(&dir)?;
        self.parts.push(Part { version, controllers, dir });
        Ok(())
    }

    fn prepare_v2(&mut self, instance: &EnvelopeId, own: &Path) -> Result<(), CgroupError> {
        let leaf = format!("{instance}.daemon");
        // After a restart from within, we are in the leaf already.
        let base = match own.file_name() {
            Some(name) if *name == *leaf => own.parent().unwrap_or(own),
            _ => own,
        };
        let offered = read(&base.join("cgroup.controllers"), FILE_BYTES_MAX)?;
        let mut controllers = wanted(offered.split_whitespace());
        let dir = base.join(instance.as_str());
        if !controllers.is_empty() {
            // Only where we live is there somebody to move out of the way.
            if read(&base.join("cgroup.procs"), FILE_BYTES_MAX)?.lines().any(is_me) {
                let leaf = base.join(leaf);
                make(&leaf)?;
                write(&leaf, "cgroup.procs", "0")?;
            }
            make(&dir)?;
            let enable = |on: &str| {
                write(base, "cgroup.subtree_control", on)
                    .and_then(|()| write(&dir, "cgroup.subtree_control", on))
            };
            let all: Vec<String> = controllers.iter().map(|c| format!("+{c}")).collect();
            if let Err(e) = enable(&all.join(" ")) {
                // Most often other processes share our cgroup: then none can be had, and only
                // killing and freezing work. One alone may be refused too: "cpu" with real-time
                // processes about.
                self.trouble = Some(e.to_string());
                controllers.retain(|c| enable(&format!("+{c}")).is_ok());
            }
        }
        self.add(Version::V2, controllers, dir)
    }

    /// Controllers that no hierarchy gives us, of those that limits need; and why, where known.
    pub fn missing(&self) -> (Vec<&'static str>, Option<&str>) {
        let has = |c: &str| self.parts.iter().any(|p| p.controllers.contains(c));
        let missing = ["cpu", "memory", "pids"].into_iter().filter(|c| !has(c)).collect();
        (missing, self.trouble.as_deref())
    }

    /// Where the envelope's cgroup lies or will lie. Makes nothing.
    pub fn envelope(&self, id: &EnvelopeId) -> EnvelopeCgroup {
        self.own().child(id.as_str())
    }

    /// The folder of a process in the hierarchy by which processes are stopped, from the texts of
    /// `/proc/self/mountinfo` and of the process's `cgroup`; `None`: it cannot be seen from here.
    pub fn place(&self, mountinfo: &str, list: &str) -> Option<PathBuf> {
        let part = self.stopping()?;
        let mut all = discover::hierarchies(mountinfo, list).into_iter();
        let stops = |h: &Hierarchy| h.version == Version::V2 || h.controllers.contains("freezer");
        all.find(|h| h.version == part.version && stops(h)).map(|h| h.own)
    }

    /// The name of this instance's cgroup in which a process is, by its [`Cgroups::place`]; `None`:
    /// it is in none.
    pub fn name_at(&self, place: &Path) -> Option<String> {
        let below = place.strip_prefix(&self.stopping()?.dir).ok()?;
        below.components().next()?.as_os_str().to_str().map(str::to_owned)
    }

    /// The instance's own cgroup.
    fn own(&self) -> EnvelopeCgroup {
        EnvelopeCgroup { parts: self.parts.clone() }
    }

    fn stopping(&self) -> Option<&Part> {
        let v2 = self.parts.iter().find(|p| p.version == Version::V2);
        v2.or_else(|| self.parts.iter().find(|p| p.controllers.contains("freezer")))
    }

    /// The names of the cgroups of this instance that begin with `prefix`.
    ///
    /// # Errors
    /// The first folder that cannot be listed.
    pub fn names(&self, prefix: &str) -> Result<BTreeSet<String>, CgroupError> {
        let mut names = self.own().names()?;
        names.retain(|name| name.starts_with(prefix));
        Ok(names)
    }

    /// Removes the instance's folders, when no envelope is left. Leaves the daemon's leaf.
    ///
    /// # Errors
    /// The first folder that cannot be removed.
    pub fn remove(&self) -> Result<(), CgroupError> {
        self.parts.iter().try_for_each(|p| remove(&p.dir))
    }
}

fn is_me(pid: &str) -> bool {
    pid.parse() == Ok(std::process::id())
}

fn wanted<'a>(from: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    from.filter(|c| WANTED.contains(c)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Limits;

    /// A folder that stands for a v2 hierarchy; its files take whatever is written.
    fn v2(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    fn text(dir: &tempfile::TempDir, name: &str) -> String {
        std::fs::read_to_string(dir.path().join(name)).unwrap()
    }

    #[test]
    fn v2_delegates_and_takes_its_own_process_out_of_the_way() {
        // wrong: on a machine with systemd no envelope could be limited
        let me = std::process::id();
        let dir = v2(&[
            ("cgroup.controllers", "cpuset cpu io memory pids\n"),
            ("cgroup.procs", &format!("1\n{me}\n")),
            ("cgroup.subtree_control", ""),
            ("xos.daemon/cgroup.procs", ""),
            ("xos/cgroup.subtree_control", ""),
            ("xos/1.a/cpu.max", ""),
            ("xos/1.a/memory.max", ""),
            ("xos/1.a/memory.swap.max", ""),
            ("xos/1.a/pids.max", ""),
        ]);
        let point = dir.path().to_owned();
        let at = |own: PathBuf| {
            let controllers = BTreeSet::new();
            Hierarchy { version: Version::V2, controllers, point: point.clone(), own }
        };
        // first start, and a restart from within the leaf
        for own in [point.clone(), point.join("xos.daemon")] {
            let made = Cgroups::prepare_in(&"xos".parse().unwrap(), &[at(own)]).unwrap();
            assert_eq!(made.missing(), (vec![], None));
            assert_eq!(text(&dir, "xos.daemon/cgroup.procs"), "0");
            assert_eq!(text(&dir, "cgroup.subtree_control"), "+cpu +memory +pids");
            assert_eq!(text(&dir, "xos/cgroup.subtree_control"), "+cpu +memory +pids");
            let e = made.envelope(&"1.a".parse().unwrap());
            let limits = Limits { cpu_millis: Some(1500), memory_bytes: Some(9 << 20), pids: 7 };
            e.create(&limits).unwrap();
            assert_eq!(text(&dir, "xos/1.a/cpu.max"), "150000 100000");
            assert_eq!(text(&dir, "xos/1.a/memory.max"), "9437184");
            assert_eq!(text(&dir, "xos/1.a/memory.swap.max"), "0");
            assert_eq!(text(&dir, "xos/1.a/pids.max"), "7");
        }
    }

    #[test]
    fn v2_below_another_cgroup_leaves_the_daemon_where_it_is() {
        // wrong: systemd could not start the daemon again while envelopes are there
        let dir = v2(&[
            ("given/cgroup.controllers", "cpu memory pids\n"),
            ("given/cgroup.procs", ""),
            ("given/cgroup.subtree_control", ""),
            ("given/xos/cgroup.subtree_control", ""),
        ]);
        let (point, own) = (dir.path().to_owned(), dir.path().join("given"));
        let given = Hierarchy { version: Version::V2, controllers: BTreeSet::new(), point, own };
        let made = Cgroups::prepare_in(&"xos".parse().unwrap(), &[given]).unwrap();
        assert_eq!(made.missing(), (vec![], None));
        assert_eq!(text(&dir, "given/cgroup.subtree_control"), "+cpu +memory +pids");
        assert!(!dir.path().join("given/xos.daemon").exists());
        assert_eq!(text(&dir, "given/cgroup.procs"), "");
    }

    #[test]
    fn a_process_is_found_in_the_hierarchy_that_stops_it() {
        // wrong: who is held would be moved again and again, or units out of their envelopes
        let part = |version, controllers: &[&str], dir: &str| Part {
            version,
            controllers: controllers.iter().map(|c| (*c).to_owned()).collect(),
            dir: dir.into(),
        };
        let freezer = part(Version::V1, &["freezer"], "/cg/freezer/a/xos");
        let memory = part(Version::V1, &["memory"], "/cg/memory/a/xos");
        let unified = part(Version::V2, &[], "/cg/unified/a/xos");
        let mounts = "32 31 0:29 / /cg/memory rw - cgroup cgroup rw,memory\n\
            33 31 0:30 / /cg/freezer rw - cgroup cgroup rw,freezer\n\
            41 31 0:38 / /cg/unified rw - cgroup2 cgroup2 rw\n";
        let list = "4:memory:/a/xos/no\n3:freezer:/a/xos/f/g\n0::/a/xos/u\n";
        let name = |parts: &[&Part], list: &str| {
            let parts = parts.iter().map(|p| (*p).clone()).collect();
            let all = Cgroups { parts, trouble: None };
            all.place(mounts, list).and_then(|place| all.name_at(&place))
        };
        assert_eq!(name(&[&memory, &freezer, &unified], list).as_deref(), Some("u"));
        assert_eq!(name(&[&memory, &freezer], list).as_deref(), Some("f"));
        assert_eq!(name(&[&memory], list), None);
        for elsewhere in ["0::/\n", "0::/a/xos\n", "0::/a/xosx/u\n", "0::/../x\n", ""] {
            assert_eq!(name(&[&unified], elsewhere), None, "{elsewhere:?}");
        }
    }

    #[test]
    fn a_limit_without_a_controller_is_refused() {
        // wrong: a fork bomb would run in an envelope that only looks limited
        let dir = v2(&[("cgroup.controllers", "\n")]);
        let own = dir.path().to_owned();
        let (point, controllers) = (own.clone(), BTreeSet::new());
        let bare = [Hierarchy { version: Version::V2, controllers, point, own }];
        let made = Cgroups::prepare_in(&"xos".parse().unwrap(), &bare).unwrap();
        assert_eq!(made.missing().0, ["cpu", "memory", "pids"]);
        let e = made.envelope(&"1.a".parse().unwrap());
        assert!(matches!(e.create(&Limits::default()), Err(CgroupError::NoController(_))));
        assert!(Cgroups::prepare_in(&"xos".parse().unwrap(), &[]).is_err());
    }
}
