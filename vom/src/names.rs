//! The names that this site gave to accounts of members: what belongs to whom (pure), and a copy
//! in memory in step with the registry.
//!
//! A name belongs to one person in one VO from when it is given until it is released: files and
//! lists of the site may name it. Names of different VOs never meet either, since all accounts of
//! a machine have one space of names. After it was released it rests: a program may hold who it was
//! when the program looked, as sshd does for a connection, and ask for it by name later.

use crate::registry::Registry;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use xos_api::vom::{NAMES_MAX, Naming};
use xos_base::{Error, Kind, LocalName, Millis, PersonId, VoId};
use xos_store::Version;

/// How often a change is tried while other cores of the site change names.
const TRIES_MAX: usize = 8;
/// How long a released name is given to nobody else: much longer than sshd gives somebody to sign
/// in (sshd_config(5), `LoginGraceTime`), or anybody takes to prove themselves to PAM.
pub const REST: Duration = Duration::from_secs(3600);

/// A name of a member of one VO, as the registry keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owned {
    /// The name.
    pub name: LocalName,
    /// Whose.
    pub person: PersonId,
    /// Whether the account is called so; else the name is only kept for the person.
    pub used: bool,
    /// When it was first given.
    pub since: Millis,
    /// When it was released: it is nobody's since, and kept so that it rests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<Millis>,
}

impl Owned {
    /// Until when nobody else gets it.
    fn rests_until(&self) -> Millis {
        self.released.map_or(Millis::default(), |at| at.plus(REST))
    }
}

/// All names of this site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    names: BTreeMap<LocalName, (VoId, Owned)>,
    /// What accounts are called.
    used: BTreeMap<VoId, BTreeMap<PersonId, LocalName>>,
    /// Those that rest, with who had them last.
    resting: BTreeMap<LocalName, (VoId, Owned)>,
}

impl Table {
    /// From what the registry held.
    pub fn new(kept: Vec<(VoId, Vec<Owned>)>) -> Table {
        let mut table = Table::default();
        for (vo, names) in kept {
            for kept in names {
                table.put(&vo, kept);
            }
        }
        table
    }

    fn put(&mut self, vo: &VoId, kept: Owned) {
        if kept.released.is_some() {
            // Of what two VOs had one after the other, the later counts.
            let other = self.resting.get(&kept.name);
            if other.is_none_or(|(_, other)| other.released <= kept.released) {
                self.resting.insert(kept.name.clone(), (vo.clone(), kept));
            }
            return;
        }
        if kept.used {
            let used = self.used.entry(vo.clone()).or_default();
            used.insert(kept.person.clone(), kept.name.clone());
        }
        self.names.insert(kept.name.clone(), (vo.clone(), kept));
    }

    /// A name, with its VO.
    pub fn one(&self, name: &LocalName) -> Option<&(VoId, Owned)> {
        self.names.get(name)
    }

    /// What a person's account is called, where it has a name.
    pub fn used(&self, vo: &VoId, person: &PersonId) -> Option<&LocalName> {
        self.used.get(vo)?.get(person)
    }

