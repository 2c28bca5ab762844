//! The questions to applicants, a row each; rows come and go by the form's buttons, without a
//! script.

use super::enrol::{amendable, kind_text};
use super::sign_in::kindly;
use super::vo::{self, Head};
use crate::fields::Fields;
use crate::view::{Frame, page_with};
use crate::visit::{Shown, Stop, Visit, done};
use askama::Template;
use xos_api::vom::{
    CHOICE_MAX, CHOICES_MAX, EnrolmentForm, GetEnrolmentForm, QUESTION_ID_MAX, QUESTION_TEXT_MAX,
    QUESTIONS_MAX, Question, QuestionKind, SetQuestions,
};
use xos_base::{Error, VoId};
use xos_net::identity::{hex, sha256};

#[derive(Template)]
#[template(path = "questions.html")]
struct View {
    frame: Frame,
    head: Head,
    rows: Vec<Draft>,
    /// Names the questions that stood there when the page was opened.
    seen: String,
    /// What is asked now, when somebody changed it since.
    theirs: Option<Vec<String>>,
    trouble: Option<String>,
    limits: Limits,
}

struct Limits {
    questions: usize,
    id: usize,
    text: usize,
    choices: usize,
    choice: usize,
}

const LIMITS: Limits = Limits {
    questions: QUESTIONS_MAX,
    id: QUESTION_ID_MAX,
    text: QUESTION_TEXT_MAX,
    choices: CHOICES_MAX,
    choice: CHOICE_MAX,
};

/// A question as it stands in the form.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Draft {
    id: String,
    text: String,
    kind: &'static str,
    required: bool,
    /// A line each.
    choices: String,
}

impl Draft {
    fn empty() -> Draft {
        Draft {
            id: String::new(),
            text: String::new(),
            kind: kind_text(QuestionKind::Line),
            required: false,
            choices: String::new(),
        }
    }

    fn is_empty(&self) -> bool {
        [&self.id, &self.text, &self.choices].iter().all(|text| text.is_empty())
    }

    /// The question; who named none gets the name of its row.
    fn question(&self, row: usize) -> Question {
        let kind = kind(self.kind);
        let choices = self.choices.lines().map(str::trim).filter(|line| !line.is_empty());
        Question {
            id: match self.id.as_str() {
                "" => format!("question-{}", row + 1),
                id => id.to_owned(),
            },
            text: self.text.clone(),
            kind,
            required: self.required,
            choices: match kind {
                QuestionKind::Choice => choices.map(str::to_owned).collect(),
                QuestionKind::Line | QuestionKind::Text | QuestionKind::Check => Vec::new(),
            },
        }
    }
}

impl From<&Question> for Draft {
    fn from(q: &Question) -> Draft {
        Draft {
            id: q.id.clone(),
            text: q.text.clone(),
            kind: kind_text(q.kind),
            required: q.required,
            choices: q.choices.join("\n"),
        }
    }
}

fn kind(text: &str) -> QuestionKind {
    let all = [QuestionKind::Text, QuestionKind::Choice, QuestionKind::Check];
    all.into_iter().find(|kind| kind_text(*kind) == text).unwrap_or(QuestionKind::Line)
}

/// The rows of a form, as its button leaves them: `add`, `remove-<row>` or `up-<row>`.
fn rows(form: &Fields) -> Result<Vec<Draft>, Error> {
    let count = form.number("rows", "the rows")?.unwrap_or(0).min(QUESTIONS_MAX);
    let row = |i: usize| {
        let text = |name: &str| form.text(&format!("{name}-{i}")).to_owned();
        Draft {
            id: text("id"),
            text: text("text"),
            kind: kind_text(kind(&text("kind"))),
            required: text("required") == "yes",
            choices: text("choices"),
        }
    };
    let mut rows: Vec<Draft> = (0..count).map(row).collect();
    let step = form.text("do");
    let at = |start: &str| {
        let row = step.strip_prefix(start).and_then(|row| row.parse::<usize>().ok());
        row.filter(|row| *row < count)
    };
    if step == "add" && rows.len() < QUESTIONS_MAX {
        rows.push(Draft::empty());
    } else if let Some(row) = at("remove-") {
        rows.remove(row);
    } else if let Some(row) = at("up-").filter(|row| *row > 0) {
        rows.swap(row, row - 1);
    }
    Ok(rows)
}

/// Names a list of questions: another list has another name.
fn name(questions: &[Question]) -> Result<String, Error> {
    let text = serde_json::to_string(questions)
        .map_err(|e| Error::internal(format!("questions cannot be encoded: {e}")))?;
    Ok(hex(&sha256(text.as_bytes())))
}

