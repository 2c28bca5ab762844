//! What a sign-in leaves behind for XOS, for ssh and for other services.

use crate::world::{Core, Person, said};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// The files of a VO, below the folder of keys.
const FILES: [&str; 5] = ["credential.json", "ssh_key", "ssh_key.pub", "ssh_key-cert.pub", "token"];
const LINE: &str = "Include ~/.xos/ssh/config";

/// A core whose administrator ada has founded the VO demo.rennes.
fn founded() -> (Core, Person) {
    let core = Core::start();
    let ada = core.signed_in("ada");
    ada.well(&["vo", "found", "demo", "--title", "Demonstration"]);
    (core, ada)
}

/// Where something of the VO is kept.
pub fn file(ada: &Person, name: &str) -> PathBuf {
    ada.folder().join("vo/demo.rennes").join(name)
}

/// What ssh-keygen says of a certificate.
pub fn ssh_keygen(certificate: &Path) -> String {
    let out = Command::new("ssh-keygen").arg("-L").arg("-f").arg(certificate).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// If it failed, somebody who signed in could not use ssh, or a token, or would leave some of it
/// behind for whoever uses the computer next.
#[test]
fn one_sign_in_leaves_three_credentials_and_a_sign_out_none() {
    let (_core, ada) = founded();
    for name in FILES {
        let mode = fs::metadata(file(&ada, name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let certificate = ssh_keygen(&file(&ada, "ssh_key-cert.pub"));
    assert!(certificate.contains("ada@rennes/demo.rennes"), "{certificate}");
    let id = ada.json(&["id"]);
    let held = &id["vos"][0];
    let print = held["ssh"]["fingerprint"].as_str().unwrap();
    assert!(certificate.contains(print), "{print} is not of {certificate}");
    let until = |until: &serde_json::Value| until.as_u64().unwrap();
    assert!(until(&held["ssh"]["until"]).abs_diff(until(&held["until"])) <= 1000, "{held}");
    assert_eq!(held["token"]["audience"][0], "https://wlcg.cern.ch/jwt/v1/any");
    assert_eq!(held["narrowed"], false);
    let config = fs::read_to_string(ada.folder().join("ssh/config")).unwrap();
    assert!(
        config.contains("Host *.rennes ") && config.contains("User ada.demo.rennes"),
        "{config}"
    );
    let hosts = fs::read_to_string(ada.folder().join("ssh/known_hosts")).unwrap();
    assert!(hosts.contains("@cert-authority *.rennes,"), "{hosts}");

    ada.well(&["logout"]);
    for gone in ["vo/demo.rennes", "ssh", "login.json"] {
        assert!(!ada.folder().join(gone).exists(), "{gone} stayed");
    }
}

/// If it failed, a renewal would break an ssh that starts at that moment, and a new sign-in go on
/// with a key that somebody may have copied.
#[test]
fn a_sign_in_makes_a_new_ssh_key_and_a_renewal_keeps_it() {
    let (_core, ada) = founded();
    let read = |name: &str| fs::read_to_string(file(&ada, name)).unwrap();
    let key = read("ssh_key");
    fs::remove_file(file(&ada, "ssh_key-cert.pub")).unwrap();
    fs::remove_file(file(&ada, "credential.json")).unwrap();
    ada.well(&["token"]);
    assert_eq!(read("ssh_key"), key);
    ssh_keygen(&file(&ada, "ssh_key-cert.pub"));
    ada.login("ada");
    assert_ne!(read("ssh_key"), key);
}

/// If it failed, a script would be handed an old token, or one for somebody else's ears.
#[test]
fn a_token_is_fresh_and_for_whom_it_was_asked() {
    let (_core, ada) = founded();
    let kept = || fs::read_to_string(file(&ada, "token")).unwrap();
    let first = kept();
    let shown = ada.well(&["token"]);
    assert_eq!(shown, kept());
    assert_ne!(shown, first);
    let other = ada.json(&["token", "--audience", "https://storage.example"]);
    assert_eq!(other["audience"][0], "https://storage.example");
    assert_eq!(kept(), shown, "a token for one service was kept for all");
    assert!(ada.fails(64, &["token", "--audience", ""]).contains("--audience"));
}

/// If it failed, who signs in with less would act with all that they are after the first renewal.
#[test]
fn what_is_narrowed_stays_narrowed() {
    let (core, ada) = founded();
    let login = |more: &[&str]| {
        let password = core.dir().join("password");
        let mut words = vec!["login", "ada@rennes", "--password-file", password.to_str().unwrap()];
        words.extend(more);
        ada.xos(&words).output().unwrap()
    };
    let roles = || ada.json(&["id"])["vos"][0]["roles"].clone();
    ada.well(&["vo", "role", "grant", "demo.rennes", "ada@rennes", "editor"]);
    let out = login(&["--vo", "demo.rennes", "--role", "editor"]);
    said(0, &["login"], &out);
    assert!(String::from_utf8_lossy(&out.stdout).contains("Narrowed"), "{out:?}");
    assert_eq!(roles(), serde_json::json!(["editor"]));
    assert_eq!(ada.json(&["id"])["vos"][0]["narrowed"], true);
    // What asks anew asks for the same.
    ada.well(&["token"]);
    ada.well(&["renew"]);
    assert_eq!(roles(), serde_json::json!(["editor"]));
    said(64, &["login", "--role"], &login(&["--role", "editor"]));
    said(0, &["login"], &login(&[]));
    assert_ne!(roles(), serde_json::json!(["editor"]));
}

/// A person's home folder, with keys where they usually are.
struct House {
    home: TempDir,
}

impl House {
    fn new() -> House {
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), PermissionsExt::from_mode(0o755)).unwrap();
        House { home }
    }

    fn xos(&self, ada: &Person, words: &[&str]) -> Output {
        let mut command = ada.xos(words);
        command.env_remove("XOS_HOME").env("HOME", self.home.path()).output().unwrap()
    }

    fn login(&self, core: &Core, ada: &Person, more: &[&str]) -> Output {
        let password = core.dir().join("password");
        let mut words = vec!["login", "ada@rennes", "--password-file", password.to_str().unwrap()];
        words.extend(more);
        let out = self.xos(ada, &words);
        said(0, &words, &out);
        out
    }

    fn config(&self) -> PathBuf {
        self.home.path().join(".ssh/config")
    }
}

/// If it failed, a sign-in would not make plain ssh work, or change a file that it must leave
/// alone.
#[test]
fn the_persons_ssh_configuration_gets_one_line_and_only_when_it_is_theirs() {
    let (core, ada) = founded();
    let house = House::new();
    said(0, &["site", "add"], &house.xos(&ada, &["site", "add", &core.address, "--yes"]));
    house.login(&core, &ada, &["--no-ssh-config"]);
    assert!(!house.config().exists());
    let out = house.login(&core, &ada, &[]);
    assert!(String::from_utf8_lossy(&out.stdout).contains(LINE), "{out:?}");
    house.login(&core, &ada, &[]);
    let text = fs::read_to_string(house.config()).unwrap();
    assert_eq!(text.matches(LINE).count(), 1, "{text}");
    said(0, &["logout"], &house.xos(&ada, &["logout"]));
    assert!(!house.config().exists());

    let real = house.home.path().join("real");
    fs::write(&real, "Host *\n").unwrap();
    symlink(&real, house.config()).unwrap();
    let out = house.login(&core, &ada, &[]);
    assert!(String::from_utf8_lossy(&out.stderr).contains("symbolic link"), "{out:?}");
    assert_eq!(fs::read_to_string(&real).unwrap(), "Host *\n");
    // Keys elsewhere: the usual places are not touched.
    let other = House::new();
    let password = core.dir().join("password");
    let mut command = ada.xos(&["login", "ada@rennes", "--password-file"]);
    let out = command.arg(&password).env("HOME", other.home.path()).output().unwrap();
    said(0, &["login"], &out);
    assert!(!other.config().exists());
}

/// A real ssh-agent, ended with the test.
pub struct Agent {
    dir: TempDir,
    pid: String,
}

impl Agent {
    pub fn start() -> Agent {
        let dir = tempfile::tempdir().unwrap();
        // It comes back when it listens.
        let out = Command::new("ssh-agent").arg("-a").arg(dir.path().join("agent")).output();
        let text = String::from_utf8(out.unwrap().stdout).unwrap();
        let pid = text.split("SSH_AGENT_PID=").nth(1).unwrap().split(';').next().unwrap();
        Agent { pid: pid.to_owned(), dir }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("agent")
    }

    /// The public keys and certificates that it has, one a line.
    pub fn keys(&self) -> String {
        let mut command = Command::new("ssh-add");
        let out = command.arg("-L").env("SSH_AUTH_SOCK", self.socket()).output().unwrap();
        String::from_utf8(out.stdout).unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let ended = Command::new("kill").arg(&self.pid).status();
        assert!(ended.is_ok_and(|s| s.success()), "the agent did not end");
    }
}

/// If it failed, agent forwarding would not carry a person further, or their key stay in the agent
/// after they have signed out.
#[test]
fn a_running_agent_gets_the_key_and_gives_it_back() {
    let (core, ada) = founded();
    let agent = Agent::start();
    let password = core.dir().join("password");
    let run = |words: &[&str]| {
        let mut command = ada.xos(words);
        let out = command.env("SSH_AUTH_SOCK", agent.socket()).output().unwrap();
        assert_eq!(said(0, words, &out), "", "xos {words:?}");
    };
    run(&["login", "ada@rennes", "--password-file", password.to_str().unwrap()]);
    let keys = agent.keys();
    assert!(keys.contains("ssh-ed25519-cert-v01@openssh.com"), "{keys}");
    run(&["logout"]);
    assert!(!agent.keys().contains("ssh-ed25519"), "{}", agent.keys());

    // An agent that is gone is no reason not to sign in.
    let mut command = ada.xos(&["login", "ada@rennes", "--password-file"]);
    let gone = agent.socket().with_extension("gone");
    let out = command.arg(&password).env("SSH_AUTH_SOCK", gone).output().unwrap();
    assert!(said(0, &["login"], &out).contains("warning: the ssh-agent"));
}

/// If it failed, a person would be left with ssh's "connection closed" instead of what to do.
#[test]
fn what_keeps_ssh_from_a_machine_is_told() {
    let (_core, ada) = founded();
    for command in ["ssh", "ssh-proxy"] {
        assert!(ada.fails(66, &[command, "n1.pisa"]).contains("xos site add"));
        assert!(ada.fails(64, &[command, "n1"]).contains("a node is"));
        // No such machine is connected.
        let why = ada.fails(75, &[command, "n1.rennes"]);
        assert!(why.contains("n1.rennes"), "{why}");
    }
    assert!(ada.fails(64, &["scp", "a", "b"]).contains("NODE:PATH"));
    ada.well(&["logout"]);
    ada.fails(78, &["ssh", "n1.rennes"]);
}

/// If it failed, a service that renews would go on asking after a sign-out, or hide why it ended.
#[test]
fn a_watch_without_anything_to_renew_ends() {
    let core = Core::start();
    let ada = core.signed_in("ada");
    assert!(ada.fails(78, &["renew", "--watch"]).contains("xos login"));
    assert_eq!(ada.json(&["renew"]), serde_json::json!([]));
    assert_eq!(ada.well(&["renew"]), "");
}
