//! What people agree to, are asked and answer when they come into a VO.

use super::{Consented, Invitation, TermsInForce, Violation, Vo, terms};
use crate::text::{self, TextFault};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use xos_api::vom::{
    ANSWER_LINE_MAX, ANSWER_TEXT_MAX, Answer, Answered, CHOICE_MAX, CHOICES_MAX, CONSENT_DAYS_MAX,
    Change, EnrolmentForm, GRACE_DAYS_MAX, QUESTION_ID_MAX, QUESTION_TEXT_MAX, QUESTIONS_MAX,
    Question, QuestionKind, REMINDER_DAYS_DEFAULT, REMINDER_DAYS_MAX, REMINDERS_MAX,
    TERMS_BYTES_MAX,
};
use xos_base::{Kind, PersonId};

/// How one comes into a VO, and what those who came said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Enrolling {
    /// The terms of use, when there are any.
    pub terms: Option<TermsInForce>,
    /// What applicants are asked.
    pub questions: Questions,
    /// Invitations, by id.
    pub invitations: BTreeMap<String, Invitation>,
    /// What applicants and members said.
    pub said: BTreeMap<PersonId, Said>,
    /// How many days before an end people are reminded, the most first; empty: it was never set.
    pub reminder_days: Vec<u32>,
}

/// What applicants are asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Questions {
    /// The questions, in order.
    pub list: Vec<Question>,
    /// The number of the entry that set them.
    pub changed: u64,
}

/// What an applicant or member said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Said {
    /// Their last consent to the terms of use.
    pub agreed: Option<Consented>,
    /// The digest by which their answers are kept at the home.
    pub answers: Option<String>,
    /// The invitation by which they came.
    pub invitation: Option<String>,
}

/// Of whom or what something is kept at the home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whose {
    /// What an applicant or member answered.
    Person(PersonId),
    /// For whom the invitation of this id is meant.
    Invitation(String),
}

/// What is wrong with what somebody sets, says or uses to come in. The requester acts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // The messages say it.
pub enum EnrolmentFault {
    #[error("terms of use have at most {TERMS_BYTES_MAX} bytes")]
    TermsLength,
    #[error(
        "a consent holds for 1 to {CONSENT_DAYS_MAX} days, and the grace is of at most \
         {GRACE_DAYS_MAX} days"
    )]
    Days,
    #[error("the VO has no terms of use")]
    NoTerms,
    #[error("version {0} of the terms of use is in force, and was not agreed to")]
    NotAgreed(u32),
    #[error("the question {0:?} is not well formed: {1}")]
    Question(String, &'static str),
    #[error("the question {0:?} has to be answered")]
    Unanswered(String),
    #[error("the answer to {0:?} {1}")]
    Answer(String, TextFault),
    #[error("{1:?} is no answer to the question {0:?}")]
    NoAnswer(String, String),
    #[error("the VO does not ask {0:?}, or it is answered twice")]
    NotAsked(String),
    #[error("the VO's questions have to be answered")]
    NoAnswers,
    #[error(
        "reminders are at most {REMINDERS_MAX} different numbers of days from 1 to \
         {REMINDER_DAYS_MAX}"
    )]
    Reminders,
    #[error("an invitation is for 1 to {max} persons", max = xos_api::vom::INVITATION_USES_MAX)]
    Uses,
    #[error("a group or role is named twice")]
    Twice,
    #[error("there is such an invitation already")]
    Known,
    #[error("there is no such invitation")]
    NoInvitation,
    #[error("the invitation is for {0}")]
    NotInvited(PersonId),
    #[error("as many persons came in by the invitation as it was made for")]
    UsedUp,
    #[error("the invitation was withdrawn")]
    Withdrawn,
    #[error("the invitation has expired")]
    Expired,
    #[error("{0}, who made the invitation, may not invite any more")]
    Uninviting(PersonId),
}

impl EnrolmentFault {
    pub(super) fn kind(&self) -> Kind {
        match self {
            EnrolmentFault::NoTerms | EnrolmentFault::NoInvitation => Kind::NotFound,
            EnrolmentFault::NotAgreed(_) | EnrolmentFault::Known => Kind::Conflict,
            EnrolmentFault::NotInvited(_)
            | EnrolmentFault::UsedUp
            | EnrolmentFault::Withdrawn
            | EnrolmentFault::Expired
            | EnrolmentFault::Uninviting(_) => Kind::Denied,
            EnrolmentFault::TermsLength => Kind::TooLarge,
            _ => Kind::Invalid,
        }
    }

