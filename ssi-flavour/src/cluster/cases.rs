//! The nasty cases, each on its own: one controller, two or three nodes, messages by hand.

mod files;

use super::agent::{Act, Agent};
use super::controller::{Controller, Refused};
use super::interval::Interval;
use super::members::{Moves, NodeState, Times};
use super::messages::{End, Fact, Image, Offsets, Order, ToController, ToNode, TreeId};
use super::record::{Effect, Record, State};
use super::trees::{Owner, STEP_MAX, Step, Tree, TreeRecord, TreeState, Wish};
use crate::pids::NodeNumber;
use std::collections::BTreeSet;
use std::time::Duration;
use xos_base::{MemberNumber, Millis};

const T: TreeId = TreeId(1);

fn n(number: u8) -> NodeNumber {
    NodeNumber::try_from(number).unwrap()
}

fn image(version: u64, node: u8) -> Image {
    let output = Offsets { out: 10, err: 0 };
    let nodes = BTreeSet::from([n(node)]);
    Image { version, output, bytes: 1, freeze_ms: 1, nodes, shared: false }
}

fn restore(epoch: u64, image: Image, roll_back: bool) -> Order {
    Order::Restore { tree: T, epoch, image, roll_back }
}

/// A controller that was told all that nodes did, and what it told them last.
struct Desk {
    c: Controller,
    now: Millis,
}

impl Desk {
    /// Nodes 1 to 3 are online; tree 1 was born on node 1 and runs there.
    fn new(restartable: bool) -> Desk {
        let mut c = Controller::new(State::default(), Times::default(), Millis(0));
        let vo: xos_base::VoId = "demo.rennes".parse().unwrap();
        for number in 1..=3 {
            let id = format!("n{number}.rennes").parse().unwrap();
            c.add(&id, BTreeSet::from([vo.clone()])).unwrap();
        }
        let mut desk = Desk { c, now: Millis(1000) };
        for number in 1..=3 {
            desk.c.message(n(number), &ToController::Join { after: 0 }, desk.now);
            desk.c.prove(n(number), Moves::Yes, 1).unwrap();
            desk.beat(number);
        }
        let owner = Owner { vo, member: MemberNumber(7), uid: 70_007 };
        let wish = Wish { owner, restartable, interval: Interval::Best };
        let (tree, _) = desk.c.start(32_768, &wish, n(1), n(1)).unwrap();
        assert_eq!(tree, T);
        desk.fact(1, Fact::Runs { tree: T, epoch: 1, floor: 1 });
        assert!(desk.tree().confirmed);
        desk
    }

    fn tree(&self) -> &Tree {
        self.c.state().trees.tree(T).unwrap()
    }

    /// Another one of the same member.
    fn wish(&self) -> Wish {
        let owner = self.tree().owner.clone();
        Wish { owner, restartable: false, interval: Interval::Best }
    }

    /// Node 1 made a checkpoint.
    fn saved(&mut self, version: u64) {
        self.c.save(T, self.now).unwrap();
        self.fact(1, Fact::Saved { tree: T, epoch: 1, image: image(version, 1) });
        assert_eq!(self.tree().checkpoint.as_ref().unwrap().version, version);
    }

    fn term(&self, number: u8) -> u64 {
        self.c.state().members.node(n(number)).unwrap().term
    }

    fn fact(&mut self, number: u8, fact: Fact) -> Vec<Effect> {
        let term = self.term(number);
        let m = ToController::Facts { term, facts: vec![fact] };
        self.c.message(n(number), &m, self.now)
    }

    fn beat_of(&mut self, number: u8, term: u64, copies: Vec<(TreeId, u64)>) -> Vec<Effect> {
        let m = ToController::Beat { term, sent: self.now, copies, images: Vec::new() };
        self.c.message(n(number), &m, self.now)
    }

    fn beat(&mut self, number: u8) -> Vec<Order> {
        let term = self.term(number);
        told(&self.beat_of(number, term, Vec::new()), number)
    }

