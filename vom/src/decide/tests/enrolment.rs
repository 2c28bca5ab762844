//! Terms of use and invitations, as the home decides.

use super::*;

const HASH: &str = "00000000000000000000000000000000000000000000000000000000000000aa";

fn gives(uses: u32, at_once: bool) -> Gives {
    Gives {
        groups: vec![],
        roles: vec![],
        uses,
        expires: Millis(NOW.0 + 1000),
        person: None,
        ends: None,
        at_once,
    }
}

fn invite(gives: Gives) -> Command {
    Command::Invite { id: HASH[..16].into(), hash: HASH.into(), gives, hint: None }
}

fn join(hash: &str) -> Command {
    Command::Join { hash: hash.into(), message: String::new(), words: Words::default() }
}

/// If it failed, a member could fill the VO's log for good by agreeing again and again.
#[test]
fn agreeing_twice_is_one_entry() {
    let mut h = Home::new(&policy());
    h.join("bob@pisa", &[]);
    let terms = |consent_days| Command::SetTermsOfUse {
        text: "Be kind.".into(),
        consent_days,
        grace_days: 14,
    };
    assert_eq!(h.kind("bob@pisa", Command::Agree { version: 1 }), Kind::NotFound);
    assert_eq!(h.kind("bob@pisa", terms(None)), Kind::Denied);
    h.ok("alice@rennes", terms(Some(30)));
    h.ok("bob@pisa", Command::Agree { version: 1 });
    assert!(!h.run(&person("bob@pisa"), Command::Agree { version: 1 }).unwrap());
    h.ok("alice@rennes", terms(None));
    h.ok("bob@pisa", Command::Agree { version: 2 });
    assert!(!h.run(&person("bob@pisa"), Command::Agree { version: 2 }).unwrap());
    assert_eq!(
        h.vo.enrolling.said[&id::<PersonId>("bob@pisa")].agreed.as_ref().unwrap().version,
        2
    );
}

/// If it failed, an invitation could not be kept to what it was made for.
#[test]
fn invitations_are_made_within_bounds() {
    let mut h = Home::new(&policy());
    for uses in [0, 1001] {
        assert_eq!(h.kind("alice@rennes", invite(gives(uses, true))), Kind::Invalid, "{uses}");
    }
    let past = Gives { expires: NOW, ..gives(1, true) };
    assert_eq!(h.kind("alice@rennes", invite(past)), Kind::Invalid);
    let long = Gives { expires: Millis(u64::MAX), ..gives(1, true) };
    assert_eq!(h.kind("alice@rennes", invite(long)), Kind::Invalid);
    let nowhere = Gives { groups: vec![id("physics")], ..gives(1, true) };
    assert_eq!(h.kind("alice@rennes", invite(nowhere)), Kind::NotFound);
    let ending =
        Gives { roles: vec![id("owner")], ends: Some(Millis(NOW.0 + 9)), ..gives(1, true) };
    assert_eq!(h.kind("alice@rennes", invite(ending)), Kind::Invalid);
    h.ok("alice@rennes", invite(gives(1, true)));
    assert_eq!(h.kind("alice@rennes", invite(gives(1, true))), Kind::Conflict);
    // The hash must be the whole one: its beginning, which is the id, opens nothing.
    let other = format!("{}{}", &HASH[..16], "1".repeat(48));
    for wrong in [&HASH[..16], "", other.as_str()] {
        assert_eq!(h.kind("bob@pisa", join(wrong)), Kind::NotFound, "{wrong:?}");
    }
    h.ok("bob@pisa", join(HASH));
    assert_eq!(h.kind("carol@pisa", join(HASH)), Kind::Denied, "used up");
    assert_eq!(h.epoch("bob@pisa"), Epoch(1));
}

/// If it failed, answers to other questions than the VO asks would be taken.
#[test]
fn answers_are_to_what_is_asked() {
    let mut h = Home::new(&policy());
    let kind = xos_api::vom::QuestionKind::Line;
    let question = |required| Question {
        id: "q".into(),
        text: "What?".into(),
        kind,
        required,
        choices: vec![],
    };
    let ask = |required| Command::SetQuestions { questions: vec![question(required)] };
    h.ok("alice@rennes", ask(true));
    assert!(!h.run(&person("alice@rennes"), ask(true)).unwrap(), "they are asked already");
    let apply = |sealed: Option<u64>| Command::Apply {
        message: String::new(),
        words: Words {
            agreed: None,
            answers: sealed.map(|asked| Sealed { digest: HASH.into(), asked }),
        },
    };
    let asked = h.vo.enrolling.questions.changed;
    assert_eq!(h.kind("bob@pisa", apply(None)), Kind::Invalid);
    h.ok("alice@rennes", ask(false));
    assert_eq!(h.kind("bob@pisa", apply(Some(asked))), Kind::Conflict);
    h.ok("bob@pisa", apply(Some(h.vo.enrolling.questions.changed)));
    assert_eq!(h.vo.answers_of(&id("bob@pisa")).as_deref(), Some(HASH));
}

