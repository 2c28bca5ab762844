//! A machine's SSH host certificate is renewed while its sshd runs; a core has one too.

use xos_testbed::grid::{Site, SiteSpec, sshd};
use xos_testbed::{Cmd, Host};

use crate::faults::kill_all;
use crate::signed_in::account;
use crate::tool::skipped;
use crate::world::{World, sh, soon};

/// Debian's way to send a service a signal by the file with its number; without one all is well.
const RELOAD: &str = r#"
reload_sshd = ["/usr/sbin/start-stop-daemon", "--stop", "--oknodo", "--quiet", "--signal", "HUP",
    "--pidfile", "/run/sshd.pid", "--exec", "/usr/sbin/sshd"]
"#;
/// What sshd reads.
const CERTIFICATE: &str = "/var/lib/xos/node/ssh/ssh_host_ed25519_key-cert.pub";
/// What a core's sshd reads.
const CORE_CERTIFICATE: &str = "/var/lib/xos/ssh/ssh_host_ed25519_key-cert.pub";
/// What sshd writes when it is told to read its files again.
const TOLD: &str = "Received SIGHUP; restarting";

/// If it failed, a machine would show the certificate that sshd read at its start until that has
/// expired, and then nobody would know it; or a renewal would cost people their sessions.
#[test]
fn a_running_sshd_shows_the_renewed_certificate() {
    if !Site::can_be_signed_in_to() {
        return skipped("needs sshd and pam-auth-update: Debian's openssh-server, libpam-runtime");
    }
    let rennes = SiteSpec {
        login: true,
        login_config: RELOAD.to_owned(),
        nodes: 1,
        ..SiteSpec::new("rennes")
    };
    let pisa = SiteSpec { nodes: 1, ..SiteSpec::new("pisa") };
    let Some(w) = World::with(&rennes, &pisa) else { return };
    let node = &w.rennes.nodes[0];
    let first = written(node);
    assert_eq!(shown(&w).as_deref(), Some(first.as_str()));
    let sshd = sh(node, "cat /run/sshd.pid");
    let told = times_told(&w);
    let uid = sh(node, &format!("id -u {}", account(&w.milo)));
    let config = format!("/home/{}/.xos/ssh/config", w.milo.name);
    let stay = ["-F", &config, "-o", "BatchMode=yes", "n1.rennes", "exec sleep 600"];
    let _session = w.laptop().spawn(&w.milo.command("ssh").args(stay)).unwrap();
    let works = || node.run(&Cmd::new("pgrep").args(["-u", &uid, "-x", "sleep"])).unwrap();
    soon("the session works", || works().exit.is_success().then_some(()));

    // A daemon that is started anew has the keys certified anew.
    sh(node, "pkill -KILL -x xosd");
    w.rennes.start_node(node).unwrap();
    let second =
        soon("there is another certificate", || Some(written(node)).filter(|s| *s != first));
    soon("sshd is told", || (times_told(&w) > told).then_some(()));
    soon("sshd shows it", || (shown(&w)? == second).then_some(()));
    assert_eq!(sh(node, "cat /run/sshd.pid"), sshd, "sshd was ended and started");
    assert!(works().exit.is_success(), "a session was lost");
    nobody_is_asked_about_the_core(&w);
}

/// If it failed, administrators would say yes to whoever stands between them and their core, or a
/// site could vouch for the core of another.
fn nobody_is_asked_about_the_core(w: &World) {
    let core = &w.rennes.core;
    let script = format!(
        "set -e\n\
         rm -f /etc/ssh/ssh_host_*\n\
         ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key\n\
         mkdir -p /run/sshd /etc/ssh/sshd_config.d\n\
         echo 'HostCertificate {CORE_CERTIFICATE}' > /etc/ssh/sshd_config.d/xos.conf\n\
         cat >> /etc/xos/xosd.toml <<'END'\n\n[ssh_host]\n{RELOAD}END\n"
    );
    sh(core, &script);
    kill_all(core, "xosd", Some("run"));
    w.rennes.start_core().unwrap();
    let there = || core.run(&Cmd::new("test").args(["-s", CORE_CERTIFICATE])).unwrap();
    soon("the core has a certificate", || there().exit.is_success().then_some(()));
    sshd(core).unwrap();
    let comes = |more: &[&str]| w.ssh(&w.milo, more, "root@rennes-core", "true");
    // Whom it asks for a key has taken the machine's.
    let said = comes(&["-v"]).refused(255, &["Permission denied", "Server host certificate: "]);
    assert!(!said.contains("Host key verification failed"), "{said}");
    comes(&["-o", "HostKeyAlias=pisa-core"]).refused(255, &["Host key verification failed"]);
}

/// The serial number of the certificate that sshd is to show.
fn written(node: &Host) -> String {
    let text = sh(node, &format!("ssh-keygen -L -f {CERTIFICATE}"));
    let line = text.lines().find_map(|l| l.trim().strip_prefix("Serial: "));
    line.unwrap_or_else(|| panic!("no serial number: {text}")).to_owned()
}

/// That of the one by which stock ssh gets in; `None` when it does not just then.
fn shown(w: &World) -> Option<String> {
    let said = w.ssh(&w.milo, &["-v"], "n1.rennes", "true");
    let line = said.err.lines().find(|l| l.contains("Server host certificate: "))?;
    let (_, rest) = line.split_once(", serial ")?;
    let serial = rest.split_whitespace().next()?.to_owned();
    (said.code == 0).then_some(serial)
}

/// How often sshd was told, by its log.
fn times_told(w: &World) -> usize {
    let log = w.grid.testbed().dir().join("logs/rennes-n1/sshd.log");
    std::fs::read_to_string(&log).unwrap().matches(TOLD).count()
}
