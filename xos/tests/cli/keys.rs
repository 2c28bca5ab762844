//! `xosd keys` beside a core that runs.

use crate::world::{Core, Person, said, xosd};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long something may take that comes by itself: a core looks for new keys every 10 seconds, a
/// watch for what ends every minute.
const COMES_MAX: Duration = Duration::from_secs(180);

/// What `xosd keys` prints.
pub fn keys(dir: &Path, args: &[&str]) -> String {
    let out = xosd(dir).arg("keys").args(args).args(["--config", "xosd.toml"]).output().unwrap();
    said(0, args, &out);
    String::from_utf8(out.stdout).unwrap()
}

/// Waits until it is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < COMES_MAX, "it did not come to this: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// What each key for `purpose` does.
fn states(text: &str, purpose: &str) -> Vec<String> {
    let lines = text.lines().filter(|l| l.split(' ').next() == Some(purpose));
    lines.map(|l| l.rsplit("  ").next().unwrap().trim().to_owned()).collect()
}

fn goes_on(ada: &Person) {
    ada.well(&["person", "list"]);
    ada.well(&["vo", "show", "demo.rennes"]);
}

/// If it failed, replacing keys would need a restart of the core, or people would notice it.
#[test]
fn keys_are_replaced_beside_a_core_that_serves_people() {
    let core = Core::start();
    let ada = core.signed_in("ada");
    ada.well(&["vo", "found", "demo", "--title", "Demonstration"]);
    let list = keys(core.dir(), &["list"]);
    for purpose in ["root", "people", "machines", "signing", "ssh-people", "ssh-machines", "jwt"] {
        assert_eq!(states(&list, purpose), ["signs"], "{list}");
    }
    let core_key = core.dir().join("state/ca/core.pem");
    let before = std::fs::read(&core_key).unwrap();
    for purpose in ["signing", "ssh-people", "ssh-machines", "jwt", "people", "machines"] {
        keys(core.dir(), &["roll", purpose]);
        goes_on(&ada);
    }
    until("the core has a certificate by the new authority", || {
        goes_on(&ada);
        std::fs::read(&core_key).unwrap() != before
    });
    goes_on(&ada);
    ada.login("ada");
    goes_on(&ada);
    let list = keys(core.dir(), &["list"]);
    for purpose in ["signing", "ssh-people", "ssh-machines", "jwt"] {
        let found = states(&list, purpose);
        let [new, old] = &found[..] else { panic!("{list}") };
        assert!(new.starts_with("known; signs from 2") && old == "signs", "{list}");
    }
    let again = ["keys", "roll", "signing", "--config", "xosd.toml"];
    let out = xosd(core.dir()).args(again).output().unwrap();
    assert!(said(73, &again, &out).contains("--now"));
}

/// If it failed, who holds a stolen key could go on, or the administrator would not be told whom
/// that shuts out.
#[test]
fn a_stolen_key_is_dropped_at_once() {
    let core = Core::start();
    let ada = core.signed_in("ada");
    let told = keys(core.dir(), &["roll", "signing", "--now"]);
    assert!(told.contains("xos login") && told.contains("gone; counts for VO logs"), "{told}");
    until("her token is refused", || {
        let out = ada.xos(&["person", "list"]).output().unwrap();
        out.status.code() == Some(78)
    });
    ada.login("ada");
    ada.well(&["person", "list"]);
}
