//! Terms of use, questions to applicants, and what people said.

use super::Vom;
use crate::Inner;
use crate::decide::{Command, Sealed, Words};
use crate::live::Live;
use crate::state::{EnrolmentFault, TermsInForce, Violation, Whose, answered};
use std::sync::Arc;
use std::time::Duration;
use xos_api::Done;
use xos_api::vom::{
    Agree, Answer, Answered, Enrolment, EnrolmentForm, GRACE_DAYS_DEFAULT, GetEnrolment,
    GetEnrolmentForm, SetQuestions, SetTermsOfUse, TermsOfUse,
};
use xos_base::{Error, Millis, PersonId, VoId};
use xos_net::Caller;

/// How often it is looked whether something is kept that the log does not name.
const SWEEP_EVERY: Duration = Duration::from_secs(60 * 60);
/// How long something is kept before the log must name it: longer than any change takes.
const UNNAMED_MAX: Duration = Duration::from_secs(60 * 60);

impl Vom {
    pub(super) async fn set_terms_of_use(
        &self,
        caller: Caller,
        r: SetTermsOfUse,
    ) -> Result<TermsOfUse, Error> {
        let command = Command::SetTermsOfUse {
            text: r.text,
            consent_days: r.consent_days,
            grace_days: r.grace_days.unwrap_or(GRACE_DAYS_DEFAULT),
        };
        self.change(&caller, &r.vo, command).await?;
        let terms = self.home(&r.vo)?.read().enrolling.terms.as_ref().map(TermsInForce::shown);
        terms.ok_or_else(|| Violation::from(EnrolmentFault::NoTerms).into())
    }

    pub(super) async fn agree(&self, caller: Caller, r: Agree) -> Result<Done, Error> {
        self.change(&caller, &r.vo, Command::Agree { version: r.version }).await
    }

    pub(super) async fn set_questions(
        &self,
        caller: Caller,
        r: SetQuestions,
    ) -> Result<Done, Error> {
        self.change(&caller, &r.vo, Command::SetQuestions { questions: r.questions }).await
    }

    pub(super) async fn enrolment_form(
        &self,
        caller: Caller,
        r: GetEnrolmentForm,
    ) -> Result<EnrolmentForm, Error> {
        let live = self.known(&r.vo)?;
        let subject = self.inner.subject(&caller, &r.vo)?;
        let person = subject.person().ok_or_else(|| Error::denied("only persons enrol"))?;
        let vo = live.read();
        let mut form = vo.form();
        let member = vo.members.contains_key(person) && !subject.carries_nothing();
        form.consent = (member && form.terms.is_some()).then(|| vo.consent(person));
        Ok(form)
    }

    pub(super) async fn enrolment(
        &self,
        caller: Caller,
        r: GetEnrolment,
    ) -> Result<Enrolment, Error> {
        let live = self.home(&r.vo)?;
        self.may_see_records(&live, &caller, &r.person)?;
        let now = self.inner.clock.now();
        let (consent, said, invitation) = {
            let vo = live.read();
            if !vo.members.contains_key(&r.person) && !vo.applications.contains_key(&r.person) {
                return Err(Violation::NoApplication(r.person).into());
            }
            let said = vo.enrolling.said.get(&r.person).cloned().unwrap_or_default();
            let by = said.invitation.as_ref();
            let by = by.and_then(|id| vo.enrolling.invitations.get_key_value(id));
            let info = by.map(|(id, i)| i.info(id, String::new(), now));
            (vo.consent(&r.person), said, info)
        };
        let answers = match &said.answers {
            Some(digest) => self.answers(&r.vo, digest).await?,
            None => Vec::new(),
        };
        Ok(Enrolment { person: r.person, consent, answers, invitation })
    }

    async fn answers(&self, vo: &VoId, digest: &str) -> Result<Vec<Answered>, Error> {
        let Some(text) = self.inner.registry.private(vo, digest).await? else {
            return Ok(Vec::new());
        };
        serde_json::from_str(&text)
            .map_err(|e| Error::internal(format!("answers kept for {vo} cannot be read: {e}")))
    }

