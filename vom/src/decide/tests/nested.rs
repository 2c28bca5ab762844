//! Groups within groups, and what one who manages a group may do.

use super::*;
use crate::state::{Fault, Violation};
use xos_api::vom::{GROUP_CHANGE_MAX, GROUP_DEPTH_MAX};

fn below(parent: &str, name: &str) -> Command {
    Command::Structure(Structural::CreateSubgroup { parent: id(parent), name: id(name) })
}

fn moved(name: &str, parent: Option<&str>) -> Command {
    let parent = parent.map(id);
    Command::Structure(Structural::MoveGroup { name: id(name), parent })
}

fn manage(name: &str, person: &str) -> Command {
    Command::Structure(Structural::AddManager { name: id(name), person: id(person) })
}

fn add(name: &str, person: &str) -> Command {
    Command::AddToGroup { name: id(name), person: id(person) }
}

fn create(name: &str) -> Command {
    Command::CreateGroup { name: id(name) }
}

fn groups(h: &Home, person: &str) -> Vec<String> {
    let m = h.vo.membership(&id(person), NOW).unwrap();
    m.groups.iter().map(|g| g.name.to_string()).collect()
}

/// A VO with physics > optics > lasers and, beside, chemistry; bob and carol are plain members.
fn tree() -> Home {
    let mut h = Home::new(&policy());
    h.join("bob@pisa", &[]);
    h.join("carol@pisa", &[]);
    h.ok("alice@rennes", create("physics"));
    h.ok("alice@rennes", below("physics", "optics"));
    h.ok("alice@rennes", below("optics", "lasers"));
    h.ok("alice@rennes", create("chemistry"));
    h
}

/// If it failed, whoever is in a group would lack the files and rules of the groups above, or keep
/// them when the group is moved away.
#[test]
fn a_member_is_in_all_groups_above_and_loses_them_with_a_move() {
    let mut h = tree();
    h.ok("alice@rennes", add("lasers", "bob@pisa"));
    assert_eq!(groups(&h, "bob@pisa"), ["members", "physics", "optics", "lasers"]);
    let old = h.vo.membership(&id("bob@pisa"), NOW).unwrap();
    let block = crate::state::Block { base: 2_000_000_000, size: 65_536 };
    let account = |h: &Home, since| {
        let parts = super::rules::accounts(&h.vo, block, since, &Default::default());
        let of = |m: &&xos_api::vom::AccountMember| m.person.as_str() == "bob@pisa";
        parts[0].members.iter().find(of).map(|m| m.groups.iter().map(|g| g.0).collect::<Vec<_>>())
    };
    assert_eq!(account(&h, None).unwrap().len(), 3, "gids of the groups above too");
    // Moved further down in the same line, nobody loses anything: credentials go on.
    let epoch = h.epoch("bob@pisa");
    h.ok("alice@rennes", below("physics", "light"));
    h.ok("alice@rennes", moved("optics", Some("light")));
    assert_eq!(h.epoch("bob@pisa"), epoch);
    let number = h.vo.number;
    h.ok("alice@rennes", moved("optics", Some("chemistry")));
    assert_eq!(groups(&h, "bob@pisa"), ["members", "optics", "lasers", "chemistry"]);
    assert!(h.epoch("bob@pisa") > epoch);
    assert_eq!(h.vo.effective(&old, NOW).unwrap_err().kind, Kind::Unauthenticated);
    assert_eq!(account(&h, Some(number)).unwrap().len(), 3, "nodes hear of it");
    assert_eq!(h.epoch("carol@pisa"), Epoch(1), "who is not in it keeps the credential");
}

