use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

const TREE: Tree = Tree { id: 7, epoch: 1 };

/// Both ends, what is on its way between them, and what came out.
struct World {
    ends: [Machine; 2],
    ways: [VecDeque<Message>; 2],
    came: [Vec<u8>; 2],
}

impl World {
    fn new() -> World {
        let ends = [Machine::ghost(TREE), Machine::relay(TREE, [0; 2], [0; 2])];
        let mut world = World { ends, ways: Default::default(), came: Default::default() };
        world.connect();
        world
    }

    /// What is on its way is lost.
    fn connect(&mut self) {
        for (end, way) in self.ends.iter_mut().zip(&mut self.ways) {
            way.clear();
            way.push_back(end.connected(false));
        }
    }

    fn send(&mut self, end: usize, most: usize) {
        for _ in 0..most {
            self.ways[end].extend(self.ends[end].next_message());
        }
    }

    fn deliver(&mut self, from: usize, most: usize) {
        for _ in 0..most {
            if let Some(message) = self.ways[from].pop_front() {
                self.ends[1 - from].take(message).unwrap();
            }
        }
    }

    fn pass(&mut self, end: usize, most: usize) {
        let into = &mut self.ends[end].into[0];
        let bytes: Vec<u8> = into.front().iter().take(most).copied().collect();
        into.pass(bytes.len());
        self.came[end].extend(bytes);
    }

