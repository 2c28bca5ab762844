//! Invitations into a VO, by a link that holds a secret.

use super::{Answer, EnrolmentForm, MemberInfo};
use crate::{Done, request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use xos_base::{GroupName, Millis, PersonId, RoleName, VoId};

/// Most persons who come in by one invitation.
pub const INVITATION_USES_MAX: u32 = 1000;
/// The longest time for which an invitation holds, in days.
pub const INVITATION_DAYS_MAX: u64 = 366;
/// Longest note to an invitation, in characters.
pub const INVITATION_HINT_MAX: usize = 200;
/// Most invitations of one VO that are open.
pub const INVITATIONS_MAX: usize = 1000;

/// What an invitation gives to whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gives {
    /// Groups besides `members`; they must exist.
    #[serde(default)]
    pub groups: Vec<GroupName>,
    /// Roles; `admin` and `owner` can be given by owners only.
    #[serde(default)]
    pub roles: Vec<RoleName>,
    /// How many persons may come in by it, 1 to [`INVITATION_USES_MAX`].
    pub uses: u32,
    /// Until when it holds, at most [`INVITATION_DAYS_MAX`] days from now.
    pub expires: Millis,
    /// Only this person may use it; absent: whoever has the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<PersonId>,
    /// When the memberships end that it gives; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<Millis>,
    /// Whether it makes members at once; else applications that an administrator approves. Who was
    /// a member before always waits for that.
    pub at_once: bool,
}

/// The secret of an invitation, as the end of its link: `/join/<vo>/<secret>`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct InvitationSecret(pub String);

impl fmt::Debug for InvitationSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InvitationSecret(..)")
    }
}

/// Makes an invitation. For the VO's administrators; nobody invites to more than they may give.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Invite {
    /// The VO.
    pub vo: VoId,
    /// What it gives to whom.
    pub gives: Gives,
    /// For whom it is meant, as an e-mail address, at most [`INVITATION_HINT_MAX`] characters. It
    /// stays at the VO's home.
    #[serde(default)]
    pub hint: String,
}
request!(Invite => Invited, Post "/v1/vos/{vo}/invitations");

/// The answer to [`Invite`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Invited {
    /// The invitation.
    pub invitation: InvitationInfo,
    /// Its secret. Only its hash is kept: nobody shows it again.
    pub secret: InvitationSecret,
}

/// What became of an invitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InvitationState {
    /// It can be used.
    Open,
    /// As many came as it was made for.
    UsedUp,
    /// Its time is over.
    Expired,
    /// It was withdrawn.
    Withdrawn,
}

/// An invitation as administrators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InvitationInfo {
    /// Its id: 16 hexadecimal digits.
    pub invitation: String,
    /// What it gives to whom.
    pub gives: Gives,
    /// Who made it.
    pub by: PersonId,
    /// When.
    pub made: Millis,
    /// How many persons may still come in by it.
    pub left: u32,
    /// What became of it.
    pub state: InvitationState,
    /// For whom it is meant.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

/// The invitations, by id; those that are over stay until room is needed. For the VO's
/// administrators, at the VO's home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListInvitations {
    /// The VO.
    pub vo: VoId,
    /// Only invitations after this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// At most so many, not over [`super::PAGE_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}
request!(ListInvitations => InvitationPage, Get "/v1/vos/{vo}/invitations");

/// A part of the list of invitations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InvitationPage {
    /// By id.
    pub invitations: Vec<InvitationInfo>,
    /// Give this as `after` for the next part; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Withdraws an invitation: nobody comes in by it any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WithdrawInvitation {
    /// The VO.
    pub vo: VoId,
    /// Its id.
    pub invitation: String,
}
request!(WithdrawInvitation => Done, Delete "/v1/vos/{vo}/invitations/{invitation}");

/// What an invitation offers to who holds its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LookAtInvitation {
    /// The VO.
    pub vo: VoId,
    /// The secret.
    pub secret: InvitationSecret,
}
request!(LookAtInvitation => InvitationView, Post "/v1/vos/{vo}/join/look");

/// The answer to [`LookAtInvitation`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InvitationView {
    /// What the VO is called.
    pub title: String,
    /// What it is for.
    pub description: String,
    /// Who invites.
    pub by: PersonId,
    /// What the invitation gives.
    pub gives: Gives,
    /// Whether the caller becomes a member at once, rather than an applicant.
    pub at_once: bool,
    /// What to agree to and to answer.
    pub form: EnrolmentForm,
}

/// Comes into a VO by an invitation. For everybody who signed in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// The VO.
    pub vo: VoId,
    /// The invitation's secret.
    pub secret: InvitationSecret,
    /// What administrators should know, at most [`super::MESSAGE_MAX`] characters.
    #[serde(default)]
    pub message: String,
    /// The version of the terms of use that the person agrees to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreed: Option<u32>,
    /// The answers to the VO's questions.
    #[serde(default)]
    pub answers: Vec<Answer>,
}
request!(Join => Joined, Post "/v1/vos/{vo}/join");

/// The answer to [`Join`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "JoinedVo")]
pub struct Joined {
    /// The membership; absent: the application waits for an administrator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<MemberInfo>,
}
