//! Names that this site gives to accounts of members.

use super::Vom;
use crate::names::{Owned, Table, unknown};
use crate::policy::Action;
use crate::state::Block;
use xos_api::vom::{
    AccountName, DropName, GiveNames, ListNames, NAMES_MAX, NamePage, NamedAccount, PAGE_MAX,
    ReleaseName,
};
use xos_base::{Error, LocalName, PersonId, VoId};
use xos_net::Caller;
use xos_net::audit::asked;

impl Vom {
    pub(super) async fn give_names(
        &self,
        caller: Caller,
        r: GiveNames,
    ) -> Result<Vec<AccountName>, Error> {
        let given = self.given(&caller, &r).await;
        if given.is_ok() && r.dry_run {
            return given;
        }
        if given.is_ok() {
            for naming in &r.names {
                let event = self.event(&caller, "give_name", (&r.vo, naming))?;
                self.inner.told.note(event);
            }
        }
        self.noted(&caller, "give_names", (&r.vo, &r), given).await
    }

    /// All of them or none: an import that was half made could not be looked through.
    async fn given(&self, caller: &Caller, r: &GiveNames) -> Result<Vec<AccountName>, Error> {
        let live = self.known(&r.vo)?;
        self.authorise(&live, caller, Action::NameAccounts)?;
        let (inner, now) = (&self.inner, self.inner.clock.now());
        if r.names.is_empty() || r.names.len() > NAMES_MAX {
            return Err(Error::invalid(format!("1 to {NAMES_MAX} names are given at a time")));
        }
        let block = self.block(&r.vo)?;
        for naming in &r.names {
            let member = live.read().members.get(&naming.person).map(|m| m.number);
            let number = member.ok_or_else(|| {
                Error::not_found(format!("{} is no member of {}", naming.person, r.vo))
                    .hint(format!("xos vo members {}", r.vo))
            })?;
            if number.0 >= block.size {
                return Err(Error::denied(format!(
                    "{} has no account at this site: its numbers for {} end before {number}",
                    naming.person, r.vo
                )));
            }
        }
        let before = inner.names.with(Table::clone);
        let after = if r.dry_run {
            before.give(&r.vo, &r.names, now)?
        } else {
            let (vo, names) = (r.vo.clone(), r.names.clone());
            self.name(&r.vo, move |table| table.give(&vo, &names, now)).await?;
            inner.names.with(Table::clone)
        };
        let told = r.names.iter().map(|naming| -> Result<AccountName, Error> {
            let (vo, owned) = after.one(&naming.name).ok_or_else(|| unknown(&naming.name))?;
            let former = before.used(&r.vo, &naming.person).filter(|n| **n != naming.name);
            Ok(AccountName { former: former.cloned(), ..self.described(vo, owned) })
        });
        told.collect()
    }

    pub(super) async fn drop_name(
        &self,
        caller: Caller,
        r: DropName,
    ) -> Result<AccountName, Error> {
        let dropped = self.dropped(&caller, &r).await;
        self.noted(&caller, "drop_name", (&r.vo, &r), dropped).await
    }

    async fn dropped(&self, caller: &Caller, r: &DropName) -> Result<AccountName, Error> {
        let live = self.known(&r.vo)?;
        self.authorise(&live, caller, Action::NameAccounts)?;
        let (_, name) = self.inner.names.with(|table| table.drop_name(&r.vo, &r.person))?;
        let (vo, person) = (r.vo.clone(), r.person.clone());
        self.name(&r.vo, move |table| table.drop_name(&vo, &person).map(|(next, _)| next)).await?;
        self.named(&name)
    }

    pub(super) async fn release_name(
        &self,
        caller: Caller,
        r: ReleaseName,
    ) -> Result<AccountName, Error> {
        let mut event = asked(&caller, self.inner.clock.now(), "release_name");
        event.on = format!("name {}", r.name);
        let released = match self.site_admin(&caller).and_then(|()| self.named(&r.name)) {
            Ok(former) => {
                (event.vo, event.person) = (Some(former.vo.clone()), Some(former.person.clone()));
                self.released(&r, former).await
            }
            Err(e) => Err(e),
        };
        self.inner.told.end(event, released).await
    }

