//! Who forges SSH certificates, or asks a node's socket as a user, at stock sshd and a real node.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use xos_base::Membership;
use xos_testbed::Cmd;
use xos_testbed::grid::{Person, Site, SiteSpec};

use crate::login::ssh_people;
use crate::signed_in::account;
use crate::tool::{Said, skipped};
use crate::world::{COMMAND_MAX, VO, World, sh, soon};

/// A VO at home at pisa, which rennes serves too: so its sshd takes certificates of pisa.
const OTHER: &str = "other.pisa";
/// The authorities that a node's sshd takes.
const AUTHORITIES: &str = "/var/lib/xos/node/ssh/people_ca";
/// The one node of these tests.
const NODE: &str = "rennes-n1";
/// Calls at the node's socket, each with the answer, one a line.
const ASK: &str = r#"
import json, socket, struct, sys
for line in sys.stdin:
    s = socket.socket(socket.AF_UNIX)
    s.connect("/run/xos/node.sock")
    call = line.strip().encode()
    s.sendall(struct.pack("<I", len(call)) + call)
    got = b""
    while part := s.recv(65536):
        got += part
    print(got[4:].decode())
"#;
/// Takes all places at the socket that it gets, and goes on taking them.
const HOLD: &str = r#"
import socket, time
held = []
while True:
    try:
        s = socket.socket(socket.AF_UNIX)
        s.connect("/run/xos/node.sock")
        s.setblocking(False)
        held.append(s)
        held = held[-500:]
        time.sleep(0.001)
    except OSError:
        time.sleep(0.01)
    if len(held) == 50:
        print("holding", flush=True)
"#;

/// If it failed, a hostile site, a thief or a user of the machine could be somebody else there: see
/// each step.
#[test]
fn nobody_is_somebody_else_at_a_node() {
    if !Site::can_be_signed_in_to() {
        return skipped("needs sshd and pam-auth-update: Debian's openssh-server, libpam-runtime");
    }
    let rennes = SiteSpec { login: true, nodes: 1, ..SiteSpec::new("rennes") };
    let pisa = SiteSpec { nodes: 1, ..SiteSpec::new("pisa") };
    let Some(w) = World::with(&rennes, &pisa) else { return };
    w.step("rennes_serves_a_vo_of_pisa", rennes_serves_a_vo_of_pisa);
    w.step("a_home_signs_for_its_own_vos_alone", a_home_signs_for_its_own_vos_alone);
    w.step("each_flaw_keeps_a_certificate_out", each_flaw_keeps_a_certificate_out);
    w.step("a_name_is_taken_as_it_is_or_not_at_all", a_name_is_taken_as_it_is);
    w.step("a_user_asks_the_node_for_names_only", a_user_asks_for_names_only);
    w.step("a_user_who_holds_the_socket_keeps_nobody_out", a_user_who_holds_the_socket);
}

/// A certificate that whoever has an authority's key makes, with stock ssh-keygen.
struct Forged<'a> {
    /// The site whose key signs.
    site: &'a Site,
    principals: &'a str,
    /// From when until when, as ssh-keygen takes it.
    life: &'a str,
    options: Vec<String>,
}

impl<'a> Forged<'a> {
    /// What would be a good one for `principals`, were `site` the home.
    fn of(site: &'a Site, principals: &'a str, membership: Option<&Membership>) -> Forged<'a> {
        let options = membership.map(|m| {
            let text = STANDARD.encode(m.to_der().unwrap());
            format!("-O 'extension:membership@xos={text}'")
        });
        Forged { site, principals, life: "+1h", options: options.into_iter().collect() }
    }

    fn with(mut self, option: &str) -> Forged<'a> {
        self.options.push(option.to_owned());
        self
    }

    fn lives(self, life: &'a str) -> Forged<'a> {
        Forged { life, ..self }
    }

    /// Signs in by it as `account`, from pisa's core.
    fn comes_as(&self, w: &World, account: &str) -> Said {
        let host = &w.pisa.core;
        host.write_file("/root/ca", ssh_people(&self.site.core).as_bytes(), 0o600).unwrap();
        let (principals, life, options) = (self.principals, self.life, self.options.join(" "));
        let script = format!(
            "set -e; cd $(mktemp -d); cp /root/ca .; ssh-keygen -q -t ed25519 -N '' -f key; \
             ssh-keygen -q -s ca -I forged {principals} -V {life} {options} key.pub; \
             echo signed; ssh -F none -i key -o CertificateFile=key-cert.pub \
             -o IdentitiesOnly=yes -o BatchMode=yes -o StrictHostKeyChecking=no \
             -o UserKnownHostsFile=/dev/null {account}@{NODE} 'id; echo VO=$XOS_VO'"
        );
        let said = Said::of(host, &Cmd::shell(script).limit(COMMAND_MAX), "a forged certificate");
        assert!(said.out.contains("signed"), "nothing was forged: {}{}", said.out, said.err);
        said
    }

    #[track_caller]
    fn is_refused(&self, w: &World, account: &str, what: &str) {
        let said = self.comes_as(w, account);
        let inside = said.code == 0 || said.out.contains("uid=");
        assert!(!inside, "{what}: somebody got in: {}{}", said.out, said.err);
    }

    #[track_caller]
    fn gets_in(&self, w: &World, account: &str, vo: &str) {
        let said = self.comes_as(w, account).ok();
        assert!(said.contains(&format!("({account})")), "{said}");
        assert!(said.contains(&format!("VO={vo}")), "{said}");
    }
}

