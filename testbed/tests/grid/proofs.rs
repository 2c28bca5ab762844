//! Proofs of identity that are none: expired, foreign, tampered, of another VO, of a machine.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use xos_base::Epoch;
use xos_net::Identity;
use xos_net::identity::validity;
use xos_net::trust::node_name;
use xos_testbed::grid::Site;

use crate::faults::{back, kill_all};
use crate::forge::{Authority, Credential, Forged};
use crate::tool::Json;
use crate::wire::{Answer, Proof, ask};
use crate::world::{VO, World, sh, soon};

/// How many single bits of a certificate are changed, one at a time.
const FLIPS: usize = 48;

/// If it failed, somebody could act as somebody else: see each step.
#[test]
fn only_true_proofs_count() {
    let Some(w) = World::new() else { return };
    w.step("forged_certificates", forged_certificates);
    w.step("a_changed_certificate_is_void", a_changed_certificate_is_void);
    w.step(
        "tokens_hold_unchanged_and_where_they_are_for",
        tokens_hold_unchanged_and_where_they_are_for,
    );
    w.step("a_member_of_another_vo_is_a_stranger", a_member_of_another_vo_is_a_stranger);
    w.step("a_node_is_no_person", a_node_is_no_person);
    w.step("a_core_speaks_for_itself_only", a_core_speaks_for_itself_only);
    w.step("a_node_renews_its_certificate", a_node_renews_its_certificate);
    w.step("the_tool_says_why_a_proof_is_refused", the_tool_says_why_a_proof_is_refused);
    w.serves();
    w.step("a_forgotten_sites_members_are_told", a_forgotten_sites_members_are_told);
}

/// The numbers of TLS alerts (RFC 8446, section 6): certificate_expired, also for one that does
/// not count yet; unknown_ca.
const EXPIRED: u8 = 45;
const UNKNOWN_CA: u8 = 48;

impl World {
    /// Who rennes takes the holder of this key and chain for.
    #[track_caller]
    fn me(&self, pem: &str) -> Answer {
        ask(&self.laptop(), "rennes", Proof::Certificate(pem), "GET /v1/me", b"")
    }
}

/// If it failed, a certificate would count that its VO's home did not make, or not for now.
fn forged_certificates(w: &World) {
    let honest = w.credential(&w.milo, VO);
    let milo = honest.membership();
    let me = w.me(&honest.pem());
    assert_eq!((me.status, &me.body["person"]), (200, &Json::from(w.milo.id())));
    let people = Authority::of(&w.rennes.core, "people");
    // So that what follows fails for its own reason.
    assert_eq!(w.me(&people.sign(&Forged::of(milo.clone()))).status, 200, "forging does not work");
    let late = people.sign(&Forged::of(milo.clone()).between(-120, -60));
    w.me(&late).unproved(EXPIRED);
    let early = people.sign(&Forged::of(milo.clone()).between(60, 120));
    w.me(&early).unproved(EXPIRED);
    for name in ["people", "machines", "root"] {
        let foreign = Authority::of(&w.pisa.core, name).sign(&Forged::of(milo.clone()));
        w.me(&foreign).unproved(UNKNOWN_CA);
    }
    let own = Authority::own("XOS site rennes people").sign(&Forged::of(milo.clone()));
    w.me(&own).unproved(UNKNOWN_CA);
    // Even the right authority is believed only within the VO's present state.
    let mut raised = milo.clone();
    raised.roles = vec!["owner".parse().unwrap()];
    let raised = people.sign(&Forged::of(raised));
    let line = format!("POST /v1/vos/{VO}/suspend");
    let raised =
        ask(&w.laptop(), "rennes", Proof::Certificate(&raised), &line, b"{\"reason\":\"x\"}");
    assert!((400..500).contains(&raised.status), "a made-up role counts: {}", raised.text);
    let mut other = milo.clone();
    other.number = w.credential(&w.vera, VO).membership().number;
    let other = w.me(&people.sign(&Forged::of(other)));
    assert!(!other.is_known(), "a member's number with another's name counts: {}", other.text);
    let mut unborn = milo.clone();
    unborn.epoch = Epoch(milo.epoch.0 + 5);
    let unborn = w.me(&people.sign(&Forged::of(unborn)));
    println!("an epoch of the future: {}", unborn.text.lines().next().unwrap_or_default());
    // The authority of people makes no machine, and nobody is two.
    for machine in ["core.rennes.xos.internal", "n1.node.rennes.xos.internal"] {
        let both = Forged::of(milo.clone()).machine(machine);
        let mut alone = both.clone();
        alone.membership = None;
        for forged in [both, alone] {
            let said = w.me(&people.sign(&forged));
            assert!(!said.is_known(), "{machine} by the people's authority: {}", said.text);
        }
    }
}

