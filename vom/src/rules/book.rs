//! A list of rules as it is kept: by name, with its version and who changed it last.

use crate::text;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use xos_api::policy::{
    Action, CHANGE_NAMES_MAX, Effect, InVo, NOTE_MAX, RULES_BYTES_MAX, RULES_MAX, Rule, RuleList,
    RuleName, RulesChange, What, Where, Who,
};
use xos_api::vom::Actor;
use xos_base::membership::{ROLE_ADMIN, ROLE_OWNER};
use xos_base::{Error, Kind, Millis};

/// How many changes are kept, for who comes late.
const CHANGES_KEPT: usize = 8;
/// Most bytes of rules in one entry of a log, of which base64 makes a third more.
const PART_BYTES: usize = 32 * 1024;

/// A list of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Book {
    /// Rises with each change. Of a VO: the number of the log entry that completed it.
    pub version: u64,
    rules: BTreeMap<RuleName, Rule>,
    /// The last changes, the latest at the end.
    changes: Vec<RulesChange>,
}

/// A part of a change of rules: what goes, and what comes after that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// The rules that come, or take the place of those of their names.
    pub put: Vec<Rule>,
    /// The rules that go.
    pub remove: Vec<RuleName>,
}

impl Book {
    /// The rules of a new VO: members sign in, submit and run; administrators see and cancel the
    /// jobs of all.
    pub fn of_vo() -> Book {
        let admins = || role(ROLE_ADMIN);
        let owners = || role(ROLE_OWNER);
        let rules = [
            ("members-login", Some(Who::Anyone), Action::Login),
            ("members-submit", Some(Who::Anyone), Action::Submit),
            ("members-run", Some(Who::Anyone), Action::Run),
            ("admins-see", admins(), Action::See),
            ("admins-cancel", admins(), Action::Cancel),
            ("owners-see", owners(), Action::See),
            ("owners-cancel", owners(), Action::Cancel),
        ];
        let rules = rules
            .into_iter()
            .filter_map(|(name, who, action)| allowing(name, who?, What::Action(action)));
        Book::with(0, rules)
    }

    /// The rules of a site that never set any: it lets everybody do what their VO does.
    pub fn of_site() -> Book {
        Book::with(0, allowing("everybody", Who::Anyone, What::Any))
    }

    /// A list of these rules.
    pub fn with(version: u64, rules: impl IntoIterator<Item = Rule>) -> Book {
        let rules = rules.into_iter().map(|r| (r.name.clone(), r)).collect();
        Book { version, rules, changes: Vec::new() }
    }

    /// From what was kept of it.
    pub fn kept(version: u64, rules: Vec<Rule>, changes: Vec<RulesChange>) -> Book {
        Book { changes, ..Book::with(version, rules) }
    }

    /// The rules, by name.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.values()
    }

    /// The last changes.
    pub fn changes(&self) -> &[RulesChange] {
        &self.changes
    }

    /// For readers.
    pub fn list(&self) -> RuleList {
        RuleList {
            version: self.version,
            rules: self.rules().cloned().collect(),
            changed: self.changes.last().cloned(),
        }
    }

    /// What makes `wanted` of this list.
    pub fn difference(&self, wanted: &[Rule]) -> Part {
        let stay: BTreeSet<&RuleName> = wanted.iter().map(|r| &r.name).collect();
        let differs = |r: &&Rule| self.rules.get(&r.name) != Some(*r);
        Part {
            put: wanted.iter().filter(differs).cloned().collect(),
            remove: self.rules.keys().filter(|n| !stay.contains(n)).cloned().collect(),
        }
    }

    /// How many rules there are after a change.
    pub fn count_after(&self, part: &Part) -> usize {
        let mut names: BTreeSet<&RuleName> = self.rules.keys().collect();
        for name in &part.remove {
            names.remove(name);
        }
        names.extend(part.put.iter().map(|r| &r.name));
        names.len()
    }

    /// How many bytes the rules take after a change.
    pub fn bytes_after(&self, part: &Part) -> usize {
        let gone: BTreeSet<&RuleName> =
            part.remove.iter().chain(part.put.iter().map(|r| &r.name)).collect();
        let stay = self.rules().filter(|r| !gone.contains(&r.name)).map(bytes);
        stay.sum::<usize>().saturating_add(part.bytes())
    }

    /// Makes a change.
    pub fn change(&mut self, version: u64, by: Actor, time: Millis, part: Part) {
        let names = |all: Vec<RuleName>| -> (Vec<RuleName>, u64) {
            let more = all.len().saturating_sub(CHANGE_NAMES_MAX) as u64;
            (all.into_iter().take(CHANGE_NAMES_MAX).collect(), more)
        };
        let (set, more_set) = names(part.put.iter().map(|r| r.name.clone()).collect());
        for name in &part.remove {
            self.rules.remove(name);
        }
        let (removed, more_removed) = names(part.remove);
        for rule in part.put {
            self.rules.insert(rule.name.clone(), rule);
        }
        self.version = version;
        let more = more_set.saturating_add(more_removed);
        self.changes.push(RulesChange { version, by, time, set, removed, more });
        if self.changes.len() > CHANGES_KEPT {
            self.changes.remove(0);
        }
    }

    /// Whether a change made from `version` may follow. `of`: whose rules they are.
    ///
    /// # Errors
    /// [`Kind::Conflict`] with who changed what since.
    pub fn made_from(&self, version: u64, of: &str) -> Result<(), Error> {
        if version == self.version {
            return Ok(());
        }
        let since = self.changes.iter().filter(|c| c.version > version).map(told);
        let since: Vec<String> = since.collect();
        let what = if since.is_empty() {
            format!("they have version {}, not {version}", self.version)
        } else {
            since.join("; ")
        };
        Err(Error::conflict(format!("the rules of {of} are others meanwhile: {what}"))
            .hint("look at them again, and make your change to those"))
    }
}

