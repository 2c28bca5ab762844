use crate::support::*;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use xos_node::cgroup::Cgroups;
use xos_node::cgroup::discover::{Version, hierarchies};
use xos_node::envelopes::{Attached, Envelope, EnvelopeError, Envelopes, ShimProgram};
use xos_node::event::{Cause, Cursor, Event, Outcome};

const DAEMON: &str = "XOS_NODE_TEST_DAEMON";

pub fn kill_9(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

async fn numbered(e: &Envelope, n: usize) -> Vec<Event> {
    let mut events = e.events(Cursor::default());
    let mut all = Vec::new();
    while all.len() < n {
        let batch = patient(events.next()).await.unwrap().unwrap();
        all.extend(batch.into_iter().map(|(e, _)| e.event).filter(Event::is_numbered));
    }
    all
}

/// Not a test of its own: the daemon that is killed in the next one.
#[tokio::test]
async fn daemon_to_be_killed() {
    let Ok(args) = std::env::var(DAEMON) else { return };
    let (instance, dir) = args.split_once(' ').unwrap();
    let dir = Path::new(dir);
    let cgroups = Cgroups::prepare(&instance.parse().unwrap(), None).unwrap();
    let envelopes = open(&dir.join("state"), &cgroups);
    let e = envelopes.start(spec("1.rennes", &dir.join("home"))).await.unwrap();
    let script = "echo $0 >> seen; while [ ! -e go ]; do sleep 0.01; done; exit 3";
    let unit = |n: u32| unit(n, &["sh", "-c", script, &n.to_string()]);
    e.set_slots(2).await.unwrap();
    e.start_units((0..4).map(unit).collect()).await.unwrap();
    numbered(&e, 2).await;
    println!("\nunits run");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn units_outlive_the_daemon() {
    // wrong: an update of xosd would end everybody's work, or run it again
    let Some(node) = Node::new() else { return };
    let instance = format!("xos-test-d-{}", std::process::id());
    // Before the daemon is started, so that it begins in a leaf, where v2 wants processes.
    let cgroups = Cgroups::prepare(&instance.parse().unwrap(), None).unwrap();
    let mut node = node.with(cgroups);
    let mut daemon = Command::new(std::env::current_exe().unwrap())
        .args(["life::daemon_to_be_killed", "--exact", "--nocapture"])
        .env(DAEMON, format!("{instance} {}", node.dir.path().display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(daemon.stdout.take().unwrap()).lines();
    assert!(lines.any(|l| l.unwrap() == "units run"), "the daemon ended early");
    daemon.kill().unwrap();
    daemon.wait().unwrap();

    node.envelopes = open(&node.dir.path().join("state"), &node.cgroups);
    let mut found = node.envelopes.attach_all().await.unwrap();
    let Some(Attached::Alive(e)) = found.pop() else { panic!("not alive") };
    assert!(matches!(node.envelopes.start(e.spec().clone()).await, Err(EnvelopeError::Exists(_))));
    let status = e.status().await.unwrap();
    assert_eq!((status.running.len(), status.waiting), (2, 2));
    let mut events = e.events(Cursor::default());
    std::fs::write(node.home().join("go"), "").unwrap();
    let ended = ends(&mut events, 4).await;
    assert!(ended.values().all(|(o, _)| *o == exited(3)), "{ended:?}");
    let mut seen: Vec<String> = std::fs::read_to_string(node.home().join("seen"))
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    seen.sort();
    assert_eq!(seen, ["0", "1", "2", "3"]);
    node.finish(*e).await;
}

#[tokio::test]
async fn a_killed_shim_takes_its_units_along_and_they_are_lost() {
    // wrong: unsupervised processes would go on; or their units be reported as running for ever,
    // or run again
    let Some(node) = Node::new() else { return };
    let e = node.start("1.rennes", |s| s.slots = 2).await;
    let escaped = "setsid sh -c 'sleep 1000' & echo $$; sleep 1000";
    e.start_units(vec![
        shell(0, "exit 0"),
        shell(1, escaped),
        shell(2, escaped),
        shell(3, "exit 0"),
    ])
    .await
    .unwrap();
    wait_output(&e, 1).await;
    wait_output(&e, 2).await;
    let status = e.status().await.unwrap();
    let cgroup = node.cgroups.envelope(&e.spec().id);
    let processes = cgroup.processes().unwrap();
    assert!(processes.len() >= 3, "{processes:?}");
    let mut events = e.events(Cursor::default());
    kill_9(status.shim_pid);
    let ended = ends(&mut events, 4).await;
    assert_eq!(ended[&key(0)].0, exited(0));
    assert_eq!(ended[&key(1)].0, Outcome::Lost);
    assert_eq!(ended[&key(2)].0, Outcome::Lost);
    assert!(matches!(ended[&key(3)].0, Outcome::StartFailed { .. }), "never started: {ended:?}");
    for pid in processes {
        assert!(!alive(pid), "{pid} lives");
    }
    // once more, as a new daemon would
    let id = e.spec().id.clone();
    assert!(e.status().await.is_err());
    match node.envelopes.attach(&id).await {
        Attached::Over { lost: 0, .. } => {}
        Attached::Over { lost, .. } => panic!("lost again: {lost}"),
        _ => panic!("not over"),
    }
    let mut again = node.envelopes.events(&id, Cursor::default()).unwrap();
    let all = ends(&mut again, 4).await;
    assert_eq!(all, ended);
    while patient(again.next()).await.unwrap().is_some() {}
    let mut nothing = node.envelopes.events(&id, again.cursor()).unwrap();
    assert_eq!(patient(nothing.next()).await.unwrap(), None);
    node.nothing_left(&[status.shim_pid, status.init_pid]).await;
    node.envelopes.forget(&id).await.unwrap();
}

#[tokio::test]
async fn a_killed_init_ends_the_envelope_in_order() {
    // wrong: the shim would wait for ends that nobody reports any more
    let Some(node) = Node::new() else { return };
    let e = node.start("1.rennes", |s| s.slots = 1).await;
    let mut events = e.events(Cursor::default());
    e.start_units(vec![shell(0, "sleep 1000"), shell(1, "exit 0")]).await.unwrap();
    numbered(&e, 1).await;
    let status = e.status().await.unwrap();
    kill_9(status.init_pid);
    let ended = ends(&mut events, 2).await;
    let killed = Outcome::Signaled { signal: 9, cause: Some(Cause::InitDied) };
    assert_eq!(ended[&key(0)].0, killed);
    assert!(matches!(ended[&key(1)].0, Outcome::StartFailed { .. }), "{ended:?}");
    while patient(events.next()).await.unwrap().is_some() {}
    node.nothing_left(&[status.shim_pid, status.init_pid]).await;
    node.envelopes.forget(&e.spec().id).await.unwrap();
}

#[tokio::test]
async fn an_ended_envelope_keeps_its_records_until_forgotten() {
    // wrong: output would vanish before the person read it, or never
    let Some(node) = Node::new() else { return };
    let e = node.start("1.rennes", |_| {}).await;
    let id = e.spec().id.clone();
    run(&e, vec![shell(0, "echo kept")]).await;
    assert!(matches!(node.envelopes.forget(&id).await, Err(EnvelopeError::Alive(_))));
    let mut events = e.events(Cursor::default());
    e.start_units(vec![shell(1, "sleep 1000")]).await.unwrap();
    e.end(Duration::from_millis(10)).await.unwrap();
    let ended = ends(&mut events, 2).await;
    let signaled = Outcome::Signaled { signal: 15, cause: Some(Cause::EnvelopeEnded) };
    let never = Outcome::Cancelled;
    let end = &ended[&key(1)].0;
    assert!(*end == signaled || *end == never, "{end:?}");
    let mut closed = None;
    let mut events = e.events(Cursor::default());
    while let Some(batch) = patient(events.next()).await.unwrap() {
        closed = batch.into_iter().map(|(e, _)| e.event).next_back();
    }
    match closed {
        Some(Event::Closed { usage, torn }) => assert!(usage.cpu_us.unwrap() > 0 && !torn),
        other => panic!("{other:?}"),
    }
    assert_eq!(output(&e, 0), "kept\n");
    assert!(matches!(node.envelopes.attach(&id).await, Attached::Over { lost: 0, .. }));
    node.envelopes.forget(&id).await.unwrap();
    node.envelopes.forget(&id).await.unwrap();
    assert!(matches!(
        node.envelopes.events(&id, Cursor::default()),
        Err(EnvelopeError::NotFound(_))
    ));
    node.nothing_left(&[]).await;
}

#[tokio::test]
async fn a_failed_start_leaves_nothing_and_says_why() {
    // wrong: folders and cgroups would pile up, and the administrator would not know the cause
    let Some(node) = Node::new() else { return };
    let mut spec = node.spec("1.rennes");
    spec.limits.cpu_millis = Some(u64::MAX / 1_000_000);
    let error = node.envelopes.start(spec).await.unwrap_err().to_string();
    assert!(error.contains("cpu."), "{error}");
    // what a daemon that died while starting one leaves behind
    let half: PathBuf = node.dir.path().join("state/envelopes/2.rennes");
    std::fs::create_dir(&half).unwrap();
    assert!(node.envelopes.attach_all().await.unwrap().is_empty());
    assert!(!half.exists());
    node.nothing_left(&[]).await;
}

#[tokio::test]
async fn machines_without_v2_work_too() {
    // wrong: kill and freeze would do nothing on an older machine
    let Some(node) = Node::new() else { return };
    let text = |p| std::fs::read_to_string(p).unwrap();
    let mut all = hierarchies(&text("/proc/self/mountinfo"), &text("/proc/self/cgroup"));
    all.retain(|h| h.version == Version::V1);
    if !all.iter().any(|h| h.controllers.contains("freezer")) {
        println!("skipped: no v1 freezer here");
        return;
    }
    let instance = format!("xos-test-v1-{}", std::process::id()).parse().unwrap();
    let cgroups = Cgroups::prepare_in(&instance, &all).unwrap();
    let node = node.with(cgroups);
    let e = node.start("1.rennes", |_| {}).await;
    e.start_units(vec![shell(0, "sleep 1000"), shell(1, "setsid sleep 1000 & sleep 1000")])
        .await
        .unwrap();
    numbered(&e, 2).await;
    e.freeze(true).await.unwrap();
    node.finish(e).await;
}

/// Starts a shim in a pid namespace of its own, which lasts as long as its folder.
const APART: &str = concat!(
    "#!/bin/sh\n",
    "export PATH=/usr/sbin:/usr/bin:/sbin:/bin\n",
    "mkfifo \"$1/up\" || exit 1\n",
    "unshare --pid --fork sh -c '",
    env!("CARGO_BIN_EXE_xos-shim"),
    " \"$1\"; echo $? > \"$1/up\"; while [ -e \"$1\" ]; do sleep 1; done' ",
    "sh \"$1\" < /dev/null > /dev/null 2>&1 &\n",
    "read code < \"$1/up\"\n",
    "rm \"$1/up\"\n",
    "exit \"$code\"\n",
);

#[tokio::test]
async fn a_daemon_outside_of_its_shims_pid_namespace_is_heard() {
    // wrong: the kernel names no pid for it there, and a shim would refuse its own xosd
    let Some(node) = Node::new() else { return };
    let program = node.dir.path().join("apart");
    std::fs::write(&program, APART).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o700)).unwrap();
    let (state, shim) = (node.dir.path().join("state"), ShimProgram::at(&program));
    let envelopes = Envelopes::open(&state, shim, node.cgroups.clone(), now).unwrap();
    let e = envelopes.start(node.spec("1.rennes")).await.unwrap();
    let ended = run(&e, vec![shell(0, "exit 3")]).await;
    assert_eq!(ended[&key(0)].0, exited(3));
    let mut events = e.events(Cursor::default());
    e.end(Duration::ZERO).await.unwrap();
    while patient(events.next()).await.unwrap().is_some() {}
    envelopes.forget(&e.spec().id).await.unwrap();
}
