//! The rules of a VO, or of this site: who may do what, where.

mod change;
mod what_if;

pub(crate) use change::{add_or_change, confirm_remove, remove, show_form};

use super::site::SiteHead;
use super::vo::{self, Head};
use crate::view::{Badge, Frame, When, page};
use crate::visit::{Shown, Stop, Visit};
use askama::Template;
use std::str::FromStr;
use what_if::Asking;
use xos_api::policy::{
    Effect, GetSiteRules, GetVoRules, InVo, Rule, RuleList, RuleName, RulesChange, RulesSet,
    SetSiteRules, SetVoRules, What, Where, Who,
};
use xos_api::vom::Actor;
use xos_base::{Error, VoId};

/// Rules in one part of the list.
const LIST_MAX: usize = 200;

/// Whose rules a page shows.
pub(super) enum Whose {
    Vo(VoId),
    Site,
}

impl Whose {
    /// As the path says.
    fn of(visit: &Visit) -> Result<Whose, Stop> {
        if visit.places.iter().any(|(k, _)| k == "vo") {
            return Ok(Whose::Vo(visit.vo()?));
        }
        Ok(Whose::Site)
    }

    /// The page of the list.
    fn path(&self) -> String {
        match self {
            Whose::Vo(vo) => format!("/vo/{vo}/rules"),
            Whose::Site => "/site/rules".to_owned(),
        }
    }

    fn title(&self, visit: &Visit) -> String {
        match self {
            Whose::Vo(vo) => format!("Rules of {vo}"),
            Whose::Site => format!("Rules of site {}", visit.console.grid.site()),
        }
    }

    /// Which entry of the main menu its pages belong to.
    fn section(&self) -> &'static str {
        match self {
            Whose::Vo(_) => "vos",
            Whose::Site => "site",
        }
    }

    async fn list(&self, visit: &Visit) -> Result<RuleList, Stop> {
        match self {
            Whose::Vo(vo) => visit.ask_home(vo, GetVoRules { vo: vo.clone() }).await,
            Whose::Site => visit.ask(GetSiteRules {}).await,
        }
    }

    async fn set(&self, visit: &Visit, version: u64, rules: Vec<Rule>) -> Result<RulesSet, Stop> {
        match self {
            Whose::Vo(vo) => {
                visit.ask_home(vo, SetVoRules { vo: vo.clone(), version, rules }).await
            }
            Whose::Site => visit.ask(SetSiteRules { version, rules }).await,
        }
    }
}

/// What stands at the top of the page: of a VO's, or of the site's.
struct Top {
    vo: Option<Head>,
    site: Option<SiteHead>,
    /// Forms that change rules are shown. The API decides all the same.
    admin: bool,
}

impl Top {
    async fn of(visit: &Visit, whose: &Whose) -> Result<Top, Stop> {
        match whose {
            Whose::Vo(vo) => {
                let head = Head::new(&vo::info_at_home(visit).await?, "rules");
                let home = vo.site() == *visit.console.grid.site();
                let admin = head.admin || (home && visit.session.site_admin());
                Ok(Top { vo: Some(head), site: None, admin })
            }
            Whose::Site => Ok(Top { vo: None, site: Some(SiteHead::new("rules")), admin: true }),
        }
    }
}

/// A rule in words.
pub(super) struct Row {
    pub(super) name: String,
    pub(super) effect: Badge,
    pub(super) who: String,
    pub(super) vo: String,
    pub(super) what: &'static str,
    pub(super) place: String,
    pub(super) note: String,
}

impl From<&Rule> for Row {
    fn from(r: &Rule) -> Row {
        Row {
            name: r.name.to_string(),
            effect: effect(r.effect),
            who: match &r.who {
                Who::Anyone => "every member".to_owned(),
                Who::Person(person) => person.to_string(),
                Who::Site(site) => format!("people of site {site}"),
                Who::Group(group) => format!("group {group}"),
                Who::Role(role) => format!("role {role}"),
            },
            vo: match &r.vo {
                InVo::Any => "every VO".to_owned(),
                InVo::Vo(vo) => vo.to_string(),
            },
            what: match r.what {
                What::Any => "everything that rules decide",
                What::Action(action) => action.plain(),
            },
            place: match &r.place {
                Where::Any => "everywhere".to_owned(),
                Where::Site(site) => format!("site {site}"),
                Where::Node(node) => format!("node {node}"),
            },
            note: r.note.clone(),
        }
    }
}

