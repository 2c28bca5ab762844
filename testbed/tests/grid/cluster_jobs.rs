//! Units of jobs in a cluster over a whole grid; and the commands of the original, as those type
//! them who had it.

use xos_testbed::Host;
use xos_testbed::grid::SiteSpec;

use crate::cluster::{
    CLUSTER, N1, N2, SETTLED_MAX, all_online, comes_back, nodes, nodes_join_and_are_tried,
    saved_twice, tree, trees,
};
use crate::cluster_kinds::follow::{Followed, counted, stop_file};
use crate::cluster_kinds::programs::PIPELINE;
use crate::tool::{Json, Said, job_of, node, state, units};
use crate::world::{COMMAND_MAX, VOLUME, World, soon, soon_within};

/// What a node of the cluster has, in thousandths of a processor; those of pisa have less.
const LARGE_MILLI: u32 = 3000;
/// The same in processors, as people write it, and more than that.
const LARGE: &str = "3";
const TOO_LARGE: &str = "4";
/// Exit codes of the tool: there is no such thing, no site can do it, it is in no state for it.
const NOT_FOUND: i32 = 66;
const UNSATISFIABLE: i32 = 69;
const CONFLICT: i32 = 73;

/// If it failed, jobs would not use a cluster, or lose there what they have elsewhere; or who knew
/// the original could not work with this: see each step.
#[test]
fn jobs_and_old_hands_work_in_a_cluster() {
    let rennes = SiteSpec { cluster: true, cpu_milli: LARGE_MILLI, ..SiteSpec::new("rennes") };
    let Some(w) = World::with(&rennes, &SiteSpec::new("pisa")) else { return };
    w.step("nodes_join_and_are_tried", nodes_join_and_are_tried);
    w.step("a_unit_beyond_all_plain_nodes", a_unit_beyond_all_plain_nodes);
    w.step("a_unit_goes_on_when_its_node_dies", a_unit_goes_on_when_its_node_dies);
    w.step("moved_and_saved_by_the_commands_of_before", moved_and_saved);
    w.step("what_rests_is_restarted_by_hand", what_rests_is_restarted_by_hand);
    w.step("nodes_leave_and_come_by_the_commands_of_before", nodes_leave_and_come);
}

/// If it failed, a job that only a cluster has room for would wait for ever, or its person get
/// another output, status or account than from any other node.
fn a_unit_beyond_all_plain_nodes(w: &World) {
    let script = "echo $XOS_NODE; id -un; echo aside >&2; exit 3";
    // It may be refused until the core knows what the cluster offers.
    let said = soon("the cluster takes units", || {
        let said = w.xsub(&w.milo, &["--cpus", LARGE, "--", "sh", "-c", script]);
        (said.code != UNSATISFIABLE).then_some(said)
    });
    let want = format!("{CLUSTER}\nmilo.demo.rennes\n");
    assert_eq!((said.code, said.out.as_str()), (3, want.as_str()), "{}", said.err);
    assert!(said.err.starts_with("aside\n"), "{}", said.err);
    let job = job_of(&said.err);
    assert_eq!(w.run(&w.milo, "xwait", &[&job]).code, 3, "xwait tells another status");
    assert_eq!(w.run(&w.milo, "xout", &[&job]).ok(), want);
    assert_eq!(w.run(&w.milo, "xout", &[&job, "--stderr"]).ok(), "aside\n");
    let shown = w.json(&w.milo, &["job", "show", &job]);
    let unit = &units(&shown)[0];
    assert_eq!((state(unit), node(unit)), ("failed", CLUSTER), "{unit}");
    let listed = w.run(&w.milo, "xps", &["--json"]).json();
    let jobs = listed.as_array().expect("a list of jobs");
    assert!(jobs.iter().any(|j| j["job"] == job.as_str()), "xps does not list {job}: {listed}");
    // One unit is on one node, however much all nodes have together.
    let larger = w.xsub(&w.milo, &["--on", "rennes", "--cpus", TOO_LARGE, "--", "true"]);
    larger.refused(UNSATISFIABLE, &["no site can run it"]);
}

/// The host of a node of rennes.
fn host<'a>(w: &'a World, node: &str) -> &'a Host {
    &w.rennes.nodes[usize::from(node == N2)]
}

/// What a job's only unit wrote so far, as far as its core knows: so many lines.
fn written(w: &World, job: &str) -> usize {
    let said = w.run(&w.milo, "xout", &[job]);
    if said.code == 0 { counted(&said.out, "a") } else { 0 }
}

