//! Terms of use, questions, invitations: from a command to its change.

use super::{Command, Words, asker, in_future};
use crate::policy::Grant;
use crate::state::{EnrolmentFault, Violation, Vo, days};
use std::time::Duration;
use xos_api::vom::{Change, Gives, INVITATION_DAYS_MAX};
use xos_base::{Error, MemberNumber, Millis, PersonId};

/// For how long agreeing once more changes nothing: else a member could fill the log by it.
const AGREED_JUST_NOW: Duration = Duration::from_secs(24 * 60 * 60);

/// How often the terms of use of one VO are set in a day.
const TERMS_PER_DAY: usize = 10;

pub(super) fn propose(
    vo: &Vo,
    command: &Command,
    grant: &Grant,
    now: Millis,
) -> Result<Option<Change>, Error> {
    let change = match command.clone() {
        Command::SetTermsOfUse { text, consent_days, grace_days } => {
            seldom(vo, now)?;
            let version = vo.terms_version().saturating_add(1);
            Change::TermsOfUseSet { version, text, consent_days, grace_days }
        }
        Command::Agree { version } => return agree(vo, grant, version, now),
        Command::SetQuestions { questions } if questions == vo.enrolling.questions.list => {
            return Ok(None);
        }
        Command::SetQuestions { questions } => Change::QuestionsSet { questions },
        Command::SetReminders { days, .. } => {
            let mut sorted = days.clone();
            sorted.sort_unstable_by(|a, b| b.cmp(a));
            if sorted == vo.enrolling.reminders() {
                return Ok(None);
            }
            Change::RemindersSet { days }
        }
        Command::Invite { id, hash, gives, hint } => {
            holds(&gives, now)?;
            Change::InvitationMade { id, hash, by: asker(grant)?, gives, hint }
        }
        Command::WithdrawInvitation { id } => Change::InvitationWithdrawn { id },
        Command::Join { hash, message, words } => {
            join(vo, asker(grant)?, &hash, message, words, now)?
        }
        _ => return Err(Error::internal("this command has another place")),
    };
    Ok(Some(change))
}

/// Only who signed in: not a program that holds a credential of theirs.
pub(super) fn in_person(grant: &Grant, what: &str, how: &str) -> Result<(), Error> {
    if grant.subject().carries_all() {
        return Ok(());
    }
    Err(Error::denied(format!("a credential in a VO {what}"))
        .hint(format!("sign in without a VO, and {how}")))
}

fn agree(vo: &Vo, grant: &Grant, version: u32, now: Millis) -> Result<Option<Change>, Error> {
    let person = asker(grant)?;
    let how = "agree by `xos vo agree` or in the console";
    in_person(grant, "agrees to no terms of use", how)?;
    let agreed = vo.enrolling.said.get(&person).and_then(|s| s.agreed.as_ref());
    let again = agreed.is_some_and(|a| {
        let fresh = a.until.is_none() || now.since(a.at) < AGREED_JUST_NOW;
        a.version == version && version == vo.terms_version() && fresh
    });
    Ok((!again).then_some(Change::Agreed { person, version }))
}

/// A VO has so many versions for good, and each asks all members anew.
fn seldom(vo: &Vo, now: Millis) -> Result<(), Error> {
    let set = vo.enrolling.terms.as_ref().map_or(&[] as &[Millis], |t| t.set.as_slice());
    let recent = set.iter().rev().take_while(|at| now.since(**at) < days(1)).count();
    if recent < TERMS_PER_DAY {
        return Ok(());
    }
    Err(Error::limited(format!("terms of use are set at most {TERMS_PER_DAY} times a day"))
        .hint("set them tomorrow"))
}

/// Whether an invitation that is made now can be used.
fn holds(gives: &Gives, now: Millis) -> Result<(), Error> {
    in_future(Some(gives.expires), now)?;
    in_future(gives.ends, now)?;
    let max = u32::try_from(INVITATION_DAYS_MAX).unwrap_or(u32::MAX);
    if gives.expires > now.plus(days(max)) {
        return Err(Error::invalid(format!("an invitation holds for at most {max} days"))
            .hint("name an earlier end of the invitation"));
    }
    Ok(())
}

/// The application of `person`, by an invitation or without.
pub(super) fn apply(
    vo: &Vo,
    person: PersonId,
    message: String,
    words: Words,
    invitation: Option<String>,
) -> Result<Change, Error> {
    let (agreed, answers) = said(vo, words)?;
    Ok(Change::Applied { person, message, agreed, answers, invitation })
}

/// What was said, unless the VO asks something else by now.
fn said(vo: &Vo, words: Words) -> Result<(Option<u32>, Option<String>), Error> {
    let Some(sealed) = words.answers else { return Ok((words.agreed, None)) };
    if sealed.asked != vo.enrolling.questions.changed {
        return Err(Error::conflict(format!("{} asks something else by now", vo.id))
            .hint("look at its questions again"));
    }
    Ok((words.agreed, Some(sealed.digest)))
}

fn join(
    vo: &Vo,
    person: PersonId,
    hash: &str,
    message: String,
    words: Words,
    now: Millis,
) -> Result<Change, Error> {
    let no_such = || Error::from(Violation::from(EnrolmentFault::NoInvitation));
    let (id, i) = vo.invitation(hash).ok_or_else(no_such)?;
    vo.usable(id, i, &person, now)?;
    if !vo.joins_at_once(i, &person) {
        return apply(vo, person, message, words, Some(id.to_owned()));
    }
    let (agreed, answers) = said(vo, words)?;
    let number = MemberNumber(vo.next_member);
    let epoch = vo.next_epoch(&person);
    let invitation = id.to_owned();
    Ok(Change::Joined { person, invitation, number, epoch, agreed, answers })
}
