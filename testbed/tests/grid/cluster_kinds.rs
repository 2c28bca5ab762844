//! What kinds of programs move between nodes of a cluster, and what becomes of them when a node
//! fails or is drained.

pub mod follow;
pub mod programs;

use std::path::PathBuf;

use xos_testbed::grid::SiteSpec;
use xos_testbed::{Cmd, Host};

use self::follow::{Followed, counted, stop_file};
use self::programs::{
    CLIENT, CONNECTED, FAMILY, FILES, JAVA, LOGGED, PERL, PIPELINE, R, SERVER, THREADS, TYPED,
};
use crate::cluster::{
    CLUSTER, N1, N2, PYTHON, comes_back, nodes_join_and_are_tried, saved_twice, tree, trees,
};
use crate::manual::terminal::Typist;
use crate::tool::Json;
use crate::world::{VOLUME, World, soon};

/// If it failed, what people run would not move as the documents say: see each step.
#[test]
fn all_kinds_of_programs_move() {
    let rennes = SiteSpec { cluster: true, ..SiteSpec::new("rennes") };
    // Nodes that die here have no files of others.
    let Some(w) = World::storing(&rennes, &SiteSpec::new("pisa"), &["pisa"]) else { return };
    w.step("nodes_join_and_are_tried", nodes_join_and_are_tried);
    w.step("threads_move", threads_move);
    w.step("a_family_moves", a_family_moves);
    w.step("a_pipeline_moves", a_pipeline_moves);
    w.step("perl_moves", perl_moves);
    w.step("a_jvm_moves", a_jvm_moves);
    w.step("r_moves", r_moves);
    w.step("open_files_move", open_files_move);
    w.step("a_terminal_moves", a_terminal_moves);
    w.step("connections_move_in_a_network_of_its_own", connections_move_in_a_network_of_its_own);
    w.step("connections_between_nodes_move", connections_between_nodes_move);
    w.step("a_drain_ends_nothing", a_drain_ends_nothing);
    w.step("a_failed_nodes_program_goes_on", a_failed_nodes_program_goes_on);
    w.step("a_failed_nodes_log_has_each_line_once", a_failed_nodes_log_has_each_line_once);
    w.step("what_was_written_over_is_asked_about", what_was_written_over_is_asked_about);
}

/// Runs a program, has it move there and back, and ends it; all that it wrote.
fn there_and_back(w: &World, name: &str, argv: &[&str], counters: &[&str]) -> String {
    let mut program = Followed::begin(w, name, &["--node", N1], argv, counters);
    program.moves_to(N2);
    program.moves_to(N1);
    program.end()
}

/// If it failed, only a program's first thread would go on, or threads would lose their places.
fn threads_move(w: &World) {
    there_and_back(w, "threads", &[PYTHON, "-c", THREADS], &["a", "b", "c", "d"]);
}

/// If it failed, children would stay behind, or their parents not learn how they ended.
fn a_family_moves(w: &World) {
    let text = there_and_back(w, "family", &["sh", "-c", FAMILY], &["a", "b", "c"]);
    assert!(text.ends_with("left 3\nleft 0\n"), "{text}");
}

/// If it failed, what lay in a pipe between two processes would be lost or read twice.
fn a_pipeline_moves(w: &World) {
    let text = there_and_back(w, "pipeline", &["sh", "-c", PIPELINE], &["a"]);
    assert!(!text.contains("bad"), "{text}");
}

/// If it failed, one more language that people use would not move.
fn perl_moves(w: &World) {
    there_and_back(w, "perl", &["perl", "-e", PERL], &["a"]);
}

/// If it failed, a JVM with all of its threads would not move, as that of the original did not.
fn a_jvm_moves(w: &World) {
    let compiler = "java --list-modules | grep -q '^jdk.compiler'";
    if !has(&w.rennes.nodes[0], compiler) {
        println!("not tried: no JVM that reads sources; make deps-test gets one");
        return;
    }
    let source = write(w, "Count.java", JAVA);
    let argv = ["java", "-XX:-UsePerfData", "-Xmx128m", &source];
    there_and_back(w, "java", &argv, &["a", "b", "c", "d"]);
}