fn role(name: &str) -> Option<Who> {
    name.parse().ok().map(Who::Role)
}

/// A rule that allows; `None` for what is no name.
fn allowing(name: &str, who: Who, what: What) -> Option<Rule> {
    let (vo, place, note) = (InVo::Any, Where::Any, String::new());
    Some(Rule { name: name.parse().ok()?, who, vo, what, place, effect: Effect::Allow, note })
}

/// A change in words.
fn told(change: &RulesChange) -> String {
    let by = match &change.by {
        Actor::Person(person) => person.to_string(),
        Actor::Site(site) => format!("the core of {site}"),
    };
    let names = |verb: &str, all: &[RuleName]| {
        let all: Vec<&str> = all.iter().map(RuleName::as_str).collect();
        if all.is_empty() { None } else { Some(format!("{verb} {}", all.join(", "))) }
    };
    let more = (change.more > 0).then(|| format!("{} more", change.more));
    let what = [names("set", &change.set), names("removed", &change.removed), more];
    let what: Vec<String> = what.into_iter().flatten().collect();
    format!("{by} {} at {}", what.join(" and "), change.time)
}

impl Part {
    /// The same in parts of which each fits into an entry of a log. At least one.
    pub fn split(self) -> Vec<Part> {
        let mut parts = vec![Part::default()];
        let mut used = 0;
        let mut room = |parts: &mut Vec<Part>, bytes: usize| {
            if used + bytes > PART_BYTES && used > 0 {
                parts.push(Part::default());
                used = 0;
            }
            used += bytes;
        };
        for name in self.remove {
            room(&mut parts, name.as_str().len() + 3);
            if let Some(last) = parts.last_mut() {
                last.remove.push(name);
            }
        }
        for rule in self.put {
            room(&mut parts, bytes(&rule));
            if let Some(last) = parts.last_mut() {
                last.put.push(rule);
            }
        }
        parts
    }

    /// How many bytes the rules take that come.
    pub fn bytes(&self) -> usize {
        self.put.iter().map(bytes).sum()
    }

    /// Adds what comes after it.
    pub fn extend(&mut self, next: Part) {
        self.put.extend(next.put);
        self.remove.extend(next.remove);
    }
}

/// About how many bytes a rule takes as JSON, not less.
fn bytes(rule: &Rule) -> usize {
    serde_json::to_vec(rule).map_or(PART_BYTES, |json| json.len() + 1)
}

/// Whose rules a list is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// A VO's.
    ByVo,
    /// A site's.
    BySite,
}

/// Whether a rule can stand in a list of that kind.
///
/// # Errors
/// What is wrong with it.
pub fn check_rule(rule: &Rule, kept: Kept) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("rule {}: {what}", rule.name));
    if kept == Kept::ByVo && !rule.vo.is_any() {
        return wrong("`vo` can be named in a site's rules only");
    }
    let named_by_vo = matches!(rule.who, Who::Group(_) | Who::Role(_));
    if kept == Kept::BySite && rule.effect == Effect::Allow && named_by_vo && rule.vo.is_any() {
        return wrong(
            "who allows something to a group or role must name its `vo`: the administrators of \
             any other could make one of that name",
        );
    }
    if matches!(rule.place, Where::Node(_)) && rule.what != What::Action(Action::Login) {
        return wrong("a node can be named for `login` only: units go to whichever has room");
    }
    if rule.note.len() > NOTE_MAX {
        return wrong(&format!("its note is longer than {NOTE_MAX} bytes"));
    }
    match text::lines(&rule.note, NOTE_MAX) {
        Ok(()) if rule.note.contains('\n') => wrong("its note has more than one line"),
        Ok(()) => Ok(()),
        Err(fault) => wrong(&format!("its note {fault}")),
    }
}

