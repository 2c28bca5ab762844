use super::*;
use proptest::prelude::*;

fn unit(n: u32) -> UnitSpec {
    serde_json::from_str(&format!(r#"{{"key":"1.a:{n}","argv":["true"]}}"#)).unwrap()
}

fn key(n: u32) -> UnitKey {
    unit(n).key
}

fn spawned(out: &[Do]) -> Vec<String> {
    let name = |d: &Do| match d {
        Do::Spawn(_, u) => Some(u.key.to_string()),
        _ => None,
    };
    out.iter().filter_map(name).collect()
}

#[test]
fn units_wait_for_slots_and_are_recorded_before_they_are_spawned() {
    // wrong: a crash between spawn and record would let a unit run a second time
    let mut m = Machine::new(2);
    let mut out = Vec::new();
    m.start((0..3).map(unit).collect(), &mut out);
    m.fill(0, &mut out);
    assert_eq!(spawned(&out), ["1.a:0", "1.a:1"]);
    assert_eq!(out[0], Do::Record(Event::Taken { units: (0..3).map(key).collect() }));
    assert_eq!(out[1], Do::Record(Event::Starting { unit: key(0) }));
    assert!(matches!(out[2], Do::Spawn(0, _)));
    out.clear();
    m.ended(0, Outcome::Exited { code: 0, cause: None }, None, Reached::default(), &mut out);
    m.fill(0, &mut out);
    assert_eq!(spawned(&out), ["1.a:2"]);
}

#[test]
fn a_known_unit_is_answered_and_not_taken() {
    // wrong: a repeated request would run a unit twice
    let mut m = Machine::new(1);
    let mut out = Vec::new();
    assert_eq!(
        m.start(vec![unit(0), unit(0)], &mut out),
        [StartAnswer::Taken, StartAnswer::Known(UnitState::Waiting)]
    );
    m.fill(0, &mut out);
    assert_eq!(m.start(vec![unit(0)], &mut out), [StartAnswer::Known(UnitState::Running)]);
    let end = Outcome::Exited { code: 3, cause: None };
    m.ended(0, end.clone(), None, Reached::default(), &mut out);
    assert_eq!(m.start(vec![unit(0)], &mut out), [StartAnswer::Known(UnitState::Ended(end))]);
    out.clear();
    m.fill(0, &mut out);
    assert_eq!(out, []);
}

#[test]
fn term_then_kill_after_the_grace() {
    // wrong: a unit that ignores TERM would stay, or one that heeds it would be shot too early
    let mut m = Machine::new(1);
    let mut out = Vec::new();
    m.start(vec![unit(0)], &mut out);
    m.fill(0, &mut out);
    out.clear();
    m.kill(&key(0), 100, 10, &mut out).unwrap();
    assert_eq!(out, [Do::Signal(0, false)]);
    assert_eq!(m.next_due(), Some(110));
    out.clear();
    m.tick(109, &mut out);
    assert_eq!(out, []);
    m.tick(110, &mut out);
    assert_eq!(out, [Do::Signal(0, true)]);
    assert_eq!(m.next_due(), None);
    out.clear();
    m.ended(0, Outcome::Signaled { signal: 9, cause: None }, None, Reached::default(), &mut out);
    let end = Outcome::Signaled { signal: 9, cause: Some(Cause::Asked) };
    assert_eq!(out, [Do::Record(Event::Ended { unit: key(0), outcome: end, usage: None })]);
}

#[test]
fn frozen_time_does_not_count() {
    // wrong: work frozen while the node was cut off would be ended the moment it goes on
    let mut m = Machine::new(1);
    let mut out = Vec::new();
    m.start(vec![UnitSpec { wall_ms: Some(100), ..unit(0) }], &mut out);
    m.fill(0, &mut out);
    m.frozen(50);
    out.clear();
    m.tick(500, &mut out);
    assert_eq!((out.as_slice(), m.next_due()), (&[][..], None));
    m.thawed(1050);
    assert_eq!(m.next_due(), Some(1100));
    m.tick(1100, &mut out);
    assert_eq!(out, [Do::Signal(0, false)]);
}

#[test]
fn causes_are_told_apart() {
    // wrong: the person would not learn which limit it was, or a unit that did its work would count
    // as failed
    let end_after = |stop: bool, reached, outcome| {
        let mut m = Machine::new(1);
        let mut out = Vec::new();
        m.start(vec![unit(0)], &mut out);
        m.fill(0, &mut out);
        if stop {
            m.kill(&key(0), 100, 10, &mut out).unwrap();
        }
        m.ended(0, outcome, None, reached, &mut out);
        match out.pop() {
            Some(Do::Record(Event::Ended { outcome, .. })) => outcome,
            other => panic!("{other:?}"),
        }
    };
    let end = |memory, outcome| end_after(false, Reached { memory, processes: false }, outcome);
    let nine = |cause| Outcome::Signaled { signal: 9, cause };
    assert_eq!(end(true, nine(None)), nine(Some(Cause::MemoryLimit)));
    assert_eq!(end(false, nine(None)), nine(None));
    let code = |code, cause| Outcome::Exited { code, cause };
    assert_eq!(end(true, code(137, None)), code(137, Some(Cause::MemoryLimit)));
    assert_eq!(end(true, code(1, None)), code(1, None));
    let full = Reached { memory: false, processes: true };
    let by_processes = Some(Cause::ProcessLimit);
    assert_eq!(end_after(false, full, code(2, None)), code(2, by_processes));
    assert_eq!(end_after(false, full, nine(None)), nine(by_processes));
    assert_eq!(end_after(false, full, code(0, None)), code(0, None));
    assert_eq!(end_after(true, full, code(2, None)), code(2, Some(Cause::Asked)));
    let both = Reached { memory: true, processes: true };
    assert_eq!(end_after(false, both, nine(None)), nine(Some(Cause::MemoryLimit)));
}

#[test]
fn the_queue_is_bounded() {
    // wrong: one job could fill the node's memory
    let mut m = Machine::new(1);
    let n = QUEUE_MAX as u32;
    let mut out = Vec::new();
    let answers = m.start((0..=n).map(unit).collect(), &mut out);
    assert_eq!(answers[QUEUE_MAX - 1], StartAnswer::Taken);
    assert_eq!(answers[QUEUE_MAX], StartAnswer::Refused(Refusal::Full(QUEUE_MAX as u64)));
    m.set_ending();
    assert_eq!(m.start(vec![unit(n + 9)], &mut out), [StartAnswer::Refused(Refusal::Ending)]);
}

#[derive(Clone, Debug)]
enum Step {
    Start(u32),
    End(u32),
    Kill(u32, u64),
    KillAll,
    Freeze,
    Thaw,
    Tick,
    Slots(u32),
    InitDied,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u32..12).prop_map(Step::Start),
        4 => (0u32..4).prop_map(Step::End),
        1 => (0u32..12, 0u64..20).prop_map(|(u, g)| Step::Kill(u, g)),
        1 => Just(Step::KillAll),
        1 => Just(Step::Freeze),
        1 => Just(Step::Thaw),
        2 => Just(Step::Tick),
        1 => (0u32..5).prop_map(Step::Slots),
        1 => Just(Step::InitDied),
    ]
}