    /// Time goes by while only some nodes are heard.
    fn pass(&mut self, ms: u64, heard: &[u8]) {
        let until = Millis(self.now.0 + ms);
        while self.now < until {
            self.now = Millis(self.now.0 + 500);
            for number in heard {
                self.beat(*number);
            }
            self.c.tick(self.now);
        }
    }

    fn restart_controller(&mut self) {
        let text = serde_json::to_string(self.c.state()).unwrap();
        let state = serde_json::from_str(&text).unwrap();
        self.c = Controller::new(state, Times::default(), self.now);
    }

    fn moving(&mut self, to: u8) {
        self.c.migrate(T, n(to), self.now).unwrap();
    }

    fn dumped(&mut self, attempt: u64, version: u64) {
        let image = image(version, 1);
        self.fact(1, Fact::Dumped { tree: T, epoch: 1, attempt, image });
    }

    fn node_state(&self, number: u8) -> NodeState {
        self.c.state().members.node(n(number)).unwrap().state
    }
}

fn told(effects: &[Effect], number: u8) -> Vec<Order> {
    let of = |e: &Effect| match e {
        Effect::Tell { node, message: ToNode::Told { orders, .. } } if *node == n(number) => {
            Some(orders.clone())
        }
        _ => None,
    };
    effects.iter().filter_map(of).flatten().collect()
}

#[test]
fn a_move_goes_through_its_steps() {
    let mut d = Desk::new(true);
    d.moving(2);
    assert_eq!(d.beat(1), [Order::Dump { tree: T, epoch: 1, attempt: 2, version: 1 }]);
    assert_eq!(d.beat(2), [], "nothing to restore yet");
    d.dumped(2, 1);
    assert_eq!(d.beat(2), [restore(2, image(1, 1), false)]);
    let effects = d.fact(2, Fact::Restored { tree: T, epoch: 2 });
    let kept = effects.iter().position(|e| matches!(e, Effect::Keep(_)));
    let tell = effects.iter().position(|e| matches!(e, Effect::Tell { .. }));
    assert!(kept < tell && tell.is_some(), "the commit is kept before anybody is told");
    assert_eq!(told(&effects, 2), [Order::Run { tree: T, epoch: 2, floor: 2 }]);
    // The source's copy is stale now, and not before.
    let term = d.term(1);
    let effects = d.beat_of(1, term, vec![(T, 1)]);
    assert_eq!(told(&effects, 1), [Order::Kill { tree: T, epoch: 1 }]);
    d.fact(2, Fact::Runs { tree: T, epoch: 2, floor: 2 });
    assert!(d.tree().confirmed && d.tree().node == n(2) && d.tree().birth == n(1));
    assert_eq!(d.beat(2), []);
}

