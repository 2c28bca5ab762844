use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use xos_ssi::cell::proto::{
    Account, Ask, Ended, Exit, Leased, Program, Refusal, Start, Started, Status, Stdio, Tree,
};
use xos_ssi::cell::{CallError, Client, Event, launch};
use xos_ssi::pids::NodeNumber;
use xos_ssi::procfs;

/// No test waits longer.
pub const PATIENCE: Duration = Duration::from_secs(120);
pub const UID: u32 = 1_900_000_001;
const PYTHON: &str = "/usr/bin/python3";

pub struct Cell {
    pub dir: TempDir,
    node: NodeNumber,
    pub client: Client,
}

impl Cell {
    /// One with a lease for good. `None`, with the reason printed, where this machine cannot have
    /// cells.
    pub fn new(number: u8) -> Option<Cell> {
        let mut cell = Cell::without_lease(number)?;
        cell.lease(u64::MAX, None);
        Some(cell)
    }

    /// One that may run nothing yet.
    pub fn without_lease(number: u8) -> Option<Cell> {
        if !rustix::process::getuid().is_root() {
            println!("skipped: needs root");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let node = NodeNumber::try_from(number).unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_xos-cell"));
        if let Err(e) = launch(program, dir.path(), node) {
            let text = e.to_string();
            assert!(text.contains("Operation not permitted"), "{text}");
            println!("skipped: {text}");
            return None;
        }
        let client = Client::connect(dir.path()).unwrap();
        Some(Cell { dir, node, client })
    }

    pub fn lease(&mut self, until_ms: u64, end_after_ms: Option<u64>) -> Leased {
        self.client.call(Ask::Lease { until_ms, end_after_ms }, &[]).unwrap()
    }

    pub fn start(&mut self, start: Start) -> Result<(Started, std::io::PipeReader), CallError> {
        let (reader, writer) = std::io::pipe().unwrap();
        let null = OwnedFd::from(File::open("/dev/null").unwrap());
        let fds = [null, writer.try_clone().unwrap().into(), writer.into()];
        self.client.start(start, &fds).map(|started| (started, reader))
    }

    /// Runs a script to its end; its first process and what it wrote.
    fn run(&mut self, start: Start) -> (i32, String) {
        let (started, mut reader) = self.start(start).unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        (started.pid, text)
    }

    pub fn refusal(&mut self, start: Start) -> Refusal {
        match self.start(start) {
            Err(CallError::Refused(refusal)) => refusal,
            other => panic!("{:?}", other.map(|(started, _)| started)),
        }
    }

    pub fn status_when(&mut self, good: impl Fn(&Status) -> bool) -> Status {
        let until = std::time::Instant::now() + PATIENCE;
        loop {
            let status = self.client.status().unwrap();
            if good(&status) {
                return status;
            }
            assert!(std::time::Instant::now() < until, "{status:?}");
            std::thread::yield_now();
        }
    }

    fn owns(&self, pid: i32) -> bool {
        NodeNumber::of(pid) == Some(self.node)
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        let ended = Client::connect(self.dir.path()).map_err(CallError::from);
        if let Err(e) = ended.and_then(|mut c| c.call::<()>(Ask::End, &[])) {
            println!("left behind: {e}");
        }
    }
}

pub fn ended(client: &mut Client) -> Ended {
    loop {
        match client.next(PATIENCE).unwrap().expect("no end in two minutes") {
            Event::Ended(ended) => return ended,
            Event::Stopped { .. } | Event::Continued { .. } => {}
        }
    }
}

pub fn script(id: u64, text: &str) -> Start {
    let path = ("PATH".to_owned(), "/usr/bin:/bin".to_owned());
    Start {
        tree: Tree { id, epoch: 1 },
        pid: None,
        account: Account { uid: UID, gid: UID, groups: vec![] },
        own_net: false,
        merged_proc: None,
        program: Program {
            argv: ["sh", "-c", text].map(str::to_owned).to_vec(),
            env: vec![path],
            cwd: "/".into(),
            umask: 0o22,
            rlimits: vec![],
            cgroups: vec![],
            stdio: Stdio::Three,
        },
    }
}

#[test]
fn pids_are_of_the_range_and_orphans_are_collected() {
    // wrong: two nodes would have one pid, or a tree could not come back to its own
    let Some(mut cell) = Cell::new(3) else { return };
    let (pid, text) = cell.run(script(1, "echo $$; sh -c 'sleep 0.1 & echo $!'"));
    let pids: Vec<i32> = text.lines().map(|l| l.parse().unwrap()).collect();
    assert_eq!(pids[0], pid);
    assert!(pids.len() == 2 && pids.iter().all(|p| cell.owns(*p)), "{pids:?}");
    let status = cell.status_when(|s| s.trees.is_empty() && s.others.is_empty());
    assert_eq!((status.node, status.strayed), (cell.node, 0));
    let end = ended(&mut cell.client);
    assert_eq!((end.pid, end.exit), (pid, Exit::Code(0)));
}

#[test]
fn a_tree_keeps_the_pid_that_it_has_elsewhere() {
    // wrong: a tree would change its pid on its way, or take another one's
    let Some(mut cell) = Cell::new(3) else { return };
    for (id, pid) in [(1, 32_768 + 77), (2, 7 * 32_768 + 77)] {
        let mut start = script(id, "echo $$; exec sleep 1000");
        start.pid = Some(pid);
        let (started, _reader) = cell.start(start.clone()).unwrap();
        assert_eq!(started, Started { pid, known: false });
        assert_eq!(cell.start(start.clone()).unwrap().0, Started { pid, known: true });
        start.tree.epoch = 2;
        assert_eq!(cell.refusal(start.clone()), Refusal::Running(Tree { id, epoch: 1 }));
        start.tree.id = id + 10;
        assert_eq!(cell.refusal(start), Refusal::PidTaken(pid));
    }
    // what is born next is the node's own nevertheless
    assert!(cell.run(script(30, "true")).0 / 32_768 == 3);
}

#[test]
fn who_started_a_cell_signed_in_for_nothing_in_it() {
    // wrong: the kernel's audit would have what people run for an administrator's
    const SIGNED_IN: &str = "/proc/thread-self/loginuid";
    let nobody = u32::MAX.to_string();
    // An administrator, for what this thread begins.
    let cell = std::fs::write(SIGNED_IN, "7").map(|()| Cell::new(3));
    let undone = std::fs::write(SIGNED_IN, &nobody);
    let cell = match cell.and_then(|cell| undone.map(|()| cell)) {
        Ok(cell) => cell,
        Err(e) => {
            println!("skipped: the kernel keeps who signed in: {e}");
            return;
        }
    };
    let Some(mut cell) = cell else { return };
    let (_, text) = cell.run(script(1, "cat /proc/self/loginuid"));
    assert_eq!(text, nobody);
}

#[test]
fn the_range_wraps_into_itself() {
    // wrong: at its end pids would be those of no node, or of the next one; or a process be
    // refused because the first ones are taken
    let Some(mut cell) = Cell::new(2) else { return };
    let first = *cell.node.pids().start();
    let mut readers = Vec::new();
    for (id, pid) in [(10, first), (11, first + 1)] {
        let mut taken = script(id, "exec sleep 1000");
        taken.pid = Some(pid);
        readers.push(cell.start(taken).unwrap());
    }
    let last = cell.node.pids().end() - 3500;
    let near = format!("echo {last} > /proc/sys/kernel/ns_last_pid");
    let null: [OwnedFd; 3] = [(), (), ()].map(|()| File::open("/dev/null").unwrap().into());
    let fds: Vec<_> = null.iter().map(std::os::fd::AsFd::as_fd).collect();
    let help = Ask::Help(Box::new(script(0, &near).program));
    let helper: Started = cell.client.call(help, &fds).unwrap();
    assert!(helper.pid < 300, "{helper:?}");
    let end = ended(&mut cell.client);
    assert_eq!((end.pid, end.exit, end.tree), (helper.pid, Exit::Code(0), None));
    let text = "i=0; while [ $i -lt 5000 ]; do : & echo $!; wait $!; i=$((i+1)); done";
    let (_, text) = cell.run(script(1, text));
    let pids: Vec<i32> = text.lines().map(|l| l.parse().unwrap()).collect();
    assert_eq!(pids.len(), 5000);
    assert!(pids.iter().any(|p| *p > last) && pids.iter().any(|p| *p < last), "no wrap");
    let out: Vec<_> = pids.iter().filter(|p| !cell.owns(**p)).collect();
    assert!(out.is_empty(), "{out:?}");
    assert!(!pids.contains(&first) && !pids.contains(&(first + 1)), "given twice");
    assert!(pids.contains(&(first + 2)), "the first one that is free");
}

#[test]
fn persons_do_not_see_each_other() {
    // wrong: a member of one VO would read another's command lines, or signal it
    let Some(mut cell) = Cell::new(3) else { return };
    let (hidden, _reader) = cell.start(script(1, "exec sleep 1000")).unwrap();
    let look = format!(
        "ls /proc; cat /proc/{0}/cmdline; kill {0}; id -u; grep Groups /proc/self/status",
        hidden.pid
    );
    let mut other = script(2, &look);
    other.account = Account { uid: UID + 1, gid: UID + 1, groups: vec![UID + 2] };
    let (pid, text) = cell.run(other);
    assert!(text.lines().any(|l| l == pid.to_string()), "{text}");
    assert!(!text.lines().any(|l| l == hidden.pid.to_string() || l == "1"), "{text}");
    assert!(!text.contains("1000") && text.contains(&format!("{}\n", UID + 1)), "{text}");
    assert!(text.contains(&(UID + 2).to_string()), "{text}");
    let status = cell.client.status().unwrap();
    assert!(status.trees.iter().any(|t| t.pid == hidden.pid), "{status:?}");
}

/// What one person can do to process `argv[1]` of another: each line a way and what it came to.
const PRY: &str = "
import ctypes, errno, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
pid = int(sys.argv[1])
class Piece(ctypes.Structure):
    _fields_ = [('at', ctypes.c_void_p), ('len', ctypes.c_size_t)]
own = ctypes.create_string_buffer(8)
def read(pid):
    into = ctypes.create_string_buffer(8)
    here, there = Piece(ctypes.addressof(into), 8), Piece(ctypes.addressof(own), 8)
    return libc.process_vm_readv(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
def came_to(way, result):
    print(way, errno.errorcode[ctypes.get_errno()] if result < 0 else 'done')
def tried(way, act):
    try:
        act()
        print(way, 'done')
    except OSError as e:
        print(way, errno.errorcode[e.errno])
came_to('own-memory', read(os.getpid()))
came_to('memory', read(pid))
came_to('trace', libc.ptrace(16, pid, None, None))
tried('own-entry', lambda: os.stat(f'/proc/{os.getpid()}'))
tried('entry', lambda: os.stat(f'/proc/{pid}'))
tried('folder', lambda: os.listdir(f'/proc/{pid}/fd'))
tried('file', lambda: open(f'/proc/{pid}/mem'))
tried('signal', lambda: os.kill(pid, signal.SIGTERM))
tried('probe', lambda: os.kill(pid, 0))
print('listed', str(pid) in os.listdir('/proc'))
";

#[test]
fn persons_cannot_reach_into_each_other() {
    // wrong: a member of one VO would read another's memory, run code as them, or end their work
    let Some(mut cell) = Cell::new(3) else { return };
    if !Path::new(PYTHON).exists() {
        println!("skipped: no {PYTHON}");
        return;
    }
    let (hidden, _reader) = cell.start(script(1, "exec sleep 1000")).unwrap();
    let mut other = script(2, "");
    other.account = Account { uid: UID + 1, gid: UID + 1, groups: vec![] };
    let pid = hidden.pid.to_string();
    other.program.argv = [PYTHON, "-c", PRY, &pid].map(str::to_owned).to_vec();
    let (_, text) = cell.run(other);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "own-memory done",
            "memory EPERM",
            "trace EPERM",
            "own-entry done",
            "entry ENOENT",
            "folder ENOENT",
            "file ENOENT",
            "signal EPERM",
            "probe EPERM",
            "listed False",
        ]
    );
    // root's helpers see all
    let look = script(0, &format!("test -r /proc/{pid}/mem")).program;
    let null: [OwnedFd; 3] = [(), (), ()].map(|()| File::open("/dev/null").unwrap().into());
    let fds: Vec<_> = null.iter().map(std::os::fd::AsFd::as_fd).collect();
    let helper: Started = cell.client.call(Ask::Help(Box::new(look)), &fds).unwrap();
    let end = loop {
        let end = ended(&mut cell.client);
        if end.pid == helper.pid {
            break end;
        }
    };
    assert_eq!(end.exit, Exit::Code(0));
}