/// If it failed, a change of a small group would cost a walk over a large VO, at every site; or it
/// would miss somebody.
#[test]
fn a_change_of_a_group_looks_at_its_own_members_only() {
    let mut h = tree();
    h.ok("alice@rennes", add("lasers", "carol@pisa"));
    // Nobody put bob into it, as far as the index knows: only who walks over all meets him.
    let bob = h.vo.members.get_mut(&id::<PersonId>("bob@pisa")).unwrap();
    bob.groups.insert(id("lasers"));
    let changed = |h: &Home, entry| {
        h.vo.touched.after(entry).map(|(_, person)| person.to_string()).collect::<Vec<_>>()
    };
    for command in [moved("optics", Some("chemistry")), Command::DeleteGroup { name: id("lasers") }]
    {
        let (number, epoch) = (h.vo.number, h.epoch("carol@pisa"));
        h.ok("alice@rennes", command);
        assert_eq!(changed(&h, number), ["carol@pisa"]);
        assert!(h.epoch("carol@pisa") > epoch);
    }
    assert_eq!(groups(&h, "carol@pisa"), ["members"]);
}

/// If it failed, two groups would be within one another, and every look-up would go round.
#[test]
fn cycles_and_depth_are_refused_with_the_reason() {
    let mut h = tree();
    for parent in ["physics", "optics", "lasers"] {
        let e = h.run(&person("alice@rennes"), moved("physics", Some(parent))).unwrap_err();
        assert!(e.kind == Kind::Conflict && e.message.contains("within itself"), "{e}");
    }
    // As a hostile home would put it into its log.
    let cycle = Change::GroupMoved { name: id("physics"), parent: Some(id("lasers")) };
    let fault = Fault::Cycle(id("physics"), id("lasers"));
    assert_eq!(h.vo.check_change(&cycle), Err(Violation::Structure(fault)));
    for (name, parent) in [("members", Some("physics")), ("physics", Some("members"))] {
        assert_eq!(h.kind("alice@rennes", moved(name, parent)), Kind::Conflict);
    }
    assert_eq!(h.kind("alice@rennes", moved("physics", None)), Kind::Conflict, "it is there");
    assert_eq!(h.kind("alice@rennes", moved("physics", Some("nothing"))), Kind::NotFound);
    let mut parent = "lasers".to_owned();
    for depth in 4..=GROUP_DEPTH_MAX {
        let name = format!("g{depth}");
        h.ok("alice@rennes", below(&parent, &name));
        parent = name;
    }
    assert_eq!(h.kind("alice@rennes", below(&parent, "deeper")), Kind::TooLarge);
    h.ok("alice@rennes", below("chemistry", "salts"));
    assert_eq!(h.kind("alice@rennes", moved("optics", Some("salts"))), Kind::TooLarge);
    h.ok("alice@rennes", moved("optics", Some("chemistry")));
}

/// If it failed, one click would void the credentials of a million people, or leave groups whose
/// group above is no more.
#[test]
fn what_would_touch_too_many_or_leave_orphans_is_refused() {
    let mut h = tree();
    let delete = |name: &str| Command::DeleteGroup { name: id(name) };
    let e = h.run(&person("alice@rennes"), delete("optics")).unwrap_err();
    assert!(e.kind == Kind::Conflict && e.hint.unwrap().contains("first"), "{}", e.message);
    h.vo.groups.get_mut(&id::<GroupName>("lasers")).unwrap().count = GROUP_CHANGE_MAX + 1;
    assert_eq!(h.kind("alice@rennes", delete("lasers")), Kind::TooLarge);
    assert_eq!(h.kind("alice@rennes", moved("optics", None)), Kind::TooLarge);
    h.vo.groups.get_mut(&id::<GroupName>("lasers")).unwrap().count = 0;
    h.ok("alice@rennes", delete("lasers"));
    h.ok("alice@rennes", delete("optics"));
}

