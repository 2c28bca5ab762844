//! Adding, changing and removing one rule. A form carries the version of the list that it was made
//! from, so that of two administrators at once the second is told what the first changed.

use super::super::sign_in::kindly;
use super::{Row, Top, Whose, optional};
use crate::fields::Fields;
use crate::view::{Frame, page, page_with, sentence};
use crate::visit::{Shown, Stop, Visit, done};
use askama::Template;
use xos_api::policy::{Action, Effect, InVo, NOTE_MAX, Rule, RuleName, RulesSet, What, Where, Who};
use xos_base::{Error, Kind};

/// The fields of the form, as texts.
#[derive(Default)]
struct Typed {
    /// The rule that is changed; empty: a new one.
    rule: String,
    version: u64,
    name: String,
    who: String,
    whom: String,
    vo: String,
    what: String,
    place: String,
    at: String,
    effect: String,
    note: String,
}

impl Typed {
    fn of(form: &Fields, version: u64) -> Typed {
        let text = |name: &str| form.text(name).to_owned();
        Typed {
            rule: text("rule"),
            version,
            name: text("name"),
            who: text("who"),
            whom: text("whom"),
            vo: text("vo"),
            what: text("what"),
            place: text("place"),
            at: text("at"),
            effect: text("effect"),
            note: text("note"),
        }
    }

    fn from_rule(r: &Rule, version: u64) -> Typed {
        let (who, what, place) = (r.who.to_string(), r.what.to_string(), r.place.to_string());
        let half = |text: &str| {
            let (kind, name) = text.split_once(':').unwrap_or((text, ""));
            (kind.to_owned(), name.to_owned())
        };
        let ((who, whom), (place, at)) = (half(&who), half(&place));
        Typed {
            rule: r.name.to_string(),
            version,
            name: r.name.to_string(),
            who,
            whom,
            vo: if r.vo.is_any() { String::new() } else { r.vo.to_string() },
            what,
            place,
            at,
            effect: r.effect.as_str().to_owned(),
            note: r.note.clone(),
        }
    }
}

/// A choice of a form.
struct Choice {
    value: &'static str,
    text: &'static str,
}

fn choices() -> Vec<Choice> {
    let all = Choice { value: "*", text: "do everything that rules decide" };
    let actions = Action::ALL.map(|a| Choice { value: a.as_str(), text: a.plain() });
    std::iter::once(all).chain(actions).collect()
}

const WHO: [Choice; 5] = [
    Choice { value: "*", text: "every member" },
    Choice { value: "person", text: "the person …" },
    Choice { value: "group", text: "the group …" },
    Choice { value: "role", text: "the role …" },
    Choice { value: "site", text: "people of the site …" },
];
const WHERE: [Choice; 3] = [
    Choice { value: "*", text: "everywhere" },
    Choice { value: "site", text: "at the site …" },
    Choice { value: "node", text: "on the node …" },
];

#[derive(Template)]
#[template(path = "rule_form.html")]
struct FormView {
    frame: Frame,
    top: Top,
    path: String,
    heading: String,
    typed: Typed,
    who: [Choice; 5],
    what: Vec<Choice>,
    places: [Choice; 3],
    note_max: usize,
    trouble: Option<String>,
}

async fn form_page(visit: &Visit, whose: &Whose, typed: Typed, trouble: Option<Error>) -> Shown {
    let top = Top::of(visit, whose).await?;
    let heading =
        if typed.rule.is_empty() { "New rule".to_owned() } else { format!("Rule {}", typed.rule) };
    let status = trouble.as_ref().map_or(200, |e| e.kind.http_status());
    let view = FormView {
        frame: Frame::of(visit, &heading, whose.section()).await,
        top,
        path: whose.path(),
        heading,
        typed,
        who: WHO,
        what: choices(),
        places: WHERE,
        note_max: NOTE_MAX,
        trouble: trouble.as_ref().map(kindly),
    };
    page_with(status, &view)
}

/// The rule of that name.
async fn existing(visit: &Visit, whose: &Whose, name: &RuleName) -> Result<(Rule, u64), Stop> {
    let list = whose.list(visit).await?;
    let found = list.rules.into_iter().find(|r| r.name == *name);
    let rule = found.ok_or_else(|| gone(name))?;
    Ok((rule, list.version))
}

fn gone(name: &RuleName) -> Error {
    Error::not_found(format!("there is no rule {name} now"))
        .hint("open the list of rules again: somebody may have removed it")
}