/// If it failed, an administrator who is gone would still give groups and roles by those who wait,
/// or an invitation give a group that is another by now.
#[test]
fn an_application_gets_only_what_its_invitation_still_gives() {
    let mut h = Home::new(&policy());
    h.join("adam@pisa", &["admin"]);
    let physics = || Command::CreateGroup { name: id("physics") };
    h.ok("alice@rennes", physics());
    let (groups, roles) = (vec![id("physics")], vec![id("pilot")]);
    let asks = Gives { groups, roles, ..gives(9, false) };
    h.ok("adam@pisa", invite(asks.clone()));
    for p in ["bob@pisa", "carol@pisa", "dan@pisa"] {
        h.ok(p, join(HASH));
    }
    let shown = |h: &Home| h.vo.application_page(None, None, NOW).applications[0].gives.clone();
    assert_eq!(shown(&h), Some(asks));
    let approve =
        |p: &str| Command::Approve { person: id(p), groups: vec![], roles: vec![], expires: None };
    let has = |h: &Home, p: &str| {
        let m = &h.vo.members[&id::<PersonId>(p)];
        (m.groups.len(), m.roles.len())
    };
    h.ok("alice@rennes", approve("bob@pisa"));
    assert_eq!(has(&h, "bob@pisa"), (1, 1));
    h.ok("alice@rennes", Command::DeleteGroup { name: id("physics") });
    h.ok("alice@rennes", physics());
    h.ok("alice@rennes", approve("carol@pisa"));
    assert_eq!(has(&h, "carol@pisa"), (0, 1), "another group of that name");
    h.ok("alice@rennes", Command::WithdrawRole { person: id("adam@pisa"), role: id("admin") });
    assert_eq!(shown(&h), None);
    h.ok("alice@rennes", approve("dan@pisa"));
    assert_eq!(has(&h, "dan@pisa"), (0, 0), "adam may not give it any more");
}

/// If it failed, an administrator would stop the owners by terms that lapse at once, or use up the
/// versions that a VO has.
#[test]
fn terms_that_leave_no_time_are_for_owners_and_all_are_seldom() {
    let mut h = Home::new(&policy());
    h.join("adam@pisa", &["admin"]);
    let terms = |grace_days| {
        let text = "Be kind.".to_owned();
        Command::SetTermsOfUse { text, consent_days: None, grace_days }
    };
    assert_eq!(h.kind("adam@pisa", terms(0)), Kind::Denied);
    h.ok("adam@pisa", terms(14));
    assert_eq!(h.kind("adam@pisa", terms(13)), Kind::Denied, "less than was promised");
    h.ok("alice@rennes", terms(1));
    for _ in 2..10 {
        h.ok("adam@pisa", terms(1));
    }
    assert_eq!(h.kind("alice@rennes", terms(1)), Kind::Limited);
}

/// If it failed, new terms would send all members of a large VO to each node, or a node would hold
/// somebody at another time than the core.
#[test]
fn new_terms_are_told_once_and_not_with_each_member() {
    let mut h = Home::new(&policy());
    h.join("bob@pisa", &[]);
    let block = crate::state::Block { base: 2_000_000_000, size: 65_536 };
    let told = |h: &Home, since| {
        let all = super::rules::accounts(&h.vo, block, since, &Default::default());
        all.into_iter().next().unwrap()
    };
    let same = |h: &Home| {
        let all = told(h, None);
        all.members.iter().all(|m| {
            let known = h.vo.lapses(&m.person, &h.vo.members[&m.person]);
            all.terms.as_ref().unwrap().lapses(m) == known && (known.is_some() || h.vo.number > 4)
        })
    };
    let terms = |consent_days| {
        let text = "Be kind.".to_owned();
        Command::SetTermsOfUse { text, consent_days, grace_days: 14 }
    };
    let number = h.vo.number;
    h.ok("alice@rennes", terms(Some(30)));
    let step = told(&h, Some(number));
    assert!(step.members.is_empty() && step.terms.is_some());
    assert!(same(&h));
    let number = h.vo.number;
    h.ok("bob@pisa", Command::Agree { version: 1 });
    let step = told(&h, Some(number));
    assert_eq!(step.members.iter().map(|m| m.person.as_str()).collect::<Vec<_>>(), ["bob@pisa"]);
    assert!(same(&h));
    h.ok("alice@rennes", terms(None));
    h.ok("bob@pisa", Command::Agree { version: 2 });
    assert!(same(&h));
}
