//! Of checkpoints, of what waits, and of what a core had not kept.

use super::*;

/// If it failed, the only checkpoint would be gone with the node that made it.
#[test]
fn a_checkpoint_is_copied_and_the_one_before_stays_until_then() {
    let mut d = Desk::new(true);
    d.saved(1);
    assert_eq!(d.c.thin(2), [T]);
    d.c.hold(T, n(2), d.now).unwrap();
    assert_eq!(d.c.thin(2), [], "somebody is at it");
    let from = BTreeSet::from([n(1)]);
    let hold = |attempt, version| {
        let (from, output) = (from.clone(), Some(written()));
        Order::Hold { tree: T, attempt, version, from, owner: 70_007, output }
    };
    assert_eq!(d.beat(2), [hold(1, 1)]);
    d.fact(2, Fact::Holds { tree: T, version: 1, output: true });
    assert_eq!((d.beat(2), d.c.thin(2)), (Vec::new(), Vec::new()));
    d.saved(2);
    d.c.settle(2);
    assert_eq!(d.tree().previous.as_ref().unwrap().version, 1, "nobody else has the last one");
    // Node 2 does not get it: another one is asked.
    d.c.hold(T, n(2), d.now).unwrap();
    let reason = "no space left".to_owned();
    d.fact(2, Fact::NotHeld { tree: T, attempt: 1, reason: reason.clone() });
    assert_eq!(d.c.thin(2), [], "that was of an attempt before");
    d.fact(2, Fact::NotHeld { tree: T, attempt: 2, reason });
    d.c.hold(T, n(3), d.now).unwrap();
    d.restart_controller();
    d.beat(3);
    assert_eq!(d.beat(3), [hold(3, 2)]);
    d.fact(3, Fact::Holds { tree: T, version: 2, output: true });
    d.c.settle(2);
    assert_eq!(d.tree().previous, None);
    // All who have it are told when it is not wanted any more.
    d.fact(1, Fact::Ended { tree: T, epoch: 1, end: End::Exit { code: 0 }, why: String::new() });
    for number in [1, 2, 3] {
        let (term, sent, copies) = (d.term(number), d.now, Vec::new());
        let images = vec![(T, 2)];
        let beat = ToController::Beat { term, sent, copies, images };
        let orders = told(&d.c.message(n(number), &beat, d.now), number);
        assert!(orders.contains(&Order::Discard { tree: T, version: 2 }), "{number}: {orders:?}");
    }
}

/// If it failed, a tree would wait in vain for a dead node though another has a checkpoint of it.
#[test]
fn without_the_last_checkpoint_the_one_before_is_restarted() {
    let mut d = Desk::new(true);
    d.saved(1);
    d.c.hold(T, n(2), d.now).unwrap();
    d.fact(2, Fact::Holds { tree: T, version: 1, output: true });
    d.saved(2);
    d.c.settle(2);
    d.pass(9_000, &[2, 3]);
    assert!(matches!(d.tree().state, TreeState::Checkpointed { .. }));
    d.c.settle(2);
    d.c.restart(T, n(3), d.now).unwrap();
    let mut old = image(1, 1);
    old.nodes.insert(n(2));
    old.written.insert(n(2));
    assert_eq!(d.beat(3), [restore(2, old, true)]);
}

/// If it failed, a program that waits would be started twice, or be forgotten with the core.
#[test]
fn what_waits_is_started_once_and_outlives_the_controller() {
    let mut d = Desk::new(true);
    let wish = d.wish();
    let (tree, effects) = d.c.queue(&wish);
    let queued = Record::Tree(TreeRecord::Queued { tree, wish: wish.clone() });
    assert_eq!(effects, [Effect::Keep(queued)], "nobody is told");
    d.restart_controller();
    d.beat(2);
    let text = d.c.migrate(tree, n(2), d.now).unwrap_err().to_string();
    assert_eq!(text, "tree 2 waits until a node has room: try again when it runs");
    assert_eq!(d.c.state().trees.queue().wish(tree), Some(&wish));
    let effects = d.c.begin(tree, 65_536, n(2), n(2)).unwrap();
    assert_eq!(told(&effects, 2), [Order::Start { tree, epoch: 1 }]);
    assert!(d.c.begin(tree, 65_537, n(3), n(3)).is_err());
    let (next, _) = d.c.queue(&wish);
    assert_eq!(next, TreeId(3), "its number is not given again");
    d.c.end(next).unwrap();
    assert!(d.c.end(next).is_err() && d.c.state().trees.queue().is_empty());
    assert!(d.c.end(tree).is_err(), "something of it may run");
}

