//! Rules of VOs and sites: who sets them, where they count, what they would say.

use crate::hostile::{Sends, admitted, disbelieved, follow, log};
use crate::world::{Site, until};
use crate::{found, id, join};
use xos_api::policy::*;
use xos_api::vom::*;
use xos_base::{Kind, Membership, VoId};
use xos_net::Rules;
use xos_vom::Vom;

const DEMO: &str = "demo.rennes";

fn rule(name: &str, who: &str, what: &str, effect: &str) -> Rule {
    let rule = serde_json::json!({ "name": name, "who": who, "what": what, "effect": effect });
    serde_json::from_value(rule).unwrap()
}

fn at(site: &str, node: Option<&str>) -> Place {
    Place { site: id(site), node: node.map(id) }
}

async fn of_vo(site: &Site) -> RuleList {
    site.ask(&site.own("alice"), GetVoRules { vo: id(DEMO) }).await.unwrap()
}

/// The list with more rules, as a request made from it.
fn with(list: &RuleList, more: Vec<Rule>) -> SetVoRules {
    let rules = list.rules.iter().cloned().chain(more).collect();
    SetVoRules { vo: id(DEMO), version: list.version, rules }
}

fn site_with(list: &RuleList, more: Vec<Rule>) -> SetSiteRules {
    let SetVoRules { version, rules, .. } = with(list, more);
    SetSiteRules { version, rules }
}

async fn membership(site: &Site, person: &str) -> Membership {
    let of = MembershipOf { vo: id(DEMO), person: id(person), since: None };
    site.serve_ask(of).await.unwrap().membership
}

/// If it failed, one of two administrators would undo the other's rules without a word, or who is
/// none would set them.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_administrators_at_once_the_second_is_told() {
    let rennes = Site::new("rennes").await;
    let vom = rennes.start().await;
    found(&rennes).await;
    let (alice, bob) = (rennes.own("alice"), rennes.own("bob"));
    join(&rennes, &bob, DEMO).await;
    // Else nobody besides owners could run jobs.
    join(&rennes, &rennes.own("carol"), DEMO).await;
    let seen = of_vo(&rennes).await;
    assert_eq!((seen.version, seen.rules.len()), (0, 7));
    let mine = || vec![rule("no-bob", "person:bob@rennes", "run", "deny")];
    let e = rennes.ask(&bob, with(&seen, mine())).await.unwrap_err();
    assert_eq!(e.kind, Kind::Denied);
    let grant = GrantRole { vo: id(DEMO), person: id("bob@rennes"), role: id("admin") };
    rennes.ask(&alice, grant).await.unwrap();
    let set = rennes.ask(&alice, with(&seen, mine())).await.unwrap();
    assert!(set.version > 0 && set.warnings.is_empty(), "{set:?}");
    let theirs = with(&seen, vec![rule("no-pisa", "site:pisa", "run", "deny")]);
    let e = rennes.ask(&bob, theirs).await.unwrap_err();
    assert_eq!(e.kind, Kind::Conflict);
    assert!(e.message.contains("alice@rennes set no-bob"), "{e}");
    let now = of_vo(&rennes).await;
    assert!(now.rules.iter().all(|r| r.name.as_str() != "no-pisa"), "half of it was taken");
    assert_eq!(now.changed.as_ref().unwrap().set, vec![id::<RuleName>("no-bob")]);
    let again = SetVoRules { version: set.version, ..with(&now, vec![]) };
    assert_eq!(rennes.ask(&bob, again).await.unwrap().version, set.version, "nothing changes");

    let m = membership(&rennes, "bob@rennes").await;
    let denial = vom.judge(&m, Action::Run, &at("rennes", None)).unwrap_err();
    assert_eq!((denial.side, denial.rule), (Side::Vo, Some(id("no-bob"))));
    vom.judge(&m, Action::Submit, &at("rennes", None)).unwrap();
    let twice = vec![rule("a", "*", "run", "deny"), rule("a", "*", "see", "deny")];
    assert_eq!(rennes.ask(&alice, with(&now, twice)).await.unwrap_err().kind, Kind::Invalid);
}

