//! A shell in a cluster: what it shows, and where its programs run.

use crate::cluster::{CLUSTER, nodes_join_and_are_tried};
use crate::tool::{Json, Said};
use crate::world::{COMMAND_MAX, VOLUME, World, soon};
use std::collections::BTreeSet;
use xos_testbed::grid::SiteSpec;

/// How many targets the makefile has.
const TARGETS: usize = 16;

/// If it failed, a shell in a cluster would be one on a node: see each step.
#[test]
fn a_shell_has_the_whole_cluster() {
    let rennes = SiteSpec { cluster: true, ..SiteSpec::new("rennes") };
    let Some(w) = World::with(&rennes, &SiteSpec::new("pisa")) else { return };
    w.step("nodes_join_and_are_tried", nodes_join_and_are_tried);
    w.step("programs_as_they_are_show_all_nodes", programs_as_they_are_show_all_nodes);
    w.step("a_login_shell_has_a_terminal", a_login_shell_has_a_terminal);
    w.step("make_works_on_all_nodes", make_works_on_all_nodes);
    w.step("who_is_killed_takes_its_program_along", who_is_killed_takes_its_program_along);
    w.step("a_shell_stays_where_it_is", a_shell_stays_where_it_is);
}

/// What a shell at node n1 says that is given a script.
fn shell(w: &World, cwd: &str, script: &str) -> Said {
    let at = ["cluster", "shell", CLUSTER, "--node", "n1", "-T", "--cwd", cwd, "--"];
    w.xos(&w.milo, &[&at[..], &["sh", "-c", script]].concat())
}

/// Both nodes, as the core shows them.
fn looks(w: &World) -> Vec<Json> {
    let said = w.rennes.admin(&["cluster", "nodes", "c1", "--json"]).unwrap();
    let view: Json = serde_json::from_str(&said).unwrap();
    view["nodes"].as_array().unwrap().iter().map(|n| n["looks"].clone()).collect()
}

/// If it failed, people would need other programs to see what their cluster does, or miss some of
/// it.
fn programs_as_they_are_show_all_nodes(w: &World) {
    for node in ["n1", "n2"] {
        let sleep = ["sleep", if node == "n1" { "3001" } else { "3002" }];
        let run = ["cluster", "run", CLUSTER, "-d", "--node", node, "--"];
        w.xos(&w.milo, &[&run[..], &sleep].concat()).ok();
    }
    let script = "until ps -ef | grep -q '[s]leep 3002'; do sleep 0.1; done
        echo nproc $(nproc)
        echo others $(($(grep -c ^processor /proc/cpuinfo) - $(nproc --all)))
        ps -ef | grep -c '[s]leep 300'; top -bn1 | grep -c sleep
        echo memory $(free -b | awk '/^Mem:/ {print $2}')";
    let said = shell(w, "/", script).ok();
    let looks = looks(w);
    let sum = |name: &str| looks.iter().map(|l| l[name].as_u64().unwrap()).sum::<u64>();
    let (cpus, others) = (sum("cpus"), looks[1]["cpus"].as_u64().unwrap());
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], format!("nproc {cpus}"), "{said}");
    assert_eq!(lines[1..3], [&*format!("others {others}"), "2"], "{said}");
    assert!(lines[3].parse::<u32>().unwrap() >= 2, "{said}");
    let memory: u64 = lines[4].strip_prefix("memory ").unwrap().parse().unwrap();
    assert!(memory >= sum("memory_bytes"), "{said}");
    // Another member's shell shows nothing of it.
    let other = ["cluster", "shell", CLUSTER, "--node", "n1", "-T", "--", "ps", "-ef"];
    assert!(!w.xos(&w.vera, &other).ok().contains("sleep 300"));
}

