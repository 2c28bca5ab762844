//! Trust between sites.

use crate::Inner;
use crate::config::is_host_port;
use crate::registry::{self, OfferRecord, SiteRecord};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::time::Duration;
use xos_api::Done;
use xos_api::cda::{
    AcceptTrust, CompleteTrust, ForgetSite, ListSites, OfferTrust, OfferView, ReadOffer,
    SiteStatement, TrustOffer, TrustedSite,
};
use xos_api::site::{GetSite, SiteChanged, SiteDescriptor};
use xos_base::{Error, Millis, SiteId};
use xos_net::caller::CLOCK_SKEW_S;
use xos_net::identity::{descriptor_fingerprint, hex};
use xos_net::sign::Kind;
use xos_net::{Caller, Client, Peer, Proof, Trust};
use xos_store::{Guard, Op};

/// How long an invitation holds.
pub(crate) const OFFER_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Longest invitation or statement, in bytes.
const STATEMENT_MAX: usize = 32 * 1024;

/// Refuses a descriptor with which nothing could be done.
pub(crate) fn check_descriptor(d: &SiteDescriptor) -> Result<(), Error> {
    let bad = |what: &str| Error::invalid(format!("the descriptor of site {}: {what}", d.site));
    if d.addresses.is_empty() || !d.addresses.iter().all(|a| is_host_port(a)) {
        return Err(bad("an address is not host:port, or there is none"));
    }
    // Parses and bounds the rest.
    Trust::new().add(d.clone())
}

/// A descriptor as it will count here: with the later word where one was said before.
fn newest(inner: &Inner, d: SiteDescriptor) -> Result<SiteDescriptor, Error> {
    inner.trust.newest(d, inner.now().plus(Duration::from_secs(CLOCK_SKEW_S)))
}

/// Keeps a site's descriptor, and uses it from now on. Its root must be the known one, if any.
pub(crate) async fn remember_site(inner: &Inner, d: SiteDescriptor) -> Result<Millis, Error> {
    let _alone = inner.sites.lock().await;
    if d.site == inner.site {
        return Err(Error::conflict(format!("{} is this site itself", d.site)));
    }
    let key = registry::site_key(&d.site)?;
    let known = inner.registry.read::<SiteRecord>(&key).await?;
    let (guard, since) = match &known {
        None => (Guard::Absent(key.clone()), inner.now()),
        Some(k) if k.value.descriptor.root == d.root => (k.guard(), k.value.since),
        Some(_) => {
            return Err(Error::conflict(format!("site {} is trusted with another root", d.site))
                .hint(format!("if it was set up anew: `xos site forget {}`, then again", d.site)));
        }
    };
    let d = newest(inner, d)?;
    let op = registry::put(key, &SiteRecord { descriptor: d.clone(), since })?;
    inner.registry.apply(vec![guard], vec![op], d.site.as_str()).await?;
    let site = d.site.clone();
    inner.trust.add(d)?;
    // Statements between administrators leave out what the site withdrew.
    inner.asked.ask(site);
    Ok(since)
}

/// As [`remember_site`] for a site that is trusted; nothing when it was forgotten meanwhile.
pub(crate) async fn update_site(inner: &Inner, d: SiteDescriptor) -> Result<(), Error> {
    let _alone = inner.sites.lock().await;
    let key = registry::site_key(&d.site)?;
    let Some(known) = inner.registry.read::<SiteRecord>(&key).await? else { return Ok(()) };
    let d = newest(inner, d)?;
    let record = SiteRecord { descriptor: d.clone(), since: known.value.since };
    let op = registry::put(key, &record)?;
    inner.registry.apply(vec![known.guard()], vec![op], d.site.as_str()).await?;
    inner.trust.add(d)
}

/// Reads a statement signed by the site that it is about. Whether that site is who it says is for
/// the fingerprint, or the secret, to show.
pub(crate) fn read_statement(jws: &str, to: &SiteId, now: Millis) -> Result<SiteStatement, Error> {
    let bad = |why: &str| Error::invalid(format!("the invitation is refused: {why}"));
    if jws.len() > STATEMENT_MAX {
        return Err(Error::too_large(format!("an invitation is over {STATEMENT_MAX} bytes")));
    }
    let payload = jws.trim().split('.').nth(1).ok_or_else(|| bad("it is incomplete"))?;
    let claimed: SiteStatement = URL_SAFE_NO_PAD
        .decode(payload)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .ok_or_else(|| bad("it is incomplete or not an invitation"))?;
    check_descriptor(&claimed.from)?;
    let only = Trust::new();
    only.add(claimed.from.clone())?;
    let statement: SiteStatement = only
        .verify(Kind::SiteOffer, jws.trim(), &claimed.from.site)
        .map_err(|_| bad("it was changed on the way"))?;
    if statement.to != *to {
        return Err(bad(&format!("it is for site {}", statement.to)));
    }
    if statement.expires <= now {
        return Err(bad("it has expired").hint("the other administrator offers again"));
    }
    Ok(statement)
}

