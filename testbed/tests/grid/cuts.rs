//! Machines that are cut off from the network for a minute and come back by themselves.

use std::time::Duration;

use xos_testbed::{Host, Process, Stdio};

use crate::load::RAN;
use crate::tool::{count, state, units};
use crate::world::{COMMAND_MAX, VOLUME, World, sh, soon};

/// How long a cut lasts.
const CUT: Duration = Duration::from_secs(60);
/// The same for the VO's home: longer than a file's operation, and a core's silence, may last.
const HOME_CUT: Duration = Duration::from_secs(45);
/// How long a command takes at most until it is connected.
const CONNECTED_AFTER: Duration = Duration::from_secs(2);
/// Units that run during a cut note that they ran, and outlast it.
const OUTLAST: &str = "echo $XOS_JOB_ID:$XOS_UNIT_INDEX >> /srv/ran; sleep 70; echo $XOS_NODE";
/// Units that end during a cut.
const END: &str = "echo $XOS_JOB_ID:$XOS_UNIT_INDEX >> /srv/ran; \
                   until [ -e /tmp/end ]; do sleep 0.1; done; echo $XOS_NODE";
/// Keeps one file open, writes one record after the other at its place, and says which are on the
/// disk; what is refused is tried again.
const WRITER: &str = r#"use IO::Handle;
open(my $file, '>', $ARGV[0]) or exit 7;
$| = 1;
for (my $n = 0; ! -e '/tmp/enough'; select(undef, undef, undef, 0.05)) {
    my $record = sprintf("%07d\n", $n);
    sysseek($file, 8 * $n, 0) or exit 9;
    if ((syswrite($file, $record) || 0) == 8 && $file->sync) { print $record; $n++ }
    else { print STDERR "record $n not yet: $!\n" }
}
close($file) or exit 8;"#;

/// If it failed, somebody would have to restart services after each fault of a network, or work
/// that went on meanwhile would be lost or done twice.
#[test]
fn who_was_cut_off_for_a_minute_comes_back() {
    let Some(w) = World::new() else { return };
    for node in w.nodes() {
        sh(node, &format!("touch {RAN}; chmod 666 {RAN}"));
    }
    w.step("a_node_and_the_other_sites_core", a_node_and_the_other_sites_core);
    w.step("the_vos_home", the_vos_home);
}

/// If it failed, a site's work would not outlast a cut of its core, or a node's one of itself.
fn a_node_and_the_other_sites_core(w: &World) {
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
    ran_once(w, &running);
    every_node_works(w);
}

/// If it failed, a fault of the one core that owns all jobs, and keeps the names and sizes of all
/// files, would cost what runs meanwhile, what is being written, or a command that waits.
fn the_vos_home(w: &World) {
    let sites = ["rennes", "pisa"];
    let start = |site, command: &[&str]| {
        w.start(&w.milo, &[&["--on", site, "--cpus", "0.1", "--"], command].concat())
    };
    let writers = sites.map(|site| {
        let file = format!("{VOLUME}/records-{site}");
        (start(site, &["perl", "-e", WRITER, &file]), file)
    });
    let ending = sites.map(|site| start(site, &["sh", "-c", END]));
    soon("files are written, and the others run", || {
        let runs = |job: &String| count(&w.json(&w.milo, &["job", "show", job]), "running") == 1;
        let writes = writers.iter().all(|(job, _)| written(w, job) > 0);
        (writes && ending.iter().all(runs)).then_some(())
    });
    let mut waiting = wait_for(w, &ending);
    cut_home(w, &mut waiting);
    let exit = waiting.wait(COMMAND_MAX).unwrap();
    assert!(exit.is_success(), "xwait ended with {exit}");
    for (job, site) in ending.iter().zip(sites) {
        let node = w.run(&w.milo, "xout", &[job]).ok();
        assert!(node.trim().ends_with(&format!(".{site}")), "{job} ran on {node}");
        ran_once(w, job);
    }
    for (job, _) in &writers {
        let first = written(w, job);
        soon("an open file is written again", || (written(w, job) > first).then_some(()));
    }
    on_all(w.nodes(), "touch /tmp/enough");
    for ((job, file), other) in writers.iter().zip(["pisa", "rennes"]) {
        w.run(&w.milo, "xwait", &[job]).ok();
        let told = w.run(&w.milo, "xout", &[job]).ok();
        let there = w.xsub(&w.milo, &["--on", other, "--", "cat", file]).ok();
        assert!(there.starts_with(&told), "{file} holds {there:?}, and was told of {told:?}");
        println!("{file}: {} records on the disk", told.lines().count());
    }
    every_node_works(w);
}

/// Cuts off the core of rennes; work ends meanwhile, and `waiting` waits on.
fn cut_home(w: &World, waiting: &mut Process) {
    w.rennes.core.cut().unwrap();
    on_all(w.nodes(), "touch /tmp/end");
    // The cut's length is what is tested.
    std::thread::sleep(HOME_CUT);
    assert_eq!(waiting.try_wait().unwrap(), None, "xwait gave up, or knew what it could not");
    w.rennes.core.heal().unwrap();
}

/// `xwait` for these jobs, connected.
fn wait_for(w: &World, jobs: &[String]) -> Process {
    let wait = w.milo.command("xwait").args(jobs).stdio(Stdio::LogAs("xwait".parse().unwrap()));
    let mut waiting = w.laptop().spawn(&wait).unwrap();
    std::thread::sleep(CONNECTED_AFTER);
    assert_eq!(waiting.try_wait().unwrap(), None, "xwait does not wait");
    waiting
}

/// How many records a writer has been told to be on the disk, as far as its core knows.
fn written(w: &World, job: &str) -> usize {
    let said = w.run(&w.milo, "xout", &[job]);
    if said.code == 0 { said.out.lines().count() } else { 0 }
}

fn on_all<'a>(hosts: impl Iterator<Item = &'a Host>, script: &str) {
    for host in hosts {
        sh(host, script);
    }
}

/// Every unit of a job is done, and has noted once that it ran.
fn ran_once(w: &World, job: &str) {
    let shown = w.json(&w.milo, &["job", "show", job, "--units"]);
    for unit in units(&shown) {
        assert_eq!(state(unit), "done", "{unit}");
        let line = unit["unit"].as_str().unwrap();
        let ran = |node| sh(node, &format!("grep -cx {line} {RAN} || true"));
        let runs: usize = w.nodes().map(|node| ran(node).parse::<usize>().unwrap()).sum();
        assert_eq!(runs, 1, "{line} ran {runs} times");
    }
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
