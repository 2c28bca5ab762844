//! What systemd does with our units, for hosts whose first process is not systemd.
//!
//! It starts what `ExecStart` says, after what `Requires` names, in a control group of its own, and
//! waits until the service tells that it is ready (sd_notify(3)). What systemd shuts a service in
//! (`ProtectSystem` and the like) it does not do.

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use xos_testbed::grid::sshd;
use xos_testbed::{Cmd, Host, Process, Signal, Stdio};

use crate::world::sh;

/// Longest that a service may take to be ready, or to end; systemd waits 90 s.
const SERVICE_MAX: Duration = Duration::from_secs(90);
/// The slice that systemd puts services into; hosts have none.
const SLICE: &str = "/system.slice/";
/// Debian's own service, started before the text begins.
const SSH: &str = "ssh";

/// What runs on all hosts.
#[derive(Default)]
pub struct Units {
    running: BTreeMap<(String, String), Running>,
}

struct Running {
    process: Process,
    status: String,
}

/// What a unit file says.
struct Unit {
    exec: String,
    requires: Vec<String>,
}

impl Unit {
    fn parse(text: &str) -> Unit {
        let whole = text.replace("\\\n", " ");
        let values = |key: &str| -> Vec<String> {
            let lines = whole.lines().filter_map(|line| line.strip_prefix(key));
            lines.filter_map(|rest| rest.strip_prefix('=')).map(str::to_owned).collect()
        };
        assert!(values("Environment").is_empty(), "the stand-in sets no environment: {text}");
        assert_eq!(values("Type"), ["notify"], "the stand-in waits until it is told: {text}");
        let exec: [String; 1] = values("ExecStart").try_into().expect("one ExecStart");
        let requires = values("Requires").join(" ");
        let service = |unit: &str| unit.strip_suffix(".service").expect("a service").to_owned();
        Unit {
            // systemd.service(5): `$$` is a dollar; quotes are as in a shell.
            exec: exec[0].replace("$$", "$"),
            requires: requires.split_whitespace().map(service).collect(),
        }
    }
}

impl Units {
    /// Runs `systemctl` with `args` on `host`, whose root folder is seen at `root`; what it shows.
    pub fn systemctl(&mut self, host: &Host, root: &Path, args: &[&str]) -> String {
        match args {
            ["daemon-reload"] => {}
            ["enable", "--now", unit] => self.start(host, root, unit),
            ["status", unit] => return self.running(host, unit).status.clone(),
            ["restart", unit] => {
                let running = self.running(host, unit);
                running.process.signal(Signal::TERM).unwrap();
                running.process.wait(SERVICE_MAX).unwrap();
                self.running.remove(&key(host, unit));
                self.start(host, root, unit);
            }
            ["reload", SSH] => self.running(host, SSH).process.signal(Signal::HUP).unwrap(),
            other => panic!("the stand-in for systemd does not know {other:?}"),
        }
        String::new()
    }

    /// Debian's sshd, with host keys of the machine's own.
    pub fn start_ssh(&mut self, host: &Host) {
        sh(host, "rm -f /etc/ssh/ssh_host_*; ssh-keygen -A; mkdir -p /run/sshd");
        let process = sshd(host).unwrap();
        self.running.insert(key(host, SSH), Running { process, status: String::new() });
    }

    fn running(&mut self, host: &Host, unit: &str) -> &mut Running {
        let found = self.running.get_mut(&key(host, unit));
        found.unwrap_or_else(|| panic!("{unit} does not run on {}", host.name()))
    }

    fn start(&mut self, host: &Host, root: &Path, name: &str) {
        if self.running.contains_key(&key(host, name)) {
            return;
        }
        let file = host.read_file(format!("/etc/systemd/system/{name}.service")).unwrap();
        let unit = Unit::parse(&String::from_utf8(file).unwrap());
        for other in &unit.requires {
            self.start(host, root, other);
        }
        let at = format!("/run/{name}.notify");
        let told = listen(&root.join(at.trim_start_matches('/')));
        let exec = unit.exec.replace(SLICE, "/");
        let cmd = Cmd::shell(format!("exec {exec}")).env("NOTIFY_SOCKET", at);
        let cmd = cmd.stdio(Stdio::LogAs(name.parse().unwrap()));
        let cmd = cmd.own_cgroup(format!("{name}.service").parse().unwrap());
        let process = host.spawn(&cmd).unwrap();
        let status = ready(&told, name);
        self.running.insert(key(host, name), Running { process, status });
    }
}

fn key(host: &Host, unit: &str) -> (String, String) {
    (host.name().to_string(), unit.to_owned())
}

/// Reads what a service tells at `path`, for as long as the test lasts: systemd-notify(1) waits
/// until it was read.
fn listen(path: &Path) -> Receiver<String> {
    if path.exists() {
        std::fs::remove_file(path).unwrap();
    }
    let socket = UnixDatagram::bind(path).unwrap();
    let (to, told) = channel();
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(n) = socket.recv(&mut bytes) {
            // Once it is ready, nobody listens any more.
            to.send(String::from_utf8_lossy(&bytes[..n]).into_owned()).ok();
        }
    });
    told
}

/// Waits until a service is ready; its status.
fn ready(told: &Receiver<String>, name: &str) -> String {
    loop {
        let all = told.recv_timeout(SERVICE_MAX);
        let all = all.unwrap_or_else(|e| panic!("{name} is not ready: {e}"));
        if all.lines().any(|line| line == "READY=1") {
            let status = all.lines().find_map(|line| line.strip_prefix("STATUS="));
            return status.unwrap_or_default().to_owned();
        }
    }
}
