//! What an import would do: for each line of a grid-mapfile, which member's account gets which
//! name, or why none does. Pure.

use super::gridmap::{Dn, Line, Mapping};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use xos_api::vom::Naming;
use xos_base::{LocalName, PersonId};

/// How it is known who is behind a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The file of people says so.
    People,
    /// The subject ends with the name of exactly one member. To be looked at by a person.
    Name,
}

/// A line, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Its number.
    pub line: usize,
    /// The subject.
    pub subject: String,
    /// The member.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub person: Option<PersonId>,
    /// How that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<By>,
    /// What the account is to be called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<LocalName>,
    /// Whether the account is called so already.
    pub given: bool,
    /// Why the line is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<String>,
    /// What is to be known beside.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What becomes of each line.
pub fn plan(
    lines: &[Line],
    people: &BTreeMap<Dn, PersonId>,
    members: &BTreeSet<PersonId>,
) -> Vec<Row> {
    let mut rows: Vec<Row> = lines.iter().map(|line| row(line, people, members)).collect();
    let mut holders: BTreeMap<LocalName, BTreeSet<String>> = BTreeMap::new();
    for row in &rows {
        let Some(name) = &row.name else { continue };
        // Whoever is not known may be somebody else, whose files the account has too.
        let holder = row.person.as_ref().map_or(row.subject.clone(), ToString::to_string);
        holders.entry(name.clone()).or_default().insert(holder);
    }
    let mut names: BTreeMap<PersonId, BTreeSet<String>> = BTreeMap::new();
    for Naming { person, name } in wanted(&rows) {
        names.entry(person).or_default().insert(name.to_string());
    }
    for row in &mut rows {
        let (Some(person), Some(name)) = (&row.person, &row.name) else { continue };
        if let Some(holders) = several(holders.get(name)) {
            row.left_out = Some(format!(
                "{name} is shared by {holders}; each member has an account of their own"
            ));
        } else if let Some(own) = several(names.get(person)) {
            row.left_out = Some(format!("{person} would get {own}; leave one line"));
        }
    }
    rows
}

fn several(all: Option<&BTreeSet<String>>) -> Option<String> {
    let all: Vec<&str> = all?.iter().map(String::as_str).collect();
    (all.len() > 1).then(|| all.join(", "))
}

/// The names that an import gives: each once, also when lines repeat it.
pub fn wanted(rows: &[Row]) -> Vec<Naming> {
    let kept = rows.iter().filter(|row| row.left_out.is_none());
    let named = kept.filter_map(|row| Some((row.person.clone()?, row.name.clone()?)));
    let all: BTreeSet<(PersonId, LocalName)> = named.collect();
    all.into_iter().map(|(person, name)| Naming { person, name }).collect()
}

fn row(line: &Line, people: &BTreeMap<Dn, PersonId>, members: &BTreeSet<PersonId>) -> Row {
    let mut row = Row {
        line: line.number,
        subject: line.subject.clone(),
        person: None,
        by: None,
        name: None,
        given: false,
        left_out: None,
        notes: Vec::new(),
    };
    let mapping = match &line.what {
        Ok(mapping) => mapping,
        Err(fault) => {
            row.left_out = Some(fault.to_string());
            return row;
        }
    };
    match whose(&mapping.dn, people, members) {
        Ok((person, by)) => (row.person, row.by) = (Some(person), Some(by)),
        Err(why) => row.left_out = Some(why),
    }
    match usual(mapping) {
        Ok((name, notes)) => (row.name, row.notes) = (Some(name), notes),
        Err(why) => row.left_out = row.left_out.or(Some(why)),
    }
    row
}

fn whose(
    dn: &Dn,
    people: &BTreeMap<Dn, PersonId>,
    members: &BTreeSet<PersonId>,
) -> Result<(PersonId, By), String> {
    if let Some(person) = people.get(dn) {
        return match members.get(person) {
            Some(person) => Ok((person.clone(), By::People)),
            None => Err(format!("{person} is no member of the VO")),
        };
    }
    let named = |person: &&PersonId| dn.name() == Some(person.name());
    let found: Vec<&PersonId> = members.iter().filter(named).collect();
    match found.as_slice() {
        [person] => Ok(((*person).clone(), By::Name)),
        [] => Err("who that is stands in no file of people".to_owned()),
        several => {
            let several: Vec<&str> = several.iter().map(|p| p.as_str()).collect();
            Err(format!("it may be {}: say it in a file of people", several.join(" or ")))
        }
    }
}

