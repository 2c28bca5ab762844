use crate::cells::{Cell, PATIENCE, UID, ended, script};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;
use std::process::{Child, Command};
use std::time::Instant;
use xos_base::when::{Clock, SystemClock};
use xos_ssi::cell::proto::{Ask, Exit, Leased, Refusal};
use xos_ssi::cell::{CallError, Client, SOCKET_FILE};

/// States of the persons' processes in a cell, as letters of proc_pid_status(5), by their pids
/// there; `?` for one that ended while it was looked at.
fn states(init: i32) -> BTreeMap<i32, char> {
    let proc = format!("/proc/{init}/root/proc");
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(&proc).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Ok(pid) = name.parse::<i32>() else { continue };
        let Ok(text) = std::fs::read_to_string(format!("{proc}/{pid}/status")) else {
            found.insert(pid, '?');
            continue;
        };
        let of = |key: &str| text.lines().find_map(|l| l.strip_prefix(key)).unwrap().trim();
        if of("Uid:").starts_with(&UID.to_string()) {
            found.insert(pid, of("State:").chars().next().unwrap());
        }
    }
    found
}

/// Waits until they are as wanted.
fn states_when(init: i32, good: impl Fn(&BTreeMap<i32, char>) -> bool) -> BTreeMap<i32, char> {
    let until = Instant::now() + PATIENCE;
    loop {
        let states = states(init);
        if good(&states) {
            return states;
        }
        assert!(Instant::now() < until, "{states:?}");
        std::thread::yield_now();
    }
}

/// Whether none runs: each is stopped, or ended and waits for its parent, which is.
fn stand_still(states: &BTreeMap<i32, char>) -> bool {
    states.values().all(|s| matches!(s, 'T' | 'Z'))
}

/// The agent dies.
fn hang_up(cell: &mut Cell) {
    let nowhere = tempfile::tempdir().unwrap();
    let _listener = UnixListener::bind(nowhere.path().join(SOCKET_FILE)).unwrap();
    cell.client = Client::connect(nowhere.path()).unwrap();
}

fn go(cell: &mut Cell, pid: i32) -> Result<(), CallError> {
    cell.client.call(Ask::Signal { pid, signal: libc::SIGCONT, group: false }, &[])
}

#[test]
fn nothing_runs_without_a_lease_and_init_lets_nothing_go_on() {
    // wrong: a tree would run on two nodes at once, or one that is to stand still go on
    let Some(mut cell) = Cell::without_lease(3) else { return };
    let status = cell.client.status().unwrap();
    assert_eq!((status.held, status.lease_until_ms), (true, 0));
    assert_eq!(cell.refusal(script(1, "true")), Refusal::Held);
    assert_eq!(cell.lease(u64::MAX, None), Leased { held: true, stopped: vec![] });
    let (started, _reader) = cell.start(script(1, "exec sleep 1000")).unwrap();
    let (pid, init) = (started.pid, status.init_pid);
    assert!(!cell.client.status().unwrap().held);

    assert_eq!(cell.lease(0, None), Leased { held: false, stopped: vec![] });
    states_when(init, stand_still);
    assert_eq!(cell.refusal(script(2, "true")), Refusal::Held);
    assert!(cell.start(script(1, "true")).unwrap().0.known, "it is asked for again, not started");
    let refused = go(&mut cell, pid);
    assert!(matches!(refused, Err(CallError::Refused(Refusal::Held))), "{refused:?}");
    assert!(stand_still(&states(init)));

    assert_eq!(cell.lease(u64::MAX, None), Leased { held: true, stopped: vec![pid] });
    assert!(!cell.client.status().unwrap().held);
    assert!(stand_still(&states(init)), "who gave the lease lets it go on");
    go(&mut cell, pid).unwrap();
    states_when(init, |s| !stand_still(s));
    assert_eq!(cell.lease(u64::MAX, None), Leased { held: false, stopped: vec![] });
}