#[test]
fn a_shell_alone_sees_the_merged_proc() {
    // wrong: a cluster shell would show its node alone, or other programs could not be moved
    let Some(mut cell) = Cell::new(3) else { return };
    if !Path::new("/dev/fuse").exists() {
        println!("skipped: no /dev/fuse");
        return;
    }
    let program = Path::new(env!("CARGO_BIN_EXE_xos-proc"));
    // Nobody answers there: the shell sees this node alone, but by the merged /proc.
    let program = procfs::keeper(program, &cell.dir.path().join("views"), UID, cell.node);
    let (said, out) = std::io::pipe().unwrap();
    let null = File::open("/dev/null").unwrap();
    let help = Ask::Help(Box::new(program));
    let fds = [null.as_fd(), out.as_fd(), out.as_fd()];
    let helper: Started = cell.client.call(help, &fds).unwrap();
    drop(out);
    let mut line = String::new();
    BufReader::new(said).read_line(&mut line).unwrap();
    assert_eq!(line, procfs::READY);
    let look =
        "grep -c fuse.xos-proc /proc/mounts; read name < /proc/self/comm; echo $name; ls /proc";
    let mut shell = script(1, look);
    shell.merged_proc = Some(helper.pid);
    let (pid, text) = cell.run(shell.clone());
    assert!(text.starts_with("1\nsh\n"), "{text}");
    let pids: Vec<&str> = text.lines().skip(2).collect();
    assert!(pids.contains(&pid.to_string().as_str()), "{text}");
    assert!(!pids.iter().any(|l| *l == "1" || *l == helper.pid.to_string()), "{text}");
    let (_, text) = cell.run(script(2, look));
    assert!(text.starts_with("0\nsh\n"), "{text}");
    shell.tree.id = 3;
    shell.merged_proc = Some(1);
    assert!(matches!(cell.refusal(shell), Refusal::Invalid(_)));
}