fn principal(person: &Person, vo: &str) -> String {
    format!("-n {}/{vo}", person.id())
}

/// Without it, sshd would refuse pisa's certificates itself, and nothing would be shown.
fn rennes_serves_a_vo_of_pisa(w: &World) {
    w.xos(&w.petra, &["vo", "found", "other", "--title", "Other"]).ok();
    let offer = ["vo", "share", "offer", OTHER, "--cpus", "1", "--memory", "1G"];
    w.rennes.admin(&[offer.as_slice(), &["--storage", "1G"]].concat()).unwrap();
    w.xos(&w.petra, &["vo", "share", "accept", OTHER, "rennes"]).ok();
    w.sign_in(&w.petra);
    let node = &w.rennes.nodes[0];
    soon("sshd takes certificates of pisa", || {
        sh(node, &format!("cat {AUTHORITIES}")).contains("people of pisa").then_some(())
    });
    soon("the node knows the account", || {
        let known = node.run(&Cmd::new("id").arg(format!("petra.{OTHER}"))).unwrap();
        known.exit.is_success().then_some(())
    });
    // From OpenSSH 9.8 on sshd hears nobody who failed a few times, whatever they bring then.
    let script = "sshd -T | grep -qi persourcepenalties || exit 0; \
                  echo 'PerSourcePenalties no' > /etc/ssh/sshd_config.d/penalties.conf; \
                  pkill -HUP -x sshd";
    sh(node, script);
    soon("sshd listens", || {
        let keys = sh(node, "ssh-keyscan -t ed25519 127.0.0.1 || true");
        keys.contains("ssh-ed25519").then_some(())
    });
}

/// If it failed, a site could sign in as any member of VOs at home elsewhere, on every machine that
/// serves one of its own.
fn a_home_signs_for_its_own_vos_alone(w: &World) {
    let petra = w.credential(&w.petra, OTHER).membership();
    let own = principal(&w.petra, OTHER);
    // So that what follows fails for its own reason.
    Forged::of(&w.pisa, &own, Some(&petra)).gets_in(w, &format!("petra.{OTHER}"), OTHER);
    let milo = w.credential(&w.milo, VO).membership();
    let (his, name) = (principal(&w.milo, VO), account(&w.milo));
    let of_pisa = |principals: &str, m: Option<&Membership>, what: &str| {
        Forged::of(&w.pisa, principals, m).is_refused(w, &name, what);
    };
    of_pisa(&his, Some(&milo), "pisa signs all that the true one says");
    of_pisa(&his, None, "pisa signs the principal");
    of_pisa(&format!("-n {name}"), Some(&milo), "pisa signs the account's name");
    of_pisa(&format!("{own},{}/{VO}", w.milo.id()), Some(&milo), "pisa signs for both");
    // Petra is a member of both; a home says nothing of her in another's VO either.
    let hers = principal(&w.petra, VO);
    let in_demo = w.credential(&w.petra, VO).membership();
    let forged = Forged::of(&w.pisa, &hers, Some(&in_demo));
    forged.is_refused(w, &account(&w.petra), "pisa signs for its own person in a VO of rennes");
    // The other way round.
    let forged = Forged::of(&w.rennes, &own, Some(&petra));
    forged.is_refused(w, &format!("petra.{OTHER}"), "rennes signs for a member of a VO of pisa");
}