/// The account that the person usually has, and a note on the others.
fn usual(mapping: &Mapping) -> Result<(LocalName, Vec<String>), String> {
    let (first, others) = mapping.accounts.split_first().ok_or("it names no account")?;
    let name: LocalName =
        first.parse().map_err(|e: xos_base::ids::IdError| format!("{first:?}: {}", e.want))?;
    let note = format!("not taken: {}; an account is called by one name", others.join(", "));
    Ok((name, if others.is_empty() { Vec::new() } else { vec![note] }))
}

#[cfg(test)]
mod tests {
    use super::super::{gridmap, people};
    use super::*;

    fn planned(map: &str, known: &str) -> Vec<Row> {
        let members = ["ann@rennes", "ann@pisa", "bob@pisa", "carol@pisa"];
        let members = members.iter().map(|p| p.parse().unwrap()).collect();
        plan(&gridmap::parse(map), &people::parse(known).unwrap(), &members)
    }

    fn names(rows: &[Row]) -> Vec<String> {
        wanted(rows).iter().map(|n| format!("{}={}", n.person, n.name)).collect()
    }

    /// If it failed, an import would give a name to somebody whom nobody has looked at.
    #[test]
    fn who_is_not_known_for_sure_gets_nothing() {
        let rows = planned(
            "/O=G/CN=Ann ann\n/O=G/CN=bob bob\n/O=G/CN=ann a\n/O=G/CN=Bob b\n/O=G/CN=eve eve\n",
            "/O=G/CN=Ann,ann@rennes\n/O=G/CN=eve,eve@pisa\n",
        );
        assert_eq!(names(&rows), ["ann@rennes=ann", "bob@pisa=bob"]);
        assert_eq!((rows[0].by, rows[1].by), (Some(By::People), Some(By::Name)));
        let why = |at: usize| rows[at].left_out.as_deref().unwrap();
        assert!(why(2).contains("ann@pisa or ann@rennes"), "{}", why(2));
        assert!(why(3).contains("no file of people"), "not even by case: {}", why(3));
        assert!(why(4).contains("eve@pisa is no member"), "{}", why(4));
    }

    /// If it failed, several people would share an account, or one would lose files to a name that
    /// a later line gave.
    #[test]
    fn shared_accounts_and_second_names_are_left_out() {
        let known = "/O=G/CN=1,ann@rennes\n/O=G/CN=2,bob@pisa\n/O=G/CN=3,carol@pisa\n\
                     /O=G/CN=4,carol@pisa\n";
        let rows = planned("/O=G/CN=1 shared\n/O=G/CN=2 shared\n/O=G/CN=3 carol\n", known);
        assert_eq!(names(&rows), ["carol@pisa=carol"]);
        assert!(rows[1].left_out.as_deref().unwrap().contains("ann@rennes, bob@pisa"));
        let rows = planned("/O=G/CN=1 team\n/O=G/CN=nobody-knows team\n", known);
        assert!(names(&rows).is_empty(), "the other one has files there too");
        let rows = planned("/O=G/CN=3 carol\n/O=G/CN=4 caro\n/O=G/CN=2 bob\n", known);
        assert_eq!(names(&rows), ["bob@pisa=bob"]);
        assert!(rows[0].left_out.as_deref().unwrap().contains("caro, carol"));
        // A renewed certificate of the same person.
        let rows = planned("/O=G/CN=3 carol,c2\n/O=G/CN=4 carol\n", known);
        assert_eq!(names(&rows), ["carol@pisa=carol"]);
        assert!(rows[0].notes[0].contains("not taken: c2"), "{:?}", rows[0].notes);
    }

    /// If it failed, an import would stop half-way, or make a member a namesake of the system.
    #[test]
    fn pools_groups_and_names_of_systems_are_left_out_with_the_reason() {
        let known = "/O=G/CN=1,ann@rennes\n";
        for (line, why) in [
            ("/O=G/CN=1 .demo", "pool"),
            ("/demo/Role=x demo", "VOMS"),
            ("/O=G/CN=1 root", "systems"),
            ("/O=G/CN=1 Ann", "a-z"),
            ("/O=G/CN=1 u1879048193", "the grid itself"),
        ] {
            let rows = planned(line, known);
            assert!(names(&rows).is_empty(), "{line}");
            assert!(rows[0].left_out.as_deref().unwrap().contains(why), "{rows:?}");
        }
    }
}
