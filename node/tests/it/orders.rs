//! The core's orders, as the agent carries them out.

use crate::life::kill_9;
use crate::support::*;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use xos_api::node::units::{EnvelopeId, EnvelopeStatus, KillUnits};
use xos_api::vom::AccountState;
use xos_base::Kind;
use xos_node::agent::units::{Units, Work};
use xos_node::envelopes::{Envelopes, ShimProgram};
use xos_node::spec::{EnvelopeSpec, UnitSpec};

pub fn envelope(serial: u32) -> EnvelopeId {
    EnvelopeId { job: "1.rennes".parse().unwrap(), serial }
}

/// An order for the first envelope of the job.
pub fn work(node: &Node, units: Vec<UnitSpec>) -> Work {
    let mut spec = node.spec("1.rennes@1");
    spec.slots = 1;
    Work { envelope: envelope(1), spec, want_output: false, units }
}

fn has(list: &[EnvelopeStatus], id: &EnvelopeId) -> bool {
    list.iter().any(|e| e.envelope == *id)
}

async fn appears(path: &Path) {
    patient(async {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// A shim that begins only when the file `go` is there, and says by `asked` that it was called.
fn slow_shim(node: &Node) -> ShimProgram {
    let (dir, shim) = (node.dir.path(), env!("CARGO_BIN_EXE_xos-shim"));
    let path = dir.join("slow-shim");
    let script = format!(
        "#!/bin/sh\n: > {0}/asked\nwhile [ ! -e {0}/go ]; do sleep 0.01; done\nexec {shim} \"$@\"\n",
        dir.display()
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    ShimProgram::at(&path)
}

#[tokio::test]
async fn an_order_of_a_broken_stream_is_listed_or_starts_nothing() {
    // wrong: the core would place the units elsewhere, and they would run there and here
    let Some(node) = Node::new() else { return };
    let state = node.dir.path().join("state");
    let envelopes = Envelopes::open(&state, slow_shim(&node), node.cgroups.clone(), now).unwrap();
    let units = Arc::new(Units::open(envelopes.clone()).await.unwrap());
    let seen = node.home().join("seen");
    let once = |n: u32| shell(n, &format!("echo {n} >> {}", seen.display()));

    let old = units.stream();
    let order = {
        let (units, work) = (units.clone(), work(&node, vec![once(0)]));
        tokio::spawn(async move { units.start(old, work, || Ok(())).await })
    };
    appears(&node.dir.path().join("asked")).await;
    // The stream breaks while the envelope is being made.
    let new = units.stream();
    let mut list = Box::pin(units.list(new));
    let early = tokio::select! {
        biased;
        list = &mut list => Some(list.unwrap()),
        () = std::future::ready(()) => None,
    };
    std::fs::write(node.dir.path().join("go"), "").unwrap();
    let list = match early {
        Some(list) => list,
        None => patient(list).await.unwrap(),
    };
    assert!(has(&list, &envelope(1)), "not listed, and yet it comes: {list:?}");
    assert_eq!(patient(order).await.unwrap().unwrap().new, 1);
    // What was on its way on the old stream comes too late, for this envelope and for others.
    let late = units.start(old, work(&node, vec![once(1)]), || Ok(())).await.unwrap_err();
    assert_eq!(late.kind, Kind::Unavailable);
    let mut other = work(&node, vec![once(2)]);
    (other.envelope, other.spec.id) = (envelope(2), "1.rennes@2".parse().unwrap());
    assert!(units.start(old, other, || Ok(())).await.is_err());
    assert!(units.end(old, &envelope(1)).await.is_err());
    assert!(!has(&units.list(new).await.unwrap(), &envelope(2)));
    // The core sends again what it does not know the answer to.
    let again = units.start(new, work(&node, vec![once(0), once(3)]), || Ok(())).await.unwrap();
    assert_eq!(again.new, 1);
    let name = "1.rennes@1".parse().unwrap();
    let mut events = envelopes.events(&name, Default::default()).unwrap();
    ends(&mut events, 2).await;
    assert_eq!(std::fs::read_to_string(&seen).unwrap(), "0\n3\n");
    units.end(new, &envelope(1)).await.unwrap();
    assert!(units.list(new).await.unwrap().is_empty());
    node.nothing_left(&[]).await;
}

#[tokio::test]
async fn a_task_that_asks_for_more_processes_has_them_in_an_envelope_of_another_task() {
    // wrong: which of a job's tasks came first would say how many processes all of them have
    let Some(node) = Node::new() else { return };
    let units = Units::open(node.envelopes.clone()).await.unwrap();
    let stream = units.stream();
    let limit = || {
        let cgroup = node.cgroups.envelope(&"1.rennes@1".parse().unwrap());
        let files = cgroup.parts.iter().map(|p| p.dir.join("pids.max"));
        let texts: Vec<_> = files.filter_map(|f| std::fs::read_to_string(f).ok()).collect();
        texts.concat().trim().to_owned()
    };
    for (n, (asked, has)) in (0..).zip([(20, "20"), (50, "50"), (20, "50"), (60, "60")]) {
        let mut work = work(&node, vec![unit(n, &["true"])]);
        work.spec.limits.pids = asked;
        assert_eq!(units.start(stream, work, || Ok(())).await.unwrap().new, 1);
        assert_eq!(limit(), has, "after an order for {asked}");
    }
    units.end(stream, &envelope(1)).await.unwrap();
    node.nothing_left(&[]).await;
}

#[tokio::test]
async fn one_bad_unit_keeps_the_others_of_its_order_from_starting() {
    // wrong: the core would report all as not started while some run
    let Some(node) = Node::new() else { return };
    let units = Units::open(node.envelopes.clone()).await.unwrap();
    let stream = units.stream();
    let mut bad = unit(1, &["true"]);
    bad.argv.clear();
    let order = work(&node, vec![unit(0, &["true"]), bad]);
    assert_eq!(units.start(stream, order, || Ok(())).await.unwrap_err().kind, Kind::Invalid);
    assert!(units.list(stream).await.unwrap().is_empty());
    // nor when the person was suspended meanwhile
    let held = || Err(xos_base::Error::denied("suspended"));
    let order = work(&node, vec![unit(0, &["true"])]);
    assert_eq!(units.start(stream, order, held).await.unwrap_err().kind, Kind::Denied);
    let name = "1.rennes@1".parse().unwrap();
    let mut events = node.envelopes.events(&name, Default::default()).unwrap();
    let records = events.ready().await.unwrap().unwrap();
    assert_eq!(records.len(), 1, "only that it was opened: {records:?}");
    units.end(stream, &envelope(1)).await.unwrap();
    node.nothing_left(&[]).await;
}

/// The folder of the first envelope of the job.
fn folder(node: &Node) -> std::path::PathBuf {
    node.dir.path().join("state/envelopes/1.rennes@1")
}

fn kill_all() -> KillUnits {
    KillUnits { envelope: envelope(1), units: None, grace_ms: 0 }
}

#[tokio::test]
async fn an_envelope_that_cannot_be_made_out_is_listed_and_its_orders_wait() {
    // wrong: the core would not find it, place its units elsewhere, and they would run twice
    let Some(node) = Node::new() else { return };
    let seen = node.home().join("seen");
    let once = |n: u32| shell(n, &format!("echo {n} >> {}", seen.display()));
    let e = node.start("1.rennes@1", |_| {}).await;
    run(&e, vec![once(0)]).await;
    let pids = e.status().await.unwrap();
    kill_9(pids.shim_pid);
    patient(e.gone()).await;
    // As a shim that holds its envelope and listens no more: it waits for its disk.
    let held = std::fs::File::open(folder(&node).join("shim.lock")).unwrap();
    held.lock().unwrap();
    let units = Units::open(node.envelopes.clone()).await.unwrap();
    let stream = units.stream();
    assert!(has(&units.list(stream).await.unwrap(), &envelope(1)));
    let order = || work(&node, vec![once(0), once(1)]);
    let unavailable = |r: Result<(), xos_base::Error>| r.unwrap_err().kind == Kind::Unavailable;
    assert!(unavailable(units.start(stream, order(), || Ok(())).await.map(drop)));
    assert!(unavailable(units.kill(stream, kill_all()).await));
    assert!(unavailable(units.end(stream, &envelope(1)).await));
    assert!(has(&units.list(stream).await.unwrap(), &envelope(1)));
    drop(held);
    // What was taken is known, the other is new.
    assert_eq!(units.start(stream, order(), || Ok(())).await.unwrap().new, 1);
    let name = "1.rennes@1".parse().unwrap();
    let mut events = node.envelopes.events(&name, Default::default()).unwrap();
    ends(&mut events, 2).await;
    assert_eq!(std::fs::read_to_string(&seen).unwrap(), "0\n1\n");
    units.end(stream, &envelope(1)).await.unwrap();
    node.nothing_left(&[pids.shim_pid, pids.init_pid]).await;
}

#[tokio::test]
async fn an_unclear_envelope_is_enforced_once_it_is_made_out() {
    // wrong: a suspended member's units would run on in an envelope that was unclear for a moment
    let Some(node) = Node::new() else { return };
    let e = node.start("1.rennes@1", |_| {}).await;
    e.start_units(vec![unit(0, &["sleep", "1000"])]).await.unwrap();
    let (socket, aside) = (folder(&node).join("shim.sock"), folder(&node).join("aside"));
    std::fs::rename(&socket, &aside).unwrap();
    let units = Units::open(node.envelopes.clone()).await.unwrap();
    let held = |spec: &EnvelopeSpec| (spec.account.uid == UID).then_some(AccountState::Suspended);
    assert!(!units.enforce(held).await, "it is said to be done");
    std::fs::rename(&aside, &socket).unwrap();
    assert!(units.look_again().await);
    assert!(units.enforce(held).await);
    assert!(e.status().await.unwrap().frozen);
    // Of whom nothing is known yet, nothing is changed.
    assert!(units.enforce(|_| None).await);
    let status = e.status().await.unwrap();
    assert!(status.frozen && status.running.len() == 1);
    assert!(units.enforce(|_| Some(AccountState::Ended)).await);
    let mut events = e.events(Default::default());
    ends(&mut events, 1).await;
    node.finish(e).await;
}
