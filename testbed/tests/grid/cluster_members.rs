//! Members with programs in one cluster: what they reach of one another's, and what becomes of
//! theirs when they are suspended or removed.

mod others;
mod pulse;

use std::time::{Duration, Instant};

use xos_testbed::grid::{Person, SiteSpec};

use self::others::nobody_reaches_into_anothers_program;
pub use self::pulse::{Pulse, as_account};
use crate::cluster::{CLUSTER, PYTHON, nodes_join_and_are_tried};
use crate::signed_in::account;
use crate::tool::Json;
use crate::wire::{Answer, Proof, ask};
use crate::world::{VO, VOLUME, World, sh, soon, soon_within};

/// How long a suspension or removal takes at most until it is in force at every node.
const IN_FORCE_MAX: Duration = Duration::from_secs(5);
/// How long it takes at most until what was held has its right to the volume again: a node looks
/// for rights that are missing every 15 s.
const RIGHT_BACK_MAX: Duration = Duration::from_secs(30);
/// So many processes that want to run fill a node of two processors.
const FILL: usize = 10;
/// The status of a program whose person may not start it.
const REFUSED_STATUS: u64 = 126;
/// What stands in a file that only its person reads.
const WRITTEN: &str = "read-by-ticket";
/// Waits in the kernel, as for a disk, until it is killed: it counts as one that wants to run, and
/// takes no processor. Who starts a program so waits until that has begun, which opens a FIFO.
const STUCK: &str = "
import os
path = f'/dev/shm/{os.getpid()}'
os.mkfifo(path)
opening = (os.POSIX_SPAWN_OPEN, 0, path, os.O_RDONLY, 0)
os.posix_spawn('/bin/true', ['true'], {}, file_actions=[opening])
";

/// If it failed, members of one cluster would not be kept apart, or who may not act any more would
/// go on there: see each step.
#[test]
fn members_are_kept_apart_held_and_ended_in_a_cluster() {
    // Nobody signs in to these nodes: what is held is held without that.
    let cluster_config = "balance = false\n".to_owned();
    let rennes = SiteSpec { cluster: true, cluster_config, ..SiteSpec::new("rennes") };
    let Some(w) = World::with(&rennes, &SiteSpec::new("pisa")) else { return };
    w.step("nodes_join_and_are_tried", nodes_join_and_are_tried);
    w.step("nobody_reaches_into_anothers_program", nobody_reaches_into_anothers_program);
    w.step("a_suspended_member", a_suspended_member);
    w.step("a_removed_member", a_removed_member);
}

/// What a member runs: a program on each node, and a shell on each.
fn all_of<'a>(w: &'a World, person: &Person) -> Vec<Pulse<'a>> {
    let kinds = [("run", 0), ("run", 1), ("shell", 0), ("shell", 1)];
    let of = |(kind, at)| Pulse::begin(w, (person, VO), kind, at, &[]);
    kinds.into_iter().map(of).collect()
}

/// Fills both nodes; what does it, by number.
fn fill(w: &World) -> Vec<u64> {
    let one = |n: usize| {
        let node = if n.is_multiple_of(2) { "n1" } else { "n2" };
        let run = ["--vo", VO, "--json", "cluster", "run", CLUSTER, "--node", node, "--"];
        let ran = w.xos(&w.vera, &[&run[..], &[PYTHON, "-c", STUCK]].concat()).json();
        ran["tree"].as_u64().unwrap()
    };
    (0..2 * FILL).map(one).collect()
}

/// A program of a member that waits until a node has room, and the file that it would then make in
/// their home.
fn waiting(w: &World, person: &Person) -> (u64, String) {
    let run = ["--vo", VO, "--json", "cluster", "run", CLUSTER, "--", "sh", "-c"];
    let mut tries = 0;
    // As long as there is room it runs at once.
    soon("all nodes are full", || {
        tries += 1;
        let name = format!("waited-{tries}");
        let ran = w.xos(person, &[&run[..], &[&format!("touch ~/{name}")]].concat()).json();
        ran["pid"].is_null().then(|| (ran["tree"].as_u64().unwrap(), name))
    })
}

/// A tree, as the site's administrator sees it.
fn seen(w: &World, number: u64) -> Json {
    let said = w.rennes.admin(&["cluster", "ps", "c1", "--json"]).unwrap();
    let ps: Json = serde_json::from_str(&said).unwrap();
    let all = ps["trees"].as_array().expect("trees");
    let found = all.iter().find(|t| t["tree"] == number);
    found.unwrap_or_else(|| panic!("no tree {number}: {ps}")).clone()
}

/// Gives the nodes room again, so that what waits has its turn: it is not begun.
fn turn_comes_in_vain(w: &World, person: &Person, full: &[u64], (waits, name): (u64, &str)) {
    for tree in full {
        w.xos(&w.vera, &["--vo", VO, "cluster", "cancel", CLUSTER, &tree.to_string()]).ok();
    }
    let t = soon("what waited had its turn", || {
        let t = seen(w, waits);
        (t["state"] == "ended" || t["state"] == "lost").then_some(t)
    });
    assert_eq!(t["status"], REFUSED_STATUS, "{t}");
    for node in &w.rennes.nodes {
        let file = format!("/home/xos/{}/{name}", account(person));
        assert!(node.read_file(&file).is_err(), "{file} on {}: it ran", node.name());
    }
}

