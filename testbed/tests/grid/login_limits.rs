//! What a session may use, what it knows of itself, and what the audit says of it.

use std::path::Path;

use xos_testbed::grid::{Person, Site, SiteSpec};
use xos_testbed::{Cmd, Host, Process};

use crate::login_cron;
use crate::signed_in::account;
use crate::tool::{Json, skipped};
use crate::world::{VO, World, sh, soon};

/// Limits of all sessions of one person together.
const LIMITS: &str = "memory_bytes = 268435456\nprocesses = 64\n";
const PROCESSES: usize = 64;
/// Fewer than these of them are what a session needs itself.
const OWN_MAX: usize = 20;
/// Makes processes until it cannot; how many, and why (errno).
const BOMB: &str = r#"
import os, time
made, why = 0, 0
try:
    while made < 1000:
        if os.fork() == 0:
            for fd in (0, 1, 2):
                os.close(fd)
            time.sleep(600)
            os._exit(0)
        made += 1
except OSError as e:
    why = e.errno
print(made, why, flush=True)
"#;
/// EAGAIN: the kernel's word for "no more processes".
const NO_MORE: &str = "11";
/// Prints what the session's keyring has: keyctl(2), to search for a key and to read it.
const READ_KEY: &str = r#"
import ctypes, platform
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
number = {"x86_64": 250, "aarch64": 219}[platform.machine()]
def keyctl(*arguments):
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    got = libc.syscall(ctypes.c_long(number), *words)
    if got < 0:
        raise OSError(ctypes.get_errno(), "keyctl")
    return got
key = keyctl(10, -3, b"user", b"xos:membership", 0)
room = ctypes.create_string_buffer(65536)
length = keyctl(11, key, room, 65536)
print(room.raw[:length].decode())
"#;

/// If it failed, one person could take a machine from all others, or nobody could tell who was on
/// it: see each step.
#[test]
fn a_session_has_limits_and_a_name() {
    if !Site::can_be_signed_in_to() || !Path::new("/usr/bin/python3").exists() {
        return skipped("needs sshd, pam-auth-update and python3 of Debian");
    }
    let rennes = SiteSpec {
        login: true,
        login_config: LIMITS.to_owned(),
        nodes: 1,
        ..SiteSpec::new("rennes")
    };
    let pisa = SiteSpec { nodes: 1, ..SiteSpec::new("pisa") };
    let Some(w) = World::with(&rennes, &pisa) else { return };
    for (path, text) in [("/opt/bomb.py", BOMB), ("/opt/key.py", READ_KEY)] {
        w.rennes.nodes[0].write_file(path, text.as_bytes(), 0o644).unwrap();
    }
    let other = Other::works(&w);
    w.step("memory_that_is_too_much_is_not_had", |w| memory(w, &other));
    w.step("processes_that_are_too_many_are_not_made", |w| processes(w, &other));
    w.step("what_leaves_the_session_at_once_is_counted_too", what_leaves_at_once);
    w.step("a_program_finds_its_membership_in_the_keyring", the_membership_is_in_the_keyring);
    w.step("cron_runs_jobs_of_members_who_stand", login_cron::jobs_of_members);
    w.step("the_audit_says_who_came_and_went", |w| the_audit_says_who(w, other));
}

/// Vera at the same machine, who makes a process every moment and writes a line for each.
struct Other {
    node: Host,
    file: String,
    _session: Process,
}

impl Other {
    fn works(w: &World) -> Other {
        let config = format!("/home/{}/.xos/ssh/config", w.vera.name);
        let work = "while :; do echo here >> beat; sleep 0.05; done";
        let args = ["-F", &config, "-o", "BatchMode=yes", "n1.rennes", work];
        let session = w.laptop().spawn(&w.vera.command("ssh").args(args)).unwrap();
        let file = format!("/home/xos/{}/beat", account(&w.vera));
        let other = Other { node: w.rennes.nodes[0].clone(), file, _session: session };
        other.goes_on();
        other
    }

    fn written(&self) -> usize {
        self.node.read_file(&self.file).map_or(0, |text| text.len())
    }

    /// Waits until more is written.
    fn goes_on(&self) {
        let before = self.written();
        soon("the other person's session goes on", || (self.written() > before).then_some(()));
    }
}

/// The number of a person's account at the node.
pub fn uid(w: &World, person: &Person) -> String {
    sh(&w.rennes.nodes[0], &format!("id -u {}", account(person)))
}

/// Ends what is left of a person there, and waits until it is gone.
fn end_all(node: &Host, uid: &str) {
    let script = format!("pkill -KILL -u {uid}; ! pgrep -u {uid}");
    soon("nothing of the person runs", || {
        node.run(&Cmd::shell(&script)).unwrap().exit.is_success().then_some(())
    });
}

fn memory(w: &World, other: &Other) {
    let said = w.ssh(&w.milo, &[], "n1.rennes", "tail /dev/zero; echo status=$?");
    // By SIGKILL.
    assert_eq!(said.ok().trim(), "status=137");
    other.goes_on();
}

fn processes(w: &World, other: &Other) {
    let node = &w.rennes.nodes[0];
    let said = w.ssh(&w.milo, &[], "n1.rennes", "python3 /opt/bomb.py").ok();
    let (made, why) = said.trim().split_once(' ').expect("a number, and why");
    let made: usize = made.parse().unwrap();
    assert_eq!(why, NO_MORE, "{said}");
    assert!((PROCESSES - OWN_MAX..PROCESSES).contains(&made), "{made} were made");
    let uid = uid(w, &w.milo);
    let left: usize = sh(node, &format!("pgrep -c -u {uid}")).parse().unwrap();
    assert!((made..=PROCESSES).contains(&left), "{left} of {made} are there");
    other.goes_on();
    end_all(node, &uid);
}

