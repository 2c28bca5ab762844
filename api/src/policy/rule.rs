//! One rule, and the texts that it is written in.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use xos_base::{Error, GroupName, NodeId, PersonId, RoleName, SiteId, VoId};

/// Serde's way to a type is its text.
macro_rules! by_text {
    ($($t:ident),*) => {$(
        impl TryFrom<String> for $t {
            type Error = Error;
            fn try_from(s: String) -> Result<Self, Error> { s.parse() }
        }
        impl From<$t> for String {
            fn from(t: $t) -> String { t.to_string() }
        }
    )*};
}
by_text!(RuleName, Who, InVo, What, Where);

fn refuse(what: &str, text: &str, want: &str) -> Error {
    let text: String = text.chars().take(64).collect();
    Error::invalid(format!("{text:?} is no {what}: {want}"))
}

/// The name of a rule in its list: `no-pisa`.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
pub struct RuleName(String);

impl RuleName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RuleName {
    type Err = Error;
    fn from_str(s: &str) -> Result<RuleName, Error> {
        // As roles are named.
        match s.parse::<RoleName>() {
            Ok(name) => Ok(RuleName(name.into())),
            Err(e) => Err(refuse("name of a rule", s, e.want)),
        }
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What members do that rules decide.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Sign in to a node.
    Login,
    /// Have a core own a job.
    Submit,
    /// Run units on a site's nodes.
    Run,
    /// See other members' jobs of the VO.
    See,
    /// Cancel other members' jobs of the VO.
    Cancel,
}

impl Action {
    /// Every action.
    pub const ALL: [Action; 5] =
        [Action::Login, Action::Submit, Action::Run, Action::See, Action::Cancel];

    /// As rules write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Login => "login",
            Action::Submit => "submit",
            Action::Run => "run",
            Action::See => "see",
            Action::Cancel => "cancel",
        }
    }

    /// As a person reads it behind "may" or "does not let them".
    pub fn plain(self) -> &'static str {
        match self {
            Action::Login => "sign in to machines",
            Action::Submit => "submit jobs",
            Action::Run => "run jobs",
            Action::See => "look at other members' jobs",
            Action::Cancel => "cancel other members' jobs",
        }
    }
}

impl FromStr for Action {
    type Err = Error;
    fn from_str(s: &str) -> Result<Action, Error> {
        let found = Action::ALL.into_iter().find(|a| a.as_str() == s);
        found.ok_or_else(|| refuse("action", s, "one of login, submit, run, see, cancel"))
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whom a rule means.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub enum Who {
    /// `*`: every member.
    Anyone,
    /// `person:alice@rennes`.
    Person(PersonId),
    /// `site:rennes`: everybody whom that site vouches for.
    Site(SiteId),
    /// `group:physics`.
    Group(GroupName),
    /// `role:admin`.
    Role(RoleName),
}

impl FromStr for Who {
    type Err = Error;
    fn from_str(s: &str) -> Result<Who, Error> {
        let parsed = match s.split_once(':') {
            None => (s == "*").then_some(Who::Anyone),
            Some(("person", p)) => p.parse().ok().map(Who::Person),
            Some(("site", p)) => p.parse().ok().map(Who::Site),
            Some(("group", g)) => g.parse().ok().map(Who::Group),
            Some(("role", r)) => r.parse().ok().map(Who::Role),
            Some(_) => None,
        };
        let want = "*, person:<person>, site:<site>, group:<group> or role:<role>";
        parsed.ok_or_else(|| refuse("`who`", s, want))
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Anyone => f.write_str("*"),
            Who::Person(p) => write!(f, "person:{p}"),
            Who::Site(s) => write!(f, "site:{s}"),
            Who::Group(g) => write!(f, "group:{g}"),
            Who::Role(r) => write!(f, "role:{r}"),
        }
    }
}

/// In which VO a site's rule counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub enum InVo {
    /// `*`: in every VO.
    #[default]
    Any,
    /// `demo.rennes`.
    Vo(VoId),
}

impl InVo {
    /// Whether it is every VO.
    pub fn is_any(&self) -> bool {
        *self == InVo::Any
    }
}

