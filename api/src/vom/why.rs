//! Why somebody can sign in to a node, or cannot: what each place that decides says of it.

use crate::request;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xos_base::{NodeId, PersonId, VoId};

/// Asks a core why somebody can sign in to a node as a member of a VO, or cannot. The VO's home
/// answers for the membership; the node's site for its trust, its share and its rules, and for the
/// node. A core that is neither has no step to tell. For oneself; about others for the VO's
/// administrators and the administrators of the site asked. Who is no member is told that alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WhyLogin {
    /// The VO.
    pub vo: VoId,
    /// About whom; absent: oneself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<PersonId>,
    /// Where they would sign in.
    pub node: NodeId,
}
request!(WhyLogin => WhyAnswer, Get "/v1/vos/{vo}/why/login");

/// What one place knows, in the order in which it is decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WhyAnswer {
    /// The steps. The first that failed is the reason; later ones may fail because of it.
    pub steps: Vec<WhyStep>,
}

/// One thing that must be so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WhyStep {
    /// Who decides it.
    pub at: WhyPlace,
    /// What it is about, a word or two: `membership`, `rules`.
    pub what: String,
    /// Whether it is so.
    pub outcome: WhyOutcome,
    /// How it is, a sentence.
    pub text: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Who decides a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhyPlace {
    /// The person's own computer.
    Computer,
    /// The VO's home.
    Home,
    /// The site of the node.
    Site,
    /// The node.
    Node,
    /// The service of the volume's names and rights.
    Volume,
}

impl WhyPlace {
    /// The word that a person reads.
    pub fn word(self) -> &'static str {
        match self {
            WhyPlace::Computer => "this computer",
            WhyPlace::Home => "home of the VO",
            WhyPlace::Site => "site",
            WhyPlace::Node => "node",
            WhyPlace::Volume => "volume",
        }
    }
}

/// How a step came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhyOutcome {
    /// It is so.
    Ok,
    /// It is not so.
    Failed,
    /// It could not be found out.
    Unknown,
}

impl WhyOutcome {
    /// The word that a person reads.
    pub fn word(self) -> &'static str {
        match self {
            WhyOutcome::Ok => "ok",
            WhyOutcome::Failed => "failed",
            WhyOutcome::Unknown => "not known",
        }
    }
}

impl WhyStep {
    fn new(at: WhyPlace, what: &str, outcome: WhyOutcome, text: impl Into<String>) -> WhyStep {
        WhyStep { at, what: what.to_owned(), outcome, text: text.into(), hint: None }
    }

    /// A step that is as it must be.
    pub fn ok(at: WhyPlace, what: &str, text: impl Into<String>) -> WhyStep {
        WhyStep::new(at, what, WhyOutcome::Ok, text)
    }

    /// A step that is not.
    pub fn failed(at: WhyPlace, what: &str, text: impl Into<String>) -> WhyStep {
        WhyStep::new(at, what, WhyOutcome::Failed, text)
    }

    /// A step of which nothing is known, and why.
    pub fn unknown(at: WhyPlace, what: &str, text: impl Into<String>) -> WhyStep {
        WhyStep::new(at, what, WhyOutcome::Unknown, text)
    }

    /// The same with what to do.
    pub fn hint(self, hint: impl Into<String>) -> WhyStep {
        WhyStep { hint: Some(hint.into()), ..self }
    }
}
