//! The tokens of one session: the person's own for each site, and one for each VO.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;
use xos_api::cda::Token;
use xos_base::{Millis, SiteId, VoId};

/// A token that ends within this time is renewed.
pub(crate) const RENEW_AHEAD: Duration = Duration::from_secs(5 * 60);
/// A token that ends within this time is not used for a new request.
const USABLE: Duration = Duration::from_secs(30);
/// Most tokens of each sort; those that end first go first.
const TOKENS_MAX: usize = 64;

/// What a session's person proves themselves by.
pub(crate) struct Tokens {
    /// The person, at this site.
    pub(crate) person: Token,
    /// The person, at the homes of their VOs.
    pub(crate) sites: Kept<SiteId>,
    /// The member of a VO, at this site.
    pub(crate) vos: Kept<VoId>,
}

impl Tokens {
    pub(crate) fn new(person: Token) -> Tokens {
        Tokens { person, sites: Kept::default(), vos: Kept::default() }
    }
}

/// Tokens by what they are for.
pub(crate) struct Kept<K>(HashMap<K, Token>);

impl<K> Default for Kept<K> {
    fn default() -> Kept<K> {
        Kept(HashMap::new())
    }
}

impl<K: Clone + Eq + Hash> Kept<K> {
    /// The one for `key`, if it can be used for a while yet.
    pub(crate) fn usable(&self, key: &K, now: Millis) -> Option<&Token> {
        self.0.get(key).filter(|t| t.expires > now.plus(USABLE))
    }

    pub(crate) fn put(&mut self, key: K, token: Token, now: Millis) {
        self.0.retain(|_, t| t.expires > now);
        if self.0.len() >= TOKENS_MAX
            && let Some(first) =
                self.0.iter().min_by_key(|(_, t)| t.expires).map(|(k, _)| k.clone())
        {
            self.0.remove(&first);
        }
        self.0.insert(key, token);
    }

    pub(crate) fn forget(&mut self, key: &K) {
        self.0.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_bounded_and_not_used_at_their_end() {
        let site: SiteId = "rennes".parse().unwrap();
        let token = |s: u64| Token {
            token: String::new(),
            audience: site.clone(),
            expires: Millis::from_secs(s),
        };
        let mut kept = Kept::<u64>::default();
        for i in 0..200 {
            kept.put(i, token(1000 + i), Millis(0));
        }
        assert_eq!(kept.0.len(), TOKENS_MAX);
        assert!(kept.usable(&199, Millis::from_secs(1100)).is_some());
        assert!(kept.usable(&199, Millis::from_secs(1180)).is_none());
        assert!(kept.usable(&0, Millis(0)).is_none(), "the one that ends first went first");
    }
}