/// If it failed, R would not move, with which the original's users did most of their work.
fn r_moves(w: &World) {
    if !has(&w.rennes.nodes[0], "Rscript --version") {
        println!("not tried: no R; make deps-test gets it");
        return;
    }
    let source = write(w, "count.R", R);
    there_and_back(w, "r", &["Rscript", &source], &["a"]);
}

/// If it failed, a program would write into its files at other places after a move, or lose them.
fn open_files_move(w: &World) {
    let text = there_and_back(w, "files", &[PYTHON, "-c", FILES], &["a"]);
    let count = counted(&text, "a");
    let log: String = (0..count).map(|n| format!("{n}\n")).collect();
    assert_eq!(read(w, "files.log"), log);
    assert_eq!(read(w, "files.dat"), format!("{:08}", count - 1));
}

/// If it failed, a program would lose its person's terminal on its way.
fn a_terminal_moves(w: &World) {
    let (laptop, stop) = (w.laptop(), stop_file("typed"));
    let script = write(w, "typed.py", TYPED);
    // As who milo is to `xos` here.
    let line = format!(
        "export HOME=/home/milo XOS_HOME=/home/milo/.xos; \
         stty rows 30 cols 90; xos cluster run {CLUSTER} -t --node n1 --cwd {VOLUME} -E STOP={stop} -- {PYTHON} {script}"
    );
    let answers = [("first? ", "one"), ("second? ", "two")];
    let answers = answers.map(|(asked, said)| (asked.to_owned(), said.to_owned()));
    let root = root(&laptop);
    std::thread::scope(|scope| {
        let typing = scope.spawn(|| {
            Typist { host: &laptop, root: &root, user: None, cwd: "/" }.types(&line, &answers)
        });
        soon("the first answer was read", || {
            let ls = w.xsub(&w.milo, &["--on", "pisa", "--", "ls", VOLUME]).ok();
            ls.contains("typed.ready").then_some(())
        });
        let all = trees(w, &w.milo);
        let t = all.iter().find(|t| t["state"] == "running").expect("the only one that runs");
        let pid = t["pid"].to_string();
        let moved = [N2, N1].map(|to| w.xos(&w.milo, &["cluster", "migrate", CLUSTER, &pid, to]));
        // First of all it is to end, or nobody here would.
        w.xsub(&w.milo, &["--on", "pisa", "--", "touch", &stop]).ok();
        let said = typing.join().unwrap();
        for one in moved {
            one.ok();
        }
        assert_eq!(said.code, 0, "{}", said.out);
        assert!(counted(&said.out, "t") > 0, "{}", said.out);
        assert!(said.out.contains("got one two True"), "{}", said.out);
    });
}

/// If it failed, a program with connections within itself could not move, or people would not be
/// told how it could; or an attempt would break connections that stay.
fn connections_move_in_a_network_of_its_own(w: &World) {
    let (argv, counters) = ([PYTHON, "-c", CONNECTED], ["a"]);
    let mut stays = Followed::begin(w, "stays", &["--node", N1], &argv, &counters);
    let why = w.xos(&w.milo, &["cluster", "why", CLUSTER, &stays.pid]);
    assert!(why.code == 1 && why.out.contains("--net own"), "{why:?}");
    let moved = w.xos(&w.milo, &["cluster", "migrate", CLUSTER, &stays.pid, N2]);
    assert!(moved.code != 0 && moved.err.contains("--net own"), "{moved:?}");
    assert_eq!(stays.node(), N1);
    stays.goes_on();
    assert!(stays.end().ends_with("left 0\n"));
    let own = ["--node", N1, "--net", "own", "--restartable", "--checkpoint-every", "86400"];
    let mut goes = Followed::begin(w, "goes", &own, &argv, &counters);
    let why = w.xos(&w.milo, &["cluster", "why", CLUSTER, &goes.pid]);
    assert_eq!(why.code, 0, "{why:?}");
    // A checkpoint leaves the connection as it is.
    w.xos(&w.milo, &["cluster", "checkpoint", CLUSTER, &goes.pid]).ok();
    goes.goes_on();
    goes.moves_to(N2);
    goes.moves_to(N1);
    assert!(goes.end().ends_with("left 0\n"));
}

