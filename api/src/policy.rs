//! Rules: who may do what, where. Those of a VO are its administrators', those of a site its own;
//! both must allow, so that a site's denial wins over everything.

mod rule;

pub use rule::{Action, Effect, InVo, Rule, RuleName, Side, What, Where, Who};

use crate::request;
use crate::vom::Actor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xos_base::{GroupName, Millis, NodeId, PersonId, RoleName, SiteId, VoId};

/// Most rules of one VO, and of one site.
pub const RULES_MAX: usize = 10_000;
/// Longest list of rules as JSON, in bytes.
pub const RULES_BYTES_MAX: usize = 1_800_000;
/// Longest note of a rule, in bytes: with the rest of a refusal it fits into a message of PAM.
pub const NOTE_MAX: usize = 200;
/// Most names that a [`RulesChange`] shows of those that were set, and of those removed.
pub const CHANGE_NAMES_MAX: usize = 10;

/// Where something is done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The site whose core or node it is.
    pub site: SiteId,
    /// The node, where one is meant.
    pub node: Option<NodeId>,
}

/// Why rules do not let somebody do something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Whose rules.
    pub side: Side,
    /// The rule that denies; absent: none allows it.
    pub rule: Option<RuleName>,
    /// A sentence for the person, with the rule's note.
    pub text: String,
}

/// The last change of a list of rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RulesChange {
    /// The version that it made.
    pub version: u64,
    /// Who made it.
    pub by: Actor,
    /// When.
    pub time: Millis,
    /// Rules that are new or another than before, at most [`CHANGE_NAMES_MAX`].
    pub set: Vec<RuleName>,
    /// Rules that went, at most [`CHANGE_NAMES_MAX`].
    pub removed: Vec<RuleName>,
    /// How many more it set or removed.
    pub more: u64,
}

/// A list of rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleList {
    /// Rises with each change; 0: never changed.
    pub version: u64,
    /// By name.
    pub rules: Vec<Rule>,
    /// The last change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<RulesChange>,
}

/// What became of a list of rules that was set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RulesSet {
    /// The version in force.
    pub version: u64,
    /// What may not be meant, in sentences.
    pub warnings: Vec<String>,
}

/// The rules of a VO. For its members and administrators of the site asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetVoRules {
    /// The VO.
    pub vo: VoId,
}
request!(GetVoRules => RuleList, Get "/v1/vos/{vo}/rules");

/// Sets the rules of a VO, at its home. For its administrators, and those of its home site.
///
/// Refused as Conflict, with who changed what, when `version` is not that in force; as Invalid
/// when there would be no owner and no site at which that owner may do all that rules decide; as
/// Limited after 60 changes in an hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetVoRules {
    /// The VO.
    pub vo: VoId,
    /// The version that these are made from.
    pub version: u64,
    /// All rules: at most [`RULES_MAX`], of at most [`RULES_BYTES_MAX`] bytes.
    pub rules: Vec<Rule>,
}
request!(SetVoRules => RulesSet, Put "/v1/vos/{vo}/rules");

/// The rules of the site asked. For its administrators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetSiteRules {}
request!(GetSiteRules => RuleList, Get "/v1/site/rules");

/// Sets the rules of the site asked. For its administrators, whom no rule keeps from it.
///
/// Refused as Conflict, with who changed what, when `version` is not that in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetSiteRules {
    /// The version that these are made from.
    pub version: u64,
    /// All rules, as of [`SetVoRules::rules`].
    pub rules: Vec<Rule>,
}
request!(SetSiteRules => RulesSet, Put "/v1/site/rules");

/// What would be decided: by the rules of the VO and those of the site asked. Members may ask for
/// themselves as they are, administrators of the VO or the site for anybody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WhatIf {
    /// The VO.
    pub vo: VoId,
    /// For whom; absent: for a member whom no rule names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<PersonId>,
    /// As if in these groups, those above them, and `members`. With `roles` empty too, `person` is
    /// taken as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupName>,
    /// As if with these roles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<RoleName>,
    /// What they would do.
    pub what: Action,
    /// Where: the site asked or one of its nodes. `*`: the site asked.
    #[serde(default, rename = "where", skip_serializing_if = "Where::is_any")]
    pub place: Where,
}
request!(WhatIf => Verdict, Post "/v1/vos/{vo}/what-if");

/// What rules say to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// Whether it may be done.
    pub allowed: bool,
    /// The side whose rules decided.
    pub side: Side,
    /// The rule that decided; absent: by default, since no rule of that side allows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Rule>,
    /// The same in a sentence; for a refusal the one that the person reads.
    pub text: String,
    /// All rules that speak of the request: the site's first, then the VO's, each by name. Who does
    /// not administer the site sees of the site's rules the one that decided.
    pub matched: Vec<Matched>,
}

/// A rule that speaks of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Matched {
    /// Whose.
    pub side: Side,
    /// The rule.
    pub rule: Rule,
}
