//! What is taken from a member ends what they run with it, at every site, and nothing else.

use std::path::Path;
use std::time::Duration;

use xos_testbed::grid::{Person, Site, SiteSpec};
use xos_testbed::removal::{Watched, measure};
use xos_testbed::{Cmd, Host};

use crate::faults::configure;
use crate::signed_in::account;
use crate::tool::skipped;
use crate::wire::{Proof, ask};
use crate::world::{VO, VOLUME, World, sh, soon, soon_within};

/// The nodes of both sites, as people and the testbed call them.
const NODES: [(&str, &str); 4] = [
    ("n1.rennes", "rennes-n1"),
    ("n2.rennes", "rennes-n2"),
    ("n1.pisa", "pisa-n1"),
    ("n2.pisa", "pisa-n2"),
];
/// The shortest lease that a site can set, in seconds.
const LEASE_S: u64 = 120;
/// How long a node that is cut off takes at most until its lease is over: it also takes a while
/// until it notices.
const LAPSED_MAX: Duration = Duration::from_secs(LEASE_S + 120);
const CRON: &str = "/usr/sbin/cron";

/// A grid to whose nodes people sign in.
fn grid() -> Option<World> {
    if !Site::can_be_signed_in_to() {
        skipped("needs sshd and pam-auth-update: Debian's openssh-server, libpam-runtime");
        return None;
    }
    let site = |name: &str| SiteSpec { login: true, ..SiteSpec::new(name) };
    World::with(&site("rennes"), &site("pisa"))
}

/// If it failed, who was removed, suspended or lost a role would work on, or others would lose
/// their work: see each step.
#[test]
fn what_is_taken_from_a_member_ends_what_they_run_with_it() {
    let Some(w) = grid() else { return };
    let petra = w.petra.id();
    for role in ["pilot", "clerk"] {
        w.xos(&w.vera, &["vo", "role", "grant", VO, &petra, role]).ok();
    }
    for group in ["physics", "press"] {
        w.xos(&w.vera, &["vo", "group", "create", VO, group]).ok();
        w.xos(&w.vera, &["vo", "group", "add", VO, group, &petra]).ok();
    }
    w.step("a_withdrawn_role_ends_what_carries_it", a_withdrawn_role);
    w.step("a_group_that_was_left_ends_what_has_its_gid", a_group_that_was_left);
    w.step("a_removed_member_runs_nothing_anywhere", a_removed_member);
    w.step("a_suspended_member_is_held_everywhere", a_suspended_member);
}

/// Something of a person that tells by a file in their home on a node that it goes on.
struct Beat<'a> {
    node: &'a Host,
    file: String,
}

impl Beat<'_> {
    /// What a shell does for it, in the home.
    fn script(name: &str) -> String {
        format!("while :; do date +%s%N > ~/{name}; sleep 0.05; done")
    }

    fn read(&self) -> Option<Vec<u8>> {
        self.node.read_file(&self.file).ok().filter(|text| !text.is_empty())
    }

    /// Waits until it goes on.
    #[track_caller]
    fn goes_on(&self) {
        let before = self.read();
        soon(&format!("{} on {} goes on", self.file, self.node.name()), || {
            self.read().is_some_and(|now| Some(now) != before).then_some(())
        });
    }

    /// Waits until it stands still, for good as far as can be seen.
    #[track_caller]
    fn stops(&self, limit: Duration) {
        soon_within(limit, &format!("{} on {} stops", self.file, self.node.name()), || {
            // Empty, too: it may have been ended when it had just begun to write.
            let read = || self.node.read_file(&self.file).ok();
            let before = read();
            sh(self.node, "sleep 0.5");
            (before.is_some() && read() == before).then_some(())
        });
    }
}

