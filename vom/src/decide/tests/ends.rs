//! Handing over, dissolving, erasing.

use super::*;
use xos_api::vom::{DISSOLVED_FOR, VoState};

fn offer(to: &str) -> Command {
    Command::Structure(Structural::OfferHandover { to: id(to) })
}

fn accept(by: &str) -> Command {
    Command::Structure(Structural::AcceptHandover { by: id(by) })
}

fn end(by: &str) -> Command {
    Command::Structure(Structural::EndHandover { by: id(by) })
}

fn dissolve() -> Command {
    Command::Structure(Structural::Dissolve { reason: "over".into() })
}

fn undo() -> Command {
    Command::Structure(Structural::UndoDissolve)
}

fn site_admin() -> Subject {
    Subject::Person { person: id("root@rennes"), site_admin: true, carried: Carried::All }
}

fn owners(h: &Home) -> Vec<&str> {
    h.vo.owners.iter().map(|p| p.as_str()).collect()
}

/// If it failed, a VO would have no owner between two steps, or one who never agreed.
#[test]
fn an_ownership_goes_over_when_the_other_accepts() {
    let mut h = Home::new(&policy());
    h.join("bob@pisa", &[]);
    h.join("carol@pisa", &["admin"]);
    assert_eq!(h.kind("carol@pisa", offer("bob@pisa")), Kind::Denied);
    assert_eq!(h.kind("alice@rennes", offer("nobody@pisa")), Kind::NotFound);
    assert_eq!(h.kind("bob@pisa", accept("alice@rennes")), Kind::NotFound);
    h.ok("alice@rennes", offer("bob@pisa"));
    assert_eq!(owners(&h), ["alice@rennes"], "nothing changes before");
    assert_eq!(h.kind("carol@pisa", accept("alice@rennes")), Kind::NotFound);
    assert_eq!(h.kind("carol@pisa", end("alice@rennes")), Kind::Denied);
    h.ok("bob@pisa", end("alice@rennes"));
    assert_eq!(h.kind("bob@pisa", accept("alice@rennes")), Kind::NotFound);
    h.ok("alice@rennes", offer("carol@pisa"));
    h.ok("alice@rennes", offer("bob@pisa"));
    assert_eq!(h.kind("carol@pisa", accept("alice@rennes")), Kind::NotFound, "a later one");
    let epoch = h.epoch("alice@rennes");
    h.ok("bob@pisa", accept("alice@rennes"));
    assert_eq!(owners(&h), ["bob@pisa"]);
    assert!(h.epoch("alice@rennes") > epoch, "the former owner's credentials are void");
    assert_eq!(h.kind("alice@rennes", offer("carol@pisa")), Kind::Denied);
    assert_eq!(h.kind("bob@pisa", accept("alice@rennes")), Kind::NotFound, "once");
}

/// If it failed, an owner who was stopped would still make an owner by an earlier offer.
#[test]
fn an_offer_ends_with_whoever_made_it_or_has_it() {
    let ends = |command: fn() -> Command, who: &str| {
        let mut h = Home::new(&policy());
        h.join("bob@pisa", &[]);
        h.join("olga@pisa", &["owner"]);
        h.ok("olga@pisa", offer("bob@pisa"));
        h.ok(who, command());
        if h.vo.members.contains_key(&id::<PersonId>("olga@pisa")) {
            h.run(&person(who), Command::ResumeMember { person: id("olga@pisa") }).ok();
            let role = Command::GrantRole { person: id("olga@pisa"), role: id("owner") };
            h.run(&person(who), role).ok();
        }
        let kind = h.run(&person("bob@pisa"), accept("olga@pisa")).unwrap_err().kind;
        assert!(matches!(kind, Kind::NotFound | Kind::Denied), "{kind:?}");
    };
    let olga = || id::<PersonId>("olga@pisa");
    ends(|| Command::SuspendMember { person: id("olga@pisa"), reason: "x".into() }, "alice@rennes");
    ends(|| Command::WithdrawRole { person: id("olga@pisa"), role: id("owner") }, "alice@rennes");
    ends(|| Command::RemoveMember { person: id("olga@pisa"), reason: "x".into() }, "alice@rennes");
    ends(|| Command::RemoveMember { person: id("bob@pisa"), reason: "x".into() }, "alice@rennes");
    // Whose membership has an end, or who is suspended when it comes to it, takes nothing over.
    let mut h = Home::new(&policy());
    h.join("olga@pisa", &[]);
    h.ok("alice@rennes", offer("olga@pisa"));
    let expires = Some(Millis(NOW.0 + 5));
    h.ok("alice@rennes", Command::SetExpiry { person: olga(), expires });
    assert_eq!(h.kind("olga@pisa", accept("alice@rennes")), Kind::Invalid);
    assert_eq!(h.kind("alice@rennes", offer("olga@pisa")), Kind::Invalid);
}