async fn asked(visit: &Visit, vo: &VoId) -> Result<EnrolmentForm, Stop> {
    visit.ask_home(vo, GetEnrolmentForm { vo: vo.clone() }).await
}

/// The page with the questions that are asked now.
pub(crate) async fn show(visit: Visit) -> Shown {
    let vo = visit.vo()?;
    let now = asked(&visit, &vo).await?.questions;
    let mut rows: Vec<Draft> = now.iter().map(Draft::from).collect();
    if rows.is_empty() {
        rows.push(Draft::empty());
    }
    edit(&visit, rows, name(&now)?, None, None).await
}

async fn edit(
    visit: &Visit,
    rows: Vec<Draft>,
    seen: String,
    theirs: Option<Vec<String>>,
    trouble: Option<Error>,
) -> Shown {
    let info = vo::info_at_home(visit).await?;
    let frame = Frame::of(visit, "Questions to applicants", "vos").await;
    let status = match &trouble {
        Some(e) => e.kind.http_status(),
        None if theirs.is_some() => 409,
        None => 200,
    };
    let head = Head::new(&info, "settings");
    let trouble = trouble.as_ref().map(kindly);
    page_with(status, &View { frame, head, rows, seen, theirs, trouble, limits: LIMITS })
}

/// Changes the rows, or sets the questions. Who began before somebody else changed them is told so,
/// and loses nothing of what they wrote.
pub(crate) async fn set(visit: Visit) -> Shown {
    let vo = visit.vo()?;
    let (rows, seen) = (rows(&visit.form)?, visit.form.text("seen").to_owned());
    if visit.form.text("do") != "save" {
        return edit(&visit, rows, seen, None, None).await;
    }
    let now = asked(&visit, &vo).await?.questions;
    let now_name = name(&now)?;
    if now_name != seen {
        let theirs = now.into_iter().map(|q| format!("{} ({})", q.text, kind_text(q.kind)));
        return edit(&visit, rows, now_name, Some(theirs.collect()), None).await;
    }
    let given = rows.iter().enumerate().filter(|(_, row)| !row.is_empty());
    let questions: Vec<Question> = given.map(|(i, row)| row.question(i)).collect();
    let notice = match questions.len() {
        0 => "Applicants are asked nothing now.".to_owned(),
        count => format!("Questions that applicants are asked now: {count}."),
    };
    match visit.ask_home(&vo, SetQuestions { vo: vo.clone(), questions }).await {
        Ok(_) => done(&visit, format!("/vo/{vo}/settings"), notice),
        Err(Stop::Failed(e)) if amendable(&e) => edit(&visit, rows, seen, None, Some(e)).await,
        Err(stop) => Err(stop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(button: &str) -> Fields {
        let text = format!(
            "rows=2&id-0=why&text-0=Why%3F&kind-0=text&required-0=yes&choices-0=\
             &id-1=&text-1=Where%3F&kind-1=choice&choices-1=+Rennes+%0A%0APisa&do={button}"
        );
        Fields::parse(text.as_bytes()).unwrap()
    }

    fn texts(button: &str) -> Vec<String> {
        rows(&form(button)).unwrap().into_iter().map(|row| row.text).collect()
    }

    /// If it failed, a button of the form would lose or mix up what was typed.
    #[test]
    fn rows_come_go_and_move() {
        assert_eq!(texts("save"), ["Why?", "Where?"]);
        assert_eq!(texts("add"), ["Why?", "Where?", ""]);
        assert_eq!(texts("remove-0"), ["Where?"]);
        assert_eq!(texts("up-1"), ["Where?", "Why?"]);
        for nothing in ["up-0", "up-2", "remove-2", "remove-x", ""] {
            assert_eq!(texts(nothing), ["Why?", "Where?"], "{nothing}");
        }
        let many = Fields::parse(b"rows=4000000000&do=add").unwrap();
        assert_eq!(rows(&many).unwrap().len(), QUESTIONS_MAX);
    }

    /// If it failed, applicants would be asked something else than what was typed, or a change of
    /// somebody else would go unseen.
    #[test]
    fn a_row_becomes_its_question_and_back() {
        let drafts = rows(&form("save")).unwrap();
        let questions: Vec<_> = drafts.iter().enumerate().map(|(i, d)| d.question(i)).collect();
        assert_eq!(questions[0].kind, QuestionKind::Text);
        assert!(questions[0].required && questions[0].choices.is_empty());
        assert_eq!((questions[1].id.as_str(), questions[1].required), ("question-2", false));
        assert_eq!(questions[1].choices, ["Rennes", "Pisa"]);
        assert_eq!(Draft::from(&questions[0]), drafts[0]);
        assert_ne!(name(&questions).unwrap(), name(&questions[..1]).unwrap());
    }
}