/// The form: of the rule that the query names, or for a new one.
pub(crate) async fn show_form(visit: Visit) -> Shown {
    let whose = Whose::of(&visit)?;
    let typed = match optional::<RuleName>(visit.query.text("rule"))? {
        Some(name) => {
            let (rule, version) = existing(&visit, &whose, &name).await?;
            Typed::from_rule(&rule, version)
        }
        None => {
            let version = whose.list(&visit).await?.version;
            Typed { version, effect: "deny".to_owned(), ..Typed::default() }
        }
    };
    form_page(&visit, &whose, typed, None).await
}

/// Sets the rule of the form; when it does not go, the form comes back with what was typed and
/// why. After a change by somebody else it is made from their version, which was told.
pub(crate) async fn add_or_change(visit: Visit) -> Shown {
    let whose = Whose::of(&visit)?;
    match put(&visit, &whose).await {
        Ok((name, set)) => {
            done(&visit, whose.path(), told(&format!("The rule {name} is set."), &set))
        }
        Err(Stop::Failed(e)) => {
            let version = match e.kind {
                Kind::Conflict => whose.list(&visit).await?.version,
                _ => version(&visit.form).unwrap_or_default(),
            };
            form_page(&visit, &whose, Typed::of(&visit.form, version), Some(e)).await
        }
        Err(stop) => Err(stop),
    }
}

async fn put(visit: &Visit, whose: &Whose) -> Result<(RuleName, RulesSet), Stop> {
    let rule = read(&visit.form)?;
    let old = optional::<RuleName>(visit.form.text("rule"))?;
    let name = rule.name.clone();
    let set = edit(visit, whose, |rules| changed(rules, old.as_ref(), rule)).await?;
    Ok((name, set))
}

/// Makes a change to the list from which the form was made.
async fn edit(
    visit: &Visit,
    whose: &Whose,
    change: impl FnOnce(&mut Vec<Rule>) -> Result<(), Error>,
) -> Result<RulesSet, Stop> {
    let version = version(&visit.form)?;
    let mut list = whose.list(visit).await?;
    // Of an older list the core says what became of it since, and takes nothing.
    if version == list.version {
        change(&mut list.rules)?;
    } else if version > list.version {
        return Err(Error::conflict("these rules were replaced by older ones meanwhile")
            .hint("open the list of rules again")
            .into());
    }
    whose.set(visit, version, list.rules).await
}

fn changed(rules: &mut Vec<Rule>, old: Option<&RuleName>, rule: Rule) -> Result<(), Error> {
    let taken = rules.iter().any(|r| r.name == rule.name);
    if taken && old != Some(&rule.name) {
        return Err(Error::conflict(format!("there is a rule {} already", rule.name))
            .hint("give this one another name, or change that one"));
    }
    let Some(old) = old else {
        rules.push(rule);
        return Ok(());
    };
    let place = rules.iter_mut().find(|r| r.name == *old).ok_or_else(|| gone(old))?;
    *place = rule;
    Ok(())
}

fn version(form: &Fields) -> Result<u64, Error> {
    form.number("version", "the version of the rules")?
        .ok_or_else(|| Error::invalid("the form names no version").hint("open the page again"))
}

/// The rule that the form describes.
fn read(form: &Fields) -> Result<Rule, Error> {
    let pair = |kind: &str, name: &str| match form.text(kind) {
        "*" => "*".to_owned(),
        kind => format!("{kind}:{}", form.text(name)),
    };
    let who: Who = pair("who", "whom").parse()?;
    let place: Where = pair("place", "at").parse()?;
    let what: What = form.text("what").parse()?;
    let vo = match form.text("vo") {
        "" => InVo::Any,
        vo => vo.parse()?,
    };
    let effect = match form.text("effect") {
        "allow" => Effect::Allow,
        "deny" => Effect::Deny,
        _ => return Err(Error::invalid("does the rule allow or deny?")),
    };
    let name = form.text("name").parse()?;
    Ok(Rule { name, who, vo, what, place, effect, note: form.text("note").to_owned() })
}

/// What was done, and what may not be meant.
fn told(done: &str, set: &RulesSet) -> String {
    let warnings: String =
        set.warnings.iter().map(|w| format!(" Take care: {}", sentence(w))).collect();
    format!("{done}{warnings}")
}

