//! Terms of use, questions to applicants, and what they said.

use super::OfVo;
use crate::cli::ask;
use crate::cli::output::{Failure, Outcome, Table, clean, clean_lines, count, fields, when};
use crate::cli::session::Session;
use std::io::Read;
use std::path::{Path, PathBuf};
use xos_api::vom::{
    Agree, Answer, Consent, Enrolment, EnrolmentForm, GetEnrolment, GetEnrolmentForm, Question,
    QuestionKind, SetQuestions, SetTermsOfUse, TERMS_BYTES_MAX, TermsOfUse,
};
use xos_base::{Error, Millis, PersonId, VoId};

/// Longest file of questions, in bytes.
const QUESTIONS_BYTES_MAX: usize = 256 * 1024;

/// What is said with an application.
#[derive(Debug, clap::Args)]
pub struct Saying {
    /// You have read the VO's terms of use and agree; without it you are asked.
    #[arg(long)]
    agree: bool,
    /// Your answer to one of the VO's questions; may be given several times.
    #[arg(long = "answer", value_name = "QUESTION=ANSWER", value_parser = answer)]
    answers: Vec<Answer>,
}

fn answer(text: &str) -> Result<Answer, String> {
    let (question, value) = text.split_once('=').ok_or("write QUESTION=ANSWER")?;
    Ok(Answer { question: question.to_owned(), value: value.to_owned() })
}

/// `xos vo terms …`.
#[derive(Debug, clap::Subcommand)]
pub enum TermsCommand {
    /// Show the terms of use, and how you stand to them.
    #[command(after_help = "Example:\n  xos vo terms show demo.rennes")]
    Show(OfVo),
    /// Set the terms of use, as a new version (VO administrators).
    Set(TermsArgs),
}

/// `xos vo terms set`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos vo terms set demo.rennes terms.txt
  xos vo terms set demo.rennes terms.txt --consent-days 365 --grace-days 30

Every member must agree to each new version. Who has not by the end of the grace counts as \
suspended until they do.")]
pub struct TermsArgs {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// The text (`-`: standard input), at most 32 KiB.
    file: PathBuf,
    /// For how many days a consent holds [default: until the next version].
    #[arg(long, value_name = "DAYS")]
    consent_days: Option<u32>,
    /// For how many days members may still act whose consent is due [default: 14].
    #[arg(long, value_name = "DAYS")]
    grace_days: Option<u32>,
}

/// `xos vo agree`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  xos vo agree demo.rennes\n  xos vo agree demo.rennes --yes")]
pub struct AgreeArgs {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// You have read the terms in force and agree.
    #[arg(long)]
    yes: bool,
}

/// `xos vo questions …`.
#[derive(Debug, clap::Subcommand)]
pub enum QuestionsCommand {
    /// Show what applicants are asked.
    #[command(after_help = "Example:\n  xos vo questions show demo.rennes")]
    Show(OfVo),
    /// Set what applicants are asked (VO administrators).
    #[command(after_help = QUESTIONS_EXAMPLES)]
    Set {
        /// The VO, as demo.rennes.
        #[arg(value_name = "VO")]
        of: VoId,
        /// The questions, as JSON (`-`: standard input).
        file: PathBuf,
    },
}

const QUESTIONS_EXAMPLES: &str = "\
Example:
  xos vo questions set demo.rennes questions.json

