//! What fails under programs of a cluster: daemons, networks, agents, cells, the programs of a
//! move; and times that are changed under them.

mod moves;
mod odd;

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use xos_testbed::Host;
use xos_testbed::grid::SiteSpec;

use crate::cluster::{
    CLUSTER, N1, N2, SETTLED_MAX, all_online, nodes, nodes_join_and_are_tried, place, saved_twice,
    term, tree,
};
use crate::cluster_kinds::follow::Followed;
use crate::cluster_kinds::programs::PIPELINE;
use crate::cluster_members::Pulse;
use crate::faults::{back, find, kill_all, mounted};
use crate::signed_in::account;
use crate::tool::Json;
use crate::world::{VO, World, sh, soon, soon_within};

/// Times of a cluster: until a node is suspect and dead, in milliseconds, and its lease by these,
/// in whole seconds. Those of before a change are 3000 and 8000.
struct Times {
    suspect_ms: u64,
    dead_ms: u64,
    lease_s: u64,
}
const LONGER: Times = Times { suspect_ms: 4000, dead_ms: 40_000, lease_s: 34 };
const SHORTER: Times = Times { suspect_ms: 2000, dead_ms: 5000, lease_s: 4 };
/// More than the time after which a node counts as dead that was, less than the longer one.
const CUT: Duration = Duration::from_secs(15);
/// Less than the lease by the longer time, and far more than that by the shorter one.
const STILL_MAX: Duration = Duration::from_secs(25);
/// For programs of which checkpoints are made when the test asks for one.
const KEPT: [&str; 3] = ["--restartable", "--checkpoint-every", "86400"];

/// If it failed, the end of a daemon or of a network would be that of people's programs, or there
/// would be two of one: see each step.
#[test]
fn programs_outlive_daemons_and_cuts() {
    let cluster_config = "balance = false\n".to_owned();
    let rennes = SiteSpec { cluster: true, cluster_config, ..SiteSpec::new("rennes") };
    let Some(w) = World::with(&rennes, &SiteSpec::new("pisa")) else { return };
    w.step("nodes_join_and_are_tried", nodes_join_and_are_tried);
    w.step("daemons_end_and_no_program_does", daemons_end_and_no_program_does);
    w.step("a_cut_off_nodes_copy_stands_still", a_cut_off_nodes_copy_stands_still);
    w.step("nodes_take_other_times", nodes_take_other_times);
}

/// Runs a program on a node with more options; its number.
fn begun(w: &World, node: &str, options: &[&str], argv: &[&str]) -> u64 {
    let run = ["--json", "cluster", "run", CLUSTER, "--node", node];
    let ran = w.xos(&w.milo, &[&run[..], options, &["--"], argv].concat()).json();
    let number = ran["tree"].as_u64().expect("a number");
    soon("it runs", || (tree(w, &w.milo, number)["state"] == "running").then_some(()));
    number
}

/// Ends a host's `xosd` by a signal, and waits until it is gone.
fn end_daemon(host: &Host, signal: Signal) {
    let pids = find(host, "xosd", Some("run"));
    assert!(!pids.is_empty(), "no xosd on {}", host.name());
    for pid in &pids {
        host.kill(*pid, signal).unwrap();
    }
    let gone = |pid: &i32| !Path::new(&format!("/proc/{pid}")).exists();
    soon("xosd is gone", || pids.iter().all(gone).then_some(()));
}

/// If it failed, nobody could bring `xosd` up to date without ending what people run, or who
/// follows a program would have to come back by hand, or miss something.
fn daemons_end_and_no_program_does(w: &World) {
    // Its output goes from one node to the other.
    let argv = ["sh", "-c", PIPELINE];
    let mut program = Followed::begin(w, "daemons", &["--node", N1], &argv, &["a"]);
    program.moves_to(N2);
    let agents = || -> Vec<i32> {
        w.rennes.nodes.iter().flat_map(|host| find(host, "xos-agent", None)).collect()
    };
    let before = agents();
    assert_eq!(before.len(), 2, "one agent on each node");
    for signal in [Signal::KILL, Signal::TERM] {
        for host in &w.rennes.nodes {
            end_daemon(host, signal);
            // Nobody brings its output meanwhile: the node has no way to the others.
            w.rennes.start_node(host).unwrap();
            back(&w.rennes);
            program.goes_on();
        }
        end_daemon(&w.rennes.core, signal);
        w.rennes.start_core().unwrap();
        back(&w.rennes);
        program.goes_on();
        assert_eq!(program.node(), N2);
        assert_eq!(agents(), before, "an agent was begun anew");
    }
    w.rennes.nodes.iter().for_each(mounted);
    let text = program.end();
    assert!(!text.contains("bad"), "{text}");
}

/// SIGSTOP in a set of signals of /proc.
const STOP: u64 = 1 << 18;

/// The pids on the machine of all processes of a user in a host that do not stand still: neither
/// stopped nor, while they wait for the volume, about to be before they do anything more.
fn live(host: &Host, uid: u32) -> Vec<i32> {
    let lives = |pid: &i32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let of = |key: &str| text.lines().find_map(|l| l.strip_prefix(key)).unwrap_or("").trim();
        let theirs = of("Uid:").split_whitespace().next() == Some(&*uid.to_string());
        let pends = |key: &str| u64::from_str_radix(of(key), 16).is_ok_and(|set| set & STOP != 0);
        let stops = pends("ShdPnd:") || pends("SigPnd:");
        theirs && !stops && !of("State:").starts_with(['T', 't', 'Z', 'X'])
    };
    let mut pids = host.pids().unwrap();
    pids.retain(lives);
    pids
}

