//! What vom keeps in the registry:
//!
//! | key | content |
//! | --- | --- |
//! | `vom/vos/<vo>` | the VO is known here |
//! | `vom/vo/<vo>/log/<number>` | one signed entry |
//! | `vom/vo/<vo>/checkpoint` | [`Head`] of the last checkpoint |
//! | `vom/vo/<vo>/part/<number>/<index>` | a piece of a checkpoint |
//! | `vom/vo/<vo>/expected/<person>` | [`Expected`]: admitted as soon as they apply |
//! | `vom/vo/<vo>/expecting` | how many those are |
//! | `vom/erased/<vo>` | [`Grave`]: the VO was dissolved and is no more |
//! | `vom/heard/<vo>` | when the VO's home was last heard |
//! | `vom/served/<vo>` | [`Served`] |
//! | `vom/names/<vo>` | the names that accounts of the VO's members were given here |
//! | `vom/naming` | written with each of these: which state of all names it is |
//! | `vom/rules/head` | version and last changes of the site's rules |
//! | `vom/rules/part/<index>` | a piece of the site's rules |
//! | `vom/audit/…` | how far other sites' audits are: [`crate::audit`] |
//! | `vom/block/<index>` | the VO to which those 65,536 uids and gids belong |
//! | `vom/about/<vo>/<person>/<number>` | that entry concerns the person; at the home |
//! | `vom/private/<vo>/<digest>` | what the log names by its salted digest only; at the home |

mod history;
mod private;

mod rules;

mod expected;
mod graves;
pub use expected::{EXPECTED_AT_ONCE, Expected};
pub use graves::Grave;

use crate::log::{self, Chain};
use crate::names::Owned;
use crate::served::{BLOCK, Served};
use crate::state::Vo;
use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use xos_base::{Error, Millis, PersonId, VoId};
use xos_store::{Guard, Key, KeyError, Op, Prefix, Store, StoreError, TxnOutcome, Version};

/// Size of a piece of a checkpoint, in bytes.
const PART_BYTES: usize = 256 * 1024;
/// How many entries are read at once.
pub const READ_ENTRIES: usize = 256;
/// Fewest entries between two checkpoints.
const CHECKPOINT_EVERY: u64 = 256;

/// The registry as vom uses it.
#[derive(Clone)]
pub struct Registry {
    store: Arc<dyn Store>,
}

/// What a checkpoint consists of.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    number: u64,
    hash: String,
    parts: u32,
    /// SHA-256 over all parts, base64.
    sum: String,
}

/// Whether an entry found its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is stored.
    Yes,
    /// Another entry has that number already.
    Taken,
}

fn key_error(e: KeyError) -> Error {
    Error::internal(format!("registry key: {e}"))
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Bytes, Error> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|e| Error::internal(format!("cannot encode a registry value: {e}")))
}

pub(crate) fn key(segments: &[&str]) -> Result<Key, Error> {
    Key::of(segments).map_err(key_error)
}

pub(crate) fn prefix(segments: &[&str]) -> Result<Prefix, Error> {
    Prefix::of(segments).map_err(key_error)
}

pub(crate) fn padded(number: u64) -> String {
    format!("{number:020}")
}

fn log_key(vo: &VoId, number: u64) -> Result<Key, Error> {
    key(&["vom", "vo", vo.as_str(), "log", &padded(number)])
}

fn damaged(vo: &VoId, what: impl std::fmt::Display) -> Error {
    Error::internal(format!("the registry's log of {vo} is damaged: {what}"))
        .hint("restore the registry from a backup")
}

impl Registry {
    /// Over a store.
    pub fn new(store: Arc<dyn Store>) -> Registry {
        Registry { store }
    }

    /// Stores one entry, unless its number is taken.
    ///
    /// # Errors
    /// Those of the store; what is unknown was read again. [`xos_base::Kind::Conflict`] when the VO
    /// is no more.
    pub async fn append(&self, vo: &VoId, number: u64, jws: &str) -> Result<Appended, Error> {
        self.append_about(vo, number, jws, &[]).await
    }