    /// The names after one, by name.
    pub fn after(&self, after: Option<&LocalName>) -> impl Iterator<Item = &(VoId, Owned)> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.names
            .range::<LocalName, _>((after.map_or(Unbounded, Excluded), Unbounded))
            .map(|(_, kept)| kept)
    }

    /// The names of one VO, as the registry keeps them.
    pub fn of(&self, vo: &VoId) -> Vec<Owned> {
        let all = self.names.values().chain(self.resting.values());
        all.filter(|(of, _)| of == vo).map(|(_, kept)| kept.clone()).collect()
    }

    /// The same without what has rested.
    fn rested(&self, now: Millis) -> Table {
        let mut next = self.clone();
        next.resting.retain(|_, (_, kept)| kept.rests_until() > now);
        next
    }

    /// The same after `names` were given in `vo`: all of them or none.
    ///
    /// # Errors
    /// [`xos_base::Kind::Invalid`] when a person or a name stands twice in the request;
    /// [`xos_base::Kind::Conflict`] for a name that belongs to somebody else, or rests and was
    /// somebody else's;
    /// [`xos_base::Kind::Limited`] when the VO has too many.
    pub fn give(&self, vo: &VoId, names: &[Naming], now: Millis) -> Result<Table, Error> {
        let mut next = self.rested(now);
        let (mut people, mut seen) = (BTreeSet::new(), BTreeSet::new());
        for Naming { person, name } in names {
            if !people.insert(person) {
                return Err(Error::invalid(format!("{person} gets two names"))
                    .hint("an account is called by one name"));
            }
            if !seen.insert(name) {
                return Err(Error::invalid(format!("the name {name} goes to two people")));
            }
            let since = match self.one(name) {
                Some((of, kept)) if of != vo || kept.person != *person => {
                    return Err(belongs(of, kept));
                }
                Some((_, kept)) => kept.since,
                None => now,
            };
            // Back to who had it: their uid is what it led to.
            let was = next.resting.remove(name);
            if let Some((of, kept)) = was.filter(|(of, kept)| of != vo || kept.person != *person) {
                return Err(rests(&of, &kept));
            }
            next.unuse(vo, person);
            let (person, name) = (person.clone(), name.clone());
            next.put(vo, Owned { name, person, used: true, since, released: None });
        }
        if next.of(vo).len() > NAMES_MAX {
            return Err(Error::limited(format!("members of {vo} have {NAMES_MAX} names here"))
                .hint("release names that nobody uses, and wait an hour: xos names release NAME"));
        }
        Ok(next)
    }

    /// The same, in which a person's account has no name of its own any more, and that name.
    ///
    /// # Errors
    /// [`xos_base::Kind::NotFound`] when it has none.
    pub fn drop_name(&self, vo: &VoId, person: &PersonId) -> Result<(Table, LocalName), Error> {
        let mut next = self.clone();
        let name = next.unuse(vo, person).ok_or_else(|| {
            Error::not_found(format!("the account of {person} in {vo} has no name of its own here"))
        })?;
        Ok((next, name))
    }

    /// The name stays the person's.
    fn unuse(&mut self, vo: &VoId, person: &PersonId) -> Option<LocalName> {
        let name = self.used.get_mut(vo)?.remove(person)?;
        if let Some((_, kept)) = self.names.get_mut(&name) {
            kept.used = false;
        }
        Some(name)
    }

    /// The same, in which a name belongs to nobody and rests. The caller knows that no member's
    /// account is called so.
    ///
    /// # Errors
    /// [`xos_base::Kind::NotFound`] when it belongs to nobody.
    pub fn release(&self, name: &LocalName, now: Millis) -> Result<Table, Error> {
        let mut next = self.rested(now);
        let (vo, kept) = next.names.remove(name).ok_or_else(|| unknown(name))?;
        if kept.used
            && let Some(used) = next.used.get_mut(&vo)
        {
            used.remove(&kept.person);
        }
        next.put(&vo, Owned { used: false, released: Some(now), ..kept });
        Ok(next)
    }

    /// The same without the names of a VO.
    pub fn without(&self, vo: &VoId) -> Table {
        let mut next = self.clone();
        next.names.retain(|_, (of, _)| of != vo);
        next.resting.retain(|_, (of, _)| of != vo);
        next.used.remove(vo);
        next
    }

    /// Whose accounts of each VO are called otherwise in `next`.
    fn differing(&self, next: &Table) -> Vec<(VoId, PersonId)> {
        let vos: BTreeSet<&VoId> = self.used.keys().chain(next.used.keys()).collect();
        let mut all = Vec::new();
        for vo in vos {
            let (old, new) = (self.used.get(vo), next.used.get(vo));
            let people = old.into_iter().chain(new).flat_map(BTreeMap::keys);
            let people: BTreeSet<&PersonId> = people.collect();
            let differs = |p: &&PersonId| self.used(vo, p) != next.used(vo, p);
            all.extend(people.into_iter().filter(differs).map(|p| (vo.clone(), p.clone())));
        }
        all
    }
}

fn belongs(vo: &VoId, kept: &Owned) -> Error {
    let Owned { name, person, used, .. } = kept;
    let how = if *used { "is the name of" } else { "was, and stays, the name of" };
    Error::conflict(format!("{name} {how} {person} in {vo}")).hint(format!(
        "choose another name; or, once no file or list of the site names {person} so: \
         xos names release {name}"
    ))
}

fn rests(vo: &VoId, kept: &Owned) -> Error {
    let Owned { name, person, .. } = kept;
    let until = kept.rests_until();
    Error::conflict(format!(
        "{name} was the name of {person} in {vo}, and goes to nobody else before {until}"
    ))
    .hint("until then a connection that was opened by it may be theirs; give it later, or another")
}