/// If it failed, a program that left for another site could run on here, or be lost with a move that
/// its node refuses.
#[test]
fn a_tree_that_leaves_stops_for_good_or_goes_on() {
    let mut d = Desk::new(true);
    d.c.leave(T, d.now).unwrap();
    assert_eq!(d.beat(1), [Order::Dump { tree: T, epoch: 1, attempt: 2, version: 1 }]);
    d.fact(1, Fact::Refused { tree: T, epoch: 1, attempt: 2, reason: "a device".to_owned() });
    assert_eq!(d.beat(1), [Order::Run { tree: T, epoch: 1, floor: 2 }], "it goes on");
    d.fact(1, Fact::Runs { tree: T, epoch: 1, floor: 2 });
    d.c.leave(T, d.now).unwrap();
    d.dumped(3, 2);
    // From here on it never runs again, whatever is heard, or however long it takes.
    d.restart_controller();
    d.pass(200_000, &[1, 2, 3]);
    assert_eq!(d.beat(1), [Order::Kill { tree: T, epoch: 1 }]);
    d.fact(1, Fact::Runs { tree: T, epoch: 1, floor: 3 });
    assert!(matches!(d.tree().state, TreeState::Leaving { .. }));
    d.fact(1, Fact::Gone { tree: T, epoch: 1 });
    assert_eq!(d.tree().state, TreeState::Away);
    assert_eq!(d.tree().checkpoint.as_ref().unwrap().version, 2);
    assert!((1..=3).all(|number| d.beat(number).is_empty()), "nothing is to be done with it");
    assert!(d.c.restart(T, n(2), d.now).is_err(), "nor can it begin again here");
    let term = d.term(1);
    let images = vec![(T, 1), (T, 2)];
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
    d.fact(2, Fact::Holds { tree: T, version: 1 });
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

#[test]
fn a_late_answer_of_an_older_attempt_does_nothing() {
    let mut d = Desk::new(true);
    d.moving(2);
    let why = || "a device is open".to_owned();
    d.fact(1, Fact::Refused { tree: T, epoch: 1, attempt: 2, reason: why() });
    assert_eq!(d.beat(1), [Order::Run { tree: T, epoch: 1, floor: 2 }]);
    // That it ran before the attempt says nothing about now.
    d.fact(1, Fact::Runs { tree: T, epoch: 1, floor: 1 });
    assert!(!d.tree().confirmed);
    d.fact(1, Fact::Runs { tree: T, epoch: 1, floor: 2 });
    d.moving(3);
    d.fact(1, Fact::Refused { tree: T, epoch: 1, attempt: 2, reason: why() });
    d.dumped(2, 1);
    d.fact(2, Fact::Restored { tree: T, epoch: 2 });
    let dumping =
        TreeState::Moving { to: n(3), next: 3, version: 2, step: Step::Dumping, since: d.now };
    assert_eq!(d.tree().state, dumping);
}

#[test]
fn the_source_goes_on_only_when_the_targets_copy_is_gone() {
    let mut d = Desk::new(true);
    d.moving(2);
    d.dumped(2, 1);
    let ms = STEP_MAX.as_millis() as u64 + 1000;
    d.pass(ms, &[1, 2, 3]);
    assert_eq!(d.beat(1), [], "the source was let go while the target may have a copy");
    assert_eq!(d.beat(2), [Order::Kill { tree: T, epoch: 2 }]);
    // Too late: the move was given up, whatever was made.
    d.fact(2, Fact::Restored { tree: T, epoch: 2 });
    assert_eq!(d.tree().epoch, 1);
    d.restart_controller();
    d.beat(1);
    assert_eq!(d.beat(2), [Order::Kill { tree: T, epoch: 2 }], "forgotten by a restart");
    let effects = d.fact(2, Fact::Gone { tree: T, epoch: 2 });
    assert_eq!(told(&effects, 1), [Order::Run { tree: T, epoch: 1, floor: 2 }]);
}

#[test]
fn a_target_that_is_silent_holds_the_source_only_until_its_lease_ended() {
    let mut d = Desk::new(true);
    d.moving(2);
    d.dumped(2, 1);
    d.pass(7_500, &[1, 3]);
    assert_eq!(d.beat(1), []);
    assert_eq!(d.node_state(2), NodeState::Suspect);
    d.pass(1_000, &[1, 3]);
    assert_eq!(d.node_state(2), NodeState::Failed);
    assert_eq!(d.beat(1), [Order::Run { tree: T, epoch: 1, floor: 2 }]);
}

#[test]
fn a_commit_is_not_lost_with_its_messages() {
    let mut d = Desk::new(true);
    d.moving(2);
    d.dumped(2, 1);
    d.fact(2, Fact::Restored { tree: T, epoch: 2 });
    // Nobody heard of it, and the controller begins anew.
    d.restart_controller();
    let term = d.term(1);
    let source = d.beat_of(1, term, vec![(T, 1)]);
    assert_eq!(told(&source, 1), [Order::Kill { tree: T, epoch: 1 }]);
    assert_eq!(d.beat(2), [Order::Run { tree: T, epoch: 2, floor: 2 }]);
    // Said again.
    d.fact(2, Fact::Restored { tree: T, epoch: 2 });
    assert_eq!(d.tree().epoch, 2);
}

#[test]
fn a_source_that_dies_after_the_dump_does_not_stop_the_move() {
    let mut d = Desk::new(false);
    d.moving(2);
    d.dumped(2, 1);
    d.pass(9_000, &[2, 3]);
    assert_eq!(d.node_state(1), NodeState::Failed);
    assert!(d.tree().spool, "its ghost was there");
    d.fact(2, Fact::Restored { tree: T, epoch: 2 });
    assert_eq!((d.tree().node, d.tree().epoch), (n(2), 2));
    assert_eq!(d.tree().output_at(), n(2), "who follows it would ask the dead node for ever");
    d.fact(2, Fact::Runs { tree: T, epoch: 2, floor: 2 });
    assert_eq!(d.beat(2), [Order::Spool { tree: T, epoch: 2 }]);
}

#[test]
fn a_source_that_dies_after_the_dump_is_lost_when_the_restore_fails() {
    let mut d = Desk::new(false);
    d.moving(2);
    d.dumped(2, 1);
    d.pass(9_000, &[2, 3]);
    let effects = d.fact(2, Fact::NotRestored { tree: T, epoch: 2, reason: "no image".to_owned() });
    let text = format!("{effects:?}");
    assert!(text.contains("Lost") && text.contains("no image"), "{text}");
    assert!(d.c.state().trees.tree(T).is_none(), "nobody waits for it");
}

#[test]
fn a_target_that_dies_after_the_commit_leaves_the_moves_image() {
    let mut d = Desk::new(true);
    d.moving(2);
    d.dumped(2, 1);
    d.fact(2, Fact::Restored { tree: T, epoch: 2 });
    d.pass(9_000, &[1, 3]);
    assert!(matches!(d.tree().state, TreeState::Checkpointed { .. }));
    // It ran there, perhaps: the source's own copy must not.
    assert_eq!(d.beat(1), []);
    d.c.restart(T, n(3), d.now).unwrap();
    let mut image = image(1, 1);
    image.nodes.insert(n(2));
    assert_eq!(d.beat(3), [restore(3, image, true)]);
    d.fact(3, Fact::Restored { tree: T, epoch: 3 });
    assert_eq!(d.beat(3), [Order::Run { tree: T, epoch: 3, floor: 3 }]);
    // Who was away is told that nothing of its term is left.
    let back = d.beat_of(2, 1, vec![(T, 2)]);
    let want = Effect::Tell { node: n(2), message: ToNode::Expelled { term: 1 } };
    assert_eq!(back, [want]);
}

#[test]
fn source_and_target_cut_off_leave_one_tree() {
    let mut d = Desk::new(true);
    d.c.save(T, d.now).unwrap();
    d.fact(1, Fact::Saved { tree: T, epoch: 1, image: image(1, 3) });
    d.moving(2);
    d.dumped(2, 2);
    d.pass(9_000, &[3]);
    assert!(matches!(d.tree().state, TreeState::Checkpointed { .. }), "{:?}", d.tree().state);
    d.c.restart(T, n(3), d.now).unwrap();
    assert_eq!(d.beat(3), [restore(3, image(1, 3), true)]);
    // Both come back, and say what they did.
    for (number, fact) in [
        (1, Fact::Dumped { tree: T, epoch: 1, attempt: 2, image: image(2, 1) }),
        (2, Fact::Restored { tree: T, epoch: 2 }),
    ] {
        let effects = d.fact(number, fact);
        assert_eq!(effects, [], "a fact of an ended term");
    }
}

#[test]
fn what_cannot_be_restarted_is_lost_with_the_reason() {
    let mut d = Desk::new(false);
    d.c.save(T, d.now).unwrap();
    d.fact(1, Fact::Saved { tree: T, epoch: 1, image: image(1, 3) });
    // Born on node 1; it runs on node 2 when that fails.
    d.moving(2);
    d.dumped(2, 2);
    d.fact(2, Fact::Restored { tree: T, epoch: 2 });
    d.pass(9_000, &[1, 3]);
    let TreeState::Lost { reason } = &d.tree().state else { panic!("{:?}", d.tree().state) };
    assert!(reason.contains("n2.rennes was silent") && reason.contains("not to be restarted"));
    let orders = d.beat(1);
    assert!(matches!(orders[..], [Order::Finish { tree: T, .. }]), "{orders:?}");
    d.fact(1, Fact::Finished { tree: T });
    assert!(d.c.state().trees.tree(T).is_none());
}

#[test]
fn a_controller_that_begins_anew_waits_for_leases_that_it_does_not_know() {
    let mut d = Desk::new(true);
    d.pass(7_000, &[2, 3]);
    d.restart_controller();
    d.pass(7_000, &[2, 3]);
    assert_eq!(d.node_state(1), NodeState::Suspect, "it may have been answered just before");
    d.pass(1_500, &[2, 3]);
    assert_eq!(d.node_state(1), NodeState::Failed);
}

/// The controller can die after any record: a node that failed and its tree that did not would
/// stay so, and the tree be taken for killed when the node comes back.
#[test]
fn the_end_of_a_term_and_of_its_trees_is_one_record() {
    let mut d = Desk::new(false);
    d.pass(7_500, &[2, 3]);
    let mut state = d.c.state().clone();
    d.now = Millis(d.now.0 + 1_000);
    for e in d.c.tick(d.now) {
        if let Effect::Keep(r) = e {
            state.apply(&r);
            let failed = state.members.node(n(1)).unwrap().state == NodeState::Failed;
            let gone = state.trees.tree(T).is_none_or(|t| !t.uses(n(1)));
            assert_eq!(failed, gone, "{r:?}");
        }
    }
    assert_eq!(state, *d.c.state());
    assert_eq!(d.node_state(1), NodeState::Failed);
}

#[test]
fn no_ghost_is_where_nobody_would_see_it_die() {
    // wrong: a node that crashes before it hears of its term joins in the same one again; nothing
    // would take the output of the tree whose ghost was there
    let mut d = Desk::new(true);
    d.c.message(n(2), &ToController::Join { after: 1 }, d.now);
    let wish = d.wish();
    let start = |d: &mut Desk| d.c.start(32_769, &wish, n(2), n(3)).map(drop);
    let text = start(&mut d).unwrap_err().to_string();
    assert_eq!(text, "tree 2: n2.rennes has sent no heartbeat yet: try again");
    d.beat(2);
    assert_eq!(start(&mut d), Ok(()));
}

#[test]
fn an_admission_that_was_lost_is_repeated_and_a_late_join_changes_nothing() {
    let mut d = Desk::new(true);
    let join = ToController::Join { after: 0 };
    let again = d.c.message(n(1), &join, d.now);
    let want = Effect::Tell { node: n(1), message: ToNode::Admitted { after: 0, term: 1 } };
    assert_eq!(again, [want]);
    assert_eq!(d.tree().state, TreeState::Running);
    // Now it means it: the node began anew.
    d.c.message(n(1), &ToController::Join { after: 1 }, d.now);
    assert_eq!(d.term(1), 2);
    let late = d.c.message(n(1), &join, d.now);
    assert_eq!(late, []);
}

#[test]
fn what_is_in_the_way_is_said() {
    let mut d = Desk::new(true);
    let there = d.c.can_migrate(T, n(1)).unwrap_err();
    assert_eq!(there, Refused::There { tree: T, node: "n1.rennes".into() });
    d.c.drain(n(2), true).unwrap();
    let text = d.c.can_migrate(T, n(2)).unwrap_err().to_string();
    assert_eq!(text, "tree 1: n2.rennes is draining");
    let busy = d.c.drain(n(1), true).and_then(|_| d.c.remove(n(1), d.now)).unwrap_err();
    assert_eq!(busy.to_string(), "n1.rennes still has 1 trees: drain it first");
    assert!(d.c.remove(n(2), d.now).is_ok());
    d.moving(3);
    let text = d.c.can_migrate(T, n(3)).unwrap_err().to_string();
    assert_eq!(text, "tree 1 moves: try again when it runs");
}

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
        let from = from.clone();
        Order::Hold { tree: T, attempt, version, from, owner: 70_007 }
    };
    assert_eq!(d.beat(2), [hold(1, 1)]);
    d.fact(2, Fact::Holds { tree: T, version: 1 });
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
    d.fact(3, Fact::Holds { tree: T, version: 2 });
    d.c.settle(2);
    assert_eq!(d.tree().previous, None);
    // All who have it are told when it is not wanted any more.
    d.fact(1, Fact::Ended { tree: T, epoch: 1, end: End::Exit { code: 0 } });
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
    d.fact(2, Fact::Holds { tree: T, version: 1 });
    d.saved(2);
    d.c.settle(2);
    d.pass(9_000, &[2, 3]);
    assert!(matches!(d.tree().state, TreeState::Checkpointed { .. }));
    d.c.settle(2);
    d.c.restart(T, n(3), d.now).unwrap();
    let mut old = image(1, 1);
    old.nodes.insert(n(2));
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

