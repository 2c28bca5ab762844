//! What opens no account of the grid at stock sshd: keys that lie in a home. And what sshd sees of
//! who comes through the core.

use xos_testbed::Cmd;
use xos_testbed::grid::{Person, Site, SiteSpec};

use crate::signed_in::account;
use crate::tool::{Said, skipped};
use crate::world::{COMMAND_MAX, World, sh, soon};

/// Where they come in.
const NODE: &str = "rennes-n1";
/// What sshd ends with that has no session by PAM.
const NO_SESSION: i32 = 254;
/// The reason that is told.
const REASON: &str = "authorized_keys do not count";

/// If it failed, whoever got at a home once, by a stolen certificate or a job, would have a way in
/// that no remedy ends but the membership's end; or one person could keep others out: see each
/// step.
#[test]
fn a_key_in_a_home_opens_no_account() {
    if !Site::can_be_signed_in_to() {
        return skipped("needs sshd and pam-auth-update: Debian's openssh-server, libpam-runtime");
    }
    let site = |name: &str| SiteSpec { login: true, nodes: 1, ..SiteSpec::new(name) };
    let Some(w) = World::with(&site("rennes"), &site("pisa")) else { return };
    w.step("somebody_leaves_a_key_in_a_home", somebody_leaves_a_key);
    w.step("sshd_does_not_look_at_it", sshd_does_not_look_at_it);
    w.step("sshd_asks_kerberos_for_nobody", sshd_asks_kerberos_for_nobody);
    w.step("pam_refuses_it_where_sshd_looks", pam_refuses_it_where_sshd_looks);
    w.step("it_opens_no_shell_and_forwards_nothing", it_opens_nothing_else);
    w.step("a_job_does_not_leave_its_envelope_by_it", a_job_stays_in_its_envelope);
    w.step("an_authority_in_a_home_signs_for_nobody", an_authority_in_a_home);
    w.step("the_certificate_lets_in_as_before", the_certificate_lets_in);
    w.step("people_come_from_addresses_of_their_own", people_come_from_own_addresses);
    w.step("who_asks_for_a_name_does_not_reach_sshd", who_asks_for_a_name);
}

/// What the stock ssh says to Milo, who signs in by his certificate.
fn by_certificate(w: &World, command: &str) -> Said {
    w.ssh(&w.milo, &[], "n1.rennes", command)
}

/// What it says to whoever has the key that was left, straight at the machine.
fn by_key(w: &World, options: &[&str], command: &[&str], typed: &str) -> Said {
    let (key, to) = (format!("/home/{}/own", w.milo.name), format!("{}@{NODE}", account(&w.milo)));
    let mut args = vec!["-F", "none", "-i", key.as_str()];
    for option in [
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "BatchMode=yes",
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
    ] {
        args.extend(["-o", option]);
    }
    args.extend(options);
    args.push(to.as_str());
    args.extend(command);
    let cmd = w.milo.command("ssh").args(&args).stdin(typed).limit(COMMAND_MAX);
    Said::of(&w.laptop(), &cmd, &format!("ssh {}", args.join(" ")))
}

#[track_caller]
fn refused_with_the_reason(said: &Said) {
    assert_eq!(said.code, NO_SESSION, "`{}`: {}{}", said.line, said.out, said.err);
    let both = format!("{}{}", said.out, said.err);
    assert!(both.contains(REASON), "`{}` does not say why: {both}", said.line);
}

