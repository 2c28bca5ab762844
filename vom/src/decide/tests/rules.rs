//! The VO's rules in its log, and what nodes are told of them.

use super::*;
use crate::live::Live;
use crate::names::NamesOf;
use crate::rules::logins::{Differ, Findings, Logins};
use crate::rules::{Book, Court, Engine, Judge, look};
use crate::state::{Block, Violation};
use std::sync::Arc;
use xos_api::policy::{Rule, RuleName};
use xos_api::vom::{AccountState, VoAccounts};

const BLOCK: Block = Block { base: 2_000_000_000, size: 65_536 };

fn judge() -> Judge {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(Judge::new()).unwrap()
}

fn court(vo: &Book, site: &Book) -> Court {
    Court { vo: Arc::new(Engine::new(vo)), site: Arc::new(Engine::new(site)) }
}

/// What a node of a site without rules is told of the VO.
pub(super) fn accounts(
    vo: &Vo,
    block: Block,
    since: Option<u64>,
    names: &NamesOf,
) -> Vec<VoAccounts> {
    let (judge, court) = (judge(), court(&vo.rules, &Book::of_site()));
    let findings = Arc::new(Findings::new(&court, &id("pisa"), &id("n1.pisa")));
    let logins = Logins::new(&judge, findings, Differ::nobody());
    vo.accounts(block, AccountState::Active, since, names, &logins)
}

fn rule(name: &str, who: &str, what: &str, effect: &str) -> Rule {
    let rule = serde_json::json!({ "name": name, "who": who, "what": what, "effect": effect });
    serde_json::from_value(rule).unwrap()
}

/// A part of a change of rules.
fn part(base: u64, part: u32, more: bool, put: Vec<Rule>) -> Command {
    Command::ChangeRules { base, part, more, put, remove: Vec::new() }
}

fn names(h: &Home) -> Vec<&str> {
    h.vo.rules.rules().map(|r| r.name.as_str()).collect()
}

/// If it failed, members could give themselves rights, or a site could rule in VOs of others.
#[test]
fn administrators_and_the_home_sites_change_rules_and_nobody_else() {
    let mut h = Home::new(&policy());
    h.join("bob@pisa", &[]);
    h.join("carol@pisa", &["admin"]);
    let change = |h: &Home, name: &str| {
        part(h.vo.rules.version, 0, false, vec![rule(name, "*", "run", "deny")])
    };
    let c = change(&h, "a");
    assert_eq!(h.kind("bob@pisa", c.clone()), Kind::Denied);
    assert_eq!(h.run(&Subject::Core(id("pisa")), c.clone()).unwrap_err().kind, Kind::Denied);
    h.ok("carol@pisa", c);
    let c = change(&h, "b");
    h.ok("alice@rennes", c);
    let root =
        Subject::Person { person: id("root@rennes"), site_admin: true, carried: Carried::All };
    let remove: Vec<RuleName> = vec![id("a"), id("b")];
    let base = h.vo.rules.version;
    let undo = Command::ChangeRules { base, part: 0, more: false, put: vec![], remove };
    assert!(h.run(&root, undo).unwrap(), "a site's administrator cannot undo rules");
    assert_eq!(h.vo.rules.rules().cloned().collect::<Vec<_>>(), {
        Book::of_vo().rules().cloned().collect::<Vec<_>>()
    });
}

/// If it failed, half a change would count, or one of two administrators would undo the other's
/// without a word.
#[test]
fn a_change_counts_when_all_of_it_is_there_and_follows_what_it_was_made_from() {
    let mut h = Home::new(&policy());
    let one = |name: &str| vec![rule(name, "*", "run", "deny")];
    h.ok("alice@rennes", part(0, 0, true, one("a")));
    assert!(!names(&h).contains(&"a"), "half a change counts");
    // Another one begins: the first cannot go on, and leaves nothing behind.
    h.ok("alice@rennes", part(0, 0, true, one("b")));
    assert_eq!(h.kind("alice@rennes", part(0, 2, false, one("x"))), Kind::Conflict);
    h.ok("alice@rennes", part(0, 1, false, one("c")));
    assert!(names(&h).contains(&"b") && names(&h).contains(&"c") && !names(&h).contains(&"a"));
    assert_eq!(h.vo.rules.version, h.vo.number);
    assert_eq!(h.kind("alice@rennes", part(0, 1, false, one("x"))), Kind::Conflict);
    let e = h.run(&person("alice@rennes"), part(0, 0, false, one("x"))).unwrap_err();
    assert_eq!(e.kind, Kind::Conflict);
    assert!(e.message.contains("alice@rennes set b, c"), "{e}");
}

