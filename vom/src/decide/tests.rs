//! Whole sequences of commands against one VO, as the home runs them.

use super::*;
use crate::log::Chain;
use crate::policy::{Carried, Policy, Subject};
use proptest::prelude::*;
use std::collections::BTreeMap;
use xos_api::vom::{Actor, Change, Entry, MESSAGE_MAX};
use xos_base::{Epoch, Kind};

const NOW: Millis = Millis(1_000_000);

/// A VO and the entries that made it.
struct Home {
    policy: Policy,
    vo: Vo,
    log: Vec<Entry>,
}

fn id<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().unwrap()
}

fn person(p: &str) -> Subject {
    Subject::Person { person: id(p), site_admin: false, carried: Carried::All }
}

fn terms(version: u32) -> Terms {
    Terms { cpu_milli: 4000, memory_bytes: 1 << 30, storage_bytes: 0, until: None, version }
}

fn policy() -> Policy {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(Policy::built_in()).unwrap()
}

impl Home {
    /// `demo.rennes`, founded by alice@rennes.
    fn new(policy: &Policy) -> Home {
        let change = Change::Founded {
            owner: id("alice@rennes"),
            title: "Demo".into(),
            description: String::new(),
        };
        let entry = Entry {
            vo: id("demo.rennes"),
            number: 1,
            prev: String::new(),
            time: NOW,
            actor: Actor::Person(id("alice@rennes")),
            change,
        };
        let vo = Vo::found(&entry).unwrap();
        Home { policy: policy.clone(), vo, log: vec![entry] }
    }

    fn run(&mut self, who: &Subject, command: Command) -> Result<bool, Error> {
        let action = command.action(&self.vo, who.person());
        let grant = self.policy.authorise(&self.vo, who, action, NOW)?;
        let Some(change) = decide(&self.vo, &command, &grant, NOW)? else { return Ok(false) };
        let chain = Chain { number: self.vo.number, hash: String::new(), time: self.vo.time };
        let entry = chain.next(&self.vo.id, who.actor(), change, NOW);
        self.vo.check(&entry).expect("what was decided may follow");
        self.vo.apply(&entry);
        self.log.push(entry);
        Ok(true)
    }

    fn ok(&mut self, who: &str, command: Command) {
        assert!(self.run(&person(who), command).unwrap());
    }

    fn kind(&mut self, who: &str, command: Command) -> Kind {
        self.run(&person(who), command).unwrap_err().kind
    }

    fn join(&mut self, p: &str, roles: &[&str]) {
        self.ok(p, Command::Apply { message: "hello".into() });
        let roles = roles.iter().map(|r| id(r)).collect();
        let approve = Command::Approve { person: id(p), groups: vec![], roles, expires: None };
        self.ok("alice@rennes", approve);
    }

    fn epoch(&self, p: &str) -> Epoch {
        self.vo.members[&id::<PersonId>(p)].epoch
    }
}

