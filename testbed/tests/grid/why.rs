//! Why somebody cannot sign in, or use a file: the reason that is told is the one that is met.

use xos_testbed::grid::{Person, Site, SiteSpec};

use crate::signed_in::account;
use crate::tool::{Json, Said, skipped};
use crate::world::{VO, VOLUME, World, programs, sh, soon};

/// If it failed, people would be sent to the wrong administrator, or told that all is well while
/// they are kept out: see each step.
#[test]
fn the_reason_that_is_told_is_the_one_that_is_met() {
    if !Site::can_be_signed_in_to() {
        return skipped("needs sshd and pam-auth-update: Debian's openssh-server, libpam-runtime");
    }
    let site = |name: &str| SiteSpec { login: true, ..SiteSpec::new(name) };
    let Some(w) = World::with(&site("rennes"), &site("pisa")) else { return };
    w.step("all_is_well_and_sessions_are_listed", all_is_well);
    w.step("a_rule_of_the_vo", a_rule_of_the_vo);
    w.step("a_rule_of_the_site", a_rule_of_the_site);
    w.step("a_local_user_of_the_same_name", a_local_user_of_the_same_name);
    w.step("mode_bits_and_a_closed_folder", mode_bits_and_a_closed_folder);
    w.step("an_expired_membership", an_expired_membership);
    w.step("a_suspended_member", a_suspended_member);
    w.step("a_withdrawn_share", a_withdrawn_share);
}

/// The first step that failed: where, what, and what is said of it. The exit code says whether
/// there is one.
fn first(said: &Said) -> Option<(String, String, String)> {
    let told: Json = serde_json::from_str(&said.out)
        .unwrap_or_else(|e| panic!("`{}`: {e}: {}{}", said.line, said.out, said.err));
    let failed = told["first_failed"].as_u64();
    assert_eq!(said.code, i32::from(failed.is_some()), "{told}");
    let step = &told["steps"][usize::try_from(failed?).unwrap()];
    let text = |key: &str| step[key].as_str().unwrap().to_owned();
    Some((text("at"), text("what"), text("text")))
}

impl World {
    /// Why `about` cannot sign in to a node, asked by `person`.
    fn why(&self, person: &Person, node: &str, about: &Person) -> Option<(String, String, String)> {
        let id = about.id();
        first(&self.xos(person, &["why", "login", node, "--vo", VO, "--person", &id, "--json"]))
    }

    /// Waits until the member is told this reason, and ssh keeps them out.
    #[track_caller]
    fn kept_out(&self, who: &Person, node: &str, (at, what, word): (&str, &str, &str)) {
        soon(&format!("{} is told of {what} at {at}", who.name), || {
            let (place, step, text) = self.why(who, node, who)?;
            (place == at && step == what && text.contains(word)).then_some(())
        });
        soon("ssh agrees", || (self.ssh(who, &[], node, "true").code == 255).then_some(()));
    }

    /// Waits until nothing keeps the member out.
    #[track_caller]
    fn let_in(&self, who: &Person, node: &str) {
        soon(&format!("{} comes in", who.name), || {
            let why = self.why(who, node, who);
            let ssh = self.ssh(who, &[], node, "true");
            (why.is_none() && ssh.code == 0).then_some(())
        });
    }
}

/// If it failed, there would be a reason where there is none, or nobody would see who is on a node.
fn all_is_well(w: &World) {
    w.let_in(&w.milo, "n1.rennes");
    w.let_in(&w.milo, "n1.pisa");
    let said = w.xos(&w.milo, &["why", "login", "n1.pisa", "--vo", VO]).ok();
    assert!(said.contains("Nothing stands in the way"), "{said}");
    let config = "/home/petra/.xos/ssh/config";
    let shell = w.petra.command("ssh").args(["-F", config, "-o", "BatchMode=yes"]);
    let _shell = w.laptop().spawn(&shell.args(["n1.pisa", "sleep 300"])).unwrap();
    let seen = |by: &Person| w.json(by, &["vo", "running", VO])["sessions"].clone();
    soon("petra's session is listed", || {
        let sessions = seen(&w.vera);
        let petras = |s: &&Json| s["person"] == "petra@pisa" && s["node"] == "n1.pisa";
        let found = sessions.as_array()?.iter().find(petras)?.clone();
        (found["service"] == "sshd").then_some(())
    });
    let strangers = w.xos(&w.milo, &["why", "login", "n1.pisa", "--person", &w.petra.id()]);
    assert_ne!(strangers.code, 0, "a member is told of another: {}", strangers.out);
    assert!(!strangers.out.contains("member number"), "{}", strangers.out);
}

/// Rules by which everybody may all, but milo not sign in.
fn rules(name: &str) -> String {
    format!(
        "[[rules]]\nname = \"everybody\"\nwho = \"*\"\nwhat = \"*\"\neffect = \"allow\"\n\
         [[rules]]\nname = \"{name}\"\nwho = \"person:milo@rennes\"\nwhat = \"login\"\n\
         effect = \"deny\"\n"
    )
}

/// The same without the latter.
fn everybody() -> String {
    rules("x").split_inclusive("allow\"\n").next().unwrap().to_owned()
}

