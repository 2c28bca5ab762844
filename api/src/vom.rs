//! Requests of vom, the service of virtual organizations (VOs).
//!
//! What changes a VO goes to its home site's core. What concerns one site's share goes to that
//! site's core. All texts are bounded by the limits below and hold no control characters.

mod accounts;
mod applications;
mod enrolment;
mod exchange;
mod groups;
mod invitations;
mod log;
mod members;
mod names;
mod records;
mod serve;
mod shares;
mod structure;
mod why;

pub use accounts::{
    ACCOUNT_NAME_MAX, ACCOUNTS_PART_MAX, AccountConsent, AccountMember, AccountState, AccountTerms,
    VoAccounts, consent_due,
};
pub use applications::{
    Application, ApplicationPage, Apply, Approve, ListApplications, Reject, WithdrawApplication,
};
pub use exchange::{
    EXPECT_MAX, EXPORT_FORMAT, ExpectPeople, ExpectedPage, ExpectedPerson, Expecting, ExportLine,
    ExportPage, ExportVo, ForgetExpected, ListExpected,
};
pub use groups::{
    AddToGroup, CreateGroup, DeleteGroup, GroupInfo, GroupPage, ListGroups, RemoveFromGroup,
};
pub use log::{Actor, Change, Entry, LogItem, VoLog};
pub use members::{
    GetMember, GrantRole, ListMembers, MemberInfo, MemberPage, MemberState, MembershipNow,
    MembershipOf, MembershipView, Memberships, RemoveMember, ResumeMember, SetExpiry,
    SuspendMember, WithdrawRole,
};
pub use names::{
    AccountName, DropName, GiveNames, ListNames, NAMES_MAX, NamePage, NamedAccount, Naming,
    ReleaseName,
};
pub use serve::{ServedVo, ServedVos, ServingSite, VoSnapshot, VoView, WhoServes};
pub use shares::{
    AcceptShare, EndShare, ListShares, OfferShare, RecordOffer, RecordWithdrawal, RefuseShare,
    ShareInfo, ShareState, Terms, WithdrawShare,
};
pub use structure::{
    AcceptHandover, AddManager, CreateSubgroup, DISSOLVED_FOR, DissolveVo, EndHandover, ErasedVo,
    ErasedVos, GROUP_CHANGE_MAX, GROUP_DEPTH_MAX, Handover, ListGroupMembers, MANAGED_MAX,
    MANAGERS_MAX, MoveGroup, OfferHandover, RemoveManager, UndoDissolve,
};

pub use enrolment::{
    ANSWER_LINE_MAX, ANSWER_TEXT_MAX, Agree, Agreed, Answer, Answered, CHOICE_MAX, CHOICES_MAX,
    CONSENT_DAYS_MAX, Consent, Enrolment, EnrolmentForm, GRACE_DAYS_DEFAULT, GRACE_DAYS_MAX,
    GetEnrolment, GetEnrolmentForm, QUESTION_ID_MAX, QUESTION_TEXT_MAX, QUESTIONS_MAX, Question,
    QuestionKind, SetQuestions, SetTermsOfUse, TERMS_BYTES_MAX, TERMS_VERSIONS_MAX, TermsOfUse,
};
pub use invitations::{
    Gives, INVITATION_DAYS_MAX, INVITATION_HINT_MAX, INVITATION_USES_MAX, INVITATIONS_MAX,
    InvitationInfo, InvitationPage, InvitationSecret, InvitationState, InvitationView, Invite,
    Invited, Join, Joined, ListInvitations, LookAtInvitation, WithdrawInvitation,
};
pub use records::{
    EXTEND_MAX, Ending, ExpiringMember, ExpiringPage, ExtendMemberships, Extended,
    HISTORY_PAGE_MAX, HistoryEntry, HistoryPage, ListExpiring, MemberHistory,
    REMINDER_DAYS_DEFAULT, REMINDER_DAYS_MAX, REMINDERS_MAX, Reminder, Reminders, SetReminders,
};
pub use why::{WhyAnswer, WhyLogin, WhyOutcome, WhyPlace, WhyStep};