#[test]
fn an_applicant_becomes_a_member_once() {
    let mut h = Home::new(&policy());
    let apply = || Command::Apply { message: "please".into() };
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
        assert_eq!(h.kind("bob@pisa", Command::Apply { message }), Kind::Invalid);
    }
    h.ok("bob@pisa", Command::Apply { message: "é".repeat(MESSAGE_MAX) });
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
    h.ok("erin@pisa", Command::Apply { message: String::new() });
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
fn a_suspended_vo_changes_only_back_or_down() {
    let mut h = Home::new(&policy());
    h.join("bob@pisa", &[]);
    let admin =
        Subject::Person { person: id("root@rennes"), site_admin: true, carried: Carried::All };
    let suspend = || Command::SuspendVo { reason: "misuse".into() };
    assert_eq!(h.kind("bob@pisa", suspend()), Kind::Denied);
    assert!(h.run(&admin, suspend()).unwrap());
    assert!(h.vo.membership(&id("bob@pisa"), NOW).unwrap_err().message.contains("misuse"));
    let refused = |h: &mut Home| {
        let group = Command::CreateGroup { name: id("x") };
        let e = h.run(&person("alice@rennes"), group).unwrap_err();
        (e.kind, e.hint.unwrap())
    };
    let by = |who: &str| format!("{who} resumes it with `xos vo resume-vo demo.rennes`");
    assert_eq!(refused(&mut h), (Kind::Denied, by("an administrator of its home site")));
    assert_eq!(h.kind("eve@pisa", Command::Apply { message: String::new() }), Kind::Denied);
    h.ok("alice@rennes", Command::RemoveMember { person: id("bob@pisa"), reason: "".into() });
    assert_eq!(h.kind("alice@rennes", Command::ResumeVo), Kind::Denied, "the site did it");
    assert!(h.run(&admin, Command::ResumeVo).unwrap());
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
        Change::Applied { person: id("eve@pisa"), message: String::new() },
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

#[test]
fn a_share_needs_both_sides() {
    let mut h = Home::new(&policy());
    let pisa = Subject::Core(id("pisa"));
    let site = || id::<SiteId>("pisa");
    let offer = |v| Command::OfferShare { site: site(), terms: terms(v) };
    let accept = |v| Command::AcceptShare { site: site(), version: v };
    assert_eq!(h.run(&Subject::Core(id("lucca")), offer(1)).unwrap_err().kind, Kind::Denied);
    assert_eq!(h.kind("alice@rennes", offer(1)), Kind::Denied);
    assert!(h.run(&pisa, offer(1)).unwrap());
    assert!(!h.run(&pisa, offer(1)).unwrap(), "the same again is no new entry");
    assert!(h.vo.serving(NOW).is_empty());
    assert!(h.run(&pisa, offer(2)).unwrap());
    assert_eq!(h.kind("alice@rennes", accept(1)), Kind::NotFound, "not what was looked at");
    h.ok("alice@rennes", accept(2));
    assert_eq!(h.vo.serving(NOW)[0].terms.version, 2);
    assert_eq!(h.run(&pisa, offer(2)).map_err(|e| e.kind), Ok(false));
    assert_eq!(
        h.run(
            &pisa,
            Command::OfferShare { site: site(), terms: Terms { cpu_milli: 1, ..terms(2) } }
        )
        .unwrap_err()
        .kind,
        Kind::Conflict
    );
    // A new offer does not end the old one; a late withdrawal of the old does not end the new.
    assert!(h.run(&pisa, offer(3)).unwrap());
    assert_eq!(h.vo.serving(NOW)[0].terms.version, 2);
    let withdraw = |v| Command::WithdrawShare { site: site(), version: v, reason: "r".into() };
    assert!(!h.run(&pisa, withdraw(2)).unwrap());
    assert!(h.run(&pisa, withdraw(3)).unwrap());
    assert!(!h.run(&pisa, withdraw(3)).unwrap());
    assert!(h.vo.serving(NOW).is_empty());
}

#[test]
fn an_offer_alone_opens_no_log() {
    use crate::state::Readable;
    // Else any trusted site could read the members of any VO.
    let mut h = Home::new(&policy());
    let pisa = Subject::Core(id("pisa"));
    h.run(&pisa, Command::OfferShare { site: id("pisa"), terms: terms(1) }).unwrap();
    let readable = |h: &Home| h.vo.shares[&id::<SiteId>("pisa")].readable();
    assert_eq!(readable(&h), Readable::Later(0));
    h.ok("alice@rennes", Command::AcceptShare { site: id("pisa"), version: 1 });
    assert_eq!(readable(&h), Readable::All);
    h.ok("alice@rennes", Command::EndShare { site: id("pisa"), reason: String::new() });
    assert_eq!(readable(&h), Readable::UpTo(h.vo.number));
    let end = h.vo.number;
    h.run(&pisa, Command::OfferShare { site: id("pisa"), terms: terms(2) }).unwrap();
    assert_eq!(readable(&h), Readable::Later(end));
    h.ok("alice@rennes", Command::RefuseShare { site: id("pisa"), version: 2, reason: "".into() });
    assert_eq!(readable(&h), Readable::UpTo(end));
}

#[test]
fn accounts_in_steps_are_the_accounts_in_one() {
    use crate::state::Block;
    use xos_api::vom::AccountState;
    let block = Block { base: 2_000_000_000, size: 65_536 };
    let mut h = Home::new(&policy());
    h.join("alice@pisa", &[]);
    let number = h.vo.number;
    h.ok("alice@rennes", Command::CreateGroup { name: id("physics") });
    h.ok("alice@rennes", Command::AddToGroup { name: id("physics"), person: id("alice@pisa") });
    let all = h.vo.accounts(block, AccountState::Active, None);
    assert_eq!(all.len(), 1);
    // Who had the name first keeps it; the namesake gets a number.
    let name =
        |n: u32| all[0].members.iter().find(|m| m.number.0 == n).map(|m| m.name.clone()).unwrap();
    assert_eq!((name(1).as_str(), name(2).as_str()), ("alice.demo.rennes", "u2000000002"));
    let step = h.vo.accounts(block, AccountState::Active, Some(number));
    assert_eq!(step[0].members.len(), 1);
    assert_eq!(step[0].groups.len(), 1);
    assert!(!step[0].full && !step[0].more);
    let number = h.vo.number;
    h.ok("alice@pisa", Command::RemoveMember { person: id("alice@pisa"), reason: "".into() });
    let step = h.vo.accounts(block, AccountState::Active, Some(number));
    assert_eq!(step[0].members[0].state, AccountState::Ended);
    // Numbers beyond the block belong to another VO: no account.
    let tiny = Block { size: 1, ..block };
    assert!(h.vo.accounts(tiny, AccountState::Active, None)[0].members.is_empty());
}

fn command() -> impl Strategy<Value = (usize, Command)> {
    let person = || prop::sample::select(vec!["alice@rennes", "bob@pisa", "carol@pisa"]);
    let group = || prop::sample::select(vec!["physics", "x", "members"]);
    let role = || prop::sample::select(vec!["owner", "admin", "pilot"]);
    let text = || Just(String::new());
    let expires = || prop::option::of(prop::sample::select(vec![Millis(1), Millis(u64::MAX)]));
    let one = prop_oneof![
        Just(Command::Apply { message: String::new() }),
        Just(Command::WithdrawApplication),
        (person(), prop::option::of(group()), prop::option::of(role()), expires()).prop_map(
            |(p, g, r, expires)| Command::Approve {
                person: id(p),
                groups: g.map(id).into_iter().collect(),
                roles: r.map(id).into_iter().collect(),
                expires,
            }
        ),
        (person(), text()).prop_map(|(p, reason)| Command::Reject { person: id(p), reason }),
        (person(), text()).prop_map(|(p, reason)| Command::SuspendMember { person: id(p), reason }),
        person().prop_map(|p| Command::ResumeMember { person: id(p) }),
        (person(), text()).prop_map(|(p, reason)| Command::RemoveMember { person: id(p), reason }),
        (person(), expires()).prop_map(|(p, e)| Command::SetExpiry { person: id(p), expires: e }),
        (person(), role()).prop_map(|(p, r)| Command::GrantRole { person: id(p), role: id(r) }),
        (person(), role()).prop_map(|(p, r)| Command::WithdrawRole { person: id(p), role: id(r) }),
        group().prop_map(|g| Command::CreateGroup { name: id(g) }),
        group().prop_map(|g| Command::DeleteGroup { name: id(g) }),
        (group(), person()).prop_map(|(g, p)| Command::AddToGroup { name: id(g), person: id(p) }),
        (group(), person())
            .prop_map(|(g, p)| Command::RemoveFromGroup { name: id(g), person: id(p) }),
        (0u32..4).prop_map(|v| Command::OfferShare { site: id("pisa"), terms: terms(v) }),
        (0u32..4).prop_map(|version| Command::AcceptShare { site: id("pisa"), version }),
        text().prop_map(|reason| Command::EndShare { site: id("pisa"), reason }),
        text().prop_map(|reason| Command::SuspendVo { reason }),
        Just(Command::ResumeVo),
    ];
    (0usize..5, one)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever is asked in whatever order, a log holds these: a number names one person for
    /// good, epochs rise, an owner can act, counts are right, and replay gives the same VO.
    #[test]
    fn invariants_hold(commands in prop::collection::vec(command(), 1..120)) {
        thread_local! { static POLICY: Policy = policy(); }
        let mut h = POLICY.with(Home::new);
        let mut numbers: BTreeMap<u32, PersonId> = BTreeMap::new();
        let mut epochs: BTreeMap<PersonId, Epoch> = BTreeMap::new();
        let mut groups: BTreeMap<u32, (GroupName, bool)> = BTreeMap::new();
        let askers = [
            person("alice@rennes"), person("bob@pisa"), person("carol@pisa"),
            Subject::Core(id("pisa")),
            Subject::Person { person: id("root@rennes"), site_admin: true, carried: Carried::All },
        ];
        for (who, command) in commands {
            let before = h.vo.clone();
            if h.run(&askers[who], command).is_err() {
                prop_assert_eq!(&before, &h.vo, "a refusal changed something");
                continue;
            }
            for (p, m) in &h.vo.members {
                prop_assert_eq!(numbers.entry(m.number.0).or_insert_with(|| p.clone()), p);
                let last = epochs.entry(p.clone()).or_insert(m.epoch);
                prop_assert!(m.epoch >= *last);
                *last = m.epoch;
                for g in &m.groups {
                    prop_assert!(h.vo.groups.contains_key(g));
                }
            }
            for (name, g) in &h.vo.groups {
                let (first, gone) = groups.entry(g.number.0).or_insert((name.clone(), false)).clone();
                prop_assert!(first == *name && !gone, "group number given again");
                let count = h.vo.members.values().filter(|m| m.groups.contains(name)).count();
                prop_assert_eq!(count as u64, g.count);
            }
            for (number, (name, gone)) in &mut groups {
                *gone = h.vo.groups.get(name).is_none_or(|g| g.number.0 != *number);
            }
            prop_assert!(h.vo.owners.iter().any(|o| h.vo.acts(o, Millis(u64::MAX))));
            for (p, m) in &h.vo.members {
                let owns = m.roles.iter().any(|r| r.as_str() == "owner");
                prop_assert_eq!(owns, h.vo.owners.contains(p));
            }
        }
        let mut replayed = Vo::found(&h.log[0]).unwrap();
        for entry in &h.log[1..] {
            replayed.check(entry).expect("a log that was made can be followed");
            replayed.apply(entry);
        }
        prop_assert_eq!(&replayed, &h.vo);
        let text = serde_json::to_vec(&h.vo).unwrap();
        prop_assert_eq!(serde_json::from_slice::<Vo>(&text).unwrap(), replayed);
    }

    /// Entries of a hostile home, in any order: refused or applied, never a panic, and never two
    /// members under one number.
    #[test]
    fn a_hostile_log_cannot_break_a_follower(
        commands in prop::collection::vec(command(), 1..40),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        thread_local! { static POLICY: Policy = policy(); }
        let mut h = POLICY.with(Home::new);
        for (_, command) in commands {
            if let Err(e) = h.run(&person("alice@rennes"), command) {
                prop_assert!(e.kind != Kind::Internal);
            }
        }
        let mut follower = Vo::found(&h.log[0]).unwrap();
        for i in order {
            let mut entry = i.get(&h.log).clone();
            entry.number = follower.number + 1;
            if follower.check(&entry).is_ok() {
                follower.apply(&entry);
            }
            let mut numbers: Vec<u32> = follower.members.values().map(|m| m.number.0).collect();
            numbers.sort_unstable();
            numbers.dedup();
            prop_assert_eq!(numbers.len(), follower.members.len());
        }
    }
}

#[test]
fn a_suspension_ends_mandates_and_other_changes_do_not() {
    // Else what a thief submitted gets tickets after suspend and resume; or a change of groups
    // stops all work that a member has running.
    let mut h = Home::new(&policy());
    h.join("bob@pisa", &["pilot"]);
    let bob = || id::<PersonId>("bob@pisa");
    let first = h.epoch("bob@pisa");
    h.ok("alice@rennes", Command::WithdrawRole { person: bob(), role: id("pilot") });
    assert!(h.epoch("bob@pisa") > first);
    h.vo.mandated(&bob(), first).expect("a narrowed member's work goes on");
    h.ok("alice@rennes", Command::SuspendMember { person: bob(), reason: "stolen".into() });
    h.ok("alice@rennes", Command::ResumeMember { person: bob() });
    assert_eq!(h.vo.mandated(&bob(), first).unwrap_err().kind, Kind::Denied);
    h.vo.mandated(&bob(), h.epoch("bob@pisa")).expect("what is submitted now");
}
