//! Both sides' rules together, and verdicts remembered.

use super::engine::{Asked, Class, Engine};
use super::model::Casbin;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use xos_api::policy::{Action, Denial, Place, Rule, Side};
use xos_base::{Error, GroupName, NodeId, PersonId, RoleName, SiteId};

/// Most verdicts remembered. When there are more, all are forgotten.
pub const KNOWN_MAX: usize = 20_000;

/// The rules of a VO and of a site. Two of the same VO are equal when their versions are.
#[derive(Clone, Debug)]
pub struct Court {
    /// The VO's.
    pub vo: Arc<Engine>,
    /// The site's.
    pub site: Arc<Engine>,
}

impl PartialEq for Court {
    fn eq(&self, other: &Court) -> bool {
        self.versions() == other.versions()
    }
}

impl Eq for Court {}

impl Court {
    /// The VO's version, and the site's.
    pub(super) fn versions(&self) -> (u64, u64) {
        (self.vo.version(), self.site.version())
    }

    /// The question that stands for all members whom no rule tells from this one, and for all
    /// places that none tells from this.
    pub(crate) fn class(&self, asked: &Asked) -> ClassKey {
        let mut class = Class::default();
        self.vo.tell_apart(asked, &mut class);
        self.site.tell_apart(asked, &mut class);
        ClassKey {
            person: class.person.cloned(),
            site: class.site,
            groups: class.groups.into_iter().cloned().collect(),
            roles: class.roles.into_iter().cloned().collect(),
            action: asked.action,
            place: Place { site: asked.place.site.clone(), node: self.node(&asked.place) },
        }
    }

    /// The node of a place, where a rule means it.
    pub(crate) fn node(&self, place: &Place) -> Option<NodeId> {
        let means = |node: &&NodeId| self.vo.means_node(node) || self.site.means_node(node);
        place.node.as_ref().filter(means).cloned()
    }

    /// Whether nobody needs to be judged to log in.
    pub(crate) fn login_is_free(&self) -> bool {
        self.vo.login_is_free() && self.site.login_is_free()
    }
}

/// All of a question in which members differ for a court, besides the VO.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClassKey {
    person: Option<PersonId>,
    site: Option<SiteId>,
    groups: Vec<GroupName>,
    roles: Vec<RoleName>,
    action: Action,
    place: Place,
}

/// What rules say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether it may be done.
    pub allowed: bool,
    /// The side that decided: the site's when it denies, else the VO's.
    pub side: Side,
    /// The rule that decided; absent: none of that side allows it.
    pub rule: Option<Arc<Rule>>,
}

impl Finding {
    /// The finding in a sentence.
    pub fn text(&self, asked: &Asked, site: &SiteId) -> String {
        let vo = &asked.vo;
        let who =
            asked.person.as_ref().map_or_else(|| "such a member".to_owned(), ToString::to_string);
        let what = asked.action.plain();
        let whose = match self.side {
            Side::Site => format!("site {site}"),
            Side::Vo => vo.to_string(),
        };
        let lets = if self.allowed { "lets" } else { "does not let" };
        match &self.rule {
            Some(rule) if rule.note.is_empty() || self.allowed => {
                format!("rule {} of {whose} {lets} {who} {what} in {vo}", rule.name)
            }
            Some(rule) => {
                format!("rule {} of {whose} {lets} {who} {what} in {vo}: {}", rule.name, rule.note)
            }
            None => format!("no rule of {whose} lets {who} {what} in {vo}"),
        }
    }

    /// The finding as a refusal, when it is one.
    pub fn denial(&self, asked: &Asked, site: &SiteId) -> Option<Denial> {
        (!self.allowed).then(|| Denial {
            side: self.side,
            rule: self.rule.as_ref().map(|r| r.name.clone()),
            text: self.text(asked, site),
        })
    }
}

/// A finding, and the versions that it is of.
struct Known {
    versions: (u64, u64),
    finding: Finding,
}

/// Judges by rules.
pub struct Judge {
    casbin: Casbin,
    known: Mutex<HashMap<Asked, Known>>,
}

impl Judge {
    /// A judge who remembers nothing yet.
    ///
    /// # Errors
    /// As [`Casbin::new`].
    pub async fn new() -> Result<Judge, Error> {
        Ok(Judge { casbin: Casbin::new().await?, known: Mutex::default() })
    }

    /// What the rules say; remembered.
    pub fn judge(&self, court: &Court, asked: &Asked) -> Finding {
        let versions = court.versions();
        {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = known.get(asked).filter(|k| k.versions == versions) {
                return known.finding.clone();
            }
        }
        let finding = self.decide(court, asked);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(asked.clone(), Known { versions, finding: finding.clone() });
        finding
    }

    /// What the rules say, found anew.
    pub fn decide(&self, court: &Court, asked: &Asked) -> Finding {
        let site = self.side(Side::Site, &court.site, asked);
        if site.allowed { self.side(Side::Vo, &court.vo, asked) } else { site }
    }

    /// What one side says.
    pub(crate) fn side(&self, side: Side, engine: &Engine, asked: &Asked) -> Finding {
        let (deny, allow) = engine.deciding(asked);
        let rules = [deny, allow].into_iter().flatten().map(|rule| &**rule);
        let allowed = self.casbin.allows(asked, rules);
        let decided = if allowed { allow } else { deny };
        Finding { allowed, side, rule: decided.cloned() }
    }
}