    /// Allowed once no member's account is called so. Somebody else can have it when it has rested.
    async fn released(&self, r: &ReleaseName, former: AccountName) -> Result<AccountName, Error> {
        let now = self.inner.clock.now();
        let (vo, person, name) = (former.vo.clone(), former.person.clone(), r.name.clone());
        let is_member = former.account.is_some();
        self.name(&former.vo, move |table| {
            let (of, owned) = table.one(&name).ok_or_else(|| unknown(&name))?;
            if *of != vo || owned.person != person {
                return Err(Error::conflict(format!("{name} went to somebody else meanwhile"))
                    .hint("look again: xos names list"));
            }
            if owned.used && is_member {
                return Err(Error::conflict(format!(
                    "the account of {person} in {vo} is called {name}"
                ))
                .hint(format!("first: xos names give {vo} {person} --default")));
            }
            table.release(&name, now)
        })
        .await?;
        Ok(AccountName { used: false, ..former })
    }

    pub(super) async fn list_names(&self, caller: Caller, r: ListNames) -> Result<NamePage, Error> {
        self.site_admin(&caller)?;
        let limit = r.limit.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX) as usize;
        let mut rows: Vec<(VoId, Owned)> = self.inner.names.with(|table| {
            let all = table.after(r.after.as_ref());
            let wanted = all.filter(|(vo, _)| r.vo.as_ref().is_none_or(|of| of == vo));
            wanted.take(limit + 1).cloned().collect()
        });
        let more = rows.len() > limit;
        rows.truncate(limit);
        let names: Vec<_> = rows.iter().map(|(vo, owned)| self.described(vo, owned)).collect();
        let next = names.last().filter(|_| more).map(|last| last.name.clone());
        Ok(NamePage { names, next })
    }

    /// Changes names. A caller who goes away does not undo it half-way: it runs as a task of its
    /// own.
    async fn name(
        &self,
        vo: &VoId,
        f: impl Fn(&Table) -> Result<Table, Error> + Send + Sync + 'static,
    ) -> Result<(), Error> {
        let (inner, vo) = (self.inner.clone(), vo.clone());
        let task = tokio::spawn(async move { inner.names.change(&inner.registry, &vo, f).await });
        task.await.map_err(|e| {
            tracing::error!(error = %e, "a change of names ended without a result");
            Error::internal("the change failed").hint("look whether it was made")
        })?
    }

    /// The numbers of a VO here.
    fn block(&self, vo: &VoId) -> Result<Block, Error> {
        self.inner.shares.with(vo, |s| s.block()).ok_or_else(|| {
            Error::not_found(format!("members of {vo} have no accounts at this site"))
                .hint(format!("offer the VO a share: xos vo share offer {vo}"))
        })
    }

    fn named(&self, name: &LocalName) -> Result<AccountName, Error> {
        let row = self.inner.names.with(|table| table.one(name).cloned());
        let (vo, owned) = row.ok_or_else(|| unknown(name))?;
        Ok(self.described(&vo, &owned))
    }

    fn described(&self, vo: &VoId, owned: &Owned) -> AccountName {
        AccountName {
            name: owned.name.clone(),
            vo: vo.clone(),
            person: owned.person.clone(),
            used: owned.used,
            since: owned.since,
            account: self.account_of(vo, &owned.person),
            former: None,
        }
    }

    fn account_of(&self, vo: &VoId, person: &PersonId) -> Option<NamedAccount> {
        let block = self.block(vo).ok()?;
        let live = self.inner.vos.one(vo)?;
        let state = live.read();
        let number = state.members.get(person)?.number;
        (number.0 < block.size).then(|| NamedAccount {
            number,
            uid: block.base.saturating_add(number.0),
            default: state.account_name(person, number, block),
        })
    }
}