#[derive(Template)]
#[template(path = "rule_remove.html")]
struct RemoveView {
    frame: Frame,
    top: Top,
    path: String,
    rule: Row,
    version: u64,
}

/// Asks whether the rule shall really go.
pub(crate) async fn confirm_remove(visit: Visit) -> Shown {
    let whose = Whose::of(&visit)?;
    let name = optional::<RuleName>(visit.query.text("rule"))?.ok_or(Stop::NoSuchPage)?;
    let (rule, version) = existing(&visit, &whose, &name).await?;
    page(&RemoveView {
        frame: Frame::of(&visit, &format!("Remove the rule {name}"), whose.section()).await,
        top: Top::of(&visit, &whose).await?,
        path: whose.path(),
        rule: Row::from(&rule),
        version,
    })
}

/// Removes the rule.
pub(crate) async fn remove(visit: Visit) -> Shown {
    let whose = Whose::of(&visit)?;
    let name = optional::<RuleName>(visit.form.text("rule"))?
        .ok_or_else(|| Error::invalid("the form names no rule").hint("open the page again"))?;
    let gone_now = |rules: &mut Vec<Rule>| {
        let before = rules.len();
        rules.retain(|r| r.name != name);
        if rules.len() == before { Err(gone(&name)) } else { Ok(()) }
    };
    let set = edit(&visit, &whose, gone_now).await?;
    done(&visit, whose.path(), told(&format!("The rule {name} is removed."), &set))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str) -> Fields {
        Fields::parse(text.as_bytes()).unwrap()
    }

    /// If it failed, a rule would come back from its own form as another one.
    #[test]
    fn a_rule_goes_through_its_form_unchanged() {
        for text in [
            r#"{"name":"a","who":"*","what":"*","effect":"allow"}"#,
            r#"{"name":"b","who":"person:bob@pisa","vo":"demo.rennes","what":"login",
                "where":"node:n1.pisa","effect":"deny","note":"why & how"}"#,
            r#"{"name":"c","who":"site:pisa","what":"run","where":"site:pisa","effect":"deny"}"#,
        ] {
            let rule: Rule = serde_json::from_str(text).unwrap();
            let t = Typed::from_rule(&rule, 7);
            let fields = [
                ("name", &t.name),
                ("who", &t.who),
                ("whom", &t.whom),
                ("vo", &t.vo),
                ("what", &t.what),
                ("place", &t.place),
                ("at", &t.at),
                ("effect", &t.effect),
                ("note", &t.note),
            ];
            let sent = serde_urlencoded::to_string(fields).unwrap();
            assert_eq!(read(&form(&sent)).unwrap(), rule);
        }
    }

    /// If it failed, a form that was half filled in would make a rule that means everybody.
    #[test]
    fn what_is_left_out_makes_no_rule() {
        let whole = "name=a&who=group&whom=x&what=run&place=*&effect=deny";
        assert!(read(&form(whole)).is_ok());
        for part in ["name=a&", "who=group&", "whom=x&", "what=run&", "place=*&", "effect=deny"] {
            let less = whole.replace(part, "");
            assert!(read(&form(&less)).is_err(), "{less}");
        }
    }

    /// If it failed, a second rule of a name, or a change of one that is gone, would replace what
    /// somebody else set.
    #[test]
    fn a_change_is_made_to_the_rule_that_is_named() {
        let rule = |name: &str, what: &str| {
            let text = format!("name={name}&who=*&what={what}&place=*&effect=deny");
            read(&form(&text)).unwrap()
        };
        let mut rules = vec![rule("a", "run"), rule("b", "run")];
        let a: RuleName = "a".parse().unwrap();
        assert_eq!(changed(&mut rules, None, rule("a", "see")).unwrap_err().kind, Kind::Conflict);
        let taken = changed(&mut rules, Some(&a), rule("b", "see")).unwrap_err();
        assert_eq!(taken.kind, Kind::Conflict);
        let lost = changed(&mut rules, Some(&"z".parse().unwrap()), rule("c", "see")).unwrap_err();
        assert_eq!(lost.kind, Kind::NotFound);
        assert_eq!(rules, [rule("a", "run"), rule("b", "run")]);
        changed(&mut rules, Some(&a), rule("c", "see")).unwrap();
        changed(&mut rules, None, rule("d", "run")).unwrap();
        assert_eq!(rules, [rule("c", "see"), rule("b", "run"), rule("d", "run")]);
    }
}
