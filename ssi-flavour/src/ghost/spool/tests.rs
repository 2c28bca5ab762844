mod room;

use super::*;
use crate::cluster::messages::{End, Outcome};
use crate::ghost::proto::{GhostId, Steer};
use crate::ghost::relay::{Ends, Offsets, Owner, Relay, Served};
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

const ID: u64 = 7;
const OWNER: u32 = 100_001;

fn tree(epoch: u64) -> Tree {
    Tree { id: ID, epoch }
}

/// A copy that writes `output` from the offset on, and ends.
fn copy(spools: &Spools, epoch: u64, from: u64, output: &str) -> Served {
    copy_of(spools, tree(epoch), from, output)
}

fn copy_of(spools: &Spools, tree: Tree, from: u64, output: &str) -> Served {
    let (owner, steer) = UnixStream::pair().unwrap();
    let (out_reader, mut out) = std::io::pipe().unwrap();
    let (err_reader, err) = std::io::pipe().unwrap();
    let ends = Ends::Pipes { input: None, output: out_reader.into(), error: err_reader.into() };
    let at = Offsets { output: from, ..Offsets::default() };
    let mut relay = Relay::new(tree, ends, at, steer).unwrap();
    out.write_all(output.as_bytes()).unwrap();
    drop((out, err));
    let mut owner = Owner::new(owner);
    owner.tell(Steer::Exited { exit: Exit::Code(0) }).unwrap();
    let (one, other) = UnixStream::pair().unwrap();
    match spools.serve(tree, [0, 0], one) {
        Ok(()) => relay.serve(other).unwrap(),
        Err(_) => Served::Disconnected,
    }
}

#[test]
fn what_a_copy_writes_again_is_there_once() {
    // wrong: a restart from a checkpoint would double a program's output, or lose some
    let dir = tempfile::tempdir().unwrap();
    let spools = Spools::new(dir.path());
    assert_eq!(copy(&spools, 1, 0, "0123456789"), Served::Done);
    let text = || std::fs::read_to_string(spools.folder(ID).join(OUTPUT_FILE)).unwrap();
    assert_eq!(text(), "0123456789");
    drop(spools);
    let spools = Spools::new(dir.path());
    assert_eq!(copy(&spools, 3, 6, "6789ab"), Served::Done);
    assert_eq!(copy(&spools, 2, 10, "XXXX"), Served::Disconnected, "an older copy");
    let text = std::fs::read_to_string(spools.folder(ID).join(OUTPUT_FILE)).unwrap();
    assert_eq!(text, "0123456789ab");
}

/// A program that writes what it reads, behind a relay that connects again and again.
struct Echo {
    spools: Arc<Spools>,
    current: Option<UnixStream>,
    relay: Option<std::thread::JoinHandle<(Relay, Served)>>,
    owner: Owner,
    program: Option<std::thread::JoinHandle<()>>,
}

impl Echo {
    fn new(spools: &Arc<Spools>) -> Echo {
        let (owner, steer) = UnixStream::pair().unwrap();
        let (mut reads, input) = std::io::pipe().unwrap();
        let (output, mut writes) = std::io::pipe().unwrap();
        let (error, _none) = std::io::pipe().unwrap();
        let ends =
            Ends::Pipes { input: Some(input.into()), output: output.into(), error: error.into() };
        let relay = Relay::new(tree(1), ends, Offsets::default(), steer).unwrap();
        // Ends with its input, or when nobody reads it.
        let program = std::thread::spawn(move || {
            let _ended = std::io::copy(&mut reads, &mut writes);
        });
        let mut echo = Echo {
            spools: spools.clone(),
            current: None,
            relay: None,
            owner: Owner::new(owner),
            program: Some(program),
        };
        echo.connect(relay);
        echo
    }

    fn connect(&mut self, mut relay: Relay) {
        let (one, other) = UnixStream::pair().unwrap();
        self.spools.serve(tree(1), [0, 0], one).unwrap();
        self.current = Some(other.try_clone().unwrap());
        self.relay = Some(std::thread::spawn(move || {
            let served = relay.serve(other).unwrap();
            (relay, served)
        }));
    }

