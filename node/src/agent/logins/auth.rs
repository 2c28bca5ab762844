//! PAM's auth phase: a person proves without a key who they are, by a password of this site or by
//! another device. Each only where the machine's administrator allowed it.

use super::Who;
use super::attempts::{Attempt, Held, Waits};
use super::origin::{Origin, Ways};
use super::rules::refusal;
use crate::agent::Agent;
use crate::agent::told::Login;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use xos_api::Done;
use xos_api::cda::{CheckNodePassword, NodeLogin, Password};
use xos_base::local::{AuthBegin, AuthNext, AuthStep, Typed};
use xos_base::{Error, Kind};

/// How long a person may take to type.
const TYPING_MAX: Duration = Duration::from_secs(300);
/// How long the site's core may take for one answer, which may be another site's: less than
/// `pam_xos` waits for a first step.
const CORE_WAIT: Duration = Duration::from_secs(4);

/// What is answered when there is no such attempt any more.
pub(super) fn over() -> AuthStep {
    AuthStep::Refused { text: "it took too long, or another took its place; begin anew".into() }
}

/// Asks for the password; `code`: whether a code is to be had instead.
fn question(attempt: String, texts: Vec<String>, code: bool) -> AuthStep {
    let prompt = if code { "Password, or Enter for a code: " } else { "Password: " };
    AuthStep::Ask { attempt, texts, prompt: prompt.into(), echo: false, password: true }
}

/// What the core answers, if it does so in time.
pub(super) async fn in_time<T>(asked: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(CORE_WAIT, asked).await.unwrap_or_else(|_| {
        Err(Error::unavailable("the site of this person, or this one's core, does not answer")
            .hint("try again later"))
    })
}

/// The step of an attempt, unless that is ended meanwhile.
async fn unless_over(
    ended: &CancellationToken,
    step: impl Future<Output = Result<AuthStep, Error>>,
) -> Result<AuthStep, Error> {
    tokio::select! {
        biased;
        step = step => step,
        () = ended.cancelled() => Ok(over()),
    }
}

impl Agent {
    /// Begins a proof. Where it is not allowed here, other modules decide.
    pub(in crate::agent) async fn auth_begin(&self, r: AuthBegin) -> Result<AuthStep, Error> {
        let logins = self.logins()?;
        let Some(who) = self.who(&r.user)? else { return Ok(AuthStep::NotOurs {}) };
        let origin = Origin::of(&r, who.account.uid);
        let ours = who.account.person.site() == self.node.site();
        let ways = Ways::of(&logins.config, &origin, ours);
        if ways.none() {
            return Ok(AuthStep::NotOurs {});
        }
        if let Some(e) = refusal(who.state.clone()) {
            let login = Login::of(&who.account, &r.service, r.rhost.as_deref());
            self.note_login("prove_login", login, Err(e.clone()));
            return Ok(AuthStep::Refused { text: e.to_string() });
        }
        let (account, now) = (who.account, self.now());
        let attempt = Attempt {
            user: account.name,
            uid: account.uid,
            service: r.service,
            person: account.person,
            vo: account.vo,
            origin,
            code: ways.code,
            waits: Waits::Typed,
            expires: now.plus(TYPING_MAX),
            begun: now,
            asked: now,
            over: CancellationToken::new(),
        };
        let held = logins.attempts.begin(attempt.clone(), now)?;
        if ways.password {
            return Ok(question(held.goes_on(), Vec::new(), ways.code));
        }
        unless_over(&attempt.over, self.show_code(&attempt, held)).await
    }

    /// Goes on with one.
    pub(in crate::agent) async fn auth_next(&self, r: AuthNext) -> Result<AuthStep, Error> {
        let found = self.logins()?.attempts.ask(&r.attempt, self.now());
        let Some((held, attempt)) = found else { return Ok(over()) };
        unless_over(&attempt.over, self.next_step(&attempt, held, r)).await
    }

