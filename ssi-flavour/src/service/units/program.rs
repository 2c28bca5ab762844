//! What the tree of a unit runs.

use super::table::Next;
use crate::wire::{Program, Staged};
use std::collections::BTreeMap;
use xos_api::cluster::TreeLimits;
use xos_api::node::units::{StartUnits, UnitOrder};
use xos_base::{ClusterId, NodeId};

/// The mask of modes of new files: group and others may read.
const UMASK: u32 = 0o022;
/// Reads and writes files in place of a unit's streams, as the person and where it runs.
const SHELL: &str = "/bin/sh";

/// The program of a unit in a cluster, with a pid of the node where it is born.
pub(super) fn program(next: &Next, cluster: &ClusterId, birth: &NodeId, pid: i32) -> Program {
    let (envelope, task) = (&next.envelope, &next.task);
    let order = StartUnits {
        envelope: next.unit.envelope.clone(),
        vo: envelope.owner.vo.clone(),
        site: envelope.site.clone(),
        ticket: String::new(),
        room: envelope.room,
        task: task.clone(),
        units: Vec::new(),
        want_output: false,
        carried: None,
    };
    let unit = UnitOrder { unit: next.unit.unit, index: next.index, attempt: next.unit.attempt };
    let path = |path: &Option<String>| path.as_ref().map(|p| order.path_of(&unit, p));
    let mut env: BTreeMap<String, String> = task.env.clone();
    // It may move: the node that it names is the cluster.
    if let Ok(node) = cluster.as_str().parse() {
        let own = order.variables(&unit, &node).into_iter();
        env.extend(own.map(|(name, value)| (name.to_owned(), value)));
    }
    let stages = !task.stage_in.is_empty() || !task.stage_out.is_empty();
    let (stage_in, stage_out) = (task.stage_in.clone(), task.stage_out.clone());
    // As on a node that is in no cluster: with files, each unit has a folder of its own.
    let own = || format!("jobs/{}/{}", order.envelope.job, unit.unit);
    let cwd = path(&task.cwd).or_else(|| stages.then(own)).unwrap_or_default();
    let files = [path(&task.stdin), path(&task.stdout), path(&task.stderr)];
    Program {
        argv: redirected(&task.argv, files),
        env,
        cwd,
        umask: UMASK,
        vo: envelope.owner.vo.clone(),
        person: envelope.person.clone(),
        member: envelope.owner.member,
        uid: envelope.owner.uid,
        terminal: false,
        attached: false,
        shell: false,
        own_net: false,
        limits: TreeLimits {
            cpu_milli: Some(task.resources.cpu_milli),
            memory_bytes: Some(task.resources.memory_bytes),
            // Who copies the files is a process more.
            processes: task.limits.processes.map(|n| n.saturating_add(u64::from(stages))),
        },
        each: task.limits,
        staged: stages.then_some(Staged { stage_in, stage_out }),
        pid: Some(pid),
        birth: birth.clone(),
        mandate: None,
        unit: Some(next.unit.clone()),
        carried: next.carried.clone(),
    }
}

/// The program, with files as its input, output and error output where there are some.
fn redirected(argv: &[String], files: [Option<String>; 3]) -> Vec<String> {
    if files.iter().all(Option::is_none) {
        return argv.to_vec();
    }
    let [input, output, error] = files;
    // Two openings of one file would write over one another.
    let both = error.is_some() && error == output;
    let error = error.filter(|_| !both);
    let mut script = String::new();
    let mut given = Vec::new();
    for (file, how) in [(input, "<"), (output, ">"), (error, "2>")] {
        if let Some(file) = file {
            // Names come as arguments: the shell reads nothing in them.
            script += &format!("exec {how}\"$1\" || exit 126; shift; ");
            given.push(file);
        }
    }
    if both {
        script += "exec 2>&1; ";
    }
    script += "exec \"$@\"";
    let shell = [SHELL, "-c", script.as_str(), "sh"].map(str::to_owned);
    shell.into_iter().chain(given).chain(argv.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn run(dir: &std::path::Path, argv: &[&str], files: [Option<&str>; 3]) -> std::process::Output {
        let argv: Vec<String> = argv.iter().map(|a| (*a).to_owned()).collect();
        let argv = redirected(&argv, files.map(|f| f.map(str::to_owned)));
        Command::new(&argv[0]).args(&argv[1..]).current_dir(dir).output().unwrap()
    }

    /// If it failed, a unit's output would go elsewhere than to the file that was asked for, or the
    /// name of a file would be run as a command.
    #[test]
    fn files_take_the_place_of_streams() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        std::fs::write(path.join("in"), "a b\n").unwrap();
        let odd = "$(touch x);\"o";
        let script = "read l; echo \"$l\"; echo \"$0\" >&2";
        let argv = ["sh", "-c", script, "e  e"];
        let plain = run(path, &argv, [Some("in"), None, None]);
        assert_eq!((plain.stdout, plain.stderr), (b"a b\n".to_vec(), b"e  e\n".to_vec()));
        let both = run(path, &argv, [Some("in"), Some(odd), Some(odd)]);
        assert!(both.status.success() && both.stdout.is_empty() && both.stderr.is_empty());
        assert_eq!(std::fs::read_to_string(path.join(odd)).unwrap(), "a b\ne  e\n");
        assert!(!path.join("x").exists());
        let missing = run(path, &["true"], [Some("none"), None, None]);
        assert!(!missing.status.success());
        assert_eq!(redirected(&["a".to_owned()], [None, None, None]), ["a"]);
    }
}