#[test]
fn all_stand_still_though_their_agent_is_dead_and_they_try_to_escape() {
    // wrong: a node that lost its agent would run copies while the cluster has others elsewhere
    let Some(mut cell) = Cell::without_lease(3) else { return };
    cell.lease(u64::MAX, None);
    let (_, _spins) = cell.start(script(1, "while :; do :; done")).unwrap();
    let leaves = "(setsid sh -c 'echo up; while :; do sleep 0.01; done' &); exec sleep 1000";
    let (_, leaves) = cell.start(script(2, leaves)).unwrap();
    let mut leaves = BufReader::new(leaves);
    leaves.read_line(&mut String::new()).unwrap();
    // Each process makes the next and ends.
    let hops = "hop() { hop & exit; }; (hop &); exec sleep 1000";
    let (_, _hops) = cell.start(script(3, hops)).unwrap();
    let status = cell.status_when(|s| !s.others.is_empty() && s.trees.len() == 3);
    cell.lease(SystemClock.up().0 + 200, None);
    hang_up(&mut cell);
    let mut still = states_when(status.init_pid, stand_still);
    loop {
        // A look can miss one that is just made; then the next one finds it.
        let again = states_when(status.init_pid, stand_still);
        if again.keys().eq(still.keys()) {
            break;
        }
        still = again;
    }
    // The one that spins, those that wait, the one that left, and where the hops came to.
    assert!(still.len() >= 5, "{still:?}");

    cell.client = Client::connect(cell.dir.path()).unwrap();
    let status = cell.client.status().unwrap();
    assert!(status.held && status.trees.len() == 3, "{status:?}");
    let leased = cell.lease(u64::MAX, None);
    assert!(leased.held);
    let stopped = still.iter().filter(|(_, state)| **state == 'T');
    let forgotten: Vec<_> = stopped.filter(|(pid, _)| !leased.stopped.contains(pid)).collect();
    assert!(forgotten.is_empty(), "these would stand still for ever: {forgotten:?}");
}

/// In a cell from outside, with a person's rights, as CRIU is that makes a copy.
struct Entered(Child);

impl Entered {
    fn new(init: i32) -> Entered {
        let (init, id) = (init.to_string(), UID.to_string());
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--target", &init, "--pid", "--mount", "--", "setpriv", "--reuid", &id]);
        nsenter.args(["--regid", &id, "--clear-groups", "--", "sleep", "1000"]);
        Entered(nsenter.spawn().expect("nsenter of util-linux"))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        // What it waits for ends with the cell.
        let ended = self.0.kill().and_then(|()| self.0.wait());
        if let Err(e) = ended {
            println!("left behind: {e}");
        }
    }
}

#[test]
fn who_makes_a_copy_goes_on_until_that_is_over() {
    // wrong: CRIU, which is its person's, would be stopped when a lease ends while it makes a copy,
    // and the half of a copy go on with the next one; or it would run on when nobody restores
    let Some(mut cell) = Cell::without_lease(3) else { return };
    cell.lease(u64::MAX, None);
    let (started, _reader) = cell.start(script(1, "exec sleep 1000")).unwrap();
    let init = cell.client.status().unwrap().init_pid;
    let mut restores = Client::connect(cell.dir.path()).unwrap();
    restores.call::<()>(Ask::Widen { on: true }, &[]).unwrap();
    let _entered = Entered::new(init);
    let both = states_when(init, |states| states.len() == 2);
    let entered = both.into_keys().find(|pid| *pid != started.pid).unwrap();
    // It holds at once.
    cell.lease(0, None);
    let states = states_when(init, |states| states[&started.pid] == 'T');
    assert_ne!(states[&entered], 'T', "{states:?}");
    drop(restores);
    states_when(init, stand_still);
    let leased = cell.lease(u64::MAX, None);
    assert!(leased.stopped.contains(&entered) && leased.stopped.contains(&started.pid));
}

#[test]
fn copies_whose_time_is_over_end_once_nobody_is_there() {
    // wrong: memory of a dead agent's copies would be held for ever; or an agent that lives, and
    // knows that nobody took its node for dead, would lose them
    let Some(mut cell) = Cell::without_lease(3) else { return };
    cell.lease(u64::MAX, None);
    let (started, _reader) = cell.start(script(1, "sleep 1000 & exec sleep 1000")).unwrap();
    let init = cell.client.status().unwrap().init_pid;
    states_when(init, |s| s.len() == 2);
    cell.lease(0, Some(0));
    states_when(init, stand_still);
    assert_eq!(cell.client.status().unwrap().trees.len(), 1, "its agent is there");
    hang_up(&mut cell);
    states_when(init, BTreeMap::is_empty);
    cell.client = Client::connect(cell.dir.path()).unwrap();
    let end = ended(&mut cell.client);
    assert_eq!((end.pid, end.exit), (started.pid, Exit::Signal(libc::SIGKILL)));
}