fn mac_key(secret: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let nibble = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes().chunks(2).map(|p| Some(nibble(p[0])? << 4 | nibble(p[1])?)).collect()
}

impl Inner {
    pub(crate) async fn site_descriptor(
        &self,
        _: Peer,
        _: GetSite,
    ) -> Result<SiteDescriptor, Error> {
        Ok(self.descriptor())
    }

    pub(crate) async fn offer_trust(
        &self,
        caller: Caller,
        r: OfferTrust,
    ) -> Result<TrustOffer, Error> {
        let grant = self.administrator(&caller).await?;
        if r.site == self.site {
            return Err(Error::invalid(format!("{} is this site itself", r.site)));
        }
        let secret = hex(&crate::issue::random::<32>()?);
        let expires = self.now().plus(OFFER_LIFE);
        let record = OfferRecord {
            secret: secret.clone(),
            fingerprint: r.fingerprint,
            expires,
            used_by: None,
        };
        let key = registry::key("offer", r.site.as_str())?;
        let op = self.registry.put_for(key, &record, OFFER_LIFE).await?;
        self.registry.apply(vec![grant.guard], vec![op], "your right as administrator").await?;
        let statement =
            SiteStatement { from: self.introduction(), to: r.site, secret: Some(secret), expires };
        let offer = self.keys.signer().sign(Kind::SiteOffer, &statement)?;
        Ok(TrustOffer { offer, fingerprint: self.keys.fingerprint(), expires })
    }

    pub(crate) async fn read_offer(
        &self,
        caller: Caller,
        r: ReadOffer,
    ) -> Result<OfferView, Error> {
        self.administrator(&caller).await?;
        let s = read_statement(&r.offer, &self.site, self.now())?;
        Ok(OfferView {
            fingerprint: descriptor_fingerprint(&s.from.root)?,
            site: s.from.site,
            addresses: s.from.addresses,
            expires: s.expires,
        })
    }

    pub(crate) async fn accept_trust(
        &self,
        caller: Caller,
        r: AcceptTrust,
    ) -> Result<TrustedSite, Error> {
        self.administrator(&caller).await?;
        let statement = read_statement(&r.offer, &self.site, self.now())?;
        let inviting = statement.from;
        let fingerprint = descriptor_fingerprint(&inviting.root)?;
        if r.fingerprint.trim() != fingerprint {
            return Err(Error::denied(format!(
                "the invitation comes from a site with the root {fingerprint}, not {:?}",
                r.fingerprint
            ))
            .hint("ask the other administrator for the fingerprint, by telephone for instance"));
        }
        let secret = statement.secret.ok_or_else(|| Error::invalid("it is no invitation"))?;
        let known = self.trust.descriptor(&inviting.site).ok();
        if inviting.site == self.site || known.is_some_and(|k| k.root != inviting.root) {
            return Err(Error::conflict(format!(
                "site {} is already known here with another root",
                inviting.site
            )));
        }
        self.complete(&inviting, &secret).await?;
        let since = remember_site(self, inviting.clone()).await?;
        Ok(TrustedSite { descriptor: inviting, fingerprint, since: Some(since) })
    }

    /// Tells the inviting core, over TLS that its offered root proves.
    async fn complete(&self, inviting: &SiteDescriptor, secret: &str) -> Result<(), Error> {
        let statement = SiteStatement {
            from: self.introduction(),
            to: inviting.site.clone(),
            secret: None,
            expires: self.now().plus(Duration::from_secs(600)),
        };
        let statement = self.keys.signer().sign(Kind::SiteOffer, &statement)?;
        let proof = hex(hmac::sign(&mac_key(secret), statement.as_bytes()).as_ref());
        let only = Trust::new();
        only.add(inviting.clone())?;
        let client = Client::new(inviting.site.clone(), &only, &Proof::None)?;
        client.call(CompleteTrust { site: self.site.clone(), statement, proof }).await?;
        Ok(())
    }

