use crate::cells::{Cell, PATIENCE, UID, ended, script};
use crate::silent::Silent;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::time::Instant;
use xos_ssi::cell::proto::{Ask, Dying, Exit, Refusal, Start, Tree};
use xos_ssi::cell::{CallError, Client};

/// Asks for it until nothing is left.
fn kill(cell: &mut Cell, tree: Tree) {
    let until = Instant::now() + PATIENCE;
    loop {
        let dying: Dying = cell.client.call(Ask::Kill { tree }, &[]).unwrap();
        if dying.left.is_empty() {
            return;
        }
        assert!(Instant::now() < until, "{dying:?}");
        std::thread::yield_now();
    }
}

/// Starts a program and waits until it said a line.
fn begun(cell: &mut Cell, start: Start) -> (i32, BufReader<std::io::PipeReader>) {
    let (started, out) = cell.start(start).unwrap();
    let mut out = BufReader::new(out);
    out.read_line(&mut String::new()).unwrap();
    (started.pid, out)
}

#[test]
fn what_a_tree_leaves_behind_ends_with_it() {
    // wrong: `sh -c 'hog & exit'` would be a way to run where nobody counts, sees or ends it, and
    // its session would keep the root's pid from the tree that is to have it
    let Some(mut cell) = Cell::new(3) else { return };
    let leaves = "sleep 1000 & (sleep 1000 &); sh -c 'sleep 1000 & wait' & exit 3";
    let (started, _out) = cell.start(script(1, leaves)).unwrap();
    cell.status_when(|s| s.trees.is_empty() && s.others.is_empty());
    let end = ended(&mut cell.client);
    assert_eq!((end.pid, end.exit), (started.pid, Exit::Code(3)));
    let mut again = script(2, "exec sleep 1000");
    again.pid = Some(started.pid);
    assert_eq!(cell.start(again).unwrap().0.pid, started.pid);
}

#[test]
fn what_left_its_tree_ends_with_its_persons_last_one() {
    // wrong: `setsid` would be a way to run for good, or a person's other program lose its helpers
    let Some(mut cell) = Cell::new(3) else { return };
    let leaves = "(setsid sh -c 'echo up; exec sleep 1000' &); exec sleep 1000";
    let (_, _one) = begun(&mut cell, script(1, leaves));
    let (_, _other) = begun(&mut cell, script(2, "echo up; exec sleep 1000"));
    let mut another = script(3, "echo up; exec sleep 1000");
    another.account.uid = UID + 1;
    let (_, _another) = begun(&mut cell, another);
    let (_, _short) = cell.start(script(4, "true")).unwrap();
    let status = cell.status_when(|s| s.trees.len() == 3);
    assert_eq!(status.others.len(), 1, "its person has trees: {status:?}");
    for id in [1, 2] {
        kill(&mut cell, Tree { id, epoch: 1 });
    }
    let status = cell.status_when(|s| s.others.is_empty());
    assert_eq!(status.trees.len(), 1, "another person's: {status:?}");
}

#[test]
fn a_tree_is_ended_though_it_hops_and_does_not_ask_how_its_children_ended() {
    // wrong: a node's agent would wait for it for ever, and with it all programs of the node
    let Some(mut cell) = Cell::new(3) else { return };
    let tree = Tree { id: 1, epoch: 1 };
    // What sleeps has children that have ended, and does not ask. Each of the others makes the next
    // one and ends.
    let all = "hop() { hop & exit; }; (hop &); true & true & echo up; exec sleep 1000";
    let (pid, _out) = begun(&mut cell, script(1, all));
    kill(&mut cell, tree);
    kill(&mut cell, tree);
    let end = ended(&mut cell.client);
    assert_eq!((end.pid, end.exit), (pid, Exit::Signal(libc::SIGKILL)));
    cell.status_when(|s| s.trees.is_empty() && s.others.is_empty());
}

#[test]
fn a_tree_is_stopped_as_a_whole() {
    // wrong: part of it would work on while the rest stands still
    let Some(mut cell) = Cell::new(3) else { return };
    let all = "sh -c 'echo up; exec sleep 1000' & exec sleep 1000";
    let (_, _out) = begun(&mut cell, script(1, all));
    cell.client.call::<()>(Ask::Halt { tree: Tree { id: 1, epoch: 1 } }, &[]).unwrap();
    let status = cell.client.status().unwrap();
    let proc = format!("/proc/{}/root/proc", status.init_pid);
    let processes = &status.trees[0].processes;
    assert_eq!(processes.len(), 2);
    let until = Instant::now() + PATIENCE;
    for pid in processes {
        // A signal is sent before it is obeyed.
        while !std::fs::read_to_string(format!("{proc}/{pid}/stat")).unwrap().contains(") T ") {
            assert!(Instant::now() < until, "{pid} does not stop");
            std::thread::yield_now();
        }
    }
    cell.client.call::<()>(Ask::Halt { tree: Tree { id: 9, epoch: 1 } }, &[]).unwrap();
}

#[test]
fn a_program_on_a_volume_that_is_silent_is_given_up_and_holds_up_nobody() {
    // wrong: one member's program on a broken volume would keep the node from all others, for ever
    let Some(silent) = Silent::new() else { return };
    let Some(mut cell) = Cell::new(3) else { return };
    let waits = |id: u64| {
        let mut start = script(id, "true");
        start.program.cwd = silent.path().to_owned();
        let dir = cell.dir.path().to_owned();
        std::thread::spawn(move || {
            let null: [OwnedFd; 3] = [(), (), ()].map(|()| File::open("/dev/null").unwrap().into());
            Client::connect(&dir).unwrap().start(start, &null)
        })
    };
    let (late, ended_before) = (waits(1), waits(2));
    let tree = |id| Tree { id, epoch: 1 };
    let until = Instant::now() + PATIENCE;
    while cell.client.status().unwrap().others.len() < 2 {
        assert!(Instant::now() < until, "they do not begin");
        std::thread::yield_now();
    }
    let refused = cell.refusal(script(2, "true")).to_string();
    assert!(refused.contains("is being started"), "{refused}");
    let (_, _out) = begun(&mut cell, script(3, "echo up; exec sleep 1000"));
    kill(&mut cell, tree(2));
    // It ended before it was a program; its end is told like any other's.
    ended_before.join().unwrap().unwrap();
    assert_eq!(ended(&mut cell.client).tree, Some(tree(2)));
    match late.join().unwrap() {
        Err(CallError::Refused(Refusal::Program(why))) => {
            assert!(why.contains("did not begin"), "{why}");
            assert!(why.contains(silent.path().to_str().unwrap()), "{why}");
        }
        other => panic!("{other:?}"),
    }
    // Its process dies, or hangs until the volume answers; it is no tree in either case.
    let status = cell.client.status().unwrap();
    assert_eq!(status.trees.len(), 1, "{status:?}");
}
