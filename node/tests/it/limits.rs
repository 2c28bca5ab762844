use crate::support::*;
use nix::mount::MsFlags;
use std::time::Duration;
use xos_node::envelopes::{CallError, Envelope, EnvelopeError};
use xos_node::event::{Cause, Cursor, Event, Outcome};
use xos_node::proto::StartAnswer;
use xos_node::spec::Limits;

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
async fn output_beyond_the_limit_ends_the_unit() {
    // wrong: one unit would fill the node's disk
    let Some(node) = Node::new() else { return };
    let e = node.start("1.rennes", |s| s.spool_bytes_max = 10_000).await;
    let ended = run(&e, vec![shell(0, "while :; do echo 0123456789; done")]).await;
    let by = Outcome::Signaled { signal: 15, cause: Some(Cause::SpoolLimit) };
    assert_eq!(ended[&key(0)].0, by);
    // and what a process that was left behind writes is cut too
    let left = "(setsid sh -c 'touch up; while :; do head -c 2000 /dev/zero; sleep 0.01; done' &) ; while [ ! -e up ]; do sleep 0.01; done";
    let answers = e.start_units(vec![shell(1, left)]).await.unwrap();
    assert_eq!(answers, [StartAnswer::Taken]);
    patient(async {
        let size = || std::fs::metadata(e.spool().join("1.rennes:1.out")).map_or(0, |m| m.len());
        let mut most = 0;
        while most <= size() {
            most = size().max(most);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(most > 10_000);
    })
    .await;
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

const BY_SPOOL: Outcome = Outcome::Signaled { signal: 15, cause: Some(Cause::SpoolLimit) };

fn length(e: &Envelope, n: u32) -> u64 {
    std::fs::metadata(e.spool().join(format!("{}.out", key(n)))).map_or(0, |m| m.len())
}

#[tokio::test]
async fn all_output_of_an_envelope_together_has_a_limit() {
    // wrong: one job of many units would fill the node's disk
    let Some(node) = Node::new() else { return };
    let e = node.start("1.rennes", |s| s.spool_total_bytes_max = 100_000).await;
    let writer = |n: u32| shell(n, "while :; do head -c 1000 /dev/zero; sleep 0.001; done");
    let mut events = e.events(Cursor::default());
    e.start_units(vec![shell(0, "head -c 60000 /dev/zero")]).await.unwrap();
    assert_eq!(ends(&mut events, 1).await[&key(0)].0, exited(0));
    let quiet = shell(2, "while [ ! -e go ]; do sleep 0.01; done");
    e.start_units(vec![writer(1), quiet]).await.unwrap();
    assert_eq!(ends(&mut events, 1).await[&key(1)].0, BY_SPOOL);
    std::fs::write(node.home().join("go"), "").unwrap();
    assert_eq!(ends(&mut events, 1).await[&key(2)].0, exited(0), "it wrote nothing");
    assert_eq!(length(&e, 0), 60_000, "what had ended is kept");
    // What is there counts after a rest too.
    let kept = length(&e, 1);
    assert!(kept > 0);
    e.end(Duration::ZERO).await.unwrap();
    patient(e.gone()).await;
    let mut spec = e.spec().clone();
    spec.spool_total_bytes_max = 60_000 + kept;
    let e = node.envelopes.reopen(spec).await.unwrap();
    e.start_units(vec![writer(3)]).await.unwrap();
    assert_eq!(ends(&mut events, 1).await[&key(3)].0, BY_SPOOL);
    node.finish(e).await;
}

#[tokio::test]
async fn while_the_disk_is_short_nothing_starts_and_large_output_ends() {
    // wrong: one member's output would keep the shims of all others from their records
    let Some(node) = Node::new() else { return };
    let small = node.dir.path().join("state");
    let size = Some("size=64m,mode=0755");
    nix::mount::mount(Some("tmpfs"), &small, Some("tmpfs"), MsFlags::empty(), size).unwrap();
    let node = node.again();
    let unmounts = Unmounts(small.clone());
    let e = node.start("1.rennes", |s| s.spool_bytes_max = 16 << 20).await;
    let mut events = e.events(Cursor::default());
    let large = shell(0, "head -c 1500000 /dev/zero; while :; do sleep 0.01; done");
    let little = shell(1, "echo little; while [ ! -e go ]; do sleep 0.01; done");
    e.start_units(vec![large, little]).await.unwrap();
    wait_output(&e, 1).await;
    patient(async {
        while length(&e, 0) < 1_500_000 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // A twentieth is kept free.
    let ballast = small.join("ballast");
    std::fs::write(&ballast, vec![1; 60 << 20]).unwrap();
    assert_eq!(ends(&mut events, 1).await[&key(0)].0, BY_SPOOL);
    assert_eq!(length(&e, 0), 1_500_000, "what it wrote is kept");
    e.start_units(vec![unit(2, &["true"])]).await.unwrap();
    let status = e.status().await.unwrap();
    assert_eq!((status.running, status.waiting), (vec![key(1)], 1));
    std::fs::remove_file(&ballast).unwrap();
    assert_eq!(ends(&mut events, 1).await[&key(2)].0, exited(0), "it starts when there is room");
    std::fs::write(node.home().join("go"), "").unwrap();
    assert_eq!(ends(&mut events, 1).await[&key(1)].0, exited(0));
    e.end(Duration::ZERO).await.unwrap();
    while patient(events.next()).await.unwrap().is_some() {}
    patient(e.gone()).await;
    drop(unmounts);
    node.nothing_left(&[]).await;
}

/// Takes the small disk away, also when the test fails.
struct Unmounts(std::path::PathBuf);

impl Drop for Unmounts {
    fn drop(&mut self) {
        if let Err(e) = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH) {
            println!("left behind: {}: {e}", self.0.display());
        }
    }
}

#[tokio::test]
async fn output_of_an_ended_unit_is_opened_by_nobody_any_more() {
    // wrong: a process that was left behind could write without bound into a file that is watched
    // no more, or is not even seen
    let Some(node) = Node::new() else { return };
    let e = node.start("1.rennes", |_| {}).await;
    // The empty one is kept for another unit, and watched, until there is none.
    let left = "while [ ! -e ended ]; do sleep 0.01; done; \
        while [ $0 = 0 ] && true >> /proc/self/fd/3; do sleep 0.01; done; \
        if true >> /proc/self/fd/3; then touch wrote.$0; else touch refused.$0; fi";
    let script = format!(
        "chmod 666 /proc/self/fd/1; exec 3</proc/self/fd/1; test $0 = 0 || echo some; \
        setsid sh -c 'touch up.$0; {left}' $0 >/dev/null 2>&1 & \
        while [ ! -e up.$0 ]; do sleep 0.01; done"
    );
    let with_left = |n: u32| unit(n, &["sh", "-c", &script, &n.to_string()]);
    let ended = run(&e, vec![with_left(0), with_left(1)]).await;
    assert!(ended.values().all(|(o, _)| *o == exited(0)), "{ended:?}");
    std::fs::write(node.home().join("ended"), "").unwrap();
    for n in 0..2 {
        let (wrote, refused) = (format!("wrote.{n}"), format!("refused.{n}"));
        let there = |name: &String| node.home().join(name).exists();
        patient(async {
            while !there(&wrote) && !there(&refused) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        assert!(there(&refused), "the left process of unit {n} can write");
    }
    assert_eq!(output(&e, 1), "some\n");
    node.finish(e).await;
}

#[tokio::test]
async fn what_is_written_to_a_file_kept_for_another_unit_has_a_bound() {
    // wrong: a process that a silent unit left could fill the node's disk
    let Some(node) = Node::new() else { return };
    let e = node.start("1.rennes", |s| s.spool_bytes_max = 10_000).await;
    let script = "exec 3</proc/self/fd/1; while [ ! -e other ]; do sleep 0.01; done; \
        setsid sh -c 'touch up; while [ ! -e ended ]; do sleep 0.01; done; \
        exec 4>> /proc/self/fd/3; while head -c 1000 /dev/zero >&4; do sleep 0.01; done' \
        >/dev/null 2>&1 & while [ ! -e up ]; do sleep 0.01; done";
    // While another one runs the file is kept.
    let waits = "touch other; while [ ! -e go ]; do sleep 0.01; done";
    let mut events = e.events(Cursor::default());
    let units = vec![unit(0, &["sh", "-c", script]), unit(1, &["sh", "-c", waits])];
    e.start_units(units).await.unwrap();
    assert_eq!(ends(&mut events, 1).await[&key(0)].0, exited(0));
    std::fs::write(node.home().join("ended"), "").unwrap();
    let mut most = 0;
    patient(async {
        // It has been cut back twice.
        let (mut cut, mut before) = (0, 0);
        while cut < 2 {
            let now = length(&e, 0);
            cut += u32::from(now < before);
            (before, most) = (now, most.max(now));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(most < 1_000_000, "it grew to {most}");
    std::fs::write(node.home().join("go"), "").unwrap();
    assert_eq!(ends(&mut events, 1).await[&key(1)].0, exited(0));
    node.finish(e).await;
}

#[tokio::test]
async fn an_envelope_that_leaves_too_much_open_is_ended() {
    // wrong: what its left processes write beyond the watched files would have no bound
    let Some(node) = Node::new() else { return };
    let e = node.start("1.rennes", |s| s.limits.pids = 2000).await;
    // Each leaves a process with two outputs; in a group of its own, so that it stays.
    let units = (0..600).map(|n| unit(n, &["bash", "-c", "set -m; sleep 1000 & exit 0"]));
    let mut events = e.events(Cursor::default());
    e.start_units(units.collect()).await.unwrap();
    let ended = ends(&mut events, 600).await;
    let of = |o: &Outcome| ended.values().filter(|(e, _)| e == o).count();
    assert!(of(&exited(0)) > 512 && of(&Outcome::Cancelled) > 0, "{} {ended:?}", of(&exited(0)));
    while patient(events.next()).await.unwrap().is_some() {}
    patient(e.gone()).await;
    node.nothing_left(&[]).await;
}