/// Has a unit checkpointed, and waits until both nodes have all that a restart needs.
fn copied(w: &World, job: &str, number: u64) {
    let checkpoint = || tree(w, &w.milo, number)["checkpoint"]["version"].as_u64();
    let before = checkpoint();
    soon("its person has it checkpointed", || {
        let asked = w.xos(&w.milo, &["job", "checkpoint", job]);
        (asked.code == 0).then_some(())
    });
    soon("both nodes have a newer checkpoint", || {
        let t = tree(w, &w.milo, number);
        let copies = t["checkpoint"]["copies"].as_u64();
        (checkpoint() > before && copies >= Some(2)).then_some(())
    });
}

/// If it failed, a unit that may be checkpointed would be lost with its node, would do its work
/// twice unseen, or its person would miss some of its output: with the node where it was born,
/// which collects that, or with the one that does so after it.
fn a_unit_goes_on_when_its_node_dies(w: &World) {
    let stop = stop_file("unit");
    let told = format!("STOP={stop}");
    let options = ["--cpus", "1", "--checkpointable", "--chdir", VOLUME, "-E", &told, "--"];
    let job = w.start(&w.milo, &[&options[..], &["sh", "-c", PIPELINE]].concat());
    let t = soon("its unit runs", || {
        let all = trees(w, &w.milo);
        all.into_iter().find(|t| t["argv"][2] == PIPELINE && t["state"] == "running")
    });
    let (number, pid) = (t["tree"].as_u64().unwrap(), t["pid"].to_string());
    let birth = t["node"].as_str().unwrap().to_owned();
    let away = if birth == N1 { N2 } else { N1 };
    soon("it writes", || (written(w, &job) >= 10).then_some(()));
    // Not while it is just being checkpointed.
    soon("its person moves it", || {
        let said = w.xos(&w.milo, &["cluster", "migrate", CLUSTER, &pid, away]);
        (said.code == 0).then_some(())
    });
    copied(w, &job, number);
    let shown = w.json(&w.milo, &["job", "show", &job]);
    let last = &shown["checkpoints"][0]["version"];
    assert!(last.as_u64().is_some(), "no checkpoint is told of: {shown}");
    // The node that collects its output dies, and it goes on.
    let lines = written(w, &job);
    let dies = host(w, &birth);
    dies.crash().unwrap();
    soon_within(SETTLED_MAX, "its output is all where it runs", || {
        (written(w, &job) > lines).then_some(())
    });
    assert_eq!(tree(w, &w.milo, number)["output_at"], away);
    comes_back(w, dies);
    // That one collects it now, and runs it, and dies as well.
    copied(w, &job, number);
    let lines = written(w, &job);
    let dies = host(w, away);
    dies.crash().unwrap();
    soon_within(SETTLED_MAX, "it runs on the other node", || {
        let t = tree(w, &w.milo, number);
        (t["node"] == birth.as_str() && t["state"] == "running").then_some(())
    });
    soon("it writes more", || (written(w, &job) > lines).then_some(()));
    let shown = w.json(&w.milo, &["job", "show", &job]);
    let unit = &units(&shown)[0];
    assert_eq!((state(unit), node(unit)), ("running", CLUSTER), "{unit}");
    w.xsub(&w.milo, &["--on", "pisa", "--", "touch", &stop]).ok();
    w.run(&w.milo, "xwait", &[&job]).ok();
    let text = w.run(&w.milo, "xout", &[&job]).ok();
    assert!(!text.contains("bad") && counted(&text, "a") > lines, "{text}");
    comes_back(w, dies);
}

/// A command of the original's at the core, as the site's administrator.
fn krgadm(w: &World, args: &[&str]) -> Said {
    let cmd = w.rennes.admin.command("krgadm").args(args).limit(COMMAND_MAX);
    Said::of(&w.rennes.core, &cmd, &format!("krgadm {}", args.join(" ")))
}

/// A node's number in the cluster, as people write it.
fn number(w: &World, node: &str) -> String {
    let all = nodes(w);
    let found: Option<&Json> = all.iter().find(|n| n["node"] == node);
    found.unwrap_or_else(|| panic!("no {node}: {all:?}"))["number"].to_string()
}

