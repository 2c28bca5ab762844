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
