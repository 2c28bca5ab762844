//! What ends when, and what was.

use super::{Actor, Change};
use crate::{Done, request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xos_base::{Error, Millis, PersonId, VoId};

/// How many days before an end people are reminded when that was never set.
pub const REMINDER_DAYS_DEFAULT: [u32; 3] = [30, 7, 1];
/// Most such numbers of days.
pub const REMINDERS_MAX: usize = 5;
/// The largest such number of days.
pub const REMINDER_DAYS_MAX: u32 = 365;
/// Most memberships that one [`ExtendMemberships`] changes.
pub const EXTEND_MAX: usize = 500;
/// Most entries in one page of a history.
pub const HISTORY_PAGE_MAX: u32 = 100;

/// Sets how many days before the end of a membership or a consent people are reminded. For the VO's
/// administrators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetReminders {
    /// The VO.
    pub vo: VoId,
    /// 1 to [`REMINDERS_MAX`] different numbers, each from 1 to [`REMINDER_DAYS_MAX`].
    pub days: Vec<u32>,
    /// The version of the settings that was looked at ([`super::VoDetails::settings`]): refused as
    /// Conflict when others changed them since. Absent: whatever they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<u64>,
}
request!(SetReminders => Done, Put "/v1/vos/{vo}/reminders");

/// The members whose membership or consent ends soon or has ended, by person. For the VO's
/// administrators. A page may hold few, or none, though more follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListExpiring {
    /// The VO.
    pub vo: VoId,
    /// Within so many days; absent: the largest of the VO's reminders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<u32>,
    /// Only persons after this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<PersonId>,
    /// At most so many, not over [`super::PAGE_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}
request!(ListExpiring => ExpiringPage, Get "/v1/vos/{vo}/expiring");

/// A member in [`ExpiringPage`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpiringMember {
    /// The person.
    pub person: PersonId,
    /// When the membership ends, when that is soon or past.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Millis>,
    /// When the consent is due, when that is soon or past.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Millis>,
    /// When the member may act no more for want of consent; with `due`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lapses: Option<Millis>,
}

/// A part of the answer to [`ListExpiring`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpiringPage {
    /// By person.
    pub members: Vec<ExpiringMember>,
    /// Give this as `after` for the next part; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<PersonId>,
}

/// Sets the end of many memberships. For the VO's administrators. What cannot be changed for one
/// person is changed for the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExtendMemberships {
    /// The VO.
    pub vo: VoId,
    /// At most [`EXTEND_MAX`].
    pub persons: Vec<PersonId>,
    /// The end; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Millis>,
}
request!(ExtendMemberships => Vec<Extended>, Post "/v1/vos/{vo}/expiry");

/// What [`ExtendMemberships`] did for one person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Extended {
    /// The person.
    pub person: PersonId,
    /// Why nothing was changed; absent: the end is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Error>,
}

/// What a person is to be reminded of in the VOs known at this site. For the person and the own
/// core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reminders {
    /// The person.
    pub person: PersonId,
}
request!(Reminders => Vec<Reminder>, Get "/v1/reminders/{person}");

/// What ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The membership.
    Membership,
    /// The consent to the terms of use.
    Consent,
}

/// Something that ends soon or has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reminder {
    /// The VO.
    pub vo: VoId,
    /// What it is called.
    pub title: String,
    /// What ends.
    pub what: Ending,
    /// Since when or from when on the person may act no more.
    pub at: Millis,
    /// The smallest of the VO's numbers of days within which that is; 0: it is past.
    pub days: u32,
    /// What the person can do.
    pub todo: String,
}

/// What happened to a person in a VO, oldest first. For the VO's administrators and for the person,
/// once a member, at the VO's home.
///
/// What concerns a group or the VO as a whole does not stand in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemberHistory {
    /// The VO.
    pub vo: VoId,
    /// The person.
    pub person: PersonId,
    /// Only entries after this number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// At most so many, not over [`HISTORY_PAGE_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}
request!(MemberHistory => HistoryPage, Get "/v1/vos/{vo}/members/{person}/history");

/// An entry of the VO's log that concerns a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HistoryEntry {
    /// Its number in the log.
    pub number: u64,
    /// When.
    pub time: Millis,
    /// Who did it.
    pub actor: Actor,
    /// What, and why. The reason for which an application was turned down is left out for the
    /// person.
    pub change: Change,
}

/// A part of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HistoryPage {
    /// By number.
    pub entries: Vec<HistoryEntry>,
    /// Give this as `after` for the next part; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}