/// If it failed, who has a certificate made that leaves a group or role out would get round a rule.
#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_carries_less_gets_round_no_rule() {
    let rennes = Site::new("rennes").await;
    let vom = rennes.start().await;
    found(&rennes).await;
    let (alice, bob) = (rennes.own("alice"), rennes.own("bob"));
    join(&rennes, &bob, DEMO).await;
    let (vo, name) = (|| id::<VoId>(DEMO), || id("students"));
    rennes.ask(&alice, CreateGroup { vo: vo(), name: name() }).await.unwrap();
    let person = id("bob@rennes");
    rennes.ask(&alice, AddToGroup { vo: vo(), name: name(), person }).await.unwrap();
    let (person, role) = (id("bob@rennes"), id("pilot"));
    rennes.ask(&alice, GrantRole { vo: vo(), person, role }).await.unwrap();
    let more = vec![
        rule("no-students", "group:students", "run", "deny"),
        rule("pilots", "role:pilot", "cancel", "allow"),
    ];
    rennes.ask(&alice, with(&of_vo(&rennes).await, more)).await.unwrap();
    let whole = membership(&rennes, "bob@rennes").await;
    let less = Membership { groups: whole.groups[..1].to_vec(), roles: vec![], ..whole.clone() };
    for m in [&whole, &less] {
        let denial = vom.judge(m, Action::Run, &at("rennes", None)).unwrap_err();
        assert_eq!(denial.rule, Some(id("no-students")));
    }
    vom.judge(&whole, Action::Cancel, &at("rennes", None)).unwrap();
    assert!(vom.judge(&less, Action::Cancel, &at("rennes", None)).is_err());
}

/// If it failed, an administrator could take all owners' sight of their VO, nobody would be warned
/// that nobody can work, or nobody could undo it.
#[tokio::test(flavor = "multi_thread")]
async fn rules_lock_nobody_out_for_good() {
    let rennes = Site::new("rennes").await;
    let vom = rennes.start().await;
    found(&rennes).await;
    let alice = rennes.own("alice");
    let seen = of_vo(&rennes).await;
    let see = vec![rule("blind", "*", "see", "deny")];
    let e = rennes.ask(&alice, with(&seen, see)).await.unwrap_err();
    assert_eq!(e.kind, Kind::Invalid);
    assert!(e.message.contains("rule blind of demo.rennes"), "{e}");
    assert_eq!(of_vo(&rennes).await, seen);
    let no_login = vec![rule("closed", "*", "login", "deny")];
    let e = rennes.ask(&alice, with(&seen, no_login)).await.unwrap_err();
    assert!(e.kind == Kind::Invalid && e.message.contains("rule closed of demo.rennes"), "{e}");
    let others = vec![rule("no-nancy", "site:nancy", "login", "deny")];
    let set = rennes.ask(&alice, with(&seen, others)).await.unwrap();
    // The home site's administrator, who is no member, takes it back.
    let undo = SetVoRules { version: set.version, ..with(&seen, vec![]) };
    rennes.ask(&rennes.admin(), undo).await.unwrap();
    assert_eq!(of_vo(&rennes).await.rules, seen.rules);

    // A site that lets nobody do anything is warned, and goes back.
    let none = SetSiteRules { version: 0, rules: vec![] };
    assert_eq!(rennes.ask(&alice, none.clone()).await.unwrap_err().kind, Kind::Denied);
    let core = rennes.core_of(&rennes);
    assert_eq!(rennes.ask(&core, none.clone()).await.unwrap_err().kind, Kind::Denied);
    let everybody = rennes.ask(&rennes.admin(), GetSiteRules {}).await.unwrap();
    let set = rennes.ask(&rennes.admin(), none.clone()).await.unwrap();
    let m = membership(&rennes, "alice@rennes").await;
    let denial = vom.judge(&m, Action::Run, &at("rennes", None)).unwrap_err();
    assert_eq!((denial.side, denial.rule), (Side::Site, None));
    let e = rennes.ask(&rennes.admin(), none).await.unwrap_err();
    assert!(e.kind == Kind::Conflict && e.message.contains("root@rennes removed everybody"), "{e}");
    let undo = SetSiteRules { version: set.version, rules: everybody.rules };
    rennes.ask(&rennes.admin(), undo).await.unwrap();
    vom.judge(&m, Action::Run, &at("rennes", None)).unwrap();
}