/// If it failed, a bit could be changed in a certificate, and with it a name or role.
fn a_changed_certificate_is_void(w: &World) {
    let Credential { key, chain } = w.credential(&w.milo, VO);
    let identity = Identity::from_pem(&chain, &key).unwrap();
    let leaf = identity.chain()[0].to_vec();
    let rest: String = identity.chain()[1..].iter().map(|c| pem(c)).collect();
    assert_eq!(w.me(&format!("{key}{}{rest}", pem(&leaf))).status, 200, "unchanged, it counts");
    let (mut seed, mut came) = (0x5eed_u64, 0);
    for _ in 0..FLIPS {
        // Numerical Recipes' constants; the place is in the upper half.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let bit = usize::try_from(seed >> 33).unwrap() % (leaf.len() * 8);
        let mut changed = leaf.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let said = w.me(&format!("{key}{}{rest}", pem(&changed)));
        assert!(!said.is_known(), "bit {bit} was changed: {}", said.text);
        // Others are so broken that this machine's own TLS does not send them.
        let came_there = said.status == 401 || said.text.contains("SSL alert number");
        came += usize::from(came_there);
    }
    println!("{came} of {FLIPS} changed certificates came as far as the core");
    assert!(came > 0, "none came as far as the core, so nothing was shown");
}

/// If it failed, who has to sign in, or to ask an administrator, would be told to try again later.
fn the_tool_says_why_a_proof_is_refused(w: &World) {
    let milo = w.credential(&w.milo, VO).membership();
    let people = Authority::of(&w.rennes.core, "people");
    let forged = |from, until| Forged::of(milo.clone()).between(from, until);
    let foreign = Authority::of(&w.pisa.core, "people");
    let nobodys = Authority::own("XOS site rennes people");
    let proofs = [
        (people.sign(&forged(-120, -60)), ["has expired", "xos login"]),
        (people.sign(&forged(60, 120)), ["not valid yet", "this machine's clock"]),
        (foreign.sign(&forged(-60, 60)), ["did not sign it", "administrator of SITE"]),
        (nobodys.sign(&forged(-60, 60)), ["did not sign it", "administrator of SITE"]),
        (bent(&people.sign(&forged(-60, 60))), ["did not sign it", "administrator of SITE"]),
    ];
    let login = "/home/milo/.xos/login.json";
    let file = format!("/home/milo/.xos/vo/{VO}/credential.json");
    let kept = w.laptop().read_file(login).unwrap();
    for (proof, words) in proofs {
        let mut credential: Json =
            serde_json::from_slice(&w.laptop().read_file(&file).unwrap()).unwrap();
        let (key, chain) = parts(&proof);
        credential["key_pem"] = Json::from(key);
        credential["chain_pem"] = Json::from(chain);
        w.laptop().write_file(&file, credential.to_string().as_bytes(), 0o600).unwrap();
        // Else the tool would get a true one by itself, as it does below.
        sh(&w.laptop(), &format!("rm {login}"));
        for site in ["rennes", "pisa"] {
            let words = words.map(|word| word.replace("SITE", site));
            let said = w.xos(&w.milo, &["--site", site, "job", "list"]);
            let refused = format!("site {site} refused your certificate");
            said.refused(78, &[&refused, &words[0], &words[1]]);
        }
        w.laptop().write_file(login, &kept, 0o600).unwrap();
        w.xos(&w.milo, &["--site", "pisa", "job", "list"]).ok();
    }
}

