//! Machines that are cut off from the network for a minute and come back by themselves.

use std::time::Duration;

use crate::load::RAN;
use crate::tool::{count, state, units};
use crate::world::{VOLUME, World, sh, soon};

/// How long a cut lasts.
const CUT: Duration = Duration::from_secs(60);
/// Units that run during a cut note that they ran, and outlast it.
const OUTLAST: &str = "echo $XOS_JOB_ID:$XOS_UNIT_INDEX >> /srv/ran; sleep 70; echo $XOS_NODE";

/// If it failed, somebody would have to restart services after each fault of a network, or work
/// that went on meanwhile would be lost or done twice.
#[test]
fn who_was_cut_off_for_a_minute_comes_back() {
    let Some(w) = World::new() else { return };
    for node in w.nodes() {
        sh(node, &format!("touch {RAN}; chmod 666 {RAN}"));
    }
    let file = format!("{VOLUME}/kept");
    w.xsub(&w.milo, &["--", "sh", "-c", &format!("echo before > {file}")]).ok();
    // One unit on each of the four nodes.
    let wide = ["--array", "0-3", "--cpus", "2", "--", "sh", "-c", OUTLAST];
    let running = w.start(&w.milo, &wide);
    soon("every node works", || {
        let shown = w.json(&w.milo, &["job", "show", &running]);
        (count(&shown, "running") == 4).then_some(())
    });
    let away = [&w.rennes.nodes[0], &w.pisa.core];
    for host in away {
        host.cut().unwrap();
    }
    let waiting = w.start(&w.petra, &["--on", "pisa", "--", "cat", &file]);
    let here = w.start(&w.milo, &["--on", "rennes", "--cpus", "0.1", "--", "cat", &file]);
    // The cut's length is what is tested.
    std::thread::sleep(CUT);
    for host in away {
        host.heal().unwrap();
    }
    // Nobody restarts anything, and nobody asks for anything again.
    w.run(&w.petra, "xwait", &[&waiting]).ok();
    w.run(&w.milo, "xwait", &[&here, &running]).ok();
    for (person, job) in [(&w.petra, &waiting), (&w.milo, &here)] {
        assert_eq!(w.run(person, "xout", &[job]).ok(), "before\n");
    }
    let shown = w.json(&w.milo, &["job", "show", &running, "--units"]);
    for unit in units(&shown) {
        assert_eq!(state(unit), "done", "{unit}");
        let line = unit["unit"].as_str().unwrap();
        let ran = |node| sh(node, &format!("grep -cx {line} {RAN} || true"));
        let runs: usize = w.nodes().map(|node| ran(node).parse::<usize>().unwrap()).sum();
        assert_eq!(runs, 1, "{line} ran {runs} times");
    }
    every_node_works(&w);
}

/// One unit on each node reads and writes the volume.
fn every_node_works(w: &World) {
    let script =
        format!("echo $XOS_NODE > {VOLUME}/after.$XOS_NODE; cat {VOLUME}/after.$XOS_NODE; sleep 1");
    let job = w.start(&w.milo, &["--array", "0-3", "--cpus", "2", "--", "sh", "-c", &script]);
    w.run(&w.milo, "xwait", &[&job]).ok();
    let out = w.run(&w.milo, "xout", &[&job]).ok();
    let mut nodes: Vec<&str> = out.lines().collect();
    nodes.sort_unstable();
    assert_eq!(nodes, ["n1.pisa", "n1.rennes", "n2.pisa", "n2.rennes"]);
}
