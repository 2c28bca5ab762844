//! Disks that are full: a clear refusal, nothing acknowledged is lost, and when there is room
//! again everything goes on by itself.

use std::collections::BTreeSet;

use xos_testbed::Host;

use crate::faults::{back, kill_all, mounted};
use crate::tool::{Json, Said, state, units};
use crate::world::{VO, VOLUME, World, sh, soon};

/// Where all state of an `xosd` lies.
const STATE: &str = "/var/lib/xos";
/// Room on the disk beyond what is there, in MiB.
const ROOM_MIB: u64 = 24;
/// Requests after which a full disk must have shown: each takes at least some bytes.
const REQUESTS_MAX: usize = 400;
/// The signal that stands for output beyond what there is room for.
const SIGXFSZ: u8 = 25;

/// If it failed, a full disk would lose what people were told is safe, or need somebody who
/// restarts services.
#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    let Some(w) = World::new() else { return };
    w.step("a_core_whose_disk_is_full", a_core_whose_disk_is_full);
    w.step("a_node_whose_disk_is_full", a_node_whose_disk_is_full);
}

fn a_core_whose_disk_is_full(w: &World) {
    let core = &w.rennes.core;
    kill_all(core, "xosd", Some("run"));
    small_disk(core);
    w.rennes.start_core().unwrap();
    back(&w.rennes);
    soon("the site takes work", || (w.xsub(&w.milo, &["--", "true"]).code == 0).then_some(()));
    // Not `:`, at whose redirection a shell gives up by itself.
    let maker = format!(
        "cd {VOLUME} && mkdir many && cd many && for i in $(seq 100000); do \
         true > file-$i || exit 5; echo $i; [ -e ../stop ] && exit 6; done"
    );
    let maker = w.start(&w.milo, &["--on", "pisa", "--", "sh", "-c", &maker]);
    soon("files are made", || {
        let said = w.run(&w.milo, "xout", &[&maker]);
        said.out.lines().any(|l| l == "5").then_some(())
    });
    fill(core);
    let jobs =
        until_full(|n| w.xsub(&w.milo, &["--detach", "--name", &format!("j{n}"), "--", "true"]));
    let people = until_full(|n| {
        let add = w.rennes.admin.command("xos");
        let add = add.args(["person", "add", &format!("p{n}"), "--password-file", "-"]);
        Said::of(core, &add.stdin("a long password"), "xos person add")
    });
    let groups = until_full(|n| w.xos(&w.vera, &["vo", "group", "create", VO, &format!("g{n}")]));
    for (what, asked) in [("jobs", &jobs), ("people", &people), ("groups", &groups)] {
        println!("{} {what} were acknowledged; the next refused: {}", asked.said.len(), asked.full);
    }
    // A registry's file may have room inside; each job has a record of its own in the journal.
    assert!(jobs.full, "{REQUESTS_MAX} jobs found room on a full disk");
    sh(core, &format!("rm {STATE}/fill"));
    soon("the site takes work again", || {
        (w.xsub(&w.milo, &["--", "true"]).code == 0).then_some(())
    });
    for said in jobs.said {
        w.run(&w.milo, "xwait", &[said.trim()]).ok();
    }
    let listed = w.rennes.admin(&["person", "list"]).unwrap();
    for n in 0..people.said.len() {
        assert!(listed.contains(&format!("p{n}@rennes")), "p{n} was acknowledged: {listed}");
    }
    let there = w.json(&w.vera, &["vo", "show", VO]).to_string();
    for n in 0..groups.said.len() {
        assert!(there.contains(&format!("\"g{n}\"")), "g{n} was acknowledged: {there}");
    }
    files_agree(w, &maker);
    w.serves();
}

