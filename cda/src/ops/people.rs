//! The people of this site.

use crate::Inner;
use crate::config::Registration;
use crate::passkeys::Book;
use crate::passwords;
use crate::policy::PersonGrant;
use crate::registry::{self, Found, PersonRecord, RecoveryRecord, Registry};
use std::sync::Arc;
use xos_api::audit::Event;
use xos_api::cda::{
    CreatePerson, ListPeople, PAGE_MAX, Password, PasswordSet, PeoplePage, Person, Register,
    SetPassword, SetPerson, WhoAmI, Whoami,
};
use xos_base::{Error, Millis, PersonId, SiteId};
use xos_net::audit::Teller;
use xos_net::{Audit, Caller, Peer, Principal};
use xos_store::{Guard, Store};

/// The right to administer this site, checked against the registry, not only the token.
pub(crate) struct AdminGrant {
    pub(crate) by: PersonId,
    /// Holds while the administrator's own record is as it was checked.
    pub(crate) guard: Guard,
}

/// Makes the first administrator of a site, whose core does not run: for `xosd setup`. `audit` is
/// the site's.
///
/// # Errors
/// [`xos_base::Kind::Invalid`] for a bad name or password, [`xos_base::Kind::Conflict`] when the
/// person exists, [`xos_base::Kind::Internal`] when the registry or the audit fails.
pub async fn create_administrator(
    store: Arc<dyn Store>,
    site: &SiteId,
    name: &str,
    password: &xos_api::cda::Password,
    audit: Arc<dyn Audit>,
    now: Millis,
) -> Result<PersonId, Error> {
    passwords::check_form(password)?;
    let person = site.person(name)?;
    let record = new_person(passwords::hash_now(password.0.as_bytes())?, true, now);
    let made = create(&Registry::new(store), &person, &record, None).await;
    let mut event = Event::new(now, "create_administrator");
    event.who = format!("root of the core of {site}");
    event.person = Some(person.clone());
    Teller::new(audit).end(event, made).await?;
    Ok(person)
}

fn new_person(password: String, site_admin: bool, now: Millis) -> PersonRecord {
    PersonRecord {
        password: Some(password),
        disabled: false,
        site_admin,
        created: now,
        sessions_from: Millis(0),
        identities: Vec::new(),
        passkeys: Book::default(),
        recovery: None,
    }
}

async fn create(
    registry: &Registry,
    person: &PersonId,
    record: &PersonRecord,
    guard: Option<Guard>,
) -> Result<(), Error> {
    let key = registry::person_key(person)?;
    if registry.read::<PersonRecord>(&key).await?.is_some() {
        return Err(Error::conflict(format!("{person} exists already")).hint("take another name"));
    }
    let mut guards = vec![Guard::Absent(key.clone())];
    guards.extend(guard);
    registry.apply(guards, vec![registry::put(key, record)?], person.as_str()).await
}

fn view(person: PersonId, r: &PersonRecord) -> Person {
    Person { person, site_admin: r.site_admin, disabled: r.disabled, created: r.created }
}

impl Inner {
    pub(crate) async fn who_am_i(&self, caller: Caller, _: WhoAmI) -> Result<Whoami, Error> {
        let (person, vo) = match caller.principal() {
            Principal::Member(m) => (Some(m.person.clone()), Some(m.vo.clone())),
            Principal::Person(p) => (Some(p.clone()), None),
            Principal::Core(_) | Principal::Node(_) => (None, None),
        };
        Ok(Whoami { caller: caller.describe(), person, vo, site_admin: caller.site_admin() })
    }

    /// The caller as administrator of this site.
    pub(crate) async fn administrator(&self, caller: &Caller) -> Result<AdminGrant, Error> {
        let denied = || {
            Error::denied(format!("{} does not administer site {}", caller.describe(), self.site))
                .hint("a site administrator signs in and does it, or makes you one")
        };
        if !caller.site_admin() {
            return Err(denied());
        }
        let by = caller.person()?;
        let record = self.person(&by).await?.ok_or_else(denied)?;
        if record.value.disabled || !record.value.site_admin {
            return Err(denied());
        }
        if let Some(signed_in) = caller.signed_in() {
            check_session(&record.value, signed_in)?;
        }
        Ok(AdminGrant { by, guard: record.guard() })
    }

    pub(crate) async fn person(
        &self,
        person: &PersonId,
    ) -> Result<Option<Found<PersonRecord>>, Error> {
        if person.site() != self.site {
            return Ok(None);
        }
        self.registry.read(&registry::person_key(person)?).await
    }

    /// The record behind a grant for one of this site's people; `None` for people of other
    /// sites, whose own site decides by its tokens.
    pub(crate) async fn enabled(
        &self,
        grant: &PersonGrant,
    ) -> Result<Option<Found<PersonRecord>>, Error> {
        if grant.person.site() != self.site {
            return Ok(None);
        }
        let found = self.person(&grant.person).await?;
        let found = found.filter(|f| !f.value.disabled).ok_or_else(|| {
            Error::denied(format!("{} may not sign in here", grant.person))
                .hint("ask a site administrator")
        })?;
        check_session(&found.value, grant.signed_in)?;
        Ok(Some(found))
    }