fn effect(effect: Effect) -> Badge {
    match effect {
        Effect::Allow => Badge { word: "allow", sign: "✓", class: "good" },
        Effect::Deny => Badge { word: "deny", sign: "✕", class: "bad" },
    }
}

/// The last change of a list.
struct Changed {
    by: String,
    at: When,
    names: String,
}

impl From<&RulesChange> for Changed {
    fn from(c: &RulesChange) -> Changed {
        let mut parts: Vec<String> = c.set.iter().map(|n| format!("set {n}")).collect();
        parts.extend(c.removed.iter().map(|n| format!("removed {n}")));
        if c.more > 0 {
            parts.push(format!("and {} more", c.more));
        }
        Changed { by: actor(&c.by), at: c.time.into(), names: parts.join(", ") }
    }
}

fn actor(by: &Actor) -> String {
    match by {
        Actor::Person(person) => person.to_string(),
        Actor::Site(site) => format!("the core of {site}"),
    }
}

#[derive(Template)]
#[template(path = "rules.html")]
struct View {
    frame: Frame,
    top: Top,
    path: String,
    heading: String,
    rules: Vec<Row>,
    all: usize,
    next: Option<String>,
    changed: Option<Changed>,
    asking: Asking,
}

/// The rules, and the box that tells what they would say.
pub(crate) async fn show(visit: Visit) -> Shown {
    let whose = Whose::of(&visit)?;
    let top = Top::of(&visit, &whose).await?;
    let list = whose.list(&visit).await?;
    let after = optional::<RuleName>(visit.query.text("after"))?;
    let behind = |r: &&Rule| after.as_ref().is_none_or(|after| r.name > *after);
    let mut shown: Vec<&Rule> = list.rules.iter().filter(behind).take(LIST_MAX + 1).collect();
    let more = shown.len() > LIST_MAX;
    shown.truncate(LIST_MAX);
    let next = shown.last().filter(|_| more).map(|r| r.name.to_string());
    let heading = whose.title(&visit);
    page(&View {
        frame: Frame::of(&visit, &heading, whose.section()).await,
        path: whose.path(),
        rules: shown.into_iter().map(Row::from).collect(),
        all: list.rules.len(),
        next,
        changed: list.changed.as_ref().map(Changed::from),
        asking: Asking::of(&visit, &whose, top.admin).await?,
        heading,
        top,
    })
}

/// A text as what it names; none, when there is none.
fn optional<T: FromStr<Err = Error>>(text: &str) -> Result<Option<T>, Error> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a person would read another rule than the one that counts.
    #[test]
    fn a_rule_is_told_in_words() {
        let text = r#"{"name":"no-pisa","who":"group:physics","what":"login",
            "where":"node:n1.pisa","effect":"deny","note":"broken disk"}"#;
        let row = Row::from(&serde_json::from_str::<Rule>(text).unwrap());
        let told = [
            row.name.as_str(),
            row.effect.word,
            row.who.as_str(),
            row.vo.as_str(),
            row.what,
            row.place.as_str(),
        ];
        let want =
            ["no-pisa", "deny", "group physics", "every VO", "sign in to machines", "node n1.pisa"];
        assert_eq!(told, want);
        let all = r#"{"name":"all","who":"*","what":"*","effect":"allow"}"#;
        let row = Row::from(&serde_json::from_str::<Rule>(all).unwrap());
        let told = [row.effect.word, row.who.as_str(), row.what, row.place.as_str()];
        assert_eq!(told, ["allow", "every member", "everything that rules decide", "everywhere"]);
    }
}
