//! The box that tells what rules would say: the verdict, the rule that decided, all that matched.

use super::super::sign_in::kindly;
use super::{Row, Whose, effect};
use crate::view::Badge;
use crate::visit::{Stop, Visit};
use xos_api::policy::{Action, Rule, Side, Verdict, WhatIf, Where};
use xos_api::vom::{ServedVos, WhoServes};
use xos_base::{Error, NodeId, PersonId, SiteId, VoId};

/// What was asked, and what came of it.
pub(super) struct Asking {
    /// The visitor may ask for others too.
    pub(super) anybody: bool,
    pub(super) myself: String,
    /// Where it stands on the site's page: the VO that is meant.
    pub(super) vo: Option<String>,
    /// The VOs that the site serves.
    pub(super) vos: Vec<String>,
    pub(super) person: String,
    pub(super) groups: String,
    pub(super) roles: String,
    pub(super) actions: Vec<ActionChoice>,
    pub(super) site: String,
    pub(super) node: String,
    /// The sites whose rules can be asked about.
    pub(super) sites: Vec<String>,
    pub(super) trouble: Option<String>,
    pub(super) said: Option<Said>,
}

pub(super) struct ActionChoice {
    pub(super) value: &'static str,
    pub(super) text: &'static str,
    pub(super) chosen: bool,
}

/// A verdict in words.
pub(super) struct Said {
    pub(super) verdict: Badge,
    pub(super) text: String,
    pub(super) decided_by: String,
    pub(super) matched: Vec<MatchedRow>,
}

pub(super) struct MatchedRow {
    pub(super) side: &'static str,
    pub(super) rule: Row,
    /// It is the one that decided.
    pub(super) decided: bool,
}

impl Asking {
    /// As the query says; nothing is asked until it names an action.
    pub(super) async fn of(visit: &Visit, whose: &Whose, anybody: bool) -> Result<Asking, Stop> {
        let (vos, sites) = match whose {
            Whose::Vo(vo) => (Vec::new(), sites(visit, vo).await?),
            Whose::Site => (served(visit).await?, vec![visit.console.grid.site().to_string()]),
        };
        let text = |name: &str| visit.query.text(name).to_owned();
        let what = text("what");
        let choice = |a: Action| ActionChoice {
            value: a.as_str(),
            text: a.plain(),
            chosen: a.as_str() == what,
        };
        let mut asking = Asking {
            anybody,
            myself: visit.session.person.to_string(),
            vo: matches!(whose, Whose::Site).then(|| text("vo")),
            vos,
            person: text("person"),
            groups: text("groups"),
            roles: text("roles"),
            actions: Action::ALL.into_iter().map(choice).collect(),
            site: text("site"),
            node: text("node"),
            sites,
            trouble: None,
            said: None,
        };
        if what.is_empty() {
            return Ok(asking);
        }
        match ask(visit, whose, anybody).await {
            Ok(said) => asking.said = Some(said),
            Err(Stop::Failed(e)) => asking.trouble = Some(kindly(&e)),
            Err(stop) => return Err(stop),
        }
        Ok(asking)
    }
}

/// The sites of a VO, its home first.
async fn sites(visit: &Visit, vo: &VoId) -> Result<Vec<String>, Stop> {
    let serving = visit.ask_home(vo, WhoServes { vo: vo.clone() }).await?;
    let mut sites = vec![vo.site().to_string()];
    for serving in serving {
        let site = serving.site.to_string();
        if !sites.contains(&site) {
            sites.push(site);
        }
    }
    Ok(sites)
}

async fn served(visit: &Visit) -> Result<Vec<String>, Stop> {
    Ok(visit.ask(ServedVos {}).await?.into_iter().map(|s| s.vo.to_string()).collect())
}

async fn ask(visit: &Visit, whose: &Whose, anybody: bool) -> Result<Said, Stop> {
    let query = &visit.query;
    let what: Action = query.text("what").parse()?;
    let vo = match whose {
        Whose::Vo(vo) => vo.clone(),
        Whose::Site => query.id("vo")?,
    };
    let node: Option<NodeId> = query.id_if("node")?;
    let site: Option<SiteId> = query.id_if("site")?;
    let (site, place) = match (node, site) {
        (Some(node), _) => (node.site(), Where::Node(node)),
        (None, Some(site)) => (site.clone(), Where::Site(site)),
        (None, None) => (visit.console.grid.site().clone(), Where::Any),
    };
    let r = if anybody {
        let person: Option<PersonId> = query.id_if("person")?;
        WhatIf { vo, person, groups: query.ids("groups")?, roles: query.ids("roles")?, what, place }
    } else {
        let person = Some(visit.session.person.clone());
        WhatIf { vo, person, groups: Vec::new(), roles: Vec::new(), what, place }
    };
    if matches!(whose, Whose::Site) && site != *visit.console.grid.site() {
        return Err(Error::invalid(format!("only {site} knows its rules"))
            .hint("ask on the VO's own page of rules")
            .into());
    }
    Ok(said(visit.ask_at(&site, r).await?, &site))
}

fn side_word(side: Side) -> &'static str {
    match side {
        Side::Site => "site",
        Side::Vo => "VO",
    }
}

fn said(v: Verdict, site: &SiteId) -> Said {
    let whose = match v.side {
        Side::Site => format!("the rules of site {site}"),
        Side::Vo => "the rules of the VO".to_owned(),
    };
    let decided_by = match &v.rule {
        Some(rule) => format!("{whose}: {} ({})", rule.name, effect(rule.effect).word),
        None => format!("{whose}: none of them allows it"),
    };
    let decides = |side: Side, rule: &Rule| v.side == side && v.rule.as_ref() == Some(rule);
    let row = |m: &xos_api::policy::Matched| MatchedRow {
        side: side_word(m.side),
        rule: Row::from(&m.rule),
        decided: decides(m.side, &m.rule),
    };
    let verdict = if v.allowed {
        Badge { word: "allowed", sign: "✓", class: "good" }
    } else {
        Badge { word: "denied", sign: "✕", class: "bad" }
    };
    let matched = v.matched.iter().map(row).collect();
    Said { verdict, text: v.text, decided_by, matched }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_api::policy::Matched;

    /// If it failed, a person would change the rule that did not decide.
    #[test]
    fn the_rule_that_decided_is_marked() {
        let rule = |name: &str, effect: &str| -> Rule {
            let text = format!(r#"{{"name":"{name}","who":"*","what":"run","effect":"{effect}"}}"#);
            serde_json::from_str(&text).unwrap()
        };
        let both = |side, rule| Matched { side, rule };
        let v = Verdict {
            allowed: false,
            side: Side::Vo,
            rule: Some(rule("no", "deny")),
            text: "no".into(),
            matched: vec![both(Side::Site, rule("no", "deny")), both(Side::Vo, rule("no", "deny"))],
        };
        let said = said(v, &"pisa".parse().unwrap());
        assert_eq!(said.decided_by, "the rules of the VO: no (deny)");
        let marks: Vec<_> = said.matched.iter().map(|m| (m.side, m.decided)).collect();
        assert_eq!(marks, [("site", false), ("VO", true)]);
    }
}
