//! Accounts at providers, and the people whose they are. Each account is one person's at most; a
//! person may have several. The registry keeps both directions, changed together.

use super::oidc::{Device, Proved};
use crate::Inner;
use crate::audit::Asker;
use crate::passkeys::Book;
use crate::policy;
use crate::registry::{self, Found, IdentityRecord, PersonRecord};
use xos_api::Done;
use xos_api::audit::Event;
use xos_api::cda::{Identities, Identity, LinkIdentity, LinkPoll, ListIdentities, UnlinkIdentity};
use xos_base::{Error, Millis, PersonId, ProviderId};
use xos_net::{Caller, Principal};
use xos_store::{Guard, Op};

/// Most accounts of one person.
const IDENTITIES_MAX: usize = 16;

impl Inner {
    /// Whose account it is, if anybody's.
    pub(super) async fn linked(
        &self,
        proved: &Proved,
    ) -> Result<Option<(PersonId, PersonRecord)>, Error> {
        let key = registry::identity_key(&proved.provider, &proved.key)?;
        let Some(found) = self.registry.read::<IdentityRecord>(&key).await? else {
            return Ok(None);
        };
        let person = found.value.person;
        match self.person(&person).await? {
            Some(record) if has(&record.value, &proved.provider, &proved.key) => {
                Ok(Some((person, record.value)))
            }
            _ => Err(Error::internal(format!("registry entry {key} is not in step with {person}"))),
        }
    }

    /// Makes a person at the first sign-in. A name that is taken is never taken over.
    pub(super) async fn make_person(
        &self,
        proved: &Proved,
    ) -> Result<(PersonId, PersonRecord), Error> {
        let person = proved.person.clone()?;
        let key = registry::person_key(&person)?;
        let now = self.now();
        let record = PersonRecord {
            password: None,
            disabled: false,
            site_admin: false,
            created: now,
            sessions_from: Millis(0),
            identities: vec![identity(proved, now)],
            passkeys: Book::default(),
            recovery: None,
        };
        let (guard, op) = claim(proved, &person)?;
        let guards = vec![Guard::Absent(key.clone()), guard];
        if self.registry.change(guards, vec![registry::put(key, &record)?, op]).await? {
            let mut event = Event::new(now, "create_person");
            event.who = person.to_string();
            event.on = format!("by an account at {}", proved.provider);
            event.person = Some(person.clone());
            self.told.note(event);
            return Ok((person, record));
        }
        Err(Error::conflict(format!("the name of your account, {person}, is taken here")).hint(
            "if it is yours, sign in as you did before and link the account in the console; else \
             ask a site administrator",
        ))
    }

    /// The caller, as somebody who may change what they sign in by: this site's, signed in a
    /// moment ago.
    pub(super) async fn fresh(&self, caller: &Caller) -> Result<Found<PersonRecord>, Error> {
        let grant = policy::may_link(caller, &self.site, self.now())?;
        self.enabled(&grant)
            .await?
            .ok_or_else(|| Error::denied(format!("{} is not of site {}", grant.person, self.site)))
    }

    pub(crate) async fn link_identity(
        &self,
        caller: Caller,
        r: LinkIdentity,
    ) -> Result<LinkPoll, Error> {
        let mut event = caller.event(self.now(), "link_identity");
        let linked = match self.account_to_link(&caller, r).await {
            Ok(Device::Pending(pause)) => {
                return Ok(LinkPoll { identity: None, interval_s: pause.as_secs().max(1) });
            }
            Ok(Device::Proved(proved)) => {
                event.on = proved.provider.to_string();
                self.link(&caller, &proved).await
            }
            Err(e) => Err(e),
        };
        let identity = self.told.end(event, linked).await?;
        Ok(LinkPoll { identity: Some(identity), interval_s: 0 })
    }

    async fn account_to_link(&self, caller: &Caller, r: LinkIdentity) -> Result<Device, Error> {
        self.fresh(caller).await?;
        match r.answer {
            Some(answer) => self.proved_by_code(&r.flow, answer).await.map(Device::Proved),
            None => self.proved_by_device(&r.flow).await,
        }
    }