The file holds a list, at most 20 long:
[{\"id\": \"institute\", \"text\": \"Where do you work?\", \"kind\": \"line\",
  \"required\": true},
 {\"id\": \"status\", \"text\": \"What are you?\", \"kind\": \"choice\",
  \"choices\": [\"staff\", \"student\"]}]
Kinds: line, text, choice, check (answered by yes or no). An empty list asks nothing.";

/// `xos vo enrolment`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos vo enrolment demo.rennes
  xos vo enrolment demo.rennes bob@pisa    as administrator of the VO")]
pub struct EnrolmentArgs {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// The applicant or member; without one, you.
    person: Option<PersonId>,
}

/// Shows or sets the terms of use.
pub async fn terms(s: &Session, command: TermsCommand) -> Outcome {
    match command {
        TermsCommand::Show(OfVo { of: vo }) => {
            let form = s.vo_client(&vo).await?.call(GetEnrolmentForm { vo: vo.clone() }).await?;
            let now = s.now();
            s.out.show(&form, || match &form.terms {
                Some(terms) => described(terms, form.consent.as_ref(), now),
                None => format!("{vo} has no terms of use."),
            })?;
        }
        TermsCommand::Set(args) => {
            let vo = args.of;
            let text = text_of(&args.file, TERMS_BYTES_MAX)?;
            let text = text.replace("\r\n", "\n").replace('\t', "    ");
            let (consent_days, grace_days) = (args.consent_days, args.grace_days);
            let ask = SetTermsOfUse { vo: vo.clone(), text, consent_days, grace_days };
            let terms = s.vo_client(&vo).await?.call(ask).await?;
            s.out.show(&terms, || {
                format!(
                    "Version {} of the terms of use of {vo} is in force. Members have {} days to \
                     agree; so have you: xos vo agree {vo}",
                    terms.version, terms.grace_days
                )
            })?;
        }
    }
    Ok(0)
}

/// A whole text of at most `max` bytes.
fn text_of(path: &Path, max: usize) -> Result<String, Error> {
    let limit = max as u64 + 1;
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(limit).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|f| f.take(limit).read_to_string(&mut text))
    };
    read.map_err(|e| Error::invalid(format!("cannot read {}: {e}", path.display())))?;
    if text.len() > max {
        return Err(Error::too_large(format!("{} is over {max} bytes", path.display())));
    }
    Ok(text)
}

fn described(terms: &TermsOfUse, consent: Option<&Consent>, now: Millis) -> String {
    let holds = terms.consent_days.map(|d| format!("for {d} days"));
    let head = fields(&[
        ("version", format!("{}, since {}", terms.version, when(terms.since, now))),
        ("consent", holds.unwrap_or_else(|| "until the next version".to_owned())),
        ("grace", format!("{} days", terms.grace_days)),
        ("you", consent.map(|c| stands(c, now)).unwrap_or_default()),
    ]);
    format!("{head}\n\n{}", clean_lines(&terms.text))
}

/// How somebody stands to the terms of use, in one line.
fn stands(c: &Consent, now: Millis) -> String {
    let agreed = match &c.agreed {
        Some(a) => format!("agreed to version {} {}", a.version, when(a.at, now)),
        None => "have not agreed".to_owned(),
    };
    match (c.due, c.lapses) {
        (_, Some(lapses)) if lapses <= now => format!("{agreed}; suspended until you agree"),
        (Some(due), Some(lapses)) if due <= now => {
            format!("{agreed}; suspended {} unless you agree", when(lapses, now))
        }
        (Some(due), _) => format!("{agreed}; due again {}", when(due, now)),
        _ => agreed,
    }
}

/// Agrees to the terms of use in force.
pub async fn agree(s: &Session, args: AgreeArgs) -> Outcome {
    let vo = args.of;
    // As the person: a VO's certificate agrees to nothing.
    let client = s.person(&s.site_of(&vo)).await?;
    let form = client.call(GetEnrolmentForm { vo: vo.clone() }).await?;
    let version = agreed(s, &vo, &form, args.yes)?;
    let version = version.ok_or_else(|| Error::not_found(format!("{vo} has no terms of use")))?;
    let done = client.call(Agree { vo: vo.clone(), version }).await?;
    s.out
        .show(&done, || format!("You agreed to version {version} of the terms of use of {vo}."))?;
    Ok(0)
}

/// The version that the person agrees to; `None`: there are no terms.
fn agreed(s: &Session, vo: &VoId, form: &EnrolmentForm, yes: bool) -> Result<Option<u32>, Failure> {
    let Some(terms) = &form.terms else { return Ok(None) };
    if yes {
        return Ok(Some(terms.version));
    }
    let text = described(terms, form.consent.as_ref(), s.now());
    let question = format!("{text}\n\nDo you agree to these terms of use of {vo}?");
    let instead =
        format!("read them: xos vo terms show {vo}; then say --agree (xos vo agree: --yes)");
    ask::consent(&question, &instead, &format!("without your consent you cannot act in {vo}"))?;
    Ok(Some(terms.version))
}

/// The consent and answers that go with an application; asks for the consent where it is not given.
pub fn said(
    s: &Session,
    vo: &VoId,
    form: &EnrolmentForm,
    saying: Saying,
) -> Result<(Option<u32>, Vec<Answer>), Failure> {
    let missing = |q: &&Question| q.required && !saying.answers.iter().any(|a| a.question == q.id);
    if let Some(q) = form.questions.iter().find(missing) {
        return Err(Error::invalid(format!("{vo} asks: {}", clean(&q.text)))
            .hint(format!(
                "answer by --answer {}=...; all questions: xos vo questions show {vo}",
                clean(&q.id)
            ))
            .into());
    }
    Ok((agreed(s, vo, form, saying.agree)?, saying.answers))
}

/// Shows or sets the questions to applicants.
pub async fn questions(s: &Session, command: QuestionsCommand) -> Outcome {
    match command {
        QuestionsCommand::Show(OfVo { of: vo }) => {
            let form = s.vo_client(&vo).await?.call(GetEnrolmentForm { vo: vo.clone() }).await?;
            s.out.show(&form.questions, || asked(&form.questions))?;
        }
        QuestionsCommand::Set { of: vo, file } => {
            let text = text_of(&file, QUESTIONS_BYTES_MAX)?;
            let questions: Vec<Question> = serde_json::from_str(&text).map_err(|e| {
                Error::invalid(format!("{} holds no questions: {e}", file.display()))
                    .hint("xos vo questions set --help shows how they are written")
            })?;
            let asks = count(questions.len(), "question", "questions");
            let ask = SetQuestions { vo: vo.clone(), questions };
            let done = s.vo_client(&vo).await?.call(ask).await?;
            s.out.show(&done, || format!("{vo} asks applicants {asks}."))?;
        }
    }
    Ok(0)
}

fn asked(questions: &[Question]) -> String {
    let mut table = Table::new(&["QUESTION", "ANSWER", "REQUIRED", "TEXT"]);
    for q in questions {
        let how = match q.kind {
            QuestionKind::Line => "one line".to_owned(),
            QuestionKind::Text => "a text".to_owned(),
            QuestionKind::Choice => clean(&q.choices.join(" | ")),
            QuestionKind::Check => "yes | no".to_owned(),
        };
        let required = if q.required { "yes" } else { "" };
        table.row([clean(&q.id), how, required.to_owned(), clean(&q.text)]);
    }
    table.text("The VO asks applicants nothing.")
}

/// Shows what somebody agreed to and answered.
pub async fn enrolment(s: &Session, args: EnrolmentArgs) -> Outcome {
    let vo = args.of;
    let person = match args.person {
        Some(person) => person,
        None => s.signed_in()?.person,
    };
    let found = s.vo_client(&vo).await?.call(GetEnrolment { vo, person }).await?;
    let now = s.now();
    s.out.show(&found, || shown(&found, now))?;
    Ok(0)
}

fn shown(found: &Enrolment, now: Millis) -> String {
    let invitation = found.invitation.as_ref().map(|i| format!("{} of {}", i.invitation, i.by));
    let mut text = fields(&[
        ("person", found.person.to_string()),
        ("terms of use", stands(&found.consent, now)),
        ("invitation", invitation.unwrap_or_default()),
    ]);
    for a in &found.answers {
        let (question, value) = (clean(&a.text), clean_lines(&a.value));
        text.push_str(&format!("\n\n{question}\n  {}", value.replace('\n', "\n  ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_api::vom::Agreed;

    /// If it failed, people would not see that they are about to be shut out, or by when.
    #[test]
    fn how_one_stands_to_the_terms_is_said() {
        let now = Millis::from_secs(1_000_000);
        let at = |s: u64| Some(Millis::from_secs(s));
        let agreed = Some(Agreed { version: 2, at: Millis::from_secs(996_400) });
        let consent = |due, lapses| Consent { agreed: agreed.clone(), due, lapses };
        assert_eq!(stands(&consent(None, None), now), "agreed to version 2 1 h ago");
        let text = stands(&consent(at(1_003_600), at(2_000_000)), now);
        assert!(text.ends_with("due again in 1 h"), "{text}");
        let text = stands(&consent(at(999_000), at(1_003_600)), now);
        assert!(text.ends_with("suspended in 1 h unless you agree"), "{text}");
        let text = stands(&Consent { agreed: None, due: at(1), lapses: at(2) }, now);
        assert_eq!(text, "have not agreed; suspended until you agree");
    }

    #[test]
    fn answers_are_taken_apart_at_the_first_sign() {
        let a = answer("why=a=b").unwrap();
        assert_eq!((a.question.as_str(), a.value.as_str()), ("why", "a=b"));
        assert!(answer("why").is_err());
    }
}
