//! Where the output of trees is when nodes are lost.

use super::*;

/// What node 2 or 3 is told to begin its spool with.
fn spool(d: &mut Desk, number: u8) -> Option<Option<Written>> {
    let orders = d.beat(number);
    orders.into_iter().find_map(|order| match order {
        Order::Spool { output, .. } => Some(output),
        _ => None,
    })
}

fn holds(version: u64, output: bool) -> Fact {
    Fact::Holds { tree: T, version, output }
}

/// Node 1, where the tree was born and ran, is lost; node 3 restarts it as copy 2.
fn restarted(d: &mut Desk) {
    d.pass(9_000, &[2, 3]);
    d.c.restart(T, n(3), d.now).unwrap();
    d.fact(3, Fact::Restored { tree: T, epoch: 2 });
    d.fact(3, Fact::Runs { tree: T, epoch: 2, floor: 2 });
}

#[test]
fn a_checkpoint_counts_where_the_output_is_too() {
    // wrong: what a program wrote would be lost with a node though its checkpoint is not
    let mut d = Desk::new(true);
    d.saved(1);
    d.c.hold(T, n(2), d.now).unwrap();
    d.fact(2, holds(1, false));
    let copies = |d: &Desk| d.c.copies(d.tree(), d.tree().checkpoint.as_ref().unwrap());
    assert_eq!((copies(&d), d.c.thin(2)), (1, vec![T]));
    // It has the image, and is asked for the rest.
    d.c.hold(T, n(2), d.now).unwrap();
    d.fact(2, holds(1, true));
    assert_eq!((copies(&d), d.c.thin(2)), (2, vec![]));
    d.c.hold(T, n(2), d.now).unwrap_err();
}

#[test]
fn a_move_leaves_the_output_where_it_is_until_somebody_keeps_it() {
    // wrong: both nodes of a move would count as if they had what was written, and none does
    let mut d = Desk::new(true);
    d.moving(2);
    d.dumped(2, 1);
    d.fact(2, Fact::Restored { tree: T, epoch: 2 });
    d.fact(2, Fact::Runs { tree: T, epoch: 2, floor: 2 });
    let image = d.tree().checkpoint.clone().unwrap();
    assert_eq!(image.nodes, BTreeSet::from([n(1), n(2)]));
    assert!(d.tree().has(&image, n(1)) && !d.tree().has(&image, n(2)));
    d.c.hold(T, n(2), d.now).unwrap();
    let orders = d.beat(2);
    assert!(matches!(&orders[..], [Order::Hold { output: Some(_), .. }]), "{orders:?}");
}

#[test]
fn a_lost_spool_goes_on_with_what_was_kept() {
    // wrong: who reads a program's output would get nothing of what was before its node was lost
    let mut d = Desk::new(true);
    d.saved(1);
    d.fact(2, holds(1, true));
    restarted(&mut d);
    // Node 1 may be back.
    let at = vec![n(2), n(1)];
    let expected = Written { at, ..written() };
    assert_eq!(spool(&mut d, 3), Some(Some(expected.clone())));
    d.restart_controller();
    d.beat(3);
    assert_eq!(spool(&mut d, 3), Some(Some(expected)), "it is said until it is done");
    d.fact(3, Fact::Spooled { tree: T, epoch: 2 });
    assert_eq!((spool(&mut d, 3), d.tree().home()), (None, Some(n(3))));
    // What node 2 keeps is the same up to the checkpoint.
    let line = d.tree().line;
    assert_eq!(line, Line { number: 1, fork: written().upto });
    let image = d.tree().checkpoint.clone().unwrap();
    assert!(d.tree().has(&image, n(2)));
    // The end of the tree is told where its spool is.
    d.fact(3, Fact::Ended { tree: T, epoch: 2, end: End::Exit { code: 0 }, why: String::new() });
    let orders = d.beat(3);
    assert!(orders.iter().any(|o| matches!(o, Order::Finish { .. })), "{orders:?}");
    d.fact(3, Fact::Finished { tree: T });
    assert!(d.c.state().trees.tree(T).is_none());
}

#[test]
fn a_copy_knows_of_its_new_spool_before_it_runs() {
    // wrong: what it writes first would go to what is left of an old spool at the node of its
    // birth, and be taken for what was there before
    let mut d = Desk::new(true);
    d.saved(1);
    d.fact(2, holds(1, true));
    d.pass(9_000, &[2, 3]);
    d.c.restart(T, n(2), d.now).unwrap();
    let orders = told(&d.fact(2, Fact::Restored { tree: T, epoch: 2 }), 2);
    let of = [Order::Spool { tree: T, epoch: 2, output: d.tree().begins_with() }];
    let run = Order::Run { tree: T, epoch: 2, floor: 2 };
    assert_eq!(orders, [&of[..], &[run]].concat());
}

#[test]
fn the_node_of_the_last_spool_goes_on_with_its_own() {
    // wrong: a node that is started anew would fetch from others what it has, or lose the rest
    let mut d = Desk::new(true);
    d.saved(1);
    d.fact(2, holds(1, true));
    d.pass(9_000, &[2, 3]);
    d.c.message(n(1), &ToController::Join { after: 1 }, d.now);
    d.c.prove(n(1), Moves::Yes, 1).unwrap();
    d.beat(1);
    d.c.restart(T, n(1), d.now).unwrap();
    d.fact(1, Fact::Restored { tree: T, epoch: 2 });
    d.fact(1, Fact::Runs { tree: T, epoch: 2, floor: 2 });
    let at = vec![n(1), n(2)];
    assert_eq!(spool(&mut d, 1), Some(Some(Written { at, ..written() })));
}

#[test]
fn a_spool_of_before_goes_when_the_tree_has_another_one() {
    // wrong: a node that comes back would keep for ever what is nobody's, or throw away what is
    // still the only one
    let mut d = Desk::new(true);
    d.saved(1);
    d.fact(3, holds(1, true));
    restarted(&mut d);
    d.c.message(n(1), &ToController::Join { after: 1 }, d.now);
    d.beat(1);
    let left = |d: &mut Desk| {
        let trees = vec![(T, 1), (TreeId(99), 1)];
        let m = ToController::Spools { term: d.term(1), trees };
        told(&d.c.message(n(1), &m, d.now), 1)
    };
    assert_eq!(left(&mut d), [], "nobody else has it yet");
    d.fact(3, Fact::Spooled { tree: T, epoch: 2 });
    assert_eq!(left(&mut d), [Order::Unspool { tree: T, epoch: 1 }]);
}
