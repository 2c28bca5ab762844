//! People sign in to machines: stock ssh, sshd, su and sudo.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ssh_key::private::Ed25519Keypair;
use ssh_key::{LineEnding, PrivateKey};
use xos_testbed::grid::{Site, SiteSpec};
use xos_testbed::{Cmd, Host};

use crate::signed_in::account;
use crate::tool::{Said, skipped};
use crate::world::{COMMAND_MAX, VO, VOLUME, World, sh, soon};

/// Where a core keeps the key that signs people's SSH certificates.
const SSH_PEOPLE: &str = "/var/lib/xos/ca/ssh-people.pem";

/// If it failed, people could not work on machines, or others could in their name: see each step.
#[test]
fn people_sign_in_to_machines_as_themselves() {
    if !Site::can_be_signed_in_to() {
        return skipped("needs sshd and pam-auth-update: Debian's openssh-server, libpam-runtime");
    }
    let site = |name: &str| SiteSpec { login: true, ..SiteSpec::new(name) };
    let Some(w) = World::with(&site("rennes"), &site("pisa")) else { return };
    w.step("stock_ssh_needs_no_account_and_asks_nothing", stock_ssh_needs_no_account);
    w.step("the_tools_ssh_and_scp_work_without_a_configuration", the_tools_ssh_and_scp);
    w.step("the_volume_is_theirs_in_the_session", the_volume_is_theirs_in_the_session);
    w.step("nobody_else_gets_in", nobody_else_gets_in);
    w.step("su_and_sudo_ask_where_the_member_stands", su_and_sudo_ask);
    w.step("without_xosd_only_who_was_seen_gets_in", without_xosd_only_who_was_seen);
    w.step("a_suspended_member_is_held_and_a_removed_one_gone", suspended_and_removed);
}

/// The key by which a site signs people's SSH certificates, as OpenSSH reads it.
pub fn ssh_people(core: &Host) -> String {
    let file = String::from_utf8(core.read_file(SSH_PEOPLE).unwrap()).unwrap();
    // Before the key stands a line with its dates.
    let text: String = file.lines().filter(|l| !l.starts_with(['-', '{'])).collect();
    let der = STANDARD.decode(text).unwrap();
    // An OCTET STRING of 34 bytes that holds one of 32: the seed (RFC 8410).
    let at = der.windows(4).position(|w| w == [4, 34, 4, 32]).expect("an Ed25519 key") + 4;
    let seed = der[at..at + 32].try_into().unwrap();
    let key = PrivateKey::from(Ed25519Keypair::from_seed(&seed));
    key.to_openssh(LineEnding::LF).unwrap().to_string()
}

/// If it failed, an administrator would have to make accounts, or people would be asked whether
/// they know the machine, and learn to say yes.
fn stock_ssh_needs_no_account(w: &World) {
    for person in [&w.milo, &w.petra] {
        for node in ["n1.rennes", "n2.pisa"] {
            let out = w.ssh(person, &[], node, "id -un; pwd; stat -c %U:%a .; echo $XOS_VO").ok();
            let account = account(person);
            let home = format!("/home/xos/{account}");
            let want = [account.as_str(), &home, &format!("{account}:700"), VO];
            assert_eq!(out.lines().collect::<Vec<_>>(), want, "{node}");
        }
    }
    let status = w.ssh(&w.milo, &[], "n1.pisa", "exit 7");
    assert_eq!(status.code, 7, "{}", status.err);
    let direct = w.ssh_direct(&w.milo, "pisa-n1", "n1.pisa", "id -un");
    assert_eq!(direct.ok().trim(), account(&w.milo));
}

/// If it failed, who keeps their own ssh configuration could not use the grid, or nobody whose
/// membership changed since they got their certificate.
fn the_tools_ssh_and_scp(w: &World) {
    let out = w.run(&w.milo, "xos", &["ssh", "n1.pisa", "--", "id", "-un"]).ok();
    assert_eq!(out.trim(), account(&w.milo));
    // What narrows a membership asks nothing of its member.
    for what in ["grant", "withdraw"] {
        w.xos(&w.vera, &["vo", "role", what, VO, &w.milo.id(), "admin"]).ok();
    }
    let out = w.xos(&w.milo, &["ssh", "n1.rennes", "--", "id", "-un"]).ok();
    assert_eq!(out.trim(), account(&w.milo));
    let file = w.write(&w.milo, "letter", "irreplaceable\n");
    w.run(&w.milo, "xos", &["scp", &file, "n1.pisa:letter"]).ok();
    let back = format!("{file}.back");
    w.run(&w.milo, "xos", &["scp", "n1.pisa:letter", &back]).ok();
    assert_eq!(w.laptop().read_file(&back).unwrap(), b"irreplaceable\n");
}

/// If it failed, what people see on the volume by job they would not see by ssh.
fn the_volume_is_theirs_in_the_session(w: &World) {
    let write = format!("echo mine > {VOLUME}/by-ssh && cat ~/vo/by-ssh && stat -c %U ~/vo/by-ssh");
    let out = w.ssh(&w.milo, &[], "n1.rennes", &write).ok();
    assert_eq!(out.lines().collect::<Vec<_>>(), ["mine", &account(&w.milo)]);
    let read = w.ssh(&w.petra, &[], "n1.pisa", &format!("cat {VOLUME}/by-ssh")).ok();
    assert_eq!(read.trim(), "mine");
}