/// If it failed, programs on different nodes could not talk to one another, or would lose their
/// connection, or bytes of it, when one of them moves.
fn connections_between_nodes_move(w: &World) {
    let own = |node| ["--node", node, "--net", "own"];
    let argv = [PYTHON, "-c", SERVER];
    let mut server = Followed::begin(w, "server", &own(N1), &argv, &["a"]);
    let [.., high, middle, low] = server.tree.to_be_bytes();
    let address = format!("10.{high}.{middle}.{low}");
    let to = format!("SERVER={address}");
    let options = [&own(N2)[..], &["-E", &to]].concat();
    let argv = [PYTHON, "-c", CLIENT];
    let mut client = Followed::begin(w, "client", &options, &argv, &["b"]);
    // Both on one node, then each on the other's.
    server.moves_to(N2);
    client.goes_on();
    client.moves_to(N1);
    server.moves_to(N1);
    client.moves_to(N2);
    client.end();
    let text = server.end();
    assert!(text.ends_with(&format!("served at {address}\n")), "{text}");
}

/// If it failed, an administrator who empties a node would end programs, or not be told which stay
/// and why.
fn a_drain_ends_nothing(w: &World) {
    let (threads, counters) = (["a", "b", "c", "d"], ["a"]);
    let on = ["--node", N1];
    let local = format!("exec 3>/tmp/local; {PIPELINE}");
    let mut all = [
        Followed::begin(w, "drain1", &on, &[PYTHON, "-c", THREADS], &threads),
        Followed::begin(w, "drain2", &on, &["sh", "-c", PIPELINE], &counters),
        Followed::begin(w, "drain3", &on, &["sh", "-c", &local], &counters),
    ];
    let drain = ["cluster", "drain", "c1", "n1"];
    let plan = w.rennes.admin(&[&drain[..], &["--plan", "--json"]].concat()).unwrap();
    let plan: Json = serde_json::from_str(&plan).unwrap();
    let planned = |tree: u64| {
        let mut all = plan["trees"].as_array().expect("a list").iter();
        all.find(|t| t["tree"] == tree).unwrap_or_else(|| panic!("not in the plan: {plan}"))
    };
    for goes in &all[..2] {
        assert_eq!(planned(goes.tree)["to"], N2, "{plan}");
    }
    let stays = planned(all[2].tree);
    let reason = stays["reason"].as_str().unwrap_or_default();
    assert!(stays["to"].is_null() && reason.contains("/tmp/local"), "{plan}");
    w.rennes.admin(&drain).unwrap();
    soon("what can move has moved", || {
        let there = |f: &Followed<'_>| {
            let t = tree(w, &w.milo, f.tree);
            t["node"] == N2 && t["state"] == "running"
        };
        all[..2].iter().all(there).then_some(())
    });
    assert_eq!(all[2].node(), N1);
    for one in &mut all {
        one.goes_on();
    }
    assert!(w.rennes.admin(&["cluster", "del", "c1", "n1", "--yes"]).is_err(), "it has one still");
    w.rennes.admin(&[&drain[..], &["--undo"]].concat()).unwrap();
    for one in all {
        one.end();
    }
}

/// If it failed, a machine that dies would take programs along of which there is a checkpoint, or
/// their output would be lost or there twice.
fn a_failed_nodes_program_goes_on(w: &World) {
    let mut program = checkpointed_on_n1(w, "failed", &["sh", "-c", PIPELINE]);
    // What is done now is done again.
    program.goes_on();
    w.rennes.nodes[0].crash().unwrap();
    runs_on_n2(w, &mut program);
    let text = program.end();
    assert!(!text.contains("bad"), "{text}");
    comes_back(w, &w.rennes.nodes[0]);
    there_and_back(w, "back", &["sh", "-c", PIPELINE], &["a"]);
}

