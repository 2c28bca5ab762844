//! Nodes of a site that work as one machine.

use crate::faults::mounted;
use crate::tool::Json;
use crate::world::{COMMAND_MAX, VOLUME, World, sh, soon, soon_within};
use std::time::Duration;
use xos_testbed::grid::{Person, SiteSpec};
use xos_testbed::{Exit, Host};

/// The cluster of every test.
pub const CLUSTER: &str = "c1.rennes";
/// Its nodes.
pub const N1: &str = "n1.rennes";
pub const N2: &str = "n2.rennes";
/// Debian's, which all nodes have.
pub const PYTHON: &str = "/usr/bin/python3";
/// How long nodes may take until they are there by new times, or after a death: they wait for what
/// ran before, and are tried.
pub const SETTLED_MAX: Duration = Duration::from_secs(150);
/// Its pid and a number, line by line, into a file of its own on the volume.
const COUNT: &str = "n=0; while :; do echo $$ $n; n=$((n+1)); sleep 0.05; done";

/// If it failed, nodes of a site would not be one machine: see each step.
#[test]
fn nodes_of_a_site_are_one_machine() {
    let rennes = SiteSpec { cluster: true, ..SiteSpec::new("rennes") };
    let Some(w) = World::with(&rennes, &SiteSpec::new("pisa")) else { return };
    w.step("nodes_join_and_are_tried", nodes_join_and_are_tried);
    w.step("a_program_is_as_if_it_ran_here", a_program_is_as_if_it_ran_here);
    w.step("a_program_moves_and_keeps_its_pid", a_program_moves_and_keeps_its_pid);
}

/// The trees of the cluster that a person sees.
pub fn trees(w: &World, person: &Person) -> Vec<Json> {
    let ps = w.json(person, &["cluster", "ps", CLUSTER]);
    ps["trees"].as_array().expect("trees").clone()
}

/// The same, one of them.
pub fn tree(w: &World, person: &Person, number: u64) -> Json {
    let all = trees(w, person);
    all.into_iter().find(|t| t["tree"] == number).expect("the tree")
}

/// The nodes as the site's administrator sees them.
pub fn nodes(w: &World) -> Vec<Json> {
    let said = w.rennes.admin(&["cluster", "nodes", "c1", "--json"]).unwrap();
    let view: Json = serde_json::from_str(&said).unwrap();
    view["nodes"].as_array().expect("a list").clone()
}

/// Waits until both nodes take programs.
pub fn all_online(w: &World) {
    soon_within(SETTLED_MAX, "both nodes are online", || {
        let nodes = nodes(w);
        (nodes.len() == 2 && nodes.iter().all(|n| n["state"] == "online")).then_some(())
    });
}

/// What a node's agent keeps of its place; null: nothing.
pub fn place(host: &Host) -> Json {
    let text = sh(host, "cat /var/lib/xos/node/cluster/*/agent.json || true");
    let kept: Json = serde_json::from_str(&text).unwrap_or_default();
    kept["agent"].clone()
}

/// The term by which a node joined the cluster last: another one each time. None: nothing is kept.
pub fn term(host: &Host) -> Option<u64> {
    place(host)["term"].as_u64()
}

/// Boots a node that crashed, and waits until the cluster has it again.
pub fn comes_back(w: &World, host: &Host) {
    host.restart().unwrap();
    w.rennes.start_node(host).unwrap();
    mounted(host);
    all_online(w);
}

/// Has a checkpoint of a program of milo's made, and waits until both nodes have it.
pub fn saved_twice(w: &World, number: u64) {
    let version = || tree(w, &w.milo, number)["checkpoint"]["version"].as_u64();
    let (before, pid) = (version(), tree(w, &w.milo, number)["pid"].to_string());
    // One that cannot be made at just this moment is asked for again.
    soon("a checkpoint is made", || {
        let said = w.xos(&w.milo, &["cluster", "checkpoint", CLUSTER, &pid]);
        (said.code == 0 && version() > before).then_some(())
    });
    soon("the other node has the checkpoint too", || {
        let t = tree(w, &w.milo, number);
        t["checkpoint"]["copies"].as_u64().is_some_and(|n| n >= 2).then_some(())
    });
}

