//! Groups of a VO.

use crate::{Done, request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xos_base::{GroupName, GroupNumber, PersonId, VoId};

/// A group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupInfo {
    /// Its name.
    pub name: GroupName,
    /// Its number; local gids follow from it.
    pub number: GroupNumber,
    /// How many members are in it, without those of groups below it.
    pub members: u64,
    /// The group above it: who is in this one is in that one too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<GroupName>,
    /// Who manages it, without those who manage a group above it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub managers: Vec<PersonId>,
}

/// The groups of a VO, by number. For members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListGroups {
    /// The VO.
    pub vo: VoId,
    /// Only groups after this number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<GroupNumber>,
    /// At most so many, not over [`super::PAGE_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}
request!(ListGroups => GroupPage, Get "/v1/vos/{vo}/groups");

/// A part of the list of groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupPage {
    /// By number.
    pub groups: Vec<GroupInfo>,
    /// Give this as `after` for the next part; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<GroupNumber>,
}

/// Makes a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateGroup {
    /// The VO.
    pub vo: VoId,
    /// Its name.
    pub name: GroupName,
}
request!(CreateGroup => GroupInfo, Post "/v1/vos/{vo}/groups");

/// Deletes a group without groups below it; its number is never given again. For the VO's
/// administrators; for its owners when an owner or another administrator is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeleteGroup {
    /// The VO.
    pub vo: VoId,
    /// The group.
    pub name: GroupName,
}
request!(DeleteGroup => Done, Delete "/v1/vos/{vo}/groups/{name}");

/// Puts a member into a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddToGroup {
    /// The VO.
    pub vo: VoId,
    /// The group.
    pub name: GroupName,
    /// The member.
    pub person: PersonId,
}
request!(AddToGroup => Done, Put "/v1/vos/{vo}/groups/{name}/members/{person}");

/// Takes a member out of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveFromGroup {
    /// The VO.
    pub vo: VoId,
    /// The group.
    pub name: GroupName,
    /// The member.
    pub person: PersonId,
}
request!(RemoveFromGroup => Done, Delete "/v1/vos/{vo}/groups/{name}/members/{person}");
