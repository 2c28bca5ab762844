//! What the site's audit is told of VOs.

use crate::Inner;
use serde::Serialize;
use serde_json::{Map, Value};
use xos_api::audit::Event;
use xos_api::vom::{Actor, Change, Entry};
use xos_base::{Error, Millis, PersonId, VoId};
use xos_net::Caller;
use xos_net::audit::asked;

/// The fields of changes and requests that are told. Others may hold answers of applicants, texts
/// of any length, or what nobody else is to know.
const FIELDS: [&str; 26] = [
    "by",
    "consent_days",
    "cpu_milli",
    "days",
    "expires",
    "grace_days",
    "grace_s",
    "groups",
    "lease_s",
    "memory_bytes",
    "name",
    "opens",
    "parent",
    "people",
    "put",
    "remove",
    "renewal_s",
    "role",
    "roles",
    "site",
    "storage_bytes",
    "terms",
    "title",
    "to",
    "until",
    "version",
];
/// Longest text of one field, in characters.
const FIELD_MAX: usize = 200;
/// Longest list of names, in bytes.
const LIST_MAX: usize = 400;

/// The event of what `caller` asks. `said`: a request, or a command.
///
/// # Errors
/// [`xos_base::Kind::Internal`] when `said` cannot be encoded.
pub(crate) fn request(
    caller: &Caller,
    (now, what): (Millis, &str),
    vo: &VoId,
    said: &impl Serialize,
) -> Result<Event, Error> {
    let mut event = asked(caller, now, what);
    event.vo = Some(vo.clone());
    fill(&mut event, said)?;
    Ok(event)
}

/// The event of what `by` had asked for before, and is done for them now.
///
/// # Errors
/// As [`request`].
pub(crate) fn for_them(
    by: &PersonId,
    now: Millis,
    vo: &VoId,
    said: &impl Serialize,
) -> Result<Event, Error> {
    let mut event = Event::new(now, "");
    (event.who, event.vo) = (by.to_string(), Some(vo.clone()));
    fill(&mut event, said)?;
    Ok(event)
}

/// Puts into `event` whom `said` concerns, what and why. What is an enum names the event as well.
pub(crate) fn fill(event: &mut Event, said: &impl Serialize) -> Result<(), Error> {
    let said = serde_json::to_value(said)
        .map_err(|e| Error::internal(format!("a change of a VO cannot be noted: {e}")))?;
    let (name, fields) = match said {
        // An enum: the variant's name, with its fields in one field of that name.
        Value::String(name) => (Some(name), Map::new()),
        Value::Object(mut fields) if event.what.is_empty() => match fields.iter_mut().next() {
            Some((name, Value::Object(inner))) => (Some(name.clone()), std::mem::take(inner)),
            Some((name, _)) => (Some(name.clone()), Map::new()),
            None => (None, Map::new()),
        },
        Value::Object(fields) => (None, fields),
        _ => (None, Map::new()),
    };
    if let Some(name) = name {
        event.what = name;
    }
    if let Some(person) = fields.get("person").or(fields.get("owner")).and_then(Value::as_str) {
        event.person = Some(person.parse()?);
    }
    if let Some(reason) = fields.get("reason").and_then(Value::as_str) {
        event.why = reason.to_owned();
    }
    let told =
        FIELDS.iter().filter_map(|name| Some(format!("{name} {}", plain(fields.get(*name)?)?)));
    event.on = told.collect::<Vec<_>>().join(", ");
    Ok(())
}

/// A field's value as it is read; `None`: there is nothing to tell.
fn plain(value: &Value) -> Option<String> {
    let text = match value {
        Value::Null => return None,
        Value::Array(all) if all.is_empty() => return None,
        Value::String(text) => text.clone(),
        Value::Array(all) if all.iter().all(|v| named(v).is_some()) => {
            return Some(listed(all.iter().filter_map(named)));
        }
        other => other.to_string(),
    };
    Some(text.chars().take(FIELD_MAX).collect())
}

/// What a value in a list is called: a text, a rule, a person with what they are given.
fn named(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("name").or(value.get("person"))?.as_str())
}

/// As many names as fit, and how many there are more.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let (mut text, mut more) = (String::new(), 0_usize);
    for name in names {
        if more > 0 || text.len() + name.len() >= LIST_MAX {
            more += 1;
        } else {
            let between = if text.is_empty() { "" } else { " " };
            text.push_str(between);
            text.push_str(name);
        }
    }
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

/// Whether a change that a VO's home made takes something from somebody, or changes what is
/// allowed: then a site that serves the VO notes that it counts there now.
fn counts(change: &Change, kind: &str) -> bool {
    matches!(
        change,
        Change::MemberSuspended { .. }
            | Change::MemberResumed { .. }
            | Change::MemberRemoved { .. }
            | Change::RoleWithdrawn { .. }
            | Change::GroupMemberRemoved { .. }
            | Change::GroupDeleted { .. }
            | Change::ShareWithdrawn { .. }
    ) || ["rules_", "vo_"].iter().any(|begin| kind.starts_with(begin))
}

