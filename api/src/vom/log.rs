//! The log of a VO: signed, numbered, each entry bound to the one before it.

use super::Terms;
use crate::subscribe;
use serde::{Deserialize, Serialize};
use xos_base::{
    Epoch, GroupName, GroupNumber, MemberNumber, Millis, PersonId, RoleName, SiteId, VoId,
};

/// Who made a change.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Actor {
    /// A person; its id holds an `@`.
    Person(PersonId),
    /// A site's core, in its administrator's name.
    Site(SiteId),
}

/// One entry of a VO's log: the content of a JWS of the VO's home site (kind `VoLog`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[allow(missing_docs)] // The fields of variants are ids, texts and terms that say what they are.
pub enum Change {
    /// The VO begins; its owner becomes member number 1, the group `members` number 1.
    Founded { owner: PersonId, title: String, description: String },
    /// Somebody asks to become a member.
    Applied { person: PersonId, message: String },
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
    /// A volume was made for the VO.
    VolumeMade { name: String },
    /// Sites that do not hear the home let the VO go on for so many seconds.
    LeaseSet { lease_s: u64 },
    /// The home renews credentials for so many seconds after a sign-in.
    RenewalSet { renewal_s: u64 },
    /// The home's audit notes each file of the VO that is opened, or no longer does.
    FileAuditSet { opens: bool },
}

/// The log of a VO from a number on, as it grows. For cores of sites that gave or offer a share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VoLog {
    /// The VO.
    pub vo: VoId,
    /// Only entries after this number; 0: all.
    pub after: u64,
}
subscribe!(VoLog => LogItem, Get "/v1/vos/{vo}/log");

/// An item of the stream that answers [`VoLog`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum LogItem {
    /// An entry.
    Entry {
        /// The signed [`Entry`].
        jws: String,
    },
    /// Nothing new; the home lives. Comes at least every 30 seconds without entries.
    Beat {
        /// The number of the last entry.
        number: u64,
    },
}
