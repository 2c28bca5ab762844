//! Trees that leave for another cluster, and trees that come from one.

use super::*;

/// If it failed, a program that left for another site could run on here, or be lost with a move
/// that its node refuses.
#[test]
fn a_tree_that_leaves_stops_for_good_or_goes_on() {
    let mut d = Desk::new(true);
    d.c.leave(T, d.now).unwrap();
    let dump = Order::Dump { tree: T, epoch: 1, attempt: 2, version: 1, lasts: true };
    assert_eq!(d.beat(1), [dump]);
    d.fact(1, Fact::Refused { tree: T, epoch: 1, attempt: 2, reason: "a device".to_owned() });
    assert_eq!(d.beat(1), [Order::Run { tree: T, epoch: 1, floor: 2 }], "it goes on");
    d.fact(1, Fact::Runs { tree: T, epoch: 1, floor: 2 });
    d.c.leave(T, d.now).unwrap();
    let image = Image { brief: BTreeSet::from([n(1)]), ..image(2, 1) };
    d.fact(1, Fact::Dumped { tree: T, epoch: 1, attempt: 3, image });
    assert_eq!(d.tree().state, TreeState::Running, "what is in memory only may be gone at once");
    d.fact(1, Fact::Runs { tree: T, epoch: 1, floor: 3 });
    d.c.leave(T, d.now).unwrap();
    d.dumped(4, 3);
    // From here on it never runs again, whatever is heard, or however long it takes.
    d.restart_controller();
    d.pass(200_000, &[1, 2, 3]);
    assert_eq!(d.beat(1), [Order::Kill { tree: T, epoch: 1 }]);
    d.fact(1, Fact::Runs { tree: T, epoch: 1, floor: 4 });
    assert!(matches!(d.tree().state, TreeState::Leaving { .. }));
    d.fact(1, Fact::Gone { tree: T, epoch: 1 });
    assert_eq!(d.tree().state, TreeState::Away);
    assert_eq!(d.tree().checkpoint.as_ref().unwrap().version, 3);
    assert!((1..=3).all(|number| d.beat(number).is_empty()), "nothing is to be done with it");
    assert!(d.c.restart(T, n(2), d.now).is_err(), "nor can it begin again here");
    let term = d.term(1);
    let images = vec![(T, 1), (T, 3)];
    let m = ToController::Beat { term, sent: d.now, copies: Vec::new(), images };
    let effects = d.c.message(n(1), &m, d.now);
    assert_eq!(told(&effects, 1), [Order::Discard { tree: T, version: 1 }], "its image stays");
    d.c.end(T).unwrap();
}

/// If it failed, a program would be lost because its node failed in the moment in which it left.
#[test]
fn what_did_not_get_away_in_time_goes_on_from_a_checkpoint() {
    let mut d = Desk::new(true);
    d.saved(1);
    d.fact(2, Fact::Holds { tree: T, version: 1, output: true });
    d.c.leave(T, d.now).unwrap();
    d.dumped(2, 2);
    d.pass(20_000, &[2, 3]);
    assert!(matches!(d.tree().state, TreeState::Checkpointed { .. }), "{:?}", d.tree().state);
    d.c.restart(T, n(2), d.now).unwrap();
    assert_eq!(d.tree().checkpoint.as_ref().unwrap().version, 1, "that which another node has");
}

/// If it failed, a program that came from another cluster would not begin here, or its image be
/// looked for there when it is long gone.
#[test]
fn a_tree_that_comes_is_restarted_from_what_is_elsewhere() {
    let mut d = Desk::new(true);
    let wish = Wish { restartable: true, ..d.wish() };
    let came = Image { nodes: BTreeSet::new(), shared: true, ..image(5, 1) };
    let (tree, _) = d.c.come(99, &wish, n(2), came.clone(), d.now).unwrap();
    assert!(d.c.let_go(tree).is_err(), "it is not this cluster's to give");
    d.c.restart(tree, n(3), d.now).unwrap();
    assert_eq!(d.beat(3), [Order::Restore { tree, epoch: 2, image: came, roll_back: true }]);
    d.fact(3, Fact::Restored { tree, epoch: 2 });
    let t = d.c.state().trees.tree(tree).unwrap();
    let image = t.checkpoint.as_ref().unwrap();
    assert!(!image.shared && image.nodes == BTreeSet::from([n(3)]));
    assert_eq!((t.root, t.birth, t.node), (99, n(2), n(3)));
    assert_eq!(d.beat(3), [Order::Run { tree, epoch: 2, floor: 2 }]);
}

/// If it failed, a member whose units leave one after the other, or a site that never says which
/// image it needs no more, would fill the disks of a cluster's nodes.
#[test]
fn images_of_what_left_take_so_much_of_a_disk_and_no_more() {
    let mut d = Desk::new(true);
    let wish = Wish { restartable: true, ..d.wish() };
    let other = Owner { member: MemberNumber(8), uid: 70_008, ..wish.owner.clone() };
    let begins = |d: &mut Desk, root: i32, wish: &Wish, at: u8| {
        let (tree, _) = d.c.start(root, wish, n(at), n(at)).unwrap();
        d.fact(at, Fact::Runs { tree, epoch: 1, floor: 1 });
        tree
    };
    let same = begins(&mut d, 32_769, &wish, 1);
    let there = begins(&mut d, 65_537, &wish, 2);
    let another = begins(&mut d, 32_770, &Wish { owner: other, ..wish.clone() }, 1);
    d.saved(1);
    d.c.leave(T, d.now).unwrap();
    let large = Image { bytes: 64 << 30, ..image(2, 1) };
    d.fact(1, Fact::Dumped { tree: T, epoch: 1, attempt: 2, image: large });
    d.fact(1, Fact::Gone { tree: T, epoch: 1 });
    assert_eq!(d.tree().state, TreeState::Away);
    assert_eq!(d.tree().previous, None, "of what left one image stays, and not two");
    let full = d.c.leave(same, d.now).unwrap_err().to_string();
    assert!(full.contains("n1.rennes keeps as many images of this member's programs"), "{full}");
    d.c.leave(there, d.now).unwrap();
    d.c.leave(another, d.now).unwrap();
    d.c.end(T).unwrap();
    d.c.leave(same, d.now).unwrap();
}

/// If it failed, an administrator would take a node out and with it the only image of a program
/// that is on its way to another site; or could not take out one that died.
#[test]
fn a_node_that_alone_has_what_left_is_not_taken_out() {
    let mut d = Desk::new(true);
    d.c.leave(T, d.now).unwrap();
    d.dumped(2, 1);
    d.fact(1, Fact::Gone { tree: T, epoch: 1 });
    d.c.drain(n(1), true).unwrap();
    assert_eq!(d.c.only_at(n(1)), [T]);
    assert_eq!(d.c.only_at(n(2)), []);
    let needed = d.c.remove(n(1), d.now).unwrap_err().to_string();
    assert!(needed.starts_with("n1.rennes alone has the images of 1 programs"), "{needed}");
    let mut dead = Desk { c: d.c.clone(), now: d.now };
    dead.pass(20_000, &[2, 3]);
    dead.c.remove(n(1), dead.now).unwrap();
    d.c.end(T).unwrap();
    d.c.remove(n(1), d.now).unwrap();
}
