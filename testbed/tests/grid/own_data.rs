//! A member's own data stays the member's: a folder pinned to its owner's site, and closed.

use std::collections::BTreeSet;

use xos_testbed::Host;

use crate::tool::{Json, Said};
use crate::world::{VO, VOLUME, World, programs, sh, soon};

/// Milo's folder.
fn dir() -> String {
    format!("{VOLUME}/milo")
}

/// If it failed, what a member keeps to themself would lie where they did not want it, or be read
/// by others: see each step.
#[test]
fn a_members_own_data_stays_theirs() {
    let Some(w) = World::new() else { return };
    w.step("a_pinned_folders_files_lie_at_one_site", a_pinned_folders_files_lie_at_one_site);
    w.step("no_role_closes_or_opens_it", no_role_closes_or_opens_it);
    w.step("what_others_have_open_ends_at_once", what_others_have_open_ends_at_once);
    w.step("opened_files_are_noted_if_asked", opened_files_are_noted_if_asked);
}

impl World {
    /// Runs a script as somebody at a site.
    #[track_caller]
    fn by(&self, person: &xos_testbed::grid::Person, site: &str, script: &str) -> Said {
        self.xsub(person, &["--on", site, "-m", "256M", "--", "bash", "-ec", script])
    }

    /// The tool on a node.
    fn tool(&self, words: &str) -> String {
        let programs = programs().canonicalize().unwrap();
        format!("{}/xos file {words}", programs.display())
    }
}

/// The files of objects at a site's nodes, by node, name and size.
fn objects(nodes: &[Host]) -> BTreeSet<String> {
    let list = "sync; cd /var/lib/xos/objects && find . -type f -printf '%p %s\\n'";
    let mut found = BTreeSet::new();
    for (n, node) in nodes.iter().enumerate() {
        found.extend(sh(node, list).lines().map(|line| format!("{n} {line}")));
    }
    found
}

/// If it failed, new files of a pinned folder would lie, in part, at another site's machines; or
/// nobody would be told which lie there from before.
fn a_pinned_folders_files_lie_at_one_site(w: &World) {
    let dir = dir();
    let make = format!(
        "mkdir {dir}; chmod 777 {dir}; head -c 7340123 /dev/urandom > {dir}/early; \
         chmod 666 {dir}/early; sync {dir}/early"
    );
    w.by(&w.milo, "pisa", &make).ok();
    let (at_rennes, at_pisa) = (objects(&w.rennes.nodes), objects(&w.pisa.nodes));
    // Their home site, as nobody says otherwise.
    let told = w.by(&w.milo, "rennes", &w.tool(&format!("pin {dir} --json"))).ok();
    let told: Json = serde_json::from_str(&told).unwrap();
    assert_eq!(told["pinned"], "rennes", "{told}");
    assert_eq!(told["elsewhere"], 1, "{told}");
    assert_eq!(told["elsewhere_names"][0], "early", "{told}");
    for site in ["pisa", "rennes"] {
        let make = format!(
            "mkdir {dir}/{site}; head -c 7340123 /dev/urandom > {dir}/{site}/f; \
             sync {dir}/{site}/f; {}",
            w.tool(&format!("show {dir}/{site}/f --json"))
        );
        let told: Json = serde_json::from_str(&w.by(&w.milo, site, &make).ok()).unwrap();
        assert_eq!(told["sites"], serde_json::json!(["rennes"]), "{told}");
    }
    assert_eq!(objects(&w.pisa.nodes), at_pisa, "nothing of it lies there");
    assert!(objects(&w.rennes.nodes).len() > at_rennes.len());
    let refused = w.by(&w.milo, "rennes", &w.tool(&format!("pin {dir} --site lyon")));
    assert_eq!(refused.code, 64, "{}", refused.err);
    assert!(refused.err.contains("no storage"), "{}", refused.err);
}

/// If it failed, an administrator of the VO would decide over a member's folder.
fn no_role_closes_or_opens_it(w: &World) {
    let dir = dir();
    for word in ["close", "open", "pin", "unpin"] {
        for person in [&w.vera, &w.petra] {
            let said = w.by(person, "rennes", &w.tool(&format!("{word} {dir}")));
            assert_eq!(said.code, 77, "{word}: {}{}", said.out, said.err);
            assert!(said.err.contains("only the owner"), "{}", said.err);
        }
    }
}

/// If it failed, whoever had a file open would read on in a folder that its owner has closed, or
/// the owner would be shut out too.
fn what_others_have_open_ends_at_once(w: &World) {
    let (dir, ready) = (dir(), format!("{VOLUME}/petra-reads"));
    // Reads on and on by one open file, on a node of another site than that of the one who closes.
    let read = format!(
        "exec 3< {dir}/early; head -c 1 <&3 > /dev/null; touch {ready}; \
         while head -c 1 <&3 > /dev/null 2>&1; do :; done; echo refused"
    );
    let job = w.start(&w.petra, &["--on", "pisa", "-m", "256M", "--", "bash", "-ec", &read]);
    soon("petra reads", || {
        let seen = w.by(&w.milo, "rennes", &format!("test -e {ready}"));
        (seen.code == 0).then_some(())
    });
    let told = w.by(&w.milo, "rennes", &w.tool(&format!("close {dir} --json"))).ok();
    let told: Json = serde_json::from_str(&told).unwrap();
    assert_eq!(told["closed"], true, "{told}");
    assert_eq!(told["unconfirmed"], serde_json::json!([]), "{told}");
    w.xos(&w.petra, &["job", "wait", &job]).ok();
    assert_eq!(w.xos(&w.petra, &["job", "output", &job]).ok().trim(), "refused");
    for person in [&w.vera, &w.petra] {
        for site in ["rennes", "pisa"] {
            for attempt in [
                format!("cat {dir}/early"),
                format!("ls {dir}"),
                format!("stat {dir}/early"),
                format!("echo x > {dir}/new"),
                w.tool(&format!("open {dir}")),
            ] {
                let said = w.by(person, site, &attempt);
                assert_ne!(said.code, 0, "{} may {attempt} at {site}", person.name);
            }
        }
    }
    let own = format!("head -c 7340123 {dir}/early | wc -c; echo more >> {dir}/rennes/f; ls {dir}");
    let said = w.by(&w.milo, "pisa", &own).ok();
    assert!(said.starts_with("7340123\n") && said.contains("early"), "{said}");
    w.by(&w.milo, "rennes", &w.tool(&format!("open {dir}"))).ok();
    assert_eq!(w.by(&w.petra, "pisa", &format!("wc -c < {dir}/early")).ok().trim(), "7340123");
}

/// If it failed, members would be watched without being told, or could not be told.
fn opened_files_are_noted_if_asked(w: &World) {
    let notes = || w.json(&w.petra, &["vo", "show", VO])["details"]["audit_opens"].clone();
    assert_eq!(notes(), Json::Bool(false));
    w.xos(&w.milo, &["vo", "audit-files", VO, "on"]).refused(77, &["opened files"]);
    w.xos(&w.vera, &["vo", "audit-files", VO, "on"]).ok();
    assert_eq!(notes(), Json::Bool(true));
    assert!(w.xos(&w.petra, &["vo", "show", VO]).ok().contains("noted in the audit"));
}
