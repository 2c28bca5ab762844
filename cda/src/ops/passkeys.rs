//! A person's own passkeys: making, listing, removing, and whether one is wanted as a second step.

use crate::Inner;
use crate::passkeys::{self, By, Entry, Making, over};
use crate::registry::{self, Found, PasskeyRecord, PersonRecord};
use xos_api::Done;
use xos_api::cda::{
    BeginPasskey, Ceremony, FinishPasskey, Flow, ListPasskeys, PASSKEY_NAME_MAX, PASSKEYS_MAX,
    Passkey, PasskeyList, RemovePasskey, SetSecondFactor, WebAuthn,
};
use xos_base::{Error, PersonId};
use xos_net::{Caller, Principal};
use xos_store::{Guard, Op};

impl Inner {
    pub(crate) async fn begin_passkey(
        &self,
        caller: Caller,
        _: BeginPasskey,
    ) -> Result<Ceremony, Error> {
        let found = self.fresh(&caller).await?;
        self.begin_making(caller.person()?, &found.value, By::Session)
    }

    pub(crate) async fn finish_passkey(
        &self,
        caller: Caller,
        r: FinishPasskey,
    ) -> Result<Passkey, Error> {
        let found = self.fresh(&caller).await?;
        let person = caller.person()?;
        let making = self.passkeys.making.take(&r.flow.0, self.now());
        let mine = |m: &Making| m.person == person && matches!(m.by, By::Session);
        let making = making.filter(mine).ok_or_else(over)?;
        self.keep_passkey(found, &making, &r.name, r.credential).await.map(|(passkey, _)| passkey)
    }

    /// What the browser is to do so that `person` has another passkey.
    pub(super) fn begin_making(
        &self,
        person: PersonId,
        record: &PersonRecord,
        by: By,
    ) -> Result<Ceremony, Error> {
        check_room(&person, record)?;
        let (options, making) = self.passkeys.make(person, &record.passkeys, by)?;
        let flow = passkeys::secret()?;
        let expires = self.passkeys.making.put(&flow, making, self.now());
        Ok(Ceremony { flow: Flow(flow), options, expires })
    }

    /// Adds the passkey that was made to its person's record, which may hold other changes already.
    /// A key is one person's at most.
    pub(super) async fn keep_passkey(
        &self,
        mut found: Found<PersonRecord>,
        making: &Making,
        name: &str,
        credential: WebAuthn,
    ) -> Result<(Passkey, PersonRecord), Error> {
        let name = name.trim();
        let long = name.chars().count() > PASSKEY_NAME_MAX;
        if name.is_empty() || long || name.chars().any(xos_base::text::hidden) {
            return Err(Error::invalid(format!(
                "the name of a passkey has 1 to {PASSKEY_NAME_MAX} characters, all of them shown"
            )));
        }
        check_room(&making.person, &found.value)?;
        let passkey = self.passkeys.made(making, credential)?;
        let guard = found.guard();
        let book = &mut found.value.passkeys;
        if *book.handle.get_or_insert(making.handle) != making.handle {
            // Another first passkey was made meanwhile, under another handle.
            return Err(over());
        }
        let created = self.now();
        let entry = Entry { passkey, name: name.to_owned(), created, last_used: None };
        let view = entry.view();
        book.keys.push(entry);
        let key = registry::passkey_key(&view.key)?;
        let guards = vec![guard, Guard::Absent(key.clone())];
        let whose = PasskeyRecord { person: making.person.clone() };
        let ops = vec![registry::put(found.key, &found.value)?, registry::put(key, &whose)?];
        if self.registry.change(guards, ops).await? {
            return Ok((view, found.value));
        }
        Err(Error::conflict("this passkey is known already, or your account changed meanwhile")
            .hint("look at your passkeys, and begin again"))
    }

    pub(crate) async fn list_passkeys(
        &self,
        caller: Caller,
        _: ListPasskeys,
    ) -> Result<PasskeyList, Error> {
        let Principal::Person(person) = caller.principal() else {
            return Err(Error::denied(format!("{} has no passkeys", caller.describe()))
                .hint("sign in with `xos login`"));
        };
        let found = self.person(person).await?.ok_or_else(|| {
            Error::not_found(format!("{person} is not known at site {}", self.site))
        })?;
        let book = found.value.passkeys;
        let passkeys = book.keys.iter().map(Entry::view).collect();
        let required = self.passkeys.required();
        Ok(PasskeyList { passkeys, second_factor: book.second_factor, required })
    }

    pub(crate) async fn remove_passkey(
        &self,
        caller: Caller,
        r: RemovePasskey,
    ) -> Result<Done, Error> {
        let mut found = self.fresh(&caller).await?;
        let person = caller.person()?;
        let guards = vec![found.guard()];
        let book = &mut found.value.passkeys;
        let at = book.find(&r.key).ok_or_else(|| {
            Error::not_found(format!("{person} has no such passkey"))
                .hint("look at your passkeys again")
        })?;
        book.keys.remove(at);
        let wanted = book.second_factor || self.passkeys.required();
        if wanted && book.keys.is_empty() {
            return Err(Error::denied("this is your last passkey, and one is wanted of you")
                .hint("add another one first, or switch the second step off"));
        }
        self.check_way_in(&found.value)?;
        // Whoever else signed in by it goes too.
        found.value.sessions_from = self.now();
        let gone = registry::passkey_key(&r.key)?;
        let ops = vec![registry::put(found.key, &found.value)?, Op::Del(gone)];
        self.registry.apply(guards, ops, person.as_str()).await?;
        Ok(Done {})
    }

    pub(crate) async fn set_second_factor(
        &self,
        caller: Caller,
        r: SetSecondFactor,
    ) -> Result<Done, Error> {
        let mut found = self.fresh(&caller).await?;
        let person = caller.person()?;
        let guards = vec![found.guard()];
        if r.on && found.value.passkeys.keys.is_empty() {
            return Err(Error::denied("you have no passkey that you could be asked for")
                .hint("add one first"));
        }
        found.value.passkeys.second_factor = r.on;
        // Whoever came by less than is wanted now goes too.
        found.value.sessions_from = self.now();
        let op = registry::put(found.key, &found.value)?;
        self.registry.apply(guards, vec![op], person.as_str()).await?;
        Ok(Done {})
    }
}

fn check_room(person: &PersonId, record: &PersonRecord) -> Result<(), Error> {
    if record.passkeys.keys.len() < PASSKEYS_MAX {
        return Ok(());
    }
    Err(Error::invalid(format!("{person} has {PASSKEYS_MAX} passkeys already"))
        .hint("remove one that you do not use"))
}