/// Whether a whole list can be kept.
///
/// # Errors
/// [`Kind::Invalid`] with what is wrong; [`Kind::TooLarge`].
pub fn check(rules: &[Rule], kept: Kept) -> Result<(), Error> {
    if rules.len() > RULES_MAX {
        return Err(Error::too_large(format!("{} rules are more than {RULES_MAX}", rules.len())));
    }
    let all: usize = rules.iter().map(bytes).sum();
    if all > RULES_BYTES_MAX {
        let text = format!("the rules take {all} bytes, and at most {RULES_BYTES_MAX} are kept");
        return Err(Error::too_large(text).hint("shorten their notes"));
    }
    let mut names = BTreeSet::new();
    for rule in rules {
        check_rule(rule, kept).map_err(Error::invalid)?;
        if !names.insert(&rule.name) {
            let text = format!("two rules are called {}", rule.name);
            return Err(Error::new(Kind::Invalid, text).hint("give each a name of its own"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, note: &str) -> Rule {
        let mut rule = allowing(name, Who::Anyone, What::Any).unwrap();
        rule.note = note.to_owned();
        rule
    }

    /// If it failed, whoever comes second would undo what the first did without a word.
    #[test]
    fn who_comes_late_is_told_who_changed_what() {
        let mut book = Book::of_vo();
        let by = |p: &str| Actor::Person(p.parse().unwrap());
        let put = Part { put: vec![rule("a", "")], remove: vec!["members-run".parse().unwrap()] };
        book.change(7, by("vera@rennes"), Millis(0), put);
        book.made_from(7, "demo.rennes").unwrap();
        let e = book.made_from(0, "demo.rennes").unwrap_err();
        assert_eq!(e.kind, Kind::Conflict);
        assert!(e.message.contains("vera@rennes set a and removed members-run at"), "{e}");
        for version in 8..40 {
            book.change(version, by("vera@rennes"), Millis(0), Part::default());
        }
        assert_eq!(book.changes().len(), CHANGES_KEPT);
    }

    /// If it failed, a large change could not be written to a log, or would lose rules on the way.
    #[test]
    fn a_change_is_split_into_parts_that_make_it_again() {
        let wanted: Vec<Rule> =
            (0..2000).map(|i| rule(&format!("r{i}"), &"n".repeat(NOTE_MAX))).collect();
        let mut book = Book::of_vo();
        let whole = book.difference(&wanted);
        let parts = whole.clone().split();
        assert!(parts.len() > 10);
        for part in &parts {
            assert!(serde_json::to_vec(part).unwrap().len() < PART_BYTES + 2048);
        }
        let mut again = Part::default();
        parts.into_iter().for_each(|p| again.extend(p));
        assert_eq!(again, whole);
        assert_eq!(book.count_after(&again), 2000);
        book.change(1, Actor::Site("rennes".parse().unwrap()), Millis(0), again);
        assert_eq!(book.difference(&wanted), Part::default());
    }

    /// If it failed, a rule would be kept that nobody puts in force, or a note could deceive.
    #[test]
    fn what_cannot_be_put_in_force_is_no_rule() {
        let node = Rule { place: "node:n1.rennes".parse().unwrap(), ..rule("a", "") };
        assert!(check_rule(&node, Kept::BySite).is_err(), "units cannot be kept off one node");
        let login = Rule { what: What::Action(Action::Login), ..node };
        check_rule(&login, Kept::ByVo).unwrap();
        let vo = Rule { vo: "demo.rennes".parse().unwrap(), ..rule("a", "") };
        check_rule(&vo, Kept::BySite).unwrap();
        assert!(check_rule(&vo, Kept::ByVo).is_err());
        for who in ["group:physics", "role:pilot"] {
            let who: Who = who.parse().unwrap();
            let any = Rule { who: who.clone(), ..rule("a", "") };
            assert!(check_rule(&any, Kept::BySite).is_err(), "any VO can make that name");
            check_rule(&any, Kept::ByVo).unwrap();
            check_rule(&Rule { effect: Effect::Deny, ..any }, Kept::BySite).unwrap();
            check_rule(&Rule { who, ..vo.clone() }, Kept::BySite).unwrap();
        }
        for note in ["a\nb", "a\u{202e}b", &"n".repeat(NOTE_MAX + 1)] {
            assert!(check_rule(&rule("a", note), Kept::ByVo).is_err(), "{note:?}");
        }
        assert!(check(&[rule("a", ""), rule("a", "x")], Kept::ByVo).is_err());
        let many: Vec<Rule> = (0..=RULES_MAX).map(|i| rule(&format!("r{i}"), "")).collect();
        assert_eq!(check(&many, Kept::ByVo).unwrap_err().kind, Kind::TooLarge);
        check(&many[1..], Kept::ByVo).unwrap();
    }
}