/// If it failed, scripts and habits of who used the original would not work, or do something else
/// than they did.
fn moved_and_saved(w: &World) {
    let all = krgadm(w, &["cluster", "status"]).ok();
    assert!(all.contains(CLUSTER), "{all}");
    let shown = krgadm(w, &["nodes", "status"]).ok();
    assert!(shown.contains(N1) && shown.contains(N2) && shown.contains("online"), "{shown}");
    let old = |command: &str, args: &[&str]| w.run(&w.milo, command, args);
    let argv = ["sh", "-c", PIPELINE];
    let mut program = Followed::begin(w, "old", &["--node", N1], &argv, &["a"]);
    let pid = program.pid.clone();
    old("migrate", &[&pid, &number(w, N2)]).ok();
    assert_eq!(program.node(), N2);
    program.goes_on();
    old("checkpoint", &["--cluster", CLUSTER, &pid]).ok();
    program.goes_on();
    old("migrate", &[&pid, "n1"]).ok();
    assert_eq!(program.node(), N1);
    program.goes_on();
    old("migrate", &[&pid, "99"]).refused(NOT_FOUND, &["no node 99"]);
    old("migrate", &["1", "n2"]).refused(NOT_FOUND, &["no process 1"]);
    old("checkpoint", &["1"]).refused(NOT_FOUND, &["no process 1"]);
    // What runs is not restarted beside itself.
    old("restart", &[&program.tree.to_string()]).refused(CONFLICT, &["try again"]);
    let busy = w.rennes.admin(&["cluster", "del", "c1", "n1", "--yes"]).unwrap_err();
    assert!(format!("{busy:?}").contains("drain it first"), "{busy:?}");
    let text = program.end();
    assert!(!text.contains("bad"), "{text}");
}

/// If it failed, a program that no node could take when its own failed would stay a checkpoint for
/// ever, or be restarted where the administrator wants nothing.
fn what_rests_is_restarted_by_hand(w: &World) {
    // Its output is collected on the node that stays.
    let kept = ["--node", N2, "--restartable", "--checkpoint-every", "86400"];
    let mut program = Followed::begin(w, "rests", &kept, &["sh", "-c", PIPELINE], &["a"]);
    program.moves_to(N1);
    saved_twice(w, program.tree);
    w.rennes.admin(&["cluster", "drain", "c1", "n2"]).unwrap();
    let n1 = host(w, N1);
    n1.crash().unwrap();
    let number = program.tree.to_string();
    soon_within(SETTLED_MAX, "it rests as a checkpoint", || {
        (tree(w, &w.milo, program.tree)["state"] == "checkpointed").then_some(())
    });
    let restart = |args: &[&str]| w.run(&w.milo, "restart", args);
    restart(&[&number, "n2"]).refused(CONFLICT, &["draining"]);
    assert_ne!(restart(&[&number]).code, 0, "no node takes it");
    w.rennes.admin(&["cluster", "drain", "c1", "n2", "--undo"]).unwrap();
    soon_within(SETTLED_MAX, "it runs again", || {
        // The cluster may have come before.
        restart(&[&number, "n2"]);
        let t = tree(w, &w.milo, program.tree);
        (t["node"] == N2 && t["state"] == "running").then_some(())
    });
    program.goes_on();
    let text = program.end();
    assert!(!text.contains("bad"), "{text}");
    comes_back(w, n1);
}

/// If it failed, an administrator who knew the original could not take nodes out or up, or would
/// end programs by that, or those that stay would not be named.
fn nodes_leave_and_come(w: &World) {
    let argv = ["sh", "-c", PIPELINE];
    let mut moves = Followed::begin(w, "leaves", &["--node", N1], &argv, &["a"]);
    moves.moves_to(N2);
    let shell = ["--json", "cluster", "shell", CLUSTER, "--node", N2, "--", "sleep", "600"];
    let stays = w.xos(&w.milo, &shell).json();
    let leaves = number(w, N2);
    let kept = krgadm(w, &["nodes", "del", "-n", &leaves, "--yes"]);
    let tree = stays["tree"].to_string();
    assert!(kept.code == CONFLICT && kept.err.contains(&format!("tree {tree} ")), "{kept:?}");
    assert_eq!(moves.node(), N1);
    soon("what stays is ended", || {
        (w.xos(&w.milo, &["cluster", "cancel", CLUSTER, &tree]).code == 0).then_some(())
    });
    soon("it leaves once nothing is there", || {
        let said = krgadm(w, &["nodes", "del", "-n", &leaves, "--yes"]);
        (said.code == 0).then_some(())
    });
    moves.goes_on();
    moves.end();
    let shown = krgadm(w, &["nodes", "status"]).ok();
    assert!(shown.contains(N1) && !shown.contains(N2), "{shown}");
    krgadm(w, &["nodes", "add", "--nodes", "n2"]).ok();
    all_online(w);
    let argv = ["sh", "-c", PIPELINE];
    let mut program = Followed::begin(w, "added", &["--node", N1], &argv, &["a"]);
    program.moves_to(N2);
    program.end();
}
