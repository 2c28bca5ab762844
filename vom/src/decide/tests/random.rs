//! Invariants that hold whatever is asked, in whatever order.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Hashes of the secrets of two invitations.
const HASHES: [&str; 2] = [
    "00000000000000000000000000000000000000000000000000000000000000aa",
    "11111111111111111111111111111111111111111111111111111111111111bb",
];

fn asked(required: bool) -> Vec<Question> {
    let kind = xos_api::vom::QuestionKind::Line;
    vec![Question { id: "q".into(), text: "What?".into(), kind, required, choices: vec![] }]
}

/// Consents, and answers to what was asked by some entry.
fn words() -> impl Strategy<Value = Words> {
    let sealed = (0u64..6).prop_map(|asked| Sealed { digest: HASHES[0].into(), asked });
    (prop::option::of(0u32..3), prop::option::of(sealed))
        .prop_map(|(agreed, answers)| Words { agreed, answers })
}

fn command() -> impl Strategy<Value = (usize, Command)> {
    let person = || prop::sample::select(vec!["alice@rennes", "bob@pisa", "carol@pisa"]);
    let group = || prop::sample::select(vec!["physics", "x", "members"]);
    let role = || prop::sample::select(vec!["owner", "admin", "pilot"]);
    let text = || Just(String::new());
    let expires = || prop::option::of(prop::sample::select(vec![Millis(1), Millis(u64::MAX)]));
    let one = prop_oneof![
        words().prop_map(|words| Command::Apply { message: String::new(), words }),
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
        structural(),
        (0u32..4).prop_map(|v| Command::OfferShare { site: id("pisa"), terms: terms(v) }),
        (0u32..4).prop_map(|version| Command::AcceptShare { site: id("pisa"), version }),
        text().prop_map(|reason| Command::EndShare { site: id("pisa"), reason }),
        text().prop_map(|reason| Command::SuspendVo { reason }),
        Just(Command::ResumeVo),
        (0u64..4).prop_map(|n| Command::DescribeVo {
            title: format!("Demo {n}"),
            description: String::new(),
            base: Some(n),
        }),
        (0u64..4).prop_map(|n| Command::SetLease { lease_s: n * 3600, base: None }),
        (0u64..4).prop_map(|n| Command::SetGrace { grace_s: n * 3600, base: None }),
        (0u64..4).prop_map(|n| Command::SetRenewal { renewal_s: n * 3600, base: None }),
        (0u64..4, 0u32..3, any::<bool>(), role()).prop_map(|(base, part, more, name)| {
            let rule = format!(r#"{{"name":"{name}","who":"*","what":"*","effect":"deny"}}"#);
            let put = vec![serde_json::from_str(&rule).unwrap()];
            Command::ChangeRules { base, part, more, put, remove: vec![id("members-run")] }
        }),
        (prop::option::of(0u32..3), 0u32..2).prop_map(|(consent_days, grace_days)| {
            Command::SetTermsOfUse { text: "Be kind.".into(), consent_days, grace_days }
        }),
        (0u32..3).prop_map(|version| Command::Agree { version }),
        any::<bool>().prop_map(|required| Command::SetQuestions { questions: asked(required) }),
        (0u32..3).prop_map(|n| Command::SetReminders { days: vec![n, 7], base: None }),
        (0usize..2, prop::option::of(group()), prop::option::of(role()), 0u32..3, any::<bool>())
            .prop_map(|(n, g, r, uses, at_once)| Command::Invite {
                id: HASHES[n][..16].into(),
                hash: HASHES[n].into(),
                gives: Gives {
                    groups: g.map(id).into_iter().collect(),
                    roles: r.map(id).into_iter().collect(),
                    uses,
                    expires: Millis(NOW.0 + 1000),
                    person: None,
                    ends: None,
                    at_once,
                },
                hint: None,
            }),
        (0usize..2).prop_map(|n| Command::WithdrawInvitation { id: HASHES[n][..16].into() }),
        (0usize..2, words()).prop_map(|(n, words)| Command::Join {
            hash: HASHES[n].into(),
            message: String::new(),
            words,
        }),
    ];
    (0usize..5, one)
}

fn structural() -> impl Strategy<Value = Command> {
    let person = || prop::sample::select(vec!["alice@rennes", "bob@pisa", "carol@pisa"]);
    let group = || prop::sample::select(vec!["physics", "x", "y", "members"]);
    let one = prop_oneof![
        (group(), group())
            .prop_map(|(p, g)| Structural::CreateSubgroup { parent: id(p), name: id(g) }),
        (group(), prop::option::of(group()))
            .prop_map(|(g, p)| Structural::MoveGroup { name: id(g), parent: p.map(id) }),
        (group(), person())
            .prop_map(|(g, p)| Structural::AddManager { name: id(g), person: id(p) }),
        (group(), person())
            .prop_map(|(g, p)| Structural::RemoveManager { name: id(g), person: id(p) }),
        person().prop_map(|p| Structural::OfferHandover { to: id(p) }),
        person().prop_map(|p| Structural::AcceptHandover { by: id(p) }),
        person().prop_map(|p| Structural::EndHandover { by: id(p) }),
        Just(Structural::Dissolve { reason: String::new() }),
        Just(Structural::UndoDissolve),
        Just(Structural::UndoDissolve),
    ];
    one.prop_map(Command::Structure)
}

/// What the tree of groups, their managers and offers to hand over hold at any time.
fn well_built(vo: &Vo) -> Result<(), TestCaseError> {
    for (name, g) in &vo.groups {
        prop_assert!(g.parent.as_ref().is_none_or(|p| vo.groups.contains_key(p)));
        let line: Vec<_> = vo.lineage(name).collect();
        let top = line.last().and_then(|n| vo.groups.get(*n)).unwrap();
        prop_assert!(top.parent.is_none(), "a cycle, or too deep");
    }
    for (person, groups) in &vo.managers {
        prop_assert!(vo.members.contains_key(person) && !groups.is_empty());
        prop_assert!(groups.iter().all(|g| vo.groups.contains_key(g)));
        prop_assert!(groups.iter().all(|g| vo.managed_by[g].contains(person)));
    }
    let count = |sets: Vec<usize>| sets.into_iter().sum::<usize>();
    prop_assert_eq!(
        count(vo.managers.values().map(|g| g.len()).collect()),
        count(vo.managed_by.values().map(|p| p.len()).collect())
    );
    for (person, m) in &vo.members {
        let admin = m.roles.iter().any(|r| r.as_str() == "admin");
        prop_assert_eq!(admin, vo.admins.contains(person), "an index is not what it says");
    }
    prop_assert!(vo.admins.iter().all(|p| vo.members.contains_key(p)));
    for (by, to) in &vo.handovers {
        prop_assert!(vo.owners.contains(by) && vo.members.contains_key(to));
    }
    Ok(())
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
            well_built(&h.vo)?;
            crate::state::check_index(&h.vo);
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
            for (p, said) in &h.vo.enrolling.said {
                let known = h.vo.members.contains_key(p) || h.vo.applications.contains_key(p);
                prop_assert!(known, "{} is gone, and not what was said", p);
                let to = said.agreed.as_ref().map_or(0, |a| a.version);
                prop_assert!(to <= h.vo.terms_version(), "nobody agrees to what is not there");
            }
            for i in h.vo.enrolling.invitations.values() {
                prop_assert!(i.left <= i.gives.uses);
            }
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
        crate::state::check_index(&replayed);
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
                well_built(&follower)?;
            }
            let mut numbers: Vec<u32> = follower.members.values().map(|m| m.number.0).collect();
            numbers.sort_unstable();
            numbers.dedup();
            prop_assert_eq!(numbers.len(), follower.members.len());
        }
    }
}
