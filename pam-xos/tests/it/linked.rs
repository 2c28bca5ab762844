//! What the module brings into the host.

use crate::machine::built;
use std::process::Command;

/// If it failed, sshd and sudo would get a thread, a runtime or a TLS library by loading the
/// module, or a host could not load it at all.
#[test]
fn the_module_needs_libc_and_libpam_alone() {
    let module = built("libpam_xos.so");
    let Ok(output) = Command::new("readelf").args(["-d", "--"]).arg(&module).output() else {
        println!("skipped: no readelf on this machine");
        return;
    };
    let text = String::from_utf8(output.stdout).unwrap();
    let needed: Vec<&str> = text.lines().filter(|line| line.contains("(NEEDED)")).collect();
    for line in &needed {
        let known = ["libc.so", "libgcc_s.so", "ld-linux", "libpam.so.0"];
        assert!(known.iter().any(|name| line.contains(name)), "{line}");
    }
    assert!(needed.iter().any(|line| line.contains("[libpam.so.0]")), "{needed:#?}");

    let output = Command::new("readelf").args(["-W", "--dyn-syms", "--"]).arg(&module).output();
    let symbols = String::from_utf8(output.unwrap().stdout).unwrap();
    let has = |name: &str, defined: bool| {
        symbols.lines().any(|line| {
            line.contains(" UND ") != defined
                && line.split_whitespace().any(|word| word.split('@').next() == Some(name))
        })
    };
    for phase in
        ["authenticate", "setcred", "acct_mgmt", "open_session", "close_session", "chauthtok"]
    {
        assert!(has(&format!("pam_sm_{phase}"), true), "no entry for {phase}");
    }
    assert!(!has("pthread_create", false), "the module makes threads");
}