/// Key and chain of a proof.
fn parts(proof: &str) -> (&str, &str) {
    proof.split_at(proof.find("-----BEGIN CERTIFICATE").unwrap())
}

/// The same proof with one bit of the certificate's signature changed.
fn bent(proof: &str) -> String {
    let (key, chain) = parts(proof);
    let identity = Identity::from_pem(chain, key).unwrap();
    let mut leaf = identity.chain()[0].to_vec();
    *leaf.last_mut().unwrap() ^= 1;
    let rest: String = identity.chain()[1..].iter().map(|c| pem(c)).collect();
    format!("{key}{}{rest}", pem(&leaf))
}

/// If it failed, nobody at a site that another one trusts no more would know why nothing works.
fn a_forgotten_sites_members_are_told(w: &World) {
    w.xos(&w.milo, &["--site", "pisa", "job", "list"]).ok();
    w.pisa.admin(&["site", "forget", "rennes", "--yes"]).unwrap();
    for person in [&w.milo, &w.petra] {
        let said = w.xos(person, &["--site", "pisa", "job", "list"]);
        let words = ["site pisa refused your certificate", "rennes", "is not trusted there"];
        let said = said.refused(78, &words);
        assert!(said.contains("ask the administrator of pisa"), "{said}");
    }
    w.xsub(&w.milo, &["--on", "rennes", "--", "true"]).ok();
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|l| std::str::from_utf8(l).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// If it failed, a site that somebody visits could act for them at home, or a token be widened.
fn tokens_hold_unchanged_and_where_they_are_for(w: &World) {
    let token = w.token(&w.milo);
    let at =
        |site: &str, token: &str| ask(&w.laptop(), site, Proof::Token(token), "GET /v1/me", b"");
    let me = at("rennes", &token);
    assert_eq!((me.status, &me.body["person"]), (200, &Json::from(w.milo.id())));
    at("pisa", &token).refused(401, &[]);
    let parts: Vec<&str> = token.split('.').collect();
    let claims = String::from_utf8(URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    for (from, to) in [
        ("milo@rennes", "vera@rennes"),
        ("\"aud\":\"rennes\"", "\"aud\":\"pisa\""),
        ("\"aud\"", "\"site_admin\":true,\"aud\""),
    ] {
        let changed = claims.replacen(from, to, 1);
        assert_ne!(changed, claims, "a token has another form now: {claims}");
        at("rennes", &format!("{}.{}.{}", parts[0], encode(&changed), parts[2])).refused(401, &[]);
        for algorithm in ["none", "HS256"] {
            let head = encode(&format!("{{\"typ\":\"JWT\",\"alg\":\"{algorithm}\"}}"));
            at("rennes", &format!("{head}.{}.", encode(&changed))).refused(401, &[]);
        }
    }
    for bad in ["", ".", "..", "a.b.c", &token[..token.len() - 4], &"x".repeat(6000)] {
        at("rennes", bad).refused(401, &[]);
    }
}

/// If it failed, a VO that anybody founds would open the others.
fn a_member_of_another_vo_is_a_stranger(w: &World) {
    let mallory = w.enrol(&w.pisa, "mallory");
    w.xos(&mallory, &["vo", "found", "other", "--title", "Mine"]).ok();
    w.sign_in(&mallory);
    let pem = w.credential(&mallory, "other.pisa").pem();
    let spec = |vo: &str| {
        let task = r#"{"name": "t", "argv": ["true"]}"#;
        format!("{{\"spec\": {{\"vo\": \"{vo}\", \"name\": \"x\", \"tasks\": [{task}]}}}}")
    };
    for site in ["rennes", "pisa"] {
        let ask = |line: &str, body: &str| {
            ask(&w.laptop(), site, Proof::Certificate(&pem), line, body.as_bytes())
        };
        for (line, body) in [
            ("POST /v1/jobs".to_owned(), spec(VO)),
            ("POST /v1/jobs/watched".to_owned(), spec(VO)),
            (format!("GET /v1/vos/{VO}/members"), String::new()),
            (format!("GET /v1/jobs?vo={VO}&everyone=true"), String::new()),
            (format!("POST /v1/vos/{VO}/suspend"), "{\"reason\":\"x\"}".to_owned()),
            (format!("PUT /v1/vos/{VO}/members/mallory@pisa/roles/admin"), "{}".to_owned()),
        ] {
            let said = ask(&line, &body);
            assert!((400..500).contains(&said.status), "{line} at {site}: {}", said.text);
        }
    }
    let said =
        ask(&w.laptop(), "pisa", Proof::Certificate(&pem), "POST /v1/jobs", spec(VO).as_bytes());
    said.refused(403, &["denied", VO]);
    let hint = format!("xos vo apply {VO}");
    let said = w.xsub(&mallory, &["--vo", VO, "--", "true"]);
    said.refused(77, &["mallory@pisa is not a member", "if you joined just now", &hint]);
    let said = w.xsub(&mallory, &["--vo", "other.pisa", "--on", "rennes", "--", "true"]);
    assert_ne!(said.code, 0, "rennes gave nothing to other.pisa and runs its job");
}

/// Requests that only people, administrators or cores may make.
fn requests_of_others() -> Vec<(String, String)> {
    let spec = r#"{"name": "x", "tasks": [{"name": "t", "argv": ["true"]}]}"#;
    let job = format!("{{\"spec\": {}}}", spec.replacen('{', &format!("{{\"vo\": \"{VO}\","), 1));
    let bodies = [
        ("POST /v1/jobs", job.as_str()),
        ("POST /v1/jobs/watched", &job),
        ("GET /v1/jobs", ""),
        ("GET /v1/jobs/1.rennes", ""),
        ("POST /v1/jobs/1.rennes/cancel", "{}"),
        ("GET /v1/units/1.rennes:0/output", ""),
        ("GET /v1/vos/VO/members", ""),
        ("GET /v1/vos/VO/members/milo@rennes/membership", ""),
        ("GET /v1/memberships/milo@rennes", ""),
        ("PUT /v1/vos/VO/members/milo@rennes/roles/admin", "{}"),
        ("POST /v1/vos/VO/members/milo@rennes/suspend", "{\"reason\":\"x\"}"),
        ("POST /v1/vos/VO/applications/milo@rennes/approve", "{}"),
        ("POST /v1/vos/VO/volumes", "{\"name\":\"main\"}"),
        ("POST /v1/vos/VO/suspend", "{\"reason\":\"x\"}"),
        ("POST /v1/vos", "{\"label\":\"mine\",\"title\":\"x\"}"),
        ("GET /v1/people", ""),
        ("POST /v1/people", "{\"name\":\"eve\",\"password\":\"long enough\"}"),
        ("POST /v1/join-tokens", "{\"label\":\"n9\"}"),
        ("DELETE /v1/machines/n2.rennes", ""),
        ("POST /v1/sites/offer", "{\"site\":\"mars\"}"),
        ("DELETE /v1/sites/pisa", ""),
        ("POST /v1/certificates", "{\"vo\":\"VO\",\"csr_pem\":\"x\"}"),
        ("POST /v1/token", "{\"vo\":\"VO\",\"audience\":\"rennes\"}"),
        (
            "POST /v1/mandates",
            "{\"job\":\"1.rennes\",\"vo\":\"VO\",\"digest\":\"DIGEST\",\"proof\":{\"submission\":\"x\"}}",
        ),
    ];
    let filled = |body: &str| body.replace("VO", VO).replace("DIGEST", &"0".repeat(64));
    bodies.map(|(line, body)| (line.replace("VO", VO), filled(body))).to_vec()
}

/// None of `requests` is granted to the holder of `pem` at the core of `site`.
fn all_refused(w: &World, who: &str, pem: &str, site: &str, requests: &[(String, String)]) {
    for (line, body) in requests {
        let said = ask(&w.laptop(), site, Proof::Certificate(pem), line, body.as_bytes());
        let refused = (400..500).contains(&said.status);
        // A body that is not understood would show nothing.
        let understood = !said.text.contains("is not what this request takes");
        assert!(refused && understood, "{who}, {line} at {site}: {}", said.text);
    }
}

fn machine_pem(site: &Site, node: usize) -> String {
    let read = |name: &str| {
        let path = format!("/var/lib/xos/node/{name}.pem");
        String::from_utf8(site.nodes[node].read_file(path).unwrap()).unwrap()
    };
    format!("{}{}", read("key"), read("chain"))
}

/// If it failed, who breaks into one node would have the site, or its people's rights.
fn a_node_is_no_person(w: &World) {
    let tickets = "{\"mandate\":\"x\",\"node\":\"n1.pisa\",\"node_key\":\"00\"}";
    let own = [
        ("POST /v1/tickets".to_owned(), tickets.to_owned()),
        ("POST /v1/hosted/ack".to_owned(), "{\"seq\":1}".to_owned()),
        ("POST /v1/hosted/1.rennes/cancel".to_owned(), "{}".to_owned()),
    ];
    let all = [requests_of_others().as_slice(), &own].concat();
    for (of, at) in [(&w.pisa, "pisa"), (&w.pisa, "rennes"), (&w.rennes, "rennes")] {
        let pem = machine_pem(of, 0);
        all_refused(w, &format!("n1.{}", of.name), &pem, at, &all);
    }
}

/// If it failed, a node would leave the grid a month after it joined, whatever it runs.
fn a_node_renews_its_certificate(w: &World) {
    let (site, node) = (&w.rennes, &w.rennes.nodes[1]);
    let file = |name: &str| format!("/var/lib/xos/node/{name}.pem");
    let read = |name: &str| String::from_utf8(node.read_file(file(name)).unwrap()).unwrap();
    let key = read("key");
    let name = node_name(&"n2.rennes".parse().unwrap());
    let aged = Forged::of_machine(&name, key.clone()).between(-100, 20);
    let aged = Authority::of(&site.core, "machines").sign(&aged);
    let chain = &aged[aged.find("-----BEGIN CERTIFICATE").unwrap()..];
    kill_all(node, "xosd", Some("run"));
    node.write_file(file("chain"), chain.as_bytes(), 0o600).unwrap();
    site.start_node(node).unwrap();
    soon("the node has a new certificate", || (read("chain") != chain).then_some(()));
    back(site);
    let ends = |chain: &str| {
        let identity = Identity::from_pem(chain, &key).expect("a certificate of the same key");
        validity(&identity.chain()[0]).unwrap().1
    };
    let day = std::time::Duration::from_secs(24 * 3600);
    assert!(ends(&read("chain")) > ends(chain).plus(day), "it ends as soon as the old one");
}

/// If it failed, one site could act for another, or for people who submitted nothing to it.
fn a_core_speaks_for_itself_only(w: &World) {
    let pem = w.pisa.core.read_file("/var/lib/xos/ca/core.pem").unwrap();
    let pem = String::from_utf8(pem).unwrap();
    let leave_out = ["/membership", "/memberships/", "/mandates"];
    let mut people = requests_of_others();
    people.retain(|(line, _)| !leave_out.iter().any(|l| line.contains(l)));
    all_refused(w, "the core of pisa", &pem, "rennes", &people);
    let ask = |line: &str, body: &str| {
        ask(&w.laptop(), "rennes", Proof::Certificate(&pem), line, body.as_bytes())
    };
    for job in ["1.pisa", "1.rennes"] {
        let digest = "0".repeat(64);
        let mandate = format!(
            "{{\"job\":\"{job}\",\"vo\":\"{VO}\",\"digest\":\"{digest}\",\
             \"proof\":{{\"submission\":\"a.b.c\"}}}}"
        );
        let said = ask("POST /v1/mandates", &mandate);
        let understood = !said.text.contains("is not what this request takes");
        let refused = (400..500).contains(&said.status) && understood;
        assert!(refused, "a mandate for nothing: {}", said.text);
    }
    let ticket = "{\"mandate\":\"a.b.c\",\"node\":\"n1.pisa\",\"node_key\":\"00\"}";
    let said = ask("POST /v1/tickets", ticket);
    assert!((400..500).contains(&said.status), "a ticket without a mandate: {}", said.text);
}
