use super::*;
use crate::cgroup::discover::{Hierarchy, Version};
use crate::cgroup::{Cgroups, EnvelopeCgroup};
use crate::spec::Limits;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Where the uids of these tests begin; each has its own.
const BASE: u32 = 1_999_990_200;

fn groups(cgroups: &Cgroups, dir: &Path) -> Groups {
    let limits = Limits { cpu_millis: None, memory_bytes: None, pids: 200 };
    Groups::open(cgroups.clone(), limits, dir.join("held.json")).unwrap()
}

/// The machine's own control groups; `None`, with the reason told, where processes cannot be
/// stopped by them.
fn machine(name: &str) -> Option<Cgroups> {
    if !rustix::process::getuid().is_root() {
        println!("skipped: needs root for control groups");
        return None;
    }
    let instance = format!("xos-{name}-{}", std::process::id());
    match Cgroups::prepare(&instance.parse().unwrap(), None) {
        Ok(all) if named(&all, "1.a").is_some() => Some(all),
        Ok(_) => {
            println!("skipped: neither cgroup2 nor a freezer");
            None
        }
        Err(e) => {
            println!("skipped: {e}");
            None
        }
    }
}

/// A hierarchy that stands below `dir` and is none.
fn pretended(dir: &Path) -> Cgroups {
    std::fs::write(dir.join("cgroup.controllers"), "\n").unwrap();
    let (point, own) = (dir.to_owned(), dir.to_owned());
    let one = Hierarchy { version: Version::V2, controllers: BTreeSet::new(), point, own };
    Cgroups::prepare_in(&"xos".parse().unwrap(), &[one]).unwrap()
}

fn named(all: &Cgroups, name: &str) -> Option<EnvelopeCgroup> {
    all.envelope(&name.parse().unwrap()).stopping()
}

/// All of these, who are suspended.
fn all(of: &BTreeSet<u32>) -> Whom<'_> {
    Whom { of, suspended: of }
}

/// Whether all in it stands still.
fn still(group: &EnvelopeCgroup) -> bool {
    let dir = &group.parts[0].dir;
    let read = |file: &str| std::fs::read_to_string(dir.join(file)).unwrap_or_default();
    read("cgroup.events").contains("frozen 1") || read("freezer.state").trim() == "FROZEN"
}

fn until(what: impl Fn() -> bool) {
    while !what() {
        std::thread::yield_now();
    }
}

