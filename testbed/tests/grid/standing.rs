//! What a membership is worth now: narrowed, suspended, or kept out by a site's own rule.

use std::time::Duration;

use crate::flow::processes;
use crate::tool::{state, units};
use crate::wire::{Proof, ask};
use crate::world::{VO, VOLUME, World, sh, soon};

/// If it failed, people would keep what was taken from them: see each step.
#[test]
fn rights_that_are_taken_end_at_once() {
    let Some(w) = World::new() else { return };
    w.step("a_withdrawn_role_voids_older_certificates", a_withdrawn_role_voids_older_certificates);
    w.step("a_sites_own_rule_wins", a_sites_own_rule_wins);
    w.step("a_suspended_member_gets_nothing", a_suspended_member_gets_nothing);
    w.step("a_suspended_vo_stands_still", a_suspended_vo_stands_still);
    w.serves();
    w.step("a_removed_member_is_gone", a_removed_member_is_gone);
    w.xsub(&w.milo, &["--on", "pisa", "--", "true"]).ok();
}

/// If it failed, who was an administrator once could act as one with an old certificate.
fn a_withdrawn_role_voids_older_certificates(w: &World) {
    let role = |action: &str| w.xos(&w.vera, &["vo", "role", action, VO, &w.milo.id(), "admin"]);
    let early = w.credential(&w.milo, VO);
    w.xos(&w.milo, &["vo", "applications", VO]).refused(77, &["admin"]);
    role("grant").ok();
    // Widening does not void, and what is new counts after signing in.
    assert_eq!(w.cert(&early.pem(), "rennes"), 200);
    w.sign_in(&w.milo);
    w.xos(&w.milo, &["vo", "applications", VO]).ok();
    let powerful = w.credential(&w.milo, VO);
    assert!(powerful.membership().has_role("admin"));
    role("withdraw").ok();
    for site in ["rennes", "pisa"] {
        soon("the withdrawal is known", || (w.cert(&powerful.pem(), site) == 401).then_some(()));
    }
    let said = ask(&w.laptop(), "rennes", Proof::Certificate(&powerful.pem()), "GET /v1/me", b"");
    said.refused(401, &["changed", "sign in again"]);
    w.sign_in(&w.milo);
    w.xsub(&w.milo, &["--on", "pisa", "--", "true"]).ok();
    w.xos(&w.milo, &["vo", "applications", VO]).refused(77, &["admin"]);
}

impl World {
    /// The status with which a site answers the holder of a key and chain.
    fn cert(&self, pem: &str, site: &str) -> u16 {
        ask(&self.laptop(), site, Proof::Certificate(pem), "GET /v1/me", b"").status
    }
}

/// If it failed, a site could not keep somebody off its machines, or nobody would learn why.
fn a_sites_own_rule_wins(w: &World) {
    let nora = w.enrol(&w.rennes, "nora");
    w.admit(&nora);
    w.sign_in(&nora);
    let rules = "[[rules]]\nname = \"everybody\"\nwho = \"*\"\nwhat = \"*\"\neffect = \"allow\"\n\
                 [[rules]]\nname = \"no-nora\"\nwho = \"person:nora@rennes\"\nwhat = \"run\"\n\
                 effect = \"deny\"\nnote = \"she asked for it\"\n";
    let path = "/home/ada/rules.toml";
    w.pisa.core.write_file(path, rules.as_bytes(), 0o600).unwrap();
    w.pisa.admin(&["site", "rules", "set", path]).unwrap();
    let id = nora.id();
    let test = ["site", "rules", "test", VO, "--what", "run", "--person", id.as_str()];
    let said = w.pisa.admin(&test).unwrap();
    assert!(said.contains("denied") && said.contains("no-nora"), "{said}");
    let array = ["--array", "0-7", "--", "sh", "-c", "echo $XOS_SITE; sleep 0.2"];
    let job = w.start(&nora, &array);
    let barred = w.start(&nora, &["--on", "pisa", "--", "true"]);
    w.run(&nora, "xwait", &[&job]).ok();
    let out = w.run(&nora, "xout", &[&job]).ok();
    assert!(out.contains("rennes") && !out.contains("pisa"), "pisa ran it: {out}");
    assert_ne!(w.run(&nora, "xwait", &[&barred]).code, 0);
    let why = w.xos(&nora, &["job", "why", &barred]).ok();
    for word in ["pisa", "site-policy", "no-nora", "she asked for it"] {
        assert!(why.contains(word), "it is not said why: {why}");
    }
}