/// If it failed, an administrator would sign owners and other administrators out at every site, by
/// way of a group.
#[test]
fn a_group_with_an_owner_or_another_administrator_in_it_takes_an_owner() {
    let mut h = tree();
    h.join("adam@pisa", &["admin"]);
    h.ok("alice@rennes", add("lasers", "alice@rennes"));
    for command in [Command::DeleteGroup { name: id("lasers") }, moved("optics", None)] {
        assert_eq!(h.kind("adam@pisa", command), Kind::Denied);
    }
    assert_eq!(h.kind("adam@pisa", Command::DeleteGroup { name: id("optics") }), Kind::Denied);
    h.ok("adam@pisa", Command::DeleteGroup { name: id("chemistry") });
    h.ok("alice@rennes", moved("optics", None));
    h.ok("alice@rennes", Command::DeleteGroup { name: id("lasers") });
    // Other administrators are as untouchable; oneself is not.
    h.join("ben@pisa", &["admin"]);
    h.ok("adam@pisa", add("optics", "ben@pisa"));
    h.ok("adam@pisa", add("physics", "adam@pisa"));
    assert_eq!(h.kind("adam@pisa", Command::DeleteGroup { name: id("optics") }), Kind::Denied);
    h.ok("adam@pisa", Command::DeleteGroup { name: id("physics") });
}

/// If it failed, one who may fill one group would come to more.
#[test]
fn a_manager_fills_the_own_groups_and_nothing_else() {
    let mut h = tree();
    h.join("adam@pisa", &["admin"]);
    h.join("dave@pisa", &[]);
    h.ok("adam@pisa", manage("optics", "bob@pisa"));
    h.ok("bob@pisa", add("optics", "dave@pisa"));
    h.ok("bob@pisa", add("lasers", "dave@pisa"));
    h.ok("bob@pisa", add("lasers", "bob@pisa"));
    h.ok("bob@pisa", Command::RemoveFromGroup { name: id("lasers"), person: id("dave@pisa") });
    h.ok("bob@pisa", below("optics", "optics-lenses"));
    h.ok("alice@rennes", add("optics", "adam@pisa"));
    h.ok("carol@pisa", Command::RemoveMember { person: id("carol@pisa"), reason: "".into() });
    h.ok("eve@pisa", Command::Apply { message: String::new(), words: Default::default() });
    let s = Command::Structure;
    let reason = String::new;
    let attempts = [
        ("fill the group above", add("physics", "dave@pisa")),
        ("fill another group", add("chemistry", "dave@pisa")),
        ("put an administrator in", add("lasers", "adam@pisa")),
        ("put an owner in", add("optics", "alice@rennes")),
        (
            "take an administrator out",
            Command::RemoveFromGroup { name: id("optics"), person: id("adam@pisa") },
        ),
        ("make a group on top", create("mine")),
        ("make a group elsewhere", below("physics", "physics-mine")),
        ("take a name that a rule may mean", below("optics", "operators")),
        ("take a name that looks alike", below("optics", "opticsmine")),
        ("move the own group", moved("optics", None)),
        ("move the own group elsewhere", moved("lasers", Some("chemistry"))),
        ("pull another group in", moved("chemistry", Some("optics"))),
        ("delete the own group", Command::DeleteGroup { name: id("optics-lenses") }),
        ("name another manager", manage("optics", "dave@pisa")),
        ("manage the group above", manage("physics", "bob@pisa")),
        (
            "become an administrator",
            Command::GrantRole { person: id("bob@pisa"), role: id("admin") },
        ),
        ("give a role", Command::GrantRole { person: id("dave@pisa"), role: id("pilot") }),
        (
            "admit somebody",
            Command::Approve {
                person: id("eve@pisa"),
                groups: vec![id("optics")],
                roles: vec![],
                expires: None,
            },
        ),
        ("remove a member", Command::RemoveMember { person: id("dave@pisa"), reason: reason() }),
        ("suspend one", Command::SuspendMember { person: id("dave@pisa"), reason: reason() }),
        ("take over", s(Structural::AcceptHandover { by: id("alice@rennes") })),
        ("hand over", s(Structural::OfferHandover { to: id("bob@pisa") })),
        ("dissolve", s(Structural::Dissolve { reason: reason() })),
        ("erase", s(Structural::Erase)),
    ];
    for (what, command) in attempts {
        let before = h.vo.clone();
        let refused = h.run(&person("bob@pisa"), command);
        let kind = refused.expect_err(what).kind;
        assert!(kind == Kind::Denied || (what == "take over" && kind == Kind::NotFound), "{what}");
        assert_eq!(h.vo, before, "{what}");
    }
    // Managing ends at once: with the right, with the membership, with a suspension.
    let stop = |p: &str| Structural::RemoveManager { name: id("optics"), person: id(p) };
    h.ok("adam@pisa", Command::Structure(stop("bob@pisa")));
    assert_eq!(h.kind("bob@pisa", add("lasers", "dave@pisa")), Kind::Denied);
    h.ok("adam@pisa", manage("optics", "dave@pisa"));
    h.ok("adam@pisa", Command::SuspendMember { person: id("dave@pisa"), reason: reason() });
    assert_eq!(h.kind("dave@pisa", add("optics", "bob@pisa")), Kind::Denied);
    h.ok("adam@pisa", Command::RemoveMember { person: id("dave@pisa"), reason: reason() });
    h.join("dave@pisa", &[]);
    assert_eq!(h.kind("dave@pisa", add("optics", "bob@pisa")), Kind::Denied, "a new membership");
}