/// If it failed, a member, a site or a stranger could act as another person.
fn nobody_else_gets_in(w: &World) {
    let milo = account(&w.milo);
    let refused = |said: Said| {
        assert_eq!(said.code, 255, "somebody got in: {}{}", said.out, said.err);
        assert!(!said.out.contains("uid="), "{}", said.out);
    };
    // Petra as Milo, and as root.
    refused(w.ssh(&w.petra, &["-l", &milo], "n1.rennes", "id"));
    refused(w.ssh_direct(&w.petra, "rennes-n1", &format!("{milo}@n1.rennes"), "id"));
    refused(w.ssh_direct(&w.petra, "rennes-n1", "root@n1.rennes", "id"));
    // Pisa, which serves the VO but is not its home, signs for Milo.
    let forge = |principal: &str| {
        format!(
            "set -e; cd $(mktemp -d); cp /root/ca .; ssh-keygen -q -t ed25519 -N '' -f key; \
             ssh-keygen -q -s ca -I milo -n {principal} -V +1h key.pub; echo signed; \
             ssh -i key -o CertificateFile=key-cert.pub -o IdentitiesOnly=yes -o BatchMode=yes \
             -o StrictHostKeyChecking=no {milo}@rennes-n1 id"
        )
    };
    w.pisa.core.write_file("/root/ca", ssh_people(&w.pisa.core).as_bytes(), 0o600).unwrap();
    for principal in [format!("{}/{VO}", w.milo.id()), milo.clone()] {
        let cmd = Cmd::shell(forge(&principal)).limit(COMMAND_MAX);
        let said = Said::of(&w.pisa.core, &cmd, "a forged certificate");
        assert!(said.out.contains("signed"), "nothing was forged: {}", said.err);
        refused(said);
    }
}

/// If it failed, a local service could run somebody's programs after they were shut out, or
/// administrators could not become a person to help them.
fn su_and_sudo_ask(w: &World) {
    let node = w.node("rennes-n2");
    let milo = account(&w.milo);
    assert_eq!(sh(node, &format!("su {milo} -c 'id -un'")), milo);
    assert_eq!(sh(node, &format!("sudo -n -u {milo} id -un")), milo);
}

/// If it failed, a crash of xosd would lock people out of a machine that they work on, or let in
/// people whom nobody has looked at.
fn without_xosd_only_who_was_seen(w: &World) {
    let node = w.node("pisa-n2");
    w.ssh_direct(&w.milo, "pisa-n2", "n2.pisa", "true").ok();
    sh(node, "pkill -KILL -x xosd");
    assert_eq!(w.ssh_direct(&w.milo, "pisa-n2", "n2.pisa", "id -un").ok().trim(), account(&w.milo));
    let vera = w.ssh_direct(&w.vera, "pisa-n2", "n2.pisa", "id");
    assert_eq!(vera.code, 255, "who was never seen got in: {}", vera.out);
    w.pisa.start_node(node).unwrap();
    w.pisa.wait_for_nodes().unwrap();
    soon("vera gets in", || {
        (w.ssh_direct(&w.vera, "pisa-n2", "n2.pisa", "true").code == 0).then_some(())
    });
}

/// If it failed, a stolen laptop or a person who left would keep their shells.
fn suspended_and_removed(w: &World) {
    let petra = account(&w.petra);
    let node = w.node("rennes-n1");
    let uid = sh(node, &format!("id -u {petra}"));
    let config = "/home/petra/.xos/ssh/config";
    let shell = w.petra.command("ssh").args([
        "-F",
        config,
        "-o",
        "BatchMode=yes",
        "n1.rennes",
        "setsid sh -c 'while :; do date +%s%N > beat; sleep 0.05; done' & while :; do sleep 1; done",
    ]);
    let _shell = w.laptop().spawn(&shell).unwrap();
    let beat = format!("/home/xos/{petra}/beat");
    soon("the session works", || {
        let there = node.run(&Cmd::new("test").args(["-s", &beat])).unwrap();
        there.exit.is_success().then_some(())
    });
    // As cron would: not by PAM, so that nobody told xosd of it.
    let stray = format!("/home/xos/{petra}/stray");
    let work = format!("while :; do date +%s%N > {stray}; sleep 0.05; done");
    let start = format!("setsid setpriv --reuid={uid} --clear-groups sh -c '{work}'");
    sh(node, &format!("{start} < /dev/null > /dev/null 2>&1 &"));
    soon("what is outside of sessions works", || {
        let there = node.run(&Cmd::new("test").args(["-s", &stray])).unwrap();
        there.exit.is_success().then_some(())
    });
    w.xos(&w.vera, &["vo", "suspend", VO, &w.petra.id(), "-m", "laptop stolen"]).ok();
    for (what, file) in [("the session is held", &beat), ("the rest is held", &stray)] {
        soon(what, || {
            let now = sh(node, &format!("cat {file}"));
            let later = sh(node, &format!("sleep 0.3; cat {file}"));
            (now == later).then_some(())
        });
    }
    assert_eq!(w.ssh(&w.petra, &[], "n1.rennes", "true").code, 255, "a suspended member got in");
    let ssh = || w.xos(&w.petra, &["ssh", "n1.rennes", "--", "true"]);
    ssh().refused(77, &["suspended", "laptop stolen", "ask"]);
    let su = node.run(&Cmd::shell(format!("su {petra} -c true"))).unwrap();
    assert!(!su.exit.is_success(), "su let a suspended member work");
    w.xos(&w.vera, &["vo", "resume", VO, &w.petra.id()]).ok();
    ssh().refused(78, &["changed", "sign in again"]);
    w.sign_in(&w.petra);
    soon("petra is let in again", || (ssh().code == 0).then_some(()));
    w.xos(&w.vera, &["vo", "remove", VO, &w.petra.id()]).ok();
    soon("nothing of the person runs", || {
        let left = node.run(&Cmd::shell(format!("! pgrep -u {uid}"))).unwrap();
        left.exit.is_success().then_some(())
    });
}