    /// The relay connects again, to these spools.
    fn reconnect(&mut self, spools: &Arc<Spools>) {
        let current = self.current.take().unwrap();
        current.shutdown(Shutdown::Both).unwrap();
        let (relay, served) = self.relay.take().unwrap().join().unwrap();
        assert_eq!(served, Served::Disconnected);
        self.spools = spools.clone();
        self.connect(relay);
    }

    /// Waits for the program's end and the relay's.
    fn end(mut self) {
        self.program.take().unwrap().join().unwrap();
        self.owner.tell(Steer::Exited { exit: Exit::Code(3) }).unwrap();
        let (_, served) = self.relay.take().unwrap().join().unwrap();
        assert_eq!(served, Served::Done);
    }
}

/// A ghost that is attached.
struct Guest {
    machine: Machine,
    link: Link,
    got: Vec<u8>,
    last: Option<Control>,
    /// All that it was told.
    told: Vec<Control>,
}

impl Guest {
    fn new(spools: &Spools, number: u64) -> Guest {
        let id = GhostId { number, again: false, late: false };
        let mut machine = Machine::guest(tree(0), id);
        let link = Guest::line(spools, &mut machine);
        Guest { machine, link, got: Vec::new(), last: None, told: Vec::new() }
    }

    fn line(spools: &Spools, machine: &mut Machine) -> Link {
        let (one, other) = UnixStream::pair().unwrap();
        spools.attach(ID, OWNER, one).unwrap();
        let mut link = Link::new(other).unwrap();
        link.push(&machine.connected(false)).unwrap();
        link
    }

    fn reconnect(&mut self, spools: &Spools) {
        self.link = Guest::line(spools, &mut self.machine);
    }

