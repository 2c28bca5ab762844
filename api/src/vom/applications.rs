//! Coming into a VO.

use super::{Answer, Gives, MemberInfo};
use crate::{Done, request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xos_base::{GroupName, Millis, PersonId, RoleName, VoId};

/// Asks to become a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Apply {
    /// The VO.
    pub vo: VoId,
    /// What its administrators should know, at most [`super::MESSAGE_MAX`] characters.
    #[serde(default)]
    pub message: String,
    /// The version of the terms of use that the person agrees to; there must be one when the VO has
    /// terms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreed: Option<u32>,
    /// The answers to the VO's questions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Answer>,
}
request!(Apply => Done, Post "/v1/vos/{vo}/applications");

/// Takes the caller's own application back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WithdrawApplication {
    /// The VO.
    pub vo: VoId,
}
request!(WithdrawApplication => Done, Delete "/v1/vos/{vo}/applications/mine");

/// The applications that wait for a decision, by person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListApplications {
    /// The VO.
    pub vo: VoId,
    /// Only persons after this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<PersonId>,
    /// At most so many, not over [`super::PAGE_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}
request!(ListApplications => ApplicationPage, Get "/v1/vos/{vo}/applications");

/// One application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Application {
    /// Who applies.
    pub person: PersonId,
    /// What they say.
    pub message: String,
    /// Since when.
    pub since: Millis,
    /// For the VO's administrators: what the applicant gets besides when the application is
    /// approved now, by the invitation by which it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gives: Option<Gives>,
}

/// A part of the list of applications.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplicationPage {
    /// By person.
    pub applications: Vec<Application>,
    /// Give this as `after` for the next part; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<PersonId>,
}

/// Admits an applicant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Approve {
    /// The VO.
    pub vo: VoId,
    /// The applicant.
    pub person: PersonId,
    /// Groups besides `members`; they must exist.
    #[serde(default)]
    pub groups: Vec<GroupName>,
    /// Roles; `admin` and `owner` can be given by owners only.
    #[serde(default)]
    pub roles: Vec<RoleName>,
    /// When the membership ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Millis>,
}
request!(Approve => MemberInfo, Post "/v1/vos/{vo}/applications/{person}/approve");

/// Turns an applicant down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reject {
    /// The VO.
    pub vo: VoId,
    /// The applicant.
    pub person: PersonId,
    /// Why, at most [`super::REASON_MAX`] characters.
    pub reason: String,
}
request!(Reject => Done, Post "/v1/vos/{vo}/applications/{person}/reject");