proptest! {
    #[test]
    fn each_unit_starts_at_most_once_and_ends_exactly_once(steps in prop::collection::vec(step(), 0..80)) {
        // wrong: in some order of requests a unit would run twice, or its end be lost
        let mut m = Machine::new(2);
        let mut out = Vec::new();
        let mut taken = 0;
        for (now, s) in (0u64..).step_by(7).zip(steps) {
            match s {
                Step::Start(n) => {
                    let a = m.start(vec![unit(n)], &mut out);
                    taken += usize::from(a[0] == StartAnswer::Taken);
                }
                Step::End(s) => {
                    m.ended(s, Outcome::Exited { code: 0, cause: None }, None, Reached::default(), &mut out);
                }
                Step::Kill(n, g) => drop(m.kill(&key(n), g, now, &mut out)),
                Step::KillAll => m.kill_all(Cause::Asked, 5, now, &mut out),
                Step::Freeze => m.frozen(now),
                Step::Thaw => m.thawed(now),
                Step::Tick => m.tick(now, &mut out),
                Step::Slots(n) => m.set_slots(n),
                Step::InitDied => m.init_died(Cause::InitDied, &mut out),
            }
            m.fill(now, &mut out);
        }
        m.init_died(Cause::EnvelopeEnded, &mut out);
        let mut started = Vec::new();
        let mut ended = Vec::new();
        let mut spawned = Vec::new();
        for d in &out {
            match d {
                Do::Record(Event::Starting { unit }) => started.push(unit.to_string()),
                Do::Record(Event::Ended { unit, .. }) => ended.push(unit.to_string()),
                Do::Spawn(_, u) => spawned.push(u.key.to_string()),
                _ => {}
            }
        }
        prop_assert_eq!(&started, &spawned);
        for list in [&mut started, &mut ended] {
            let n = list.len();
            list.sort();
            list.dedup();
            prop_assert_eq!(list.len(), n);
        }
        prop_assert_eq!(ended.len(), taken);
    }
}