/// If it failed, one could not work in a cluster shell as in any other.
fn a_login_shell_has_a_terminal(w: &World) {
    // script(1) is the terminal; what it shows and what the person types go through files.
    let text = format!(
        "cd $HOME; rm -f keys shown; mkfifo keys; : > shown
        TERM=xterm script -qefc 'xos cluster shell {CLUSTER}' shown < keys > /dev/null &
        exec 3> keys
        seen() {{ until grep -q \"$1\" shown; do sleep 0.05; done; }}
        printf 'echo login $((40000+2)) at $(pwd) on $(tty)\\n' >&3; seen 'login 40002'
        printf 'exit 5\\n' >&3; wait $!; echo status $?; cat shown"
    );
    let cmd = w.milo.command("bash").args(["-c", &text]).limit(COMMAND_MAX);
    let shown = w.laptop().run(&cmd).unwrap().ok().unwrap();
    assert!(shown.starts_with("status 5"), "{shown}");
    let line = shown.lines().find(|line| line.contains("login 40002")).expect("an answer");
    assert!(line.contains("/home/xos/milo.demo.rennes") && !line.contains("not a tty"), "{line}");
}

/// If it failed, make would use one node, lose what a line wrote, or take a failure for a success.
fn make_works_on_all_nodes(w: &World) {
    let folder = format!("{VOLUME}/made");
    let files: Vec<String> = (0..TARGETS).map(|n| format!("out.{n}")).collect();
    let files = files.join(" ");
    let write = format!(
        "mkdir {folder} && cd {folder} && cat > Makefile <<'END'
.RECIPEPREFIX = >
all: {files}
out.%:
> uname -n > $@; echo $* >> $@; i=0; while [ $$i -lt 300000 ]; do i=$$((i+1)); done
fail:
> echo told; echo wrong >&2; exit 3
killed:
> kill -9 $$$$
END"
    );
    shell(w, VOLUME, &write).ok();
    let make = |rest: &str| shell(w, &folder, &format!("make SHELL=/usr/local/bin/xos-sh {rest}"));
    make("-j8").ok();
    let read = "for n in $(seq 0 15); do cat out.$n; done";
    let text = shell(w, &folder, read).ok();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2 * TARGETS, "{text}");
    for (n, pair) in lines.chunks(2).enumerate() {
        assert_eq!(pair[1], n.to_string(), "{text}");
    }
    let hosts: BTreeSet<&str> = lines.iter().step_by(2).copied().collect();
    assert_eq!(hosts.len(), 2, "{text}");
    let failed = make("fail");
    assert_eq!(failed.code, 2, "{failed:?}");
    assert!(failed.out.contains("told") && failed.err.contains("wrong"), "{failed:?}");
    assert!(failed.err.contains("Error 3"), "{failed:?}");
    assert!(make("killed").err.contains("Killed"));
    // Whatever ran elsewhere is over, and nobody needs to ask after it.
    let trees = || w.json(&w.milo, &["cluster", "ps", CLUSTER])["trees"].clone();
    soon("all lines are over", || {
        let trees = trees();
        let mut lines = trees.as_array().unwrap().iter().filter(|t| t["argv"][0] == "/bin/sh");
        lines.all(|t| t["state"] == "ended").then_some(())
    });
}

/// If it failed, what a person killed would run on where they do not look.
fn who_is_killed_takes_its_program_along(w: &World) {
    // Work here sends what is placed away.
    let script = "for n in 1 2 3; do while :; do :; done & hogs=\"$hogs $!\"; done
        until [ $(cut -d. -f1 /proc/loadavg) -ge 2 ]; do sleep 0.1; done
        for n in 1 2 3 4; do
            /usr/local/bin/xos-ghost run -- sh -c '>up.$$; exec sleep 4000' & pids=\"$pids $!\"
        done
        until [ $(ls up.* 2>/dev/null | wc -l) = 4 ]; do sleep 0.1; done
        kill -9 $pids $hogs; wait";
    shell(w, VOLUME, script).ok();
    soon("what was placed is over", || {
        let trees = w.json(&w.milo, &["cluster", "ps", CLUSTER])["trees"].clone();
        let of = |t: &&Json| t["argv"][2].as_str().is_some_and(|a| a.ends_with("sleep 4000"));
        let placed: Vec<&Json> = trees.as_array().unwrap().iter().filter(of).collect();
        assert!(!placed.is_empty(), "nothing was placed elsewhere: {trees}");
        placed.iter().all(|t| t["state"] == "ended").then_some(())
    });
}

/// If it failed, a drain would wait for ever without a word, or a shell lose what it shows.
fn a_shell_stays_where_it_is(w: &World) {
    let at = ["--json", "cluster", "shell", CLUSTER, "--node", "n1", "--", "sleep", "600"];
    let pid = w.xos(&w.milo, &at).json()["pid"].as_i64().unwrap().to_string();
    soon("it runs", || {
        let said = w.xos(&w.milo, &["cluster", "why", CLUSTER, &pid]);
        said.out.contains("/proc").then_some(())
    });
    let plan = w.rennes.admin(&["cluster", "drain", "c1", "n1", "--plan"]).unwrap();
    assert!(plan.contains("a cluster shell, which never moves"), "{plan}");
    let moved = w.xos(&w.milo, &["cluster", "migrate", CLUSTER, &pid, "n2"]);
    assert!(moved.code != 0 && moved.err.contains("never moves"), "{moved:?}");
    w.xos(&w.milo, &["cluster", "kill", CLUSTER, &pid, "-s", "KILL"]).ok();
}
