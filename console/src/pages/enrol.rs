//! What somebody who comes into a VO reads, agrees to and answers; and the terms of use, to which
//! a member agrees again.

use super::vo::{self, Head};
use crate::fields::Fields;
use crate::view::{Frame, When, page};
use crate::visit::{Shown, Visit, done};
use askama::Template;
use xos_api::vom::{
    ANSWER_LINE_MAX, ANSWER_TEXT_MAX, Agree, Answer, EnrolmentForm, GetEnrolmentForm, MESSAGE_MAX,
    Question, QuestionKind, TermsOfUse,
};
use xos_base::{Error, Kind};

/// What the names of fields with answers begin with.
const ANSWER: &str = "q-";

/// The fields of a form by which somebody comes in (`enrol.html`).
pub(crate) struct Entry {
    pub(crate) terms: Option<Terms>,
    pub(crate) questions: Vec<Asked>,
    pub(crate) message: String,
    pub(crate) message_max: usize,
}

/// Terms of use as they are shown.
pub(crate) struct Terms {
    pub(crate) version: u32,
    pub(crate) text: String,
    pub(crate) since: When,
    /// For how many days a consent holds.
    pub(crate) consent_days: Option<u32>,
    pub(crate) grace_days: u32,
}

impl From<&TermsOfUse> for Terms {
    fn from(t: &TermsOfUse) -> Terms {
        Terms {
            version: t.version,
            text: t.text.clone(),
            since: t.since.into(),
            consent_days: t.consent_days,
            grace_days: t.grace_days,
        }
    }
}

/// A question with its field.
pub(crate) struct Asked {
    pub(crate) id: String,
    pub(crate) text: String,
    pub(crate) kind: &'static str,
    pub(crate) required: bool,
    /// What was typed.
    pub(crate) value: String,
    pub(crate) checked: bool,
    pub(crate) max: usize,
    pub(crate) choices: Vec<Choice>,
}

/// A choice of a question.
pub(crate) struct Choice {
    pub(crate) text: String,
    pub(crate) chosen: bool,
}

impl Entry {
    /// The fields, with what was typed into them before.
    pub(crate) fn new(form: &EnrolmentForm, typed: &Fields) -> Entry {
        Entry {
            terms: form.terms.as_ref().map(Terms::from),
            questions: form.questions.iter().map(|q| asked(q, typed)).collect(),
            message: typed.text("message").to_owned(),
            message_max: MESSAGE_MAX,
        }
    }
}

fn asked(q: &Question, typed: &Fields) -> Asked {
    let value = typed.raw(&format!("{ANSWER}{}", q.id)).to_owned();
    let choice = |c: &String| Choice { text: c.clone(), chosen: *c == value };
    Asked {
        id: q.id.clone(),
        text: q.text.clone(),
        kind: kind_text(q.kind),
        required: q.required,
        checked: value == "yes",
        max: if q.kind == QuestionKind::Text { ANSWER_TEXT_MAX } else { ANSWER_LINE_MAX },
        choices: q.choices.iter().map(choice).collect(),
        value,
    }
}

/// How a question is answered, as forms name it.
pub(crate) fn kind_text(kind: QuestionKind) -> &'static str {
    match kind {
        QuestionKind::Line => "line",
        QuestionKind::Text => "text",
        QuestionKind::Choice => "choice",
        QuestionKind::Check => "check",
    }
}

/// The version of the terms that a form agrees to, and its answers.
pub(crate) fn said(form: &Fields) -> Result<(Option<u32>, Vec<Answer>), Error> {
    let version = form.number("terms", "the version of the terms")?;
    let agreed = version.filter(|_| form.text("agree") == "yes");
    let given = form.starting(ANSWER).filter(|(_, value)| !value.trim().is_empty());
    let answer = |(id, value): (&str, &str)| Answer { question: id.into(), value: value.into() };
    Ok((agreed, given.map(answer).collect()))
}

/// Whether somebody who filled in a form can go on by changing it: it is shown again, as typed.
pub(crate) fn amendable(e: &Error) -> bool {
    matches!(e.kind, Kind::Invalid | Kind::Conflict | Kind::TooLarge)
}

#[derive(Template)]
#[template(path = "terms.html")]
struct View {
    frame: Frame,
    head: Head,
    terms: Option<Terms>,
    /// The visitor is a member, who agreed to this version then.
    agreed: Option<(u32, When)>,
    /// The visitor can agree now.
    agrees: bool,
    due: Option<When>,
    lapses: Option<When>,
}

/// The terms of use of a VO, with how the visitor stands to them.
pub(crate) async fn show(visit: Visit) -> Shown {
    let info = vo::info_at_home(&visit).await?;
    let vo = visit.vo()?;
    let form = visit.ask_home(&vo, GetEnrolmentForm { vo: vo.clone() }).await?;
    let frame = Frame::of(&visit, &format!("Terms of use of {vo}"), "vos").await;
    let agrees = form.consent.is_some();
    let consent = form.consent.unwrap_or_default();
    page(&View {
        frame,
        head: Head::new(&info, "overview"),
        terms: form.terms.as_ref().map(Terms::from),
        agreed: consent.agreed.map(|a| (a.version, a.at.into())),
        agrees,
        due: consent.due.map(When::from),
        lapses: consent.lapses.map(When::from),
    })
}

/// Agrees to the terms that were shown.
pub(crate) async fn agree(visit: Visit) -> Shown {
    let vo = visit.vo()?;
    let (agreed, _) = said(&visit.form)?;
    let version = agreed.ok_or_else(|| {
        Error::invalid("nothing was agreed to")
            .hint("read the terms again, and tick that you agree if you do")
    })?;
    visit.ask_home(&vo, Agree { vo: vo.clone(), version }).await?;
    done(&visit, vo::path(&vo), format!("You agreed to version {version} of the terms of {vo}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, somebody would agree without having ticked it, or an answer would be lost.
    #[test]
    fn only_a_tick_agrees() {
        let read = |text: &str| said(&Fields::parse(text.as_bytes()).unwrap()).unwrap();
        let (agreed, answers) = read("terms=3&q-why=a+b&q-none=&message=x");
        assert_eq!(agreed, None);
        assert_eq!(answers, [Answer { question: "why".into(), value: "a b".into() }]);
        assert_eq!(read("terms=3&agree=yes").0, Some(3));
        assert_eq!(read("agree=yes").0, None);
    }
}