/// A node in its first term.
fn agent() -> Agent {
    let mut a = Agent::new(Times::default().lease());
    a.message(&ToNode::Admitted { after: 0, term: 1 }, Millis(0));
    a
}

fn order(a: &mut Agent, now: u64, order: Order) -> Vec<Act> {
    let m = ToNode::Told { term: 1, sent: Millis(now), orders: vec![order] };
    let acts = a.message(&m, Millis(now));
    acts.into_iter().filter(|act| *act != Act::Thaw).collect()
}

fn say(fact: Fact) -> Act {
    Act::Say(ToController::Facts { term: 1, facts: vec![fact] })
}

fn running() -> Agent {
    let mut a = agent();
    order(&mut a, 0, Order::Start { tree: T, epoch: 1 });
    a.started(T, 1).unwrap();
    a
}

#[test]
fn a_late_order_to_run_does_not_wake_a_copy_that_moves() {
    let mut a = running();
    let run = |floor| Order::Run { tree: T, epoch: 1, floor };
    let dump = |attempt| Order::Dump { tree: T, epoch: 1, attempt, version: attempt };
    assert_eq!(
        order(&mut a, 1, dump(2)),
        [Act::Dump { tree: T, epoch: 1, attempt: 2, version: 2 }]
    );
    a.dumped(T, 1, 2, Ok(image(2, 1)));
    let acts = order(&mut a, 2, run(2));
    let runs = say(Fact::Runs { tree: T, epoch: 1, floor: 2 });
    assert_eq!(acts, [Act::Resume { tree: T, epoch: 1 }, runs]);
    let late = order(&mut a, 3, dump(2));
    let refused = Fact::Refused { tree: T, epoch: 1, attempt: 2, reason: String::new() };
    assert_eq!(late, [say(refused)], "an attempt that is over stops nothing");
    order(&mut a, 4, dump(3));
    a.dumped(T, 1, 3, Ok(image(3, 1)));
    assert_eq!(order(&mut a, 5, run(2)), [], "two copies would live");
}