/// If it failed, a program that keeps a log would not go on when its node dies, or have lines twice
/// in it, or none that others could still want.
fn a_failed_nodes_log_has_each_line_once(w: &World) {
    let mut program = checkpointed_on_n1(w, "logged", &[PYTHON, "-c", LOGGED]);
    program.goes_on();
    w.rennes.nodes[0].crash().unwrap();
    runs_on_n2(w, &mut program);
    let t = tree(w, &w.milo, program.tree);
    let [cut] = t["cut"].as_array().expect("a list").as_slice() else { panic!("{t}") };
    assert_eq!(cut["path"], format!("{VOLUME}/logged.log"), "{t}");
    let kept = cut["kept"].as_str().expect("a path").strip_prefix(VOLUME).expect("on the volume");
    let kept = read(w, kept.trim_start_matches('/'));
    let count = counted(&program.end(), "a");
    let log: String = (0..count).map(|n| format!("{n}\n")).collect();
    assert_eq!(read(w, "logged.log"), log);
    assert!(!kept.is_empty() && log.contains(&kept), "{kept}");
    comes_back(w, &w.rennes.nodes[0]);
}

/// If it failed, a program would go on with data that it does not know, or nobody could have it go
/// on where that is right.
fn what_was_written_over_is_asked_about(w: &World) {
    let mut program = checkpointed_on_n1(w, "over", &[PYTHON, "-c", FILES]);
    program.goes_on();
    w.rennes.nodes[0].crash().unwrap();
    let t = soon("its files keep it", || {
        let t = tree(w, &w.milo, program.tree);
        let reason = t["reason"].as_str().unwrap_or_default();
        (t["state"] == "checkpointed" && reason.contains("written over")).then_some(t)
    });
    let reason = t["reason"].as_str().unwrap_or_default();
    assert!(reason.contains(&format!("{VOLUME}/files.dat")), "{t}");
    let number = program.tree.to_string();
    let asked = w.xos(&w.milo, &["cluster", "restart", CLUSTER, &number]);
    assert!(asked.code != 0 && asked.err.contains("--as-is"), "{asked:?}");
    w.xos(&w.milo, &["cluster", "restart", CLUSTER, &number, "--as-is"]).ok();
    program.goes_on();
    assert_eq!(program.node(), N2);
    program.end();
    comes_back(w, &w.rennes.nodes[0]);
}

/// Runs a program with a counter that moves to a node which may die; its output is collected on the
/// one that stays, which has a copy of its checkpoint.
fn checkpointed_on_n1<'a>(w: &'a World, name: &str, argv: &[&str]) -> Followed<'a> {
    let kept = ["--node", N2, "--restartable", "--checkpoint-every", "86400"];
    let mut program = Followed::begin(w, name, &kept, argv, &["a"]);
    program.moves_to(N1);
    saved_twice(w, program.tree);
    program
}

/// Waits until it goes on at the node that is left.
fn runs_on_n2(w: &World, program: &mut Followed<'_>) {
    soon("it runs on the other node", || {
        let t = tree(w, &w.milo, program.tree);
        (t["node"] == N2 && t["state"] == "running").then_some(())
    });
    program.goes_on();
}

/// Whether a script succeeds on a host.
fn has(host: &Host, script: &str) -> bool {
    host.run(&Cmd::shell(format!("{script} >/dev/null 2>&1"))).unwrap().exit.is_success()
}

/// Writes a file of milo's on the volume; its path.
fn write(w: &World, name: &str, content: &str) -> String {
    let path = format!("{VOLUME}/{name}");
    let script = "printf %s \"$1\" > \"$2\"";
    let args = ["--on", "pisa", "--", "sh", "-c", script, "sh", content, path.as_str()];
    w.xsub(&w.milo, &args).ok();
    path
}

/// What is in such a file.
fn read(w: &World, name: &str) -> String {
    w.xsub(&w.milo, &["--on", "pisa", "--", "cat", &format!("{VOLUME}/{name}")]).ok()
}

/// The root folder of a host, as seen from here.
fn root(host: &Host) -> PathBuf {
    let first = |pid: &i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let inside = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        inside.is_some_and(|pids| pids.split_whitespace().next_back() == Some("1"))
    };
    let pid = host.pids().unwrap().into_iter().find(first).expect("a host that runs");
    PathBuf::from(format!("/proc/{pid}/root"))
}
