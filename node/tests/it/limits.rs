//! What an envelope may use, and how units are ended and held.

use crate::support::*;
use std::time::Duration;
use xos_node::envelopes::{CallError, EnvelopeError};
use xos_node::event::{Cause, Cursor, Event, Outcome};
use xos_node::spec::{Limits, UnitSpec};

fn nine(cause: Cause) -> Outcome {
    Outcome::Signaled { signal: 9, cause: Some(cause) }
}

#[tokio::test]
async fn a_fork_bomb_stays_in_its_envelope_and_dies() {
    // wrong: one unit would make the node unusable for everybody
    let Some(node) = Node::new() else { return };
    let e = node.start("1.rennes", |s| s.limits.pids = 50).await;
    let mut events = e.events(Cursor::default());
    let bomb = "echo on; f() { f | f & }; while :; do f; sleep 0.01; done";
    e.start_units(vec![shell(0, bomb)]).await.unwrap();
    wait_output(&e, 0).await;
    patient(async {
        // until the limit bites, so that the kill meets a full envelope
        while !text(&e, 0, xos_node::shim::Stream::Stderr).contains("ork") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    // Its first shell may have ended by a fork that failed; the others go on.
    let all = node.cgroups.envelope(&e.spec().id).processes().unwrap();
    assert!(all.len() <= 50, "{} processes", all.len());
    e.kill(key(0), Duration::from_millis(100)).await.unwrap();
    let ended = ends(&mut events, 1).await;
    assert!(
        matches!(ended[&key(0)].0, Outcome::Signaled { .. } | Outcome::Exited { .. }),
        "{ended:?}"
    );
    node.finish(e).await;
}

#[tokio::test]
async fn a_memory_hog_is_ended_and_told_so() {
    // wrong: the node would swap or fall over; or the person would read only "signal 9"
    let Some(node) = Node::new() else { return };
    let e = node.start("1.rennes", |s| s.limits.memory_bytes = Some(48 << 20)).await;
    let ended = run(&e, vec![unit(0, &["tail", "/dev/zero"])]).await;
    assert_eq!(ended[&key(0)].0, nine(Cause::MemoryLimit));
    assert!(ended[&key(0)].1.unwrap().max_rss_bytes <= 96 << 20);
    // the envelope goes on
    let units = vec![unit(1, &["true"]), shell(2, "tail /dev/zero; exit $?")];
    let mut events = e.events(events_end(&e).await);
    e.start_units(units).await.unwrap();
    let ended = ends(&mut events, 2).await;
    assert_eq!(ended[&key(1)].0, exited(0));
    assert_eq!(ended[&key(2)].0, Outcome::Exited { code: 137, cause: Some(Cause::MemoryLimit) });
    let usage = e.status().await.unwrap().usage;
    assert_eq!(usage.oom_kills, 2);
    assert!(usage.memory_peak_bytes.unwrap() >= 40 << 20, "{usage:?}");
    assert!(usage.cpu_us.unwrap() > 0);
    node.finish(e).await;
}

/// Tries to have so many processes at a time; those that there are end by themselves.
fn crowd(n: u32, processes: u32, then: &str) -> UnitSpec {
    let script = format!(
        "(i=0; while [ $i -lt {processes} ]; do sleep 30 & i=$((i+1)); done; exit 0) || {then}"
    );
    unit(n, &["sh", "-c", &script])
}

#[tokio::test]
async fn who_reached_the_limit_of_processes_and_failed_is_told_so() {
    // wrong: the person would read only "exit status 2"; or a unit that went on without the process
    // that it could not have would count as failed; or one that had nothing to do with it be told
    // so
    let Some(node) = Node::new() else { return };
    let e = node.start("1.rennes", |s| (s.limits.pids, s.slots) = (20, 1)).await;
    let ended = run(&e, vec![crowd(0, 60, "exit 3")]).await;
    assert_eq!(ended[&key(0)].0, Outcome::Exited { code: 3, cause: Some(Cause::ProcessLimit) });
    let before = node.cgroups.envelope(&e.spec().id).forks_refused();
    assert!(before > 0);
    // What the last one left counts until it has been ended.
    let mut events = e.events(events_end(&e).await);
    quiet(&node, &e).await;
    e.start_units(vec![shell(1, "exit 3"), crowd(2, 60, "exit 0")]).await.unwrap();
    let ended = ends(&mut events, 2).await;
    assert_eq!(ended[&key(1)].0, exited(3), "it had no more than one process");
    assert_eq!(ended[&key(2)].0, exited(0), "it did what it was asked for");
    assert!(node.cgroups.envelope(&e.spec().id).forks_refused() > before);
    node.finish(e).await;
}

#[tokio::test]
async fn a_signal_after_the_limit_of_processes_is_told_and_an_order_to_end_goes_before() {
    // wrong: a program that aborts since it has no thread would be told as one that crashed; or a
    // fork bomb that was cancelled as one that failed
    let Some(node) = Node::new() else { return };
    let e = node.start("1.rennes", |s| (s.limits.pids, s.slots) = (20, 1)).await;
    let ended = run(&e, vec![crowd(0, 60, "kill -ABRT $$")]).await;
    let aborted = Outcome::Signaled { signal: 6, cause: Some(Cause::ProcessLimit) };
    assert_eq!(ended[&key(0)].0, aborted);
    let mut events = e.events(events_end(&e).await);
    quiet(&node, &e).await;
    let before = node.cgroups.envelope(&e.spec().id).forks_refused();
    e.start_units(vec![crowd(1, 60, "while :; do :; done")]).await.unwrap();
    patient(async {
        while node.cgroups.envelope(&e.spec().id).forks_refused() == before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    e.kill(key(1), Duration::ZERO).await.unwrap();
    assert_eq!(ends(&mut events, 1).await[&key(1)].0, nine(Cause::Asked));
    node.finish(e).await;
}

/// Waits until the kernel counts nothing but the envelope's init in it.
async fn quiet(node: &Node, e: &xos_node::envelopes::Envelope) {
    let cgroup = node.cgroups.envelope(&e.spec().id);
    let count = || {
        let files = cgroup.parts.iter().map(|p| p.dir.join("pids.current"));
        files.filter_map(|f| std::fs::read_to_string(f).ok()).collect::<String>()
    };
    patient(async {
        while count().trim() != "1" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

async fn events_end(e: &xos_node::envelopes::Envelope) -> Cursor {
    let mut events = e.events(Cursor::default());
    loop {
        for (entry, cursor) in patient(events.next()).await.unwrap().unwrap() {
            if matches!(entry.event, Event::Ended { .. }) {
                return cursor;
            }
        }
    }
}

#[tokio::test]
async fn limits_are_set_and_changed() {
    // wrong: a share would be a word only
    let Some(node) = Node::new() else { return };
    let limits = Limits { cpu_millis: Some(250), memory_bytes: Some(64 << 20), pids: 77 };
    let e = node.start("1.rennes", |s| s.limits = limits).await;
    let cgroup = node.cgroups.envelope(&e.spec().id);
    let file = |name: &str| {
        cgroup.parts.iter().find_map(|p| std::fs::read_to_string(p.dir.join(name)).ok())
    };
    let cpu = || match file("cpu.max") {
        Some(v2) => v2.trim().to_owned(),
        None => format!(
            "{} {}",
            file("cpu.cfs_quota_us").unwrap().trim(),
            file("cpu.cfs_period_us").unwrap().trim()
        ),
    };
    let memory = || file("memory.max").or(file("memory.limit_in_bytes")).unwrap();
    assert_eq!(cpu(), "25000 100000");
    assert_eq!(memory().trim(), (64 << 20).to_string());
    assert_eq!(file("pids.max").unwrap().trim(), "77");
    let more = Limits { cpu_millis: Some(500), memory_bytes: Some(128 << 20), pids: 99 };
    e.set_limits(more).await.unwrap();
    assert_eq!(
        (cpu(), memory().trim().to_owned()),
        ("50000 100000".into(), (128 << 20).to_string())
    );
    e.set_limits(Limits { pids: 99, memory_bytes: Some(32 << 20), cpu_millis: None })
        .await
        .unwrap();
    assert_eq!(memory().trim(), (32 << 20).to_string());
    assert!(e.set_limits(Limits { pids: 0, ..more }).await.is_err());
    node.finish(e).await;
}

#[tokio::test]
async fn wall_clock_limits_and_unwilling_units() {
    // wrong: a unit that hangs, or ignores TERM, would hold its slot for ever
    let Some(node) = Node::new() else { return };
    let e = node.start("1.rennes", |_| {}).await;
    let mut timed = unit(0, &["sleep", "1000"]);
    timed.wall_ms = Some(50);
    let stubborn = "trap '' TERM; echo on; while :; do sleep 1000; done";
    let family = "(setsid sh -c 'trap \"\" TERM; sleep 1000' & sleep 1000) & echo on; wait";
    let mut events = e.events(Cursor::default());
    e.start_units(vec![timed, shell(1, stubborn), shell(2, family)]).await.unwrap();
    wait_output(&e, 1).await;
    wait_output(&e, 2).await;
    for n in [1, 2] {
        e.kill(key(n), Duration::from_millis(50)).await.unwrap();
    }
    let ended = ends(&mut events, 3).await;
    let term = Outcome::Signaled { signal: 15, cause: Some(Cause::WallLimit) };
    assert_eq!(ended[&key(0)].0, term);
    assert_eq!(ended[&key(1)].0, nine(Cause::Asked));
    assert!(matches!(ended[&key(2)].0, Outcome::Signaled { .. }), "{ended:?}");
    node.finish(e).await;
}

#[tokio::test]
async fn who_stops_units_that_are_being_made_keeps_nothing_from_ending() {
    // wrong: a program could hold its job's init, and with it cancellation and time limits
    let Some(node) = Node::new() else { return };
    let e = node.start("1.rennes", |s| s.slots = 8).await;
    let mut events = e.events(Cursor::default());
    let stopper = "echo on; while :; do kill -STOP -1; done 2>/dev/null";
    e.start_units(vec![shell(0, stopper)]).await.unwrap();
    wait_output(&e, 0).await;
    let units = (1..200).map(|n| unit(n, &["/bin/true"])).collect();
    e.start_units(units).await.unwrap();
    patient(async {
        // until all slots are held by stopped ones, or all have ended
        let mut last = u64::MAX;
        while last != e.status().await.unwrap().ended {
            last = e.status().await.unwrap().ended;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    e.kill_all(Duration::ZERO).await.unwrap();
    let ended = ends(&mut events, 200).await;
    assert!(!matches!(ended[&key(0)].0, Outcome::Exited { .. }), "{ended:?}");
    // It may have been ended with its init, and be gone at any moment.
    match e.end(Duration::ZERO).await {
        Ok(()) | Err(EnvelopeError::Call(CallError::Gone)) => {}
        Err(other) => panic!("{other}"),
    }
    while patient(events.next()).await.unwrap().is_some() {}
    node.nothing_left(&[]).await;
}

#[tokio::test]
async fn a_waiting_unit_can_be_taken_back() {
    // wrong: cancelled work would still run
    let Some(node) = Node::new() else { return };
    let e = node.start("1.rennes", |s| s.slots = 1).await;
    let mut events = e.events(Cursor::default());
    e.start_units(vec![unit(0, &["sleep", "1000"]), unit(1, &["true"])]).await.unwrap();
    e.kill(key(1), Duration::ZERO).await.unwrap();
    e.kill(key(0), Duration::ZERO).await.unwrap();
    let ended = ends(&mut events, 2).await;
    assert_eq!(ended[&key(1)].0, Outcome::Cancelled);
    assert_eq!(ended[&key(0)].0, nine(Cause::Asked));
    assert!(e.kill(key(5), Duration::ZERO).await.is_err());
    node.finish(e).await;
}

#[tokio::test]
async fn frozen_work_stands_still_and_goes_on() {
    // wrong: a node that lost its core would go on working for people who may be gone
    let Some(node) = Node::new() else { return };
    let e = node.start("1.rennes", |_| {}).await;
    let mut events = e.events(Cursor::default());
    let tick = "while [ ! -e stop ]; do echo x; sleep 0.01; done";
    e.start_units(vec![shell(0, tick)]).await.unwrap();
    wait_output(&e, 0).await;
    e.freeze(true).await.unwrap();
    assert!(e.status().await.unwrap().frozen);
    let size = || output(&e, 0).len();
    // the kernel freezes a moment later: wait until two looks agree
    patient(async {
        let mut last = 0;
        while last != size() {
            last = size();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    let frozen_at = size();
    e.start_units(vec![unit(1, &["true"])]).await.unwrap();
    std::fs::write(node.home().join("stop"), "").unwrap();
    assert_eq!(e.status().await.unwrap().waiting, 1);
    assert_eq!(size(), frozen_at);
    e.freeze(false).await.unwrap();
    let ended = ends(&mut events, 2).await;
    assert!(ended.values().all(|(o, _)| *o == exited(0)), "{ended:?}");
    // a frozen envelope can be ended
    e.freeze(true).await.unwrap();
    node.finish(e).await;
}