/// If it failed, a group made later under an old name would begin with the former's managers.
#[test]
fn a_deleted_group_leaves_no_manager() {
    let mut h = tree();
    h.ok("alice@rennes", manage("chemistry", "bob@pisa"));
    h.ok("alice@rennes", Command::DeleteGroup { name: id("chemistry") });
    h.ok("alice@rennes", create("chemistry"));
    assert_eq!(h.kind("bob@pisa", add("chemistry", "carol@pisa")), Kind::Denied);
}

/// If it failed, a program with a narrow credential of somebody would be manager or owner by it, or
/// an administrator could do less with theirs than another member.
#[test]
fn who_manages_or_takes_over_signed_in() {
    let mut h = tree();
    h.ok("alice@rennes", manage("optics", "bob@pisa"));
    let with = |person: &str, roles: &[&str]| {
        let carried = Carried::Roles(roles.iter().map(|r| id(r)).collect());
        Subject::Person { person: id(person), site_admin: false, carried }
    };
    let job = with("bob@pisa", &[]);
    assert_eq!(h.run(&job, add("lasers", "carol@pisa")).unwrap_err().kind, Kind::Denied);
    let offer = Structural::OfferHandover { to: id("bob@pisa") };
    h.ok("alice@rennes", Command::Structure(offer));
    let accept = || Command::Structure(Structural::AcceptHandover { by: id("alice@rennes") });
    let e = h.run(&job, accept()).unwrap_err();
    assert!(e.kind == Kind::Denied && e.hint.unwrap().contains("without a VO"), "{}", e.message);
    h.ok("alice@rennes", manage("optics", "alice@rennes"));
    h.run(&with("alice@rennes", &["owner"]), add("lasers", "carol@pisa")).unwrap();
    h.ok("bob@pisa", accept());
}

/// If it failed, one manager would use up the groups of the whole VO.
#[test]
fn a_manager_makes_a_bounded_number_of_groups() {
    let mut h = tree();
    h.ok("alice@rennes", manage("optics", "bob@pisa"));
    // One is there: lasers.
    for n in 0..99 {
        h.ok("bob@pisa", below("optics", &format!("optics-{n}")));
    }
    assert_eq!(h.kind("bob@pisa", below("optics", "optics-more")), Kind::TooLarge);
    assert_eq!(h.kind("bob@pisa", below("optics-7", "optics-7-more")), Kind::TooLarge);
    h.ok("alice@rennes", below("optics", "optics-more"));
}