#[test]
fn a_copy_that_was_killed_is_not_made_again() {
    let mut a = agent();
    let restore = || restore(2, image(1, 1), false);
    let kill = || Order::Kill { tree: T, epoch: 2 };
    order(&mut a, 1, restore());
    assert_eq!(order(&mut a, 2, kill()), [Act::Kill { tree: T, epoch: 2 }]);
    assert_eq!(order(&mut a, 3, kill()), [], "it is not gone yet");
    let gone = say(Fact::Gone { tree: T, epoch: 2 });
    assert_eq!(a.killed(T, 2), Some(gone.clone()));
    assert_eq!(order(&mut a, 4, kill()), [gone]);
    let acts = order(&mut a, 5, restore());
    assert!(format!("{acts:?}").contains("NotRestored"), "{acts:?}");
}

#[test]
fn copies_stand_still_when_the_lease_ends_and_are_killed_before_anything_runs() {
    let lease = Times::default().lease();
    let mut a = running();
    assert_eq!(a.tick(Millis(0).plus(lease).minus(Duration::from_millis(1))), []);
    assert_eq!(a.tick(Millis(0).plus(lease)), [Act::Freeze]);
    // An answer that was on its way too long gives nothing.
    let late = ToNode::Told { term: 1, sent: Millis(0), orders: Vec::new() };
    assert_eq!(a.message(&late, Millis(0).plus(lease)), []);
    let back = ToNode::Told {
        term: 1,
        sent: Millis(9_000),
        orders: vec![Order::Kill { tree: T, epoch: 1 }],
    };
    let acts = a.message(&back, Millis(9_100));
    assert_eq!(acts, [Act::Kill { tree: T, epoch: 1 }, Act::Thaw]);
}

