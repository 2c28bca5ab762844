//! How much output units may write, and what they leave behind.

use crate::support::*;
use nix::mount::MsFlags;
use std::time::Duration;
use xos_node::envelopes::Envelope;
use xos_node::event::{Cause, Cursor, Outcome};
use xos_node::proto::StartAnswer;

const BY_SPOOL: Outcome = Outcome::Signaled { signal: 15, cause: Some(Cause::SpoolLimit) };

fn length(e: &Envelope, n: u32) -> u64 {
    std::fs::metadata(e.spool().join(format!("{}.out", key(n)))).map_or(0, |m| m.len())
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
