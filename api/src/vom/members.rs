//! Members, their roles, and what other services ask about them.

use crate::{Done, request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use xos_base::{Epoch, GroupName, MemberNumber, Membership, Millis, PersonId, RoleName, VoId};

/// Whether a member may act.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "state", rename_all = "snake_case", deny_unknown_fields)]
pub enum MemberState {
    /// May act, until the membership expires.
    Active,
    /// May not act until resumed.
    Suspended {
        /// Why.
        reason: String,
    },
}

/// A member as administrators and the members themselves see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemberInfo {
    /// The person.
    pub person: PersonId,
    /// The member's number; local uids follow from it.
    pub number: MemberNumber,
    /// How often the membership was narrowed.
    pub epoch: Epoch,
    /// Groups, `members` first.
    pub groups: Vec<GroupName>,
    /// Roles.
    pub roles: Vec<RoleName>,
    /// Since when.
    pub since: Millis,
    /// When the membership ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Millis>,
    /// What administrators decided of the member.
    pub state: MemberState,
    /// Whether the member can act now: the VO works, and the member is neither suspended nor
    /// expired nor without the consent that the terms of use take.
    pub acts: bool,
}

/// The members of a VO, by person. For members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListMembers {
    /// The VO.
    pub vo: VoId,
    /// Only persons after this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<PersonId>,
    /// At most so many, not over [`super::PAGE_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}
request!(ListMembers => MemberPage, Get "/v1/vos/{vo}/members");

/// A part of the list of members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemberPage {
    /// By person.
    pub members: Vec<MemberInfo>,
    /// Give this as `after` for the next part; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<PersonId>,
}

/// One member of a VO. For members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetMember {
    /// The VO.
    pub vo: VoId,
    /// The member.
    pub person: PersonId,
}
request!(GetMember => MemberInfo, Get "/v1/vos/{vo}/members/{person}");

/// Suspends a member: no new logins, running work is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SuspendMember {
    /// The VO.
    pub vo: VoId,
    /// The member.
    pub person: PersonId,
    /// Why, at most [`super::REASON_MAX`] characters.
    pub reason: String,
}
request!(SuspendMember => Done, Post "/v1/vos/{vo}/members/{person}/suspend");

/// Lets a suspended member act again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResumeMember {
    /// The VO.
    pub vo: VoId,
    /// The member.
    pub person: PersonId,
}
request!(ResumeMember => Done, Post "/v1/vos/{vo}/members/{person}/resume");

/// Ends a membership for good and with it all running work. Members may remove themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveMember {
    /// The VO.
    pub vo: VoId,
    /// The member.
    pub person: PersonId,
    /// Why, at most [`super::REASON_MAX`] characters.
    #[serde(default)]
    pub reason: String,
}
request!(RemoveMember => Done, Delete "/v1/vos/{vo}/members/{person}");

/// Sets when a membership ends by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetExpiry {
    /// The VO.
    pub vo: VoId,
    /// The member.
    pub person: PersonId,
    /// The end; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Millis>,
}
request!(SetExpiry => Done, Put "/v1/vos/{vo}/members/{person}/expiry");

/// Gives a member a role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantRole {
    /// The VO.
    pub vo: VoId,
    /// The member.
    pub person: PersonId,
    /// The role; `admin` and `owner` can be given by owners only.
    pub role: RoleName,
}
request!(GrantRole => Done, Put "/v1/vos/{vo}/members/{person}/roles/{role}");

/// Takes a role from a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WithdrawRole {
    /// The VO.
    pub vo: VoId,
    /// The member.
    pub person: PersonId,
    /// The role.
    pub role: RoleName,
}
request!(WithdrawRole => Done, Delete "/v1/vos/{vo}/members/{person}/roles/{role}");

/// The VOs known at this site that a person is a member of. For the person and the own core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Memberships {
    /// The person.
    pub person: PersonId,
}
request!(Memberships => Vec<MembershipView>, Get "/v1/memberships/{person}");

/// One membership in a list of a person's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MembershipView {
    /// The VO.
    pub vo: VoId,
    /// What it is called.
    pub title: String,
    /// Whether the VO works.
    pub vo_state: super::VoState,
    /// The person's place in it.
    pub member: MemberInfo,
}

/// What a credential for this person in this VO says now. For the own core, at the VO's home.
///
/// Refused as Denied when the membership or the VO is suspended or over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MembershipOf {
    /// The VO.
    pub vo: VoId,
    /// The person.
    pub person: PersonId,
    /// The epoch of something long-lived that was signed for the membership, as a mandate: refused
    /// as Denied also when the member was suspended after it, resumed or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Epoch>,
}
request!(MembershipOf => MembershipNow, Get "/v1/vos/{vo}/members/{person}/membership");

/// What a credential says now, and for how long the VO lets it be renewed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MembershipNow {
    /// What it says.
    pub membership: Membership,
    /// For how many seconds after a sign-in the VO lets its credentials be given and renewed.
    pub renewal_s: u64,
    /// When the member was last suspended, if ever: sign-ins from before count no more in the VO.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended: Option<Millis>,
}

impl MembershipNow {
    /// For how long after a sign-in the VO lets its credentials be given and renewed.
    pub fn renewal(&self) -> Duration {
        Duration::from_secs(self.renewal_s)
    }
}
