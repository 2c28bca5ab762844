//! `xos-demo`: what `make demo` and `make stop` run once the programs are built.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use xos_net::identity::root_fingerprint;
use xos_testbed::grid::Site;
use xos_testbed::{Error, Testbed};

use crate::tool::{Json, job_of};
use crate::world::{alone, programs};

/// Photons of each unit: just enough for the merged picture to be like the phantom.
const PHOTONS: &str = "300000";
/// How often it is looked whether the machine is as before: other tests may change it meanwhile.
const LOOKS_MAX: usize = 300;
/// How often to look.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A folder for a demo, which is stopped at last whatever happens.
struct Demo {
    folder: TempDir,
}

impl Demo {
    fn dir(&self) -> PathBuf {
        self.folder.path().join("demo")
    }

    /// Runs `xos-demo` for this folder.
    fn run(&self, action: &str, options: &[&str]) -> Output {
        let mut command = Command::new(programs().join("xos-demo"));
        command.arg(action).arg("--dir").arg(self.dir()).args(options);
        command.output().expect("xos-demo")
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let stopped = self.run("stop", &[]);
        println!("{}", text(&stopped.stdout));
        if !stopped.status.success() {
            println!("the demo was not stopped: {}", text(&stopped.stderr));
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Both outputs.
fn text_of(out: &Output) -> String {
    format!("{}{}", text(&out.stdout), text(&out.stderr))
}

/// An address that nobody listens at.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Runs a line as the person who reads it would paste it.
fn paste(line: &str) -> Output {
    let out = Command::new("sh").args(["-c", line]).output().expect("sh");
    assert!(out.status.success(), "{line}: {}{}", text(&out.stdout), text(&out.stderr));
    out
}

/// If it failed, the first thing that anybody sees of XOS would end in commands that do not work,
/// in a console that does not answer, or in a fingerprint that is not the console's; or the demo
/// would leave the machine otherwise than it found it.
#[test]
fn the_demo_ends_with_commands_that_work() {
    let Some(_alone) = alone() else { return };
    let demo = Demo { folder: tempfile::tempdir().unwrap() };
    let before = Machine::look(&demo);
    let free = free();
    let console = free.to_string();
    let out = demo.run("start", &["--photons", PHOTONS, "--console", &console]);
    let said = text(&out.stdout);
    println!("{said}");
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(said.contains("Ready after "), "it does not say how long it took");
    let clustered = a_cluster_was_shown(&said);

    let laptop = demo.dir().join("laptop").display().to_string();
    let who = paste(&format!("cd /tmp && {laptop} sh -c 'id -un; pwd; echo ~'"));
    assert_eq!(text(&who.stdout), "milo\n/home/milo\n/home/milo\n", "not at home as milo");
    if Site::can_be_signed_in_to() {
        let name = text(&paste(&format!("{laptop} ssh n1.pisa id -un")).stdout);
        assert!(name.starts_with("milo"), "plain ssh does not work: {name}");
        paste(&format!("cd /tmp && {laptop} scp job.toml n1.rennes:"));
    }
    let sites = paste(&format!("{laptop} xos site list --local --json"));
    let sites: Json = serde_json::from_slice(&sites.stdout).unwrap();
    let mut sites = sites["sites"].as_array().unwrap().iter();
    let rennes = sites.find(|s| s["descriptor"]["site"] == "rennes").expect("rennes is known");
    let root = rennes["fingerprint"].as_str().unwrap();
    let line = format!("Console   https://localhost:{}   CA {root}", free.port());
    assert!(said.contains(&line), "not the console's address and root: {line}");
    let der = STANDARD.decode(rennes["descriptor"]["root"].as_str().unwrap()).unwrap();
    assert_eq!(root_fingerprint(&der), root, "the root that milo has is not the printed one");
    sign_in_page(&demo, free, &der);
    assert_eq!(shown_root(free), root, "a browser shows another root than the printed one");

    let (_, next) = said.split_once("Try next:\n").expect("what to try next");
    let lines: Vec<&str> = next.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    assert_eq!(lines.len(), 5 + usize::from(clustered), "{lines:?}");
    assert_eq!(lines.last(), Some(&"make stop"));
    let picture = "slice.png";
    assert!(lines[2].ends_with(&format!(">{picture}")), "{lines:?}");
    let into = demo.folder.path().join(picture);
    let shown = lines[2].replace(&format!(">{picture}"), &format!(">{}", into.display()));
    let outputs: Vec<Output> =
        [lines[0], lines[1], &shown, lines[3]].iter().map(|line| paste(line)).collect();
    let first = text(&outputs[0].stdout);
    assert!(
        first.contains("spect"),
        "the example is not shown: {first}{}",
        text(&outputs[0].stderr)
    );
    let note = text(&outputs[1].stderr);
    assert!(note.contains("8 units done; output: xout "), "an array ends in silence: {note}");
    let array = paste(&format!("{laptop} xout {}", job_of(&note)));
    assert_eq!(text(&array.stdout).matches("unit ").count(), 8, "{array:?}");
    assert!(std::fs::read(&into).unwrap().starts_with(b"\x89PNG"), "the picture is none");
    assert!(text(&outputs[3].stdout).contains("milo@rennes"), "vera does not see the members");
    if clustered {
        let ran = text(&paste(lines[4]).stdout);
        assert!(ran.starts_with("I am ") && ran.contains(" on "), "nothing ran there: {ran}");
    }

    assert!(demo.run("stop", &[]).status.success());
    assert!(!demo.dir().exists(), "the demo's folder is still there");
    let mut after = Machine::look(&demo);
    for _ in 0..LOOKS_MAX {
        if after.is_as(&before) {
            break;
        }
        std::thread::sleep(LOOK_EVERY);
        after = Machine::look(&demo);
    }
    assert!(after.is_as(&before), "the machine was {before:#?} and is {after:#?}");
}

/// Whether the demo showed a cluster, with all that belongs to it; else it said why not.
fn a_cluster_was_shown(said: &str) -> bool {
    if let Some(why) = said.lines().find(|line| line.contains("no cluster: ")) {
        println!("not tried: {}", why.trim());
        return false;
    }
    for shown in [
        "one machine, the cluster c1.rennes",
        "n1 was drained: ",
        "each has a checkpoint on both nodes",
        "all three ended well; merged at pisa: 3 units",
        "both nodes are in c1.rennes",
    ] {
        assert!(said.contains(shown), "it does not show {shown:?}");
    }
    let (gone, kept) = (said.contains("n2 was killed: "), said.contains("n2 is not killed: "));
    assert!(gone || kept, "nothing is said of a node that fails");
    true
}

/// The console answers whoever trusts nothing but this root, under the name that the demo printed.
fn sign_in_page(demo: &Demo, console: SocketAddr, root: &[u8]) {
    let file = demo.folder.path().join("root.pem");
    let text = STANDARD.encode(root);
    let lines = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap());
    let lines = lines.collect::<Vec<_>>().join("\n");
    let pem = format!("-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n");
    std::fs::write(&file, pem).unwrap();
    let port = console.port();
    let mut client = Command::new("openssl")
        .args(["s_client", "-quiet", "-verify_return_error", "-alpn", "http/1.1", "-CAfile"])
        .arg(&file)
        .args(["-connect", &format!("localhost:{port}"), "-verify_hostname", "localhost"])
        .args(["-servername", "localhost", "-no-CApath", "-no-CAstore"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl");
    let request =
        format!("GET /sign-in HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n");
    client.stdin.take().unwrap().write_all(request.as_bytes()).unwrap();
    let out = client.wait_with_output().unwrap();
    let said = text_of(&out);
    assert!(said.starts_with("HTTP/1.1 200 "), "the console does not answer: {said}");
    assert!(said.contains("sign-in-form"), "this is not the page for signing in: {said}");
}

/// The fingerprint of the root that the console shows to browsers: its chain's last certificate.
fn shown_root(console: SocketAddr) -> String {
    let out = Command::new("openssl")
        .args(["s_client", "-showcerts", "-alpn", "http/1.1", "-servername", "localhost"])
        .args(["-connect", &format!("localhost:{}", console.port())])
        .stdin(Stdio::null())
        .output()
        .expect("openssl");
    let said = text(&out.stdout);
    let (_, last) = said.rsplit_once("-----BEGIN CERTIFICATE-----").expect("no certificate");
    let (last, _) = last.split_once("-----END CERTIFICATE-----").expect("half a certificate");
    let der = STANDARD.decode(last.split_whitespace().collect::<String>()).unwrap();
    root_fingerprint(&der)
}

/// What a demo could leave on the machine.
#[derive(Debug)]
struct Machine {
    mounts: BTreeSet<String>,
    interfaces: BTreeSet<String>,
    /// Control groups of testbeds.
    groups: BTreeSet<String>,
    /// Controllers that the root of the machine passes on.
    controllers: BTreeSet<String>,
}

impl Machine {
    /// Without mounts that others have meanwhile in temporary folders and the build's.
    fn look(demo: &Demo) -> Machine {
        let build = programs().parent().expect("the build's folder");
        let others = [std::env::temp_dir(), build.to_owned()];
        let is_ours = |point: &str| {
            let point = Path::new(point);
            point.starts_with(demo.folder.path()) || !others.iter().any(|o| point.starts_with(o))
        };
        let (mut mounts, mut groups) = (BTreeSet::new(), BTreeSet::new());
        let mut controllers = BTreeSet::new();
        for line in std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines() {
            let Some(point) = line.split(' ').nth(4) else { continue };
            if is_ours(point) {
                mounts.insert(point.to_owned());
            }
            if line.contains(" - cgroup") {
                let testbeds = names(point).into_iter().filter(|n| n.starts_with("xos-testbed-"));
                groups.extend(testbeds.map(|name| format!("{point}/{name}")));
            }
            if line.contains(" - cgroup2 ") {
                let active = std::fs::read_to_string(format!("{point}/cgroup.subtree_control"));
                let active = active.unwrap_or_default();
                controllers.extend(active.split_whitespace().map(str::to_owned));
            }
        }
        Machine { mounts, interfaces: names("/sys/class/net"), groups, controllers }
    }

    /// Whether there is no more than `before`. Testbeds of other tests may come meanwhile: what
    /// they need, they leave.
    fn is_as(&self, before: &Machine) -> bool {
        let group = |name: &&String| name.contains("/xos-testbed-xos-");
        let others = self.groups.iter().any(|name| !group(&name));
        self.mounts.is_subset(&before.mounts)
            && self.interfaces == before.interfaces
            && self.groups.iter().filter(group).eq(before.groups.iter().filter(group))
            && (others || self.controllers.is_subset(&before.controllers))
    }
}

/// What is in a folder; nothing when it is none.
fn names(folder: impl AsRef<Path>) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// If it failed, the person would wait for two sites to be made, be told of a taken port then, and
/// be left with a grid that nobody can reach, or with a folder in which no demo starts any more.
#[test]
fn a_taken_port_a_crash_and_a_cleaned_folder_hinder_nobody() {
    let Some(_alone) = alone() else { return };
    let demo = Demo { folder: tempfile::tempdir().unwrap() };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let console = taken.local_addr().unwrap().to_string();
    let out = demo.run("start", &["--no-example", "--console", &console]);
    let (said, why) = (text(&out.stdout), text(&out.stderr));
    assert!(!out.status.success(), "{said}");
    assert!(why.contains(&console) && why.contains("ss -ltnp"), "no advice: {why}");
    assert!(!said.contains("site rennes"), "a site was made before the port was looked at");
    let left = Testbed::open(demo.dir());
    assert!(matches!(left, Err(Error::NoTestbed(_))), "a grid was left: {left:?}");

    // Once the port is free, the same command works.
    let console = free().to_string();
    let out = demo.run("start", &["--no-example", "--console", &console]);
    assert!(out.status.success(), "not after a failure: {}", text(&out.stderr));

    // Over one that runs, and over one that was killed, as well.
    let group = control_group(&demo);
    for pid in processes(&group) {
        match kill_process(pid, Signal::KILL) {
            // It ended with the init of its namespace, which was killed before it.
            Ok(()) | Err(Errno::SRCH) => {}
            Err(e) => panic!("process {pid:?} could not be killed: {e}"),
        }
    }
    let out = demo.run("start", &["--no-example", "--console", &console]);
    assert!(out.status.success(), "not after a crash: {}", text(&out.stderr));
    assert!(!processes(&group).is_empty());

    // Somebody cleans the build folder, and with it the demo's.
    std::fs::remove_dir_all(demo.dir()).unwrap();
    assert!(demo.run("stop", &[]).status.success());
    assert_eq!(processes(&group), [], "what ran goes on");
    assert!(!demo.dir().exists());
}

/// If it failed, `make stop` with a mistyped folder would delete it.
#[test]
fn what_is_not_the_demos_stays() {
    let demo = Demo { folder: tempfile::tempdir().unwrap() };
    let other = demo.dir().join("logs/mine");
    std::fs::create_dir_all(demo.dir().join("logs")).unwrap();
    std::fs::write(&other, "irreplaceable").unwrap();
    let out = demo.run("stop", &[]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(text(&out.stdout).contains("No grid runs here"), "{}", text(&out.stdout));
    assert!(!demo.run("start", &["--no-example"]).status.success(), "it took a folder in use");
    assert!(!demo.run("stop", &[]).stdout.is_empty());
    assert_eq!(std::fs::read_to_string(other).unwrap(), "irreplaceable");
}

/// The name of the control groups of a running demo.
fn control_group(demo: &Demo) -> String {
    let hosts = Testbed::open(demo.dir()).unwrap().hosts().unwrap();
    let init = hosts.iter().find_map(|host| host.init).expect("a host that runs");
    let groups = std::fs::read_to_string(format!("/proc/{init}/cgroup")).unwrap();
    let mut parts = groups.split(['/', '\n']);
    parts.find(|part| part.starts_with("xos-testbed-")).expect("its own groups").to_owned()
}

/// The processes in control groups of this name that have not ended.
fn processes(group: &str) -> Vec<Pid> {
    let in_group = |entry: std::fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse::<i32>().ok()?;
        let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
        if status.contains("\nState:\tZ") {
            return None;
        }
        let groups = std::fs::read_to_string(entry.path().join("cgroup")).ok()?;
        if groups.split(['/', '\n']).any(|part| part == group) { Pid::from_raw(pid) } else { None }
    };
    std::fs::read_dir("/proc").unwrap().filter_map(|entry| in_group(entry.unwrap())).collect()
}
