//! Proof by another device: PAM's auth phase. The person types a code in the console of their own
//! site, which says what they allow: this service, on this machine, as this account.

use super::audit;
use super::rules::refusal;
use crate::agent::Agent;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use xos_api::cda::{
    BeginNodeLogin, BegunNodeLogin, NodeLogin, NodeLoginState, PollNodeLogin, Secret,
};
use xos_base::local::{Account, AuthBegin, AuthNext, AuthStep};
use xos_base::{Error, Kind, Millis, PersonId};

/// Most that are under way: each holds a connection of root's, and others are to be left.
const ATTEMPTS_MAX: usize = 24;
/// Most of one account; one more ends the oldest.
const ACCOUNT_MAX: usize = 3;
/// How long one call waits before it answers that nothing happened.
const WAIT: Duration = Duration::from_secs(15);
/// After how long without a call whoever waited is taken to be gone.
const IDLE_MAX: Duration = Duration::from_secs(40);
/// Shortest and longest pause between two questions to the core, whatever it says.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Longest text that is shown, in bytes; a picture is one, and cut between its rows.
const TEXT_MAX: usize = 16 * 1024;

/// Somebody who is waited for.
#[derive(Clone)]
struct Attempt {
    user: String,
    uid: u32,
    service: String,
    person: PersonId,
    secret: Secret,
    pause: Duration,
    expires: Millis,
    /// When it was begun, and asked after last.
    begun: Millis,
    asked: Millis,
}

#[derive(Default)]
struct Table {
    last: u64,
    all: BTreeMap<u64, Attempt>,
}

/// Those that are under way. Only root asks, so that a number is name enough.
#[derive(Default)]
pub(super) struct Attempts(Mutex<Table>);

impl Attempts {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for one more of an account.
    fn make_room(&self, uid: u32, now: Millis) -> Result<(), Error> {
        let mut table = self.table();
        table.all.retain(|_, a| now < a.expires && now < a.asked.plus(IDLE_MAX));
        let own: Vec<u64> =
            table.all.iter().filter(|(_, a)| a.uid == uid).map(|(n, _)| *n).collect();
        if own.len() >= ACCOUNT_MAX {
            // Numbers grow, so the first is the oldest.
            table.all.remove(&own[0]);
        }
        if table.all.len() >= ATTEMPTS_MAX {
            return Err(Error::limited("too many people prove themselves at this moment here")
                .hint("try again in a minute"));
        }
        Ok(())
    }

    fn put(&self, attempt: Attempt) -> String {
        let mut table = self.table();
        table.last += 1;
        let number = table.last;
        table.all.insert(number, attempt);
        number.to_string()
    }

    /// One that somebody asks after.
    fn ask(&self, name: &str, now: Millis) -> Option<Attempt> {
        let mut table = self.table();
        let attempt = table.all.get_mut(&name.parse().ok()?)?;
        attempt.asked = now;
        Some(attempt.clone())
    }

    fn end(&self, name: &str) {
        if let Ok(number) = name.parse::<u64>() {
            self.table().all.remove(&number);
        }
    }
}

/// What the person is shown: address and code first, for who cannot take a picture.
fn texts(begun: &BegunNodeLogin, account: &Account, service: &str) -> Vec<String> {
    let mut texts = vec![
        format!(
            "To go on with {service} as {}, open on any device:\n  {}",
            account.name, begun.address
        ),
        format!("sign in there as {}, and type the code:\n  {}", account.person, begun.code),
    ];
    if let Some(picture) = &begun.picture {
        texts.push(format!("or take a picture of this:\n{picture}"));
    }
    texts.retain(|text| text.len() <= TEXT_MAX);
    texts
}

impl Agent {
    /// Begins a proof. Where it is not allowed here, other modules decide.
    pub(in crate::agent) async fn auth_begin(&self, r: AuthBegin) -> Result<AuthStep, Error> {
        let logins = self.logins()?;
        if !logins.config.device {
            return Ok(AuthStep::NotOurs {});
        }
        let Some(who) = self.who(&r.user)? else { return Ok(AuthStep::NotOurs {}) };
        if let Some(e) = refusal(who.state.clone()) {
            audit("not proved", &who.account, &r.service, &r.rhost);
            return Ok(AuthStep::Refused { text: e.to_string() });
        }
        let account = who.account;
        logins.attempts.make_room(account.uid, self.now())?;
        let login = NodeLogin {
            node: self.node.clone(),
            user: account.name.clone(),
            service: r.service.clone(),
            person: account.person.clone(),
        };
        let begun = self.core()?.call(BeginNodeLogin { login }).await?;
        let texts = texts(&begun, &account, &r.service);
        let now = self.now();
        let attempt = logins.attempts.put(Attempt {
            user: account.name,
            uid: account.uid,
            service: r.service,
            person: account.person,
            secret: begun.attempt,
            pause: Duration::from_secs(begun.interval_s).clamp(PAUSE_MIN, PAUSE_MAX),
            expires: begun.expires,
            begun: now,
            asked: now,
        });
        Ok(AuthStep::Wait { attempt, texts })
    }