/// If it failed, what nobody may run here any more would wait for ever.
#[test]
fn what_waits_goes_with_its_vo() {
    let mut d = Desk::new(true);
    let wish = d.wish();
    let (tree, _) = d.c.queue(&wish);
    let vos = BTreeSet::from([wish.owner.vo]);
    assert_eq!(d.c.drop_waiting(&vos), []);
    let text = format!("{:?}", d.c.drop_waiting(&BTreeSet::new()));
    assert!(text.contains("Lost") && text.contains("demo.rennes is not served"), "{text}");
    assert_eq!(d.c.state().trees.queue().wish(tree), None);
}

#[test]
fn a_ghost_of_nobodys_tree_ends_once_nothing_of_it_can_run() {
    // wrong: what stands for a program that the core had not kept would wait for ever; or hear of
    // its end while it runs
    let mut d = Desk::new(false);
    let ghosts = |d: &mut Desk| {
        let m = ToController::Ghosts { term: d.term(1), trees: vec![T, TreeId(99)] };
        let effects = d.c.message(n(1), &m, d.now);
        told(&effects, 1)
    };
    d.restart_controller();
    let dead = Times::default().dead().as_millis() as u64;
    d.pass(2 * dead - 500, &[1, 2, 3]);
    assert_eq!(ghosts(&mut d), []);
    d.pass(500, &[1, 2, 3]);
    assert_eq!(ghosts(&mut d), [Order::Forsake { tree: TreeId(99) }]);
    let m = ToController::Ghosts { term: d.term(1) + 1, trees: vec![TreeId(99)] };
    assert_eq!(d.c.message(n(1), &m, d.now), []);
}

/// If it failed, a tree would be lost with the memory of two nodes, though one had a checkpoint of
/// it on its disk.
#[test]
fn an_image_in_memory_only_takes_no_checkpoints_place() {
    let mut d = Desk::new(true);
    d.saved(1);
    d.moving(2);
    let image = Image { brief: BTreeSet::from([n(1)]), ..image(2, 1) };
    d.fact(1, Fact::Dumped { tree: T, epoch: 1, attempt: 2, image });
    d.fact(2, Fact::Restored { tree: T, epoch: 2 });
    let last = |d: &Desk| {
        let image = d.tree().checkpoint.as_ref().filter(|c| c.version == 2);
        image.map(|c| (c.nodes.clone(), c.brief.clone())).unwrap()
    };
    let (both, none) = (BTreeSet::from([n(1), n(2)]), BTreeSet::new());
    assert_eq!(last(&d), (both.clone(), both.clone()));
    d.fact(2, Fact::Runs { tree: T, epoch: 2, floor: 2 });
    assert_eq!(d.c.thin(2), [], "those that have it keep it");
    for (node, brief) in [(2, BTreeSet::from([n(1)])), (1, none)] {
        d.c.settle(2);
        assert!(d.tree().previous.as_ref().is_some_and(|c| c.version == 1), "it stays");
        // What was written is where the tree was born.
        d.fact(node, Fact::Holds { tree: T, version: 2, output: node == 2 });
        assert_eq!(last(&d), (both.clone(), brief));
    }
    d.c.settle(2);
    assert!(d.tree().previous.is_none());
}

/// If it failed, two moves one after the other would leave a tree without any checkpoint on a disk.
#[test]
fn the_checkpoint_before_two_moves_stays() {
    let mut d = Desk::new(true);
    d.saved(1);
    for (at, to, epoch) in [(1, 2, 1), (2, 3, 2)] {
        d.moving(to);
        let image = Image { brief: BTreeSet::from([n(at)]), ..image(epoch + 1, at) };
        let attempt = epoch + 1;
        d.fact(at, Fact::Dumped { tree: T, epoch, attempt, image });
        d.fact(to, Fact::Restored { tree: T, epoch: attempt });
        d.fact(to, Fact::Runs { tree: T, epoch: attempt, floor: attempt });
    }
    let versions = |image: &Option<Image>| image.as_ref().map(|image| image.version);
    let of = (versions(&d.tree().checkpoint), versions(&d.tree().previous));
    assert_eq!(of, (Some(3), Some(1)));
}
