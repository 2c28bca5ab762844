//! What nodes need to know of a VO.

use crate::{Done, request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;
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
    /// The terms of use that consents lapse by; absent: none lapses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<AccountTerms>,
}
request!(VoAccounts => Done, Post "/v1/node/vo");

/// A VO's terms of use, as far as consents lapse by them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccountTerms {
    /// When each version came, the first one first.
    pub set: Vec<Millis>,
    /// For how many days after a consent is due its member may still act.
    pub grace_days: u32,
}

impl AccountTerms {
    /// From when on a member counts as suspended, for want of consent.
    pub fn lapses(&self, m: &AccountMember) -> Option<Millis> {
        let grace = Duration::from_secs(u64::from(self.grace_days) * 24 * 60 * 60);
        consent_due(&self.set, m.consent.as_ref(), m.since).map(|due| due.plus(grace))
    }
}

/// A consent to terms of use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccountConsent {
    /// To which version.
    pub version: u32,
    /// Until when it holds; absent: until the next version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Millis>,
}

/// When a member since `since` must agree (again) to terms whose versions came at the times `set`;
/// `None`: not until there is a new version.
///
/// A new version makes a consent due when it comes, and so does the first one for who was a member
/// before. Versions after that do not put it off.
pub fn consent_due(
    set: &[Millis],
    consent: Option<&AccountConsent>,
    since: Millis,
) -> Option<Millis> {
    let after = |version: u32| usize::try_from(version).ok().and_then(|v| set.get(v)).copied();
    match consent {
        None => after(0).map(|first| first.max(since)),
        Some(c) => [c.until, after(c.version)].into_iter().flatten().min(),
    }
}

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
    /// Since when they are a member.
    pub since: Millis,
    /// Their last consent to the VO's terms of use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consent: Option<AccountConsent>,
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
