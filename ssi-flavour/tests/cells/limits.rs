//! Trees in control groups with limits.

use crate::cells::{Cell, PATIENCE, ended, script};
use crate::groups::{leave_none, own_group};
use std::io::{BufRead, BufReader};
use std::time::Instant;
use xos_ssi::cell::proto::{Account, Exit, Rlimit, RlimitKind, Start};
use xos_ssi::cgroup::{Cgroup, Limits};

const NONE: Limits = Limits { cpu_millis: None, memory_bytes: None, pids: 2048 };
/// Somebody who runs nothing else on this machine.
const PERSON: u32 = 1_999_980_100;

/// A cell, and groups for its trees that are gone with this value.
struct Limited {
    cell: Cell,
    groups: Cgroup,
}

impl Limited {
    /// `None`, with the reason printed, where this cannot be.
    fn new() -> Option<Limited> {
        let cell = Cell::new(3)?;
        let unique = cell.dir.path().file_name()?.to_str()?.to_owned();
        let groups = own_group(&format!("xos-cell{unique}"))?;
        Some(Limited { cell, groups })
    }

    /// A script as tree `id`, in a group with these limits.
    fn script(&self, id: u64, limits: &Limits, text: &str) -> (Start, Cgroup) {
        let group = self.groups.child(&format!("{id}.1"));
        group.create(limits).unwrap();
        let mut start = script(id, text);
        start.program.cgroups = group.parts.iter().map(|part| part.dir.clone()).collect();
        (start, group)
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        leave_none(&self.groups);
    }
}

fn until(what: &str, good: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !good() {
        assert!(Instant::now() < until, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_tree_over_its_memory_is_killed_and_the_kernel_says_so() {
    // wrong: one program would take the memory of all others, or its person not know why it ended
    let Some(mut limited) = Limited::new() else { return };
    let limits = Limits { memory_bytes: Some(32 << 20), ..NONE };
    // It keeps its last line, which has no end.
    let (start, group) = limited.script(1, &limits, "exec tail /dev/zero");
    let (started, _reader) = limited.cell.start(start).unwrap();
    let end = ended(&mut limited.cell.client);
    assert_eq!((end.pid, end.exit), (started.pid, Exit::Signal(9)));
    assert!(group.oom_kills() > 0);
    let peak = group.usage().memory_peak_bytes.unwrap();
    // Version 2 lets it have some pages more while it looks for others.
    assert!(peak <= 33 << 20, "{peak}");
}

#[test]
fn a_tree_has_its_share_of_the_processors_and_no_more() {
    // wrong: a program that asked for a tenth of a processor would take all of it from others
    let Some(mut limited) = Limited::new() else { return };
    let limits = Limits { cpu_millis: Some(100), ..NONE };
    let (start, group) = limited.script(1, &limits, "while :; do :; done");
    let (_, _reader) = limited.cell.start(start).unwrap();
    // How often the kernel had it wait for the next period: cpu.stat of both versions.
    let waited = || {
        let stats = group.parts.iter().map(|part| part.dir.join("cpu.stat"));
        let texts = stats.filter_map(|path| std::fs::read_to_string(path).ok());
        let number = |text: String| {
            let line = text.lines().find_map(|line| line.strip_prefix("nr_throttled "))?;
            line.trim().parse::<u64>().ok()
        };
        texts.filter_map(number).max().unwrap_or(0)
    };
    until("nothing holds it back", || waited() > 10);
    assert!(group.usage().cpu_us.unwrap() > 0, "what it used is counted");
}

#[test]
fn all_programs_of_a_person_have_a_common_limit_of_processes_and_others_go_on() {
    // wrong: who has many programs sleep, each within its own limit, would leave nobody on the node
    // a pid
    let Some(mut limited) = Limited::new() else { return };
    if !std::path::Path::new("/usr/bin/python3").exists() {
        println!("skipped: no /usr/bin/python3");
        return;
    }
    let most = Some(6);
    let rlimit = Rlimit { kind: RlimitKind::Processes, soft: most, hard: most };
    // So many as it can, which stay; it says how many.
    let script = "
import os, time
n = 0
try:
    while os.fork():
        n += 1
    time.sleep(1000)
except OSError:
    os.write(1, b'%d\\n' % n)
    time.sleep(1000)
";
    let begin = |limited: &mut Limited, id, uid| {
        let (mut start, _) = limited.script(id, &NONE, "");
        start.account = Account { uid, gid: uid, groups: vec![] };
        start.program.argv = ["/usr/bin/python3", "-c", script].map(str::to_owned).to_vec();
        start.program.rlimits = vec![rlimit];
        let (_, reader) = limited.cell.start(start).unwrap();
        let (mut line, mut reader) = (String::new(), BufReader::new(reader));
        reader.read_line(&mut line).unwrap();
        (line.trim().parse::<u32>().unwrap(), reader)
    };
    let (first, _one) = begin(&mut limited, 1, PERSON);
    assert_eq!(first, 5, "with itself as many as they may");
    let (others, _two) = begin(&mut limited, 2, PERSON + 1);
    assert_eq!(others, 5, "another person has as many");
    // Kernels look before or after they have counted a process that becomes its person's.
    let mut refused = None;
    for id in 3..6 {
        let (mut more, _) = limited.script(id, &NONE, "exec sleep 1000");
        more.account = Account { uid: PERSON, gid: PERSON, groups: vec![] };
        more.program.rlimits = vec![rlimit];
        refused = refused.or(limited.cell.start(more).err());
    }
    let refused = refused.expect("programs begin without end").to_string();
    assert!(refused.contains("as many processes here as they may"), "{refused}");
}

/// Forks in each of its processes, on and on.
const BOMB: &str = "
import os
os.write(1, b'begun\\n')
while True:
    try:
        os.fork()
    except OSError:
        pass
";

#[test]
fn a_fork_bomb_stops_at_its_limit_and_others_go_on() {
    // wrong: a program that forks on and on would keep all others of the node from starting any
    let Some(mut limited) = Limited::new() else { return };
    if !std::path::Path::new("/usr/bin/python3").exists() {
        println!("skipped: no /usr/bin/python3");
        return;
    }
    let (mut bomb, group) = limited.script(1, &Limits { pids: 16, ..NONE }, "");
    bomb.program.argv = ["/usr/bin/python3", "-c", BOMB].map(str::to_owned).to_vec();
    let (_, reader) = limited.cell.start(bomb).unwrap();
    let mut line = String::new();
    BufReader::new(reader).read_line(&mut line).unwrap();
    assert_eq!(line, "begun\n");
    until("it is not refused", || group.forks_refused() > 0);
    assert!(group.processes().unwrap().len() <= 16);
    let work = "i=0; while [ $i -lt 50 ]; do /bin/true || exit 9; i=$((i+1)); done; exit 7";
    let (start, other) = limited.script(2, &Limits { pids: 16, ..NONE }, work);
    let (started, _reader) = limited.cell.start(start).unwrap();
    let end = ended(&mut limited.cell.client);
    assert_eq!((end.pid, end.exit), (started.pid, Exit::Code(7)));
    assert_eq!(other.forks_refused(), 0);
    group.kill().unwrap();
    until("it is not ended", || group.processes().unwrap().is_empty());
}
