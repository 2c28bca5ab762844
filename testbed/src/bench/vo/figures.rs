//! The figures of the suite, each with what it shall reach and who stands beside it.

use crate::Result;
use crate::bench::failed;
use crate::bench::figure::{Figure, Reach};
use crate::bench::samples::Samples;
use crate::bench::suite::Sheet;
use std::collections::BTreeMap;

/// The values of each measurement, by its key.
pub(super) type Measured = BTreeMap<String, Vec<f64>>;

/// One figure.
pub(super) struct Line {
    /// Its values in [`Measured`].
    key: &'static str,
    name: &'static str,
    unit: &'static str,
    reach: Option<Reach>,
    /// Who stands beside it, and the key of the values.
    peer: Option<(&'static str, &'static str)>,
}

/// The key of what a directory does that is installed.
pub(super) const SLAPD: &str = "slapd";

const fn line(key: &'static str, name: &'static str, unit: &'static str) -> Line {
    Line { key, name, unit, reach: None, peer: None }
}

impl Line {
    const fn at_most(self, most: f64) -> Line {
        Line { reach: Some(Reach::AtMost(most)), ..self }
    }

    const fn at_least(self, least: f64) -> Line {
        Line { reach: Some(Reach::AtLeast(least)), ..self }
    }

    const fn beside(self, whose: &'static str, key: &'static str) -> Line {
        Line { peer: Some((whose, key)), ..self }
    }
}

const CASBIN: &str = "casbin alone";
const DIRECTORY: &str = "slapd, 100,000 people, by its socket";

/// Decisions.
pub(super) const RULES: [Line; 8] = [
    line("one.uncached.allowed", "decision, 10,000 rules, found anew, allowed", "us")
        .at_most(200.0)
        .beside(CASBIN, "one.casbin.allowed"),
    line("one.uncached.denied", "  denied", "us")
        .at_most(200.0)
        .beside(CASBIN, "one.casbin.denied"),
    line("one.cached.allowed", "  remembered, allowed", "us").at_most(20.0),
    line("one.cached.denied", "  remembered, denied", "us").at_most(20.0),
    line("many.uncached.allowed", "decision, 20 VOs of 10,000 rules and the site's", "us")
        .at_most(200.0)
        .beside(CASBIN, "many.casbin.allowed"),
    line("many.uncached.denied", "  denied", "us")
        .at_most(200.0)
        .beside(CASBIN, "many.casbin.denied"),
    line("many.cached.allowed", "  remembered, allowed", "us").at_most(20.0),
    line("many.cached.denied", "  remembered, denied", "us").at_most(20.0),
];

/// A VO of a million members, without the console.
pub(super) const MEMBERS: [Line; 7] = [
    line("look_up.membership", "membership looked up by a service, 1,000,000 members", "us")
        .at_most(100.0)
        .beside(DIRECTORY, SLAPD),
    line("look_up.member", "  member looked up by an owner", "us")
        .at_most(100.0)
        .beside(DIRECTORY, SLAPD),
    line("look_up.standing", "  what a credential is worth", "us").at_most(100.0),
    line("change.core", "a member is suspended: seen by another site", "ms").at_most(1000.0),
    line("change.node", "  told to its node", "ms").at_most(1000.0),
    line("change.entry_bytes", "  travelled between the sites: one entry", "bytes"),
    line("change.account_bytes", "  travelled to the node: one account", "bytes"),
];

/// Pages of its members.
pub(super) const PAGES: [Line; 2] = [
    line("page.first", "console page of 1,000,000 members, the first", "ms").at_most(200.0),
    line("page.middle", "  from the middle of the list", "ms").at_most(200.0),
];

/// A member removed.
pub(super) const REMOVAL: [Line; 6] = [
    line("gone.median", "member removed: last process gone at every site", "s").at_most(5.0),
    line("gone.worst", "  the worst", "s").at_most(5.0),
    line("token.median", "  token refused at every site", "s").at_most(5.0),
    line("token.worst", "  the worst", "s").at_most(5.0),
    line("capability.median", "  capability refused at every site", "s").at_most(5.0),
    line("capability.worst", "  the worst", "s").at_most(5.0),
];

/// The audit.
pub(super) const AUDIT: [Line; 5] = [
    line("append.together", "audit lines appended, durable, 4,096 wait", "/s").at_least(20_000.0),
    line("append.alone", "  each waited for", "/s"),
    line("verify", "audit lines verified", "/s").at_least(200_000.0),
    line("search.newest", "search of 1,000,000 lines: the newest 100", "ms"),
    line("search.whole", "  the oldest line", "ms"),
];