use crate::{Done, request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xos_base::{Millis, VoId};

/// Longest title of a VO, in characters.
pub const TITLE_MAX: usize = 200;
/// Longest description of a VO, in characters.
pub const DESCRIPTION_MAX: usize = 4000;
/// Longest message of an application, in characters.
pub const MESSAGE_MAX: usize = 2000;
/// Longest reason given for a decision, in characters.
pub const REASON_MAX: usize = 500;
/// Longest name of a volume, in bytes: a label of a-z, 0-9 and '-'.
pub const VOLUME_NAME_MAX: usize = 24;
/// Most entries in one page of a list; also what is given when no limit is named.
pub const PAGE_MAX: u32 = 500;
/// Most groups of one member, besides `members`.
pub const MEMBER_GROUPS_MAX: usize = 128;
/// Most roles of one member.
pub const MEMBER_ROLES_MAX: usize = 64;

/// The lease of a VO that was never set, in seconds: an hour.
pub const LEASE_S_DEFAULT: u64 = 60 * 60;
/// The shortest lease of a VO, in seconds: 5 minutes.
pub const LEASE_S_MIN: u64 = 5 * 60;
/// The longest lease of a VO, in seconds: 7 days.
pub const LEASE_S_MAX: u64 = 7 * 24 * 60 * 60;

/// For how long work is held once a VO's lease is over, until it is ended, where that was never
/// set, in seconds: a day.
pub const GRACE_S_DEFAULT: u64 = 24 * 60 * 60;
/// The longest such time, in seconds: 30 days. The shortest is none: work ends with the lease.
pub const GRACE_S_MAX: u64 = 30 * 24 * 60 * 60;

/// For how long after a sign-in a VO's credentials are renewed when that was never set, in seconds:
/// 7 days.
pub const RENEWAL_S_DEFAULT: u64 = RENEWAL_S_MAX;
/// The shortest such time, in seconds: an hour.
pub const RENEWAL_S_MIN: u64 = 60 * 60;
/// The longest such time, in seconds: 7 days. No site renews for longer either.
pub const RENEWAL_S_MAX: u64 = 7 * 24 * 60 * 60;

/// The group that every member is in; its number is 1.
pub const GROUP_MEMBERS: &str = "members";

/// Whether a VO works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "state", rename_all = "snake_case", deny_unknown_fields)]
pub enum VoState {
    /// Members can act in it.
    Active,
    /// Nobody can act in it until it is resumed.
    Suspended {
        /// Why.
        reason: String,
        /// The home site's administrator did it: only they resume it.
        by_site: bool,
    },
    /// Nobody can act in it and it is erased at `until`, unless that is taken back.
    Dissolved {
        /// Why.
        reason: String,
        /// The home site's administrator did it: only they take it back.
        by_site: bool,
        /// When it is erased.
        until: Millis,
    },
}

impl VoState {
    /// Why nobody can act in the VO, as words that follow its name; `None` when it works.
    pub fn halted(&self) -> Option<String> {
        match self {
            VoState::Active => None,
            VoState::Suspended { reason, .. } => Some(format!("is suspended: {reason}")),
            VoState::Dissolved { reason, until, .. } => {
                Some(format!("was dissolved and will be erased at {until}: {reason}"))
            }
        }
    }
}

/// Founds a VO at this site. Its id becomes `<label>.<this site>`; the caller owns it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FoundVo {
    /// The VO's label: 1 to 24 of a-z, 0-9 and '-', beginning with a letter.
    pub label: String,
    /// What it is called, one line, at most [`TITLE_MAX`] characters.
    pub title: String,
    /// What it is for, at most [`DESCRIPTION_MAX`] characters; may hold line breaks.
    #[serde(default)]
    pub description: String,
}
request!(FoundVo => VoInfo, Post "/v1/vos");

/// Lists the VOs that this site is home of or serves, by id. Needs no proof of identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListVos {
    /// Only VOs after this one; absent: from the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<VoId>,
    /// At most so many, not over [`PAGE_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}
request!(ListVos => VoPage, Get "/v1/vos");

/// What everybody may know of a VO.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VoSummary {
    /// The VO; the part after the dot is its home site.
    pub vo: VoId,
    /// What it is called.
    pub title: String,
    /// What it is for.
    pub description: String,
}

/// A part of a list of VOs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VoPage {
    /// By id.
    pub vos: Vec<VoSummary>,
    /// Give this as `after` for the next part; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<VoId>,
}

/// One VO, as much of it as the caller may see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetVo {
    /// The VO.
    pub vo: VoId,
}
request!(GetVo => VoInfo, Get "/v1/vos/{vo}");

/// A VO as the caller may see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VoInfo {
    /// What everybody sees.
    pub summary: VoSummary,
    /// Whether it works.
    pub state: VoState,
    /// The caller's own place in it, when the caller is a member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub me: Option<MemberInfo>,
    /// The caller's own pending application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<Application>,
    /// The rest, for members and administrators of its home site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<VoDetails>,
}

