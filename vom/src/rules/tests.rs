//! Who may do what by which rules, and the index against casbin alone.

use super::model::Casbin;
use super::*;
use proptest::prelude::*;
use std::fmt::Write;
use xos_api::policy::{Rule, RuleName};
use xos_base::{GroupName, PersonId, RoleName};

fn id<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().unwrap()
}

/// A rule: name, who, vo, what, where, effect.
fn rule(words: [&str; 6]) -> Rule {
    let [name, who, vo, what, place, effect] = words;
    serde_json::from_value(serde_json::json!({
        "name": name, "who": who, "vo": vo, "what": what, "where": place, "effect": effect,
    }))
    .unwrap()
}

fn judge() -> Judge {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(Judge::new()).unwrap()
}

fn court(vo: &Book, site: &Book) -> Court {
    Court { vo: Arc::new(Engine::new(vo)), site: Arc::new(Engine::new(site)) }
}

fn asked(person: &str, groups: &[&str], roles: &[&str], action: Action) -> Asked {
    Asked {
        vo: id("demo.rennes"),
        person: Some(id(person)),
        groups: groups.iter().map(|g| id(g)).collect(),
        roles: roles.iter().map(|r| id(r)).collect(),
        action,
        place: Place { site: id("rennes"), node: Some(id("n1.rennes")) },
    }
}

/// The rules of a VO or site of the matrix: none, or these.
fn book(default: Book, more: &[[&str; 6]]) -> Book {
    Book::with(1, default.rules().cloned().chain(more.iter().map(|words| rule(*words))))
}

