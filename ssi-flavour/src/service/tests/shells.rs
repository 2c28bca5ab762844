//! What cluster shells want.

use super::*;
use crate::wire::{ClusterGhostGone, ClusterLooks, PlaceInCluster, Placed};
use xos_base::Kind;

/// A pid that node 1 gives by itself.
const PID: i32 = 32_773;

fn line(tree: TreeId) -> PlaceInCluster {
    PlaceInCluster {
        cluster: id(),
        tree,
        uid: 100_001,
        pid: PID,
        argv: vec!["/bin/sh".into(), "-c".into(), "cc a.c".into()],
        env: BTreeMap::from([("CC".into(), "cc".into())]),
        cwd: "/xtreemfs/demo.rennes".into(),
        umask: 0o027,
        terminal: false,
    }
}

/// A shell at node 1, which is loaded; node 2 rests.
async fn shell() -> (World, TreeId) {
    let mut world = cluster().await;
    let tree = world.runs().await;
    {
        let mut c = world.cluster().await;
        let program = c.programs.get_mut(&tree).unwrap();
        (program.shell, program.mandate) = (true, Some("mandate".into()));
    }
    world.beats(1, 2000, &[tree]).await.unwrap();
    world.beats(2, 0, &[]).await.unwrap();
    (world, tree)
}

/// If it failed, a line of make would run under another pid than the process that stands for it,
/// without its folder's volume, or where its output does not find back.
#[tokio::test]
async fn a_line_runs_where_there_is_room_under_its_own_pid() {
    let (mut world, tree) = shell().await;
    let placed = world.service.place_for(&node(1), line(tree)).await.unwrap();
    let next = TreeId(tree.0 + 1);
    assert_eq!(placed, Placed::Elsewhere { tree: next, epoch: 1, node: node(2) });
    let (to, tell) = world.told.recv().await.unwrap();
    let [(of, program)] = tell.programs.as_slice() else { panic!("{tell:?}") };
    assert_eq!((to, *of, program.pid), (node(2), next, Some(PID)));
    assert_eq!((&program.birth, program.umask, program.attached), (&node(1), 0o027, true));
    assert_eq!((&program.mandate, program.shell), (&None, false), "the core asks by it");
    world.service.settle().await;
    let kept = world.records.kept.lock().unwrap()[&id()].clone();
    assert_eq!(kept.trees[&next].root, PID);
    assert_eq!(kept.programs[&next].mandate.as_deref(), Some("mandate"));
    // The next one finds the other node busier.
    world.beats(2, 9000, &[]).await.unwrap();
    let here = PlaceInCluster { pid: PID + 1, ..line(tree) };
    assert_eq!(world.service.place_for(&node(1), here).await.unwrap(), Placed::Here {});
}

/// If it failed, a node could run programs as people who have nothing there, or hide a process
/// behind another's pid.
#[tokio::test]
async fn who_has_no_tree_at_a_node_places_nothing_from_there() {
    let (world, tree) = shell().await;
    let refused = async |from: u8, r: PlaceInCluster| {
        world.service.place_for(&node(from), r).await.unwrap_err().kind
    };
    assert_eq!(refused(2, line(tree)).await, Kind::Denied);
    assert_eq!(refused(3, line(tree)).await, Kind::Denied);
    assert_eq!(refused(1, line(TreeId(99))).await, Kind::Denied);
    assert_eq!(refused(1, PlaceInCluster { uid: 100_002, ..line(tree) }).await, Kind::Denied);
    for pid in [1, PID + 32_768, *NodeNumber::try_from(1u8).unwrap().pids().end()] {
        assert_eq!(refused(1, PlaceInCluster { pid, ..line(tree) }).await, Kind::Invalid);
    }
    assert_eq!(refused(1, PlaceInCluster { argv: vec![], ..line(tree) }).await, Kind::Invalid);
    world.service.place_for(&node(1), line(tree)).await.unwrap();
    assert_eq!(refused(1, line(tree)).await, Kind::Conflict);
}

