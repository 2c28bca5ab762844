//! Logins to machines that their person allows here: one service on one node.
//!
//! The word of a person of this site counts at sites that do not trust each other, so it goes from
//! core to core: a node asks its own core, and that one the person's. Nothing is pushed to a
//! person: who wants in shows a code, and the person types it. So nobody is flooded. A site can
//! invent machines, so what it asks is bounded for all of them together: it has its part of the
//! table, and a budget for each person.

use super::device_codes::{DEVICE_LIFE, DEVICES_MAX, Polled, Wanted, shown};
use crate::Inner;
use crate::ops::limited;
use crate::qr::qr_picture;
use std::time::Duration;
use xos_api::cda::{
    BeginNodeLogin, BegunNodeLogin, DEVICE_PATH, IssueVouchedMandate, NodeLogin, NodeLoginState,
    PollNodeLogin, Secret,
};
use xos_base::{Error, Millis, NodeId};
use xos_net::{Caller, Principal};

/// The pause before each question of a node: somebody waits at the machine.
const NODE_INTERVAL: Duration = Duration::from_secs(2);
/// How long a person who said yes waits for the VO's home.
const HOME_WAIT: Duration = Duration::from_secs(5);
/// Longest local name and service, in bytes.
const NAME_MAX: usize = 64;

/// Refuses names that are none, which would stand in logs and on the page that asks.
pub(crate) fn check_login(login: &NodeLogin) -> Result<(), Error> {
    let plain = |text: &str| {
        (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
    };
    if plain(&login.user) && plain(&login.service) {
        return Ok(());
    }
    Err(Error::invalid(format!("user, service: 1 to {NAME_MAX} characters of ASCII, no blanks")))
}

impl Inner {
    /// Lets in the node itself, and its site's core for it. Whether this core passes it on: only
    /// what its own node asks, so that nothing goes in circles.
    async fn asks_for_node(&self, caller: &Caller, node: &NodeId) -> Result<bool, Error> {
        let refused = || Error::denied(format!("{} does not ask for {node}", caller.describe()));
        match caller.principal() {
            Principal::Core(site) if *site == node.site() => Ok(false),
            Principal::Node(_) => {
                let (present, _) = self.present_node(caller).await?;
                if present == *node { Ok(true) } else { Err(refused()) }
            }
            _ => Err(refused()),
        }
    }

    fn not_ours(&self, login: &NodeLogin) -> Error {
        Error::denied(format!("{} is not of site {}", login.person, self.site))
    }

    pub(crate) async fn begin_node_login(
        &self,
        caller: Caller,
        r: BeginNodeLogin,
    ) -> Result<BegunNodeLogin, Error> {
        let passes_on = self.asks_for_node(&caller, &r.login.node).await?;
        check_login(&r.login)?;
        let home = r.login.person.site();
        if home != self.site {
            return if passes_on {
                self.grid.call(&home, r).await
            } else {
                Err(self.not_ours(&r.login))
            };
        }
        let now = self.now();
        self.limiter
            .node_login(&r.login.person, &r.login.node, now)
            .map_err(|wait| limited("logins of this person to that machine or site", wait))?;
        let record = self.person(&r.login.person).await?;
        if record.is_none_or(|found| found.value.disabled) {
            return Err(Error::denied(format!("{} may not sign in here", r.login.person))
                .hint("ask an administrator of that site"));
        }
        let (attempt, code) = self.provider.logins.begin(r.login, NODE_INTERVAL, now)?;
        let code = shown(&code);
        let address = format!("{}{DEVICE_PATH}", self.outside.url());
        Ok(BegunNodeLogin {
            attempt: Secret(attempt),
            picture: qr_picture(&format!("{address}?user_code={code}")),
            address,
            code,
            interval_s: NODE_INTERVAL.as_secs(),
            expires: now.plus(DEVICE_LIFE),
        })
    }

    /// The mandate that a person who signed in then gives with a login, where the machine wants
    /// one. Without it they can sign in all the same.
    pub(super) async fn vouched(&self, login: &NodeLogin, signed_in: Millis) -> Option<String> {
        let vo = login.vo.clone()?;
        let (home, node, person) = (vo.site(), login.node.clone(), login.person.clone());
        let asked = self.grid.call(&home, IssueVouchedMandate { vo, node, person, signed_in });
        let late = |_| Err(Error::unavailable("the VO's home does not answer in time"));
        let got = tokio::time::timeout(HOME_WAIT, asked).await.unwrap_or_else(late);
        if let Err(error) = &got {
            let (person, node) = (&login.person, &login.node);
            tracing::warn!(%person, %node, %error, "a login has no mandate");
        }
        got.ok()
    }

    pub(crate) async fn poll_node_login(
        &self,
        caller: Caller,
        r: PollNodeLogin,
    ) -> Result<NodeLoginState, Error> {
        let passes_on = self.asks_for_node(&caller, &r.node).await?;
        let home = r.person.site();
        if home != self.site && passes_on {
            return self.grid.call(&home, r).await;
        }
        let same = |login: &NodeLogin| login.node == r.node && login.person == r.person;
        Ok(match self.provider.logins.poll(&r.attempt.0, same, self.now()) {
            Polled::Allowed(mandate) => NodeLoginState::Allowed { mandate },
            Polled::Declined => NodeLoginState::Declined,
            Polled::Pending | Polled::SlowDown => NodeLoginState::Waiting,
            Polled::Expired | Polled::Gone => NodeLoginState::Over,
        })
    }
}

impl Wanted for NodeLogin {
    const MOST: usize = DEVICES_MAX / 8;

    fn asker(&self) -> String {
        self.node.site().to_string()
    }
}