/// The event of an entry of a VO's log that a site took; `None`: it is of no such kind.
pub(crate) fn taken(entry: &Entry, now: Millis) -> Option<Event> {
    let Ok(Value::Object(fields)) = serde_json::to_value(&entry.change) else { return None };
    let kind = fields.get("kind").and_then(Value::as_str)?;
    if !counts(&entry.change, kind) {
        return None;
    }
    let mut event = Event::new(now, kind);
    event.who = match &entry.actor {
        Actor::Person(person) => person.to_string(),
        Actor::Site(site) => format!("core of {site}"),
    };
    event.vo = Some(entry.vo.clone());
    fill(&mut event, &fields).ok()?;
    Some(event)
}

impl Inner {
    /// Notes that a change of another site's VO counts here now.
    pub(crate) fn note_taken(&self, entry: &Entry) {
        if let Some(event) = taken(entry, self.clock.now()) {
            self.told.note(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::Command;

    /// If it failed, what applicants write would be in the audit of the site, for good, or an event
    /// would not say what was changed of whom and why.
    #[test]
    fn a_command_is_told_without_what_people_write() {
        let person: xos_base::PersonId = "bob@pisa".parse().unwrap();
        let of = |command: Command| {
            let mut event = Event::new(Millis(1), "");
            fill(&mut event, &command).unwrap();
            (event.what, event.person.map(|p| p.to_string()), event.on, event.why)
        };
        let bob = || Some("bob@pisa".to_owned());
        let text = str::to_owned;
        let reason = text("on leave");
        let suspend = Command::SuspendMember { person: person.clone(), reason };
        assert_eq!(of(suspend), (text("suspend_member"), bob(), text(""), text("on leave")));
        let grant = Command::GrantRole { person, role: "admin".parse().unwrap() };
        assert_eq!(of(grant), (text("grant_role"), bob(), text("role admin"), text("")));
        let apply =
            Command::Apply { message: "my mother is ill".into(), words: Default::default() };
        assert_eq!(of(apply), (text("apply"), None, text(""), text("")));
        assert_eq!(of(Command::ResumeVo), (text("resume_vo"), None, text(""), text("")));
        let lease = Command::SetLease { lease_s: 600, base: None };
        assert_eq!(of(lease), (text("set_lease"), None, text("lease_s 600"), text("")));
        let (title, description) = (text("Demo"), text("Our secret aims"));
        let texts = Command::DescribeVo { title, description, base: Some(3) };
        assert_eq!(of(texts), (text("describe_vo"), None, text("title Demo"), text("")));
        let grace = Command::SetGrace { grace_s: 60, base: None };
        assert_eq!(of(grace), (text("set_grace"), None, text("grace_s 60"), text("")));
        let opens = Command::SetFileAudit { opens: false, base: None };
        assert_eq!(of(opens), (text("set_file_audit"), None, text("opens false"), text("")));
    }

    /// If it failed, a line would say that rules were changed and not which, or hold all their
    /// texts.
    #[test]
    fn a_change_of_rules_names_them() {
        let rule = |name: String| {
            serde_json::json!({
                "name": name, "who": "anyone", "what": "login", "effect": "deny", "note": "a secret"
            })
        };
        let told = |put: Vec<Value>| {
            let mut event = Event::new(Millis(1), "");
            let said = serde_json::json!({ "change_rules": {
                "base": 3, "part": 0, "more": false, "put": put, "remove": ["old", "older"],
            }});
            fill(&mut event, &said).unwrap();
            (event.what, event.on)
        };
        let (what, on) = told(vec![rule("no-cron".into()), rule("night".into())]);
        assert_eq!(
            (what.as_str(), on.as_str()),
            ("change_rules", "put no-cron night, remove old older")
        );
        let (_, on) = told((0..1000).map(|n| rule(format!("rule-number-{n}"))).collect());
        assert!(on.len() < 2 * LIST_MAX && on.contains("rule-number-1 "), "{on}");
        assert!(on.contains(" more, remove old"), "{on}");
    }

    /// If it failed, nobody could tell when a removal reached a site, or each change of a large VO
    /// would be a line at each site that serves it.
    #[test]
    fn a_site_notes_what_takes_rights_away() {
        let entry = |change| Entry {
            vo: "demo.rennes".parse().unwrap(),
            number: 7,
            prev: String::new(),
            time: Millis(5),
            actor: Actor::Person("alice@rennes".parse().unwrap()),
            change,
        };
        let person: xos_base::PersonId = "bob@pisa".parse().unwrap();
        let reason = "left the group".to_owned();
        let removed = entry(Change::MemberRemoved { person: person.clone(), reason });
        let event = taken(&removed, Millis(9)).unwrap();
        assert_eq!((event.what.as_str(), event.who.as_str()), ("member_removed", "alice@rennes"));
        assert_eq!((event.person, event.time), (Some(person.clone()), Millis(9)));
        assert_eq!(event.why, "left the group");
        let role = "pilot".parse().unwrap();
        assert_eq!(taken(&entry(Change::RoleGranted { person, role }), Millis(9)), None);
    }
}