/// If it failed, a restart, or another core of the site, would let in whom the site keeps out.
#[tokio::test(flavor = "multi_thread")]
async fn a_sites_rules_are_kept_and_known_to_each_core_that_sets_them() {
    let rennes = Site::new("rennes").await;
    let vom = rennes.start().await;
    let admin = rennes.admin();
    let list = rennes.ask(&admin, GetSiteRules {}).await.unwrap();
    let long =
        |i: usize| Rule { note: "n".repeat(150), ..rule(&format!("r{i}"), "*", "see", "allow") };
    let many: Vec<Rule> = (0..5000).map(long).collect();
    rennes.ask(&admin, site_with(&list, many)).await.unwrap();
    let kept = rennes.ask(&admin, GetSiteRules {}).await.unwrap();
    assert_eq!((kept.version, kept.rules.len()), (1, 5001));

    let mut twin = Site::new("rennes").await;
    twin.store = rennes.store.clone();
    let _twin = twin.start().await;
    let admin_there = twin.admin();
    assert_eq!(twin.ask(&admin_there, GetSiteRules {}).await.unwrap(), kept);
    let short = SetSiteRules { version: 1, rules: list.rules.clone() };
    twin.ask(&admin_there, short.clone()).await.unwrap();
    // This core does not know of it; it finds out before anything is lost.
    let e = rennes.ask(&admin, short).await.unwrap_err();
    assert_eq!(e.kind, Kind::Conflict, "{e}");
    let now = rennes.ask(&admin, GetSiteRules {}).await.unwrap();
    assert_eq!((now.version, now.rules), (2, list.rules));
    vom.stop();
}

async fn grid() -> (Site, Vom, Site, Vom) {
    let (rennes, pisa) = (Site::new("rennes").await, Site::new("pisa").await);
    rennes.trusts(&pisa);
    pisa.trusts(&rennes);
    let (home, replica) = (rennes.start().await, pisa.start().await);
    found(&rennes).await;
    let offer = OfferShare {
        vo: id(DEMO),
        cpu_milli: 4000,
        memory_bytes: 1 << 30,
        storage_bytes: 0,
        until: None,
        base: None,
    };
    pisa.ask(&pisa.admin(), offer).await.unwrap();
    let accept = AcceptShare { vo: id(DEMO), site: id("pisa"), version: 1 };
    rennes.ask(&rennes.own("alice"), accept).await.unwrap();
    (rennes, home, pisa, replica)
}

/// What the node of a site was told last of bob: `None` before it knows him.
fn told_of_bob(site: &Site) -> Option<Option<String>> {
    let heard = site.ear.heard.lock().unwrap();
    let mut members = heard.iter().rev().flat_map(|a| a.members.iter().rev());
    members.find(|m| m.person.name() == "bob").map(|m| m.refused.clone())
}

