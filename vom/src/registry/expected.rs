//! People whom a VO expects. They stand in the registry of its home and not in its log: nobody has
//! asked them yet, so that other sites do not learn of them.

use super::{Registry, encode, graves, key, prefix};
use serde::{Deserialize, Serialize};
use xos_api::vom::ExpectedPerson;
use xos_base::{Error, GroupNumber, PersonId, VoId};
use xos_store::{Guard, Key, Op, StoreError, TxnOutcome, Version};

/// How many people one transaction takes; the count of them is one more key.
pub const EXPECTED_AT_ONCE: usize = 60;

/// A person who is expected, and by whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// As what.
    pub as_what: ExpectedPerson,
    /// Who said so: the person counts as having approved the application, if they still may then.
    pub by: PersonId,
    /// The numbers of the groups then: one made later under an old name is another.
    pub numbers: Vec<GroupNumber>,
}

/// How many people are expected, and which state of that it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// So many.
    pub count: u64,
    version: Option<Version>,
}

fn person_key(vo: &VoId, person: &PersonId) -> Result<Key, Error> {
    key(&["vom", "vo", vo.as_str(), "expected", person.as_str()])
}

fn count_key(vo: &VoId) -> Result<Key, Error> {
    key(&["vom", "vo", vo.as_str(), "expecting"])
}

fn read(value: &[u8]) -> Result<Expected, Error> {
    serde_json::from_slice(value)
        .map_err(|e| Error::internal(format!("the registry's note on an expected person: {e}")))
}

impl Registry {
    /// A person, if expected.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn expected(&self, vo: &VoId, person: &PersonId) -> Result<Option<Expected>, Error> {
        let entry = self.store.get(&person_key(vo, person)?).await.map_err(StoreError::told)?;
        entry.map(|e| read(&e.value)).transpose()
    }

    /// People who are expected after one, by person, at most `limit`, and whether there are more.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn expected_after(
        &self,
        vo: &VoId,
        after: Option<&PersonId>,
        limit: usize,
    ) -> Result<(Vec<ExpectedPerson>, bool), Error> {
        let below = prefix(&["vom", "vo", vo.as_str(), "expected"])?;
        let after = after.map(|p| person_key(vo, p)).transpose()?;
        let page =
            self.store.scan(&below, after.as_ref(), limit).await.map_err(StoreError::told)?;
        let more = page.next.is_some();
        let people = page.entries.into_iter().map(|e| read(&e.value).map(|x| x.as_what));
        Ok((people.collect::<Result<Vec<_>, Error>>()?, more))
    }

    /// How many people are expected.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn expecting(&self, vo: &VoId) -> Result<Count, Error> {
        let entry = self.store.get(&count_key(vo)?).await.map_err(StoreError::told)?;
        let Some(entry) = entry else { return Ok(Count::default()) };
        let count = serde_json::from_slice(&entry.value)
            .map_err(|e| Error::internal(format!("the registry's count of people: {e}")))?;
        Ok(Count { count, version: Some(entry.version) })
    }

    /// Writes and removes notes in one step, unless their count changed after `former`. `count` is
    /// what it is then. At most [`EXPECTED_AT_ONCE`] together.
    ///
    /// # Errors
    /// [`xos_base::Kind::Conflict`] when it did; those of the store.
    pub async fn change_expected(
        &self,
        vo: &VoId,
        put: &[Expected],
        drop: &[PersonId],
        former: Count,
        count: u64,
    ) -> Result<(), Error> {
        let at = count_key(vo)?;
        let guard = match former.version {
            Some(version) => Guard::Is(at.clone(), version),
            None => Guard::Absent(at.clone()),
        };
        let mut ops = vec![Op::put(at, encode(&count)?)];
        for expected in put {
            ops.push(Op::put(person_key(vo, &expected.as_what.person)?, encode(expected)?));
        }
        for person in drop {
            ops.push(Op::Del(person_key(vo, person)?));
        }
        let grave = graves::grave_key(vo)?;
        let guards = vec![guard, Guard::Absent(grave.clone())];
        match self.store.txn(guards, ops).await.map_err(StoreError::told)? {
            TxnOutcome::Applied(_) => Ok(()),
            TxnOutcome::Conflict { keys } if keys.contains(&grave) => Err(graves::gone(vo)),
            TxnOutcome::Conflict { .. } => {
                Err(Error::conflict(format!("who is expected in {vo} changed meanwhile"))
                    .hint("try again"))
            }
        }
    }
}