    /// As [`Registry::append`], with the entry in the histories of these persons.
    ///
    /// # Errors
    /// As [`Registry::append`].
    pub async fn append_about(
        &self,
        vo: &VoId,
        number: u64,
        jws: &str,
        about: &[&PersonId],
    ) -> Result<Appended, Error> {
        let at = log_key(vo, number)?;
        // An id is given once, also when its VO is no more; another core of the site may not know.
        let grave = graves::grave_key(vo)?;
        let guards = vec![Guard::Absent(at.clone()), Guard::Absent(grave.clone())];
        let mut ops = vec![Op::put(at.clone(), Bytes::copy_from_slice(jws.as_bytes()))];
        for person in about {
            ops.push(Op::put(history::key_of(vo, person, number)?, Bytes::from_static(b"{}")));
        }
        if number == 1 {
            ops.push(Op::put(key(&["vom", "vos", vo.as_str()])?, Bytes::from_static(b"{}")));
        }
        match self.store.txn(guards, ops).await {
            Ok(TxnOutcome::Applied(_)) => Ok(Appended::Yes),
            Ok(TxnOutcome::Conflict { keys }) if keys.contains(&grave) => Err(graves::gone(vo)),
            Ok(TxnOutcome::Conflict { .. }) => Ok(Appended::Taken),
            Err(unknown @ StoreError::Unknown { .. }) => {
                match self.store.get(&at).await.map_err(StoreError::told)? {
                    Some(e) if e.value == jws.as_bytes() => Ok(Appended::Yes),
                    Some(_) => Ok(Appended::Taken),
                    None => Err(unknown.told()),
                }
            }
            Err(e) => Err(e.told()),
        }
    }

    /// Entries after a number, in order, at most [`READ_ENTRIES`].
    ///
    /// # Errors
    /// Those of the store.
    pub async fn entries(&self, vo: &VoId, after: u64) -> Result<Vec<String>, Error> {
        let below = prefix(&["vom", "vo", vo.as_str(), "log"])?;
        let from = log_key(vo, after)?;
        let page =
            self.store.scan(&below, Some(&from), READ_ENTRIES).await.map_err(StoreError::told)?;
        let texts = page.entries.into_iter().map(|e| String::from_utf8(e.value.to_vec()));
        texts.collect::<Result<_, _>>().map_err(|_| damaged(vo, "an entry is no text"))
    }