    async fn next_step(
        &self,
        attempt: &Attempt,
        held: Held<'_>,
        r: AuthNext,
    ) -> Result<AuthStep, Error> {
        if matches!(attempt.waits, Waits::Code { .. }) {
            return self.wait_for_code(held).await;
        }
        match r.answer.filter(|typed| !typed.0.is_empty()) {
            Some(typed) => self.by_password(attempt, held, typed, r.reused).await,
            None if attempt.code => self.show_code(attempt, held).await,
            None => Ok(AuthStep::Refused { text: "no password was typed".into() }),
        }
    }

    /// Has the site's core look at a password. One that was typed for another module may be that
    /// module's: then the person is asked.
    async fn by_password(
        &self,
        attempt: &Attempt,
        held: Held<'_>,
        mut typed: Typed,
        reused: bool,
    ) -> Result<AuthStep, Error> {
        let password = Password(std::mem::take(&mut typed.0));
        match self.check_password(attempt, password).await {
            Ok(Done {}) => self.proved(attempt, "password"),
            Err(e) if reused && matches!(e.kind, Kind::Unauthenticated | Kind::Denied) => {
                Ok(question(held.goes_on(), vec![e.to_string()], attempt.code))
            }
            Err(e) => {
                if let Some(who) = self.still(attempt)? {
                    self.note_login("prove_login", attempt.login(&who.account), Err(e.clone()));
                }
                Err(e)
            }
        }
    }

    async fn check_password(&self, attempt: &Attempt, password: Password) -> Result<Done, Error> {
        let attempts = &self.logins()?.attempts;
        attempts.spend(attempt, self.now())?;
        let ask = CheckNodePassword { login: self.login_of(attempt), password };
        let right = in_time(self.core()?.call(ask)).await?;
        attempts.give_back(attempt);
        Ok(right)
    }

    /// What is wanted by an attempt.
    pub(super) fn login_of(&self, attempt: &Attempt) -> NodeLogin {
        NodeLogin {
            node: self.node.clone(),
            user: attempt.user.clone(),
            service: attempt.service.clone(),
            person: attempt.person.clone(),
            vo: None,
        }
    }

    /// The account of an attempt, if it is the same one still.
    pub(super) fn still(&self, attempt: &Attempt) -> Result<Option<Who>, Error> {
        let same = |w: &Who| w.account.uid == attempt.uid && w.account.person == attempt.person;
        Ok(self.who(&attempt.user)?.filter(same))
    }

    /// What a proof means now: the account may have been suspended, or be another's, meanwhile.
    pub(super) fn proved(&self, attempt: &Attempt, by: &str) -> Result<AuthStep, Error> {
        let refused = |text: String| Ok(AuthStep::Refused { text });
        let Some(who) = self.still(attempt)? else {
            return refused("the account has just gone".into());
        };
        if let Some(e) = refusal(who.state) {
            return refused(e.to_string());
        }
        let took = self.now().since(attempt.begun);
        tracing::info!(user = attempt.user, ?took, by, "proved");
        let login = Login { by, ..attempt.login(&who.account) };
        self.note_login("prove_login", login, Ok(()));
        Ok(AuthStep::Proved {})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a site that says nothing would hold places at the machine for longer than
    /// anybody waits, or who lost theirs would keep it.
    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_silent_site_or_in_an_ended_attempt() {
        let silent = in_time(std::future::pending::<Result<Done, Error>>()).await;
        assert_eq!(silent.unwrap_err().kind, Kind::Unavailable);
        let ended = CancellationToken::new();
        let step = unless_over(&ended, async { Ok(AuthStep::Proved {}) }).await;
        assert_eq!(step, Ok(AuthStep::Proved {}));
        ended.cancel();
        assert_eq!(unless_over(&ended, std::future::pending()).await, Ok(over()));
    }

    /// If it failed, a password would stand on the screen, or a code be promised where none is had.
    #[test]
    fn the_question_names_what_there_is_and_hides_what_is_typed() {
        for (code, wanted) in [(true, "Password, or Enter for a code: "), (false, "Password: ")] {
            let asked = question("7".into(), Vec::new(), code);
            let AuthStep::Ask { prompt, echo, password, .. } = asked else { panic!("{asked:?}") };
            assert_eq!((prompt.as_str(), echo, password), (wanted, false, true));
        }
    }
}