/// If it failed, nodes could not be taken up, or programs would move to where they cannot run.
pub fn nodes_join_and_are_tried(w: &World) {
    w.rennes.admin(&["cluster", "create", "c1"]).unwrap();
    w.rennes.admin(&["cluster", "add", "c1", "n1", "n2"]).unwrap();
    all_online(w);
    println!("{}", w.rennes.admin(&["cluster", "nodes", "c1"]).unwrap());
}

/// If it failed, who runs a program in a cluster would miss output, input, or how it ended.
fn a_program_is_as_if_it_ran_here(w: &World) {
    let script =
        "read a; echo \"got $a\"; cat | wc -c; echo wrong >&2; pwd; echo $HOME $USER; exit 7";
    let input = format!("first\n{}", "x".repeat(300_000));
    let cmd = w.milo.command("xos").args(["cluster", "run", CLUSTER, "--", "sh", "-c", script]);
    let out = w.laptop().run(&cmd.stdin(input.as_bytes()).limit(COMMAND_MAX)).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let home = "/home/xos/milo.demo.rennes milo.demo.rennes";
    assert_eq!(text(&out.stdout), format!("got first\n300000\n/\n{home}\n"), "{out:?}");
    assert_eq!((text(&out.stderr).as_str(), out.exit), ("wrong\n", Exit::Code(7)));
    let killed = w.xos(&w.milo, &["cluster", "run", CLUSTER, "--", "sh", "-c", "kill -9 $$"]);
    assert_eq!(killed.code, 137, "{killed:?}");
    let line = format!(
        "xos cluster run {CLUSTER} -- seq 200000 | xos cluster run {CLUSTER} -- sort -n | tail -n 1"
    );
    assert_eq!(w.run(&w.milo, "sh", &["-c", &line]).ok().trim(), "200000");
}

/// If it failed, a program would lose its place, its pid, its files or its work on its way.
fn a_program_moves_and_keeps_its_pid(w: &World) {
    let script = format!("exec >> {VOLUME}/milo.txt; {COUNT}");
    let args = ["--json", "cluster", "run", CLUSTER, "--cwd", VOLUME, "--", "sh", "-c", &script];
    let run = w.xos(&w.milo, &args).json();
    let (number, pid) = (run["tree"].as_u64().unwrap(), run["pid"].as_i64().unwrap());
    let pid_text = pid.to_string();
    soon("it runs", || (tree(w, &w.milo, number)["state"] == "running").then_some(()));
    let node = run["node"].as_str().unwrap();
    let other = if node == N1 { N2 } else { N1 };
    counted(w, pid, 10);
    let why = w.xos(&w.milo, &["cluster", "why", CLUSTER, &pid_text]);
    println!("{}", why.ok());
    for to in [other, node] {
        w.xos(&w.milo, &["cluster", "migrate", CLUSTER, &pid_text, to]).ok();
        let t = tree(w, &w.milo, number);
        assert_eq!((t["pid"].as_i64(), t["node"].as_str()), (Some(pid), Some(to)));
        let before = counted(w, pid, 0);
        counted(w, pid, before + 10);
    }
    w.xos(&w.milo, &["cluster", "kill", CLUSTER, &pid_text, "-s", "KILL"]).ok();
    soon("it ended", || (tree(w, &w.milo, number)["state"] == "ended").then_some(()));
}

/// How many lines are in the file, once there are `many`: one process counted from 0.
fn counted(w: &World, pid: i64, many: usize) -> usize {
    soon("lines are written", || {
        let file = format!("{VOLUME}/milo.txt");
        let text = w.xsub(&w.milo, &["--on", "rennes", "--", "cat", &file]).ok();
        let lines: Vec<&str> = text.lines().collect();
        for (n, line) in lines.iter().enumerate() {
            assert_eq!(*line, format!("{pid} {n}"));
        }
        (lines.len() >= many).then_some(lines.len())
    })
}