impl World {
    fn beat(&self, person: &Person, host: &str, name: &str) -> Beat<'_> {
        Beat { node: self.node(host), file: format!("/home/xos/{}/{name}", account(person)) }
    }

    /// A session by ssh in which something goes on in the background, and after it.
    fn session(&self, person: &Person, at: usize, name: &str) -> Beat<'_> {
        let (node, host) = NODES[at];
        let config = format!("/home/{}/.xos/ssh/config", person.name);
        let (behind, front) = (Beat::script(&format!("{name}.nohup")), Beat::script(name));
        // One that outlives its shell, one that starts others without end, and the shell itself.
        let script = format!(
            "nohup setsid sh -c '{behind}' > /dev/null 2>&1 & \
             (while :; do (sleep 0.02 &); sleep 0.02; done) & {front}"
        );
        let ssh = person.command("ssh").args(["-F", &config, "-o", "BatchMode=yes", node, &script]);
        self.laptop().spawn(&ssh).unwrap();
        self.beat(person, host, &format!("{name}.nohup")).goes_on();
        let beat = self.beat(person, host, name);
        beat.goes_on();
        beat
    }

    /// A job of one unit at a site, and where it runs.
    fn unit(&self, person: &Person, site: &Site, name: &str) -> Beat<'_> {
        let script = Beat::script(name);
        self.start(person, &["--on", &site.name, "--cpus", "0.1", "--", "sh", "-c", &script]);
        let file = format!("/home/xos/{}/{name}", account(person));
        let of = format!("{}-", site.name);
        let node = soon("the unit works", || {
            self.nodes().find(|n| n.name().as_str().starts_with(&of) && n.read_file(&file).is_ok())
        });
        let beat = Beat { node, file };
        beat.goes_on();
        beat
    }

    fn uid(&self, person: &Person) -> u32 {
        sh(self.node("rennes-n1"), &format!("id -u {}", account(person))).parse().unwrap()
    }

    /// Signs a person in with some of their membership only.
    fn sign_in_narrowed(&self, person: &Person, narrower: &[&str]) {
        let id = person.id();
        let login = ["login", &id, "--vo", VO, "--password-file", "-"];
        let login = person.command("xos").args([login.as_slice(), narrower].concat());
        self.laptop().run(&login.stdin(person.password.as_bytes())).unwrap().ok().unwrap();
    }

    /// A member's token for one site.
    fn member_token(&self, person: &Person, site: &str) -> String {
        let pem = self.credential(person, VO).pem();
        let body = format!("{{\"vo\":\"{VO}\",\"audience\":\"{site}\"}}");
        let proof = Proof::Certificate(&pem);
        let said = ask(&self.laptop(), "rennes", proof, "POST /v1/token", body.as_bytes());
        let token = said.body["token"].as_str();
        token.unwrap_or_else(|| panic!("no token: {}", said.text)).to_owned()
    }
}

/// Whether something runs under a uid on a node.
fn runs(node: &Host, uid: u32) -> bool {
    let look = format!("pgrep -u {uid} > /dev/null || pgrep -U {uid} > /dev/null");
    node.run(&Cmd::shell(look)).unwrap().exit.is_success()
}

/// If it failed, who lost a role would keep the shells and jobs that they have by it, or lose those
/// that they have without.
fn a_withdrawn_role(w: &World) {
    w.sign_in_narrowed(&w.petra, &["--role", "clerk"]);
    let clerk = [w.session(&w.petra, 2, "clerk"), w.unit(&w.petra, &w.pisa, "clerk-unit")];
    let beside = w.unit(&w.petra, &w.rennes, "clerk-beside");
    w.sign_in_narrowed(&w.petra, &["--role", "pilot"]);
    let pilot = [w.session(&w.petra, 0, "pilot"), w.unit(&w.petra, &w.pisa, "pilot-unit")];
    let other = w.session(&w.milo, 0, "milo");
    let pem = w.credential(&w.petra, VO).pem();
    w.xos(&w.vera, &["vo", "role", "withdraw", VO, &w.petra.id(), "pilot"]).ok();
    for beat in pilot.iter().chain([&w.beat(&w.petra, "rennes-n1", "pilot.nohup")]) {
        beat.stops(Duration::from_secs(60));
    }
    for beat in clerk.iter().chain([&beside, &other]) {
        beat.goes_on();
    }
    for site in ["rennes", "pisa"] {
        let said = ask(&w.laptop(), site, Proof::Certificate(&pem), "GET /v1/me", b"");
        said.refused(401, &["sign in again"]);
    }
    w.sign_in(&w.petra);
    w.ssh(&w.petra, &[], "n1.rennes", "true").ok();
}

/// If it failed, programs would keep the files of a group that their member left.
fn a_group_that_was_left(w: &World) {
    w.sign_in(&w.petra);
    let has = w.session(&w.petra, 1, "physicist");
    let uid = w.uid(&w.petra);
    // As what cron or at started before: no session of PAM's, without that group.
    let file = "/tmp/without";
    let work = format!("while :; do date +%s%N > {file}; sleep 0.05; done");
    let gid = sh(w.node("rennes-n2"), &format!("id -g {}", account(&w.petra)));
    let start = format!("setsid setpriv --reuid={uid} --regid={gid} --clear-groups sh -c '{work}'");
    sh(w.node("rennes-n2"), &format!("{start} < /dev/null > /dev/null 2>&1 &"));
    let without = Beat { node: w.node("rennes-n2"), file: file.to_owned() };
    without.goes_on();
    w.xos(&w.vera, &["vo", "group", "drop", VO, "physics", &w.petra.id()]).ok();
    has.stops(Duration::from_secs(60));
    w.beat(&w.petra, "rennes-n2", "physicist.nohup").stops(Duration::from_secs(60));
    without.goes_on();
    w.sign_in(&w.petra);
    let groups = w.ssh(&w.petra, &[], "n2.rennes", "id -Gn").ok();
    assert!(groups.contains("press") && !groups.contains("physics"), "{groups}");
}

/// Cron runs something of a person's on a node.
fn by_cron<'a>(w: &'a World, person: &Person, host: &str) -> Beat<'a> {
    let node = w.node(host);
    let table = format!("MAILTO=\"\"\n@reboot {}\n", Beat::script("cron").replace('%', "\\%"));
    let install = Cmd::new("crontab").args(["-u", &account(person), "-"]).stdin(table);
    node.run(&install).unwrap().ok().unwrap();
    node.spawn(&Cmd::new(CRON).arg("-f").own_cgroup("cron".parse().unwrap())).unwrap();
    let beat = w.beat(person, host, "cron");
    beat.goes_on();
    beat
}