/// If it failed, somebody could work on in a VO that is over, or change what is kept of it.
#[test]
fn a_dissolved_vo_takes_nothing_but_its_end_or_its_return() {
    let mut h = Home::new(&policy());
    h.join("bob@pisa", &["admin"]);
    let pisa = Subject::Core(id("pisa"));
    h.run(&pisa, Command::OfferShare { site: id("pisa"), terms: terms(1) }).unwrap();
    h.ok("alice@rennes", Command::AcceptShare { site: id("pisa"), version: 1 });
    let member = h.vo.membership(&id("bob@pisa"), NOW).unwrap();
    assert_eq!(h.kind("bob@pisa", dissolve()), Kind::Denied);
    h.ok("alice@rennes", dissolve());
    let e = h.vo.effective(&member, NOW).unwrap_err();
    assert!(e.kind == Kind::Denied && e.message.contains("was dissolved: over"), "{e}");
    assert!(h.vo.serving(NOW).is_empty(), "as for shares that ended");
    for (who, command) in [
        ("alice@rennes", Command::CreateGroup { name: id("x") }),
        ("alice@rennes", Command::ResumeVo),
        ("alice@rennes", Command::SuspendVo { reason: "x".into() }),
        ("alice@rennes", Command::RemoveMember { person: id("bob@pisa"), reason: "".into() }),
        ("alice@rennes", dissolve()),
        ("eve@pisa", Command::Apply { message: String::new(), words: Default::default() }),
    ] {
        let kind = h.run(&person(who), command.clone()).unwrap_err().kind;
        assert!(matches!(kind, Kind::Denied | Kind::Conflict), "{command:?}: {kind:?}");
    }
    let end = Command::WithdrawShare { site: id("pisa"), version: 1, reason: "x".into() };
    assert!(h.run(&pisa, end).unwrap(), "no site is kept from taking back what it gave");
    assert_eq!(h.kind("bob@pisa", undo()), Kind::Denied);
    h.ok("alice@rennes", undo());
    h.vo.effective(&member, NOW).expect("it is as it was");
}

/// If it failed, an owner would undo the site's suspension by dissolving the VO and taking that
/// back.
#[test]
fn what_the_site_stopped_stays_stopped() {
    let mut h = Home::new(&policy());
    h.run(&site_admin(), Command::SuspendVo { reason: "misuse".into() }).unwrap();
    assert_eq!(h.kind("alice@rennes", dissolve()), Kind::Denied, "it would end the proof too");
    h.run(&site_admin(), dissolve()).unwrap();
    h.run(&site_admin(), undo()).unwrap();
    assert!(matches!(h.vo.state, VoState::Suspended { by_site: true, .. }));
    h.run(&site_admin(), dissolve()).unwrap();
    assert_eq!(h.kind("alice@rennes", undo()), Kind::Denied);
    h.run(&site_admin(), undo()).unwrap();
}

/// If it failed, a home could erase a VO before its members saved their work, or people could.
#[test]
fn only_the_home_erases_and_only_when_it_is_time() {
    let mut h = Home::new(&policy());
    let erase = || Command::Structure(Structural::Erase);
    let core = Subject::OwnCore(id("rennes"));
    let conflict = h.run(&core, erase()).unwrap_err().kind;
    assert_eq!(conflict, Kind::Conflict, "it is not dissolved");
    h.ok("alice@rennes", dissolve());
    for who in [person("alice@rennes"), site_admin(), Subject::Core(id("pisa"))] {
        assert_eq!(h.run(&who, erase()).unwrap_err().kind, Kind::Denied);
    }
    let until = h.vo.erased_at().unwrap();
    assert_eq!(until, NOW.plus(DISSOLVED_FOR));
    let chain = Chain { number: h.vo.number, hash: String::new(), time: h.vo.time };
    let at = |now| chain.next(&h.vo.id, core.actor(), Change::VoErased {}, now);
    assert!(h.vo.check(&at(Millis(until.0 - 1))).is_err(), "a hostile home's log");
    let last = at(until);
    h.vo.check(&last).unwrap();
    let mut vo = h.vo.clone();
    vo.apply(&last);
    assert!(vo.erased && vo.erased_at().is_none());
    let after = Chain { number: vo.number, hash: String::new(), time: vo.time };
    for change in [Change::VoRestored {}, Change::VoErased {}, Change::VoResumed {}] {
        assert!(vo.check(&after.next(&vo.id, core.actor(), change, until)).is_err());
    }
}

/// If it failed, a home's key that was stolen for a moment would erase VOs at every site that
/// serves them, before anybody could object.
#[test]
fn a_last_entry_that_cannot_be_the_last_ends_nothing() {
    let mut h = Home::new(&policy());
    let core = Subject::OwnCore(id("rennes"));
    let last = |vo: &Vo, number: u64, time: Millis| {
        let chain = Chain { number: vo.number + number - 1, hash: String::new(), time };
        vo.may_end_by(&chain.next(&vo.id, core.actor(), Change::VoErased {}, time)).is_ok()
    };
    let month = NOW.plus(DISSOLVED_FOR);
    assert!(!last(&h.vo, 1, month), "its dissolution must lie between");
    assert!(!last(&h.vo, 2, Millis(month.0 - 1)), "and 30 days");
    assert!(last(&h.vo, 2, month));
    h.ok("alice@rennes", dissolve());
    assert!(!last(&h.vo, 9, Millis(month.0 - 1)));
    assert!(last(&h.vo, 1, month));
}
