//! Envelopes without work: their shims end, and new ones go on with the same log.

use crate::life::kill_9;
use crate::orders::{envelope, work};
use crate::support::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use xos_api::node::units::{EnvelopeId, EventsAck, UnitEvents};
use xos_base::Error;
use xos_node::agent::units::{Core, Units};
use xos_node::envelopes::{Attached, EnvelopeError};
use xos_node::event::{Cursor, Entry, Event, Outcome, encode};
use xos_node::proto::{StartAnswer, UnitState};
use xos_node::spec::UnitSpec;

/// How long the envelopes of these tests stay without work, milliseconds.
const SHORT_MS: u64 = 50;

#[tokio::test]
async fn an_envelope_rests_and_goes_on() {
    // wrong: each ended job would hold two processes, or one that goes on would forget what ran
    let Some(node) = Node::new() else { return };
    let e = node.start("1.rennes", |s| s.rest_after_ms = SHORT_MS).await;
    let id = e.spec().id.clone();
    let pids = e.status().await.unwrap();
    let seen = node.home().join("seen");
    let once = |n: u32| shell(n, &format!("echo {n} >> {}; echo kept {n}", seen.display()));
    let left = "setsid sleep 1000 >/dev/null 2>&1 & echo $!";
    let mut events = e.events(Cursor::default());
    e.start_units(vec![once(0), shell(1, left)]).await.unwrap();
    ends(&mut events, 2).await;
    while patient(events.next()).await.unwrap().is_some() {}
    patient(e.gone()).await;
    // nothing of it is left but files
    node.nothing_left(&[pids.shim_pid, pids.init_pid]).await;
    assert_eq!(output(&e, 0), "kept 0\n");
    assert!(e.start_units(vec![once(2)]).await.is_err());
    let found = node.envelopes.attach_all().await.unwrap();
    assert!(matches!(&found[..], [Attached::Over { lost: 0, .. }]), "{}", found.len());

    let node = node.again();
    let mut spec = e.spec().clone();
    spec.limits.pids = 99;
    spec.account.groups = vec![UID];
    let e = node.envelopes.reopen(spec).await.unwrap();
    let same = node.envelopes.reopen(e.spec().clone()).await.unwrap();
    assert_eq!(same.status().await.unwrap().shim_pid, e.status().await.unwrap().shim_pid);
    let again = e.start_units(vec![once(0), shell(2, "id -G"), once(3)]).await.unwrap();
    let known = StartAnswer::Known(UnitState::Ended(exited(0)));
    assert_eq!(again, [known, StartAnswer::Taken, StartAnswer::Taken]);
    assert_eq!(e.unit(key(0)).await.unwrap(), Some(UnitState::Ended(exited(0))));
    assert_eq!(e.unit(key(7)).await.unwrap(), None);
    // whoever read up to the rest goes on, and so does the numbering
    let mut numbers = Vec::new();
    while let Some(batch) = patient(events.next()).await.unwrap() {
        numbers.extend(batch.iter().filter(|(e, _)| e.event.is_numbered()).map(|(e, _)| e.seq));
    }
    assert_eq!(numbers, [5, 6, 7, 8]);
    assert_eq!(output(&e, 2), format!("{UID}\n"), "the groups are those of now");
    assert_eq!(std::fs::read_to_string(&seen).unwrap(), "0\n3\n");
    let mut all = node.envelopes.events(&id, Cursor::default()).unwrap();
    ends(&mut all, 4).await;
    let last = node.envelopes.last_seqs(vec![id.clone()]).await.unwrap();
    assert_eq!(last[0].as_ref().unwrap(), &8);
    patient(e.gone()).await;
    node.envelopes.forget(&id).await.unwrap();
    assert!(matches!(
        node.envelopes.reopen(e.spec().clone()).await,
        Err(EnvelopeError::NotFound(_))
    ));
    node.nothing_left(&[]).await;
}

