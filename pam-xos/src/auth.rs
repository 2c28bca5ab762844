//! The auth phase: a conversation that the node leads, step by step.

use crate::call::{Call, GridUser};
use crate::codes::{self, Code, Question, Step, Verdict};
use crate::ffi::{Item, Mute, Style};
use crate::texts;
use std::time::{Duration, Instant};
use xos_base::local::{AuthBegin, AuthNext, AuthStep, LocalError};
use zeroize::Zeroize;

/// How long the node may take for the first step: it asks its core.
const LIMIT: Duration = Duration::from_millis(5000);
/// How long a proof may take in all: as long as a code for another device lasts, at most.
const PROOF_LIMIT: Duration = Duration::from_secs(600);
/// The most steps of one proof. A node that waits answers every few seconds.
const STEPS_MAX: usize = 600;

/// `pam_sm_authenticate`.
pub(crate) fn prove(call: &Call, user: &GridUser) -> Code {
    let begun = Instant::now();
    let begin = AuthBegin {
        user: user.name.clone(),
        service: call.pam.item(Item::Service).unwrap_or_default(),
        rhost: call.pam.item(Item::Rhost),
    };
    let mut answer = call.ask(&begin, LIMIT);
    for _ in 0..STEPS_MAX {
        if begun.elapsed() >= PROOF_LIMIT {
            break;
        }
        let step = match codes::auth(answer) {
            Ok(step) => step,
            Err(verdict) => return call.end(user, verdict),
        };
        match go_on(call, step, begun) {
            Ok(next) => answer = next,
            Err(why) => {
                let text = format!("you could not be asked: {why}");
                return call.end(user, Verdict::told(Code::ConvErr, text));
            }
        }
    }
    let text =
        format!("the proof took longer than {PROOF_LIMIT:?} or {STEPS_MAX} steps; begin anew");
    call.end(user, Verdict::told(Code::AuthErr, text))
}

/// Shows and asks what a step says, and tells the node. The texts are part of the question, so they
/// are shown also to a host that wants no messages.
fn go_on(call: &Call, step: Step, begun: Instant) -> Result<Result<AuthStep, LocalError>, Mute> {
    for text in &step.texts {
        show(call, &texts::pieces(text))?;
    }
    let answer = step.question.map(|question| ask(call, &question)).transpose()?;
    let mut next = AuthNext { attempt: step.attempt, answer };
    let left = PROOF_LIMIT.saturating_sub(begun.elapsed());
    let told = call.ask_patiently(&next, left);
    next.answer.zeroize();
    Ok(told)
}

fn show(call: &Call, pieces: &[String]) -> Result<(), Mute> {
    pieces.iter().try_for_each(|piece| call.pam.say(Style::Info, piece))
}

fn ask(call: &Call, question: &Question) -> Result<String, Mute> {
    let mut pieces = texts::pieces(&question.prompt);
    let prompt = pieces.pop().unwrap_or_default();
    show(call, &pieces)?;
    call.pam.ask(&prompt, question.echo)
}