/// If it failed, a certificate would open what it was not made for: another account, another time,
/// or a session with rights that nobody knows.
fn each_flaw_keeps_a_certificate_out(w: &World) {
    let (milo, name) = (w.credential(&w.milo, VO).membership(), account(&w.milo));
    let his = principal(&w.milo, VO);
    let good = || Forged::of(&w.rennes, &his, Some(&milo));
    good().gets_in(w, &name, VO);
    good().lives("-2h:-1h").is_refused(w, &name, "expired");
    good().lives("+1h:+2h").is_refused(w, &name, "not yet valid");
    for option in [
        "critical:quota@example.org=1",
        "critical:membership@xos=1",
        "force-command=id",
        "verify-required",
    ] {
        good().with(&format!("-O {option}")).is_refused(w, &name, option);
    }
    good().is_refused(w, &account(&w.vera), "another's account");
    good().is_refused(w, "root", "root");
    let (root, none) = ("-n root", "");
    Forged::of(&w.rennes, root, Some(&milo)).is_refused(w, "root", "root by name");
    Forged::of(&w.rennes, root, Some(&milo)).is_refused(w, &name, "a foreign principal");
    Forged::of(&w.rennes, none, Some(&milo)).is_refused(w, &name, "nobody's");
    let also = format!("{his},root,{}/{VO}", w.vera.id());
    Forged::of(&w.rennes, &also, Some(&milo)).is_refused(w, &name, "foreign principals beside");
    // A true principal with the attributes of another person, VO, member or time.
    let vera = w.credential(&w.vera, VO).membership();
    let petra = w.credential(&w.petra, OTHER).membership();
    let mut former = milo.clone();
    former.number.0 += 100;
    let mut old = milo.clone();
    old.epoch.0 -= 1;
    for (what, membership) in [
        ("no attributes", None),
        ("attributes of another person", Some(&vera)),
        ("attributes of another VO and signer", Some(&petra)),
        ("attributes of another member", Some(&former)),
        ("attributes of a former epoch", Some(&old)),
    ] {
        Forged::of(&w.rennes, &his, membership).is_refused(w, &name, what);
    }
    let nonsense = Forged::of(&w.rennes, &his, None).with("-O extension:membership@xos=AAAA");
    nonsense.is_refused(w, &name, "attributes that are none");
    // Were sshd tired of all this, the above would show nothing.
    good().gets_in(w, &name, VO);
}

/// If it failed, a name that looks like a person's, or that a file or a command would read
/// otherwise, would lead to their account.
fn a_name_is_taken_as_it_is(w: &World) {
    let (node, name) = (&w.rennes.nodes[0], account(&w.milo));
    let lines = sh(node, &format!("cat {AUTHORITIES}"));
    let line = lines.lines().find(|l| l.contains("people of rennes")).expect("an authority");
    let key = line.split(' ').nth(1).unwrap();
    let found = sh(node, &format!("getent passwd {name}"));
    let uid = found.split(':').nth(2).expect("a uid");
    let asks = |name: &str| {
        let getent = Cmd::new("getent").args(["passwd", name]);
        let principals = Cmd::new("xos-principals").args([name, "c", key, uid]);
        [getent, principals].map(|cmd| Said::of(node, &cmd, &format!("{name:?}")).out)
    };
    let [user, principals] = asks(&name);
    assert!(user.starts_with(&format!("{name}:")), "{user}");
    assert_eq!(principals.trim(), format!("{}/{VO}", w.milo.id()));
    // What sshd looked up when the name was another's.
    for former in ["0", "1000", "2147352575"] {
        let asked = Cmd::new("xos-principals").args([name.as_str(), "c", key, former]);
        assert_eq!(Said::of(node, &asked, "another's uid").out, "", "{former}");
    }
    for strange in [
        format!("{name}\n"),
        format!("\n{name}"),
        format!("{name}\nroot"),
        format!("{name}:x:0:0"),
        format!("../{name}"),
        format!("/{name}"),
        format!("{name}/"),
        format!("{name} "),
        format!("{name}."),
        name.to_uppercase(),
        // Cyrillic, full width, a dotless i; what no terminal shows, or shows from right to left.
        name.replace('o', "\u{43e}"),
        name.replace('m', "\u{ff4d}"),
        name.replace('i', "\u{131}"),
        format!("{name}\u{200b}"),
        format!("\u{202e}{name}"),
        "a".repeat(256),
        format!("{}.{VO}", "a".repeat(256)),
    ] {
        assert_eq!(asks(&strange), ["", ""], "{strange:?}");
    }
}