    pub(crate) async fn create_person(
        &self,
        caller: Caller,
        r: CreatePerson,
    ) -> Result<Person, Error> {
        let grant = self.administrator(&caller).await?;
        let person = self.site.person(&r.name)?;
        let hash = self.passwords.hash(r.password).await?;
        let record = new_person(hash, r.site_admin, self.now());
        create(&self.registry, &person, &record, Some(grant.guard)).await?;
        Ok(view(person, &record))
    }

    pub(crate) async fn register(&self, peer: Peer, r: Register) -> Result<Person, Error> {
        if self.config.registration != Registration::Open || !self.config.passwords {
            return Err(Error::denied(format!("site {} does not let people register", self.site))
                .hint("ask a site administrator to make you known"));
        }
        let person = self.site.person(&r.name)?;
        passwords::check_form(&r.password)?;
        self.limiter
            .register(peer.address, self.now())
            .map_err(|wait| super::sign_in::limited("registrations", wait))?;
        let hash = self.passwords.hash(r.password).await?;
        let record = new_person(hash, false, self.now());
        create(&self.registry, &person, &record, None).await?;
        Ok(view(person, &record))
    }

    pub(crate) async fn list_people(
        &self,
        caller: Caller,
        r: ListPeople,
    ) -> Result<PeoplePage, Error> {
        self.administrator(&caller).await?;
        let limit = r.limit.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX) as usize;
        let after = r.after.as_ref().map(PersonId::name);
        let (records, more) = self.registry.page::<PersonRecord>("person", after, limit).await?;
        let people: Result<Vec<Person>, Error> =
            records.iter().map(|(name, r)| Ok(view(self.site.person(name)?, r))).collect();
        let people = people?;
        let next = if more { people.last().map(|p| p.person.clone()) } else { None };
        Ok(PeoplePage { people, next })
    }

    pub(super) async fn existing(&self, person: &PersonId) -> Result<Found<PersonRecord>, Error> {
        self.person(person).await?.ok_or_else(|| {
            Error::not_found(format!("{person} is not known at site {}", self.site))
                .hint("`xos person list` shows who is")
        })
    }

    pub(crate) async fn set_person(&self, caller: Caller, r: SetPerson) -> Result<Person, Error> {
        let grant = self.administrator(&caller).await?;
        if grant.by == r.person {
            return Err(Error::denied("administrators do not change themselves")
                .hint("another administrator of the site does it"));
        }
        let mut found = self.existing(&r.person).await?;
        let guards = vec![grant.guard, found.guard()];
        if let Some(disabled) = r.disabled {
            if disabled && !found.value.disabled {
                found.value.sessions_from = self.now();
            }
            found.value.disabled = disabled;
        }
        if let Some(admin) = r.site_admin {
            found.value.site_admin = admin;
        }
        let op = registry::put(found.key.clone(), &found.value)?;
        self.registry.apply(guards, vec![op], r.person.as_str()).await?;
        Ok(view(r.person, &found.value))
    }

    pub(crate) async fn set_password(
        &self,
        caller: Caller,
        r: SetPassword,
    ) -> Result<PasswordSet, Error> {
        passwords::check_form(&r.password)?;
        let own = caller.person().ok().as_ref() == Some(&r.person);
        let admin = match own {
            true => None,
            false => Some(self.administrator(&caller).await?),
        };
        let mut found = self.existing(&r.person).await?;
        let mut guards = vec![found.guard()];
        match admin {
            None => self.may_set_own_password(&caller, r.present, &found.value).await?,
            Some(AdminGrant { by, guard }) => {
                guards.push(guard);
                // Who set it can sign in by it, so the person is told, as after a recovery.
                found.value.recovery = Some(RecoveryRecord { by, at: self.now(), code: None });
            }
        }
        let first = found.value.password.is_none();
        found.value.password = Some(self.passwords.hash(r.password).await?);
        found.value.sessions_from = self.now();
        let op = registry::put(found.key.clone(), &found.value)?;
        self.registry.apply(guards, vec![op], r.person.as_str()).await?;
        Ok(PasswordSet { first })
    }
}

impl Inner {
    /// Who has a password names it; who has none signed in a moment ago, by a provider.
    async fn may_set_own_password(
        &self,
        caller: &Caller,
        present: Option<Password>,
        record: &PersonRecord,
    ) -> Result<(), Error> {
        if record.password.is_none() {
            return self.fresh(caller).await.map(drop);
        }
        let present = present.ok_or_else(|| {
            Error::invalid("the present password is needed to set a new one of your own")
        })?;
        self.prove(&caller.person()?, caller.address(), present, record).await
    }
}

/// Refuses a sign-in from before the password was changed or the person was disabled. Tokens know
/// it in whole seconds.
pub(super) fn check_session(record: &PersonRecord, signed_in: Millis) -> Result<(), Error> {
    if signed_in.secs() < record.sessions_from.secs() {
        return Err(Error::unauthenticated("this session was ended").hint("sign in again"));
    }
    Ok(())
}
