//! Who becomes a member, and who may change whom.

use super::*;
use xos_api::vom::MESSAGE_MAX;

#[test]
fn an_applicant_becomes_a_member_once() {
    let mut h = Home::new(&policy());
    let apply = || Command::Apply { message: "please".into(), words: Words::default() };
    let approve = || Command::Approve {
        person: id("bob@pisa"),
        groups: vec![],
        roles: vec![],
        expires: Some(Millis(NOW.0 + 5)),
    };
    assert_eq!(h.kind("alice@rennes", approve()), Kind::NotFound);
    h.ok("bob@pisa", apply());
    assert_eq!(h.kind("bob@pisa", apply()), Kind::Conflict);
    assert_eq!(h.kind("bob@pisa", approve()), Kind::Denied, "nobody admits himself");
    assert_eq!(h.kind("carol@pisa", approve()), Kind::Denied);
    h.ok("alice@rennes", approve());
    assert_eq!(h.kind("alice@rennes", approve()), Kind::Conflict);
    assert_eq!(h.kind("bob@pisa", apply()), Kind::Conflict);
    let m = h.vo.membership(&id("bob@pisa"), NOW).unwrap();
    assert_eq!((m.number, m.epoch), (MemberNumber(2), Epoch(1)));
    assert_eq!(m.groups[0].name.as_str(), "members");
    let later = Millis(NOW.0 + 5);
    assert_eq!(h.vo.membership(&id("bob@pisa"), later).unwrap_err().kind, Kind::Denied);
}

#[test]
fn texts_that_could_deceive_or_fill_are_refused() {
    let mut h = Home::new(&policy());
    for message in ["a\x1b[2J".to_owned(), "x".repeat(MESSAGE_MAX + 1), "\u{202e}abc".into()] {
        let apply = Command::Apply { message, words: Words::default() };
        assert_eq!(h.kind("bob@pisa", apply), Kind::Invalid);
    }
    let message = "é".repeat(MESSAGE_MAX);
    h.ok("bob@pisa", Command::Apply { message, words: Words::default() });
}

#[test]
fn the_last_owner_stays() {
    // A VO without an owner could never be administered again.
    let mut h = Home::new(&policy());
    let alice = || id::<PersonId>("alice@rennes");
    let withdraw = || Command::WithdrawRole { person: alice(), role: id("owner") };
    let remove = || Command::RemoveMember { person: alice(), reason: String::new() };
    let suspend = || Command::SuspendMember { person: alice(), reason: String::new() };
    for command in [withdraw(), remove(), suspend()] {
        assert_eq!(h.kind("alice@rennes", command), Kind::Conflict);
    }
    let expire = Command::SetExpiry { person: alice(), expires: Some(Millis(NOW.0 + 9)) };
    assert_eq!(h.kind("alice@rennes", expire), Kind::Invalid);
    h.join("bob@pisa", &["owner"]);
    h.ok("alice@rennes", Command::SuspendMember { person: id("bob@pisa"), reason: "".into() });
    assert_eq!(h.kind("alice@rennes", withdraw()), Kind::Conflict, "bob cannot act");
    h.ok("alice@rennes", Command::ResumeMember { person: id("bob@pisa") });
    h.ok("bob@pisa", remove());
    assert_eq!(
        h.kind("bob@pisa", Command::WithdrawRole { person: id("bob@pisa"), role: id("owner") }),
        Kind::Conflict
    );
}

#[test]
fn administrators_do_not_touch_those_above_them() {
    let mut h = Home::new(&policy());
    h.join("bob@pisa", &["admin"]);
    h.join("carol@pisa", &["admin"]);
    h.join("dave@pisa", &[]);
    let grant = |p: &str, role: &str| Command::GrantRole { person: id(p), role: id(role) };
    for role in ["owner", "admin"] {
        assert_eq!(h.kind("bob@pisa", grant("dave@pisa", role)), Kind::Denied);
    }
    let remove = |p: &str| Command::RemoveMember { person: id(p), reason: String::new() };
    assert_eq!(h.kind("bob@pisa", remove("carol@pisa")), Kind::Denied);
    assert_eq!(h.kind("bob@pisa", remove("alice@rennes")), Kind::Denied);
    let apply = Command::Apply { message: String::new(), words: Words::default() };
    h.ok("erin@pisa", apply);
    let approve = |roles: Vec<RoleName>| Command::Approve {
        person: id("erin@pisa"),
        groups: vec![],
        roles,
        expires: None,
    };
    assert_eq!(h.kind("bob@pisa", approve(vec![id("admin")])), Kind::Denied);
    h.ok("bob@pisa", approve(vec![id("pilot")]));
    h.ok("bob@pisa", grant("dave@pisa", "pilot"));
    h.ok("bob@pisa", remove("dave@pisa"));
    // What takes a group or role of an owner voids the owner's credentials.
    let alice = || id::<PersonId>("alice@rennes");
    h.ok("alice@rennes", Command::CreateGroup { name: id("physics") });
    for p in ["alice@rennes", "bob@pisa"] {
        h.ok("alice@rennes", Command::AddToGroup { name: id("physics"), person: id(p) });
        h.ok("alice@rennes", grant(p, "pilot"));
    }
    let out = |p: &str| Command::RemoveFromGroup { name: id("physics"), person: id(p) };
    let withdraw = |p: &str| Command::WithdrawRole { person: id(p), role: id("pilot") };
    let epoch = h.epoch("alice@rennes");
    assert_eq!(h.kind("bob@pisa", out("alice@rennes")), Kind::Denied);
    assert_eq!(h.kind("bob@pisa", withdraw("alice@rennes")), Kind::Denied);
    assert_eq!(h.vo.members[&alice()].epoch, epoch);
    h.ok("bob@pisa", out("bob@pisa"));
    h.ok("bob@pisa", withdraw("bob@pisa"));
    h.ok("carol@pisa", remove("carol@pisa"));
    assert_eq!(h.kind("dave@pisa", Command::CreateGroup { name: id("x") }), Kind::Denied);
}