/// Adds these figures. A peer that was not measured is left out.
///
/// # Errors
/// When one was not measured.
pub(super) fn add(sheet: &mut Sheet, lines: &[Line], measured: &Measured) -> Result<()> {
    let samples = |key: &str| measured.get(key).cloned().map(Samples::new);
    for line in lines {
        let values = samples(line.key);
        let values = values.ok_or_else(|| failed(line.key, "it was not measured"))?;
        let mut figure = Figure::new(line.name, &values, line.unit);
        if let Some(reach) = line.reach {
            figure = figure.reach(reach);
        }
        if let Some((whose, key)) = line.peer {
            figure = figure.beside(whose, samples(key).as_ref());
        }
        sheet.add(figure, &values);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Run;
    use serde_json::{Value, json};
    use std::path::PathBuf;

    fn all() -> Vec<&'static Line> {
        let parts: [&'static [Line]; 5] = [&RULES, &MEMBERS, &PAGES, &REMOVAL, &AUDIT];
        parts.into_iter().flatten().collect()
    }

    /// Every figure, of the value one; each peer's is two.
    fn sheet(peers: bool) -> Value {
        let run = Run { dir: PathBuf::new(), program: PathBuf::new(), repetitions: 1, peers };
        let mut measured = Measured::new();
        for line in all() {
            measured.insert(line.key.to_owned(), vec![1.0]);
            if let Some((_, key)) = line.peer.filter(|_| peers) {
                measured.insert(key.to_owned(), vec![2.0]);
            }
        }
        let mut say = |_: &str| {};
        let mut sheet = Sheet::new(&run, &mut say);
        for lines in [&RULES[..], &MEMBERS, &PAGES, &REMOVAL, &AUDIT] {
            add(&mut sheet, lines, &measured).unwrap();
        }
        serde_json::to_value(&sheet.figures).unwrap()
    }

    /// If it failed, readers of the JSON list would miss a field, or a peer would get our value.
    #[test]
    fn figures_have_all_fields() {
        let fields = ["met", "name", "peer", "peer_value", "reach", "unit", "value"];
        for peers in [true, false] {
            let figures = sheet(peers);
            let figures = figures.as_array().unwrap();
            assert_eq!(figures.len(), all().len());
            for (figure, line) in figures.iter().zip(all()) {
                let mut names: Vec<&String> = figure.as_object().unwrap().keys().collect();
                names.sort();
                assert_eq!(names, fields, "{figure}");
                let beside = line.peer.filter(|_| peers);
                assert_eq!(figure["peer"], json!(beside.map(|(whose, _)| whose)), "{figure}");
                assert_eq!(figure["peer_value"], json!(beside.map(|_| 2.0)), "{figure}");
                assert_eq!(figure["met"].is_boolean(), figure["reach"].is_string(), "{figure}");
            }
        }
    }

    /// If it failed, a promise could be dropped, or be made easier, without anybody seeing it.
    #[test]
    fn each_reach_is_among_them() {
        let figures = sheet(false);
        let figures = figures.as_array().unwrap();
        for (key, reach, unit) in [
            ("one.uncached.allowed", "<= 200", "us"),
            ("one.uncached.denied", "<= 200", "us"),
            ("one.cached.allowed", "<= 20", "us"),
            ("one.cached.denied", "<= 20", "us"),
            ("many.uncached.allowed", "<= 200", "us"),
            ("many.uncached.denied", "<= 200", "us"),
            ("many.cached.allowed", "<= 20", "us"),
            ("many.cached.denied", "<= 20", "us"),
            ("look_up.membership", "<= 100", "us"),
            ("look_up.member", "<= 100", "us"),
            ("look_up.standing", "<= 100", "us"),
            ("change.core", "<= 1000", "ms"),
            ("change.node", "<= 1000", "ms"),
            ("page.first", "<= 200", "ms"),
            ("page.middle", "<= 200", "ms"),
            ("gone.worst", "<= 5", "s"),
            ("token.worst", "<= 5", "s"),
            ("capability.worst", "<= 5", "s"),
            ("append.together", ">= 20000", "/s"),
            ("verify", ">= 200000", "/s"),
        ] {
            let at = all().iter().position(|line| line.key == key).unwrap();
            let found = (figures[at]["reach"].as_str(), figures[at]["unit"].as_str());
            assert_eq!(found, (Some(reach), Some(unit)), "{key}");
        }
    }

    /// If it failed, a figure that nobody took would be missing without a word.
    #[test]
    fn what_was_not_measured_is_an_error() {
        let run =
            Run { dir: PathBuf::new(), program: PathBuf::new(), repetitions: 1, peers: false };
        let mut say = |_: &str| {};
        let mut sheet = Sheet::new(&run, &mut say);
        assert!(add(&mut sheet, &AUDIT, &Measured::new()).is_err());
    }
}