    /// The VOs known here.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn known(&self) -> Result<Vec<VoId>, Error> {
        let mut known = Vec::new();
        for (name, _, _) in self.all(&prefix(&["vom", "vos"])?).await? {
            known.push(name.parse()?);
        }
        Ok(known)
    }

    /// A VO from its last checkpoint and the entries after it.
    ///
    /// # Errors
    /// Those of the store; [`xos_base::Kind::Internal`] when the log does not hold together.
    pub async fn load(&self, vo: &VoId) -> Result<(Vo, Chain, u64), Error> {
        let (mut state, mut chain) = match self.checkpoint(vo).await? {
            Some((state, hash)) => {
                let chain = Chain { number: state.number, hash, time: state.time };
                (Some(state), chain)
            }
            None => (None, Chain::start()),
        };
        let checkpointed = chain.number;
        loop {
            let entries = self.entries(vo, chain.number).await?;
            if entries.is_empty() {
                break;
            }
            for jws in entries {
                let entry = log::reread(&jws).map_err(|e| damaged(vo, e))?;
                chain.follows(&entry).map_err(|e| damaged(vo, e))?;
                match &mut state {
                    Some(state) => state.apply(&entry),
                    None => state = Some(Vo::found(&entry).map_err(|e| damaged(vo, e))?),
                }
                chain.advance(&entry, &jws);
            }
        }
        let state = state.ok_or_else(|| damaged(vo, "it is empty"))?;
        Ok((state, chain, checkpointed))
    }

    async fn checkpoint(&self, vo: &VoId) -> Result<Option<(Vo, String)>, Error> {
        let at = key(&["vom", "vo", vo.as_str(), "checkpoint"])?;
        let Some(entry) = self.store.get(&at).await.map_err(StoreError::told)? else {
            return Ok(None);
        };
        let Ok(head) = serde_json::from_slice::<Head>(&entry.value) else {
            tracing::warn!(%vo, "the checkpoint is of another version: the whole log is read");
            return Ok(None);
        };
        let mut bytes = Vec::new();
        for index in 0..head.parts {
            let at = part_key(vo, head.number, index)?;
            if let Some(part) = self.store.get(&at).await.map_err(StoreError::told)? {
                bytes.extend_from_slice(&part.value);
            }
        }
        match serde_json::from_slice::<Vo>(&bytes) {
            Ok(mut state) if sum(&bytes) == head.sum => {
                state.index();
                Ok(Some((state, head.hash)))
            }
            _ => {
                tracing::warn!(%vo, "the checkpoint cannot be used: the whole log is read");
                Ok(None)
            }
        }
    }

    /// Stores a checkpoint and removes the one before, which was made at `former` (0: none).
    ///
    /// # Errors
    /// Those of the store; the log itself is untouched by them.
    pub async fn write_checkpoint(
        &self,
        state: &[u8],
        vo: &VoId,
        chain: &Chain,
        former: u64,
    ) -> Result<(), Error> {
        let mut parts: u32 = 0;
        for chunk in state.chunks(PART_BYTES) {
            let at = part_key(vo, chain.number, parts)?;
            self.put_of(vo, at, Bytes::copy_from_slice(chunk)).await?;
            parts = parts.saturating_add(1);
        }
        let head = Head { number: chain.number, hash: chain.hash.clone(), parts, sum: sum(state) };
        let at = key(&["vom", "vo", vo.as_str(), "checkpoint"])?;
        self.put_of(vo, at, encode(&head)?).await?;
        if former == 0 || former == chain.number {
            return Ok(());
        }
        let old = prefix(&["vom", "vo", vo.as_str(), "part", &padded(former)])?;
        loop {
            let page = self.store.scan(&old, None, 1).await.map_err(StoreError::told)?;
            let Some(entry) = page.entries.into_iter().next() else { return Ok(()) };
            let del = vec![Op::Del(entry.key)];
            self.store.txn(Vec::new(), del).await.map_err(StoreError::told)?;
        }
    }

    /// When the home of a VO was last heard, as far as it was noted.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn heard(&self, vo: &VoId) -> Result<Millis, Error> {
        let at = key(&["vom", "heard", vo.as_str()])?;
        let entry = self.store.get(&at).await.map_err(StoreError::told)?;
        Ok(entry.and_then(|e| serde_json::from_slice(&e.value).ok()).unwrap_or_default())
    }

    /// Notes when the home of a VO was last heard.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn note_heard(&self, vo: &VoId, at: Millis) -> Result<(), Error> {
        let key = key(&["vom", "heard", vo.as_str()])?;
        self.put_of(vo, key, encode(&at)?).await
    }

    /// This site's sides of shares.
    ///
    /// # Errors
    /// Those of the store; [`xos_base::Kind::Internal`] for a damaged one.
    pub async fn served(&self) -> Result<Vec<(Served, Version)>, Error> {
        let mut all = Vec::new();
        for (name, value, version) in self.all(&prefix(&["vom", "served"])?).await? {
            let served: Served = serde_json::from_slice(&value).map_err(|e| {
                Error::internal(format!("the registry's share for {name} is damaged: {e}"))
            })?;
            all.push((served, version));
        }
        Ok(all)
    }

    /// Stores this site's side of a share; a new one takes its block, which must be free.
    ///
    /// # Errors
    /// [`xos_base::Kind::Conflict`] when it changed meanwhile or a block is taken.
    pub async fn put_served(
        &self,
        served: &Served,
        former: Option<Version>,
    ) -> Result<Version, Error> {
        let at = key(&["vom", "served", served.vo.as_str()])?;
        let mut ops = vec![Op::put(at.clone(), encode(served)?)];
        let mut guards = Vec::new();
        match former {
            Some(version) => guards.push(Guard::Is(at, version)),
            None => {
                guards.push(Guard::Absent(at));
                let last = served.base.saturating_add(served.size.saturating_sub(1));
                for index in served.base / BLOCK..=last / BLOCK {
                    let at = key(&["vom", "block", &index.to_string()])?;
                    guards.push(Guard::Absent(at.clone()));
                    ops.push(Op::put(at, encode(&served.vo)?));
                }
            }
        }
        match self.store.txn(guards, ops).await.map_err(StoreError::told)? {
            TxnOutcome::Applied(version) => Ok(version),
            TxnOutcome::Conflict { keys } => {
                tracing::warn!(vo = %served.vo, ?keys, "share changed meanwhile");
                Err(Error::conflict(format!(
                    "this site's share for {}, or its uids, changed meanwhile",
                    served.vo
                ))
                .hint("try again"))
            }
        }
    }

    /// The names that accounts were given, by VO, and which state of them that is.
    ///
    /// # Errors
    /// Those of the store; [`xos_base::Kind::Internal`] for a damaged one.
    pub async fn names(&self) -> Result<(Vec<(VoId, Vec<Owned>)>, Option<Version>), Error> {
        // First which state: if it is older than what is read, the next change finds out.
        let naming = self.store.get(&key(&["vom", "naming"])?).await.map_err(StoreError::told)?;
        let mut names = Vec::new();
        for (vo, value, _) in self.all(&prefix(&["vom", "names"])?).await? {
            let of: Vec<Owned> = serde_json::from_slice(&value).map_err(|e| {
                Error::internal(format!("the registry's names of {vo} are damaged: {e}"))
                    .hint("restore the registry from a backup")
            })?;
            let vo: VoId = vo.parse()?;
            names.push((vo, of));
        }
        Ok((names, naming.map(|e| e.version)))
    }

    /// Stores the names of a VO, unless any name changed after the state `former`. A VO that is no
    /// more has none.
    ///
    /// # Errors
    /// [`xos_base::Kind::Conflict`] when one did; those of the store.
    pub async fn put_names(
        &self,
        vo: &VoId,
        names: &[Owned],
        former: Option<Version>,
    ) -> Result<Version, Error> {
        let naming = key(&["vom", "naming"])?;
        let guard = match former {
            Some(version) => Guard::Is(naming.clone(), version),
            None => Guard::Absent(naming.clone()),
        };
        let of = key(&["vom", "names", vo.as_str()])?;
        let mut guards = vec![guard];
        let mut ops = vec![Op::put(naming, encode(vo)?)];
        if names.is_empty() {
            ops.push(Op::Del(of));
        } else {
            guards.push(Guard::Absent(graves::grave_key(vo)?));
            ops.push(Op::put(of, encode(&names)?));
        }
        match self.store.txn(guards, ops).await.map_err(StoreError::told)? {
            TxnOutcome::Applied(version) => Ok(version),
            TxnOutcome::Conflict { .. } => {
                Err(Error::conflict("names of accounts changed meanwhile").hint("try again"))
            }
        }
    }

    async fn all(&self, below: &Prefix) -> Result<Vec<(String, Bytes, Version)>, Error> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let page = self
                .store
                .scan(below, after.as_ref(), READ_ENTRIES)
                .await
                .map_err(StoreError::told)?;
            for e in page.entries {
                let name = e.key.last_segment().map_err(key_error)?;
                let name = String::from_utf8(name)
                    .map_err(|_| Error::internal("a registry key is no text"))?;
                all.push((name, e.value, e.version));
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(all),
            }
        }
    }
}

/// Whether it is time for a checkpoint: large VOs write theirs more seldom, so that the work for
/// it stays in proportion to the changes.
pub fn checkpoint_due(vo: &Vo, checkpointed: u64) -> bool {
    if vo.erased {
        return false;
    }
    let every = CHECKPOINT_EVERY.max(vo.members.len() as u64 / 4);
    vo.number.saturating_sub(checkpointed) >= every
}

fn part_key(vo: &VoId, number: u64, index: u32) -> Result<Key, Error> {
    key(&["vom", "vo", vo.as_str(), "part", &padded(number), &format!("{index:06}")])
}

fn sum(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(digest(&SHA256, bytes))
}