/// If it failed, a shell would show others' processes, or a node's that are nobody's.
#[tokio::test]
async fn a_node_sees_what_is_its_persons() {
    let (world, tree) = shell().await;
    world.service.place_for(&node(1), line(tree)).await.unwrap();
    let next = TreeId(tree.0 + 1);
    world.beats(2, 500, &[next, TreeId(99)]).await.unwrap();
    let ask = |uid| ClusterLooks { cluster: id(), uid };
    let seen = world.service.looks_for(&node(1), ask(100_001)).await.unwrap();
    let [other] = seen.nodes.as_slice() else { panic!("{seen:?}") };
    assert_eq!((&other.node, other.looks.cpus, other.looks.load.mean), (&node(2), 2, 500));
    let trees: Vec<TreeId> = other.looks.processes.iter().map(|p| p.tree).collect();
    assert_eq!(trees, [next]);
    let none = world.service.looks_for(&node(1), ask(100_002)).await;
    assert_eq!(none.unwrap_err().kind, Kind::Denied);
}

/// If it failed, a program would run on that its person killed, or a node could kill what was not
/// born there.
#[tokio::test]
async fn a_program_ends_with_who_stands_for_it() {
    let (mut world, tree) = shell().await;
    world.service.place_for(&node(1), line(tree)).await.unwrap();
    let next = TreeId(tree.0 + 1);
    let gone = |pid| ClusterGhostGone { cluster: id(), pid };
    let early = world.service.end_without_ghost(&node(1), gone(PID)).await;
    assert_eq!(early.unwrap_err().kind, Kind::Conflict, "it is being started");
    let facts = vec![Fact::Runs { tree: next, epoch: 1, floor: 1 }];
    world.say(2, vec![ToController::Facts { term: 1, facts }], None).await.unwrap();
    let root = world.cluster().await.programs[&tree].pid.unwrap();
    for (from, pid) in [(2, PID), (1, PID + 1), (1, root)] {
        world.service.end_without_ghost(&node(from), gone(pid)).await.unwrap();
    }
    assert!(world.signals.try_recv().is_err());
    world.service.end_without_ghost(&node(1), gone(PID)).await.unwrap();
    let (to, signal) = world.signals.recv().await.unwrap();
    assert_eq!((to, signal.tree, signal.pid, signal.signal), (node(2), next, None, 9));
}

/// If it failed, each line of make would wait for the core's disk; or one that lasts would end with
/// the core, or two programs have one number.
#[tokio::test]
async fn a_line_is_kept_when_it_lasts() {
    let (world, tree) = shell().await;
    let kept = || world.records.kept.lock().unwrap()[&id()].clone();
    let place = async |pid| {
        world.beats(2, 0, &[]).await.unwrap();
        let placed = world.service.place_for(&node(1), PlaceInCluster { pid, ..line(tree) }).await;
        let Ok(Placed::Elsewhere { tree, .. }) = placed else { panic!("{placed:?}") };
        tree
    };
    let short = place(PID).await;
    assert!(kept().last >= short.0, "its number is kept before anybody has it");
    let again = open(world.records.clone(), world.clock.clone()).await;
    assert!(again.cluster().await.controller.state().trees.next() > short);
    world.records.broken.store(true, Ordering::Relaxed);
    let end = crate::cluster::messages::End::Exit { code: 0 };
    let said = [
        (2, Fact::Runs { tree: short, epoch: 1, floor: 1 }),
        (2, Fact::Ended { tree: short, epoch: 1, end }),
        (1, Fact::Finished { tree: short }),
    ];
    for (from, fact) in said {
        let facts = ToController::Facts { term: 1, facts: vec![fact] };
        world.say(from, vec![facts], None).await.unwrap();
    }
    assert!(world.cluster().await.controller.state().trees.tree(short).is_none());
    world.records.broken.store(false, Ordering::Relaxed);
    let lasts = place(PID).await;
    assert!(!kept().trees.contains_key(&lasts));
    world.clock.0.store(1000, Ordering::Relaxed);
    world.turn().await;
    assert!(kept().trees.contains_key(&lasts) && kept().programs.contains_key(&lasts));
    assert!(!kept().trees.contains_key(&short));
}
