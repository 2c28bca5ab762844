//! How a VO is built and ends: groups within groups, who manages a group, handing a VO over,
//! dissolving it.

use super::MemberPage;
use crate::{Done, request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use xos_base::{GroupName, Millis, PersonId, VoId};

/// Most groups from one without a group above it down to the lowest, both counted.
pub const GROUP_DEPTH_MAX: usize = 8;
/// Most memberships in a group and those below it when it is moved or deleted: one change of a VO
/// must not void the credentials of more people, nor make nodes hear of more.
pub const GROUP_CHANGE_MAX: u64 = 10_000;
/// Most members of one VO who manage groups.
pub const MANAGERS_MAX: usize = 10_000;
/// Most groups that one member manages; those below them are not counted.
pub const MANAGED_MAX: usize = 128;
/// For how long a dissolved VO can be exported and taken back; then it is erased.
pub const DISSOLVED_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Makes a group within another one: who is in it is in the groups above it too. For the VO's
/// administrators; for managers of the group above when the name begins with that group's and `-`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSubgroup {
    /// The VO.
    pub vo: VoId,
    /// The group above.
    pub parent: GroupName,
    /// The new group's name.
    pub name: GroupName,
}
request!(CreateSubgroup => super::GroupInfo, Post "/v1/vos/{vo}/groups/{parent}/groups");

/// Moves a group, with those below it, under another one. Who is in it leaves the groups that
/// were above it, and must sign in again. For the VO's administrators; for its owners when an owner
/// or another administrator is in the group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MoveGroup {
    /// The VO.
    pub vo: VoId,
    /// The group.
    pub name: GroupName,
    /// The group above it from now on; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<GroupName>,
}
request!(MoveGroup => super::GroupInfo, Put "/v1/vos/{vo}/groups/{name}/parent");

/// Lets a member manage a group and those below it: put plain members in, take them out, make
/// groups within it. For the VO's administrators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddManager {
    /// The VO.
    pub vo: VoId,
    /// The group.
    pub name: GroupName,
    /// The member.
    pub person: PersonId,
}
request!(AddManager => Done, Put "/v1/vos/{vo}/groups/{name}/managers/{person}");

/// Lets a member manage a group no longer. For the VO's administrators, and for the member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveManager {
    /// The VO.
    pub vo: VoId,
    /// The group.
    pub name: GroupName,
    /// The member.
    pub person: PersonId,
}
request!(RemoveManager => Done, Delete "/v1/vos/{vo}/groups/{name}/managers/{person}");

/// The members of a group and of those below it, by person. For members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListGroupMembers {
    /// The VO.
    pub vo: VoId,
    /// The group.
    pub name: GroupName,
    /// Only persons after this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<PersonId>,
    /// At most so many, not over [`super::PAGE_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}
request!(ListGroupMembers => MemberPage, Get "/v1/vos/{vo}/groups/{name}/members");

/// An owner's offer to hand their ownership over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Handover {
    /// The owner.
    pub by: PersonId,
    /// The member who is to be owner instead.
    pub to: PersonId,
}

/// Offers the caller's ownership to a member. Nothing changes until the member accepts; a later
/// offer replaces it. For owners.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfferHandover {
    /// The VO.
    pub vo: VoId,
    /// The member.
    pub to: PersonId,
}
request!(OfferHandover => Done, Post "/v1/vos/{vo}/handovers");

/// Takes an offered ownership over: the caller is owner from now on, and who offered is not. For
/// the member to whom it was offered, signed in without a VO.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptHandover {
    /// The VO.
    pub vo: VoId,
    /// Who offered it.
    pub by: PersonId,
}
request!(AcceptHandover => Done, Post "/v1/vos/{vo}/handovers/{by}/accept");

/// Ends an offer to hand over. For owners, and for the member to whom it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndHandover {
    /// The VO.
    pub vo: VoId,
    /// Who offered it.
    pub by: PersonId,
}
request!(EndHandover => Done, Delete "/v1/vos/{vo}/handovers/{by}");

/// Dissolves a VO: at once nobody can act in it, and what runs ends at all sites. After
/// [`DISSOLVED_FOR`] it is erased. For its owners and the administrators of its home site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DissolveVo {
    /// The VO.
    pub vo: VoId,
    /// Why, at most [`super::REASON_MAX`] characters.
    pub reason: String,
}
request!(DissolveVo => Done, Post "/v1/vos/{vo}/dissolve");

/// Takes a dissolution back: the VO is as it was before. For whoever may dissolve it; when the home
/// site dissolved it, for that site's administrators alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UndoDissolve {
    /// The VO.
    pub vo: VoId,
}
request!(UndoDissolve => Done, Delete "/v1/vos/{vo}/dissolve");

/// The VOs that this site knew and that are erased, by id. For its administrators and its own
/// core, whose services erase what they hold of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ErasedVos {}
request!(ErasedVos => Vec<ErasedVo>, Get "/v1/erased");

/// What is left of a VO that was erased. Its id and its numbers are never given again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ErasedVo {
    /// The VO.
    pub vo: VoId,
    /// When its home erased it.
    pub at: Millis,
    /// The volumes that it had, as far as this site knew them.
    pub volumes: Vec<String>,
}