#[test]
fn what_cannot_run_says_why() {
    // wrong: the person would see a bare code, or a program would run as the system
    let Some(mut cell) = Cell::new(3) else { return };
    let mut start = script(1, "true");
    start.program.argv = vec!["no-such-program".into()];
    assert!(cell.refusal(start).to_string().contains("not found in PATH"));
    let mut start = script(1, "true");
    start.program.cwd = "/no/such/folder".into();
    assert!(cell.refusal(start).to_string().contains("/no/such/folder"));
    let mut start = script(1, "true");
    start.account.uid = 0;
    assert!(matches!(cell.refusal(start), Refusal::Invalid(_)));
    let mut start = script(1, "true");
    start.pid = Some(77);
    assert!(matches!(cell.refusal(start), Refusal::Invalid(_)));
    assert_eq!(cell.client.status().unwrap().ended, 0, "none of them was a tree");
}

#[test]
fn an_end_is_told_to_the_next_agent_once() {
    // wrong: a restarted agent would wait for ever for a tree that is over
    let Some(mut cell) = Cell::new(3) else { return };
    let mode = std::fs::metadata(cell.dir.path().join("cell.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (started, _reader) = cell.start(script(1, "kill -TERM $$")).unwrap();
    cell.client = Client::connect(cell.dir.path()).unwrap();
    let end = ended(&mut cell.client);
    assert_eq!(
        (end.pid, end.exit, end.tree),
        (started.pid, Exit::Signal(15), Some(Tree { id: 1, epoch: 1 }))
    );
    let mut another = Client::connect(cell.dir.path()).unwrap();
    assert_eq!(ended(&mut another), end, "not acknowledged yet");
    assert_eq!(cell.refusal(script(1, "true")), Refusal::Over(end.tree.unwrap()));
    another.call::<()>(Ask::Acknowledge { seq: end.seq }, &[]).unwrap();
    assert_eq!(Client::connect(cell.dir.path()).unwrap().status().unwrap().ended, 0);
}
