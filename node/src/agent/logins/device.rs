//! Proof by another device: the person types a code in the console of their own site, which says
//! what they allow: this service, on this machine, as this account.

use super::attempts::{Attempt, Held, Waits};
use super::auth;
use crate::agent::Agent;
use std::time::Duration;
use xos_api::cda::Work;
use xos_api::cda::{
    BeginNodeLogin, BegunNodeLogin, NodeLogin, NodeLoginState, PollNodeLogin, Secret,
};
use xos_base::local::AuthStep;
use xos_base::{Error, Kind};

/// How long one call waits before it answers that nothing happened.
const WAIT: Duration = Duration::from_secs(15);
/// Shortest and longest pause between two questions to the core, whatever it says.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Services by which the account that proved itself gets no session: it needs no ticket.
pub(super) const OTHERS_SESSION: [&str; 2] = ["sudo", "sudo-i"];
/// Longest text that is shown, in bytes; a picture is one, and cut between its rows.
const TEXT_MAX: usize = 16 * 1024;

/// What the person is shown: address and code first, for who cannot take a picture.
fn texts(begun: &BegunNodeLogin, attempt: &Attempt) -> Vec<String> {
    let mut texts = vec![
        format!(
            "To go on with {} as {}, open on any device:\n  {}",
            attempt.service, attempt.user, begun.address
        ),
        format!("sign in there as {}, and type the code:\n  {}", attempt.person, begun.code),
    ];
    if let Some(picture) = &begun.picture {
        texts.push(format!("or take a picture of this:\n{picture}"));
    }
    texts.retain(|text| text.len() <= TEXT_MAX);
    texts
}

impl Agent {
    /// Has the person's site make a code for this attempt, which is shown.
    pub(super) async fn show_code(
        &self,
        attempt: &Attempt,
        held: Held<'_>,
    ) -> Result<AuthStep, Error> {
        self.logins()?.attempts.spend(attempt, self.now())?;
        let here = !OTHERS_SESSION.contains(&attempt.service.as_str());
        let vo = here.then(|| attempt.vo.clone());
        let login = NodeLogin { vo, ..self.login_of(attempt) };
        let begun = auth::in_time(self.core()?.call(BeginNodeLogin { login })).await;
        if let Some(who) = self.still(attempt)? {
            let asked = begun.as_ref().map(|_| ()).map_err(Clone::clone);
            self.note_login("ask_device", attempt.login(&who.account), asked);
        }
        let begun = begun?;
        let texts = texts(&begun, attempt);
        let pause = Duration::from_secs(begun.interval_s).clamp(PAUSE_MIN, PAUSE_MAX);
        let waits = Waits::Code { secret: begun.attempt, pause };
        Ok(if held.waits((waits, begun.expires), self.now()) {
            AuthStep::Wait { attempt: held.goes_on(), texts }
        } else {
            auth::over()
        })
    }

    /// Waits for the person, for a while.
    pub(super) async fn wait_for_code(&self, held: Held<'_>) -> Result<AuthStep, Error> {
        let begun = self.now();
        loop {
            let Some(attempt) = held.ask(self.now()) else { return Ok(auth::over()) };
            let Waits::Code { secret, pause } = &attempt.waits else { return Ok(auth::over()) };
            tokio::time::sleep(*pause).await;
            let state = match self.poll_login(&attempt, secret).await {
                Ok(state) => state,
                // The core may come back before the code's time is over.
                Err(e) if e.kind == Kind::Unavailable => NodeLoginState::Waiting,
                Err(e) => return Err(e),
            };
            match state {
                NodeLoginState::Waiting if self.now().since(begun) < WAIT => {}
                NodeLoginState::Waiting => {
                    return Ok(AuthStep::Wait { attempt: held.goes_on(), texts: Vec::new() });
                }
                NodeLoginState::Allowed { mandate } => {
                    let step = self.proved(&attempt, "another device")?;
                    if let (AuthStep::Proved {}, Some(jws)) = (&step, mandate) {
                        self.bring_mandate(&attempt, jws).await;
                    }
                    return Ok(step);
                }
                NodeLoginState::Declined => return self.declined(&attempt),
                NodeLoginState::Over => return Ok(auth::over()),
            }
        }
    }

    async fn poll_login(&self, a: &Attempt, secret: &Secret) -> Result<NodeLoginState, Error> {
        let (person, attempt) = (a.person.clone(), secret.clone());
        let ask = PollNodeLogin { node: self.node.clone(), person, attempt };
        auth::in_time(self.core()?.call(ask)).await
    }

    /// Gets the first ticket under the mandate that the person gave, for the session that begins
    /// now. Without it they can sign in all the same.
    async fn bring_mandate(&self, attempt: &Attempt, jws: String) {
        let taken = match self.still(attempt) {
            Ok(Some(who)) => match self.logins() {
                Ok(logins) => {
                    let work = Work::Login { node: self.node.clone() };
                    self.take_mandate(&logins.mandates, &work, &who.account, jws).await
                }
                Err(e) => Err(e),
            },
            Ok(None) => return,
            Err(e) => Err(e),
        };
        if let Err(error) = taken {
            tracing::warn!(user = attempt.user, %error, "a login brought no good mandate");
        }
    }

    fn declined(&self, attempt: &Attempt) -> Result<AuthStep, Error> {
        if let Some(who) = self.still(attempt)? {
            let no = Error::denied("the person said no on another device");
            self.note_login("prove_login", attempt.login(&who.account), Err(no));
        }
        Ok(AuthStep::Refused { text: "you said no on the other device".into() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::attempts::tests::attempt;
    use super::*;
    use xos_base::Millis;

    const NOW: Millis = Millis(1_000_000);

    /// If it failed, who has no camera could not prove themselves.
    #[test]
    fn address_and_code_stand_before_the_picture() {
        let attempt = attempt(1_900_000_007, NOW);
        let mut begun = BegunNodeLogin {
            attempt: Secret("s".into()),
            address: "https://core.rennes.example:7443/device".into(),
            code: "BCDF-GHJK".into(),
            picture: Some("##\n##".into()),
            interval_s: 2,
            expires: NOW,
        };
        let shown = texts(&begun, &attempt);
        assert_eq!(shown.len(), 3);
        assert!(shown[0].contains("sudo as ann.demo.rennes") && shown[0].contains("/device"));
        assert!(shown[1].contains("BCDF-GHJK") && shown[2].contains("##\n##"));
        begun.picture = Some("#".repeat(TEXT_MAX));
        assert_eq!(texts(&begun, &attempt).len(), 2, "a far site fills the terminal");
    }
}