/// Who may do what under which rules of VO and site. A difference means that somebody may do more,
/// or less, than before.
#[test]
fn permissions_are_those_of_the_golden_matrix() {
    let people: [(&str, &str, &[&str], &[&str]); 4] = [
        ("alice, member", "alice@rennes", &["members"], &[]),
        ("bob, admin", "bob@rennes", &["members"], &["admin"]),
        ("dora, owner", "dora@rennes", &["members"], &["owner"]),
        ("carol of pisa", "carol@pisa", &["members", "physics"], &[]),
    ];
    let deny = "deny";
    let cases: [(&str, Book, Book); 9] = [
        ("nothing set", Book::of_vo(), Book::of_site()),
        (
            "VO: deny group:physics *",
            book(Book::of_vo(), &[["a", "group:physics", "*", "*", "*", deny]]),
            Book::of_site(),
        ),
        (
            "VO: deny * login at node:n1.rennes; allow role:owner the same",
            book(
                Book::of_vo(),
                &[
                    ["a", "*", "*", "login", "node:n1.rennes", deny],
                    ["b", "role:owner", "*", "login", "node:n1.rennes", "allow"],
                ],
            ),
            Book::of_site(),
        ),
        ("VO: no rules", Book::with(1, []), Book::of_site()),
        (
            "site: deny site:pisa run",
            Book::of_vo(),
            book(Book::of_site(), &[["a", "site:pisa", "*", "run", "*", deny]]),
        ),
        (
            "site: deny demo.rennes, at another site",
            Book::of_vo(),
            book(Book::of_site(), &[["a", "*", "demo.rennes", "*", "site:pisa", deny]]),
        ),
        (
            "site: deny person:lice@rennes",
            Book::of_vo(),
            book(Book::of_site(), &[["a", "person:lice@rennes", "*", "*", "*", deny]]),
        ),
        (
            "site: only role:owner in demo.rennes",
            Book::of_vo(),
            book(Book::with(1, []), &[["a", "role:owner", "demo.rennes", "*", "*", "allow"]]),
        ),
        (
            "site: deny role:admin cancel; VO: deny role:admin see",
            book(Book::of_vo(), &[["a", "role:admin", "*", "see", "*", deny]]),
            book(Book::of_site(), &[["a", "role:admin", "*", "cancel", "*", deny]]),
        ),
    ];
    let judge = judge();
    let mut text = String::new();
    for (name, vo, site) in &cases {
        let court = court(vo, site);
        writeln!(text, "{name}").unwrap();
        for (who, person, groups, roles) in people {
            write!(text, "  {who:14}").unwrap();
            for action in Action::ALL {
                let f = judge.decide(&court, &asked(person, groups, roles, action));
                let verdict = match (f.allowed, f.side) {
                    (true, _) => "yes",
                    (false, Side::Site) => "SITE",
                    (false, Side::Vo) => "vo",
                };
                write!(text, " {action}:{verdict:4}").unwrap();
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rules.txt");
    if std::env::var_os("XOS_BLESS").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(text, golden, "rights changed; if meant so: XOS_BLESS=1 cargo nextest run");
}

/// If it failed, people would not learn which rule of whom keeps them off, or why.
#[test]
fn refusals_name_side_rule_and_note() {
    let mut no_run = rule(["no-run", "*", "*", "run", "*", "deny"]);
    no_run.note = "the cluster is being moved".into();
    let judge = judge();
    let told = |court: &Court, action| {
        let asked = asked("alice@rennes", &["members"], &[], action);
        let finding = judge.decide(court, &asked);
        finding.denial(&asked, &id("rennes")).unwrap()
    };
    let site = Book::with(1, Book::of_site().rules().cloned().chain([no_run.clone()]));
    let denial = told(&court(&Book::of_vo(), &site), Action::Run);
    assert_eq!((denial.side, denial.rule), (Side::Site, Some(id::<RuleName>("no-run"))));
    let text = "rule no-run of site rennes does not let alice@rennes run jobs in demo.rennes: \
                the cluster is being moved";
    assert_eq!(denial.text, text);
    let denial = told(&court(&Book::of_vo(), &Book::of_site()), Action::See);
    assert_eq!((denial.side, denial.rule), (Side::Vo, None));
    let text =
        "no rule of demo.rennes lets alice@rennes look at other members' jobs in demo.rennes";
    assert_eq!(denial.text, text);
    // PAM's messages hold 512 bytes.
    let longest = |n: usize| "n".repeat(n);
    let names = Rule { name: id(&longest(32)), note: longest(200), ..no_run };
    let label = longest(24);
    let mut asked = asked(&format!("{}@{label}", longest(32)), &[], &[], Action::Login);
    asked.vo = id(&format!("{label}.{label}"));
    let vo = Finding { allowed: false, side: Side::Vo, rule: Some(Arc::new(names)) };
    assert!(vo.text(&asked, &id(&label)).len() <= 500);
}

/// If it failed, a verdict would outlive the rules that it was made by, or be another's.
#[test]
fn what_is_remembered_is_of_these_rules_and_this_question() {
    let judge = judge();
    let alice = asked("alice@rennes", &["members"], &[], Action::Run);
    let before = court(&Book::of_vo(), &Book::of_site());
    assert!(judge.judge(&before, &alice).allowed && judge.judge(&before, &alice).allowed);
    let deny = |of: Book| book(of, &[["a", "person:alice@rennes", "*", "run", "*", "deny"]]);
    let by_site = court(&Book::of_vo(), &deny(Book::of_site()));
    assert_eq!(judge.judge(&by_site, &alice).side, Side::Site);
    assert!(!judge.judge(&court(&deny(Book::of_vo()), &Book::of_site()), &alice).allowed);
    assert!(judge.judge(&by_site, &Asked { vo: id("x.pisa"), ..alice.clone() }).rule.is_some());
    let mut bob = alice.clone();
    bob.person = Some(id("bob@rennes"));
    assert!(judge.judge(&by_site, &bob).allowed);
    assert!(judge.judge(&before, &alice).allowed);
}

fn any_rules() -> impl Strategy<Value = Vec<Rule>> {
    let who = prop::sample::select(vec![
        "*",
        "person:alice@rennes",
        "person:bob@pisa",
        "site:rennes",
        "site:pisa",
        "group:members",
        "group:physics",
        "group:phys",
        "role:admin",
        "role:owner",
    ]);
    let vo = prop::sample::select(vec!["*", "demo.rennes", "other.pisa"]);
    let what = prop::sample::select(vec!["*", "login", "submit", "run", "see", "cancel"]);
    let place = prop::sample::select(vec![
        "*",
        "site:rennes",
        "site:pisa",
        "node:n1.rennes",
        "node:n2.pisa",
    ]);
    let effect = prop::sample::select(vec!["allow", "allow", "deny"]);
    let one = (who, vo, what, place, effect);
    prop::collection::vec(one, 0..40).prop_map(|all| {
        let named = all.into_iter().enumerate().map(|(i, (who, vo, what, place, effect))| {
            rule([&format!("r{i:02}"), who, vo, what, place, effect])
        });
        named.collect()
    })
}

fn any_question() -> impl Strategy<Value = Asked> {
    let person =
        prop::option::of(prop::sample::select(vec!["alice@rennes", "bob@pisa", "al@pisa"]));
    let vo = prop::sample::select(vec!["demo.rennes", "other.pisa"]);
    let group = prop::sample::subsequence(vec!["members", "physics", "chemistry"], 0..=3);
    let role = prop::sample::subsequence(vec!["admin", "owner", "pilot"], 0..=3);
    let action = prop::sample::select(Action::ALL.to_vec());
    let place = prop::sample::select(vec![
        ("rennes", None),
        ("rennes", Some("n1.rennes")),
        ("pisa", None),
        ("pisa", Some("n2.pisa")),
    ]);
    (person, vo, group, role, action, place).prop_map(|(person, vo, groups, roles, action, at)| {
        Asked {
            vo: id(vo),
            person: person.map(id::<PersonId>),
            groups: groups.into_iter().map(id::<GroupName>).collect(),
            roles: roles.into_iter().map(id::<RoleName>).collect(),
            action,
            place: Place { site: id(at.0), node: at.1.map(id) },
        }
    })
}

proptest! {
    /// The index may leave out only what does not matter: what it and casbin say together is what
    /// casbin says that looks at all rules; and the rule named is one that says so.
    #[test]
    fn the_index_judges_as_casbin_over_all_rules_does(
        rules in any_rules(),
        questions in prop::collection::vec(any_question(), 1..12),
    ) {
        thread_local! {
            static JUDGE: Judge = judge();
            static ALONE: Casbin = {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(Casbin::new()).unwrap()
            };
        }
        let engine = Engine::new(&Book::with(1, rules.clone()));
        for asked in questions {
            let alone = ALONE.with(|casbin| casbin.allows(&asked, rules.iter()));
            let finding = JUDGE.with(|judge| judge.side(Side::Vo, &engine, &asked));
            prop_assert_eq!(finding.allowed, alone, "{:?}", asked);
            let by_itself =
                |r: &Rule| ALONE.with(|casbin| casbin.allows(&asked, std::iter::once(r)));
            // A rule speaks of the request when it alone, made to allow, allows it.
            let speaks = |r: &Rule| {
                by_itself(&Rule { effect: xos_api::policy::Effect::Allow, ..r.clone() })
            };
            let speaking: Vec<Rule> = rules.iter().filter(|r| speaks(r)).cloned().collect();
            let matching: Vec<Rule> =
                engine.matching(&asked).iter().map(|r| (**r).clone()).collect();
            prop_assert_eq!(&matching, &speaking);
            let first = speaking.iter().find(|r| (r.effect.as_str() == "allow") == alone);
            prop_assert_eq!(finding.rule.as_deref(), first);
        }
    }
}

/// Logins that no rule touches cost a VO of a million members nothing: if it failed, all would be
/// judged one by one, or somebody whom a rule keeps out would not be told to nodes.
#[test]
fn logins_are_free_only_where_no_rule_keeps_anybody_out() {
    let free = |vo: &Book, site: &Book| court(vo, site).login_is_free();
    let (vo, site) = (Book::of_vo(), Book::of_site());
    assert!(free(&vo, &site));
    let more = |of: &Book, words| book(of.clone(), &[words]);
    assert!(free(&more(&vo, ["a", "role:x", "*", "run", "*", "deny"]), &site));
    for words in
        [["a", "role:x", "*", "login", "*", "deny"], ["a", "*", "*", "*", "site:pisa", "deny"]]
    {
        assert!(!free(&more(&vo, words), &site) && !free(&vo, &more(&site, words)), "{words:?}");
    }
    let narrow = book(Book::with(1, []), &[["a", "group:x", "*", "login", "*", "allow"]]);
    assert!(!free(&narrow, &site) && !free(&vo, &narrow) && !free(&vo, &Book::with(1, [])));
}