    /// Goes on until something is so; `false`: the connection ended before.
    fn until(&mut self, so: impl Fn(&Guest) -> bool) -> bool {
        loop {
            while let Some(message) = self.machine.next_message() {
                self.link.push(&message).unwrap();
            }
            if so(self) {
                return self.link.flush().is_ok();
            }
            if self.link.flush().is_err() {
                return false;
            }
            let mut fds = [rustix::event::PollFd::new(&self.link, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut fds, None).unwrap();
            let open = matches!(self.link.fill(), Ok(true));
            while let Some(message) = self.link.take().unwrap() {
                if let Some(control) = self.machine.take(message).unwrap() {
                    self.told.push(control.clone());
                    self.last = Some(control);
                }
                let into = &mut self.machine.into[0];
                while !into.front().is_empty() {
                    let bytes = into.front().to_vec();
                    into.pass(bytes.len());
                    self.got.extend(bytes);
                }
            }
            if !open {
                return so(self);
            }
        }
    }

    fn has(&mut self, text: &str) {
        assert!(self.until(|g| g.got.len() >= text.len()), "{:?}", self.last);
        assert_eq!(String::from_utf8_lossy(&self.got), text);
    }

    fn is_told(&mut self, told: impl Fn(&Control) -> bool) -> Control {
        assert!(self.until(|g| g.last.as_ref().is_some_and(&told)), "{:?}", self.last);
        self.last.clone().unwrap()
    }
}

#[test]
fn a_ghost_gets_all_once_and_feeds_the_tree_once_whatever_reconnects() {
    // wrong: who follows a program over a bad network would see lines twice or never, or the
    // program read something twice
    let dir = tempfile::tempdir().unwrap();
    let spools = Arc::new(Spools::new(dir.path()));
    let mut guest = Guest::new(&spools, 1);
    let mut echo = Echo::new(&spools);
    guest.machine.out[0].push(b"one ");
    guest.has("one ");
    guest.reconnect(&spools);
    guest.machine.out[0].push(b"two ");
    guest.has("one two ");
    echo.reconnect(&spools);
    guest.machine.out[0].push(b"three ");
    guest.has("one two three ");
    // The node's program is started anew.
    let anew = Arc::new(Spools::new(dir.path()));
    guest.reconnect(&anew);
    guest.machine.out[0].push(b"four ");
    echo.reconnect(&anew);
    guest.has("one two three four ");
    // Another ghost: all from the beginning, and what it writes is new.
    let mut other = Guest::new(&anew, 2);
    other.has("one two three four ");
    other.machine.out[0].push(b"five ");
    other.has("one two three four five ");
    other.machine.out[0].end();
    assert!(other.until(|_| true));
    echo.end();
    let exit = other.is_told(|c| matches!(c, Control::Exit { .. }));
    assert_eq!(exit, Control::Exit { exit: Exit::Code(3), ends: [24, 0] });
}

#[test]
fn a_newer_ghost_takes_over_and_the_older_one_is_told() {
    // wrong: two people would type into one program, or a laptop that wakes up take it back
    let dir = tempfile::tempdir().unwrap();
    let spools = Arc::new(Spools::new(dir.path()));
    let _echo = Echo::new(&spools);
    let mut older = Guest::new(&spools, 1);
    older.machine.out[0].push(b"a");
    older.has("a");
    let mut newer = Guest::new(&spools, 2);
    newer.has("a");
    older.is_told(|c| *c == Control::Replaced);
    older.reconnect(&spools);
    older.last = None;
    older.is_told(|c| *c == Control::Replaced);
    newer.machine.out[0].push(b"b");
    newer.has("ab");
}

#[test]
fn who_comes_later_is_told_how_it_ended() {
    // wrong: `xos cluster attach` to what ended or is lost would hang, or not say why
    let dir = tempfile::tempdir().unwrap();
    let spools = Spools::new(dir.path());
    assert_eq!(copy(&spools, 1, 0, "all"), Served::Done);
    let ended = Outcome::Ended(End::Exit { code: 0 });
    spools.finish(ID, &ended).unwrap();
    let mut guest = Guest::new(&spools, 1);
    let exit = guest.is_told(|c| matches!(c, Control::Exit { .. }));
    assert_eq!(exit, Control::Exit { exit: Exit::Code(0), ends: [3, 0] });
    assert_eq!(guest.got, b"all");

    let dir = tempfile::tempdir().unwrap();
    let spools = Spools::new(dir.path());
    let mut guest = Guest::new(&spools, 1);
    let why = "its node failed".to_owned();
    spools.finish(ID, &Outcome::Lost { reason: why.clone() }).unwrap();
    // Whether it came before the end or after it.
    assert_eq!(guest.is_told(|c| matches!(c, Control::Lost { .. })), Control::Lost { why });

    // One that was not let start.
    let dir = tempfile::tempdir().unwrap();
    let spools = Spools::new(dir.path());
    spools.finish(ID, &Outcome::Ended(End::Exit { code: 126 })).unwrap();
    let exit = Guest::new(&spools, 1).is_told(|c| matches!(c, Control::Exit { .. }));
    assert_eq!(exit, Control::Exit { exit: Exit::Code(126), ends: [0, 0] });
}

#[test]
fn a_reader_that_is_gone_ends_the_writer() {
    // wrong: `xos cluster run c1 -- yes | head` would never end
    let dir = tempfile::tempdir().unwrap();
    let spools = Arc::new(Spools::new(dir.path()));
    let echo = Echo::new(&spools);
    let mut guest = Guest::new(&spools, 1);
    guest.machine.out[0].push(b"a");
    guest.has("a");
    guest.machine.into[0].refuse();
    let refused = Message::Control(Control::Refused { stream: Stream::Output });
    guest.link.push(&refused).unwrap();
    guest.link.flush().unwrap();
    // The program learns of it when it writes next, again and again until the word has come.
    while !echo.program.as_ref().unwrap().is_finished() {
        if guest.machine.out[0].room() > 0 {
            guest.machine.out[0].push(b"b");
        }
        while let Some(message) = guest.machine.next_message() {
            guest.link.push(&message).unwrap();
        }
        if guest.link.flush().is_err() {
            break;
        }
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        let mut fds = [rustix::event::PollFd::new(&guest.link, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut fds, Some(&now)).unwrap();
        drop(guest.link.fill());
        while let Some(message) = guest.link.take().unwrap() {
            guest.machine.take(message).unwrap();
        }
    }
    echo.end();
}
