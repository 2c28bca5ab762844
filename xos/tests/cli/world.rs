//! A real core on loopback, and people with a home folder each.

use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

pub const PASSWORD: &str = "correct horse battery";

/// The core of a site, administered by ada.
pub struct Core {
    dir: TempDir,
    /// Absent when it was only set up.
    child: Option<Child>,
    pub address: String,
}

impl Core {
    /// Sets the site `rennes` up and starts its core.
    pub fn start() -> Core {
        Core::start_as("rennes")
    }

    /// The same for another site.
    pub fn start_as(site: &str) -> Core {
        let mut core = Core::set_up_as(site);
        core.start_with(&[]);
        core
    }

    /// Starts a core that was only set up, with these variables in its environment.
    pub fn start_with(&mut self, variables: &[(&str, &Path)]) {
        let mut command = xosd(self.dir.path());
        command.args(["run", "--config", "xosd.toml"]).envs(variables.iter().copied());
        self.child = Some(serve(&mut command, "ready"));
    }

    /// Sets the site `rennes` up.
    pub fn set_up() -> Core {
        Core::set_up_as("rennes")
    }

    fn set_up_as(site: &str) -> Core {
        Core::set_up_in(tempfile::tempdir().unwrap(), site, &[])
    }

    /// The same in a folder of the test's, with more words for `xosd setup`.
    pub fn set_up_in(dir: TempDir, site: &str, more: &[&str]) -> Core {
        // Free a moment ago; whoever takes it meanwhile makes the start fail, loudly.
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let address = free.to_string();
        std::fs::write(dir.path().join("password"), PASSWORD).unwrap();
        let config = dir.path().join("xosd.toml");
        let out = xosd(dir.path())
            .args(["setup", "--site", site, "--admin", "ada", "--address", &address])
            .args(["--password-file", "password", "--state", "state", "--config", "xosd.toml"])
            .args(more)
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text.replace("0.0.0.0:7443", &address)).unwrap();
        Core { dir, child: None, address }
    }

    /// Ends the core as power loss of its process would, and starts it again.
    pub fn kill_and_restart(&mut self) {
        self.kill();
        self.start_with(&[]);
    }

    /// Ends the core.
    pub fn kill(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// A folder for what else a test needs, which goes with the core.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A person with an empty home folder.
    pub fn person(&self) -> Person {
        Person { home: tempfile::tempdir().unwrap(), password: self.dir.path().join("password") }
    }

    /// A person of this site who is signed in.
    pub fn signed_in(&self, name: &str) -> Person {
        let person = self.person();
        person.well(&["site", "add", &self.address, "--yes"]);
        person.login(name);
        person
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The daemon, started in a folder, with the token that lies there, if any.
pub fn xosd(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xosd"));
    command.current_dir(dir).env_remove("XOS_LOG").env("SOFTHSM2_CONF", dir.join("softhsm2.conf"));
    command
}

/// Starts a program that serves, and waits until it says `ready` on standard error.
pub fn serve(command: &mut Command, ready: &str) -> Child {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut log = String::new();
    loop {
        let Some(Ok(line)) = lines.next() else { panic!("{command:?} did not start:\n{log}") };
        if line.contains(ready) {
            break;
        }
        log.push_str(&line);
        log.push('\n');
    }
    // Else it would block once the pipe is full.
    std::thread::spawn(move || lines.for_each(drop));
    child
}

/// A person at a computer.
pub struct Person {
    home: TempDir,
    password: PathBuf,
}

impl Person {
    /// Where keys are kept.
    pub fn folder(&self) -> PathBuf {
        self.home.path().join("xos")
    }

    /// The command `xos` with this person's home, and no terminal.
    pub fn xos(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xos"));
        command.args(args).env("XOS_HOME", self.folder()).stdin(Stdio::null());
        for name in ["XOS_VO", "XOS_LOG", "SSH_AUTH_SOCK"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs a command that is to succeed, and gives what it printed.
    pub fn well(&self, args: &[&str]) -> String {
        let out = self.xos(args).output().unwrap();
        let err = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "xos {}: {}\n{err}", args.join(" "), out.status);
        String::from_utf8(out.stdout).unwrap()
    }

    /// As [`Person::well`], with JSON.
    pub fn json(&self, args: &[&str]) -> Value {
        let mut all = vec!["--json"];
        all.extend(args);
        serde_json::from_str(&self.well(&all)).unwrap()
    }

    /// Runs a command that is to fail with `status`, and gives what it said.
    pub fn fails(&self, status: i32, args: &[&str]) -> String {
        let out = self.xos(args).output().unwrap();
        said(status, args, &out)
    }

    /// Signs in.
    pub fn login(&self, name: &str) -> String {
        let file = self.password.to_str().unwrap();
        self.well(&["login", &format!("{name}@rennes"), "--password-file", file])
    }

    /// Makes `name` known to the site, as its administrator.
    pub fn add_person(&self, name: &str) {
        let file = self.password.to_str().unwrap();
        self.well(&["person", "add", name, "--password-file", file]);
    }

    /// Runs a command with text on standard input.
    pub fn with_input(&self, args: &[&str], input: &str) -> Output {
        let mut command = self.xos(args);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }
}

/// Checks how a command ended, and gives what it said on standard error.
pub fn said(status: i32, args: &[&str], out: &Output) -> String {
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(status), "xos {}: {err}", args.join(" "));
    err
}
