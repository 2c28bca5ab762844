//! The file that says who is behind the subjects of a grid-mapfile: two columns, subject and
//! person, as a spreadsheet writes them (RFC 4180).

use super::gridmap::Dn;
use std::collections::BTreeMap;
use xos_base::{Error, PersonId};

/// What stands over the second column, where something does.
const HEAD: &str = "person";

/// Reads lines `"/DC=org/CN=Ann",ann@rennes`. The person stands after the last comma, so that a
/// subject with commas needs no quotes. Empty lines and those that begin with `#` are left out.
///
/// # Errors
/// [`xos_base::Kind::Invalid`] naming the line that is wrong, or a subject that is two people's.
pub fn parse(text: &str) -> Result<BTreeMap<Dn, PersonId>, Error> {
    let mut people = BTreeMap::new();
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim).zip(1..);
    for (line, number) in lines.filter(|(l, _)| !l.is_empty() && !l.starts_with('#')) {
        let wrong = |why: &str| {
            Error::invalid(format!("line {number}: {why}"))
                .hint("write each as \"/DC=org/CN=Ann Example\",ann@rennes")
        };
        let (subject, person) = line.rsplit_once(',').ok_or_else(|| wrong("there is no comma"))?;
        let (subject, person) = (field(subject), field(person));
        if number == 1 && person.eq_ignore_ascii_case(HEAD) {
            continue;
        }
        let dn = Dn::parse(&subject)
            .ok_or_else(|| wrong(&format!("at its beginning, {subject:?} is no subject")))?;
        let person: PersonId = person.parse().map_err(|e| wrong(&format!("at its end, {e}")))?;
        match people.get(&dn) {
            Some(other) if *other != person => {
                return Err(wrong(&format!("the subject is {other}'s too")));
            }
            _ => people.insert(dn, person),
        };
    }
    Ok(people)
}

/// A field without the quotes around it.
fn field(text: &str) -> String {
    let text = text.trim();
    match text.strip_prefix('"').and_then(|t| t.strip_suffix('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a name would go to another person than the administrator wrote.
    #[test]
    fn subjects_and_people_are_told_apart() {
        let text = "\u{feff}dn,Person\n\"/O=Grid, Inc./CN=Ann \"\"A\"\"\",ann@rennes\n\n# no\n\
                    /O=Grid, Inc./CN=Bob , bob@pisa\r\n";
        let people = parse(text).unwrap();
        let of = |dn: &str| people.get(&Dn::parse(dn).unwrap()).map(ToString::to_string);
        assert_eq!(of("/O=Grid, Inc./CN=Ann \"A\"").as_deref(), Some("ann@rennes"));
        assert_eq!(of("/O=Grid, Inc./CN=Bob").as_deref(), Some("bob@pisa"));
        assert_eq!(people.len(), 2);
        for (bad, why) in [
            ("/O=G/CN=a", "line 1: there is no comma"),
            ("# who\n\n/O=G/CN=a,ann", "line 3: at its end, \"ann\" is not a"),
            ("ann@rennes,/O=G/CN=a", "line 1: at its beginning, \"ann@rennes\" is no"),
            (",", "line 1: at its beginning, \"\" is no subject"),
            ("x\ndn,person", "line 1: there is no comma"),
        ] {
            let e = parse(bad).unwrap_err();
            assert!(e.to_string().contains(why), "{e}");
        }
        let two = parse("/O=G/CN=a,ann@rennes\n/o=G/cn=a,bob@pisa").unwrap_err();
        assert!(two.to_string().contains("ann@rennes's too"), "{two}");
    }
}