fn somebody_leaves_a_key(w: &World) {
    let key = format!("/home/{}/own", w.milo.name);
    w.run(&w.milo, "ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &key]).ok();
    let public = w.laptop().read_file(format!("{key}.pub")).unwrap();
    let public = String::from_utf8(public).unwrap();
    let leave = format!(
        "umask 077; mkdir -p .ssh && echo '{}' > .ssh/authorized_keys && stat -c %a .ssh",
        public.trim()
    );
    assert_eq!(by_certificate(w, &leave).ok().trim(), "700");
}

/// With the configuration of docs/site-admin.md as it is.
fn sshd_does_not_look_at_it(w: &World) {
    by_key(w, &[], &["id"], "").refused(255, &["permission denied (publickey"]);
}

/// Though the administrator has it do so for local accounts: PAM could not tell it from its own
/// question.
fn sshd_asks_kerberos_for_nobody(w: &World) {
    let mine = "/root/with-kerberos";
    let made = format!("sed '1i KerberosAuthentication yes' /etc/ssh/sshd_config > {mine}");
    sh(w.node(NODE), &made);
    for (user, says) in [(account(&w.milo), "no"), ("root".to_owned(), "yes")] {
        let ask = format!("/usr/sbin/sshd -T -f {mine} -C user={user},host=h,addr=192.0.2.1");
        let said = sh(w.node(NODE), &format!("{ask} | grep -i '^kerberosauthentication '"));
        assert_eq!(said.split(' ').nth(1), Some(says), "{user}: {said}");
    }
}

/// Where an administrator's own configuration has sshd look, or the account is in other groups.
fn pam_refuses_it_where_sshd_looks(w: &World) {
    let file = "/etc/ssh/sshd_config.d/xos.conf";
    let script = format!("sed -i '/^Match Group/,$d' {file} && pkill -HUP -x sshd");
    sh(w.node(NODE), &script);
    // sshd starts anew.
    let said = soon("sshd takes the key", || {
        let said = by_key(w, &[], &["id"], "");
        (said.code != 255).then_some(said)
    });
    refused_with_the_reason(&said);
    assert!(!said.out.contains("uid="), "a command was run: {}", said.out);
}

fn it_opens_nothing_else(w: &World) {
    let shell = by_key(w, &["-tt"], &[], "echo in-$((40 + 2))\nexit\n");
    refused_with_the_reason(&shell);
    assert!(!shell.out.contains("in-42"), "a shell: {}", shell.out);
    let sftp = by_key(w, &["-s"], &["sftp"], "");
    assert_eq!(sftp.code, NO_SESSION, "files are served: {}{}", sftp.out, sftp.err);
    // A channel as -L opens them, and -N waits for.
    let there = by_key(w, &["-W", "127.0.0.1:22"], &[], "");
    let forwarded = there.code == 0 || there.out.contains("SSH-2.0");
    assert!(!forwarded, "a port was forwarded: {}{}", there.out, there.err);
    let back = ["-N", "-o", "ExitOnForwardFailure=yes", "-R", "127.0.0.1:7022:127.0.0.1:22"];
    by_key(w, &back, &[], "").refused(255, &["remote port forwarding failed"]);
}

/// Wherever it runs, its home is the account's on that machine.
fn a_job_stays_in_its_envelope(w: &World) {
    let script = "umask 077; cd; mkdir -p .ssh; rm -f k k.pub; \
                  ssh-keygen -q -t ed25519 -N '' -f k && cat k.pub >> .ssh/authorized_keys; \
                  ssh -F none -i k -o IdentitiesOnly=yes -o BatchMode=yes \
                  -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
                  127.0.0.1 'echo in-$((40 + 2))' 2>&1; true";
    let out = w.xsub(&w.milo, &["--", "sh", "-c", script]).ok();
    assert!(!out.contains("in-42"), "a unit got a session outside of its envelope: {out}");
    let refused = out.contains(REASON) || out.contains("Permission denied (publickey");
    assert!(refused, "sshd was not reached: {out}");
}

/// A line `cert-authority` has sshd take a certificate that its owner signed.
fn an_authority_in_a_home(w: &World) {
    let (key, name) = (format!("/home/{}/own", w.milo.name), account(&w.milo));
    let script = "set -e; sed 's/^/cert-authority /' .ssh/authorized_keys > .ssh/new; \
                  mv .ssh/new .ssh/authorized_keys";
    by_certificate(w, script).ok();
    let public = format!("{key}.pub");
    let sign = ["-q", "-s", key.as_str(), "-I", "own", "-n", &name, "-V", "+1h", &public];
    w.run(&w.milo, "ssh-keygen", &sign).ok();
    let said = by_key(w, &[], &["id"], "");
    assert_eq!(said.code, NO_SESSION, "somebody got in: {}{}", said.out, said.err);
    let both = format!("{}{}", said.out, said.err);
    assert!(both.contains("signed by another site"), "{both}");
}

fn the_certificate_lets_in(w: &World) {
    assert_eq!(by_certificate(w, "id -un").ok().trim(), account(&w.milo));
}

/// If it failed, sshd would count failures of one person against all, the machine itself included.
fn people_come_from_own_addresses(w: &World) {
    let from = |person: &Person| {
        let args = ["ssh", "n1.rennes", "--", "echo $SSH_CONNECTION"];
        let said = w.run(person, "xos", &args).ok();
        said.split_whitespace().next().unwrap_or_default().to_owned()
    };
    let (milo, vera) = (from(&w.milo), from(&w.vera));
    assert!(milo.starts_with("127.") && !milo.starts_with("127.0."), "{milo}");
    assert!(vera.starts_with("127.") && vera != milo, "{vera}, {milo}");
    assert_eq!(from(&w.milo), milo);
}

/// If it failed, each `xos ssh` would come to sshd once and say nothing, which sshd holds against
/// the person. Last, since sshd is ended.
fn who_asks_for_a_name(w: &World) {
    let node = w.node(NODE);
    sh(node, "pkill -x sshd");
    soon("sshd is gone", || {
        let gone = node.run(&Cmd::shell("! pgrep -x sshd")).unwrap();
        gone.exit.is_success().then_some(())
    });
    let said = w.run(&w.milo, "xos", &["ssh", "n1.rennes", "--", "true"]);
    // It came to the stock ssh, which then could not connect.
    said.refused(255, &["sshd at 127.0.0.1:22 does not answer"]);
}
