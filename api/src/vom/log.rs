//! The log of a VO: signed, numbered, each entry bound to the one before it.

use super::{Gives, Question, Terms};
use crate::policy::{Rule, RuleName};
use crate::subscribe;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xos_base::{
    Epoch, GroupName, GroupNumber, MemberNumber, Millis, PersonId, RoleName, SiteId, VoId,
};

/// Who made a change.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Actor {
    /// A person; its id holds an `@`.
    Person(PersonId),
    /// A site's core, in its administrator's name.
    Site(SiteId),
}

/// One entry of a VO's log: the content of a JWS of the VO's home site (kind `VoLog`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The VO.
    pub vo: VoId,
    /// From 1, without a gap.
    pub number: u64,
    /// SHA-256 of the previous entry's JWS, hex; of the first: empty.
    pub prev: String,
    /// When, by the home's clock; never before the previous entry's.
    pub time: Millis,
    /// Who.
    pub actor: Actor,
    /// What.
    pub change: Change,
}

/// A change of a VO.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[allow(missing_docs)] // The fields of variants are ids, texts and terms that say what they are.
pub enum Change {
    /// The VO begins; its owner becomes member number 1, the group `members` number 1.
    Founded { owner: PersonId, title: String, description: String },
    /// Somebody asks to become a member.
    Applied {
        person: PersonId,
        message: String,
        /// The version of the terms of use that they agree to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        agreed: Option<u32>,
        /// The salted digest of their answers, which stay at the home.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answers: Option<String>,
        /// The id of the invitation by which they come.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        invitation: Option<String>,
    },
    /// They no longer ask.
    ApplicationWithdrawn { person: PersonId },
    /// They were turned down.
    ApplicationRejected { person: PersonId, reason: String },
    /// They became a member. `epoch` is above any that the person had here before.
    Admitted {
        person: PersonId,
        number: MemberNumber,
        epoch: Epoch,
        groups: Vec<GroupName>,
        roles: Vec<RoleName>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires: Option<Millis>,
    },
    /// A member may not act.
    MemberSuspended { person: PersonId, reason: String },
    /// A member may act again.
    MemberResumed { person: PersonId },
    /// A membership ended for good.
    MemberRemoved { person: PersonId, reason: String },
    /// A membership ends at another time, or never.
    MemberExpirySet {
        person: PersonId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires: Option<Millis>,
    },
    /// A member got a role.
    RoleGranted { person: PersonId, role: RoleName },
    /// A member lost a role.
    RoleWithdrawn { person: PersonId, role: RoleName },
    /// A group was made.
    GroupCreated { name: GroupName, number: GroupNumber },
    /// A group was deleted; its members left it.
    GroupDeleted { name: GroupName },
    /// A member came into a group.
    GroupMemberAdded { name: GroupName, person: PersonId },
    /// A member left a group.
    GroupMemberRemoved { name: GroupName, person: PersonId },
    /// A group was made within another one.
    SubgroupCreated { name: GroupName, number: GroupNumber, parent: GroupName },
    /// A group has another one above it, or none.
    GroupMoved {
        name: GroupName,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<GroupName>,
    },
    /// A member manages a group.
    GroupManagerAdded { name: GroupName, person: PersonId },
    /// A member manages a group no longer.
    GroupManagerRemoved { name: GroupName, person: PersonId },
    /// An owner offers the ownership to a member.
    HandoverOffered { by: PersonId, to: PersonId },
    /// The member is owner, and who offered it is not.
    HandoverAccepted { by: PersonId, to: PersonId },
    /// The offer counts no more.
    HandoverEnded { by: PersonId },
    /// Nobody can act in the VO, which will be erased.
    VoDissolved { reason: String, by_site: bool },
    /// The VO is as it was before it was dissolved.
    VoRestored {},
    /// The VO is no more. The last entry; the log goes with it.
    VoErased {},
    /// A site offers a share.
    ShareOffered { site: SiteId, terms: Terms },
    /// The offer of that version is in force.
    ShareAccepted { site: SiteId, version: u32 },
    /// The offer of that version was turned down.
    ShareRefused { site: SiteId, version: u32, reason: String },
    /// The share ended, and an open offer with it.
    ShareWithdrawn { site: SiteId, reason: String },
    /// Nobody can act in the VO.
    VoSuspended { reason: String, by_site: bool },
    /// The VO works again.
    VoResumed {},
    /// The VO is called so, and is for that.
    Described { title: String, description: String },
    /// A volume was made for the VO.
    VolumeMade { name: String },
    /// Sites that do not hear the home let the VO go on for so many seconds.
    LeaseSet { lease_s: u64 },
    /// Work that is held since the lease ended is ended after so many seconds.
    GraceSet { grace_s: u64 },
    /// The home renews credentials for so many seconds after a sign-in.
    RenewalSet { renewal_s: u64 },
    /// A part of a change of the VO's rules that was made from version `base` (the number of the
    /// entry that completed them last; 0: as founded): those in `remove` go, then those in `put`
    /// come or take the place of those of their names. Nothing of it counts before all parts, from
    /// 0 on, are there; `more`: others follow.
    RulesChanged { base: u64, part: u32, more: bool, put: Vec<Rule>, remove: Vec<RuleName> },
    /// There are terms of use, or new ones.
    TermsOfUseSet {
        version: u32,
        text: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        consent_days: Option<u32>,
        grace_days: u32,
    },
    /// A member agreed to the terms of use of that version.
    Agreed { person: PersonId, version: u32 },
    /// Applicants are asked this.
    QuestionsSet { questions: Vec<Question> },
    /// People are reminded so many days before something ends.
    RemindersSet { days: Vec<u32> },
    /// An invitation was made. `hash` is the SHA-256 of its secret, hex, and `id` how that begins;
    /// `hint` the salted digest of what it was noted for.
    InvitationMade {
        id: String,
        hash: String,
        by: PersonId,
        gives: Gives,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
    },
    /// An invitation counts no more.
    InvitationWithdrawn { id: String },
    /// Somebody became a member by an invitation, with what that gives.
    Joined {
        person: PersonId,
        invitation: String,
        number: MemberNumber,
        epoch: Epoch,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        agreed: Option<u32>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answers: Option<String>,
    },
    /// The home's audit notes each file of the VO that is opened, or no longer does.
    FileAuditSet { opens: bool },
}

/// The log of a VO from a number on, as it grows. For cores of sites that gave or offer a share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VoLog {
    /// The VO.
    pub vo: VoId,
    /// Only entries after this number; 0: all.
    pub after: u64,
}
subscribe!(VoLog => LogItem, Get "/v1/vos/{vo}/log");

/// An item of the stream that answers [`VoLog`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum LogItem {
    /// An entry.
    Entry {
        /// The signed [`Entry`].
        jws: String,
    },
    /// The VO was erased, and the entries between are no more. The last item.
    Erased {
        /// The signed last [`Entry`], which says so.
        jws: String,
    },
    /// Nothing new; the home lives. Comes at least every 30 seconds without entries.
    Beat {
        /// The number of the last entry.
        number: u64,
    },
}