#[test]
fn a_lease_is_that_of_the_times_now() {
    // wrong: a node whose cluster has shorter times would run its copies beyond its death
    let text = serde_json::to_string(&running()).unwrap();
    let mut a: Agent = serde_json::from_str(&text).unwrap();
    a.rebooted();
    a.set_lease(Duration::from_millis(900));
    a.message(&ToNode::Admitted { after: 1, term: 2 }, Millis(10_000));
    a.message(&ToNode::Told { term: 2, sent: Millis(10_000), orders: Vec::new() }, Millis(10_001));
    assert_eq!(a.lease_until(), Millis(10_900));
}

/// If it failed, shorter times would give two live copies: a node that was not heard since runs its
/// own for as long as it was told to.
#[test]
fn a_node_has_the_time_under_which_it_joined() {
    let mut d = Desk::new(false);
    let ms = Duration::from_millis;
    let (long, short) = (Times::default(), Times::new(ms(500), ms(1000), ms(2000)).unwrap());
    let restart = |d: &mut Desk, times: Times| {
        let text = serde_json::to_string(d.c.state()).unwrap();
        d.c = Controller::new(serde_json::from_str(&text).unwrap(), times, d.now);
    };
    restart(&mut d, short);
    d.pass(7_000, &[2, 3]);
    assert_eq!(d.node_state(1), NodeState::Suspect);
    d.pass(1_500, &[2, 3]);
    assert_eq!(d.node_state(1), NodeState::Failed);
    // It joins by the new ones.
    let join = ToController::Join { after: d.term(1) };
    d.c.message(n(1), &join, d.now);
    d.pass(2_500, &[2, 3]);
    assert_eq!(d.node_state(1), NodeState::Failed);
    // It joins, does not hear so, and hears it under longer ones.
    let join = ToController::Join { after: d.term(1) };
    d.c.message(n(1), &join, d.now);
    restart(&mut d, long);
    d.c.message(n(1), &join, d.now);
    restart(&mut d, short);
    d.pass(7_000, &[2, 3]);
    assert_eq!(d.node_state(1), NodeState::Suspect);
}

