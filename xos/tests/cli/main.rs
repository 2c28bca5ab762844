//! The tool `xos` against a real core.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod account;
mod agent;
mod api_docs;
mod credentials;
mod daemon;
mod every;
mod kerberos;
mod keys;
mod machines;
mod pages;
mod renewal;
mod schemathesis;
mod token;
mod world;

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use world::{Core, PASSWORD, said};

/// A first contact that believes anybody would let a stranger in between for good.
#[test]
fn a_site_is_known_only_by_its_fingerprint() {
    let core = Core::start();
    let p = core.person();
    let add = |more: &[&str]| {
        let mut args = vec!["site", "add", core.address.as_str()];
        args.extend(more);
        args.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let run = |status, more: &[&str]| {
        let args = add(more);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        p.fails(status, &args)
    };
    let asked = run(64, &[]);
    let shown = asked.split_whitespace().find(|w| w.starts_with("sha256:")).unwrap();
    let wrong = format!("sha256:{}", "ab".repeat(32));
    assert!(run(78, &["--fingerprint", &wrong]).contains("nothing was kept"));
    run(78, &["--fingerprint", shown, "--site", "pisa"]);
    assert!(!p.folder().join("sites.json").exists(), "a refused site was kept");
    assert_eq!(run(0, &["--fingerprint", shown]), "");
    let sites = p.json(&["site", "list", "--local"]);
    assert_eq!(sites["sites"][0]["fingerprint"], shown);
    assert_eq!(sites["last"], "rennes");
}

/// One that speaks TLS but is no core of ours, or no TLS at all.
#[test]
fn who_is_no_core_is_told_apart() {
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = deaf.local_addr().unwrap().to_string();
    let answers = std::thread::spawn(move || {
        let (mut peer, _) = deaf.accept().unwrap();
        std::io::Write::write_all(&mut peer, b"HTTP/1.0 200 OK\r\n\r\nhello").unwrap();
    });
    let dir = tempfile::tempdir().unwrap();
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_xos"))
        .args(["site", "add", &address, "--yes", "--home"])
        .arg(dir.path().join("xos"))
        .output()
        .unwrap();
    answers.join().unwrap();
    assert!(said(75, &["site", "add"], &out).contains("TLS"));
}

#[test]
fn sign_in_keeps_what_it_needs_and_says_what_is_wrong() {
    let core = Core::start();
    let p = core.person();
    assert!(p.fails(78, &["id"]).contains("xos login"));
    assert!(p.fails(66, &["login", "ada@rennes", "--password-file", "-"]).contains("site add"));
    p.well(&["site", "add", &core.address, "--yes"]);
    let login = ["login", "ada", "--password-file", "-"];
    let out = p.with_input(&login, "not the password\n");
    assert!(said(78, &login, &out).contains("wrong name or password"));
    assert!(!p.folder().join("login.json").exists());
    let out = p.with_input(&login, &format!("{PASSWORD}\n"));
    said(0, &login, &out);
    let text = std::fs::read_to_string(p.folder().join("login.json")).unwrap();
    assert!(!text.contains(PASSWORD), "the password was kept");
    for file in ["login.json", "sites.json"] {
        let mode = std::fs::metadata(p.folder().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    assert_eq!(p.json(&["id"])["person"], "ada@rennes");
    p.well(&["logout"]);
    p.fails(78, &["person", "list"]);
    let e: serde_json::Value =
        serde_json::from_str(&p.fails(78, &["--json", "person", "list"])).unwrap();
    assert_eq!(e["error"]["kind"], "unauthenticated");
}

/// From nobody to a job: the way that every researcher goes.
#[test]
fn from_application_to_job() {
    let core = Core::start();
    let ada = core.signed_in("ada");
    ada.add_person("bob");
    ada.well(&["vo", "found", "demo", "--title", "Demonstration"]);
    ada.well(&["vo", "share", "offer", "demo.rennes", "--cpus", "4", "--memory", "8G"]);
    ada.well(&["vo", "share", "accept", "demo.rennes", "rennes"]);
    let bob = core.signed_in("bob");
    assert!(bob.fails(77, &["job", "submit", "-d", "--", "/bin/true"]).contains("xos vo apply"));
    bob.well(&["vo", "apply", "demo.rennes", "-m", "please"]);
    let table = ada.well(&["vo", "applications", "demo.rennes"]);
    assert!(table.contains("bob@rennes"), "{table}");
    ada.well(&["vo", "group", "create", "demo.rennes", "physics"]);
    ada.well(&["vo", "approve", "demo.rennes", "bob@rennes", "--group", "physics"]);

    // Without signing in again.
    let job = bob.well(&["job", "submit", "-d", "-a", "0-3", "--", "/bin/true"]);
    let job = job.trim();
    let list = bob.json(&["job", "list", "--open"]);
    assert_eq!(list[0]["job"], job);
    assert_eq!(list[0]["counts"]["queued"].as_u64().unwrap(), 4);
    let id = bob.json(&["id"]);
    assert_eq!(id["vos"][0]["groups"], serde_json::json!(["members", "physics"]));
    assert!(bob.well(&["job", "why", job]).contains("no-nodes"));
    assert!(bob.fails(77, &["job", "list", "--everyone"]).contains("rules"));

    // The right that ada gives works at once, though bob's certificate is from before.
    ada.well(&["vo", "role", "grant", "demo.rennes", "bob@rennes", "admin"]);
    bob.well(&["job", "list", "--everyone"]);

    assert!(bob.well(&["job", "cancel", job]).contains("4 units"));
    bob.fails(130, &["job", "wait", job]);
    bob.fails(66, &["job", "show", "999.rennes"]);
    for what in ["show", "why", "cancel", "output"] {
        let unit = format!("{job}:99");
        let said = bob.fails(66, &["job", what, &unit]);
        assert!(said.contains("has no unit 99"), "xos job {what}: {said}");
    }
    let bad = bob.fails(64, &["job", "submit", "-f", "/nonexistent.toml"]);
    assert!(bad.contains("/nonexistent.toml"), "{bad}");

    ada.well(&["vo", "suspend", "demo.rennes", "bob@rennes", "-m", "laptop stolen"]);
    let refused = bob.fails(77, &["job", "submit", "-d", "--", "/bin/true"]);
    assert!(refused.contains("laptop stolen"), "{refused}");
    for words in [&["vo", "show", "demo.rennes"] as &[&str], &["id"]] {
        let said = bob.well(words);
        assert!(said.contains("suspended: laptop stolen"), "xos {words:?} hides it: {said}");
    }
    ada.well(&["vo", "resume", "demo.rennes", "bob@rennes"]);
    ada.well(&["vo", "remove", "demo.rennes", "bob@rennes", "-m", "left"]);
    let code = bob.xos(&["job", "list"]).output().unwrap().status.code();
    assert!(matches!(code, Some(77 | 78)), "a removed member still lists jobs: {code:?}");
}

/// If it failed, what docs/user.md says against faults of the network would show nothing, or put
/// people's proofs into what they paste into a mail for help.
#[test]
fn the_log_shows_what_goes_over_the_network() {
    let core = Core::start();
    let ada = core.signed_in("ada");
    let out = ada.xos(&["vo", "list"]).env("XOS_LOG", "debug").output().unwrap();
    let log = String::from_utf8(out.stderr).unwrap();
    for word in ["asking", "/v1/vos", "connected", "answered"] {
        assert!(log.contains(word), "{word:?} is not logged: {log}");
    }
    let kept = std::fs::read_to_string(ada.folder().join("login.json")).unwrap();
    let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    let token = kept["tokens"][0]["token"]["token"].as_str().unwrap();
    assert!(!log.contains(token), "a token is logged");
}

/// Another person who signs in at the same computer account must not act by what is left there.
#[test]
fn a_new_sign_in_leaves_nothing_of_the_last_person() {
    let core = Core::start();
    let ada = core.signed_in("ada");
    ada.add_person("bob");
    ada.well(&["vo", "found", "demo", "--title", "Demonstration"]);
    assert!(ada.folder().join("vo/demo.rennes/credential.json").exists());
    ada.login("bob");
    assert!(!ada.folder().join("vo/demo.rennes").exists());
    ada.fails(77, &["job", "list"]);
}

/// A restart of the core is no reason to lose sight of a job.
#[test]
fn waiting_survives_a_restart_of_the_core() {
    let mut core = Core::start();
    let ada = core.signed_in("ada");
    ada.well(&["vo", "found", "demo", "--title", "Demonstration"]);
    ada.well(&["vo", "share", "offer", "demo.rennes", "--cpus", "4", "--memory", "8G"]);
    ada.well(&["vo", "share", "accept", "demo.rennes", "rennes"]);
    let job = ada.well(&["job", "submit", "-d", "--", "/bin/true"]);
    let job = job.trim();
    let mut waiting = ada
        .xos(&["job", "wait", job])
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    core.kill_and_restart();
    assert_eq!(ada.json(&["job", "list"])[0]["job"], job, "an acknowledged job was lost");
    ada.well(&["job", "cancel", job]);
    assert_eq!(waiting.wait().unwrap().code(), Some(130));
}