    /// Waits for the person, for a while.
    pub(in crate::agent) async fn auth_next(&self, r: AuthNext) -> Result<AuthStep, Error> {
        let attempts = &self.logins()?.attempts;
        let over = || AuthStep::Refused {
            text: "the code was not used in time, or another took its place; begin anew".into(),
        };
        let begun = self.now();
        loop {
            let now = self.now();
            let Some(attempt) = attempts.ask(&r.attempt, now).filter(|a| now < a.expires) else {
                return Ok(over());
            };
            tokio::time::sleep(attempt.pause).await;
            let state = match self.poll_login(&attempt).await {
                Ok(state) => state,
                // The core may come back before the code's time is over.
                Err(e) if e.kind == Kind::Unavailable => NodeLoginState::Waiting,
                Err(e) => {
                    attempts.end(&r.attempt);
                    return Err(e);
                }
            };
            match state {
                NodeLoginState::Waiting if self.now().since(begun) < WAIT => {}
                NodeLoginState::Waiting => {
                    return Ok(AuthStep::Wait { attempt: r.attempt, texts: Vec::new() });
                }
                decided => {
                    attempts.end(&r.attempt);
                    return self.decided(&attempt, decided).map(|s| s.unwrap_or_else(over));
                }
            }
        }
    }

    async fn poll_login(&self, attempt: &Attempt) -> Result<NodeLoginState, Error> {
        let ask = PollNodeLogin {
            node: self.node.clone(),
            person: attempt.person.clone(),
            attempt: attempt.secret.clone(),
        };
        self.core()?.call(ask).await
    }

    /// What the person's word means now: the account may have been suspended, or be another's,
    /// meanwhile. `None`: there is no word.
    fn decided(&self, attempt: &Attempt, state: NodeLoginState) -> Result<Option<AuthStep>, Error> {
        let refused = |text: &str| Ok(Some(AuthStep::Refused { text: text.to_owned() }));
        let who = self
            .who(&attempt.user)?
            .filter(|w| w.account.uid == attempt.uid && w.account.person == attempt.person);
        let Some(who) = who else { return refused("the account has just gone") };
        if state == NodeLoginState::Declined {
            audit("declined", &who.account, &attempt.service, &None);
            return refused("you said no on the other device");
        }
        if state != NodeLoginState::Allowed {
            return Ok(None);
        }
        if let Some(e) = refusal(who.state) {
            return refused(&e.to_string());
        }
        let took = self.now().since(attempt.begun);
        tracing::info!(user = attempt.user, ?took, "proved by another device");
        audit("proved", &who.account, &attempt.service, &None);
        Ok(Some(AuthStep::Proved {}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_base::{Epoch, MemberNumber};

    const NOW: Millis = Millis(1_000_000);

    fn attempt(uid: u32, now: Millis) -> Attempt {
        Attempt {
            user: "ann.demo.rennes".into(),
            uid,
            service: "sudo".into(),
            person: "ann@rennes".parse().unwrap(),
            secret: Secret("s".into()),
            pause: PAUSE_MIN,
            expires: now.plus(Duration::from_secs(600)),
            begun: now,
            asked: now,
        }
    }

    /// If it failed, one account's attempts would keep all others from proving themselves, or those
    /// who went away would.
    #[test]
    fn attempts_are_bounded_for_each_account_and_end_when_nobody_asks() {
        let attempts = Attempts::default();
        let mut names = Vec::new();
        for _ in 0..=ACCOUNT_MAX {
            attempts.make_room(7, NOW).unwrap();
            names.push(attempts.put(attempt(7, NOW)));
        }
        assert!(attempts.ask(&names[0], NOW).is_none(), "the oldest stayed");
        assert!(attempts.ask(&names[1], NOW).is_some());
        let others = ATTEMPTS_MAX - ACCOUNT_MAX;
        for uid in 0..u32::try_from(others).unwrap() {
            attempts.make_room(1000 + uid, NOW).unwrap();
            attempts.put(attempt(1000 + uid, NOW));
        }
        assert_eq!(attempts.make_room(8, NOW).unwrap_err().kind, Kind::Limited);
        let later = NOW.plus(IDLE_MAX);
        attempts.make_room(8, later).unwrap();
        assert!(attempts.table().all.is_empty(), "who went away holds a place");
        attempts.end("nonsense");
        assert!(attempts.ask("nonsense", later).is_none());
    }

    /// If it failed, who has no camera could not prove themselves.
    #[test]
    fn address_and_code_stand_before_the_picture() {
        let account = Account {
            name: "ann.demo.rennes".into(),
            uid: 1_900_000_007,
            gid: 1_900_000_001,
            home: "/home/xos/ann.demo.rennes".into(),
            person: "ann@rennes".parse().unwrap(),
            vo: "demo.rennes".parse().unwrap(),
            number: MemberNumber(7),
            epoch: Epoch(4),
            expires: None,
        };
        let mut begun = BegunNodeLogin {
            attempt: Secret("s".into()),
            address: "https://core.rennes.example:7443/device".into(),
            code: "BCDF-GHJK".into(),
            picture: Some("##\n##".into()),
            interval_s: 2,
            expires: NOW,
        };
        let shown = texts(&begun, &account, "sudo");
        assert_eq!(shown.len(), 3);
        assert!(shown[0].contains("sudo as ann.demo.rennes") && shown[0].contains("/device"));
        assert!(shown[1].contains("BCDF-GHJK") && shown[2].contains("##\n##"));
        begun.picture = Some("#".repeat(TEXT_MAX));
        assert_eq!(texts(&begun, &account, "sudo").len(), 2, "a far site fills the terminal");
    }
}
