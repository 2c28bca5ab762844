//! Version 2 controllers, which the root of the machine passes on only when they are switched on
//! there.
//!
//! What a testbed switches on there is noted by empty cgroups in its own, `_on.<controller>`: they
//! last as long as what they tell of, also when the testbed's folder is removed. The last testbed
//! switches off what none was there before; one that ends earlier leaves its notes to another.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::{PREFIX, is_gone, make, read_if_there, remove_tree};
use crate::Result;
use crate::error::Context as _;

/// Handed to hosts where the machine has them.
const CONTROLLERS: [&str; 4] = ["cpu", "memory", "pids", "io"];
/// What a note is called at first. No host can be called so.
const NOTE: &str = "_on.";
/// Which controllers there are, and which are passed on to the cgroups below.
const OFFERED: &str = "cgroup.controllers";
const ACTIVE: &str = "cgroup.subtree_control";

/// Passes controllers on to the children of the machine's root, and notes in `root`, a testbed's
/// own cgroup there, which were not passed on before.
pub(super) fn switch_on(mount: &Path, root: &Path) -> Result<()> {
    let _alone = alone(mount)?;
    for name in inactive(mount)? {
        // Before: a crash must not leave what is on and not noted.
        make(&note(root, name))?;
        set(mount, '+', name)?;
    }
    Ok(())
}

/// Passes controllers on to the children of a cgroup of the testbed's.
pub(super) fn hand_down(cgroup: &Path) -> Result<()> {
    inactive(cgroup)?.into_iter().try_for_each(|name| set(cgroup, '+', name))
}

/// Removes `root`, which holds no process any more. What its notes name is switched off, unless
/// another testbed is there, which gets them.
pub(super) fn remove(mount: &Path, root: &Path) -> Result<()> {
    let _alone = alone(mount)?;
    let noted: Vec<&str> =
        CONTROLLERS.into_iter().filter(|name| note(root, name).is_dir()).collect();
    // The notes go last: a failure before leaves what is to be done known.
    for path in folders(root)? {
        if !noted.iter().any(|name| path == note(root, name)) {
            remove_tree(&path)?;
        }
    }
    let mut others = folders(mount)?;
    others.retain(|path| path != root && is_testbed(path));
    for name in noted {
        // What a cgroup passes on cannot be switched off above it.
        set_if_unused(root, name)?;
        match others.first() {
            Some(other) => make(&note(other, name))?,
            // Somebody else may use it by now.
            None => set_if_unused(mount, name)?,
        }
        remove_tree(&note(root, name))?;
    }
    remove_tree(root)
}

/// Keeps other testbeds from going, and from looking what is on, meanwhile.
fn alone(mount: &Path) -> Result<File> {
    let what = || format!("locking {}", mount.display());
    let folder = File::open(mount).context(what)?;
    folder.lock().context(what)?;
    Ok(folder)
}

fn note(root: &Path, name: &str) -> PathBuf {
    root.join(format!("{NOTE}{name}"))
}

fn is_testbed(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PREFIX))
}

/// The controllers that a cgroup has and does not pass on.
fn inactive(cgroup: &Path) -> Result<Vec<&'static str>> {
    let offered = read_if_there(&cgroup.join(OFFERED))?;
    let active = read_if_there(&cgroup.join(ACTIVE))?;
    let has = |list: &str, name: &str| list.split_ascii_whitespace().any(|one| one == name);
    let lacks = |name: &&str| has(&offered, name) && !has(&active, name);
    Ok(CONTROLLERS.into_iter().filter(lacks).collect())
}

fn set(cgroup: &Path, sign: char, name: &str) -> Result<()> {
    std::fs::write(cgroup.join(ACTIVE), format!("{sign}{name}"))
        .context(|| format!("writing {sign}{name} to {}/{ACTIVE}", cgroup.display()))
}

/// Passes a controller on no longer, unless a cgroup below does.
fn set_if_unused(cgroup: &Path, name: &str) -> Result<()> {
    let path = cgroup.join(ACTIVE);
    match File::options()
        .write(true)
        .truncate(true)
        .open(&path)
        .and_then(|mut file| io::Write::write_all(&mut file, format!("-{name}").as_bytes()))
    {
        Err(error) if is_gone(&error) || error.kind() == io::ErrorKind::ResourceBusy => Ok(()),
        other => other.context(|| format!("writing -{name} to {}", path.display())),
    }
}

/// The cgroups directly in one; none when it is gone.
fn folders(cgroup: &Path) -> Result<Vec<PathBuf>> {
    let what = || format!("listing {}", cgroup.display());
    let entries = match std::fs::read_dir(cgroup) {
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        other => other.context(what)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.context(what)?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::{Hierarchy, Tree};
    use super::*;

    fn tree(mount: &Path, name: &str) -> Tree {
        let hierarchies = vec![Hierarchy { mount: mount.to_owned(), v1: None }];
        Tree { base: format!("{PREFIX}{name}").parse().unwrap(), hierarchies }
    }

    /// If it failed, `make stop` would leave controllers on in the root of the machine, or take
    /// them from a testbed that still runs.
    #[test]
    fn the_last_testbed_puts_controllers_back() {
        // Files in the place of the kernel's, which answer with nothing but what was written last.
        let machine = tempfile::tempdir().unwrap();
        let active = machine.path().join(ACTIVE);
        let read = || std::fs::read_to_string(&active).unwrap();
        std::fs::write(machine.path().join(OFFERED), "cpuset cpu io").unwrap();
        std::fs::write(&active, "io").unwrap();
        let noted = |name: &str| {
            let root = machine.path().join(format!("{PREFIX}{name}"));
            CONTROLLERS.into_iter().filter(|one| note(&root, one).is_dir()).collect::<Vec<_>>()
        };
        let (first, second) = (tree(machine.path(), "a"), tree(machine.path(), "b"));
        first.create().unwrap();
        assert_eq!((read().as_str(), noted("a")), ("+cpu", vec!["cpu"]), "only what was off");
        std::fs::write(&active, "cpu io").unwrap();
        second.create().unwrap();
        assert_eq!((read().as_str(), noted("b")), ("cpu io", vec![]), "it was on");

        first.remove().unwrap();
        assert_eq!((read().as_str(), noted("b")), ("cpu io", vec!["cpu"]), "b still needs it");
        assert!(!first.is_there());
        second.remove().unwrap();
        assert_eq!(read(), "-cpu");
        assert!(!second.is_there());
        // Nothing is left to be done: again is no fault, and touches nothing.
        std::fs::write(&active, "cpu io").unwrap();
        second.remove().unwrap();
        assert_eq!(read(), "cpu io", "what somebody else has switched on since stays");
    }
}
