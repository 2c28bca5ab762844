//! Requests about a site's audit: search it, verify it, and let other sites witness how far it is.

use super::{Line, Outcome};
use crate::{Done, request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xos_base::{Millis, NodeId, PersonId, SiteId, VoId};

/// Most lines in one answer to [`SearchAudit`].
pub const AUDIT_PAGE_MAX: u32 = 500;
/// How many lines are given when no limit is named.
pub const AUDIT_PAGE: u32 = 100;
/// Most heads that one site tells in an [`AuditHeads`], beside the newest.
pub const HEADS_MAX: usize = 1000;
/// Longest statement of a head, in bytes.
pub const HEAD_STATEMENT_MAX: usize = 2048;

/// Searches the audit of the site asked, newest first. All conditions must hold.
///
/// A site administrator sees all of it; an administrator or owner of a VO that VO's lines, when
/// they name it; anybody else the lines that concern them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SearchAudit {
    /// Only in this VO.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vo: Option<VoId>,
    /// Only what concerns this person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<PersonId>,
    /// Only what was done by somebody whose name holds this text, in whatever case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// Only this operation, as `sign_in`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// Only on this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// Only what went like this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Only where one of the texts holds this one, in whatever case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Only what the core noted at this time or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Millis>,
    /// Only what the core noted at this time or before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Millis>,
    /// Only lines before this number: the [`AuditPage::next`] of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// At most so many lines, not over [`AUDIT_PAGE_MAX`]; without it [`AUDIT_PAGE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}
request!(SearchAudit => AuditPage, Get "/v1/audit");

/// A part of what was searched for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditPage {
    /// The newest first.
    pub lines: Vec<Line>,
    /// Give this as [`SearchAudit::before`] for the next part, also when this one is empty: one
    /// request looks at a bounded number of lines. Absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// How many lines could not be read: [`VerifyAudit`] says which.
    #[serde(default)]
    pub unreadable: u64,
    /// Only what concerns the caller was looked for, since they may not see more.
    #[serde(default)]
    pub own: bool,
}

/// Verifies the audit of the site asked, with what other sites witnessed of it (site
/// administrators). One request verifies a bounded number of files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifyAudit {
    /// Where to go on: the [`AuditCheck::next`] of the part before; absent: from the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<AuditPlace>,
}
request!(VerifyAudit => AuditCheck, Post "/v1/audit/verify");

/// A place between two files of an audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditPlace {
    /// The file that comes next.
    pub file: String,
    /// The number of the line that comes next.
    pub number: u64,
    /// SHA-256 of the line before it, hex.
    pub prev: String,
}

/// What verifying found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditCheck {
    /// Whose audit it is.
    pub site: SiteId,
    /// How many lines were looked at.
    pub lines: u64,
    /// The number of the last line; 0: none.
    pub last: u64,
    /// What is wrong, the first first; of many only the first some.
    pub faults: Vec<AuditFault>,
    /// Up to which line the files were moved to an archive: what is here follows on that; 0: all is
    /// here.
    #[serde(default)]
    pub archived: u64,
    /// How many heads that other sites hold were compared.
    pub heads: u64,
    /// The number of the newest of them: up to there other sites witness the audit.
    pub witnessed: u64,
    /// How many heads came that are not signed by this site, and were not compared.
    #[serde(default)]
    pub unverified: u64,
    /// Sites that did not say which heads they hold.
    #[serde(default)]
    pub silent: Vec<SiteId>,
    /// Set when there is more to verify.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<AuditPlace>,
}

/// Something that is wrong with an audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditFault {
    /// The file in which it shows.
    pub file: String,
    /// The number of the first line that is concerned.
    pub number: u64,
    /// What.
    pub kind: FaultKind,
    /// In words.
    pub detail: String,
}

/// What can be wrong with an audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// Lines are not where they belong, or not there at all.
    Missing,
    /// A line comes after one that should follow it, or twice.
    Order,
    /// A line is not the one that the next line follows.
    Altered,
    /// It is no line of an audit.
    Unreadable,
    /// It is a line of another site.
    OtherSite,
    /// A file does not begin with the line that its name says, or ends in half a line.
    File,
    /// A line is not the one that another site witnessed.
    Rewritten,
    /// The audit ends before a line that another site witnessed.
    Cut,
}

/// How far a site's audit is: what it signs, so that others can witness it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditHead {
    /// The site.
    pub site: SiteId,
    /// The number of its last line.
    pub number: u64,
    /// SHA-256 of that line, hex.
    pub hash: String,
    /// When it was signed.
    pub time: Millis,
}

/// Brings a head to another site, from the core of the site whose audit it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecordHead {
    /// A signed [`AuditHead`], at most [`HEAD_STATEMENT_MAX`] bytes.
    pub statement: String,
}
request!(RecordHead => Done, Post "/v1/audit/heads");

/// Asks for heads, a part at a time. A site tells another one which heads of its audit it holds; a
/// site's own administrators get from their core what all sites hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeadsOf {
    /// Whose audit.
    pub site: SiteId,
    /// Only heads with a higher number: the [`AuditHeads::next`] of the part before; absent: the
    /// newest that each holder has, and then the first ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
}
request!(HeadsOf => AuditHeads, Get "/v1/audit/heads/{site}");

/// Heads of a site's audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditHeads {
    /// Whose audit.
    pub site: SiteId,
    /// The newest of each holder, where the beginning was asked for; then the others by their
    /// numbers, each once, whoever holds it.
    pub held: Vec<HeldHead>,
    /// Sites that were asked and did not answer.
    #[serde(default)]
    pub silent: Vec<SiteId>,
    /// How many heads came that are not signed by the site whose audit it is.
    #[serde(default)]
    pub unverified: u64,
    /// Give this as [`HeadsOf::after`] for the next part; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// A head that a site holds of another one's audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeldHead {
    /// Who holds it.
    pub by: SiteId,
    /// When it came there.
    pub heard: Millis,
    /// The signed [`AuditHead`].
    pub statement: String,
}