/// What a program was told of its files is so: it ended with the file that it could not make, and
/// was told why.
fn files_agree(w: &World, maker: &str) {
    w.run(&w.milo, "xkill", &[maker]);
    let code = w.run(&w.milo, "xwait", &[maker]).code;
    let told = w.run(&w.milo, "xout", &[maker, "--stderr"]).ok();
    assert!(code == 5 && told.contains("No space left"), "the maker ended with {code}: {told}");
    let said = w.run(&w.milo, "xout", &[maker]).ok();
    let made: BTreeSet<u32> = said.lines().filter_map(|l| l.parse().ok()).collect();
    let script = format!("cd {VOLUME}/many && ls | sed 's/file-//'");
    let there = w.xsub(&w.milo, &["--", "sh", "-c", &script]).ok();
    let there: BTreeSet<u32> = there.lines().filter_map(|l| l.parse().ok()).collect();
    assert!(there.is_superset(&made), "made and lost: {:?}", made.difference(&there));
    println!("{} files were made", made.len());
}

fn a_node_whose_disk_is_full(w: &World) {
    let node = &w.pisa.nodes[0];
    kill_all(node, "xosd", Some("run"));
    kill_all(node, "xosd", Some("mount"));
    small_disk(node);
    w.pisa.start_node(node).unwrap();
    back(&w.pisa);
    mounted(node);
    fill(node);
    let wide =
        ["--on", "pisa", "--array", "0-1", "--cpus", "2", "--", "sh", "-c", "seq 3000; sleep 1"];
    let job = w.start(&w.milo, &wide);
    // What runs there ends, with its reason; the other node is not held up.
    soon("the other node works", || {
        let shown = w.json(&w.milo, &["job", "show", &job, "--units"]);
        let there = |u: &Json| u["state"]["node"] == "n2.pisa" && state(u) == "done";
        units(&shown).iter().any(there).then_some(())
    });
    sh(node, &format!("rm {STATE}/fill"));
    w.run(&w.milo, "xwait", &[&job]);
    let shown = w.json(&w.milo, &["job", "show", &job, "--units"]);
    for unit in units(&shown) {
        println!("{}", unit["state"]);
        assert!(state(unit) == "done" || failed_for_room(unit), "{unit}");
    }
    let job = w.start(&w.milo, &wide);
    w.run(&w.milo, "xwait", &[&job]).ok();
    let whole = w.run(&w.milo, "xout", &[&job]).ok();
    assert_eq!(whole.lines().filter(|l| *l == "3000").count(), 2, "output is missing");
}

/// Whether a unit failed since its node's disk is full, and says so.
fn failed_for_room(unit: &Json) -> bool {
    let end = &unit["state"]["end"];
    let reason = end["reason"].as_str().unwrap_or_default().to_lowercase();
    let named = ["space", "full", "disk"].iter().any(|word| reason.contains(word));
    let cut_off = end["end"] == "signal" && end["signal"] == SIGXFSZ;
    state(unit) == "failed" && (cut_off || (end["end"] == "not_started" && named))
}

/// Moves the state to a disk that is nearly as small as the state.
fn small_disk(host: &Host) {
    sh(
        host,
        &format!(
            "set -e; used=$(du -sm {STATE} | cut -f1); cp -a {STATE} /root/was; \
             mount -t tmpfs -o mode=755,size=$((used + {ROOM_MIB}))m none {STATE}; \
             cp -a /root/was/. {STATE}/; rm -r /root/was"
        ),
    );
}

/// Takes all room that is left.
fn fill(host: &Host) {
    let said = sh(host, &format!("head -c 1G /dev/zero > {STATE}/fill 2>&1 || true; df {STATE}"));
    assert!(said.contains("100%"), "there is still room: {said}");
}

/// What was asked of a full disk.
struct Asked {
    /// What was said to those requests that were acknowledged, in order.
    said: Vec<String>,
    /// Whether the next one was refused since the disk is full.
    full: bool,
}

/// Asks again and again until one request is refused for the disk.
fn until_full(mut ask: impl FnMut(usize) -> Said) -> Asked {
    let mut said = Vec::new();
    for n in 0..REQUESTS_MAX {
        let answer = ask(n);
        if answer.code == 0 {
            said.push(answer.out);
            continue;
        }
        let told = answer.err.contains("full") || answer.err.contains("o space left");
        assert!(told && [69, 75].contains(&answer.code), "{answer:?}");
        return Asked { said, full: true };
    }
    Asked { said, full: false }
}