/// Whether the node has what these tests speak to its socket with.
fn has_python(w: &World) -> bool {
    let there = w.rennes.nodes[0].run(&Cmd::new("python3").arg("--version"));
    let there = there.is_ok_and(|out| out.exit.is_success());
    if !there {
        skipped("needs python3 to speak to the node's socket");
    }
    there
}

/// Stock ssh as a member to the node.
fn ssh(person: &Person, command: &str) -> Cmd {
    let config = format!("/home/{}/.xos/ssh/config", person.name);
    let ssh = person.command("ssh").args(["-F", &config, "-o", "BatchMode=yes", "n1.rennes"]);
    ssh.arg(command).limit(COMMAND_MAX)
}

/// If it failed, a user of the machine could open sessions as others, end theirs, or learn who may
/// sign in.
fn a_user_asks_for_names_only(w: &World) {
    if !has_python(w) {
        return;
    }
    let (node, vera) = (&w.rennes.nodes[0], account(&w.vera));
    node.write_file("/opt/ask.py", ASK.as_bytes(), 0o644).unwrap();
    let calls = [
        format!(r#"{{"call":"may-login","with":{{"user":"{vera}","service":"x"}}}}"#),
        format!(r#"{{"call":"open-login","with":{{"user":"{vera}","service":"x","pid":1}}}}"#),
        r#"{"call":"close-login","with":{"session":"1"}}"#.to_owned(),
        format!(r#"{{"call":"auth-begin","with":{{"user":"{vera}","service":"x","uid":0}}}}"#),
        r#"{"call":"auth-next","with":{"attempt":"1"}}"#.to_owned(),
    ];
    let names = [
        format!(r#"{{"call":"find-user","with":{{"by":{{"name":"{vera}"}}}}}}"#),
        r#"{"call":"find-user","with":{"by":{"name":"vera.unserved.rennes"}}}"#.to_owned(),
        r#"{"call":"find-user","with":{"by":{"name":"root"}}}"#.to_owned(),
        r#"{"call":"find-user","with":{"by":{"uid":0}}}"#.to_owned(),
    ];
    let input = [calls.as_slice(), &names].concat().join("\n") + "\n";
    let as_milo = ssh(&w.milo, "python3 /opt/ask.py").stdin(input);
    let said = Said::of(&w.laptop(), &as_milo, "a user at the socket").ok();
    let answers: Vec<&str> = said.lines().collect();
    assert_eq!(answers.len(), calls.len() + names.len(), "{said}");
    for (call, answer) in calls.iter().zip(&answers) {
        assert!(answer.contains("only root may ask"), "{call}: {answer}");
    }
    assert!(answers[calls.len()].contains(&format!("\"name\":\"{vera}\"")), "{said}");
    assert!(answers[calls.len() + 1..].iter().all(|a| *a == r#"{"ok":null}"#), "{said}");
    // Root may, or nothing was shown.
    let root = Cmd::new("python3").arg("/opt/ask.py").stdin(format!("{}\n", calls[0]));
    let said = Said::of(node, &root, "root at the socket").ok();
    assert!(said.contains("allowed"), "{said}");
}

/// If it failed, one user could keep all others from signing in to a machine.
fn a_user_who_holds_the_socket(w: &World) {
    if !has_python(w) {
        return;
    }
    let node = &w.rennes.nodes[0];
    node.write_file("/opt/hold.py", HOLD.as_bytes(), 0o644).unwrap();
    let milo = account(&w.milo);
    let hold = ssh(&w.milo, "python3 /opt/hold.py > held 2>&1");
    let _held = w.laptop().spawn(&hold).unwrap();
    soon("the places are held", || {
        let held = node.run(&Cmd::new("test").args(["-s", &format!("/home/xos/{milo}/held")]));
        held.unwrap().exit.is_success().then_some(())
    });
    let in_time = Said::of(&w.laptop(), &ssh(&w.vera, "id -un"), "vera signs in");
    assert_eq!(in_time.ok().trim(), account(&w.vera));
    sh(node, &format!("pkill -KILL -u {milo}"));
}
