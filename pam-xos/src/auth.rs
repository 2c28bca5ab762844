//! The auth phase: a conversation that the node leads, step by step.

use crate::call::{Call, GridUser};
use crate::codes::{self, Code, Question, Step, Verdict};
use crate::ffi::{Item, Mute, Style, real_uid};
use crate::texts;
use std::time::{Duration, Instant};
use xos_base::local::{AuthBegin, AuthNext, AuthStep, LocalError, Typed};

/// How long the node may take for the first step: it may ask its core.
const LIMIT: Duration = Duration::from_millis(5000);
/// How long a proof may take in all: as long as a code for another device lasts, at most.
const PROOF_LIMIT: Duration = Duration::from_secs(600);
/// The most steps of one proof. A node that waits answers every few seconds.
const STEPS_MAX: usize = 600;

/// A proof under way.
struct Proof<'a> {
    call: &'a Call,
    begun: Instant,
    /// The password that an earlier module asked for; it is used once.
    first: Option<Typed>,
    /// The password that the person typed here last.
    typed: Option<Typed>,
    /// Whether the person was shown or asked anything.
    spoke: bool,
}

/// `pam_sm_authenticate`.
pub(crate) fn prove(call: &Call, user: &GridUser) -> Code {
    let mut proof = Proof {
        call,
        begun: Instant::now(),
        first: call.pam.password(),
        typed: None,
        spoke: false,
    };
    let begin = AuthBegin {
        user: user.name.clone(),
        service: call.pam.item(Item::Service).unwrap_or_default(),
        rhost: call.pam.item(Item::Rhost),
        uid: real_uid(),
    };
    let mut answer = call.ask(&begin, LIMIT);
    for _ in 0..STEPS_MAX {
        if proof.begun.elapsed() >= PROOF_LIMIT {
            break;
        }
        let step = match codes::auth(answer) {
            Ok(step) => step,
            Err(verdict) => return proof.end(user, verdict),
        };
        match proof.go_on(step) {
            Ok(next) => answer = next,
            Err(why) => {
                let text = format!("you could not be asked: {why}");
                return proof.end(user, Verdict::told(Code::ConvErr, text));
            }
        }
    }
    let text =
        format!("the proof took longer than {PROOF_LIMIT:?} or {STEPS_MAX} steps; begin anew");
    proof.end(user, Verdict::told(Code::AuthErr, text))
}

impl Proof<'_> {
    /// Shows and asks what a step says, and tells the node. The texts are part of the question, so
    /// they are shown also to a host that wants no messages.
    fn go_on(&mut self, step: Step) -> Result<Result<AuthStep, LocalError>, Mute> {
        for text in &step.texts {
            self.show(&texts::pieces(text))?;
        }
        self.spoke |= !step.texts.is_empty();
        let (mut answer, mut reused, mut password) = (None, false, false);
        if let Some(question) = &step.question {
            password = question.password;
            let (typed, first) = self.answer(question)?;
            (answer, reused) = (Some(typed), first);
        }
        let next = AuthNext { attempt: step.attempt, answer, reused };
        let left = PROOF_LIMIT.saturating_sub(self.begun.elapsed());
        let told = self.call.ask_patiently(&next, left);
        let keep = password && !reused;
        self.typed = next.answer.filter(|typed| keep && !typed.0.is_empty());
        Ok(told)
    }

    /// What the person answers, and whether they typed it for an earlier module.
    fn answer(&mut self, question: &Question) -> Result<(Typed, bool), Mute> {
        if question.password
            && let Some(first) = self.first.take()
        {
            return Ok((first, true));
        }
        let mut pieces = texts::pieces(&question.prompt);
        let prompt = pieces.pop().unwrap_or_default();
        self.show(&pieces)?;
        self.spoke = true;
        let typed = self.call.pam.ask(&prompt, question.echo)?;
        Ok((Typed(typed), false))
    }

    fn show(&self, pieces: &[String]) -> Result<(), Mute> {
        pieces.iter().try_for_each(|piece| self.call.pam.say(Style::Info, piece))
    }

    /// Ends it. A password that was right is left to the modules after this one, such as keyrings.
    fn end(&self, user: &GridUser, verdict: Verdict) -> Code {
        if verdict.code == Code::Success
            && let Some(typed) = &self.typed
            && let Err(code) = self.call.pam.leave_password(typed)
        {
            self.call.debug(&format!("the password is not left to other modules (error {code})"));
        }
        match self.spoke {
            true => self.call.end_aloud(user, verdict),
            false => self.call.end(user, verdict),
        }
    }
}