/// If it failed, a stolen laptop would stay useful, or a suspended member keep the files.
fn a_suspended_member_gets_nothing(w: &World) {
    let file = format!("{VOLUME}/petra-works");
    let script = format!(
        "while :; do echo x >> {file}; echo alive; sleep 0.05; done 2> /dev/null # hold-me"
    );
    let job = w.start(&w.petra, &["--on", "rennes", "--", "sh", "-c", &script]);
    soon("petra works", || {
        let shown = w.json(&w.vera, &["job", "show", &job]);
        (state(&units(&shown)[0]) == "running").then_some(())
    });
    let old = w.credential(&w.petra, VO);
    let reason = ["-m", "laptop stolen"];
    w.xos(&w.vera, &[["vo", "suspend", VO, &w.petra.id()].as_slice(), &reason].concat()).ok();
    let said = w.xsub(&w.petra, &["--", "true"]);
    said.refused(77, &["suspended", "laptop stolen"]);
    for site in ["rennes", "pisa"] {
        soon("the suspension is known", || {
            let status = w.cert(&old.pem(), site);
            [401, 403].contains(&status).then_some(())
        });
    }
    // What runs is held: a unit that writes twenty lines a second writes no more.
    let size = || w.xsub(&w.milo, &["--", "stat", "-c", "%s", &file]).ok();
    soon("petra's work is held", || {
        let first = size();
        (0..5).all(|_| size() == first).then_some(())
    });
    assert_eq!(processes(w, "hold-me"), 1, "it is held, not ended");
    let held_at = size();
    w.xos(&w.vera, &["vo", "resume", VO, &w.petra.id()]).ok();
    for site in ["rennes", "pisa"] {
        let status = w.cert(&old.pem(), site);
        assert_eq!(status, 401, "a certificate from before the suspension counts at {site}");
    }
    w.sign_in(&w.petra);
    let said = || w.run(&w.petra, "xout", &[&job]).ok().len();
    let first = said();
    soon("petra's work goes on", || (said() > first).then_some(()));
    // It may be a thief's, who submitted it before the suspension.
    assert_eq!(size(), held_at, "what was submitted before the suspension has got a ticket");
    w.xsub(&w.petra, &["--on", "pisa", "--", "sh", "-c", &format!("echo y >> {file}")]).ok();
    assert_ne!(size(), held_at, "what petra submits now has no right to the volume");
    w.run(&w.petra, "xkill", &[&job]).ok();
    w.run(&w.petra, "xwait", &[&job]);
}

/// If it failed, somebody's work would outlive their membership, or a newcomer inherit its files.
fn a_removed_member_is_gone(w: &World) {
    let start = |site| {
        w.start(&w.petra, &["--on", site, "--", "sh", "-c", "while :; do sleep 0.1; done # gone"])
    };
    let jobs = [start("rennes"), start("pisa")];
    soon("petra works at both sites", || (processes(w, "# gone") == 2).then_some(()));
    let old = w.credential(&w.petra, VO);
    w.xos(&w.vera, &["vo", "remove", VO, &w.petra.id(), "-m", "left"]).ok();
    soon("petra's processes end", || (processes(w, "# gone") == 0).then_some(()));
    for site in ["rennes", "pisa"] {
        soon("the removal is known", || (w.cert(&old.pem(), site) != 200).then_some(()));
    }
    let said = w.xsub(&w.petra, &["--", "true"]);
    assert!([66, 77, 78].contains(&said.code), "{said:?}");
    w.admit(&w.petra);
    w.sign_in(&w.petra);
    let (was, is) = (old.membership(), w.credential(&w.petra, VO).membership());
    assert!(is.number > was.number, "a member's number was given again: {was:?}, {is:?}");
    for job in jobs {
        assert_ne!(w.run(&w.vera, "xwait", &[&job]).code, 0, "what was ended counts as done");
    }
}

/// If it failed, a VO that was stopped would go on, or could not be woken again; or its work, when
/// it goes on, would find the files gone that it has open.
fn a_suspended_vo_stands_still(w: &World) {
    let (read, written) = (format!("{VOLUME}/open-read"), format!("{VOLUME}/open-written"));
    w.xsub(&w.milo, &["--", "sh", "-c", &format!("echo kept > {read}")]).ok();
    let script = format!(
        "exec 3> {written} 4< {read} || exit 7; echo before >&3 || exit 8; \
         until [ -e /tmp/go-on ]; do sleep 0.1; done; \
         cat <&4 || exit 9; echo after >&3 || exit 10; cat {written} # hold-open"
    );
    let job = w.start(&w.milo, &["--on", "pisa", "--", "sh", "-c", &script]);
    soon("the unit has its files open", || {
        let said = w.xsub(&w.milo, &["--", "cat", &written]);
        (said.code == 0 && said.ok() == "before\n").then_some(())
    });
    w.xos(&w.vera, &["vo", "suspend-vo", VO, "-m", "under review"]).ok();
    for (person, site) in [(&w.milo, "rennes"), (&w.milo, "pisa"), (&w.petra, "pisa")] {
        let said = w.xsub(person, &["--on", site, "--", "true"]);
        said.refused(77, &[VO, "suspended", "under review"]);
    }
    let pem = w.credential(&w.milo, VO).pem();
    soon("pisa knows", || (w.cert(&pem, "pisa") == 403).then_some(()));
    // Longer than a node lets pass between two looks at its mounts.
    std::thread::sleep(Duration::from_secs(4));
    for node in w.nodes() {
        let mounts = sh(node, "cat /proc/mounts");
        assert!(mounts.contains(VOLUME), "{} has lost the volume: {mounts}", node.name());
    }
    assert_eq!(processes(w, "hold-open"), 1, "it is held, not ended");
    w.xos(&w.vera, &["vo", "resume-vo", VO]).ok();
    soon("the VO works again", || {
        (w.xsub(&w.milo, &["--on", "pisa", "--", "true"]).code == 0).then_some(())
    });
    for node in w.nodes() {
        sh(node, "touch /tmp/go-on");
    }
    assert_eq!(w.run(&w.milo, "xwait", &[&job]).code, 0, "it goes on with the files it had open");
    assert_eq!(w.run(&w.milo, "xout", &[&job]).ok(), "kept\nbefore\nafter\n");
}
