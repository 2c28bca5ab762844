//! What a VO takes that is suspended, or whose log is nearly full.

use super::*;

#[test]
fn a_suspended_vo_changes_only_back_or_down() {
    let mut h = Home::new(&policy());
    h.join("bob@pisa", &[]);
    let admin =
        Subject::Person { person: id("root@rennes"), site_admin: true, carried: Carried::All };
    let suspend = || Command::SuspendVo { reason: "misuse".into() };
    assert_eq!(h.kind("bob@pisa", suspend()), Kind::Denied);
    assert!(h.run(&admin, suspend()).unwrap());
    assert!(h.vo.membership(&id("bob@pisa"), NOW).unwrap_err().message.contains("misuse"));
    let acts = |h: &Home, p: &str| h.vo.member_info(&id(p), NOW).unwrap().acts;
    assert!(!acts(&h, "bob@pisa"), "services are told that he acts");
    let refused = |h: &mut Home| {
        let group = Command::CreateGroup { name: id("x") };
        let e = h.run(&person("alice@rennes"), group).unwrap_err();
        (e.kind, e.hint.unwrap())
    };
    let by = |who: &str| format!("{who} resumes it with `xos vo resume-vo demo.rennes`");
    assert_eq!(refused(&mut h), (Kind::Denied, by("an administrator of its home site")));
    let apply = Command::Apply { message: String::new(), words: Words::default() };
    assert_eq!(h.kind("eve@pisa", apply), Kind::Denied);
    h.ok("alice@rennes", Command::RemoveMember { person: id("bob@pisa"), reason: "".into() });
    assert_eq!(h.kind("alice@rennes", Command::ResumeVo), Kind::Denied, "the site did it");
    assert!(h.run(&admin, Command::ResumeVo).unwrap());
    assert!(acts(&h, "alice@rennes"));
    h.ok("alice@rennes", suspend());
    assert_eq!(refused(&mut h), (Kind::Denied, by("its owner")));
    h.ok("alice@rennes", Command::ResumeVo);
    // An owner who suspends the VO first does not keep the site from doing it.
    h.ok("alice@rennes", suspend());
    assert_eq!(h.kind("alice@rennes", suspend()), Kind::Conflict);
    assert!(h.run(&admin, suspend()).unwrap());
    assert_eq!(h.run(&admin, suspend()).unwrap_err().kind, Kind::Conflict);
    assert_eq!(h.kind("alice@rennes", suspend()), Kind::Conflict, "the site's would be undone");
    assert_eq!(h.kind("alice@rennes", Command::ResumeVo), Kind::Denied);
}

#[test]
fn a_full_log_still_takes_suspension_and_removal() {
    // Else whoever fills a VO's log keeps all its members in it for good.
    let mut h = Home::new(&policy());
    h.join("bob@pisa", &["pilot"]);
    h.vo.number = crate::state::LOG_RESERVED_FROM - 1;
    let person = || id::<PersonId>("bob@pisa");
    let next = |h: &Home, change: Change| {
        let chain = Chain { number: h.vo.number, hash: String::new(), time: h.vo.time };
        let entry = chain.next(&h.vo.id, Actor::Person(person()), change, NOW);
        h.vo.check(&entry).map(|()| entry)
    };
    for change in [
        Change::Applied {
            person: id("eve@pisa"),
            message: String::new(),
            agreed: None,
            answers: None,
            invitation: None,
        },
        Change::RoleGranted { person: person(), role: id("other") },
        Change::GroupCreated { name: id("x"), number: GroupNumber(2) },
    ] {
        let violation = next(&h, change).unwrap_err();
        assert_eq!(violation, crate::state::Violation::NearlyFull);
    }
    for change in [
        Change::RoleWithdrawn { person: person(), role: id("pilot") },
        Change::MemberSuspended { person: person(), reason: String::new() },
        Change::MemberRemoved { person: person(), reason: String::new() },
        Change::VoSuspended { reason: String::new(), by_site: true },
        Change::VoResumed {},
    ] {
        let entry = next(&h, change).unwrap();
        h.vo.apply(&entry);
    }
    h.vo.number = crate::state::LOG_ENTRIES_MAX;
    assert!(next(&h, Change::VoSuspended { reason: String::new(), by_site: true }).is_err());
}
