//! What nodes need to know of a VO.

use crate::{Done, request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xos_base::{
    Epoch, Group, GroupNumber, LocalName, MemberNumber, Millis, PersonId, RoleName, VoId,
};

/// Longest local account name, in bytes.
pub const ACCOUNT_NAME_MAX: usize = 31;
/// Most members, and most groups, in one [`VoAccounts`].
pub const ACCOUNTS_PART_MAX: usize = 2000;

/// Whether accounts of the VO work at this site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AccountState {
    /// Logins and work are allowed.
    Active,
    /// No login, running work is held.
    Suspended,
    /// The VO is not served here any more (for an account: the member was removed): its
    /// processes end.
    Ended,
}

/// The accounts of one VO, in whole or what changed, from a core to a node.
///
/// With `full`, what the node holds of the VO is replaced; else members and groups named here
/// replace those of the same number and the others stay. While `more` is set the node waits for
/// the next part before it acts, so that nobody vanishes between two parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VoAccounts {
    /// The VO.
    pub vo: VoId,
    /// Number of the last log entry that this shows.
    pub number: u64,
    /// Whether this begins a whole list. Only on the first part.
    pub full: bool,
    /// Whether another part follows.
    pub more: bool,
    /// Local uid = base + member number, local gid = base + group number.
    pub base: u32,
    /// How many numbers from `base` on are the VO's.
    pub size: u32,
    /// Whether the VO works here.
    pub state: AccountState,
    /// Members.
    pub members: Vec<AccountMember>,
    /// Groups.
    pub groups: Vec<Group>,
    /// Groups that were deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups_gone: Vec<GroupNumber>,
    /// For how many seconds all this counts when nothing is heard of the core: the smaller of the
    /// VO's lease and the site's. Absent: [`super::LEASE_S_DEFAULT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_s: Option<u64>,
    /// For how many seconds work is held after that until it is ended: the smaller of the VO's
    /// grace and the site's. Absent: [`super::GRACE_S_DEFAULT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_s: Option<u64>,
}
request!(VoAccounts => Done, Post "/v1/node/vo");

/// One member's account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccountMember {
    /// The member's number.
    pub number: MemberNumber,
    /// The person.
    pub person: PersonId,
    /// The local name: `<person>.<vo label>.<vo site>` when that is not too long and no other
    /// person of the VO had it first, else `u<uid>`. A node on which a local account has the name
    /// uses `u<uid>` instead. The home is called so too, whatever name is `given`.
    pub name: String,
    /// The name that the site gave to the account: it is called so instead, but on nodes on which
    /// a local account has the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given: Option<LocalName>,
    /// Whether the member may act; `Ended` when removed.
    pub state: AccountState,
    /// What was signed for the member under a smaller epoch is void.
    pub epoch: Epoch,
    /// When the membership ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Millis>,
    /// From when on the member counts as suspended, for want of consent to the VO's terms of use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lapses: Option<Millis>,
    /// Groups besides `members`, which is everybody's primary group.
    pub groups: Vec<GroupNumber>,
    /// Roles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<RoleName>,
    /// Why rules of the VO or the site do not let the member sign in to this node, in a sentence
    /// for the person; absent: they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}
