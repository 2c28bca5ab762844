//! A core whose keys lie in a token: SoftHSM, started with a configuration of the test's.

use crate::keys::{keys, until};
use crate::world::{Core, said, xosd};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const PIN: &str = "654321";

/// A site of which all keys were made in a token.
fn set_up() -> Option<Core> {
    if !Path::new(MODULE).exists() {
        println!("skipped: softhsm2 is not installed");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("tokens")).unwrap();
    let text = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
        at("tokens").display()
    );
    fs::write(at("softhsm2.conf"), text).unwrap();
    let made = Command::new("softhsm2-util")
        .args(["--init-token", "--free", "--label", "rennes", "--so-pin", "123456", "--pin", PIN])
        .env("SOFTHSM2_CONF", at("softhsm2.conf"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    write_pin(dir.path(), PIN);
    let named = ["--pkcs11-module", MODULE, "--pkcs11-token", "rennes", "--pkcs11-pin-file", "pin"];
    Some(Core::set_up_in(dir, "rennes", &named))
}

fn write_pin(dir: &Path, pin: &str) {
    fs::write(dir.join("pin"), format!("{pin}\n")).unwrap();
    fs::set_permissions(dir.join("pin"), Permissions::from_mode(0o600)).unwrap();
}

/// Takes the token out of its slot.
fn take_out(core: &Core) {
    fs::rename(core.dir().join("tokens"), core.dir().join("drawer")).unwrap();
    fs::create_dir(core.dir().join("tokens")).unwrap();
}

fn put_back(core: &Core) {
    fs::remove_dir_all(core.dir().join("tokens")).unwrap();
    fs::rename(core.dir().join("drawer"), core.dir().join("tokens")).unwrap();
}

/// Starts a core that is to fail with `status`, and gives what it said.
fn fails(core: &Core, status: i32) -> String {
    let args = ["run", "--config", "xosd.toml"];
    let out = xosd(core.dir()).args(args).output().unwrap();
    said(status, &args, &out)
}

/// If it failed, a site would pay for a token and keep its keys in files, or nobody could sign in
/// by keys in one.
#[test]
fn everything_is_signed_by_keys_that_lie_in_the_token_alone() {
    let Some(mut core) = set_up() else { return };
    core.kill_and_restart();
    let ada = core.signed_in("ada");
    ada.well(&["vo", "found", "demo", "--title", "Demonstration"]);
    let id = ada.json(&["id"]);
    let held = &id["vos"][0];
    for credential in ["until", "ssh", "token"] {
        assert!(!held[credential].is_null(), "no {credential}: {held}");
    }
    let list = keys(core.dir(), &["list"]);
    assert_eq!(list.lines().filter(|l| l.contains(" token ")).count(), 7, "{list}");
    for file in fs::read_dir(core.dir().join("state/ca")).unwrap() {
        let file = file.unwrap();
        let text = fs::read_to_string(file.path()).unwrap();
        // The core's own key is for TLS, and alone in its file.
        let holds = text.contains("PRIVATE KEY");
        assert_eq!(holds, file.file_name() == "core.pem", "{:?}", file.file_name());
    }
    // New keys are made there too, and a restart finds them.
    for args in [&["roll", "people"][..], &["roll", "ssh-people"], &["roll", "jwt", "--now"]] {
        keys(core.dir(), args);
    }
    core.kill_and_restart();
    ada.login("ada");
    let list = keys(core.dir(), &["list"]);
    assert_eq!(list.lines().filter(|l| l.contains(" token ")).count(), 8, "{list}");
}

/// If it failed, a mistyped PIN would lock the token for good, or an administrator would not know
/// what is wrong.
#[test]
fn a_wrong_pin_or_a_missing_token_is_told_at_the_start() {
    let Some(mut core) = set_up() else { return };
    write_pin(core.dir(), "000000");
    let told = fails(&core, 64);
    assert!(told.contains("refuses the PIN") && !told.contains("000000"), "{told}");
    write_pin(core.dir(), PIN);
    fs::set_permissions(core.dir().join("pin"), Permissions::from_mode(0o644)).unwrap();
    assert!(fails(&core, 64).contains("read by others"));
    write_pin(core.dir(), PIN);
    take_out(&core);
    let told = fails(&core, 75);
    assert!(told.contains("rennes") && told.contains("plugged in"), "{told}");
    put_back(&core);
    core.kill_and_restart();
    core.signed_in("ada");
}

/// If it failed, a token that was pulled out would end the core, or need a restart of it.
#[test]
fn a_token_that_goes_away_is_found_again() {
    let Some(mut core) = set_up() else { return };
    core.kill_and_restart();
    let ada = core.signed_in("ada");
    take_out(&core);
    let password = core.dir().join("password");
    let login = ["login", "ada@rennes", "--password-file", password.to_str().unwrap()];
    let told = ada.fails(75, &login);
    assert!(told.contains("token"), "{told}");
    // What needs no signature goes on.
    ada.well(&["person", "list"]);
    put_back(&core);
    until("the token is used again", || ada.xos(&login).output().unwrap().status.success());
}

/// If it failed, a core would start without its keys, or make others in their place.
#[test]
fn keys_in_a_token_that_the_configuration_does_not_name_are_missed() {
    let Some(core) = set_up() else { return };
    let path = core.dir().join("xosd.toml");
    let text = fs::read_to_string(&path).unwrap();
    let (before, after) = text.split_once("[cda.pkcs11]").unwrap();
    let after = &after[after.find("[vom]").unwrap()..];
    fs::write(&path, format!("{before}{after}")).unwrap();
    assert!(fails(&core, 64).contains("[cda.pkcs11]"));
}