/// If it failed, somebody who left would work on somewhere, with some credential.
fn a_removed_member(w: &World) {
    let (uid, other) = (w.uid(&w.petra), w.session(&w.milo, 1, "milo"));
    let beside = w.unit(&w.milo, &w.pisa, "milo-unit");
    let all: Vec<Beat> = (0..NODES.len()).map(|at| w.session(&w.petra, at, "last")).collect();
    if Path::new(CRON).exists() {
        by_cron(w, &w.petra, "rennes-n1");
    }
    let gid = sh(w.node("rennes-n1"), &format!("id -g {}", account(&w.petra))).parse().unwrap();
    let watched = |site: &'static str| {
        let file = format!("{VOLUME}/of-{site}");
        let of = if site == "rennes" { &w.rennes } else { &w.pisa };
        w.xsub(&w.petra, &["--on", site, "--", "sh", "-c", &format!("echo x > {file}")]).ok();
        Watched { site: of, uid, gid, token: w.member_token(&w.petra, site), file }
    };
    let watched = ["rennes", "pisa"].map(watched);
    let pem = w.credential(&w.petra, VO).pem();
    let click = || w.grid.xos(&w.vera, &["vo", "remove", VO, &w.petra.id()]).map(drop);
    for times in measure(&watched, click).unwrap() {
        println!("{times:?}");
    }
    for node in w.nodes() {
        assert!(!runs(node, uid), "something of who was removed runs on {}", node.name());
    }
    for beat in all {
        let before = beat.read();
        sh(beat.node, "sleep 0.3");
        assert_eq!(beat.read(), before, "{} on {}", beat.file, beat.node.name());
    }
    for site in ["rennes", "pisa"] {
        for line in ["GET /v1/me", "POST /v1/certificates", "POST /v1/token"] {
            let said = ask(&w.laptop(), site, Proof::Certificate(&pem), line, b"{}");
            assert!([401, 403].contains(&said.status), "{line} at {site}: {}", said.text);
        }
    }
    assert_ne!(w.xsub(&w.petra, &["--", "true"]).code, 0, "a job of who was removed was taken");
    assert_eq!(w.ssh(&w.petra, &[], "n1.pisa", "true").code, 255, "who was removed got in");
    other.goes_on();
    beside.goes_on();
}

/// If it failed, a stolen laptop would stay useful somewhere, or its owner lose what they had.
fn a_suspended_member(w: &World) {
    let all = [
        w.session(&w.milo, 0, "held"),
        w.session(&w.milo, 3, "held"),
        w.unit(&w.milo, &w.rennes, "held-unit"),
        w.unit(&w.milo, &w.pisa, "held-unit"),
    ];
    let token = w.member_token(&w.milo, "pisa");
    let other = w.session(&w.vera, 0, "vera");
    w.xos(&w.vera, &["vo", "suspend", VO, &w.milo.id(), "-m", "laptop stolen"]).ok();
    for beat in &all {
        beat.stops(Duration::from_secs(60));
    }
    soon("pisa refuses the token", || {
        let said = ask(&w.laptop(), "pisa", Proof::Token(&token), "GET /v1/me", b"");
        [401, 403].contains(&said.status).then_some(())
    });
    other.goes_on();
    w.xos(&w.vera, &["vo", "resume", VO, &w.milo.id()]).ok();
    w.sign_in(&w.milo);
    for beat in &all {
        beat.goes_on();
    }
}

/// If it failed, a removal would never reach a machine whose cable somebody pulls, or what it holds
/// would go on for as long as nobody plugs it in again.
#[test]
fn a_node_that_is_cut_off_holds_and_ends_what_it_has() {
    let Some(w) = grid() else { return };
    for (site, grace_s) in [(&w.rennes, 24 * 3600), (&w.pisa, 5)] {
        configure(site, "[vom]", &format!("lease_s = {LEASE_S}\ngrace_s = {grace_s}"));
    }
    w.sign_in(&w.petra);
    let uid = w.uid(&w.petra);
    let holds = w.session(&w.petra, 1, "cut");
    let ends = w.session(&w.petra, 3, "cut");
    let near = w.session(&w.petra, 0, "near");
    for beat in [&holds, &ends] {
        beat.node.cut().unwrap();
    }
    soon_within(LAPSED_MAX, "what is cut off for lease and grace ends", || {
        (!runs(ends.node, uid)).then_some(())
    });
    holds.stops(LAPSED_MAX);
    assert!(runs(holds.node, uid), "it is ended before its grace is over");
    near.goes_on();
    w.xos(&w.vera, &["vo", "remove", VO, &w.petra.id()]).ok();
    soon("nothing runs where the removal is heard", || (!runs(near.node, uid)).then_some(()));
    assert!(runs(holds.node, uid), "who told a node that is cut off?");
    for beat in [&holds, &ends] {
        beat.node.heal().unwrap();
    }
    soon("it ends when it is heard", || (!runs(holds.node, uid)).then_some(()));
}