/// What members see of their VO.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VoDetails {
    /// When it was founded.
    pub founded: Millis,
    /// How many members it has, suspended and expired ones too.
    pub members: u64,
    /// How many applications wait for a decision.
    pub applications: u64,
    /// Its groups, `members` first.
    pub groups: Vec<GroupInfo>,
    /// Its volumes.
    pub volumes: Vec<String>,
    /// The sites' shares, by site.
    pub shares: Vec<ShareInfo>,
    /// The number of the last entry of its log.
    pub number: u64,
    /// The offers of owners to hand over that wait for an answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub handovers: Vec<Handover>,
    /// Its lease in seconds ([`SetLease`]); absent: [`LEASE_S_DEFAULT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_s: Option<u64>,
    /// For how many seconds its work is held once the lease is over ([`SetGrace`]); absent:
    /// [`GRACE_S_DEFAULT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_s: Option<u64>,
    /// For how many seconds after a sign-in its credentials are renewed ([`SetRenewal`]); absent:
    /// [`RENEWAL_S_DEFAULT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal_s: Option<u64>,
    /// Whether the home's audit notes who opens which file ([`SetFileAudit`]).
    pub audit_opens: bool,
    /// The version of what administrators set in it, title, description and reminders included: the
    /// number of the entry of its log that changed any of that last; 0: as founded.
    pub settings: u64,
}

/// Changes what a VO is called and what it is for; both are given. Its id stays. For the VO's
/// administrators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DescribeVo {
    /// The VO.
    pub vo: VoId,
    /// What it is called, one line, at most [`TITLE_MAX`] characters.
    pub title: String,
    /// What it is for, at most [`DESCRIPTION_MAX`] characters; may hold line breaks.
    pub description: String,
    /// The version of the settings that was looked at ([`VoDetails::settings`]): refused as
    /// Conflict when others changed them since. Absent: whatever they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<u64>,
}
request!(DescribeVo => Done, Put "/v1/vos/{vo}/description");

/// Suspends a VO: its owner, or the administrator of its home site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SuspendVo {
    /// The VO.
    pub vo: VoId,
    /// Why, at most [`REASON_MAX`] characters.
    pub reason: String,
}
request!(SuspendVo => Done, Post "/v1/vos/{vo}/suspend");

/// Lets a suspended VO work again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResumeVo {
    /// The VO.
    pub vo: VoId,
}
request!(ResumeVo => Done, Post "/v1/vos/{vo}/resume");

/// Sets the lease: how long a site that hears nothing of the VO's home, and a node that hears
/// nothing of its core, lets the VO's members sign in and work; then their work is held. A site's
/// own lease counts where it is smaller. For the VO's administrators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetLease {
    /// The VO.
    pub vo: VoId,
    /// In seconds, from [`LEASE_S_MIN`] to [`LEASE_S_MAX`].
    pub lease_s: u64,
    /// The version of the settings that was looked at ([`VoDetails::settings`]): refused as
    /// Conflict when others changed them since. Absent: whatever they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<u64>,
}
request!(SetLease => Done, Put "/v1/vos/{vo}/lease");

/// Sets for how long the VO's work is held once the lease is over; then it is ended, whether
/// anything was heard or not. A site's own time counts where it is smaller. For the VO's
/// administrators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetGrace {
    /// The VO.
    pub vo: VoId,
    /// In seconds, up to [`GRACE_S_MAX`].
    pub grace_s: u64,
    /// The version of the settings that was looked at ([`VoDetails::settings`]): refused as
    /// Conflict when others changed them since. Absent: whatever they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<u64>,
}
request!(SetGrace => Done, Put "/v1/vos/{vo}/grace");

/// Sets for how long after a member signed in the VO's home gives and renews credentials of the VO:
/// certificates, SSH certificates, tokens. Then the member signs in again. The home site's own time
/// counts where it is shorter. For the VO's administrators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetRenewal {
    /// The VO.
    pub vo: VoId,
    /// In seconds, from [`RENEWAL_S_MIN`] to [`RENEWAL_S_MAX`].
    pub renewal_s: u64,
    /// The version of the settings that was looked at ([`VoDetails::settings`]): refused as
    /// Conflict when others changed them since. Absent: whatever they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<u64>,
}
request!(SetRenewal => Done, Put "/v1/vos/{vo}/renewal");

/// Has the home's audit note who opens which file of the VO's volume, or no longer. All members see
/// whether it does. For the VO's administrators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetFileAudit {
    /// The VO.
    pub vo: VoId,
    /// Whether opens are noted.
    pub opens: bool,
    /// The version of the settings that was looked at ([`VoDetails::settings`]): refused as
    /// Conflict when others changed them since. Absent: whatever they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<u64>,
}
request!(SetFileAudit => Done, Put "/v1/vos/{vo}/file-audit");

/// Notes that a volume was made for a VO. Recording one again changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecordVolume {
    /// The VO.
    pub vo: VoId,
    /// The volume: 1 to [`VOLUME_NAME_MAX`] of a-z, 0-9 and '-', beginning with a letter.
    pub name: String,
}
request!(RecordVolume => Done, Post "/v1/vos/{vo}/volumes");