#[test]
fn an_expelled_node_joins_when_nothing_is_left() {
    let mut a = running();
    let expelled = ToNode::Expelled { term: 1 };
    let acts = a.message(&expelled, Millis(9_000));
    assert_eq!(acts, [Act::Freeze, Act::Abandon, Act::Kill { tree: T, epoch: 1 }]);
    assert_eq!(a.beat(Millis(9_100)), []);
    a.killed(T, 1);
    assert_eq!(a.beat(Millis(9_200)), [Act::Say(ToController::Join { after: 1 })]);
    a.message(&ToNode::Admitted { after: 0, term: 1 }, Millis(9_300));
    assert_eq!(a.beat(Millis(9_400)), [Act::Say(ToController::Join { after: 1 })], "a late one");
    a.message(&ToNode::Admitted { after: 1, term: 2 }, Millis(9_500));
    assert_eq!(a.term(), 2);
}

#[test]
fn an_end_is_said_until_it_is_known() {
    let mut a = running();
    let end = End::Exit { code: 3 };
    let ended = say(Fact::Ended { tree: T, epoch: 1, end });
    assert_eq!(a.ended(T, 1, end), Some(ended.clone()));
    assert_eq!(a.beat(Millis(10))[1..], [ended]);
    order(&mut a, 11, Order::Kill { tree: T, epoch: 1 });
    a.killed(T, 1);
    assert_eq!(a.beat(Millis(12)).len(), 1);
}

