use super::*;
use proptest::prelude::*;

fn vo(text: &str) -> VoId {
    text.parse().unwrap()
}

fn naming(person: &str, name: &str) -> Naming {
    Naming { person: person.parse().unwrap(), name: name.parse().unwrap() }
}

fn given(table: &Table, of: &str, all: &[(&str, &str)]) -> Result<Table, Error> {
    let names: Vec<Naming> = all.iter().map(|(p, n)| naming(p, n)).collect();
    table.give(&vo(of), &names, Millis(5))
}

/// If it failed, files that name somebody would be read as another person's.
#[test]
fn a_name_stays_its_persons_until_it_is_released() {
    let (ann, bob): (PersonId, PersonId) =
        ("ann@rennes".parse().unwrap(), "bob@pisa".parse().unwrap());
    let demo = vo("demo.rennes");
    let t = given(&Table::default(), "demo.rennes", &[("ann@rennes", "ann")]).unwrap();
    let t = given(&t, "demo.rennes", &[("ann@rennes", "anna")]).unwrap();
    assert_eq!(t.used(&demo, &ann).unwrap().as_str(), "anna");
    for (of, name) in [("demo.rennes", "ann"), ("demo.rennes", "anna"), ("x.pisa", "ann")] {
        let e = given(&t, of, &[("bob@pisa", name)]).unwrap_err();
        assert_eq!(e.kind, Kind::Conflict, "{of} {name}: {e}");
    }
    // The same person in another VO has another uid.
    assert!(given(&t, "x.pisa", &[("ann@rennes", "ann")]).is_err());
    let (t, dropped) = t.drop_name(&demo, &ann).unwrap();
    assert_eq!((dropped.as_str(), t.used(&demo, &ann)), ("anna", None));
    assert!(given(&t, "demo.rennes", &[("bob@pisa", "anna")]).is_err(), "dropped, and kept");
    let again = given(&t, "demo.rennes", &[("ann@rennes", "ann")]).unwrap();
    assert_eq!(again.one(&"ann".parse().unwrap()).unwrap().1.since, Millis(5));
    let released = Millis(5);
    let t = t.release(&"anna".parse().unwrap(), released).unwrap();
    let t = t.give(&demo, &[naming("bob@pisa", "anna")], released.plus(REST)).unwrap();
    assert_eq!(t.used(&demo, &bob).unwrap().as_str(), "anna");
    assert_eq!(t.drop_name(&demo, &ann).unwrap_err().kind, Kind::NotFound);
    assert_eq!(t.release(&"nan".parse().unwrap(), released).unwrap_err().kind, Kind::NotFound);
}

/// If it failed, who keeps a connection open as a name of somebody else's until it is theirs would
/// be let in, and get the other's uid.
#[test]
fn a_released_name_rests_before_somebody_else_gets_it() {
    let (demo, pisa, name) = (vo("demo.rennes"), vo("x.pisa"), "robert".parse().unwrap());
    let t = given(&Table::default(), "demo.rennes", &[("bob@pisa", "robert")]).unwrap();
    let bob: PersonId = "bob@pisa".parse().unwrap();
    let (t, _) = t.drop_name(&demo, &bob).unwrap();
    let released = Millis(1000);
    let t = t.release(&name, released).unwrap();
    assert!(t.one(&name).is_none(), "it is still somebody's");
    // As the registry keeps it.
    let t = Table::new(vec![(demo.clone(), t.of(&demo)), (pisa.clone(), t.of(&pisa))]);
    let end = released.plus(REST);
    let give = |t: &Table, of: &VoId, who: &str, now| t.give(of, &[naming(who, "robert")], now);
    for (of, who) in [(&demo, "ann@rennes"), (&pisa, "ann@rennes"), (&pisa, "bob@pisa")] {
        for now in [released, Millis(end.0 - 1)] {
            let e = give(&t, of, who, now).unwrap_err();
            assert_eq!(e.kind, Kind::Conflict, "{of} {who}: {e}");
            assert!(e.message.contains(&end.to_string()), "it does not say until when: {e}");
        }
        assert!(give(&t, of, who, end).is_ok(), "{of} {who}");
    }
    let back = give(&t, &demo, "bob@pisa", released).unwrap();
    assert_eq!(back.used(&demo, &bob), Some(&name));
    // It rests anew after each who had it, and what has rested is forgotten.
    let next = give(&t, &pisa, "ann@rennes", end).unwrap().release(&name, end).unwrap();
    let both = Table::new(vec![(pisa.clone(), next.of(&pisa)), (demo.clone(), t.of(&demo))]);
    assert!(give(&both, &demo, "bob@pisa", end).is_err(), "an older word counts");
    assert!(give(&both, &demo, "bob@pisa", end.plus(REST)).is_ok());
    assert!(next.of(&demo).is_empty() && next.of(&pisa).len() == 1);
}