/// If it failed, what a VO decides would not count at other sites, a large change would be lost on
/// the way, or nodes would let in whom it keeps out.
#[tokio::test(flavor = "multi_thread")]
async fn a_vos_rules_travel_to_the_sites_and_their_nodes() {
    let (rennes, _home, pisa, replica) = grid().await;
    let bob = rennes.caller(&pisa, "bob@pisa", None, false);
    join(&rennes, &bob, DEMO).await;
    until("the node knows bob", || told_of_bob(&pisa).filter(Option::is_none)).await;
    let whole = || pisa.ear.heard.lock().unwrap().iter().filter(|a| a.full).count();
    let before = whole();
    let m = membership(&rennes, "bob@pisa").await;
    let seen = of_vo(&rennes).await;
    let mut more: Vec<Rule> = (0..9_000)
        .map(|i| rule(&format!("r{i}"), &format!("person:p{i}@pisa"), "run", "deny"))
        .collect();
    let mut no_login = rule("no-bob", "person:bob@pisa", "login", "deny");
    no_login.note = "he wrote so".into();
    no_login.place = id("node:n1.pisa");
    more.push(no_login);
    let set = rennes.ask(&rennes.own("alice"), with(&seen, more)).await.unwrap();
    let denial = until("pisa knows the rules", || {
        replica.judge(&m, Action::Login, &at("pisa", Some("n1.pisa"))).err()
    })
    .await;
    assert_eq!((denial.side, denial.rule), (Side::Vo, Some(id("no-bob"))));
    replica.judge(&m, Action::Login, &at("pisa", Some("n2.pisa"))).unwrap();
    let told = until("the node is told", || told_of_bob(&pisa).flatten()).await;
    assert_eq!(told, denial.text);
    assert!(told.ends_with(": he wrote so"), "{told}");
    assert_eq!(whole(), before, "all accounts were told again");
    // The site's own rule wins, and is told.
    let list = pisa.ask(&pisa.admin(), GetSiteRules {}).await.unwrap();
    let closed = site_with(&list, vec![rule("closed", "*", "login", "deny")]);
    pisa.ask(&pisa.admin(), closed).await.unwrap();
    until("the site's rule is told", || {
        told_of_bob(&pisa).flatten().filter(|text| text.contains("rule closed of site pisa"))
    })
    .await;
    // Both rules go, and so does the refusal.
    let back = SetVoRules { version: set.version, ..with(&seen, vec![]) };
    rennes.ask(&rennes.own("alice"), back).await.unwrap();
    pisa.ask(&pisa.admin(), SetSiteRules { version: 1, rules: list.rules }).await.unwrap();
    until("bob may again", || told_of_bob(&pisa).filter(Option::is_none)).await;
}

/// If it failed, a home could let people onto machines whose site keeps them out.
#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_homes_rules_do_not_widen_what_a_site_denies() {
    let (rennes, pisa) = (Site::new("rennes").await, Site::new("pisa").await);
    pisa.trusts(&rennes);
    let all = ["login", "submit", "run", "see", "cancel"];
    let put = all.iter().map(|what| rule(&format!("all-{what}"), "*", what, "allow")).collect();
    let remove = vec![id("members-login")];
    let wide = Change::RulesChanged { base: 0, part: 0, more: false, put, remove };
    // A part that follows nothing is not believed.
    let loose = Change::RulesChanged { base: 5, part: 1, more: false, put: vec![], remove: vec![] };
    let entries = log(&rennes, DEMO, vec![admitted("bob@rennes", 2), wide, loose]);
    let vom = follow(&pisa, Sends::new(entries)).await;
    assert_eq!(disbelieved(&pisa).await.1, 5, "a part that follows nothing was taken");
    let bob = Membership {
        vo: id(DEMO),
        person: id("bob@rennes"),
        number: xos_base::MemberNumber(2),
        epoch: xos_base::Epoch(1),
        groups: vec![],
        roles: vec![],
        expires: None,
    };
    vom.judge(&bob, Action::Cancel, &at("pisa", None)).unwrap();
    let list = pisa.ask(&pisa.admin(), GetSiteRules {}).await.unwrap();
    let closed = rule("no-bob", "person:bob@rennes", "*", "deny");
    pisa.ask(&pisa.admin(), site_with(&list, vec![closed])).await.unwrap();
    for action in Action::ALL {
        let denial = vom.judge(&bob, action, &at("pisa", None)).unwrap_err();
        assert_eq!((denial.side, denial.rule), (Side::Site, Some(id("no-bob"))), "{action}");
    }
}

