//! What the module brings into the host.

use crate::module::{Linked, built};

/// If it failed, sshd and sudo would get a thread, a runtime or a TLS library by loading the
/// module, or a host could not load it at all.
#[test]
fn the_module_needs_libc_and_libpam_alone() {
    let Some(linked) = Linked::read(&built("libpam_xos.so")) else { return };
    let needed = linked.needs_only(&["libc.so", "libgcc_s.so", "ld-linux", "libpam.so.0"]);
    assert!(needed.iter().any(|line| line.contains("[libpam.so.0]")), "{needed:#?}");
    for phase in
        ["authenticate", "setcred", "acct_mgmt", "open_session", "close_session", "chauthtok"]
    {
        assert!(linked.has(&format!("pam_sm_{phase}"), true), "no entry for {phase}");
    }
    assert!(!linked.has("pthread_create", false), "the module makes threads");
}