/// If it failed, half of an import could be made, or one name lead to two people.
#[test]
fn one_bad_name_spoils_all_of_them() {
    let t = given(&Table::default(), "x.pisa", &[("eve@pisa", "eve")]).unwrap();
    for (bad, kind) in [
        (&[("ann@rennes", "ann"), ("ann@rennes", "anna")], Kind::Invalid),
        (&[("ann@rennes", "ann"), ("bob@rennes", "ann")], Kind::Invalid),
        (&[("ann@rennes", "ann"), ("bob@rennes", "eve")], Kind::Conflict),
    ] {
        assert_eq!(given(&t, "demo.rennes", bad).unwrap_err().kind, kind, "{bad:?}");
    }
    assert!(t.of(&vo("demo.rennes")).is_empty());
}

/// If it failed, a node would go on calling an account by a name that it has no more.
#[test]
fn whose_name_changed_is_known_by_turns() {
    let names = Names::new(Table::default(), None);
    let demo = vo("demo.rennes");
    let both = [("ann@rennes", "ann"), ("bob@pisa", "bob")];
    names.adopt(given(&Table::default(), "demo.rennes", &both).unwrap(), None);
    let first = names.of(&demo, 0);
    assert_eq!((first.given.len(), first.changed.len()), (2, 2));
    let bob: PersonId = "bob@pisa".parse().unwrap();
    names.adopt(names.with(|t| t.drop_name(&demo, &bob).unwrap().0), None);
    let next = names.of(&demo, first.turn);
    assert!(next.turn > first.turn);
    assert_eq!((next.given.len(), next.changed), (1, BTreeSet::from([bob])));
    assert_eq!(names.of(&vo("x.pisa"), 0), NamesOf::default(), "not told of what is not theirs");
    assert!(names.of(&demo, next.turn).changed.is_empty());
}

proptest! {
    /// If it failed, after some order of changes two people would have one name, or what the
    /// registry keeps would be another table after a restart.
    #[test]
    fn no_order_of_changes_gives_a_name_to_two(
        steps in prop::collection::vec((0..4usize, 0..3usize, 0..4usize, 0..2usize), 0..40)
    ) {
        let people = ["ann@rennes", "bob@pisa", "eve@pisa"];
        let (labels, vos) = (["ann", "bob", "eve", "dan"], [vo("demo.rennes"), vo("x.pisa")]);
        let mut table = Table::default();
        for (at, (what, person, name, of)) in (0..).zip(steps) {
            let now = Millis::default().plus(REST * at / 3);
            let (of, n) = (&vos[of], naming(people[person], labels[name]));
            let next = match what {
                0 | 1 => table.give(of, &[n], now),
                2 => table.drop_name(of, &n.person).map(|(t, _)| t),
                _ => table.release(&n.name, now),
            };
            table = next.unwrap_or(table);
            let kept = vos.iter().map(|of| (of.clone(), table.of(of))).collect();
            let again = Table::new(kept);
            prop_assert_eq!(&again.names, &table.names);
            prop_assert_eq!(&again.resting, &table.resting);
            let used: Vec<_> = table.used.values().flat_map(BTreeMap::values).collect();
            let unique: BTreeSet<_> = used.iter().collect();
            prop_assert_eq!(used.len(), unique.len());
            let marked = table.names.values().filter(|(_, kept)| kept.used).count();
            prop_assert_eq!(used.len(), marked);
        }
    }
}
