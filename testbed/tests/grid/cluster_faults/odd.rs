//! Programs in states that are not every day's: what keeps them from moving is told, and they stay;
//! or they move.

use xos_testbed::grid::SiteSpec;

use crate::cluster::{CLUSTER, N1, N2, PYTHON, nodes_join_and_are_tried};
use crate::cluster_kinds::follow::Followed;
use crate::world::{World, sh, soon};

/// A shell's function that counts until the test says so.
const COUNT: &str = r#"
count() { n=0; while [ ! -e "$STOP" ]; do echo "a $n"; n=$((n+1)); sleep 0.05; done; }
"#;
/// One of its processes was stopped by its person.
const STOPPED: &str = r#"
sleep 1000 & p=$!
kill -STOP $p; count; kill -KILL $p; wait $p; echo "left $?"
"#;
/// One was begun from a file whose owner is root, with the bit for that.
const SETUID: &str = r#"
/usr/local/bin/odd-sleep 1000 & p=$!
count; grep ^Uid: /proc/$p/status; kill $p; wait $p; echo "left $?"
"#;
/// One waits in the kernel until somebody opens a FIFO.
const HANGS: &str = r#"
"$1" -c "$2" & p=$!
count; echo > /dev/shm/odd; wait $p; echo "left $?"
"#;
/// That one: it made a process by vfork(2), which has not begun its program yet.
const HANGING: &str = "
import os
os.mkfifo('/dev/shm/odd')
opening = (os.POSIX_SPAWN_OPEN, 0, '/dev/shm/odd', os.O_RDONLY, 0)
os.posix_spawn('/bin/true', ['true'], {}, file_actions=[opening])
";
/// A child has ended, and was not asked how.
const ZOMBIE: &str = "
import os, time
if os.fork() == 0: os._exit(3)
n = 0
while not os.path.exists(os.environ['STOP']):
    print('a', n, flush=True)
    n += 1
    time.sleep(0.05)
print('left', os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
";
/// A child is traced, as by a debugger.
const TRACED: &str = "
import ctypes, os, signal, time
pid = os.fork()
while pid == 0: time.sleep(1)
libc = ctypes.CDLL(None, use_errno=True)
assert libc.ptrace(16, pid, None, None) == 0, ctypes.get_errno()
os.waitpid(pid, 0)
n = 0
while not os.path.exists(os.environ['STOP']):
    print('a', n, flush=True)
    n += 1
    time.sleep(0.05)
os.kill(pid, signal.SIGKILL)
os.wait()
print('left', flush=True)
";

/// If it failed, a program that is a little unusual would be ended by an attempt to move it, or
/// stay without a word: see each step.
#[test]
fn unusual_programs_move_or_say_why_not() {
    let cluster_config = "balance = false\n".to_owned();
    let rennes = SiteSpec { cluster: true, cluster_config, ..SiteSpec::new("rennes") };
    let Some(w) = World::with(&rennes, &SiteSpec::new("pisa")) else { return };
    for node in &w.rennes.nodes {
        let install = "cp /bin/sleep /usr/local/bin/odd-sleep; chmod 4755 /usr/local/bin/odd-sleep";
        sh(node, install);
    }
    w.step("nodes_join_and_are_tried", nodes_join_and_are_tried);
    w.step("what_its_person_stopped_moves", what_its_person_stopped_moves);
    w.step("who_nobody_asked_after_moves", who_nobody_asked_after_moves);
    w.step("a_setuid_program_has_no_other_rights", a_setuid_program_has_no_other_rights);
    w.step("who_is_traced_stays", who_is_traced_stays);
    w.step("who_hangs_in_the_kernel_stays", who_hangs_in_the_kernel_stays);
}

/// Nothing keeps it from moving, and it moves there and back; all that it wrote.
fn moves(w: &World, name: &str, argv: &[&str]) -> String {
    let mut program = Followed::begin(w, name, &["--node", N1], argv, &["a"]);
    w.xos(&w.milo, &["cluster", "why", CLUSTER, &program.pid]).ok();
    program.moves_to(N2);
    program.moves_to(N1);
    program.end()
}

/// What keeps it is told before and when it is tried, and it goes on where it was; all that it
/// wrote.
fn stays(w: &World, name: &str, argv: &[&str], why: &str) -> String {
    let mut program = Followed::begin(w, name, &["--node", N1], argv, &["a"]);
    soon("it is told what keeps the program", || {
        let said = w.xos(&w.milo, &["cluster", "why", CLUSTER, &program.pid]);
        (said.code == 1 && said.out.contains(why)).then_some(())
    });
    let moved = w.xos(&w.milo, &["cluster", "migrate", CLUSTER, &program.pid, N2]);
    assert!(moved.code != 0 && moved.err.contains(why), "{moved:?}");
    let saved = w.xos(&w.milo, &["cluster", "checkpoint", CLUSTER, &program.pid]);
    assert!(saved.code != 0 && saved.err.contains(why), "{saved:?}");
    assert_eq!(program.node(), N1);
    program.goes_on();
    program.end()
}

/// If it failed, Ctrl-Z in a script would keep all of it from moving, or end what was stopped.
fn what_its_person_stopped_moves(w: &World) {
    let text = moves(w, "stopped", &["sh", "-c", &[COUNT, STOPPED].concat()]);
    assert!(text.ends_with("left 137\n"), "{text}");
}

/// If it failed, a parent would not learn how its child ended, since it moved in between.
fn who_nobody_asked_after_moves(w: &World) {
    let text = moves(w, "zombie", &[PYTHON, "-c", ZOMBIE]);
    assert!(text.ends_with("left 3\n"), "{text}");
}

/// If it failed, members would be root in their cell by a program that is setuid on the nodes.
fn a_setuid_program_has_no_other_rights(w: &World) {
    let text = moves(w, "setuid", &["sh", "-c", &[COUNT, SETUID].concat()]);
    let uids = text.lines().find_map(|line| line.strip_prefix("Uid:")).expect("its users");
    let uids: Vec<&str> = uids.split_whitespace().collect();
    assert!(uids.len() == 4 && uids.iter().all(|uid| *uid == uids[0] && *uid != "0"), "{text}");
    assert!(text.ends_with("left 143\n"), "{text}");
}

/// If it failed, a move would take a program from under its debugger.
fn who_is_traced_stays(w: &World) {
    let text = stays(w, "traced", &[PYTHON, "-c", TRACED], "traces it");
    assert!(text.ends_with("left\n"), "{text}");
}

/// If it failed, a program that waits for a disk would be held up for good by an attempt to move
/// it.
fn who_hangs_in_the_kernel_stays(w: &World) {
    let script = [COUNT, HANGS].concat();
    let argv = ["sh", "-c", &script, "sh", PYTHON, HANGING];
    let text = stays(w, "hangs", &argv, "hangs in the kernel");
    assert!(text.ends_with("left 0\n"), "{text}");
}