#[test]
fn a_copy_of_an_image_is_fetched_once_and_let_go_when_it_is_not_wanted() {
    // wrong: an image would be fetched with each heartbeat, or stay for ever
    let mut a = agent();
    let hold = |attempt| {
        let from = BTreeSet::from([n(2)]);
        Order::Hold { tree: T, attempt, version: 4, from, owner: 70_007 }
    };
    let acts = order(&mut a, 1, hold(1));
    assert!(matches!(acts[..], [Act::Hold { tree: T, attempt: 1, version: 4, .. }]), "{acts:?}");
    assert_eq!(order(&mut a, 2, hold(1)), []);
    let failed = say(Fact::NotHeld { tree: T, attempt: 1, reason: "torn".into() });
    assert_eq!(a.held(T, 1, 4, Err("torn".into())), Some(failed.clone()));
    assert_eq!(order(&mut a, 3, hold(1)), [failed]);
    assert_eq!(order(&mut a, 4, hold(2)).len(), 1);
    let text = serde_json::to_string(&a).unwrap();
    let mut a: Agent = serde_json::from_str(&text).unwrap();
    let acts = a.restarted(Millis(5));
    assert!(format!("{acts:?}").contains("NotHeld"), "{acts:?}");
    order(&mut a, 6, hold(3));
    let holds = say(Fact::Holds { tree: T, version: 4 });
    assert_eq!(a.held(T, 3, 4, Ok(())), Some(holds.clone()));
    assert_eq!(order(&mut a, 7, hold(4)), [holds]);
    let beat = format!("{:?}", a.beat(Millis(8)));
    assert!(beat.contains("images: [(TreeId(1), 4)]"), "{beat}");
    let discard = || Order::Discard { tree: T, version: 4 };
    assert_eq!(order(&mut a, 9, discard()), [Act::Discard { tree: T, version: 4 }]);
    assert_eq!(order(&mut a, 10, discard()), []);
}

#[test]
fn an_agent_that_is_restarted_gives_up_what_it_was_at() {
    let mut a = running();
    order(&mut a, 1, Order::Dump { tree: T, epoch: 1, attempt: 2, version: 1 });
    let text = serde_json::to_string(&a).unwrap();
    let mut a: Agent = serde_json::from_str(&text).unwrap();
    let acts = a.restarted(Millis(2));
    assert_eq!(acts[..2], [Act::Freeze, Act::Resume { tree: T, epoch: 1 }]);
    assert!(format!("{acts:?}").contains("Refused"), "{acts:?}");
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

#[test]
fn what_lasts_is_all_that_a_new_start_knows() {
    // wrong: an image would be forgotten that the controller counts on, or a term be used twice
    let mut a = running();
    order(&mut a, 1, Order::Save { tree: T, epoch: 1, version: 3 });
    a.saved(T, 1, 3, Ok(image(3, 1)));
    let from = BTreeSet::from([n(2)]);
    let hold = Order::Hold { tree: TreeId(9), attempt: 1, version: 4, from, owner: 70_007 };
    order(&mut a, 2, hold);
    let mut kept: Agent =
        serde_json::from_str(&serde_json::to_string(&a.lasting()).unwrap()).unwrap();
    a.rebooted();
    kept.rebooted();
    assert_eq!(kept, a);
    assert_eq!(kept.kept(), BTreeSet::from([(T, 3), (TreeId(9), 4)]));
}
