//! What people agree to and are asked when they come into a VO.

use super::InvitationInfo;
use crate::{Done, request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xos_base::{Millis, PersonId, VoId};

/// Longest terms of use, in bytes: with its signature an entry of the log holds them.
pub const TERMS_BYTES_MAX: usize = 32 * 1024;
/// Most versions of a VO's terms of use.
pub const TERMS_VERSIONS_MAX: usize = 1000;
/// The longest time for which a consent holds, in days.
pub const CONSENT_DAYS_MAX: u32 = 3660;
/// How long after a consent is due its member may still act when that was never set, in days.
pub const GRACE_DAYS_DEFAULT: u32 = 14;
/// The longest such time, in days.
pub const GRACE_DAYS_MAX: u32 = 366;
/// Most questions to applicants.
pub const QUESTIONS_MAX: usize = 20;
/// Longest name of a question, in bytes: a-z, 0-9, '-' and '_', beginning with a letter.
pub const QUESTION_ID_MAX: usize = 32;
/// Longest text of a question, in characters.
pub const QUESTION_TEXT_MAX: usize = 500;
/// Most choices of a question.
pub const CHOICES_MAX: usize = 20;
/// Longest choice, in characters.
pub const CHOICE_MAX: usize = 100;
/// Longest answer of one line, in characters.
pub const ANSWER_LINE_MAX: usize = 200;
/// Longest answer of several lines, in characters.
pub const ANSWER_TEXT_MAX: usize = 2000;

/// A VO's terms of use in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TermsOfUse {
    /// From 1; rises with every change.
    pub version: u32,
    /// The terms; may hold line breaks.
    pub text: String,
    /// Since when.
    pub since: Millis,
    /// For how many days a consent holds; absent: until the next version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consent_days: Option<u32>,
    /// For how many days after a consent is due its member may still act.
    pub grace_days: u32,
}

/// Sets the terms of use, as a new version, at most ten times a day. For the VO's administrators;
/// with a grace of no day, or less than before, for its owners.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetTermsOfUse {
    /// The VO.
    pub vo: VoId,
    /// The terms, at most [`TERMS_BYTES_MAX`] bytes; may hold line breaks.
    pub text: String,
    /// For how many days a consent holds, up to [`CONSENT_DAYS_MAX`]; absent: until the next
    /// version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consent_days: Option<u32>,
    /// For how many days after a consent is due its member may still act, up to
    /// [`GRACE_DAYS_MAX`]; absent: [`GRACE_DAYS_DEFAULT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_days: Option<u32>,
}
request!(SetTermsOfUse => TermsOfUse, Put "/v1/vos/{vo}/terms");

/// Agrees to the terms of use. For members, signed in without a VO: a program that holds a
/// credential of theirs agrees to nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Agree {
    /// The VO.
    pub vo: VoId,
    /// The version that was read; it must be the one in force.
    pub version: u32,
}
request!(Agree => Done, Post "/v1/vos/{vo}/terms/agree");

/// What somebody agreed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Agreed {
    /// Which version.
    pub version: u32,
    /// When.
    pub at: Millis,
}

/// How somebody stands to the terms of use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "MemberConsent")]
pub struct Consent {
    /// What they agreed to last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreed: Option<Agreed>,
    /// When a member must agree (again); absent: not until there is a new version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Millis>,
    /// When a member may act no more until they agree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lapses: Option<Millis>,
}

/// How a question is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QuestionKind {
    /// By one line, at most [`ANSWER_LINE_MAX`] characters.
    Line,
    /// By a text, at most [`ANSWER_TEXT_MAX`] characters.
    Text,
    /// By one of its choices.
    Choice,
    /// By `yes` or `no`; a required one must be `yes`.
    Check,
}

/// A question to applicants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Its name in answers: 1 to [`QUESTION_ID_MAX`] of a-z, 0-9, '-' and '_'.
    pub id: String,
    /// What is asked, one line, at most [`QUESTION_TEXT_MAX`] characters.
    pub text: String,
    /// How it is answered.
    pub kind: QuestionKind,
    /// Whether it must be.
    #[serde(default)]
    pub required: bool,
    /// Of a choice: 1 to [`CHOICES_MAX`] lines, each of at most [`CHOICE_MAX`] characters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
}

/// Sets what applicants are asked; none: nothing. For the VO's administrators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetQuestions {
    /// The VO.
    pub vo: VoId,
    /// At most [`QUESTIONS_MAX`], in the order in which they are asked.
    pub questions: Vec<Question>,
}
request!(SetQuestions => Done, Put "/v1/vos/{vo}/questions");

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "EnrolmentAnswer")]
pub struct Answer {
    /// To which question.
    pub question: String,
    /// What is said.
    pub value: String,
}

/// A question as it was asked, with its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Answered {
    /// Which question.
    pub question: String,
    /// What was asked.
    pub text: String,
    /// What was said.
    pub value: String,
}

/// What somebody who comes into a VO agrees to and answers, and how the caller stands to that. For
/// everybody who signed in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetEnrolmentForm {
    /// The VO.
    pub vo: VoId,
}
request!(GetEnrolmentForm => EnrolmentForm, Get "/v1/vos/{vo}/enrolment");

/// The answer to [`GetEnrolmentForm`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrolmentForm {
    /// The terms of use, when there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<TermsOfUse>,
    /// What applicants are asked.
    pub questions: Vec<Question>,
    /// The caller's consent, when the caller is a member and there are terms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consent: Option<Consent>,
}

/// What an applicant or member agreed to and answered. For the VO's administrators and the person,
/// at the VO's home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetEnrolment {
    /// The VO.
    pub vo: VoId,
    /// The applicant or member.
    pub person: PersonId,
}
request!(GetEnrolment => Enrolment, Get "/v1/vos/{vo}/enrolments/{person}");

/// The answer to [`GetEnrolment`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    /// Whose it is.
    pub person: PersonId,
    /// How they stand to the terms of use.
    pub consent: Consent,
    /// What they answered.
    pub answers: Vec<Answered>,
    /// By which invitation they came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invitation: Option<InvitationInfo>,
}