    pub(super) fn hint(&self) -> Option<&'static str> {
        match self {
            EnrolmentFault::NotAgreed(_) => Some("read the terms of use and agree to that version"),
            EnrolmentFault::Unanswered(_)
            | EnrolmentFault::NoAnswers
            | EnrolmentFault::NotAsked(_) => Some("look at the VO's questions again"),
            EnrolmentFault::UsedUp
            | EnrolmentFault::Withdrawn
            | EnrolmentFault::Expired
            | EnrolmentFault::Uninviting(_)
            | EnrolmentFault::NotInvited(_) => {
                Some("ask who invited you for another one, or apply without")
            }
            _ => None,
        }
    }
}

impl From<EnrolmentFault> for Violation {
    fn from(fault: EnrolmentFault) -> Violation {
        Violation::Enrolment(fault)
    }
}

fn ensure(holds: bool, otherwise: EnrolmentFault) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

/// Whether a text is a digest as the log holds it.
pub(super) fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn check_questions(questions: &[Question]) -> Result<(), Violation> {
    if questions.len() > QUESTIONS_MAX {
        return Err(Violation::Limit(QUESTIONS_MAX as u64, "questions"));
    }
    let mut seen = BTreeSet::new();
    for q in questions {
        let shown: String = q.id.chars().filter(|c| !c.is_control()).take(40).collect();
        let bad = |why| EnrolmentFault::Question(shown.clone(), why);
        let named = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
        let id = q.id.as_bytes();
        let good = id.len() <= QUESTION_ID_MAX
            && id.first().is_some_and(u8::is_ascii_lowercase)
            && id.iter().all(|b| named(*b));
        ensure(good, bad("its name is not 1 to 32 of a-z, 0-9, '-' and '_', beginning with a-z"))?;
        ensure(seen.insert(&q.id), bad("another one has its name"))?;
        ensure(
            text::line(&q.text, QUESTION_TEXT_MAX).is_ok(),
            bad("its text is empty, longer than 500 characters or not one line"),
        )?;
        let of_choice = q.kind == QuestionKind::Choice;
        let count = q.choices.len();
        ensure(of_choice || count == 0, bad("only a choice has choices"))?;
        ensure(
            !of_choice || (1..=CHOICES_MAX).contains(&count),
            bad("it has not 1 to 20 choices"),
        )?;
        let all = q.choices.iter().all(|c| text::line(c, CHOICE_MAX).is_ok());
        ensure(all, bad("a choice is empty, longer than 100 characters or not one line"))?;
    }
    Ok(())
}

/// The answers to `questions`, each with what was asked; empty ones are left out.
///
/// # Errors
/// The first [`EnrolmentFault`] found.
pub fn answered(
    questions: &[Question],
    answers: Vec<Answer>,
) -> Result<Vec<Answered>, EnrolmentFault> {
    let mut given: BTreeMap<String, String> = BTreeMap::new();
    for a in answers {
        let asked = questions.iter().any(|q| q.id == a.question);
        if !asked || given.contains_key(&a.question) {
            let shown = a.question.chars().filter(|c| !c.is_control()).take(40).collect();
            return Err(EnrolmentFault::NotAsked(shown));
        }
        given.insert(a.question, a.value);
    }
    let mut all = Vec::new();
    for q in questions {
        let value = given.remove(&q.id).filter(|v| !v.trim().is_empty());
        let Some(value) = value else {
            if q.required {
                return Err(EnrolmentFault::Unanswered(q.id.clone()));
            }
            continue;
        };
        check_answer(q, &value)?;
        all.push(Answered { question: q.id.clone(), text: q.text.clone(), value });
    }
    Ok(all)
}

fn check_answer(q: &Question, value: &str) -> Result<(), EnrolmentFault> {
    let bad = |e| EnrolmentFault::Answer(q.id.clone(), e);
    match q.kind {
        QuestionKind::Line => return text::line(value, ANSWER_LINE_MAX).map_err(bad),
        QuestionKind::Text => return text::lines(value, ANSWER_TEXT_MAX).map_err(bad),
        QuestionKind::Choice if q.choices.iter().any(|c| c == value) => return Ok(()),
        QuestionKind::Check if value == "yes" => return Ok(()),
        QuestionKind::Check if value == "no" && q.required => {
            return Err(EnrolmentFault::Unanswered(q.id.clone()));
        }
        QuestionKind::Check if value == "no" => return Ok(()),
        QuestionKind::Choice | QuestionKind::Check => {}
    }
    let shown = value.chars().filter(|c| !c.is_control()).take(CHOICE_MAX).collect();
    Err(EnrolmentFault::NoAnswer(q.id.clone(), shown))
}

impl Enrolling {
    /// Whether nothing of it was ever set.
    pub fn is_unused(&self) -> bool {
        *self == Enrolling::default()
    }

