//! A VO as a text that one takes out and puts in: export, and people who are expected.

use super::{Question, ShareInfo};
use crate::policy::Rule;
use crate::{Done, request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xos_base::{GroupName, Millis, PersonId, RoleName, VoId};

/// The form of the lines of an export.
pub const EXPORT_FORMAT: u32 = 1;
/// Most people in one request about those who are expected.
pub const EXPECT_MAX: usize = 500;

/// A part of the export of a VO. For its owners and the administrators of its home site, also for
/// as long as it is dissolved and not erased yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExportVo {
    /// The VO.
    pub vo: VoId,
    /// What comes after this, as [`ExportPage::next`] says it; absent: from the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Whether the signed entries of the VO's log are wanted too.
    #[serde(default)]
    pub log: bool,
}
request!(ExportVo => ExportPage, Get "/v1/vos/{vo}/export");

/// A part of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExportPage {
    /// In the order in which they are to be written, and read.
    pub lines: Vec<ExportLine>,
    /// Give this as `after` for the next part; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One line of an export, as one JSON object. Readers pass over lines whose `kind` they do not
/// know: later versions have more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[allow(missing_docs)] // The fields are those of the requests and replies of this service.
pub enum ExportLine {
    /// The first line.
    Vo {
        format: u32,
        vo: VoId,
        title: String,
        description: String,
        founded: Millis,
        /// The number of the last entry of its log when the export began.
        number: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lease_s: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        renewal_s: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grace_s: Option<u64>,
        /// Whether the home's audit notes which files are opened.
        #[serde(default)]
        audit_opens: bool,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        volumes: Vec<String>,
    },
    /// The terms of use in force.
    Terms {
        text: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        consent_days: Option<u32>,
        grace_days: u32,
    },
    /// What applicants are asked.
    Questions { questions: Vec<Question> },
    /// How many days before an end people are reminded.
    Reminders { days: Vec<u32> },
    /// A group; the one above it stands before it.
    Group {
        name: GroupName,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<GroupName>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        managers: Vec<PersonId>,
    },
    /// A rule of the VO.
    Rule { rule: Rule },
    /// Somebody who is expected.
    Expected {
        person: PersonId,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        groups: Vec<GroupName>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        roles: Vec<RoleName>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires: Option<Millis>,
    },
    /// A member.
    Member {
        person: PersonId,
        /// Those that the member was put into, without `members` and those above.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        groups: Vec<GroupName>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        roles: Vec<RoleName>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires: Option<Millis>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<Millis>,
        /// Why the member is suspended, if so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        suspended: Option<String>,
    },
    /// A site's share.
    Share { share: ShareInfo },
    /// A signed entry of the log.
    Entry { jws: String },
    /// The last line: without it the export was cut.
    End {
        /// The number of the last entry of the log when the export ended; another one than at the
        /// beginning says that the VO changed meanwhile.
        number: u64,
    },
}

/// A person who becomes a member as soon as they apply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectedPerson {
    /// The person.
    pub person: PersonId,
    /// Groups besides `members`; they must exist.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupName>,
    /// Roles; `admin` and `owner` can be given by owners only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<RoleName>,
    /// When the membership ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Millis>,
}

/// Notes whom the VO expects. Nobody becomes a member by it: when such a person applies, the caller
/// counts as having approved the application, if the caller may do that still. The same again
/// changes nothing. For the VO's administrators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectPeople {
    /// The VO.
    pub vo: VoId,
    /// At most [`EXPECT_MAX`].
    pub people: Vec<ExpectedPerson>,
    /// Only say what would come of it.
    #[serde(default)]
    pub dry_run: bool,
}
request!(ExpectPeople => Vec<Expecting>, Post "/v1/vos/{vo}/expected");

/// What came of one person in [`ExpectPeople`], in its order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "outcome", rename_all = "snake_case", deny_unknown_fields)]
pub enum Expecting {
    /// Expected from now on.
    New,
    /// Was expected with other groups, roles or end.
    Changed,
    /// Was expected so already.
    Same,
    /// Is a member already, and stays as they are.
    Member,
    /// Not taken.
    Refused {
        /// Why.
        reason: String,
    },
}

/// The people whom a VO expects, by person. For the VO's administrators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListExpected {
    /// The VO.
    pub vo: VoId,
    /// Only persons after this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<PersonId>,
    /// At most so many, not over [`super::PAGE_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}
request!(ListExpected => ExpectedPage, Get "/v1/vos/{vo}/expected");

/// A part of the list of the people who are expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectedPage {
    /// By person.
    pub people: Vec<ExpectedPerson>,
    /// Give this as `after` for the next part; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<PersonId>,
}

/// Expects people no longer; those who are not expected are passed over. For the VO's
/// administrators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForgetExpected {
    /// The VO.
    pub vo: VoId,
    /// At most [`EXPECT_MAX`].
    pub people: Vec<PersonId>,
}
request!(ForgetExpected => Done, Post "/v1/vos/{vo}/expected/forget");
