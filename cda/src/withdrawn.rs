//! The keys of this site's nodes that hold no more, and the site's signed word on them.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};
use xos_api::site::{WITHDRAWN_MAX, WithdrawnKey, WithdrawnKeys};
use xos_base::{Error, Millis, SiteId};
use xos_net::sign::{Kind, Signer};

#[derive(Default)]
pub(crate) struct Withdrawn(RwLock<State>);

#[derive(Default)]
struct State {
    keys: BTreeMap<String, Millis>,
    said: Option<String>,
}

impl Withdrawn {
    /// These keys too hold no more, each until its certificates have expired.
    pub(crate) fn add(
        &self,
        keys: impl IntoIterator<Item = (String, Millis)>,
        (site, signer): (&SiteId, &Signer),
        now: Millis,
    ) -> Result<(), Error> {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        state.keys.extend(keys);
        state.keys.retain(|_, until| *until > now);
        // Said anew also without any, in place of what a key signed that may count no more.
        if state.keys.is_empty() && state.said.is_none() {
            return Ok(());
        }
        let said = WithdrawnKeys { site: site.clone(), keys: told(&state.keys), issued: now };
        state.said = Some(signer.sign(Kind::Withdrawn, &said)?);
        Ok(())
    }

    /// The last word, for the site's descriptor.
    pub(crate) fn said(&self) -> Option<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).said.clone()
    }
}

/// The keys that other sites are told of: if they are too many, those that hold longest.
fn told(keys: &BTreeMap<String, Millis>) -> Vec<WithdrawnKey> {
    let mut all: Vec<WithdrawnKey> =
        keys.iter().map(|(key, until)| WithdrawnKey { key: key.clone(), until: *until }).collect();
    all.sort_by_key(|k| std::cmp::Reverse(k.until));
    if all.len() > WITHDRAWN_MAX {
        tracing::warn!(
            keys = all.len(),
            limit = WITHDRAWN_MAX,
            "other sites are not told of all withdrawn keys: those that expire first are left out"
        );
        all.truncate(WITHDRAWN_MAX);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_net::sign::verify_with;

    #[test]
    fn too_many_keys_leave_out_those_that_expire_first() {
        let (w, signer) = (Withdrawn::default(), Signer::generate().unwrap());
        let site: SiteId = "rennes".parse().unwrap();
        let key = |i: u64| (format!("{i:064x}"), Millis(1000 + i));
        let most = WITHDRAWN_MAX as u64;
        w.add((0..most + 5).map(key), (&site, &signer), Millis(1)).unwrap();
        let public = {
            use base64::Engine;
            let raw = base64::engine::general_purpose::STANDARD.decode(signer.public()).unwrap();
            <[u8; 32]>::try_from(raw).unwrap()
        };
        let read = || {
            let said = w.said().unwrap();
            assert!(said.len() < xos_net::sign::JWS_MAX, "nobody would look at it");
            verify_with::<WithdrawnKeys>(Kind::Withdrawn, &said, &public).unwrap()
        };
        let said = read();
        assert_eq!(said.keys.len(), WITHDRAWN_MAX);
        assert!(said.keys.iter().all(|k| k.until >= Millis(1005)));
        // What has expired is told no more.
        w.add([], (&site, &signer), Millis(1000 + most)).unwrap();
        assert_eq!(read().keys.len(), 4);
    }
}