    /// How many days before an end people are reminded, the most first.
    pub fn reminders(&self) -> &[u32] {
        if self.reminder_days.is_empty() { &REMINDER_DAYS_DEFAULT } else { &self.reminder_days }
    }
}

impl Vo {
    /// What somebody who comes in agrees to and answers.
    pub fn form(&self) -> EnrolmentForm {
        EnrolmentForm {
            terms: self.enrolling.terms.as_ref().map(TermsInForce::shown),
            questions: self.enrolling.questions.list.clone(),
            consent: None,
        }
    }

    /// The digest by which the answers of an applicant or member are kept.
    pub fn answers_of(&self, person: &PersonId) -> Option<String> {
        self.enrolling.said.get(person).and_then(|s| s.answers.clone())
    }

    /// Whether the log names what is kept at the home by that digest.
    pub fn names_private(&self, whose: &Whose, digest: &str) -> bool {
        let named = match whose {
            Whose::Person(p) => self.enrolling.said.get(p).and_then(|s| s.answers.as_deref()),
            Whose::Invitation(id) => {
                self.enrolling.invitations.get(id).and_then(|i| i.hint.as_deref())
            }
        };
        named == Some(digest)
    }

    /// Whether somebody may come in who agrees to `agreed` and whose answers have this digest.
    pub(super) fn may_enrol(
        &self,
        agreed: Option<u32>,
        answers: Option<&str>,
    ) -> Result<(), Violation> {
        match self.terms_version() {
            0 => ensure(agreed.is_none(), EnrolmentFault::NoTerms)?,
            version => ensure(agreed == Some(version), EnrolmentFault::NotAgreed(version))?,
        }
        let required = self.enrolling.questions.list.iter().any(|q| q.required);
        ensure(answers.is_some() || !required, EnrolmentFault::NoAnswers)?;
        ensure(answers.is_none_or(is_digest), EnrolmentFault::NoAnswers)
    }

    /// What somebody said who comes in.
    pub(super) fn enrol(
        &mut self,
        person: &PersonId,
        agreed: Option<u32>,
        answers: Option<&str>,
        invitation: Option<&str>,
    ) {
        let said = Said {
            agreed: agreed.and_then(|version| self.consented(version)),
            answers: answers.map(str::to_owned),
            invitation: invitation.map(str::to_owned),
        };
        if let Some(id) = invitation {
            self.use_invitation(id);
        }
        if said == Said::default() {
            self.enrolling.said.remove(person);
        } else {
            self.enrolling.said.insert(person.clone(), said);
        }
    }

    /// Whether a change of how one comes in may follow.
    pub(super) fn check_enrolling(&self, change: &Change) -> Result<(), Violation> {
        match change {
            Change::TermsOfUseSet { version, text, consent_days, grace_days } => {
                let former = self.enrolling.terms.as_ref();
                terms::check(former, *version, text, *consent_days, *grace_days)
            }
            Change::Agreed { person, version } => {
                self.member(person)?;
                match self.terms_version() {
                    0 => Err(EnrolmentFault::NoTerms.into()),
                    now => ensure(*version == now, EnrolmentFault::NotAgreed(now)),
                }
            }
            Change::QuestionsSet { questions } => check_questions(questions),
            Change::RemindersSet { days } => {
                let different: BTreeSet<&u32> = days.iter().collect();
                let good = (1..=REMINDERS_MAX).contains(&days.len())
                    && different.len() == days.len()
                    && days.iter().all(|d| (1..=REMINDER_DAYS_MAX).contains(d));
                ensure(good, EnrolmentFault::Reminders)
            }
            Change::InvitationMade { .. }
            | Change::InvitationWithdrawn { .. }
            | Change::Joined { .. } => self.check_invitation(change),
            _ => Err(Violation::NotFounded),
        }
    }

    /// Makes a change of how one comes in.
    pub(super) fn apply_enrolling(&mut self, change: &Change) {
        match change {
            Change::TermsOfUseSet { text, consent_days, grace_days, .. } => {
                self.set_terms(text, *consent_days, *grace_days);
            }
            Change::Agreed { person, version } => {
                let agreed = self.consented(*version);
                if self.members.contains_key(person) {
                    self.enrolling.said.entry(person.clone()).or_default().agreed = agreed;
                }
                self.change(person, false, |_| {});
            }
            Change::QuestionsSet { questions } => {
                let changed = self.number;
                self.enrolling.questions = Questions { list: questions.clone(), changed };
            }
            Change::RemindersSet { days } => {
                let mut days = days.clone();
                days.sort_unstable_by(|a, b| b.cmp(a));
                self.enrolling.reminder_days = days;
            }
            Change::InvitationMade { .. }
            | Change::InvitationWithdrawn { .. }
            | Change::Joined { .. } => self.apply_invitation(change),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