    fn settle(&mut self) {
        self.connect();
        for _ in 0..20 {
            for end in 0..2 {
                self.send(end, 100);
                self.deliver(end, 100);
                self.pass(end, usize::MAX);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize, Vec<u8>),
    Send(usize, usize),
    Deliver(usize, usize),
    Pass(usize, usize),
    Reconnect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let end = 0usize..2;
    let bytes = proptest::collection::vec(any::<u8>(), 0..100);
    let step = prop_oneof![
        (end.clone(), bytes).prop_map(|(e, b)| Step::Write(e, b)),
        (end.clone(), 0usize..4).prop_map(|(e, n)| Step::Send(e, n)),
        (end.clone(), 0usize..4).prop_map(|(e, n)| Step::Deliver(e, n)),
        (end, 0usize..80).prop_map(|(e, n)| Step::Pass(e, n)),
        Just(Step::Reconnect),
    ];
    proptest::collection::vec(step, 0..200)
}

proptest! {
    #[test]
    fn reconnects_lose_and_double_nothing(steps in steps()) {
        // wrong: a program would read other input, or a person see output twice or not at all
        let mut world = World::new();
        let mut written: [Vec<u8>; 2] = Default::default();
        for step in steps {
            match step {
                Step::Write(end, bytes) => {
                    world.ends[end].out[0].push(&bytes);
                    written[end].extend(bytes);
                }
                Step::Send(end, n) => world.send(end, n),
                Step::Deliver(from, n) => world.deliver(from, n),
                Step::Pass(end, n) => world.pass(end, n),
                Step::Reconnect => world.connect(),
            }
            for end in 0..2 {
                prop_assert!(written[1 - end].starts_with(&world.came[end]));
            }
        }
        for end in &mut world.ends {
            end.out[0].end();
        }
        world.settle();
        for end in 0..2 {
            prop_assert_eq!(&world.came[end], &written[1 - end]);
            prop_assert!(world.ends[end].into[0].is_over());
            prop_assert_eq!(world.ends[end].out[0].room(), 0);
        }
    }

    #[test]
    fn what_a_restored_tree_writes_again_is_dropped(
        before in 0usize..500, at in 0usize..500, after in 0usize..500, cut in 1usize..500,
    ) {
        // wrong: after a crash the person would see output twice, or miss some
        let text: Vec<u8> = (0..before + after).map(|i| (i % 251) as u8).collect();
        let at = at.min(before);
        let mut world = World::new();
        world.ends[1].out[0].push(&text[..before]);
        world.settle();
        let restored = Tree { epoch: 2, ..TREE };
        world.ends[1] = Machine::relay(restored, [0; 2], [at as u64, 0]);
        // Part of it is written before the ghost is there.
        let cut = (at + cut).min(text.len());
        world.ends[1].out[0].push(&text[at..cut]);
        world.settle();
        world.ends[1].out[0].push(&text[cut..]);
        world.settle();
        prop_assert_eq!(&world.came[0], &text);
        prop_assert_eq!(world.ends[0].tree(), restored);
    }
}

#[test]
fn a_sender_stops_at_the_window() {
    // wrong: a program that writes faster than it is read would fill both nodes' memory
    let mut world = World::new();
    let out = &mut world.ends[1].out[0];
    out.push(&vec![1; WINDOW_BYTES]);
    assert_eq!(out.room(), 0);
    for _ in 0..10 {
        world.send(0, 100);
        world.deliver(0, 100);
        world.send(1, 100);
        world.deliver(1, 100);
    }
    assert_eq!(world.ends[0].into[0].front().len(), WINDOW_BYTES);
    assert_eq!(world.ends[1].out[0].room(), 0, "nothing was passed on");
    world.pass(0, 1000);
    world.send(0, 1);
    world.deliver(0, 1);
    assert_eq!(world.ends[1].out[0].room(), 1000);
}

#[test]
fn what_waits_at_the_other_end_counts_after_a_reconnect() {
    // wrong: a reader slower than its program would end the ghost when a connection breaks
    let mut world = World::new();
    let text: Vec<u8> = (0..2 * WINDOW_BYTES).map(|i| (i % 251) as u8).collect();
    world.ends[1].out[0].push(&text[..WINDOW_BYTES]);
    let exchange = |world: &mut World| {
        for _ in 0..10 {
            for end in 0..2 {
                world.send(end, 100);
                world.deliver(end, 100);
            }
        }
    };
    exchange(&mut world);
    world.pass(0, 1000);
    world.connect();
    exchange(&mut world);
    assert_eq!(world.ends[1].out[0].room(), 1000);
    world.ends[1].out[0].push(&text[WINDOW_BYTES..WINDOW_BYTES + 1000]);
    exchange(&mut world);
    assert_eq!(world.ends[0].into[0].received(), (WINDOW_BYTES + 1000) as u64);
    // Another life of the tree, whose checkpoint is ahead of what was passed on.
    let at = (WINDOW_BYTES + 1000) as u64;
    world.ends[1] = Machine::relay(Tree { epoch: 2, ..TREE }, [0; 2], [at, 0]);
    let rest = &text[at as usize..];
    let now = rest.len().min(world.ends[1].out[0].room());
    world.ends[1].out[0].push(&rest[..now]);
    world.settle();
    world.ends[1].out[0].push(&rest[now..]);
    world.settle();
    assert!(world.came[0] == text);
}

#[test]
fn input_that_was_not_passed_on_is_there_for_the_next_copy() {
    // wrong: a tree that moves while its input waits would lose its ghost
    let mut world = World::new();
    world.ends[0].out[0].push(b"abcdef");
    for end in [0, 1, 0] {
        world.send(end, 10);
        world.deliver(end, 10);
    }
    world.pass(1, 2);
    world.connect();
    for end in [0, 1] {
        world.deliver(end, 10);
    }
    world.ends[1] = Machine::relay(Tree { epoch: 2, ..TREE }, [2, 0], [0; 2]);
    world.settle();
    assert_eq!(world.came[1], b"abcdef");
}

fn hello(tree: u64, epoch: u64, received: [u64; 2]) -> Message {
    let (refused, passed) = ([false; 2], received);
    let (version, terminal) = (VERSION, false);
    let ghost = None;
    Message::Control(Control::Hello {
        version,
        tree,
        epoch,
        received,
        passed,
        refused,
        terminal,
        ghost,
    })
}

fn data(stream: Stream, offset: u64, bytes: &[u8]) -> Message {
    Message::Data { stream, offset, end: false, bytes: bytes.to_vec() }
}

#[test]
fn a_ghost_takes_one_epoch_and_then_newer_ones_only() {
    // wrong: two live copies of a tree would write to one terminal
    let mut ghost = Machine::ghost(TREE);
    let mut meet = |epoch| {
        ghost.connected(false);
        ghost.take(hello(TREE.id, epoch, [0; 2])).map(drop)
    };
    assert_eq!(meet(1), Ok(()));
    assert_eq!(meet(3), Ok(()));
    assert_eq!(meet(2), Err(Fault::Superseded { old: 2, new: 3 }));
    assert_eq!(meet(3), Ok(()));
    let mut stale = Machine::relay(Tree { epoch: 2, ..TREE }, [0; 2], [0; 2]);
    let e = stale.take(hello(TREE.id, 3, [0; 2]));
    assert_eq!(e, Err(Fault::Superseded { old: 2, new: 3 }));
}

#[test]
fn what_breaks_the_protocol_is_a_fault() {
    // wrong: bytes would silently be missing, doubled, or another tree's
    let mut ghost = Machine::ghost(TREE);
    assert_eq!(ghost.take(data(Stream::Output, 0, b"x")), Err(Fault::Order));
    assert_eq!(ghost.take(hello(8, 1, [0; 2])), Err(Fault::OtherTree { theirs: 8, ours: TREE.id }));
    ghost.take(hello(TREE.id, 1, [0; 2])).unwrap();
    assert_eq!(ghost.take(hello(TREE.id, 1, [0; 2])), Err(Fault::Order));
    assert_eq!(ghost.take(data(Stream::Input, 0, b"x")), Err(Fault::Order));
    let gap = Fault::Gap { stream: Stream::Output, have: 0, got: 5 };
    assert_eq!(ghost.take(data(Stream::Output, 5, b"x")), Err(gap));
    let passed = Control::Passed { stream: Stream::Input, offset: 1 };
    assert_eq!(ghost.take(Message::Control(passed)), Err(Fault::NotSent(Stream::Input)));
    ghost.out[0].push(b"abc");
    assert!(ghost.next_message().is_some());
    let passed = Control::Passed { stream: Stream::Input, offset: 2 };
    ghost.take(Message::Control(passed)).unwrap();
    ghost.connected(false);
    let forgotten = Fault::Forgotten { stream: Stream::Input, asked: 1, kept: 2 };
    assert_eq!(ghost.take(hello(TREE.id, 1, [1, 0])), Err(forgotten));
}

fn guest(again: bool) -> Machine {
    Machine::guest(TREE, GhostId { number: 1, again, late: false })
}

#[test]
fn a_ghost_that_attaches_writes_after_those_before_it() {
    // wrong: the first words of who attaches would be taken for what was read already
    let mut ghost = guest(false);
    ghost.out[0].push(b"new");
    ghost.take(hello(TREE.id, 1, [500, 3])).unwrap();
    let sent = ghost.next_message();
    assert_eq!(sent, Some(data(Stream::Input, 500, b"new")));
    // On the next connection its offsets are the tree's.
    let again = ghost.connected(false);
    let Message::Control(Control::Hello { ghost: Some(id), .. }) = again else { panic!() };
    assert!(id.again);
    ghost.take(hello(TREE.id, 1, [503, 3])).unwrap();
    ghost.out[0].push(b"x");
    let mut sent = std::iter::from_fn(|| ghost.next_message());
    assert_eq!(sent.next(), Some(data(Stream::Input, 503, b"x")));
}

#[test]
fn what_is_gone_is_said_to_be() {
    // wrong: after a restart from a checkpoint no more input would reach the program, ever
    let mut spool = Machine::spool(TREE);
    spool.take(hello(TREE.id, 1, [0; 2])).unwrap();
    spool.out[0].push(b"abcdef");
    assert!(spool.next_message().is_some());
    let passed = Control::Passed { stream: Stream::Input, offset: 4 };
    spool.take(Message::Control(passed)).unwrap();
    spool.connected(false);
    spool.take(hello(TREE.id, 2, [1, 0])).unwrap();
    let begins = Control::Begins { stream: Stream::Input, offset: 4 };
    assert_eq!(spool.next_message(), Some(Message::Control(begins.clone())));
    assert_eq!(spool.next_message(), Some(data(Stream::Input, 4, b"ef")));
    let mut relay = Machine::relay(Tree { epoch: 2, ..TREE }, [1, 0], [0; 2]);
    relay.take(hello(TREE.id, 1, [0; 2])).unwrap();
    assert_eq!(relay.take(Message::Control(begins.clone())), Ok(Some(begins)));
    relay.take(data(Stream::Input, 4, b"ef")).unwrap();
    assert_eq!(relay.into[0].received(), 6);
}

#[test]
fn what_lies_untaken_in_a_pipe_is_kept_by_who_sent_it() {
    // wrong: input that a program had not read yet would be lost when it moves
    let mut relay = Machine::relay(TREE, [0; 2], [0; 2]);
    relay.take(hello(TREE.id, 1, [0; 2])).unwrap();
    relay.take(data(Stream::Input, 0, b"abcdef")).unwrap();
    relay.into[0].pass(6);
    relay.into[0].leave(4);
    let passed = |offset| Message::Control(Control::Passed { stream: Stream::Input, offset });
    assert_eq!(relay.next_message(), Some(passed(2)));
    let Message::Control(Control::Hello { received, passed: taken, .. }) = relay.connected(false)
    else {
        panic!()
    };
    assert_eq!((received[0], taken[0]), (6, 2));
    relay.take(hello(TREE.id, 1, [0; 2])).unwrap();
    relay.into[0].leave(0);
    assert_eq!(relay.next_message(), Some(passed(6)));
}

#[test]
fn offsets_that_cannot_be_are_refused() {
    // wrong: who lies about how far it is would bring down the node's program
    for far in [u64::MAX, u64::MAX / 2 + 1] {
        assert_eq!(guest(false).take(hello(TREE.id, 1, [far, 0])), Err(Fault::Order));
        let mut ghost = guest(false);
        ghost.take(hello(TREE.id, 1, [0; 2])).unwrap();
        let begins = Control::Begins { stream: Stream::Output, offset: far };
        assert_eq!(ghost.take(Message::Control(begins)), Err(Fault::Order));
    }
}
