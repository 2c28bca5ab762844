//! The nasty cases, each on its own: one controller, two or three nodes, messages by hand.

mod agent;
mod files;
mod kept;
mod leave;
mod output;

use super::agent::{Act, Agent};
use super::controller::{Controller, Refused};
use super::interval::Interval;
use super::members::{Moves, NodeState, Times};
use super::messages::{
    End, Fact, Image, Line, Offsets, Order, ToController, ToNode, TreeId, WHY_CHARS_MAX, Written,
};
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
    let (brief, written, shared) = (BTreeSet::new(), BTreeSet::new(), false);
    let (freeze_ms, still_ms) = (1, 1);
    Image { version, output, bytes: 1, freeze_ms, still_ms, nodes, shared, written, brief }
}

/// What of the output a node keeps that has it not, with the checkpoint that node 1 made.
fn written() -> Written {
    let upto = Offsets { out: 10, err: 0 };
    Written { upto, line: Line::default(), at: vec![n(1)] }
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
    let dump = Order::Dump { tree: T, epoch: 1, attempt: 2, version: 1, lasts: false };
    assert_eq!(d.beat(1), [dump]);
    let expect = Order::Expect { tree: T, epoch: 2, version: 1, from: n(1) };
    assert_eq!(d.beat(2), [expect], "nothing to restore yet");
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

/// If it failed, the target of a move could have any image of the tree from all who have one, as
/// often as it likes.
#[test]
fn only_the_image_of_its_move_comes_to_a_target() {
    let mut d = Desk::new(true);
    assert_eq!(d.tree().comes_to(), None);
    d.moving(2);
    assert_eq!(d.tree().comes_to(), Some((n(2), 1)), "it may ask before it is made");
    d.dumped(2, 1);
    assert_eq!(d.tree().comes_to(), Some((n(2), 1)));
    d.fact(2, Fact::Restored { tree: T, epoch: 2 });
    assert_eq!(d.tree().comes_to(), None);
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

/// If it failed, large programs would never move, whatever a site allows; or a node that says a
/// silly figure have a program stand still for ever.
#[test]
fn a_step_may_take_what_its_node_lets_it_take() {
    let mut d = Desk::new(true);
    d.c.limit(n(1), Duration::from_secs(600));
    d.moving(2);
    let still = |d: &Desk| matches!(d.tree().state, TreeState::Moving { step: Step::Dumping, .. });
    d.pass(655_000, &[1, 2, 3]);
    assert!(still(&d));
    d.pass(6_000, &[1, 2, 3]);
    assert_eq!(d.tree().state, TreeState::Running);
    // The other's limit counts where it restores.
    d.fact(1, Fact::Runs { tree: T, epoch: 1, floor: 2 });
    d.moving(2);
    d.fact(1, Fact::Dumped { tree: T, epoch: 1, attempt: 3, image: image(2, 1) });
    d.pass(STEP_MAX.as_millis() as u64 + 1000, &[1, 2, 3]);
    assert!(matches!(d.tree().state, TreeState::Moving { step: Step::Undoing { .. }, .. }));
    d.c.limit(n(1), Duration::MAX);
    d.c.tick(d.now);
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
    assert_eq!(d.beat(2), [Order::Spool { tree: T, epoch: 2, output: None }]);
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