    pub(super) async fn link(&self, caller: &Caller, proved: &Proved) -> Result<Identity, Error> {
        let mut found = self.fresh(caller).await?;
        let person = caller.person()?;
        match self.linked(proved).await? {
            None => {}
            Some((whose, record)) if whose == person => {
                let same = |i: &&Identity| is(i, &proved.provider, &proved.key);
                let known = record.identities.iter().find(same).cloned();
                return known.ok_or_else(|| Error::conflict("the account was unlinked meanwhile"));
            }
            Some(_) => {
                return Err(Error::conflict(format!(
                    "your account at {} is linked to somebody else here",
                    proved.title
                ))
                .hint("sign in by it to see whose it is; it can be unlinked there"));
            }
        }
        if found.value.identities.len() >= IDENTITIES_MAX {
            return Err(Error::invalid(format!("{person} has {IDENTITIES_MAX} accounts already"))
                .hint("unlink one that you do not use"));
        }
        let new = identity(proved, self.now());
        let (guard, op) = claim(proved, &person)?;
        let guards = vec![found.guard(), guard];
        found.value.identities.push(new.clone());
        let ops = vec![registry::put(found.key, &found.value)?, op];
        self.registry.apply(guards, ops, person.as_str()).await?;
        Ok(new)
    }

    pub(crate) async fn list_identities(
        &self,
        caller: Caller,
        _: ListIdentities,
    ) -> Result<Identities, Error> {
        let Principal::Person(person) = caller.principal() else {
            return Err(Error::denied(format!("{} has no ways to sign in", caller.describe()))
                .hint("sign in with `xos login`"));
        };
        let found = self.person(person).await?.ok_or_else(|| {
            Error::not_found(format!("{person} is not known at site {}", self.site))
        })?;
        let password = self.config.passwords && found.value.password.is_some();
        Ok(Identities { password, identities: found.value.identities })
    }

    pub(crate) async fn unlink_identity(
        &self,
        caller: Caller,
        r: UnlinkIdentity,
    ) -> Result<Done, Error> {
        let mut found = self.fresh(&caller).await?;
        let person = caller.person()?;
        if !has(&found.value, &r.provider, &r.key) {
            return Err(Error::not_found(format!("{person} has no such account linked")));
        }
        let guards = vec![found.guard()];
        found.value.identities.retain(|i| !is(i, &r.provider, &r.key));
        self.check_way_in(&found.value)?;
        // Whoever else signed in by that account goes too.
        found.value.sessions_from = self.now();
        let gone = registry::identity_key(&r.provider, &r.key)?;
        let ops = vec![registry::put(found.key, &found.value)?, Op::Del(gone)];
        self.registry.apply(guards, ops, person.as_str()).await?;
        Ok(Done {})
    }
}

impl Inner {
    /// Refuses to leave a person without a way to sign in.
    pub(super) fn check_way_in(&self, record: &PersonRecord) -> Result<(), Error> {
        let password = self.config.passwords && record.password.is_some();
        let account = record.identities.iter().any(|i| self.signs_in_by(&i.provider));
        let passkey = self.passkeys.host().is_some() && !record.passkeys.keys.is_empty();
        if password || account || passkey {
            return Ok(());
        }
        Err(Error::denied("this is the last way by which you can sign in").hint(
            "link another account, add a passkey, or set a password first: xos person passwd",
        ))
    }
}

fn is(identity: &Identity, provider: &ProviderId, key: &str) -> bool {
    identity.provider == *provider && identity.key == key
}

fn has(record: &PersonRecord, provider: &ProviderId, key: &str) -> bool {
    record.identities.iter().any(|i| is(i, provider, key))
}

fn identity(proved: &Proved, since: Millis) -> Identity {
    Identity {
        provider: proved.provider.clone(),
        key: proved.key.clone(),
        name: proved.name.clone(),
        since,
    }
}

/// The write that makes an account a person's, and its guard: it is nobody's.
fn claim(proved: &Proved, person: &PersonId) -> Result<(Guard, Op), Error> {
    let key = registry::identity_key(&proved.provider, &proved.key)?;
    let record = IdentityRecord { person: person.clone() };
    Ok((Guard::Absent(key.clone()), registry::put(key, &record)?))
}