/// If it failed, a hostile home could make sites keep rules that no home takes, or without end.
#[test]
fn followers_take_no_rule_that_a_home_would_not() {
    let h = Home::new(&policy());
    let change = |put| Change::RulesChanged { base: 0, part: 0, more: false, put, remove: vec![] };
    let mut foreign = rule("a", "*", "run", "deny");
    foreign.vo = id("other.pisa");
    assert!(matches!(h.vo.check_change(&change(vec![foreign])), Err(Violation::Rule(_))));
    let many = |n: usize| (0..n).map(|i| rule(&format!("r{i}"), "*", "run", "deny")).collect();
    assert!(matches!(h.vo.check_change(&change(many(10_000))), Err(Violation::Limit(..))));
    assert_eq!(h.vo.check_change(&change(many(9_000))), Ok(()));
    let noted = |r: Rule| Rule { note: "n".repeat(200), ..r };
    let long: Vec<Rule> = many(9_000).into_iter().map(noted).collect();
    assert!(matches!(h.vo.check_change(&change(long)), Err(Violation::Limit(..))));
}

/// If it failed, whom rules keep out could sign in, nodes would be told of everybody again for each
/// change of a rule, or of too few.
#[test]
fn nodes_are_told_whom_rules_keep_out_and_only_what_changed() {
    let mut h = Home::new(&policy());
    h.join("bob@pisa", &[]);
    h.join("carol@pisa", &["pilot"]);
    let (judge, none) = (judge(), NamesOf::default());
    let before = court(&h.vo.rules, &Book::of_site());
    let site = Book::with(
        1,
        Book::of_site().rules().cloned().chain([
            rule("no-bob", "person:bob@pisa", "login", "deny"),
            rule("no-jobs", "role:pilot", "run", "deny"),
        ]),
    );
    let after = court(&h.vo.rules, &site);
    let at = (id("pisa"), id("n1.pisa"));
    let told = |h: &Home, court: &Court, before: Option<&Court>, since| {
        let findings = |court: &Court| Arc::new(Findings::new(court, &at.0, &at.1));
        let (findings, before) = (findings(court), before.map(findings));
        let live = Live::new(h.vo.clone(), Chain::start(), 0, NOW);
        let differ = before.map(|before| Arc::new(findings.differing(&judge, &live, &before)));
        let logins = Logins::new(&judge, findings, differ.unwrap_or_else(Differ::nobody));
        let parts = h.vo.accounts(BLOCK, AccountState::Active, since, &none, &logins);
        let all = parts.into_iter().flat_map(|p| p.members);
        all.map(|m| (m.person.to_string(), m.refused.unwrap_or_default())).collect::<Vec<_>>()
    };
    let whole = told(&h, &after, None, None);
    assert_eq!(whole.len(), 3);
    let number = Some(h.vo.number);
    assert_eq!(told(&h, &before, Some(&before), number), []);
    let step = told(&h, &after, Some(&before), number);
    assert_eq!(step.len(), 1, "{step:?}");
    assert_eq!(step[0].0, "bob@pisa");
    assert!(step[0].1.starts_with("rule no-bob of site pisa does not let bob@pisa sign in"));
    assert_eq!(whole.iter().filter(|(_, refused)| !refused.is_empty()).count(), 1);
    // The rule goes.
    assert_eq!(told(&h, &before, Some(&after), number), [("bob@pisa".into(), String::new())]);
    // Somebody gets a role that a rule keeps out, by a change of the VO.
    let out = vec![rule("no-pilots", "role:pilot", "login", "deny")];
    h.ok("alice@rennes", part(0, 0, false, out));
    let now = court(&h.vo.rules, &Book::of_site());
    assert_eq!(told(&h, &now, Some(&before), number)[0].0, "carol@pisa");
    let number = Some(h.vo.number);
    h.ok("alice@rennes", Command::GrantRole { person: id("bob@pisa"), role: id("pilot") });
    let step = told(&h, &now, Some(&now), number);
    assert!(step.len() == 1 && step[0].1.contains("no-pilots"), "{step:?}");
}

