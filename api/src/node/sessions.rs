//! What a core asks its nodes about people who sign in there.

use crate::request;
use crate::vom::WhyAnswer;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xos_base::{MemberNumber, Millis, PersonId, VoId};

/// Most sessions in one [`OpenSessions`].
pub const SESSIONS_MAX: usize = 2000;

/// The core asks a node which sessions of a VO's members are open there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListSessions {
    /// The VO.
    pub vo: VoId,
}
request!(ListSessions => OpenSessions, Post "/v1/node/sessions");

/// The open sessions of a VO's members on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenSessions {
    /// At most [`SESSIONS_MAX`].
    pub sessions: Vec<OpenSession>,
    /// There are more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// An open session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenSession {
    /// Whose.
    pub person: PersonId,
    /// The PAM service that opened it: `sshd`, `login`, `cron`.
    pub service: String,
    /// Since when.
    pub since: Millis,
}

/// The core asks a node why a member can sign in to it, or cannot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WhyNode {
    /// The VO.
    pub vo: VoId,
    /// The member.
    pub number: MemberNumber,
}
request!(WhyNode => WhyAnswer, Post "/v1/node/why/login");
