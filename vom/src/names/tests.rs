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
    let t = t.release(&"anna".parse().unwrap()).unwrap();
    let t = given(&t, "demo.rennes", &[("bob@pisa", "anna")]).unwrap();
    assert_eq!(t.used(&demo, &bob).unwrap().as_str(), "anna");
    assert_eq!(t.drop_name(&demo, &ann).unwrap_err().kind, Kind::NotFound);
    assert_eq!(t.release(&"nan".parse().unwrap()).unwrap_err().kind, Kind::NotFound);
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
        for (what, person, name, of) in steps {
            let (of, n) = (&vos[of], naming(people[person], labels[name]));
            let next = match what {
                0 | 1 => table.give(of, &[n], Millis(1)),
                2 => table.drop_name(of, &n.person).map(|(t, _)| t),
                _ => table.release(&n.name),
            };
            table = next.unwrap_or(table);
            let kept = vos.iter().map(|of| (of.clone(), table.of(of))).collect();
            let again = Table::new(kept);
            prop_assert_eq!(&again.names, &table.names);
            let used: Vec<_> = table.used.values().flat_map(BTreeMap::values).collect();
            let unique: BTreeSet<_> = used.iter().collect();
            prop_assert_eq!(used.len(), unique.len());
            let marked = table.names.values().filter(|(_, kept)| kept.used).count();
            prop_assert_eq!(used.len(), marked);
        }
    }
}