/// A process is in a person's group, by the text of its `/proc/<pid>/cgroup`.
#[track_caller]
pub fn is_counted(list: &str, uid: &str) {
    let limits = |line: &&str| {
        let mut controllers = line.split(':').nth(1).unwrap_or_default().split(',');
        controllers.any(|c| c == "memory" || c == "pids")
    };
    let limited: Vec<&str> = list.lines().filter(limits).collect();
    // With version 2 alone there is one line, which names none.
    let limited = if limited.is_empty() { list.lines().collect() } else { limited };
    let group = format!("/login-{uid}");
    assert!(!limited.is_empty() && limited.iter().all(|l| l.ends_with(&group)), "{list}");
}

/// By the shell's own file, before the command; what sshd itself would run from the home, before
/// that, it does not run for members.
fn what_leaves_at_once(w: &World) {
    let (node, uid, name) = (&w.rennes.nodes[0], uid(w, &w.milo), account(&w.milo));
    w.ssh(&w.milo, &[], "n1.rennes", "umask 077; mkdir -p .ssh").ok();
    let home = format!("/home/xos/{name}");
    let leave = format!(
        "( setsid sh -c 'echo $$ > {home}/by-shell; exec sleep 600' \
         < /dev/null > /dev/null 2>&1 & )\n"
    );
    for (file, text) in [(".bashrc", leave), (".ssh/rc", format!("echo > {home}/by-sshd\n"))] {
        node.write_file(format!("{home}/{file}"), text.as_bytes(), 0o644).unwrap();
    }
    let list = w.ssh(&w.milo, &[], "n1.rennes", "cat /proc/self/cgroup").ok();
    is_counted(&list, &uid);
    let list = soon("it has left", || {
        let script = format!("cat /proc/$(cat {home}/by-shell)/cgroup");
        let out = node.run(&Cmd::shell(script)).unwrap();
        out.exit.is_success().then(|| String::from_utf8_lossy(&out.stdout).into_owned())
    });
    is_counted(&list, &uid);
    assert!(!sh(node, &format!("ls {home}")).contains("by-sshd"), "sshd ran what lies in the home");
    sh(node, &format!("rm {home}/.bashrc {home}/.ssh/rc"));
    end_all(node, &uid);
}

fn the_membership_is_in_the_keyring(w: &World) {
    if !Path::new("/proc/keys").exists() {
        println!("skipped: this kernel has no keyrings");
        return;
    }
    let said = w.ssh(&w.milo, &[], "n1.rennes", "python3 /opt/key.py").ok();
    let held: Json = serde_json::from_str(said.trim()).unwrap_or_else(|e| panic!("{e}: {said}"));
    assert_eq!(held["person"], Json::from(w.milo.id()), "{held}");
    assert_eq!(held["vo"], Json::from(VO), "{held}");
    assert_eq!(held["groups"], serde_json::json!(["members"]), "{held}");
    assert_eq!(held["roles"], serde_json::json!([]), "{held}");
    assert!(held["number"].as_u64().is_some_and(|n| n > 0), "{held}");
    assert!(held["epoch"].as_u64().is_some(), "{held}");
}

/// How many lines that the node reported the site's audit has in which all these words stand.
pub fn audited(w: &World, words: &[&str]) -> usize {
    let text = sh(&w.rennes.core, "cat /var/lib/xos/audit/*.jsonl");
    let lines = text.lines().filter(|l| l.contains(r#""node":"n1.rennes""#));
    lines.filter(|l| words.iter().all(|word| l.contains(word))).count()
}

/// The words of a line: what, how it went, of whom.
pub fn words(what: &str, outcome: &str, person: &str) -> [String; 3] {
    [
        format!(r#""what":"{what}""#),
        format!(r#""outcome":"{outcome}""#),
        format!(r#""person":"{person}""#),
    ]
}

fn the_audit_says_who(w: &World, other: Other) {
    let lines = |person: &Person, [what, outcome]: [&str; 2], from: &str| {
        let [what, outcome, who] = words(what, outcome, &person.id());
        let (vo, on) = (format!(r#""vo":"{VO}""#), format!("sshd as {}", account(person)));
        audited(w, &[&what, &outcome, &who, &vo, &on, from])
    };
    let address = w.laptop().address().unwrap();
    let from = format!(r#""from":"{address}""#);
    let (opened, closed) = (["open_session", "done"], ["close_session", "done"]);
    w.ssh_direct(&w.milo, "rennes-n1", "n1.rennes", "true").ok();
    for what in [["allow_login", "done"], opened] {
        soon("a login is told", || (lines(&w.milo, what, &from) > 0).then_some(()));
    }
    soon("the end of each session is told", || {
        (lines(&w.milo, closed, "") == lines(&w.milo, opened, "")).then_some(())
    });
    // Whose session goes on has come and not gone.
    other.goes_on();
    assert_eq!((lines(&w.vera, opened, ""), lines(&w.vera, closed, "")), (1, 0));

    w.xos(&w.vera, &["vo", "suspend", VO, &w.milo.id(), "-m", "laptop stolen"]).ok();
    soon("a refusal is told", || {
        let said = w.ssh_direct(&w.milo, "rennes-n1", "n1.rennes", "true");
        let refused = ["allow_login", "refused"];
        (said.code != 0 && lines(&w.milo, refused, &from) > 0).then_some(())
    });
}
