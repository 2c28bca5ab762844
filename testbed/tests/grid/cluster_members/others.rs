//! What one member tries with the program of another, or of another VO, in the same cluster.

use xos_testbed::grid::Person;

use super::pulse::{Pulse, as_account};
use crate::cluster::{CLUSTER, N1};
use crate::signed_in::account;
use crate::tool::Said;
use crate::world::{VO, World, sh, soon};

/// A VO that vera founds beside the first one, of which milo is no member.
const OTHER: &str = "other.rennes";
/// What stands in the environment of each program that is pried into.
const SECRET: &str = "tell-tale-of-the-owner";
/// Where nodes have their seats in clusters.
const SEATS: &str = "/var/lib/xos/node/cluster";
/// The exit code of the tool when there is no such thing.
const NOT_FOUND: i32 = 66;

/// If it failed, a member would see, end, move or read what is another's, or another VO's.
pub fn nobody_reaches_into_anothers_program(w: &World) {
    found_other(w);
    let secret = format!("TELL={SECRET}");
    let kept = ["-E", &secret, "--restartable", "--checkpoint-every", "86400"];
    let of_petra = Pulse::begin(w, (&w.petra, VO), "run", 0, &kept);
    let of_other = Pulse::begin(w, (&w.vera, OTHER), "run", 0, &kept);
    let owners = [(&w.petra, VO, &of_petra), (&w.vera, OTHER, &of_other)];
    // So that there are images; one that writes a file just then is asked again.
    for (person, vo, pulse) in owners {
        let args = ["--vo", vo, "cluster", "checkpoint", CLUSTER, &pulse.pid];
        soon("a checkpoint is made", || (w.xos(person, &args).code == 0).then_some(()));
    }
    // By milo of the first VO; and vera, acting in that, is nobody to what she has in the other.
    for (who, whose) in [(&w.milo, &of_petra), (&w.milo, &of_other), (&w.vera, &of_other)] {
        nothing_by_the_core(w, who, whose);
    }
    for (owner, vo, whose) in owners {
        nothing_from_within(w, whose);
        nothing_at_the_node(w, &format!("{}.{vo}", owner.name), whose);
    }
    for (_, _, whose) in owners {
        whose.goes_on();
        whose.end();
    }
}

fn found_other(w: &World) {
    w.xos(&w.vera, &["vo", "found", "other", "--title", "Others"]).ok();
    let offer = ["vo", "share", "offer", OTHER, "--cpus", "1", "--memory", "1G", "--storage", "1G"];
    w.rennes.admin(&offer).unwrap();
    w.xos(&w.vera, &["vo", "share", "accept", OTHER, &w.rennes.name]).ok();
    w.sign_in(&w.vera);
}

/// The core shows nothing of it to somebody else, and does nothing with it.
fn nothing_by_the_core(w: &World, who: &Person, whose: &Pulse) {
    let (tree, pid) = (whose.tree.to_string(), whose.pid.as_str());
    let tries = |more: &[&str]| -> Said {
        let head = ["--vo", VO, "cluster", more[0], CLUSTER];
        w.xos(who, &[&head[..], &more[1..]].concat())
    };
    for said in [
        tries(&["attach", &tree]),
        tries(&["attach", pid]),
        tries(&["kill", pid, "-s", "KILL"]),
        tries(&["migrate", pid, "n2"]),
        tries(&["checkpoint", pid]),
        tries(&["why", pid]),
        tries(&["cancel", &tree]),
        tries(&["restart", &tree]),
    ] {
        said.refused(NOT_FOUND, &["of yours"]);
    }
    let shown = w.json(who, &["--vo", VO, "cluster", "ps", CLUSTER]);
    for list in ["trees", "processes"] {
        let all = shown[list].as_array().expect("a list");
        assert!(!all.iter().any(|one| one["tree"] == whose.tree), "{list}: {shown}");
    }
}

/// Does each of these, and names those that worked.
fn worked(tries: &[String]) -> String {
    let each = tries.iter().map(|one| format!("({one}) >/dev/null 2>&1 && echo '{one}'\n"));
    each.collect::<String>() + "echo end"
}

/// A program of milo's in the same cell finds nothing of it.
fn nothing_from_within(w: &World, whose: &Pulse) {
    let pid = &whose.pid;
    let tries = [
        format!("kill -0 {pid}"),
        format!("kill -TERM {pid}"),
        format!("ls -d /proc/{pid}"),
        format!("cat /proc/{pid}/cmdline"),
        format!("cat /proc/{pid}/environ"),
        format!("ls /proc | grep -x {pid}"),
        format!("grep -rqs {SECRET} /proc/[0-9]*/environ"),
        "ls /proc/1/root/".to_owned(),
        format!("ls {SEATS}"),
    ];
    let script = worked(&tries);
    let run = ["--vo", VO, "cluster", "run", CLUSTER, "--node", N1, "--", "sh", "-c", &script];
    assert_eq!(w.xos(&w.milo, &run).ok(), "end\n", "of {}", whose.what());
}

/// Nor does milo's own account at the node, as it has it by ssh: neither in the cell, nor of the
/// agent, nor on the disk.
fn nothing_at_the_node(w: &World, owner: &str, whose: &Pulse) {
    let (host, outer) = (whose.node, whose.outer());
    assert!(outer.parse::<u32>().is_ok(), "one process, not {outer:?}");
    let init = sh(host, "pgrep -x xos-cell");
    let seat = sh(host, &format!("ls -d {SEATS}/{CLUSTER}-*"));
    let of_tree = format!("{seat}/images/{}", whose.tree);
    let image = sh(host, &format!("find {of_tree} -name 'pages-*.img' | head -n 1"));
    assert!(!image.is_empty(), "no image below {of_tree}");
    // What is refused below is there, for who it is for.
    sh(host, &format!("test -s {image}"));
    let own = as_account(host, owner, &format!("cat /proc/{outer}/environ"));
    assert!(own.contains(SECRET), "the owner sees it: {own:?}");
    let connect = "perl -MIO::Socket::UNIX -e \"exit !IO::Socket::UNIX->new(Peer => shift)\"";
    let open = format!("{connect} /run/xos/cluster/{CLUSTER}/place.sock && echo reached");
    let said = as_account(host, &account(&w.milo), &open);
    assert_eq!(said, "reached\n", "that socket is for everybody");
    let tries = [
        format!("kill -0 {outer}"),
        format!("kill -TERM {outer}"),
        format!("cat /proc/{outer}/environ"),
        format!("ls /proc/{outer}/fd/"),
        format!("ls /proc/{outer}/root/"),
        format!("ls /proc/{init}/root/"),
        format!("ls /proc/{init}/fd/"),
        format!("ls {SEATS}"),
        format!("ls {seat}"),
        format!("ls {of_tree}"),
        format!("cat {image}"),
        format!("{connect} {seat}/agent.sock"),
        format!("{connect} {seat}/cell/cell.sock"),
        format!("{connect} {seat}/views.sock"),
    ];
    let said = as_account(host, &account(&w.milo), &worked(&tries));
    assert_eq!(said, "end\n", "of {}", whose.what());
    // None of it hangs on one closed folder alone.
    let open = format!(
        "find {seat} \\( -type d -o -path '*/images/*' -o -path '*/spools/*' -o -type s \\) \
         \\( -perm /077 -o ! -uid 0 \\)"
    );
    assert_eq!(sh(host, &open), "", "others reach these, or own them");
}
