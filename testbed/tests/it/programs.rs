use std::io::Read;
use std::process::Command;
use std::time::Duration;

use xos_testbed::{Cmd, Error, Exit, Signal, Stdio};

use crate::{Bed, sh};

const LIMIT: Duration = Duration::from_secs(30);

/// If it failed, tests would see a wrong end of their programs, or the caller's environment.
#[test]
fn programs_get_a_fresh_environment_and_report_their_end() {
    let Some(bed) = Bed::new("programs") else { return };
    let host = bed.host("one");
    let cmd = Cmd::shell("env | sort; pwd; cat; exit 3").env("A", "b c").cwd("/var").stdin("in");
    let output = host.run(&cmd).unwrap();
    assert_eq!(output.exit, Exit::Code(3));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(text.contains("A=b c\n") && text.ends_with("/var\nin"), "{text}");
    assert!(!text.contains("CARGO"), "{text}");
    assert!(matches!(output.ok(), Err(Error::Failed { exit: Exit::Code(3), .. })));

    let refused = host.run(&Cmd::new("/no/such/program"));
    assert!(matches!(refused, Err(Error::Start { .. })), "{refused:?}");
    let slow = Cmd::new("sleep").arg("1000").limit(Duration::from_millis(200));
    assert!(matches!(host.run(&slow), Err(Error::Deadline { .. })));
    // A daemon left behind holds the output open; the answer must not wait for it.
    let output = host.run(&Cmd::shell("sleep 1000 & echo started")).unwrap();
    assert_eq!(output.stdout, b"started\n");
}

/// If it failed, a program could not be killed, or its output would be lost.
#[test]
fn spawned_programs_are_killed_by_pid() {
    let Some(bed) = Bed::new("spawn") else { return };
    let host = bed.host("one");
    let mut process = host.spawn(&Cmd::new("sleep").arg("1000")).unwrap();
    assert_eq!(process.try_wait().unwrap(), None);
    assert!(host.pids().unwrap().contains(&process.pid()));
    assert!(!host.kill(std::process::id() as i32, Signal::KILL).unwrap(), "not one of its own");
    assert!(host.kill(process.pid(), Signal::TERM).unwrap());
    assert_eq!(process.wait(LIMIT).unwrap(), Exit::Signal(15));
    process.signal(Signal::KILL).unwrap();

    let cmd = Cmd::shell("echo out; echo err >&2").stdio(Stdio::LogAs("talk".parse().unwrap()));
    let mut process = host.spawn(&cmd).unwrap();
    process.wait(LIMIT).unwrap();
    let log = bed.folder.path().join("logs/one/talk.log");
    assert_eq!(process.log(), Some(log.canonicalize().unwrap().as_path()));
    assert_eq!(std::fs::read(log).unwrap(), b"out\nerr\n");

    let mut piped = host.spawn(&Cmd::shell("echo out; echo err >&2").stdio(Stdio::Piped)).unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    piped.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    piped.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!((out.as_str(), err.as_str()), ("out\n", "err\n"));
    assert_eq!(piped.wait(LIMIT).unwrap(), Exit::Code(0));
}

/// If it failed, the node could not make its cgroups, or a host would see another's.
#[test]
fn a_host_has_cgroups_of_its_own() {
    let Some(bed) = Bed::new("cgroups") else { return };
    let host = bed.host("one");
    let show = Cmd::shell("cut -d: -f3 /proc/self/cgroup | sort -u");
    assert_eq!(host.run(&show).unwrap().ok().unwrap(), "/\n/init\n".replace("/\n", root_line()));
    let service = show.own_cgroup("xosd".parse().unwrap());
    let text = host.run(&service).unwrap().ok().unwrap();
    assert!(text.lines().any(|line| line == "/xosd"), "{text}");
    let script = r#"cd /sys/fs/cgroup; [ -d pids ] && cd pids; mkdir job && echo 5 > job/pids.max &&
        echo $$ > job/cgroup.procs && exec perl -e 'for (1..8) {
            my $child = fork; defined $child or do { print "refused"; exit };
            $child or exec "sleep", "1000" }'"#;
    assert_eq!(sh(&host, script), "refused");
}

/// Version 1 hierarchies that hosts do not get show the host's root.
fn root_line() -> &'static str {
    if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { "" } else { "/\n" }
}

/// If it failed, a frozen program could not be ended, and a testbed with one not be destroyed.
#[test]
fn a_host_with_frozen_programs_ends() {
    let Some(bed) = Bed::new("frozen") else { return };
    let host = bed.host("one");
    let freeze = "mkdir -p $1 && echo $2 > $1/cgroup.procs && echo $3 > $1/$4";
    let script = format!(
        "sleep 1000 & pid=$!; freeze() {{ {freeze}; }}; cd /sys/fs/cgroup
         if [ -d freezer ]; then freeze freezer/f $pid FROZEN freezer.state
         else freeze f $pid 1 cgroup.freeze; fi"
    );
    for end in ["crash", "destroy"] {
        sh(&host, &script);
        match end {
            "crash" => host.restart().unwrap(),
            _ => break,
        }
    }
    bed.testbed.destroy().unwrap();
}

/// If it failed, orphans would pile up as zombies in the host.
#[test]
fn the_first_process_collects_orphans() {
    let Some(bed) = Bed::new("orphans") else { return };
    let host = bed.host("one");
    assert!(sh(&host, "tr '\\0' ' ' < /proc/1/cmdline").contains("host-init"));
    let pid = sh(&host, "sleep 0.2 & echo $!");
    // tail ends when the process is gone for good; a zombie would hold it until the limit.
    host.run(&Cmd::new("tail").args(["-f", "/dev/null", "--pid", &pid]).limit(LIMIT)).unwrap();
}

/// If it failed, people could not get a shell with a terminal in a host.
#[test]
fn exec_works_on_a_terminal() {
    let Some(bed) = Bed::new("exec") else { return };
    bed.host("one");
    let testbed = env!("CARGO_BIN_EXE_testbed");
    let dir = bed.folder.path().to_str().unwrap();
    let run = |args: &[&str]| Command::new(testbed).args(args).output().unwrap();
    let output = run(&["exec", dir, "one", "--", "bash", "-c", "hostname; exit 7"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(7), b"one\n".as_slice()));
    let output = run(&["exec", dir, "nobody", "--", "true"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(String::from_utf8(output.stderr).unwrap().contains("no host `nobody`"));
    let listed = String::from_utf8(run(&["list", dir]).stdout).unwrap();
    let (head, hosts) = listed.split_once('\n').unwrap();
    let head: Vec<&str> = head.split_whitespace().collect();
    assert_eq!(head, ["HOST", "ADDRESS", "PID", "STATE"]);
    assert_eq!(hosts.split_whitespace().count(), head.len(), "{hosts}");
    assert!(listed.contains("one") && listed.contains("10.77.0.2") && listed.contains("up"));

    // script(1) of util-linux gives it a terminal.
    let line =
        format!("{testbed} exec {dir} one -- bash -ic 'stty -a; set -o | grep monitor; hostname'");
    let output = Command::new("script").args(["-qec", &line, "/dev/null"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("no job control"), "{text}");
    assert!(text.contains("isig icanon") && text.contains("one"), "{text}");
}
