//! What a member's credentials and mandates are worth after a change.

use super::*;

#[test]
fn a_credential_carries_no_more_than_it_says() {
    let mut h = Home::new(&policy());
    let narrow =
        |carried| Subject::Person { person: id("alice@rennes"), site_admin: false, carried };
    let make = || Command::CreateGroup { name: id("x") };
    for carried in
        [Carried::Nothing, Carried::Roles([].into()), Carried::Roles([id("pilot")].into())]
    {
        assert_eq!(h.run(&narrow(carried), make()).unwrap_err().kind, Kind::Denied);
    }
    assert!(h.run(&narrow(Carried::Roles([id("owner")].into())), make()).unwrap());
}

#[test]
fn narrowing_voids_credentials_and_widening_does_not() {
    let mut h = Home::new(&policy());
    h.join("bob@pisa", &[]);
    let bob = || id::<PersonId>("bob@pisa");
    h.ok("alice@rennes", Command::CreateGroup { name: id("physics") });
    h.ok("alice@rennes", Command::AddToGroup { name: id("physics"), person: bob() });
    h.ok("alice@rennes", Command::GrantRole { person: bob(), role: id("pilot") });
    assert_eq!(h.epoch("bob@pisa"), Epoch(1));
    let credential = h.vo.membership(&bob(), NOW).unwrap();
    let steps = [
        Command::WithdrawRole { person: bob(), role: id("pilot") },
        Command::DeleteGroup { name: id("physics") },
        Command::SuspendMember { person: bob(), reason: "r".into() },
    ];
    for (i, step) in steps.into_iter().enumerate() {
        h.ok("alice@rennes", step);
        assert_eq!(h.epoch("bob@pisa"), Epoch(2 + i as u64));
    }
    assert_eq!(h.vo.effective(&credential, NOW).unwrap_err().kind, Kind::Denied);
    h.ok("alice@rennes", Command::ResumeMember { person: bob() });
    assert_eq!(h.vo.effective(&credential, NOW).unwrap_err().kind, Kind::Unauthenticated);
    let fresh = h.vo.membership(&bob(), NOW).unwrap();
    assert_eq!(h.vo.effective(&fresh, NOW).unwrap(), fresh);
    h.ok("alice@rennes", Command::RemoveMember { person: bob(), reason: "r".into() });
    assert_eq!(h.vo.effective(&fresh, NOW).unwrap_err().kind, Kind::Denied);
    // Admitted anew: another number, and no old credential comes back to life.
    h.join("bob@pisa", &[]);
    assert_eq!(h.vo.effective(&fresh, NOW).unwrap_err().kind, Kind::Unauthenticated);
    assert_eq!(h.vo.members[&bob()].number, MemberNumber(3));
    assert!(h.epoch("bob@pisa") > fresh.epoch);
}

#[test]
fn effective_is_what_credential_and_vo_both_say() {
    let mut h = Home::new(&policy());
    h.join("bob@pisa", &["pilot"]);
    let bob = id::<PersonId>("bob@pisa");
    let mut forged = h.vo.membership(&bob, NOW).unwrap();
    forged.roles.push(id("owner"));
    forged.epoch = Epoch(99);
    let other = xos_base::Group { name: id("secret"), number: GroupNumber(7) };
    forged.groups.push(other);
    let got = h.vo.effective(&forged, NOW).unwrap();
    assert_eq!(got.roles, vec![id::<RoleName>("pilot")]);
    assert_eq!(got.groups.len(), 1);
    forged.number = MemberNumber(1);
    assert!(h.vo.effective(&forged, NOW).is_err(), "another member's number");
}

#[test]
fn a_suspension_ends_mandates_and_other_changes_do_not() {
    // Else what a thief submitted gets tickets after suspend and resume; or a role that a job does
    // not carry stops it.
    let mut h = Home::new(&policy());
    h.join("bob@pisa", &["pilot"]);
    let bob = || id::<PersonId>("bob@pisa");
    let first = h.epoch("bob@pisa");
    h.ok("alice@rennes", Command::WithdrawRole { person: bob(), role: id("pilot") });
    assert!(h.epoch("bob@pisa") > first);
    h.vo.mandated(&bob(), first).expect("what is left of it goes on");
    h.ok("alice@rennes", Command::SuspendMember { person: bob(), reason: "stolen".into() });
    h.ok("alice@rennes", Command::ResumeMember { person: bob() });
    assert_eq!(h.vo.mandated(&bob(), first).unwrap_err().kind, Kind::Denied);
    h.vo.mandated(&bob(), h.epoch("bob@pisa")).expect("what is submitted now");
}

/// If it failed, the VO's home would give new credentials by a sign-in that a thief has, or ask for
/// a new one after each change.
#[test]
fn only_a_suspension_ends_the_sign_ins_before_it() {
    let mut h = Home::new(&policy());
    h.join("bob@pisa", &["pilot"]);
    let bob = || id::<PersonId>("bob@pisa");
    h.ok("alice@rennes", Command::WithdrawRole { person: bob(), role: id("pilot") });
    assert_eq!(h.vo.members[&bob()].suspended, None);
    h.ok("alice@rennes", Command::SuspendMember { person: bob(), reason: "stolen".into() });
    let at = h.vo.time;
    h.ok("alice@rennes", Command::ResumeMember { person: bob() });
    assert_eq!(h.vo.members[&bob()].suspended, Some(at));
}