/// If it failed, people would not learn which rule is in their way, or learn of others' what is
/// none of their business.
#[tokio::test(flavor = "multi_thread")]
async fn what_if_names_the_rule_to_those_whom_it_concerns() {
    let (rennes, _home, pisa, replica) = grid().await;
    let bob = rennes.caller(&pisa, "bob@pisa", None, false);
    join(&rennes, &bob, DEMO).await;
    let ask = |person: Option<&str>, what, place: &str| WhatIf {
        vo: id::<VoId>(DEMO),
        person: person.map(id),
        groups: vec![],
        roles: vec![],
        what,
        place: id(place),
    };
    let alice = rennes.own("alice");
    let yes = rennes.ask(&bob, ask(Some("bob@pisa"), Action::Run, "*")).await.unwrap();
    assert!(yes.allowed && yes.side == Side::Vo);
    assert_eq!(yes.rule.unwrap().name.as_str(), "members-run");
    let e = rennes.ask(&bob, ask(Some("alice@rennes"), Action::Run, "*")).await.unwrap_err();
    assert_eq!(e.kind, Kind::Denied);
    // Not as if they were somebody else: so a site's rules could be read one by one.
    let other = WhatIf { roles: vec![id("pilot")], ..ask(Some("bob@pisa"), Action::Run, "*") };
    assert_eq!(rennes.ask(&bob, other).await.unwrap_err().kind, Kind::Denied);
    let no = rennes.ask(&alice, ask(Some("bob@pisa"), Action::See, "site:rennes")).await.unwrap();
    assert!(!no.allowed && no.rule.is_none(), "{no:?}");
    let as_admin = WhatIf { roles: vec![id("admin")], ..ask(Some("bob@pisa"), Action::See, "*") };
    assert!(rennes.ask(&alice, as_admin).await.unwrap().allowed);
    assert!(rennes.ask(&alice, ask(None, Action::Run, "*")).await.unwrap().allowed);
    let e = rennes.ask(&alice, ask(Some("eve@pisa"), Action::Run, "*")).await.unwrap_err();
    assert_eq!(e.kind, Kind::NotFound);
    let e = rennes.ask(&alice, ask(None, Action::Run, "site:pisa")).await.unwrap_err();
    assert!(e.kind == Kind::Invalid && e.to_string().contains("--site pisa"), "{e}");

    // At pisa, whose rules only its administrators read.
    let list = pisa.ask(&pisa.admin(), GetSiteRules {}).await.unwrap();
    let more = vec![
        Rule { note: "because".into(), ..rule("no-alice", "person:alice@rennes", "run", "deny") },
        rule("no-rennes", "site:rennes", "run", "deny"),
    ];
    pisa.ask(&pisa.admin(), site_with(&list, more)).await.unwrap();
    let m = membership(&rennes, "alice@rennes").await;
    let place = at("pisa", None);
    until("pisa knows alice", || replica.judge(&m, Action::Submit, &place).ok()).await;
    let there = pisa.caller(&rennes, "alice@rennes", None, false);
    let names = |v: &Verdict, side| -> Vec<String> {
        let of = v.matched.iter().filter(|m| m.side == side);
        of.map(|m| m.rule.name.to_string()).collect()
    };
    let mine = pisa.ask(&there, ask(Some("alice@rennes"), Action::Run, "*")).await.unwrap();
    assert!(!mine.allowed && mine.side == Side::Site, "{mine:?}");
    assert_eq!(names(&mine, Side::Site), ["no-alice"]);
    assert!(mine.text.ends_with(": because"), "whom it hits reads why: {mine:?}");
    let such =
        WhatIf { groups: vec![id("members")], ..ask(Some("alice@rennes"), Action::Run, "*") };
    let such = pisa.ask(&there, such).await.unwrap();
    assert!(!such.allowed && !format!("{such:?}").contains("because"), "{such:?}");
    let theirs = ask(Some("alice@rennes"), Action::Run, "*");
    let theirs = pisa.ask(&pisa.admin(), theirs).await.unwrap();
    assert_eq!(names(&theirs, Side::Site), ["everybody", "no-alice", "no-rennes"]);
    assert_eq!(names(&theirs, Side::Vo), ["members-run"]);
    assert_eq!(pisa.ask(&there, GetSiteRules {}).await.unwrap_err().kind, Kind::Denied);
}
