//! PAM's auth phase: a person proves without a key who they are, by a password of this site or by
//! another device. Each only where the machine's administrator allowed it.

use super::attempts::{Attempt, Waits};
use super::rules::refusal;
use super::{Who, audit};
use crate::agent::Agent;
use std::time::Duration;
use xos_api::Done;
use xos_api::cda::{CheckNodePassword, NodeLogin, Password};
use xos_base::local::{AuthBegin, AuthNext, AuthStep, Typed};
use xos_base::{Error, Kind, PersonId};

/// How long a person may take to type.
const TYPING_MAX: Duration = Duration::from_secs(300);

/// What is answered when there is no such attempt any more.
pub(super) fn over() -> AuthStep {
    AuthStep::Refused { text: "it took too long, or another took its place; begin anew".into() }
}

/// Asks for the password; `code`: whether a code is to be had instead.
fn question(attempt: String, texts: Vec<String>, code: bool) -> AuthStep {
    let prompt = if code { "Password, or Enter for a code: " } else { "Password: " };
    AuthStep::Ask { attempt, texts, prompt: prompt.into(), echo: false, password: true }
}

impl Agent {
    /// Begins a proof. Where it is not allowed here, other modules decide.
    pub(in crate::agent) async fn auth_begin(&self, r: AuthBegin) -> Result<AuthStep, Error> {
        let logins = self.logins()?;
        let Some(who) = self.who(&r.user)? else { return Ok(AuthStep::NotOurs {}) };
        let (code, password) = (logins.config.device, self.takes_password(&who.account.person)?);
        if !code && !password {
            return Ok(AuthStep::NotOurs {});
        }
        if let Some(e) = refusal(who.state.clone()) {
            audit("not proved", &who.account, &r.service, &r.rhost);
            return Ok(AuthStep::Refused { text: e.to_string() });
        }
        let (account, now) = (who.account, self.now());
        logins.attempts.make_room(account.uid, now)?;
        let attempt = Attempt {
            user: account.name,
            uid: account.uid,
            service: r.service,
            person: account.person,
            vo: account.vo,
            waits: Waits::Typed,
            expires: now.plus(TYPING_MAX),
            begun: now,
            asked: now,
        };
        if password {
            return Ok(question(logins.attempts.put(attempt), Vec::new(), code));
        }
        let shown = self.begin_code(&attempt).await?;
        let (waits, expires) = (shown.waits, shown.expires);
        let attempt = Attempt { waits, expires, asked: self.now(), ..attempt };
        Ok(AuthStep::Wait { attempt: logins.attempts.put(attempt), texts: shown.texts })
    }

    /// Goes on with one.
    pub(in crate::agent) async fn auth_next(&self, r: AuthNext) -> Result<AuthStep, Error> {
        let found = self.logins()?.attempts.ask(&r.attempt, self.now());
        match found {
            None => Ok(over()),
            Some(Attempt { waits: Waits::Code { .. }, .. }) => self.wait_for_code(r.attempt).await,
            Some(attempt) => match r.answer.filter(|typed| !typed.0.is_empty()) {
                None => self.no_password(&attempt, r.attempt).await,
                Some(typed) => self.by_password(&attempt, r.attempt, typed, r.reused).await,
            },
        }
    }

    /// Whether this machine takes the password of a person: people of other sites type theirs
    /// nowhere but at their own.
    fn takes_password(&self, person: &PersonId) -> Result<bool, Error> {
        Ok(self.logins()?.config.passwords && person.site() == self.node.site())
    }

    /// The person wants a code instead.
    async fn no_password(&self, attempt: &Attempt, name: String) -> Result<AuthStep, Error> {
        let logins = self.logins()?;
        if !logins.config.device {
            logins.attempts.end(&name);
            return Ok(AuthStep::Refused { text: "no password was typed".into() });
        }
        match self.begin_code(attempt).await {
            Ok(shown) => {
                logins.attempts.wait(&name, (shown.waits, shown.expires), self.now());
                Ok(AuthStep::Wait { attempt: name, texts: shown.texts })
            }
            Err(e) => {
                logins.attempts.end(&name);
                Err(e)
            }
        }
    }

    /// Has the site's core look at a password. One that was typed for another module may be that
    /// module's: then the person is asked.
    async fn by_password(
        &self,
        attempt: &Attempt,
        name: String,
        mut typed: Typed,
        reused: bool,
    ) -> Result<AuthStep, Error> {
        let logins = self.logins()?;
        let password = Password(std::mem::take(&mut typed.0));
        let ask = CheckNodePassword { login: self.login_of(attempt), password };
        match self.check_password(ask).await {
            Ok(Done {}) => {
                logins.attempts.end(&name);
                self.proved(attempt, "password")
            }
            Err(e) if reused && matches!(e.kind, Kind::Unauthenticated | Kind::Denied) => {
                Ok(question(name, vec![e.to_string()], logins.config.device))
            }
            Err(e) => {
                logins.attempts.end(&name);
                if let Some(who) = self.still(attempt)? {
                    audit("not proved", &who.account, &attempt.service, &None);
                }
                Err(e)
            }
        }
    }

    async fn check_password(&self, ask: CheckNodePassword) -> Result<Done, Error> {
        self.core()?.call(ask).await
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
        audit("proved", &who.account, &attempt.service, &None);
        Ok(AuthStep::Proved {})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