fn uid_of_milo(w: &World) -> u32 {
    sh(&w.rennes.nodes[0], &format!("id -u {}", account(&w.milo))).parse().unwrap()
}

/// If it failed, a node whose cable is pulled would go on with programs that run elsewhere by then,
/// would keep what it has when it is back, or take along what could go on.
fn a_cut_off_nodes_copy_stands_still(w: &World) {
    let uid = uid_of_milo(w);
    // Its output is collected on the node that stays.
    let options = [&["--node", N2][..], &KEPT].concat();
    let mut program = Followed::begin(w, "cut", &options, &["sh", "-c", PIPELINE], &["a"]);
    program.moves_to(N1);
    saved_twice(w, program.tree);
    let plain = begun(w, N1, &[], &["sleep", "4001"]);
    program.goes_on();
    let n1 = &w.rennes.nodes[0];
    n1.cut().unwrap();
    soon_within(SETTLED_MAX, "it runs on the other node", || {
        let t = tree(w, &w.milo, program.tree);
        (t["node"] == N2 && t["state"] == "running").then_some(())
    });
    let second = live(n1, uid).into_iter().map(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ")
    });
    let second: Vec<String> = second.collect();
    assert!(second.is_empty(), "a copy runs on the node that is cut off: {second:?}");
    let t = tree(w, &w.milo, plain);
    let why = t["reason"].as_str().unwrap_or_default();
    assert!(t["state"] == "lost" && !why.is_empty(), "{t}");
    program.goes_on();
    n1.heal().unwrap();
    all_online(w);
    soon("nothing is left of what the node had", || {
        let all = sh(n1, &format!("pgrep -U {uid} || true"));
        all.is_empty().then_some(())
    });
    program.goes_on();
    let text = program.end();
    assert!(!text.contains("bad"), "{text}");
}

/// Has the core work by other times of suspect and dead nodes.
fn set_times(w: &World, Times { suspect_ms, dead_ms, lease_s }: Times) {
    let (core, path) = (&w.rennes.core, "/etc/xos/xosd.toml");
    let before: Vec<Option<u64>> = w.rennes.nodes.iter().map(term).collect();
    let config = String::from_utf8(core.read_file(path).unwrap()).unwrap();
    let other = |line: &&str| !line.starts_with("suspect_ms") && !line.starts_with("dead_ms");
    let config: Vec<&str> = config.lines().filter(other).collect();
    let times = format!("[cluster]\nsuspect_ms = {suspect_ms}\ndead_ms = {dead_ms}");
    let config = config.join("\n").replacen("[cluster]", &times, 1);
    core.write_file(path, config.as_bytes(), 0o600).unwrap();
    kill_all(core, "xosd", Some("run"));
    w.rennes.start_core().unwrap();
    back(&w.rennes);
    for (node, before) in w.rennes.nodes.iter().zip(before) {
        soon_within(SETTLED_MAX, "the node has joined by these times", || {
            let by_these = place(node)["lease"]["secs"] == lease_s;
            (by_these && term(node) > before).then_some(())
        });
    }
    all_online(w);
}

/// If it failed, nodes would work on by times that the core does not have: two copies of a program
/// would run, or programs stand still for nothing; or a change would cost more than is said.
fn nodes_take_other_times(w: &World) {
    let n1 = &w.rennes.nodes[0];
    let plain = begun(w, N1, &[], &["sleep", "4002"]);
    let kept = begun(w, N1, &KEPT, &["sleep", "4003"]);
    saved_twice(w, kept);
    set_times(w, LONGER);
    let state = |number: u64| tree(w, &w.milo, number)["state"].clone();
    soon_within(SETTLED_MAX, "what is restartable goes on", || {
        (state(kept) == "running").then_some(())
    });
    assert!(["lost", "ended"].iter().any(|s| state(plain) == *s), "{}", tree(w, &w.milo, plain));
    w.xos(&w.milo, &["cluster", "cancel", CLUSTER, &kept.to_string()]).ok();

    // A cut that would have been its end ends nothing now.
    let pulse = Pulse::begin(w, (&w.milo, VO), "run", 0, &[]);
    n1.cut().unwrap();
    // The cut's length is what is tested.
    std::thread::sleep(CUT);
    pulse.goes_on();
    let seen: Vec<Json> = nodes(w).iter().map(|n| n["state"].clone()).collect();
    assert_eq!(seen, ["suspect", "online"]);
    n1.heal().unwrap();
    all_online(w);
    pulse.goes_on();
    assert_eq!(state(pulse.tree), "running");

    // And one that would have been none is one.
    set_times(w, SHORTER);
    let pulse = Pulse::begin(w, (&w.milo, VO), "run", 0, &[]);
    n1.cut().unwrap();
    pulse.stands_still(STILL_MAX);
    soon("the node has failed", || (nodes(w)[0]["state"] == "failed").then_some(()));
    let left = live(n1, uid_of_milo(w));
    assert!(left.is_empty(), "what runs without a lease: {left:?}");
    n1.heal().unwrap();
    all_online(w);
}
