//! Restarts, and the files that a program had open.

use super::agent::{agent, order};
use super::*;
use crate::cluster::messages::CutFile;
use crate::cluster::trees::{BARRED_MAX, CUT_MAX, WAIT_MAX};

const WHY: &str = "files that it had open are not as they were";

fn barred(epoch: u64) -> Fact {
    Fact::Barred { tree: T, epoch, reason: WHY.to_owned() }
}

/// The tree is being restarted on node 3, as copy 2.
fn restarting() -> Desk {
    let mut d = Desk::new(true);
    d.saved(1);
    d.fact(3, Fact::Holds { tree: T, version: 1, output: true });
    d.pass(9_000, &[2, 3]);
    d.c.restart(T, n(3), d.now).unwrap();
    d
}

/// What node 3 is told to restore.
fn told_to_restore(d: &mut Desk) -> (u64, bool) {
    let orders = d.beat(3);
    let [Order::Restore { epoch, roll_back, .. }] = orders.as_slice() else { panic!("{orders:?}") };
    (*epoch, *roll_back)
}

#[test]
fn a_restart_brings_files_back_and_a_move_leaves_them() {
    // wrong: a program would write lines twice, or a move cut off what it had just written
    let mut d = restarting();
    assert_eq!(told_to_restore(&mut d), (2, true));
    let mut d = Desk::new(true);
    d.moving(3);
    d.dumped(2, 1);
    assert_eq!(told_to_restore(&mut d), (2, false));
}

#[test]
fn what_a_person_has_to_decide_is_not_tried_again() {
    // wrong: what cannot change is tried eight times, and then the program is lost
    let mut d = restarting();
    d.fact(3, barred(2));
    assert_eq!(d.tree().barred.as_deref(), Some(WHY));
    assert!(matches!(d.tree().state, TreeState::Checkpointed { .. }));
    assert_eq!((d.tree().tries, d.beat(3)), (0, Vec::new()));
    d.pass(WAIT_MAX.as_millis() as u64 + 1000, &[2, 3]);
    assert!(matches!(d.tree().state, TreeState::Checkpointed { .. }), "there is time for it");
    d.restart_controller();
    assert!(d.tree().barred.is_some());
    // It is looked at again when somebody put the files back.
    d.c.restart(T, n(3), d.now).unwrap();
    assert_eq!((d.tree().barred.clone(), told_to_restore(&mut d)), (None, (3, true)));
    d.fact(3, barred(3));
    d.c.restart_as_is(T, n(3), d.now).unwrap();
    assert_eq!(told_to_restore(&mut d), (4, false));
    // What was said holds when that comes to nothing for another reason.
    d.fact(3, Fact::NotRestored { tree: T, epoch: 4, reason: "no pid".to_owned() });
    d.c.restart(T, n(3), d.now).unwrap();
    assert_eq!(told_to_restore(&mut d), (5, false));
    d.fact(3, Fact::Restored { tree: T, epoch: 5 });
    d.fact(3, Fact::Runs { tree: T, epoch: 5, floor: 5 });
    assert!(!d.tree().as_is, "the next failure is another story");
}

#[test]
fn a_move_that_files_keep_is_undone() {
    // wrong: a program would stand still for ever, since nobody waits for such an answer of a move
    let mut d = Desk::new(true);
    d.moving(3);
    d.dumped(2, 1);
    d.fact(3, barred(2));
    assert_eq!((d.tree().state.clone(), d.tree().barred.clone()), (TreeState::Running, None));
}

#[test]
fn a_program_about_which_nobody_decides_is_lost_in_the_end() {
    // wrong: its checkpoints would fill the disks of nodes for ever
    let mut d = restarting();
    d.fact(3, barred(2));
    d.now = Millis(d.now.0 + BARRED_MAX.as_millis() as u64 + 1);
    d.beat(3);
    d.c.tick(d.now);
    let lost = |t: &Tree| matches!(&t.state, TreeState::Lost { reason } if reason.contains(WHY));
    // Without a ghost nobody waits for it.
    assert!(d.c.state().trees.tree(T).is_none_or(lost));
}

#[test]
fn what_was_cut_is_remembered_once_and_bounded() {
    // wrong: people would not learn where the rest of their files is, or a node fill the core
    let mut d = restarting();
    let cut = |number: usize| {
        let path = format!("/vo/log{number}");
        CutFile { kept: format!("{path}.xos-cut-1-2"), path, bytes: 4 }
    };
    let fact = |cut: Vec<CutFile>| Fact::CutBack { tree: T, epoch: 2, cut };
    d.fact(3, fact(vec![cut(0)]));
    d.fact(3, fact(vec![cut(0)]));
    assert_eq!(d.tree().cut, [cut(0)]);
    d.fact(3, fact((1..=CUT_MAX).map(cut).collect()));
    assert_eq!((d.tree().cut.len(), &d.tree().cut[0]), (CUT_MAX, &cut(1)));
    let long = CutFile { path: "x".repeat(1 << 20), ..cut(7) };
    d.fact(3, fact(vec![long]));
    assert_eq!(d.tree().cut.len(), CUT_MAX);
    assert_eq!(d.tree().cut.last(), Some(&cut(CUT_MAX)));
    d.fact(2, fact(vec![cut(99)]));
    assert!(!d.tree().cut.contains(&cut(99)), "only who restores it says so");
    d.fact(3, Fact::Restored { tree: T, epoch: 2 });
    d.fact(3, fact(vec![cut(99)]));
    assert!(!d.tree().cut.contains(&cut(99)), "it is told before");
}

#[test]
fn a_node_says_what_it_cut_with_what_became_of_the_copy() {
    // wrong: of files that were cut nobody would hear when an answer is lost, or a restart fails
    let cut = vec![CutFile { path: "/vo/log".into(), kept: "/vo/log.x".into(), bytes: 4 }];
    let facts = |act: Option<Act>| match act {
        Some(Act::Say(ToController::Facts { facts, .. })) => facts,
        act => panic!("{act:?}"),
    };
    let told = Fact::CutBack { tree: T, epoch: 2, cut: cut.clone() };
    let mut a = agent();
    let again = || restore(2, image(1, 1), true);
    order(&mut a, 1, again());
    a.cut(T, 2, cut.clone());
    let made = Fact::Restored { tree: T, epoch: 2 };
    assert_eq!(facts(a.restored(T, 2, Ok(()), Millis(2))), [told.clone(), made.clone()]);
    let acts = order(&mut a, 3, again());
    assert_eq!(facts(acts.into_iter().next()), [told.clone(), made]);
    let mut a = agent();
    order(&mut a, 1, again());
    a.cut(T, 2, cut);
    let failed = facts(a.restored(T, 2, Err("no pid".to_owned()), Millis(2)));
    assert_eq!((failed.len(), &failed[0]), (2, &told));
    let mut a = agent();
    order(&mut a, 1, again());
    assert_eq!(facts(a.barred(T, 2, WHY.to_owned(), Millis(2))), [barred(2)]);
    assert_eq!(a.barred(T, 2, WHY.to_owned(), Millis(3)), None, "it is said once");
}