impl FromStr for InVo {
    type Err = Error;
    fn from_str(s: &str) -> Result<InVo, Error> {
        match s {
            "*" => Ok(InVo::Any),
            vo => {
                vo.parse::<VoId>().map(InVo::Vo).map_err(|_| refuse("`vo`", s, "* or <vo>.<site>"))
            }
        }
    }
}

impl fmt::Display for InVo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InVo::Any => f.write_str("*"),
            InVo::Vo(vo) => vo.fmt(f),
        }
    }
}

/// What a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub enum What {
    /// `*`: everything that rules decide.
    Any,
    /// One action.
    Action(Action),
}

impl FromStr for What {
    type Err = Error;
    fn from_str(s: &str) -> Result<What, Error> {
        match s {
            "*" => Ok(What::Any),
            action => action
                .parse::<Action>()
                .map(What::Action)
                .map_err(|_| refuse("`what`", s, "*, login, submit, run, see or cancel")),
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Any => f.write_str("*"),
            What::Action(action) => action.fmt(f),
        }
    }
}

/// Where a rule counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub enum Where {
    /// `*`: everywhere.
    #[default]
    Any,
    /// `site:pisa`.
    Site(SiteId),
    /// `node:n1.pisa`.
    Node(NodeId),
}

impl Where {
    /// Whether it is everywhere.
    pub fn is_any(&self) -> bool {
        *self == Where::Any
    }
}

impl FromStr for Where {
    type Err = Error;
    fn from_str(s: &str) -> Result<Where, Error> {
        let parsed = match s.split_once(':') {
            None => (s == "*").then_some(Where::Any),
            Some(("site", p)) => p.parse().ok().map(Where::Site),
            Some(("node", n)) => n.parse().ok().map(Where::Node),
            Some(_) => None,
        };
        parsed.ok_or_else(|| refuse("`where`", s, "*, site:<site> or node:<node>.<site>"))
    }
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Where::Any => f.write_str("*"),
            Where::Site(site) => write!(f, "site:{site}"),
            Where::Node(node) => write!(f, "node:{node}"),
        }
    }
}

/// What a rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It may be done, unless another rule of the same side denies it.
    Allow,
    /// It may not.
    Deny,
}

impl Effect {
    /// As rules write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Effect::Allow => "allow",
            Effect::Deny => "deny",
        }
    }
}

/// Whose rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The site's.
    Site,
    /// The VO's.
    Vo,
}

/// One rule. Of the rules of one side that speak of a request, one that denies wins over those that
/// allow; where none allows, it is denied.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name; no other of its list has it.
    pub name: RuleName,
    /// Whom it means.
    pub who: Who,
    /// In which VO. Only in rules of sites.
    #[serde(default, skip_serializing_if = "InVo::is_any")]
    pub vo: InVo,
    /// What it is about.
    pub what: What,
    /// Where it counts. Nodes can be named for `login` only: units go to whichever has room.
    #[serde(default, rename = "where", skip_serializing_if = "Where::is_any")]
    pub place: Where,
    /// Whether it allows or denies.
    pub effect: Effect,
    /// Why; whom the rule refuses something reads it. One line, at most [`super::NOTE_MAX`] bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a slip of the pen would make a rule that means nobody, or everybody.
    #[test]
    fn what_is_not_understood_is_no_rule() {
        for who in ["", "alice@rennes", "person:alice", "role:a|role:b", "Group:x", "group:*"] {
            assert!(who.parse::<Who>().is_err(), "{who:?}");
        }
        for place in ["", "pisa", "node:pisa", "site:n1.pisa", "site:*"] {
            assert!(place.parse::<Where>().is_err(), "{place:?}");
        }
        assert!("fly".parse::<What>().is_err() && "demo".parse::<InVo>().is_err());
        assert!("No Pisa".parse::<RuleName>().is_err());
        let text = r#"{"name":"a","who":"*","what":"run","effect":"deny","were":"site:pisa"}"#;
        assert!(serde_json::from_str::<Rule>(text).is_err(), "a misspelt key was passed over");
    }

    #[test]
    fn a_rule_is_read_as_it_is_written() {
        let text = concat!(
            r#"{"name":"no-pisa","who":"group:physics","vo":"demo.rennes","what":"login","#,
            r#""where":"node:n1.pisa","effect":"deny","note":"broken disk"}"#
        );
        let rule: Rule = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&rule).unwrap(), text);
    }
}