/// A process of somebody's that says again what it is told.
struct Echo {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Echo {
    fn of(uid: u32) -> Echo {
        let mut cat = Command::new("cat");
        let cat = cat.uid(uid).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = cat.spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Echo { child, to, from: BufReader::new(from) }
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    fn works(&mut self) {
        self.to.write_all(b"go\n").unwrap();
        let mut said = String::new();
        self.from.read_line(&mut said).unwrap();
        assert_eq!(said, "go\n");
    }

    fn end(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// If it failed, what a suspended person left to cron or at would go on, or never come back; or
/// somebody else's work would be held, or a unit leave its envelope.
#[test]
fn what_runs_outside_of_sessions_is_held_and_nothing_else() {
    let Some(cgroups) = machine("strays") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (groups, strays) = (groups(&cgroups, dir.path()), Strays::open(dir.path().join("stopped")));
    let (uid, of) = (BASE, BTreeSet::from([BASE]));
    let (mut theirs, mut others, mut unit) = (Echo::of(uid), Echo::of(uid + 1), Echo::of(uid));
    let envelope = named(&cgroups, "1.a").unwrap();
    envelope.make().unwrap();
    envelope.take(unit.child.id()).unwrap();
    theirs.works();
    assert!(strays.hold_all(&groups, all(&BTreeSet::new())).unwrap());
    assert!(groups.all().unwrap().is_empty(), "nobody is suspended");
    assert!(strays.hold_all(&groups, all(&of)).unwrap());
    let held = named(&cgroups, &format!("held-{uid}")).unwrap();
    assert_eq!(held.processes().unwrap(), [theirs.pid()]);
    until(|| still(&held));
    others.works();
    unit.works();
    assert!(strays.hold_all(&groups, all(&of)).unwrap());
    assert_eq!(held.processes().unwrap(), [theirs.pid()], "held once");
    groups.clear().unwrap();
    assert_eq!(groups.all().unwrap(), of, "something is held");
    groups.freeze(uid, false).unwrap();
    theirs.works();
    assert!(strays.hold_all(&groups, all(&of)).unwrap(), "suspended once more");
    groups.freeze(uid, true).unwrap();
    until(|| still(&held));
    groups.end(uid).unwrap();
    assert_eq!(theirs.child.wait().unwrap().signal(), Some(9));
    assert!(groups.all().unwrap().is_empty());
    others.end();
    unit.end();
    envelope.remove().unwrap();
    cgroups.remove().unwrap();
}

/// If it failed, who was suspended and is resumed, but may not sign in to this node, would never
/// have their programs in a cluster back; or these would go on while the person is suspended.
#[test]
fn what_runs_in_a_cluster_goes_on_without_a_right_to_sign_in() {
    let Some(cgroups) = machine("paused") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (groups, strays) = (groups(&cgroups, dir.path()), Strays::open(dir.path().join("stopped")));
    let (uid, of) = (BASE + 30, BTreeSet::from([BASE + 30]));
    let (mut program, left) = (Echo::of(uid), Echo::of(uid));
    let cluster = named(&cgroups, "cluster").unwrap();
    cluster.make().unwrap();
    let group = cluster.child("7.1");
    group.make().unwrap();
    group.take(program.child.id()).unwrap();
    let nobody = BTreeSet::new();
    let refused = Whom { of: &of, suspended: &nobody };
    assert!(strays.hold_all(&groups, refused).unwrap());
    program.works();
    assert!(strays.hold_all(&groups, all(&of)).unwrap());
    until(|| still(&group));
    assert_eq!(group.processes().unwrap(), [program.pid()], "its group is the agent's");
    assert_eq!(groups.all().unwrap(), of);
    groups.resume(|uid| of.contains(&uid)).unwrap();
    assert!(still(&group), "suspended still");
    // Resumed, and still without a right to sign in.
    groups.freeze(uid, true).unwrap();
    groups.resume(|_| false).unwrap();
    program.works();
    assert!(strays.hold_all(&groups, refused).unwrap());
    program.works();
    assert_eq!(group.processes().unwrap(), [program.pid()], "it has its limits and its end");
    let held = named(&cgroups, &format!("held-{uid}")).unwrap();
    assert_eq!(held.processes().unwrap(), [left.pid()], "it is held on");
    assert_eq!(groups.all().unwrap(), of);
    assert!(strays.hold_all(&groups, all(&of)).unwrap());
    until(|| still(&group));
    groups.end(uid).unwrap();
    for mut one in [program.child, left.child] {
        assert_eq!(one.wait().unwrap().signal(), Some(9));
    }
    assert!(groups.all().unwrap().is_empty());
    group.remove().unwrap();
    cluster.remove().unwrap();
    cgroups.remove().unwrap();
}

/// If it failed, a program would be stopped with CRIU that is making it, which waits for it then
/// until its time is over; or one program would be stopped with its neighbour.
#[test]
fn a_program_that_is_being_made_is_stopped_afterwards() {
    let Some(cgroups) = machine("made") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (groups, strays) = (groups(&cgroups, dir.path()), Strays::open(dir.path().join("stopped")));
    let (uid, of) = (BASE + 40, BTreeSet::from([BASE + 40]));
    let (program, mut maker, mut other) = (Echo::of(uid), Echo::of(0), Echo::of(uid + 1));
    let cluster = named(&cgroups, "cluster").unwrap();
    cluster.make().unwrap();
    let [group, others] = ["7.1", "8.1"].map(|name| cluster.child(name));
    for (group, one) in [(&group, &program), (&group, &maker), (&others, &other)] {
        group.make().unwrap();
        group.take(one.child.id()).unwrap();
    }
    assert!(!strays.hold_all(&groups, all(&of)).unwrap(), "it is to be looked again");
    assert!(strays.uids().is_empty(), "a signal would be taken back by who has it go on");
    maker.works();
    maker.end();
    assert!(strays.hold_all(&groups, all(&of)).unwrap());
    until(|| still(&group));
    other.works();
    groups.end(uid).unwrap();
    let mut program = program.child;
    assert_eq!(program.wait().unwrap().signal(), Some(9));
    other.end();
    for group in [group, others, cluster] {
        group.remove().unwrap();
    }
    cgroups.remove().unwrap();
}

/// If it failed, who starts processes all the time would keep one that is not held.
#[test]
fn who_forks_all_the_time_is_held_too() {
    let Some(cgroups) = machine("forks") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (groups, strays) = (groups(&cgroups, dir.path()), Strays::open(dir.path().join("stopped")));
    let uid = BASE + 10;
    let theirs = || -> BTreeSet<i32> {
        let all = processes::pids().unwrap();
        all.filter(|pid| processes::owner(*pid) == Some(uid)).collect()
    };
    let script = "while :; do (sleep 600 &); (sleep 0.01); done";
    let mut forking = Command::new("sh").args(["-c", script]).uid(uid).spawn().unwrap();
    until(|| theirs().len() > 3);
    assert!(strays.hold_all(&groups, all(&BTreeSet::from([uid]))).unwrap());
    let held = named(&cgroups, &format!("held-{uid}")).unwrap();
    until(|| still(&held));
    let inside: BTreeSet<i32> = held.processes().unwrap().into_iter().collect();
    assert_eq!(theirs(), inside);
    groups.end(uid).unwrap();
    forking.wait().unwrap();
    assert!(theirs().is_empty());
    cgroups.remove().unwrap();
}

/// If it failed, what cannot be moved would go on, or stay stopped for good once its member may act
/// again and xosd was started anew meanwhile.
#[test]
fn what_cannot_be_moved_is_stopped_by_a_signal_and_let_go_on() {
    if !rustix::process::getuid().is_root() {
        println!("skipped: needs root to start processes of others");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // No kernel listens there: whoever is to be moved stays.
    let groups = groups(&pretended(dir.path()), dir.path());
    let (uid, path) = (BASE + 20, dir.path().join("stopped"));
    let mut theirs = Echo::of(uid);
    theirs.works();
    let pid = theirs.pid();
    let rests = || processes::thread(pid).is_some_and(|(_, stopped)| stopped);
    let strays = Strays::open(path.clone());
    assert!(!strays.hold_all(&groups, all(&BTreeSet::from([uid]))).unwrap(), "it is to be told");
    until(rests);
    let again = Strays::open(path.clone());
    again.resume(|_, _| true);
    assert!(rests(), "they are suspended still");
    again.resume(|_, _| false);
    theirs.works();
    assert!(Strays::open(path).lock().is_empty());
    theirs.end();
}

/// If it failed, units and sessions would lose their limits and their end, or what is elsewhere
/// would count as held.
#[test]
fn what_is_held_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let groups = groups(&pretended(dir.path()), dir.path());
    let mounts = format!("41 31 0:38 / {} rw - cgroup2 cgroup2 rw\n", dir.path().display());
    let held =
        |uid, place: &str, clusters| groups.holds(uid, &mounts, &format!("0::{place}\n"), clusters);
    let holds = |uid, place: &str| held(uid, place, false);
    let programs = dir.path().join("xos/cluster");
    for (name, stopped) in [("7.1", "1\n"), ("8.1", "0\n"), ("agent", "1\n")] {
        std::fs::create_dir_all(programs.join(name)).unwrap();
        std::fs::write(programs.join(name).join("cgroup.freeze"), stopped).unwrap();
    }
    for place in ["/xos/cluster", "/xos/cluster/8.1"] {
        assert!(held(7, place, true), "who may not sign in may run programs: {place}");
    }
    for place in [
        "/xos/1.a",
        "/xos/1.a/below",
        "/xos/login-7",
        "/xos/held-7",
        "/xos/cluster/7.1",
        "/xos/cluster/7.1/below",
        "/user.slice/user-7.slice/session-4.scope",
        "/user.slice/user-7.slice/user@7.service/app.slice/x.service",
    ] {
        assert!(holds(7, place), "{place}");
    }
    for place in [
        "/",
        "/xos",
        "/xos.daemon",
        "/xos/login-8",
        "/xos/login-77",
        "/xos/held-8",
        "/xos/cluster",
        "/xos/cluster/8.1",
        "/xos/cluster/9.1",
        "/xos/cluster/agent",
        "/user.slice/user-77.slice/session-4.scope",
        "/user.slice/user-1000.slice/session-4.scope",
        "/system.slice/cron.service",
        "/other/xos/1.a",
    ] {
        assert!(!holds(7, place), "{place}");
    }
}