/// If it failed, each suspension would cost a walk over a large VO for each node, or a change of
/// rules a judgement for each member and node, and removal would take as long.
#[test]
fn a_change_of_a_large_vo_is_told_without_a_walk() {
    let mut h = Home::new(&policy());
    h.join("bob@pisa", &["pilot"]);
    let bob = h.vo.members[&id::<PersonId>("bob@pisa")].clone();
    for i in 0..100_000u32 {
        let number = xos_base::MemberNumber(i + 10);
        h.vo.members.insert(id(&format!("p{i}@pisa")), Member { number, ..bob.clone() });
    }
    h.vo.index();
    let (judge, none) = (judge(), NamesOf::default());
    let before = court(&h.vo.rules, &Book::of_site());
    let number = h.vo.number;
    let person: PersonId = id("p7@pisa");
    h.ok("alice@rennes", Command::SuspendMember { person: person.clone(), reason: "x".into() });
    assert_eq!(h.vo.touched.after(number).count(), 1, "who is looked at");
    crate::state::check_index(&h.vo);
    // Rules for logins that tell nobody of these apart.
    let pilots = rule("no-pilots", "role:pilot", "login", "deny");
    let site = Book::with(1, Book::of_site().rules().cloned().chain([pilots]));
    let after = court(&h.vo.rules, &site);
    let findings = |court: &Court| Arc::new(Findings::new(court, &id("pisa"), &id("n1.pisa")));
    let (old, new) = (findings(&before), findings(&after));
    let logins = Logins::new(&judge, new.clone(), Differ::nobody());
    let parts = h.vo.accounts(BLOCK, AccountState::Active, Some(number), &none, &logins);
    let members: Vec<_> = parts.iter().flat_map(|p| &p.members).collect();
    assert_eq!(members.len(), 1);
    assert_eq!(members[0].person, person);
    assert_eq!(new.judged(), 1);
    let live = Live::new(h.vo.clone(), Chain::start(), 0, NOW);
    assert_eq!(new.differing(&judge, &live, &old).who.len(), 100_001);
    assert_eq!(new.judged(), 2, "each class is judged once: pilots, and the owner");
    // Of a change of rules that is not complete nodes need not hear.
    let news = h.vo.news;
    h.ok("alice@rennes", part(0, 0, true, vec![rule("a", "*", "run", "deny")]));
    assert_eq!(h.vo.news, news);
    h.ok("alice@rennes", part(0, 1, false, vec![rule("b", "*", "run", "deny")]));
    assert_eq!(h.vo.news, h.vo.number);
}

/// If it failed, an administrator could take from all owners what they see of their VO, or would
/// not be told that nobody can work any more.
#[test]
fn rules_that_lock_out_are_refused_and_what_nobody_can_do_is_told() {
    let mut h = Home::new(&policy());
    h.join("bob@pisa", &["admin"]);
    let judge = judge();
    let with = |more: Vec<Rule>| Book::with(1, Book::of_vo().rules().cloned().chain(more));
    let tried = |h: &Home| look::Tried::of(&h.vo, Arc::new(Engine::new(&h.vo.rules)), NOW);
    let check = |h: &Home, book: &Book| look::check_owners(&judge, &tried(h), book);
    let e = check(&h, &with(vec![rule("x", "*", "see", "deny")])).unwrap_err();
    assert_eq!(e.kind, Kind::Invalid);
    assert!(e.message.contains("rule x of demo.rennes does not let alice@rennes"), "{e}");
    assert!(check(&h, &Book::with(1, [])).is_err(), "no rule lets them");
    for what in ["login", "submit", "run", "cancel"] {
        let e = check(&h, &with(vec![rule("x", "*", what, "deny")])).unwrap_err();
        assert!(e.message.contains("rule x of demo.rennes"), "{what}: {e}");
    }
    let not_alice = with(vec![rule("x", "person:alice@rennes", "*", "deny")]);
    assert!(check(&h, &not_alice).is_err());
    h.join("dora@rennes", &["owner"]);
    check(&h, &not_alice).unwrap();
    check(&h, &with(vec![rule("x", "role:admin", "*", "deny")])).unwrap();

    let nobody = |book: &Book| look::nobody_in(&judge, &tried(&h), book);
    assert_eq!(nobody(&Book::of_vo()), Vec::<String>::new());
    let told = nobody(&with(vec![rule("x", "*", "login", "deny")]));
    assert_eq!(told.len(), 1);
    assert!(told[0].contains("sign in"), "{told:?}");
    let site = |book: &Book| look::nobody_at(&judge, &id("pisa"), book, &[tried(&h)]);
    assert_eq!(site(&Book::of_site()), Vec::<String>::new());
    assert_eq!(site(&Book::with(1, [])).len(), 3);
}
