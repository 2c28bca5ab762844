//! `xosd` as an init system and an administrator meet it.

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Output};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::credentials::ssh_keygen;
use crate::keys::until;
use crate::world::{Core, xosd};

/// How long a state may take to be told.
pub const TOLD_MAX: Duration = Duration::from_secs(60);

/// The states that `xosd` tells by sd_notify(3), until one of them is `last`.
pub fn told(socket: &UnixDatagram, last: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut bytes = [0; 4096];
    while !all.iter().any(|state| state == last) {
        let n = socket.recv(&mut bytes).unwrap_or_else(|e| panic!("{last} was not told: {e}"));
        let text = String::from_utf8(bytes[..n].to_vec()).unwrap();
        all.extend(text.lines().map(str::to_owned));
    }
    all
}

/// If it failed, systemd would start what needs a core before it answers, kill one that ends in
/// order, or count its clean stop as a failure.
#[test]
fn an_init_system_is_told_and_obeyed() {
    let core = Core::set_up();
    let path = core.dir().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(TOLD_MAX)).unwrap();
    for _ in 0..2 {
        let mut run = xosd(core.dir());
        run.args(["run", "--config", "xosd.toml"]).env("NOTIFY_SOCKET", &path);
        let mut child = run.stderr(std::process::Stdio::null()).spawn().unwrap();
        let states = told(&socket, "READY=1");
        assert!(states.iter().any(|s| s.starts_with("STATUS=core of rennes")), "{states:?}");
        // Whoever was told that it is ready reaches it.
        core.person().well(&["site", "add", &core.address, "--yes"]);
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
        told(&socket, "STOPPING=1");
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(0), "a clean stop is no failure: {status}");
    }
}

/// If it failed, a mistyped rule would silently not be in force.
#[test]
fn mistakes_in_the_configuration_are_refused_with_their_place() {
    let core = Core::set_up();
    let good = std::fs::read_to_string(core.dir().join("xosd.toml")).unwrap();
    let cases = [
        (good.replacen("[aem]", "[aem]\nkeep_ended_job = 7", 1), "keep_ended_job"),
        (good.replacen("[aem]", "[eam]", 1), "eam"),
        (good.replacen("[aem]", "[aem]\nkeep_ended_jobs = \"7\"", 1), "keep_ended_jobs"),
        (good.replacen("[aem]", "[aem", 1), "[aem"),
        (format!("{good}\n[ssh_host]\nhost_key = []\n"), "host_key"),
    ];
    for (text, name) in cases {
        let line = 1 + text.lines().position(|line| line.contains(name)).unwrap();
        std::fs::write(core.dir().join("xosd.toml"), &text).unwrap();
        for action in ["check", "run"] {
            let out = xosd(core.dir()).args([action, "--config", "xosd.toml"]).output().unwrap();
            let said = error(&out);
            assert_eq!(out.status.code(), Some(64), "{action} took it: {said}");
            let place = format!("xosd.toml:{line}:");
            assert!(said.contains(&place), "{name}, {place}: {said}");
        }
    }
}

/// If it failed, whoever comes to the core by ssh would be asked whether they know it, or its sshd
/// not be told of the certificate that says so.
#[test]
fn a_core_certifies_the_keys_of_its_own_sshd() {
    let dir = tempfile::tempdir().unwrap();
    let mut core = Core::set_up_in(dir, "rennes", &["--name", "core.rennes.example"]);
    let key = core.dir().join("ssh_host_ed25519_key");
    let mut keygen = Command::new("ssh-keygen");
    let made = keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status().unwrap();
    assert!(made.success(), "these tests need OpenSSH's client: {made}");
    let config = core.dir().join("xosd.toml");
    let good = std::fs::read_to_string(&config).unwrap();
    let told = core.dir().join("told");
    let section = |program: &str| {
        let (key, told) = (key.with_extension("pub"), told.display().to_string());
        let keys = format!("host_keys = [{:?}]", key.display().to_string());
        format!("{good}\n[ssh_host]\n{keys}\nreload_sshd = [{program:?}, {told:?}]\n")
    };
    std::fs::write(&config, section("touch")).unwrap();
    let out = xosd(core.dir()).args(["run", "--config", "xosd.toml"]).output().unwrap();
    assert_eq!(out.status.code(), Some(64), "{}", error(&out));
    assert!(error(&out).contains("[ssh_host] reload_sshd"), "{}", error(&out));

    std::fs::write(&config, section("/usr/bin/touch")).unwrap();
    core.start_with(&[]);
    until("sshd is told", || told.exists());
    let shown = ssh_keygen(&core.dir().join("state/ssh/ssh_host_ed25519_key-cert.pub"));
    for want in ["host certificate", "core.rennes.xos.internal\n", "core.rennes.example\n"] {
        assert!(shown.contains(want), "{want:?}: {shown}");
    }
}

fn error(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}