/// No such name was given.
pub fn unknown(name: &LocalName) -> Error {
    Error::not_found(format!("this site gave nobody the name {name}"))
        .hint("`xos names list` shows those that it gave")
}

/// What accounts of one VO are called, for telling a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamesOf {
    /// Rises when a name of the VO changes.
    pub turn: u64,
    /// Who has which name.
    pub given: BTreeMap<PersonId, LocalName>,
    /// Whose name has changed since the turn that was asked for.
    pub changed: BTreeSet<PersonId>,
}

/// The names in memory, and a signal that they changed.
pub struct Names {
    now: RwLock<Now>,
    /// Held while they change.
    changing: Mutex<()>,
    changed: watch::Sender<u64>,
}

/// How a change went.
enum Tried {
    /// It is stored.
    Made,
    /// Another core had changed the names; they are read anew.
    Again,
}

struct Now {
    table: Table,
    /// Which state of the registry that is.
    version: Option<Version>,
    /// The turn of the last change.
    turn: u64,
    /// In which turn whose name changed last, since this process began.
    turns: BTreeMap<VoId, BTreeMap<PersonId, u64>>,
}

impl Names {
    /// From what the registry held.
    pub fn new(table: Table, version: Option<Version>) -> Names {
        let now = Now { table, version, turn: 0, turns: BTreeMap::new() };
        let (now, changing) = (RwLock::new(now), Mutex::new(()));
        Names { now, changing, changed: watch::Sender::new(0) }
    }

    /// Runs `f` on the names as they are.
    pub fn with<T>(&self, f: impl FnOnce(&Table) -> T) -> T {
        f(&self.now.read().unwrap_or_else(PoisonError::into_inner).table)
    }

    /// What accounts of `vo` are called, and whose name changed after the turn `since`.
    pub fn of(&self, vo: &VoId, since: u64) -> NamesOf {
        let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
        let turns = now.turns.get(vo);
        let newer = turns.into_iter().flatten().filter(|(_, turn)| **turn > since);
        NamesOf {
            turn: turns.into_iter().flat_map(BTreeMap::values).copied().max().unwrap_or(0),
            given: now.table.used.get(vo).cloned().unwrap_or_default(),
            changed: newer.map(|(person, _)| person.clone()).collect(),
        }
    }

    /// Tells when a name changed.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Changes names of one VO: `f` makes the new table from the old one, stored before it counts.
    ///
    /// # Errors
    /// Those of `f` and of the registry.
    pub async fn change<F>(&self, registry: &Registry, vo: &VoId, f: F) -> Result<(), Error>
    where
        F: Fn(&Table) -> Result<Table, Error>,
    {
        let _changing = self.changing.lock().await;
        for _ in 0..TRIES_MAX {
            match self.try_change(registry, vo, &f).await? {
                Tried::Made => return Ok(()),
                Tried::Again => {}
            }
        }
        Err(Error::conflict("names of accounts change all the time").hint("try again"))
    }

    /// Drops all names of a VO that is no more. They need no rest: since it was dissolved nobody
    /// signs in to its accounts.
    ///
    /// # Errors
    /// Those of the registry.
    pub async fn forget(&self, registry: &Registry, vo: &VoId) -> Result<(), Error> {
        self.change(registry, vo, |table| Ok(table.without(vo))).await?;
        self.now.write().unwrap_or_else(PoisonError::into_inner).turns.remove(vo);
        Ok(())
    }

    async fn try_change<F>(&self, registry: &Registry, vo: &VoId, f: &F) -> Result<Tried, Error>
    where
        F: Fn(&Table) -> Result<Table, Error>,
    {
        let (next, version) = {
            let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
            (f(&now.table)?, now.version)
        };
        match registry.put_names(vo, &next.of(vo), version).await {
            Ok(version) => {
                self.adopt(next, Some(version));
                Ok(Tried::Made)
            }
            // Another core may have changed them, or this change may have been made after all.
            Err(e) => {
                let (kept, version) = registry.names().await?;
                self.adopt(Table::new(kept), version);
                if e.kind == Kind::Conflict { Ok(Tried::Again) } else { Err(e) }
            }
        }
    }

    fn adopt(&self, next: Table, version: Option<Version>) {
        {
            let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
            let differing = now.table.differing(&next);
            now.turn = now.turn.saturating_add(1);
            let turn = now.turn;
            for (vo, person) in differing {
                now.turns.entry(vo).or_default().insert(person, turn);
            }
            now.table = next;
            now.version = version;
        }
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }
}

#[cfg(test)]
mod tests;