#[tokio::test]
async fn a_frozen_envelope_with_work_does_not_rest() {
    // wrong: a suspended member's waiting units would be taken back
    let Some(node) = Node::new() else { return };
    let e = node.start("1.rennes", |s| s.rest_after_ms = SHORT_MS).await;
    e.freeze(true).await.unwrap();
    e.start_units(vec![unit(0, &["true"])]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(4 * SHORT_MS)).await;
    e.freeze(false).await.unwrap();
    let mut events = e.events(Cursor::default());
    assert_eq!(ends(&mut events, 1).await[&key(0)].0, exited(0));
    while patient(events.next()).await.unwrap().is_some() {}
    patient(e.gone()).await;
    node.nothing_left(&[]).await;
}

/// Small numbers from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % n
    }
}

/// The process of the envelope's shim, if there is one.
fn shim() -> Option<i32> {
    std::fs::read_dir("/proc").unwrap().flatten().find_map(|p| {
        let cwd = std::fs::read_link(p.path().join("cwd")).ok()?;
        let ours = cwd.ends_with("envelopes/1.rennes@1");
        ours.then(|| p.file_name().to_str()?.parse::<i32>().ok()).flatten()
    })
}

/// Holds what units are said to have done against what they wrote down, a line each.
fn ran_as_told(ended: &Ends, seen: &Path, units: u32) {
    let text = std::fs::read_to_string(seen).unwrap_or_default();
    let mut runs = BTreeMap::<&str, u32>::new();
    for line in text.lines() {
        *runs.entry(line).or_default() += 1;
    }
    assert!(runs.values().all(|n| *n == 1), "a unit ran twice: {runs:?}");
    for n in 0..units {
        let ran = runs.contains_key(&*n.to_string());
        match &ended[&key(n)].0 {
            Outcome::Exited { code: 0, .. } => assert!(ran, "{n} is said to have run"),
            Outcome::StartFailed { .. } => assert!(!ran, "{n} is said not to have run"),
            Outcome::Lost | Outcome::Cancelled | Outcome::Signaled { .. } => {}
            other => panic!("{n}: {other:?}"),
        }
    }
    assert!(runs.len() > units as usize / 2, "hardly any ran: {runs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn units_run_once_whatever_is_killed_between_rests() {
    // wrong: a unit would run twice, or vanish, when shim and daemon die around a rest
    const ROUNDS: u32 = 40;
    let Some(node) = Node::new() else { return };
    let seed = std::env::var("XOS_SEED").map_or(20_261_128, |s| s.parse().unwrap());
    println!("XOS_SEED={seed}");
    let mut dice = Dice(seed);
    let seen = node.home().join("seen");
    let once = |n: u32| shell(n, &format!("echo {n} >> {}", seen.display()));
    let mut sent: Vec<UnitSpec> = Vec::new();
    let state = node.dir.path().join("state");
    let mut units = Arc::new(Units::open(open(&state, &node.cgroups)).await.unwrap());
    let mut stream = units.stream();
    for n in 0..ROUNDS {
        sent.push(once(n));
        // The last ones once more, as a core does that got no answer.
        let again = sent.iter().rev().take(1 + dice.below(3) as usize).cloned().collect();
        let mut order = work(&node, again);
        order.spec.rest_after_ms = dice.below(3 * SHORT_MS);
        let started = {
            let units = units.clone();
            tokio::spawn(async move { units.start(stream, order, || Ok(())).await })
        };
        tokio::time::sleep(Duration::from_millis(dice.below(2 * SHORT_MS))).await;
        let deed = dice.below(4);
        if deed & 1 == 1
            && let Some(shim) = shim()
        {
            kill_9(shim);
        }
        if deed & 2 == 2 {
            // The daemon dies in the middle of the order.
            started.abort();
            drop(started);
            units = Arc::new(Units::open(open(&state, &node.cgroups)).await.unwrap());
            stream = units.stream();
        } else if let Err(e) = patient(started).await.unwrap() {
            println!("round {n}: {e}");
        }
    }
    // In the end each was sent until there was an answer.
    for unit in &sent {
        patient(async {
            loop {
                let mut order = work(&node, vec![unit.clone()]);
                order.spec.rest_after_ms = 600_000;
                match units.start(stream, order, || Ok(())).await {
                    Ok(_) => break,
                    Err(e) => println!("{}: {e}", unit.key),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
    let name = "1.rennes@1".parse().unwrap();
    let mut events = node.envelopes.events(&name, Cursor::default()).unwrap();
    let ended = ends(&mut events, ROUNDS as usize).await;
    ran_as_told(&ended, &seen, ROUNDS);
    units.end(stream, &envelope(1)).await.unwrap();
    node.nothing_left(&[]).await;
}

/// A core that stores everything.
#[derive(Default)]
struct Storing {
    stored: Mutex<BTreeMap<EnvelopeId, u64>>,
    asked: AtomicU64,
    events: AtomicU64,
    came: Notify,
}

impl Core for Storing {
    async fn events(&self, report: UnitEvents) -> Result<EventsAck, Error> {
        let mut stored = self.stored.lock().unwrap();
        let stored = stored.entry(report.envelope).or_default();
        let n = report.events.len() as u64;
        if n == 0 {
            self.asked.fetch_add(1, Ordering::SeqCst);
        } else {
            assert!(report.after <= *stored, "a gap");
            *stored = (*stored).max(report.after + n);
            self.events.fetch_add(n, Ordering::SeqCst);
        }
        self.came.notify_one();
        Ok(EventsAck { stored: *stored, unknown: false })
    }

    async fn closed(&self) {
        std::future::pending().await
    }
}

fn memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// A unit under the name that the core's orders give it.
fn attempt(n: u32) -> UnitSpec {
    UnitSpec { key: format!("1.rennes:{n}@0").parse().unwrap(), ..unit(n, &["true"]) }
}

/// The first envelope's folder under other serials too.
fn multiply(dir: &Path, serials: std::ops::RangeInclusive<u32>) {
    let folder = |n: u32| dir.join(format!("1.rennes@{n}"));
    for n in serials.clone() {
        std::fs::create_dir(folder(n)).unwrap();
        for file in ["plan.json", "units.log"] {
            // The first is opened again below: the others share files with the second.
            let to = folder(n).join(file);
            if n == *serials.start() {
                std::fs::copy(folder(1).join(file), to).unwrap();
            } else {
                std::fs::hard_link(folder(*serials.start()).join(file), to).unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_ended_envelopes_cost_little() {
    // wrong: a node would run out of processes, descriptors or memory by jobs that ended long ago
    const KEPT: u32 = 10_000;
    let Some(node) = Node::new() else { return };
    let mut e = node.start("1.rennes@1", |s| s.rest_after_ms = SHORT_MS).await;
    let mut events = e.events(Cursor::default());
    e.start_units(vec![attempt(0)]).await.unwrap();
    while patient(events.next()).await.unwrap().is_some() {}
    patient(e.gone()).await;
    multiply(&node.dir.path().join("state/envelopes"), 2..=KEPT);
    let (memory, open_before) = (memory_kib(), descriptors());
    let began = std::time::Instant::now();
    let units = Arc::new(Units::open(node.envelopes.clone()).await.unwrap());
    let stream = units.stream();
    println!("found in {:?}", began.elapsed());
    let began = std::time::Instant::now();
    let list = units.list(stream).await.unwrap();
    println!("listed in {:?}", began.elapsed());
    let serials: BTreeSet<u32> = list.iter().map(|e| e.envelope.serial).collect();
    assert_eq!(serials, (1..=KEPT).collect());
    assert!(list.iter().all(|e| e.last == 2), "each started and ended one unit");

    // A core that stored everything is asked once for each, and nothing is read again.
    let core = Arc::new(Storing::default());
    let all = list.iter().map(|e| (e.envelope.clone(), 2));
    core.stored.lock().unwrap().extend(all.skip(1));
    let began = std::time::Instant::now();
    let reports = tokio::spawn(units.clone().report(core.clone()));
    patient(async {
        while core.asked.load(Ordering::SeqCst) < u64::from(KEPT)
            || core.events.load(Ordering::SeqCst) < 2
        {
            core.came.notified().await;
        }
    })
    .await;
    println!("reported in {:?}", began.elapsed());
    assert_eq!(core.events.load(Ordering::SeqCst), 2, "only what was not stored");
    assert!(descriptors() < open_before + 50, "{} descriptors", descriptors());
    let grown = memory_kib() - memory;
    println!("memory grew by {grown} KiB to {} KiB", memory_kib());
    assert!(grown < 24 * 1024, "{grown} KiB");

    // One that goes on is reported from there, the others are left alone.
    let order = work(&node, vec![attempt(0), attempt(1)]);
    assert_eq!(units.start(stream, order, || Ok(())).await.unwrap().new, 1);
    patient(async {
        while core.events.load(Ordering::SeqCst) < 4 {
            core.came.notified().await;
        }
    })
    .await;
    assert_eq!(core.asked.load(Ordering::SeqCst), u64::from(KEPT) + 1);
    reports.abort();
    e = node.envelopes.reopen(e.spec().clone()).await.unwrap();
    let mut records = e.events(Cursor::default());
    e.end(Duration::ZERO).await.unwrap();
    let mut opened = 0;
    while let Some(batch) = patient(records.next()).await.unwrap() {
        opened += batch.iter().filter(|(e, _)| matches!(e.event, Event::Opened { .. })).count();
    }
    assert_eq!(opened, 2, "it was opened again once");
    node.nothing_left(&[]).await;
}

/// A core that has stored two events of the first envelope, of its first unit.
#[derive(Default)]
struct Ahead {
    heard: Mutex<Vec<(u64, Vec<u32>)>>,
    came: Notify,
}

impl Core for Ahead {
    async fn events(&self, report: UnitEvents) -> Result<EventsAck, Error> {
        let n = report.events.len() as u64;
        if n > 0 {
            let units = report.events.iter().map(|e| e.unit).collect();
            self.heard.lock().unwrap().push((report.after, units));
            self.came.notify_one();
        }
        Ok(EventsAck { stored: 2 + n, unknown: false })
    }

    async fn closed(&self) {
        std::future::pending().await
    }
}

#[tokio::test]
async fn units_whose_records_a_power_loss_took_are_reported_lost() {
    // wrong: the core, which has more events than the log kept, would take none of their ends for
    // news, and hold them for running for ever
    let Some(node) = Node::new() else { return };
    let e = node.start("1.rennes@1", |s| s.rest_after_ms = SHORT_MS).await;
    patient(e.gone()).await;
    // As the disk has it when the power goes: two units were taken, and no more.
    let opened = Event::Opened { envelope: e.spec().id.clone(), boot: "before".to_owned() };
    let units = (0..2).map(|n| attempt(n).key).collect();
    let mut log = Vec::new();
    for event in [opened, Event::Taken { units }] {
        encode(&Entry { seq: 0, at: now(), event }, &mut log).unwrap();
    }
    let path = node.dir.path().join("state/envelopes/1.rennes@1/units.log");
    std::fs::write(path, log).unwrap();
    let units = Arc::new(Units::open(node.envelopes.clone()).await.unwrap());
    let core = Arc::new(Ahead::default());
    let reports = tokio::spawn(units.clone().report(core.clone()));
    patient(core.came.notified()).await;
    assert_eq!(*core.heard.lock().unwrap(), [(2, vec![0, 1])]);
    reports.abort();
    let stream = units.stream();
    units.end(stream, &envelope(1)).await.unwrap();
    node.nothing_left(&[]).await;
}
