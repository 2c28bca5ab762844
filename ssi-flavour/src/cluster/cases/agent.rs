//! Of a node by itself.

use super::*;

/// A node in its first term.
pub(super) fn agent() -> Agent {
    let mut a = Agent::new(Times::default().lease());
    a.message(&ToNode::Admitted { after: 0, term: 1 }, Millis(0));
    a
}

pub(super) fn order(a: &mut Agent, now: u64, order: Order) -> Vec<Act> {
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
    let dump = |attempt| Order::Dump { tree: T, epoch: 1, attempt, version: attempt, lasts: false };
    assert_eq!(
        order(&mut a, 1, dump(2)),
        [Act::Dump { tree: T, epoch: 1, attempt: 2, version: 2, lasts: false }]
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

/// If it failed, why a program does not run would be lost with a message, or be longer than its
/// person reads.
#[test]
fn why_it_was_not_started_is_said_until_it_is_known() {
    let mut a = running();
    order(&mut a, 9, Order::Start { tree: TreeId(2), epoch: 1 });
    let (end, why) = (End::Exit { code: 126 }, "x".repeat(WHY_CHARS_MAX));
    let ended = say(Fact::Ended { tree: TreeId(2), epoch: 1, end, why });
    let told = a.not_started(TreeId(2), 1, end, &"x".repeat(9000));
    assert_eq!(told, Some(ended.clone()));
    assert_eq!(a.beat(Millis(10))[1..], [ended]);
}

#[test]
fn an_end_is_said_until_it_is_known() {
    let mut a = running();
    let end = End::Exit { code: 3 };
    let ended = say(Fact::Ended { tree: T, epoch: 1, end, why: String::new() });
    assert_eq!(a.ended(T, 1, end), Some(ended.clone()));
    assert_eq!(a.beat(Millis(10))[1..], [ended]);
    order(&mut a, 11, Order::Kill { tree: T, epoch: 1 });
    a.killed(T, 1);
    assert_eq!(a.beat(Millis(12)).len(), 1);
}

#[test]
fn where_the_output_is_is_told_with_what_a_copy_leaves() {
    // wrong: with one lost word nobody would know which node has the output, and a program that
    // goes on elsewhere would lose all of it
    let mut a = running();
    let spooled = Fact::Spooled { tree: T, epoch: 1 };
    assert_eq!(a.spooled(T, 1), Some(say(spooled.clone())));
    let both = |fact| Act::Say(ToController::Facts { term: 1, facts: vec![spooled.clone(), fact] });
    order(&mut a, 1, Order::Save { tree: T, epoch: 1, version: 1 });
    let saved = both(Fact::Saved { tree: T, epoch: 1, image: image(1, 1) });
    assert_eq!(a.saved(T, 1, 1, Ok(image(1, 1))), Some(saved));
    let dump = Order::Dump { tree: T, epoch: 1, attempt: 2, version: 2, lasts: false };
    order(&mut a, 2, dump.clone());
    let image = image(2, 1);
    let dumped = both(Fact::Dumped { tree: T, epoch: 1, attempt: 2, image: image.clone() });
    assert_eq!(a.dumped(T, 1, 2, Ok(image)), std::slice::from_ref(&dumped));
    assert_eq!(order(&mut a, 3, dump), [dumped], "it is told until it is known");
}

#[test]
fn a_copy_of_an_image_is_fetched_once_and_let_go_when_it_is_not_wanted() {
    // wrong: an image would be fetched with each heartbeat, or stay for ever
    let mut a = agent();
    let hold = |attempt| {
        let from = BTreeSet::from([n(2)]);
        let output = Some(written());
        Order::Hold { tree: T, attempt, version: 4, from, owner: 70_007, output }
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
    // The image alone is not all that a restart needs.
    let image = say(Fact::Holds { tree: T, version: 4, output: false });
    assert_eq!(a.held(T, 3, 4, Ok(false)), Some(image));
    assert_eq!(order(&mut a, 7, hold(4)).len(), 1);
    let holds = say(Fact::Holds { tree: T, version: 4, output: true });
    assert_eq!(a.held(T, 4, 4, Ok(true)), Some(holds.clone()));
    assert_eq!(order(&mut a, 7, hold(5)), [holds]);
    let beat = format!("{:?}", a.beat(Millis(8)));
    assert!(beat.contains("images: [(TreeId(1), 4)]"), "{beat}");
    let discard = || Order::Discard { tree: T, version: 4 };
    assert_eq!(order(&mut a, 9, discard()), [Act::Discard { tree: T, version: 4 }]);
    assert_eq!(order(&mut a, 10, discard()), []);
}

#[test]
fn an_agent_that_is_restarted_gives_up_what_it_was_at() {
    let mut a = running();
    let dump = Order::Dump { tree: T, epoch: 1, attempt: 2, version: 1, lasts: false };
    order(&mut a, 1, dump);
    let text = serde_json::to_string(&a).unwrap();
    let mut a: Agent = serde_json::from_str(&text).unwrap();
    let acts = a.restarted(Millis(2));
    assert_eq!(acts[..2], [Act::Freeze, Act::Resume { tree: T, epoch: 1 }]);
    assert!(format!("{acts:?}").contains("Refused"), "{acts:?}");
}

#[test]
fn what_lasts_is_all_that_a_new_start_knows() {
    // wrong: an image would be forgotten that the controller counts on, or a term be used twice
    let mut a = running();
    order(&mut a, 1, Order::Save { tree: T, epoch: 1, version: 3 });
    a.saved(T, 1, 3, Ok(image(3, 1)));
    let from = BTreeSet::from([n(2)]);
    let (owner, output) = (70_007, None);
    let hold = Order::Hold { tree: TreeId(9), attempt: 1, version: 4, from, owner, output };
    order(&mut a, 2, hold);
    let mut kept: Agent =
        serde_json::from_str(&serde_json::to_string(&a.lasting()).unwrap()).unwrap();
    a.rebooted();
    kept.rebooted();
    assert_eq!(kept, a);
    assert_eq!(kept.kept(), BTreeSet::from([(T, 3), (TreeId(9), 4)]));
}

/// If it failed, a program's memory would come to a node where nothing of it is to run any more.
#[test]
fn an_image_is_expected_for_a_copy_that_may_come_only() {
    let mut a = agent();
    let expect = |epoch| Order::Expect { tree: T, epoch, version: 1, from: n(1) };
    let expects = [Act::Expect { tree: T, version: 1, from: n(1) }];
    assert_eq!(order(&mut a, 1, expect(2)), expects);
    assert_eq!(order(&mut a, 2, expect(2)), expects, "who does it knows that it is at it");
    order(&mut a, 3, Order::Kill { tree: T, epoch: 2 });
    assert_eq!(order(&mut a, 4, expect(2)), []);
    let mut a = running();
    assert_eq!(order(&mut a, 1, expect(1)), []);
}

/// If it failed, a node would say that it keeps a checkpoint which goes with its agent.
#[test]
fn what_is_in_memory_only_is_not_said_to_be_held() {
    let mut a = running();
    let dump = Order::Dump { tree: T, epoch: 1, attempt: 2, version: 2, lasts: false };
    order(&mut a, 1, dump);
    let image = Image { brief: BTreeSet::from([n(1)]), ..image(2, 1) };
    a.dumped(T, 1, 2, Ok(image));
    assert_eq!(a.brief().collect::<Vec<_>>(), [(T, 2)]);
    let (from, owner) = (BTreeSet::from([n(3)]), 70_007);
    let hold = Order::Hold { tree: T, attempt: 1, version: 2, from, owner, output: None };
    assert_eq!(order(&mut a, 2, hold), []);
    let holds = say(Fact::Holds { tree: T, version: 2, output: false });
    assert_eq!(a.held(T, 0, 2, Ok(false)), Some(holds));
    assert_eq!(a.brief().count(), 0);
    let mut other = a.clone();
    a.rebooted();
    assert!(a.keeps(T, 2), "it is on the disk");
    order(&mut other, 3, Order::Discard { tree: T, version: 2 });
    assert!(!other.keeps(T, 2));
}

/// If it failed, a node whose restart came to nothing would take an image for kept that goes with
/// its agent.
#[test]
fn what_is_in_memory_only_stays_so_when_no_copy_is_made_of_it() {
    let mut a = running();
    let dump = Order::Dump { tree: T, epoch: 1, attempt: 2, version: 2, lasts: false };
    order(&mut a, 1, dump);
    let image = Image { brief: BTreeSet::from([n(1)]), ..image(2, 1) };
    a.dumped(T, 1, 2, Ok(image.clone()));
    order(&mut a, 2, Order::Kill { tree: T, epoch: 1 });
    a.killed(T, 1).unwrap();
    order(&mut a, 3, restore(3, image.clone(), true));
    a.restored(T, 3, Err("no pid".to_owned()), Millis(3)).unwrap();
    order(&mut a, 4, restore(4, image, true));
    a.barred(T, 4, "its log".to_owned(), Millis(4)).unwrap();
    assert_eq!(a.brief().collect::<Vec<_>>(), [(T, 2)]);
    a.rebooted();
    assert!(!a.keeps(T, 2));
}