/// If it failed, it would not be known whose rule keeps a member out.
fn a_rule_of_the_vo(w: &World) {
    let set = |text: &str| {
        let file = w.write(&w.vera, "rules.toml", text);
        w.xos(&w.vera, &["vo", "rules", "set", VO, &file]).ok();
    };
    set(&rules("no-milo"));
    w.kept_out(&w.milo, "n1.rennes", ("site", "rules", "no-milo of demo.rennes"));
    set(&everybody());
    w.let_in(&w.milo, "n1.rennes");
}

/// If it failed, a site's rule would pass for the VO's.
fn a_rule_of_the_site(w: &World) {
    let path = "/home/ada/rules.toml";
    let set = |text: &str| {
        w.pisa.core.write_file(path, text.as_bytes(), 0o600).unwrap();
        w.pisa.admin(&["site", "rules", "set", path]).unwrap();
    };
    set(&rules("not-here"));
    w.kept_out(&w.milo, "n1.pisa", ("site", "rules", "not-here of site pisa"));
    assert_eq!(w.why(&w.milo, "n1.rennes", &w.milo), None, "it is another site's");
    set(&everybody());
    w.let_in(&w.milo, "n1.pisa");
}

/// If it failed, nobody would see why plain ssh fails on one machine alone.
fn a_local_user_of_the_same_name(w: &World) {
    let (node, name) = (w.node("rennes-n1"), account(&w.milo));
    sh(node, "cp /etc/passwd /root/passwd");
    sh(node, &format!("echo '{name}:x:4321:4321::/nonexistent:/bin/sh' >> /etc/passwd"));
    w.kept_out(&w.milo, "n1.rennes", ("node", "name", name.as_str()));
    sh(node, "cat /root/passwd > /etc/passwd");
    w.let_in(&w.milo, "n1.rennes");
}

/// If it failed, the folder or file that is told would not be the one that denies.
fn mode_bits_and_a_closed_folder(w: &World) {
    let dir = format!("{VOLUME}/why");
    let tool = format!("{}/xos", programs().canonicalize().unwrap().display());
    let by = |person: &Person, script: &str| {
        w.xsub(person, &["--on", "rennes", "-m", "256M", "--", "bash", "-c", script])
    };
    let why = |person: &Person| {
        let said = by(person, &format!("{tool} why file {dir}/f --json"));
        let read = by(person, &format!("cat {dir}/f"));
        let reason = first(&said);
        assert_eq!(reason.is_some(), read.code != 0, "{reason:?}, and cat: {}", read.err);
        reason.map(|(at, _, text)| {
            assert_eq!(at, "volume");
            text
        })
    };
    let make = format!("mkdir {dir}; chmod 755 {dir}; echo x > {dir}/f; chmod 600 {dir}/f");
    by(&w.milo, &make).ok();
    assert_eq!(why(&w.milo), None);
    let text = why(&w.petra).unwrap();
    assert!(text.contains("/why/f is milo.") && text.contains("mode 0600"), "{text}");
    by(&w.milo, &format!("chmod 644 {dir}/f")).ok();
    assert_eq!(why(&w.petra), None);
    by(&w.milo, &format!("chmod 700 {dir}")).ok();
    let text = why(&w.petra).unwrap();
    assert!(text.contains("/why is milo.") && text.contains("mode 0700"), "{text}");
    by(&w.milo, &format!("chmod 755 {dir}; {tool} file close {dir}")).ok();
    let text = why(&w.petra).unwrap();
    assert!(text.contains("/why is milo.") && text.contains("closed"), "{text}");
    assert_eq!(why(&w.milo), None, "the owner");
}

/// If it failed, whose time in the VO is over would look for the fault elsewhere.
fn an_expired_membership(w: &World) {
    let nora = w.enrol(&w.rennes, "nora");
    w.admit(&nora);
    w.sign_in(&nora);
    w.let_in(&nora, "n1.rennes");
    w.xos(&w.vera, &["vo", "expiry", VO, &nora.id(), "3s"]).ok();
    w.kept_out(&nora, "n1.rennes", ("home", "membership", "expired"));
}

/// If it failed, a member would not learn that they are suspended, or their administrator not see
/// it.
fn a_suspended_member(w: &World) {
    w.xos(&w.vera, &["vo", "suspend", VO, &w.petra.id(), "-m", "laptop stolen"]).ok();
    w.kept_out(&w.petra, "n1.rennes", ("home", "membership", "laptop stolen"));
    let (at, what, text) = w.why(&w.vera, "n1.rennes", &w.petra).unwrap();
    assert_eq!((at.as_str(), what.as_str()), ("home", "membership"));
    assert!(text.starts_with("petra@pisa is told: "), "{text}");
    w.xos(&w.vera, &["vo", "resume", VO, &w.petra.id()]).ok();
    w.sign_in(&w.petra);
    w.let_in(&w.petra, "n1.rennes");
}

/// If it failed, members would wait for a site that serves their VO no more.
fn a_withdrawn_share(w: &World) {
    w.pisa.admin(&["vo", "share", "withdraw", VO]).unwrap();
    w.kept_out(&w.milo, "n1.pisa", ("site", "share", "share"));
    w.let_in(&w.milo, "n1.rennes");
}