/// What the VO's home says to who asks for a mandate for the cluster by this certificate.
fn mandate(w: &World, pem: &str) -> Answer {
    let body = format!("{{\"vo\":\"{VO}\",\"cluster\":\"{CLUSTER}\"}}");
    let line = "POST /v1/mandates/cluster";
    ask(&w.laptop(), "rennes", Proof::Certificate(pem), line, body.as_bytes())
}

/// Neither a mandate nor a new program: the member may not act.
fn may_do_nothing(w: &World, person: &Person, pem: &str) {
    let said = mandate(w, pem);
    assert!([401, 403].contains(&said.status), "a mandate is given: {}", said.text);
    let ran = w.xos(person, &["--vo", VO, "cluster", "run", CLUSTER, "--", "true"]);
    assert_ne!(ran.code, 0, "a program was begun: {ran:?}");
}

/// If it failed, who stole a laptop would work on in a cluster; or its owner would lose what they
/// had there, or others be held with them.
fn a_suspended_member(w: &World) {
    let file = format!("{VOLUME}/of-milo");
    let write = format!("umask 077; echo {WRITTEN} > {file}");
    w.xsub(&w.milo, &["--on", "pisa", "--", "sh", "-c", &write]).ok();
    let theirs = all_of(w, &w.milo);
    let beside = Pulse::begin(w, (&w.petra, VO), "run", 0, &[]);
    let full = fill(w);
    let (waits, file_of_it) = waiting(w, &w.milo);
    let pem = w.credential(&w.milo, VO).pem();
    assert_eq!(mandate(w, &pem).status, 200, "refusals would show nothing");
    // By the ticket of who works there.
    let cat = || as_account(&w.rennes.nodes[0], &account(&w.milo), &format!("cat {file}"));
    soon("milo's file is read where milo works", || cat().contains(WRITTEN).then_some(()));
    w.xos(&w.vera, &["vo", "suspend", VO, &w.milo.id(), "-m", "laptop stolen"]).ok();
    let start = Instant::now();
    for pulse in &theirs {
        pulse.stands_still(IN_FORCE_MAX);
    }
    println!("all stood still after {:?}", start.elapsed());
    let then: Vec<Vec<u8>> = theirs.iter().map(Pulse::read).collect();
    may_do_nothing(w, &w.milo, &pem);
    soon("no ticket of milo's serves", || (!cat().contains(WRITTEN)).then_some(()));
    turn_comes_in_vain(w, &w.milo, &full, (waits, &file_of_it));
    for (pulse, then) in theirs.iter().zip(&then) {
        assert_eq!(&pulse.read(), then, "{} went on meanwhile", pulse.what());
        assert_eq!(seen(w, pulse.tree)["state"], "running", "it is held, not ended");
    }
    beside.goes_on();
    w.xos(&w.vera, &["vo", "resume", VO, &w.milo.id()]).ok();
    w.sign_in(&w.milo);
    for pulse in &theirs {
        pulse.goes_on();
    }
    // What was held has its volume again by a mandate that came with a program on the other node.
    w.xos(&w.milo, &["cluster", "run", CLUSTER, "--node", "n2", "--", "true"]).ok();
    soon_within(RIGHT_BACK_MAX, "milo's file is read again where milo works", || {
        cat().contains(WRITTEN).then_some(())
    });
    for pulse in theirs.iter().chain([&beside]) {
        pulse.end();
    }
}

/// If it failed, who left would work on in a cluster, or what others have there end with it.
fn a_removed_member(w: &World) {
    let theirs = all_of(w, &w.petra);
    let beside = Pulse::begin(w, (&w.milo, VO), "run", 0, &[]);
    let full = fill(w);
    let (waits, file_of_it) = waiting(w, &w.petra);
    let pem = w.credential(&w.petra, VO).pem();
    assert_eq!(mandate(w, &pem).status, 200, "refusals would show nothing");
    let uid = sh(&w.rennes.nodes[0], &format!("id -u {}", account(&w.petra)));
    w.xos(&w.vera, &["vo", "remove", VO, &w.petra.id()]).ok();
    let start = Instant::now();
    let none = format!("if pgrep -u {uid} || pgrep -U {uid}; then :; fi");
    for node in &w.rennes.nodes {
        soon_within(IN_FORCE_MAX, "nothing of who was removed runs", || {
            sh(node, &none).is_empty().then_some(())
        });
    }
    println!("all had ended after {:?}", start.elapsed());
    may_do_nothing(w, &w.petra, &pem);
    for pulse in &theirs {
        soon("the cluster knows that it ended", || {
            let t = seen(w, pulse.tree);
            (t["state"] == "ended" || t["state"] == "lost").then_some(())
        });
    }
    turn_comes_in_vain(w, &w.petra, &full, (waits, &file_of_it));
    beside.goes_on();
    beside.end();
}
