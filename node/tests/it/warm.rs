use crate::life::kill_9;
use crate::support::*;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use xos_node::cgroup::Cgroups;
use xos_node::envelopes::{Attached, Envelope, EnvelopeError, Envelopes};
use xos_node::event::Cursor;

const DAEMON: &str = "XOS_NODE_TEST_WARM_DAEMON";

async fn warm(node: &mut Node, shells: usize) {
    node.envelopes = node.envelopes.clone().warm(shells);
    node.envelopes.fill_warm().await.unwrap();
}

fn folder(node: &Node) -> PathBuf {
    node.dir.path().join("state/envelopes")
}

fn names(node: &Node) -> Vec<String> {
    let list = std::fs::read_dir(folder(node)).unwrap();
    let mut all: Vec<_> = list.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    all.sort();
    all
}

/// Shims that live in a folder below `dir`.
fn shims(dir: &Path) -> Vec<i32> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    let here = |pid: &i32| {
        std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(dir))
    };
    pids.filter(here).collect()
}

fn was_warm(node: &Node, e: &Envelope) -> bool {
    !node.cgroups.envelope(&e.spec().id).parts[0].dir.exists()
}

/// Nothing runs in the node's folders, and no cgroup is left.
async fn all_gone(node: &Node) {
    patient(async {
        while !shims(&folder(node)).is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    node.nothing_left(&[]).await;
}

#[tokio::test]
async fn a_shell_becomes_an_envelope_like_any_other() {
    // wrong: a limit, the person, or /proc would be the shell's and not the envelope's
    let Some(mut node) = Node::new() else { return };
    warm(&mut node, 2).await;
    let before = names(&node);
    assert_eq!(before.len(), 2, "{before:?}");
    // Its refill would race with what is counted below.
    node.envelopes = node.envelopes.clone().warm(0);
    let e = node.start("1.rennes", |s| s.limits.pids = 77).await;
    assert!(was_warm(&node, &e));
    let after = names(&node);
    assert_eq!(after.len(), 2, "{after:?}");
    let taken = before.iter().find(|n| !after.contains(n)).unwrap();
    let cgroup = node.cgroups.envelope(&taken.parse().unwrap());
    let pids = cgroup.parts.iter().find(|p| p.controllers.contains("pids")).unwrap();
    assert_eq!(std::fs::read_to_string(pids.dir.join("pids.max")).unwrap(), "77\n");
    let script = "id -u; ls -d /proc/[0-9]* | wc -l; cat /proc/1/comm";
    let ended = run(&e, vec![shell(0, script)]).await;
    assert_eq!(ended[&key(0)].0, exited(0));
    let said = output(&e, 0);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!((lines[0], lines[2]), (&*UID.to_string(), "xos-shim"), "{said}");
    assert!(lines[1].parse::<u32>().unwrap() < 10, "the node's processes are seen: {said}");
    let again = node.envelopes.start(e.spec().clone()).await;
    assert!(matches!(again, Err(EnvelopeError::Exists(_))));
    // a restarted daemon finds it, and only it
    let other = open(&node.dir.path().join("state"), &node.cgroups);
    let found = other.attach_all().await.unwrap();
    let [Attached::Alive(found)] = &found[..] else { panic!("{} found", found.len()) };
    found.start_units(vec![shell(0, "exit 5"), shell(1, "exit 4")]).await.unwrap();
    let ended = ends(&mut found.events(Cursor::default()), 2).await;
    assert_eq!((&ended[&key(0)].0, &ended[&key(1)].0), (&exited(0), &exited(4)));
    assert_eq!(names(&node), ["1.rennes"]);
    // whose shell is gone
    drop(e);
    let e = other.start(node.spec("2.rennes")).await.unwrap();
    assert!(!was_warm(&node, &e));
    let mut events = e.events(Cursor::default());
    e.end(Duration::ZERO).await.unwrap();
    while patient(events.next()).await.unwrap().is_some() {}
    other.forget(&e.spec().id).await.unwrap();
    let mut events = found.events(Cursor::default());
    found.end(Duration::ZERO).await.unwrap();
    while patient(events.next()).await.unwrap().is_some() {}
    other.forget(&found.spec().id).await.unwrap();
    all_gone(&node).await;
}

#[tokio::test]
async fn the_pool_is_filled_again_and_ends_on_request() {
    // wrong: only the first jobs after a start of xosd would be fast, or shells would pile up
    let Some(mut node) = Node::new() else { return };
    warm(&mut node, 1).await;
    for n in 1..4 {
        let e = node.start(&format!("{n}.rennes"), |_| {}).await;
        assert!(was_warm(&node, &e));
        patient(async {
            while names(&node).len() < n + 1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        node.envelopes.fill_warm().await.unwrap();
        assert_eq!(names(&node).len(), n + 1);
        assert_eq!(run(&e, vec![shell(0, "exit 0")]).await.len(), 1);
    }
    node.envelopes.end_warm().await.unwrap();
    assert_eq!(names(&node), ["1.rennes", "2.rennes", "3.rennes"]);
    let reserved = node.envelopes.start(node.spec("warm-1")).await;
    assert!(matches!(reserved, Err(EnvelopeError::Start(_))));
}

#[tokio::test]
async fn without_a_pool_nothing_is_started_ahead() {
    // wrong: an administrator could not turn it off
    let Some(mut node) = Node::new() else { return };
    warm(&mut node, 0).await;
    node.envelopes.attach_all().await.unwrap();
    assert!(names(&node).is_empty());
    let e = node.start("1.rennes", |_| {}).await;
    assert!(!was_warm(&node, &e));
    node.finish(e).await;
}

#[tokio::test]
async fn a_dead_shell_is_replaced_by_a_new_envelope() {
    // wrong: a job would fail because an idle process was killed
    let Some(mut node) = Node::new() else { return };
    warm(&mut node, 2).await;
    for pid in shims(&folder(&node)) {
        kill_9(pid);
    }
    node.envelopes = node.envelopes.clone().warm(0);
    let e = node.start("1.rennes", |_| {}).await;
    assert!(!was_warm(&node, &e));
    assert_eq!(names(&node), ["1.rennes"]);
    run(&e, vec![shell(0, "exit 0")]).await;
    node.finish(e).await;
}

#[tokio::test]
async fn a_shell_with_a_name_that_was_never_told_is_cleared_away() {
    // wrong: what a daemon began just before its death would block the envelope's name for ever
    let Some(mut node) = Node::new() else { return };
    warm(&mut node, 1).await;
    let shell_dir = folder(&node).join(&names(&node)[0]);
    let text = std::fs::read_to_string(shell_dir.join("shell.json")).unwrap();
    let shell: serde_json::Value = serde_json::from_str(&text).unwrap();
    let plan = serde_json::json!({
        "spec": node.spec("1.rennes"), "cgroup": shell["cgroup"], "boot": node.envelopes.boot(),
    });
    std::fs::write(shell_dir.join("plan.json"), plan.to_string()).unwrap();
    std::fs::rename(&shell_dir, folder(&node).join("1.rennes")).unwrap();
    // The connection ends with the last copy.
    node.envelopes = open(&node.dir.path().join("state"), &node.cgroups);
    assert!(node.envelopes.attach_all().await.unwrap().is_empty());
    assert!(names(&node).is_empty());
    all_gone(&node).await;
}

/// Not a test of its own: the daemon that is killed in the next ones.
#[tokio::test(flavor = "multi_thread")]
async fn daemon_to_be_killed() {
    let Ok(args) = std::env::var(DAEMON) else { return };
    let [instance, dir, first] = args.split(' ').collect::<Vec<_>>()[..] else { panic!("{args}") };
    let dir = Path::new(dir);
    let cgroups = Cgroups::prepare(&instance.parse().unwrap(), None).unwrap();
    let envelopes: Envelopes = open(&dir.join("state"), &cgroups).warm(2);
    envelopes.fill_warm().await.unwrap();
    println!("\nshells stand");
    let script = format!("echo $0 >> {}", dir.join("home/seen").display());
    for n in first.parse::<u32>().unwrap().. {
        let e = envelopes.start(spec(&format!("{n}.rennes"), &dir.join("home"))).await.unwrap();
        let one = unit(0, &["sh", "-c", &script, &n.to_string()]);
        e.start_units(vec![one]).await.unwrap();
    }
}

#[tokio::test]
async fn a_killed_daemon_leaves_envelopes_or_nothing() {
    // wrong: idle processes would pile up with every crash of xosd, an envelope's name be blocked,
    // or a unit run twice
    let Some(node) = Node::new() else { return };
    let instance = format!("xos-test-w-{}", std::process::id());
    let cgroups = Cgroups::prepare(&instance.parse().unwrap(), None).unwrap();
    let mut node = node.with(cgroups);
    // Milliseconds after the shells stand: at 0 nothing was adopted, then whatever it does.
    for (round, at) in [0, 3, 10, 60, 110].into_iter().enumerate() {
        let first = round * 1000 + 1;
        let mut daemon = Command::new(std::env::current_exe().unwrap())
            .args(["warm::daemon_to_be_killed", "--exact", "--nocapture"])
            .env(DAEMON, format!("{instance} {} {first}", node.dir.path().display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(daemon.stdout.take().unwrap()).lines();
        assert!(lines.any(|l| l.unwrap() == "shells stand"), "the daemon ended early");
        tokio::time::sleep(Duration::from_millis(at)).await;
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        node.envelopes = open(&node.dir.path().join("state"), &node.cgroups);
        for found in node.envelopes.attach_all().await.unwrap() {
            let e = match found {
                Attached::Alive(e) => e,
                Attached::Over { id, lost } => panic!("{id} over, {lost} lost"),
                Attached::Unclear { id, error } => panic!("{id}: {error}"),
            };
            // The core sends again what it has no answer for.
            let script = format!("echo $0 >> {}", node.home().join("seen").display());
            let id = e.spec().id.clone();
            let n = id.as_str().split('.').next().unwrap();
            let mut events = e.events(Cursor::default());
            e.start_units(vec![unit(0, &["sh", "-c", &script, n])]).await.unwrap();
            assert_eq!(ends(&mut events, 1).await[&key(0)].0, exited(0));
            e.end(Duration::ZERO).await.unwrap();
            while patient(events.next()).await.unwrap().is_some() {}
            node.envelopes.forget(&id).await.unwrap();
        }
        assert!(names(&node).is_empty(), "{:?}", names(&node));
        all_gone(&node).await;
        node.cgroups = Cgroups::prepare(&instance.parse().unwrap(), None).unwrap();
    }
    let seen = std::fs::read_to_string(node.home().join("seen")).unwrap_or_default();
    let mut once: Vec<&str> = seen.lines().collect();
    once.sort_unstable();
    let runs = once.len();
    once.dedup();
    assert_eq!(once.len(), runs, "a unit ran twice: {seen}");
}
