//! `xosd setup` and `xosd join`, when something is in the way.

use crate::world::{Core, PASSWORD, Person, said, xosd};
use std::fs;
use std::path::{Path, PathBuf};

/// A machine that joins: its folder, and how it is told to.
struct Machine<'a> {
    core: &'a Core,
    dir: PathBuf,
}

impl Machine<'_> {
    fn new<'a>(core: &'a Core, name: &str) -> Machine<'a> {
        let dir = core.dir().join(name);
        fs::create_dir(&dir).unwrap();
        Machine { core, dir }
    }

    /// Joins with a token; what it said on standard error.
    fn join(&self, status: i32, token: &str) -> String {
        let args = ["join", token, "--core", &self.core.address];
        let places = ["--state", "state", "--config", "etc/xosd.toml"];
        let out = xosd(&self.dir).args(args).args(places).output().unwrap();
        said(status, &args, &out)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// A token for the node `name`.
fn token(ada: &Person, name: &str) -> String {
    ada.well(&["node", "token", name]).trim().to_owned()
}

/// The key by which the site knows a node.
fn key(ada: &Person, node: &str) -> String {
    let all = ada.json(&["node", "list"]);
    let mut all = all.as_array().unwrap().iter();
    let found = all.find(|m| m["node"] == node).unwrap_or_else(|| panic!("{node} is not there"));
    found["key"].as_str().unwrap().to_owned()
}

/// If it failed, the core would void the keys of a working node for a join that cannot succeed.
#[test]
fn a_join_that_cannot_succeed_asks_for_nothing() {
    let core = Core::start();
    let ada = core.signed_in("ada");
    let n1 = Machine::new(&core, "n1");
    n1.join(0, &token(&ada, "n1"));
    let known = key(&ada, "n1.rennes");

    let again = token(&ada, "n1");
    assert!(n1.join(73, &again).contains("xosd run"));
    fs::rename(n1.path("etc/xosd.toml"), n1.path("moved.toml")).unwrap();
    let why = n1.join(73, &again);
    assert!(why.contains("chain.pem") && why.contains("etc/xosd.toml back"), "{why}");
    assert!(!n1.path("etc/xosd.toml").exists());
    // Whatever the configuration says, it is not written over.
    fs::write(n1.path("etc/xosd.toml"), "# mine").unwrap();
    n1.join(73, &again);
    assert_eq!(fs::read_to_string(n1.path("etc/xosd.toml")).unwrap(), "# mine");

    // As on a disk that does not take the configuration.
    let other = Machine::new(&core, "other");
    fs::create_dir_all(other.path("etc/xosd.toml.new")).unwrap();
    assert!(other.join(70, &again).contains("etc/xosd.toml"));
    assert_eq!(key(&ada, "n1.rennes"), known, "the working node's key was given up");

    // The token was not used up, and to join anew is possible when it is meant.
    fs::remove_file(n1.path("etc/xosd.toml")).unwrap();
    for name in ["key.pem", "chain.pem", "sites.json"] {
        fs::remove_file(n1.path("state/node").join(name)).unwrap();
    }
    n1.join(0, &again);
    assert_ne!(key(&ada, "n1.rennes"), known);
}

/// If it failed, a full disk at the wrong moment would leave a node without a key that counts, and
/// a token that is used up.
#[test]
fn a_join_that_was_cut_short_goes_on_with_the_same_token_and_key() {
    let core = Core::start();
    let ada = core.signed_in("ada");
    let n1 = Machine::new(&core, "n1");
    let one = token(&ada, "n1");
    // What comes after the core's answer fails.
    let obstacle = n1.path("state/node/sites.json");
    fs::create_dir_all(&obstacle).unwrap();
    let why = n1.join(70, &one);
    assert!(why.contains("sites.json") && why.contains("the same token"), "{why}");
    let known = key(&ada, "n1.rennes");
    let pem = fs::read_to_string(n1.path("state/node/key.pem")).unwrap();
    fs::remove_dir(&obstacle).unwrap();
    // And once more, later: the configuration is there and the certificate is not.
    let obstacle = n1.path("state/node/chain.pem.new");
    fs::create_dir(&obstacle).unwrap();
    n1.join(70, &one);
    assert!(n1.path("etc/xosd.toml").exists());
    fs::remove_dir(&obstacle).unwrap();
    n1.join(0, &one);
    assert_eq!(fs::read_to_string(n1.path("state/node/key.pem")).unwrap(), pem);
    assert_eq!(key(&ada, "n1.rennes"), known);
    assert!(n1.join(73, &one).contains("xosd run"));
    let check = xosd(&n1.dir).args(["check", "--config", "etc/xosd.toml"]).output().unwrap();
    said(0, &["check"], &check);
}

/// If it failed, a setup whose last step failed could never be finished: "ada exists already".
#[test]
fn a_setup_can_be_repeated_until_it_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let password = |text: &str| fs::write(dir.path().join("password"), text).unwrap();
    let setup = |status| setup(dir.path(), status);
    password(PASSWORD);
    fs::write(dir.path().join("etc"), "a file").unwrap();
    assert!(setup(70).1.contains("etc/xosd.toml"));
    assert!(
        !dir.path().join("state").exists(),
        "something was made before the place was looked at"
    );
    fs::remove_file(dir.path().join("etc")).unwrap();
    let (first, _) = setup(0);
    assert!(setup(73).1.contains("xosd run"), "a finished setup was repeated");

    // As a crash before the last step leaves it.
    fs::remove_file(dir.path().join("etc/xosd.toml")).unwrap();
    password("quite another password");
    let (second, _) = setup(0);
    let root = |text: &str| text.lines().find(|l| l.contains("sha256:")).unwrap().to_owned();
    assert_eq!(root(&first), root(&second), "the site has another root now");
    assert!(second.contains("ada@rennes, from before, with the password given then"), "{second}");
    assert!(dir.path().join("etc/xosd.toml").exists());
}

/// Sets a site up in a folder; what it said on both outputs.
fn setup(dir: &Path, status: i32) -> (String, String) {
    let args = ["setup", "--site", "rennes", "--admin", "ada", "--address", "core.test:7443"];
    let places = ["--password-file", "password", "--state", "state", "--config", "etc/xosd.toml"];
    let out = xosd(dir).args(args).args(places).output().unwrap();
    (String::from_utf8_lossy(&out.stdout).into_owned(), said(status, &args, &out))
}

/// If it failed, an init system or a script would take a mistyped option for something else than
/// the manual says.
#[test]
fn wrong_arguments_of_the_daemon_are_64() {
    let dir = tempfile::tempdir().unwrap();
    for args in [&["run", "--colour"] as &[&str], &["dance"], &[]] {
        said(64, args, &xosd(dir.path()).args(args).output().unwrap());
    }
    let help = xosd(dir.path()).arg("--help").output().unwrap();
    said(0, &["--help"], &help);
}