    /// What somebody says who comes in, with their answers checked and kept: before the log names
    /// them, so that it names nothing that is not there.
    pub(super) async fn words(
        &self,
        caller: &Caller,
        vo: &VoId,
        agreed: Option<u32>,
        answers: Vec<Answer>,
    ) -> Result<Words, Error> {
        let live = self.home(vo)?;
        let (questions, asked) = {
            let vo = live.read();
            (vo.enrolling.questions.list.clone(), vo.enrolling.questions.changed)
        };
        let answered = answered(&questions, answers).map_err(Violation::from)?;
        if answered.is_empty() {
            return Ok(Words { agreed, answers: None });
        }
        let text = serde_json::to_string(&answered)
            .map_err(|e| Error::internal(format!("cannot encode answers: {e}")))?;
        let (whose, now) = (self.speaker(caller, vo)?, self.inner.clock.now());
        let digest = self.inner.registry.keep_private(vo, whose, text, now).await?;
        Ok(Words { agreed, answers: Some(Sealed { digest, asked }) })
    }

    /// Whose words a caller says.
    fn speaker(&self, caller: &Caller, vo: &VoId) -> Result<Whose, Error> {
        let person = self.inner.subject(caller, vo)?.person().cloned();
        person.map(Whose::Person).ok_or_else(|| Error::denied("only persons enrol"))
    }

    /// Makes a change by which `words` come into the log; what was kept of them is erased when it
    /// is not made.
    pub(super) async fn change_saying(
        &self,
        caller: &Caller,
        vo: &VoId,
        words: Words,
        command: impl FnOnce(Words) -> Command,
    ) -> Result<Done, Error> {
        let kept = words.answers.as_ref().map(|s| s.digest.clone());
        let made = self.change(caller, vo, command(words)).await;
        if made.is_err() && kept.is_some() {
            self.erase(vo, &self.speaker(caller, vo)?, kept).await;
        }
        made
    }

    /// Makes a change after which nothing is kept any more of what this person said.
    pub(super) async fn change_and_forget(
        &self,
        caller: &Caller,
        vo: &VoId,
        person: &PersonId,
        command: Command,
    ) -> Result<Done, Error> {
        let kept = self.home(vo)?.read().answers_of(person);
        let done = self.change(caller, vo, command).await?;
        self.erase(vo, &Whose::Person(person.clone()), kept).await;
        Ok(done)
    }

    /// Erases what is kept, unless the log names it. What cannot be erased now the sweep erases.
    pub(super) async fn erase(&self, vo: &VoId, whose: &Whose, kept: Option<String>) {
        let Some(digest) = kept else { return };
        let live = self.inner.vos.one(vo);
        if live.is_some_and(|l| l.read().names_private(whose, &digest)) {
            return;
        }
        if let Err(error) = self.inner.registry.erase_private(vo, &digest).await {
            tracing::error!(%vo, %error, "what a person said could not be erased yet");
        }
    }
}

/// Erases again and again what is kept and nothing names: what a change left behind that was cut
/// short, or that ended a membership in another way.
pub(crate) async fn sweep(inner: Arc<Inner>) {
    loop {
        let before = inner.clock.now().minus(UNNAMED_MAX);
        for live in inner.vos.after(None, usize::MAX) {
            if live.id().site() == inner.site
                && let Err(error) = sweep_one(&inner, &live, before).await
            {
                tracing::error!(vo = %live.id(), %error, "personal texts could not be looked at");
            }
        }
        tokio::time::sleep(SWEEP_EVERY).await;
    }
}

async fn sweep_one(inner: &Inner, live: &Live, before: Millis) -> Result<(), Error> {
    let named = |whose: &Whose, digest: &str| live.read().names_private(whose, digest);
    let erased = inner.registry.erase_unnamed(live.id(), named, before).await?;
    if erased > 0 {
        tracing::info!(vo = %live.id(), erased, "personal texts erased that nothing named");
    }
    Ok(())
}