    pub(crate) async fn complete_trust(&self, _: Peer, r: CompleteTrust) -> Result<Done, Error> {
        let refused = || {
            Error::denied(format!("site {} was not invited, or the invitation is over", r.site))
                .hint("the inviting administrator offers again: `xos site offer`")
        };
        let key = registry::key("offer", r.site.as_str())?;
        let offer = self.registry.read::<OfferRecord>(&key).await?.ok_or_else(refused)?;
        let now = self.now();
        let tag = unhex(&r.proof).ok_or_else(refused)?;
        hmac::verify(&mac_key(&offer.value.secret), r.statement.as_bytes(), &tag)
            .map_err(|_| refused())?;
        if offer.value.expires <= now {
            return Err(refused());
        }
        let statement = read_statement(&r.statement, &self.site, now)?;
        if statement.from.site != r.site {
            return Err(refused());
        }
        let root = descriptor_fingerprint(&statement.from.root)?;
        let pinned = [&offer.value.fingerprint, &offer.value.used_by];
        if pinned.into_iter().flatten().any(|f| *f != root) {
            return Err(Error::denied(format!("site {} has another root than expected", r.site)));
        }
        if offer.value.used_by.is_none() {
            // Used first: of two who know the secret, one root alone gets in.
            let used = OfferRecord { used_by: Some(root), ..offer.value.clone() };
            let life = used.expires.since(now).max(Duration::from_secs(1));
            let op = self.registry.put_for(key, &used, life).await?;
            self.registry.apply(vec![offer.guard()], vec![op], "the invitation").await?;
        }
        remember_site(self, statement.from).await?;
        Ok(Done {})
    }

    pub(crate) async fn list_sites(
        &self,
        _: Caller,
        _: ListSites,
    ) -> Result<Vec<TrustedSite>, Error> {
        let since: std::collections::HashMap<String, Millis> = self
            .registry
            .all::<SiteRecord>("site")
            .await?
            .into_iter()
            .map(|(name, r)| (name, r.since))
            .collect();
        let view = |d: SiteDescriptor| {
            Ok(TrustedSite {
                fingerprint: descriptor_fingerprint(&d.root)?,
                since: since.get(d.site.as_str()).copied(),
                // Who reads this speaks with cores; nodes are told the rest by their own.
                descriptor: SiteDescriptor { withdrawn: None, ..d },
            })
        };
        self.trust.descriptors().into_iter().map(view).collect()
    }

    /// A site says that its descriptor has changed.
    pub(crate) async fn site_changed(&self, caller: Caller, _: SiteChanged) -> Result<Done, Error> {
        self.asked.ask(caller.core()?.clone());
        Ok(Done {})
    }

    pub(crate) async fn forget_site(&self, caller: Caller, r: ForgetSite) -> Result<Done, Error> {
        let grant = self.administrator(&caller).await?;
        if r.site == self.site {
            return Err(Error::invalid(format!("{} is this site itself", r.site)));
        }
        let _alone = self.sites.lock().await;
        let key = registry::site_key(&r.site)?;
        let found = self
            .registry
            .read::<SiteRecord>(&key)
            .await?
            .ok_or_else(|| Error::not_found(format!("site {} is not trusted here", r.site)))?;
        let ops = vec![Op::Del(key), Op::Del(registry::key("offer", r.site.as_str())?)];
        let guards = vec![grant.guard, found.guard()];
        self.registry.apply(guards, ops, r.site.as_str()).await?;
        self.trust.remove(&r.site);
        Ok(Done {})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hexadecimal_reads_back() {
        assert_eq!(unhex("00ff10"), Some(vec![0, 255, 16]));
        assert_eq!(unhex("0"), None);
        assert_eq!(unhex("zz"), None);
        assert_eq!(unhex("é"), None);
    }

    proptest! {
        /// A panic here would let a stranger end a core.
        #[test]
        fn garbage_is_no_invitation(a in ".{0,200}", b in prop::collection::vec(any::<u8>(), 0..200)) {
            let site = "rennes".parse().unwrap();
            let jws = format!("x.{}.y", URL_SAFE_NO_PAD.encode(&b));
            for text in [a.as_str(), jws.as_str()] {
                prop_assert!(read_statement(text, &site, Millis(0)).is_err());
            }
        }
    }
}
