//! What a sign-in leaves behind at home.

use serde::{Deserialize, Serialize};
use std::time::Duration;
use xos_api::cda::{SignedIn, Token};
use xos_base::{Millis, PersonId, SiteId, VoId};

/// A token that ends so soon is not used any more: the request would outlive it.
pub const TOKEN_REST: Duration = Duration::from_secs(10);
/// Most tokens that are kept: one for each site that was asked lately.
pub const TOKENS_MAX: usize = 64;

/// What a sign-in left behind: `login.json`.
#[derive(Clone, Serialize, Deserialize)]
pub struct Login {
    /// Who signed in.
    pub person: PersonId,
    /// They administer their site.
    pub site_admin: bool,
    /// Until when tokens are renewed.
    pub session_until: Millis,
    /// Tokens, each for one site.
    #[serde(default)]
    pub tokens: Vec<KeptToken>,
    /// The VO that was named at the last sign-in: plain `ssh` acts in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_vo: Option<VoId>,
}

/// A token and when it came.
#[derive(Clone, Serialize, Deserialize)]
pub struct KeptToken {
    /// The token.
    pub token: Token,
    /// When it came, by this computer's clock.
    pub issued: Millis,
}

impl Login {
    /// The state after a sign-in at `now`.
    pub fn of(signed_in: SignedIn, default_vo: Option<VoId>, now: Millis) -> Login {
        Login {
            person: signed_in.person,
            site_admin: signed_in.site_admin,
            session_until: signed_in.session_until,
            tokens: vec![KeptToken { token: signed_in.token, issued: now }],
            default_vo,
        }
    }

    /// A token for `audience` that outlives a request.
    pub fn token(&self, audience: &SiteId, now: Millis) -> Option<&KeptToken> {
        let good = |t: &&KeptToken| {
            t.token.audience == *audience && now.plus(TOKEN_REST) < t.token.expires
        };
        self.tokens.iter().find(good)
    }

    /// The same when the core has ended it at `now`: it only says who it was.
    pub fn ended(self, now: Millis) -> Login {
        Login { session_until: now.min(self.session_until), tokens: Vec::new(), ..self }
    }

    /// Keeps a token in place of the one it renews.
    pub fn keep(&mut self, token: Token, now: Millis) {
        self.tokens.retain(|t| t.token.audience != token.audience && now < t.token.expires);
        self.tokens.truncate(TOKENS_MAX - 1);
        self.tokens.push(KeptToken { token, issued: now });
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn token(audience: &str, expires: u64) -> Token {
        Token { token: "t".into(), audience: audience.parse().unwrap(), expires: Millis(expires) }
    }

    /// Alice's sign-in, without a token.
    pub(in crate::cli) fn login() -> Login {
        Login {
            person: "alice@rennes".parse().unwrap(),
            site_admin: false,
            session_until: Millis(1_000_000),
            tokens: vec![],
            default_vo: None,
        }
    }

    /// If it failed, whoever changed their password would be asked who they are, or a token would
    /// stay on the disk that the core does not take any more.
    #[test]
    fn an_ended_sign_in_says_only_who_it_was() {
        let mut l = login();
        l.keep(token("rennes", 100_000), Millis(0));
        let left = l.clone().ended(Millis(7));
        assert_eq!((left.person, left.session_until), (l.person, Millis(7)));
        assert!(left.tokens.is_empty());
    }

    #[test]
    fn tokens_are_kept_one_for_each_site() {
        // A token for one site shown to another would let that one act as the person.
        let mut l = login();
        l.keep(token("rennes", 100_000), Millis(0));
        l.keep(token("pisa", 100_000), Millis(0));
        l.keep(token("pisa", 200_000), Millis(0));
        assert_eq!(l.tokens.len(), 2);
        let pisa = "pisa".parse().unwrap();
        assert_eq!(l.token(&pisa, Millis(0)).unwrap().token.expires, Millis(200_000));
        assert!(l.token(&pisa, Millis(195_000)).is_none());
    }
}
