//! Names that a site gives to accounts of members, in place of those by the common rule.
//!
//! A name changes what an account is called at this site, and nothing else: the uid stays the
//! base of the VO plus the member's number, and the home stays where it was. For this site's
//! administrator, at this site's core.

use crate::request;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xos_base::{LocalName, MemberNumber, Millis, PersonId, VoId};

/// Most names that are given or reserved for members of one VO at a site.
pub const NAMES_MAX: usize = 3000;

/// A name for the account of one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Naming {
    /// The member.
    pub person: PersonId,
    /// What the account is to be called here.
    pub name: LocalName,
}

/// Gives names to accounts of members, all of them or none.
///
/// A name belongs to one person in one VO from then on, also when they get another name or leave:
/// see [`ReleaseName`]. The reply tells of each in the order of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GiveNames {
    /// The VO; this site must have numbers for it.
    pub vo: VoId,
    /// Who gets which name, at most [`NAMES_MAX`]; no person and no name twice.
    pub names: Vec<Naming>,
    /// Change nothing, and tell what would be.
    #[serde(default)]
    pub dry_run: bool,
}
request!(GiveNames => Vec<AccountName>, Post "/v1/served/{vo}/names");

/// Lets an account be called by the common rule again. The name stays the person's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DropName {
    /// The VO.
    pub vo: VoId,
    /// Whose account.
    pub person: PersonId,
}
request!(DropName => AccountName, Delete "/v1/served/{vo}/names/{person}");

/// Takes a name from the person to whom it belongs, so that an hour later it can be given to
/// somebody else.
///
/// What is kept under the former holder's name, in files and lists of the site, is then read as
/// the next holder's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseName {
    /// The name.
    pub name: LocalName,
}
request!(ReleaseName => AccountName, Delete "/v1/names/{name}");

/// Lists the names that this site gave, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListNames {
    /// Of this VO only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vo: Option<VoId>,
    /// Only names after this one; absent: from the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<LocalName>,
    /// At most so many, not over [`super::PAGE_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}
request!(ListNames => NamePage, Get "/v1/names");

/// A part of the list of names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NamePage {
    /// By name.
    pub names: Vec<AccountName>,
    /// Give this as `after` for the next part; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<LocalName>,
}

/// A name that belongs to a person in a VO at this site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccountName {
    /// The name.
    pub name: LocalName,
    /// The VO.
    pub vo: VoId,
    /// The person.
    pub person: PersonId,
    /// Whether the account is called so; else the name is only kept for the person.
    pub used: bool,
    /// When it was first given.
    pub since: Millis,
    /// The account behind it; absent when the person is no member now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<NamedAccount>,
    /// The name that this one replaces. Only in replies to [`GiveNames`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<LocalName>,
}

/// The account that has a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedAccount {
    /// The member's number.
    pub number: MemberNumber,
    /// The local uid.
    pub uid: u32,
    /// What the account is called by the common rule, where the given name does not count. The
    /// home is called so in any case.
    pub default: String,
}
