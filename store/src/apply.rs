//! The registry's rules, once for all embedded engines: what a request does to a [`State`].

use std::time::Duration;

use bytes::Bytes;

use crate::{
    Event, Guard, Key, LEASE_KEYS_MAX, LeaseId, Op, StoreError, TxnOutcome, Version,
    clock::millis,
    record::{Head, Lease},
};

/// The most leases ended in one commit; the rest follow in the next.
pub(crate) const EXPIRE_MAX: usize = 64;

/// A change asked of an engine.
#[derive(Debug)]
pub(crate) enum Request {
    Txn { guards: Vec<Guard>, ops: Vec<Op> },
    Lease { ttl: Duration },
    Keep(LeaseId),
    Revoke(LeaseId),
}

/// What it brought.
#[derive(Debug)]
pub(crate) enum Answer {
    Txn(TxnOutcome),
    Lease(LeaseId),
    Done,
}

/// The tables of an engine within one write.
pub(crate) trait State {
    fn head(&self, key: &Key) -> Result<Option<Head>, StoreError>;
    fn write(&mut self, key: &Key, head: Head, value: &[u8]) -> Result<(), StoreError>;
    fn remove(&mut self, key: &Key) -> Result<(), StoreError>;
    fn lease(&self, id: LeaseId) -> Result<Option<Lease>, StoreError>;
    /// Replaces `old` (as read in this write) by `new` and keeps the order of expiry.
    fn set_lease(
        &mut self,
        id: LeaseId,
        old: Option<Lease>,
        new: Option<Lease>,
    ) -> Result<(), StoreError>;
    fn link(&mut self, id: LeaseId, key: &Key) -> Result<(), StoreError>;
    fn unlink(&mut self, id: LeaseId, key: &Key) -> Result<(), StoreError>;
    fn linked(&self, id: LeaseId) -> Result<Vec<Key>, StoreError>;
    /// Up to `max` leases whose expiry is at or before `now_ms`, the oldest first.
    fn due(&self, now_ms: u64, max: usize) -> Result<Vec<LeaseId>, StoreError>;
    /// A number never given before.
    fn next_number(&mut self) -> Result<u64, StoreError>;
    /// The number given last.
    fn last_number(&self) -> Result<u64, StoreError>;
}

/// Performs one request. A refusal (`is_refusal`) leaves the state as it was; any other error means
/// that the whole write must be given up.
pub(crate) fn apply(
    state: &mut impl State,
    now_ms: u64,
    request: Request,
    events: &mut Vec<Event>,
) -> Result<Answer, StoreError> {
    match request {
        Request::Txn { guards, ops } => txn(state, now_ms, &guards, ops, events).map(Answer::Txn),
        Request::Lease { ttl } => {
            let id = LeaseId(state.next_number()?);
            let ttl_ms = millis(ttl);
            let lease = Lease { ttl_ms, expires_ms: now_ms.saturating_add(ttl_ms), keys: 0 };
            state.set_lease(id, None, Some(lease))?;
            Ok(Answer::Lease(id))
        }
        Request::Keep(id) => {
            let old =
                live_lease(state, now_ms, id)?.ok_or(StoreError::UnknownLease { lease: id })?;
            let new = Lease { expires_ms: now_ms.saturating_add(old.ttl_ms), ..old };
            state.set_lease(id, Some(old), Some(new))?;
            Ok(Answer::Done)
        }
        Request::Revoke(id) => {
            end_lease(state, id, events)?;
            Ok(Answer::Done)
        }
    }
}

/// Ends leases that are over; says how many.
pub(crate) fn expire(
    state: &mut impl State,
    now_ms: u64,
    events: &mut Vec<Event>,
) -> Result<usize, StoreError> {
    let due = state.due(now_ms, EXPIRE_MAX)?;
    for id in &due {
        end_lease(state, *id, events)?;
    }
    Ok(due.len())
}

fn txn(
    state: &mut impl State,
    now_ms: u64,
    guards: &[Guard],
    ops: Vec<Op>,
    events: &mut Vec<Event>,
) -> Result<TxnOutcome, StoreError> {
    let mut keys = Vec::new();
    for guard in guards {
        let version = live_head(state, now_ms, guard.key())?.map(|h| h.version());
        if !guard.holds(version) && !keys.contains(guard.key()) {
            keys.push(guard.key().clone());
        }
    }
    if !keys.is_empty() {
        return Ok(TxnOutcome::Conflict { keys });
    }
    check_leases(state, now_ms, &ops)?;
    if ops.is_empty() {
        return Ok(TxnOutcome::Applied(Version::from_number(state.last_number()?)));
    }
    let number = state.next_number()?;
    for op in ops {
        match op {
            Op::Put { key, value, lease } => {
                put(state, &key, Head { number, lease }, &value)?;
                events.push(Event::Changed(key));
            }
            Op::Del(key) => {
                if del(state, &key)? {
                    events.push(Event::Removed(key));
                }
            }
        }
    }
    Ok(TxnOutcome::Applied(Version::from_number(number)))
}

fn check_leases(state: &impl State, now_ms: u64, ops: &[Op]) -> Result<(), StoreError> {
    for (at, op) in ops.iter().enumerate() {
        let Op::Put { lease: Some(id), .. } = op else { continue };
        let lease =
            live_lease(state, now_ms, *id)?.ok_or(StoreError::UnknownLease { lease: *id })?;
        let before =
            ops[..at].iter().filter(|o| matches!(o, Op::Put { lease, .. } if *lease == Some(*id)));
        if lease.keys + before.count() as u64 >= LEASE_KEYS_MAX {
            return Err(StoreError::LeaseFull { lease: *id });
        }
    }
    Ok(())
}

fn put(state: &mut impl State, key: &Key, head: Head, value: &Bytes) -> Result<(), StoreError> {
    detach(state, key)?;
    if let Some(id) = head.lease {
        let old = state.lease(id)?.ok_or(StoreError::UnknownLease { lease: id })?;
        state.set_lease(id, Some(old), Some(Lease { keys: old.keys + 1, ..old }))?;
        state.link(id, key)?;
    }
    state.write(key, head, value)
}

fn del(state: &mut impl State, key: &Key) -> Result<bool, StoreError> {
    let existed = detach(state, key)?;
    if existed {
        state.remove(key)?;
    }
    Ok(existed)
}

/// Takes the key off its lease; says whether the key exists.
fn detach(state: &mut impl State, key: &Key) -> Result<bool, StoreError> {
    let Some(head) = state.head(key)? else { return Ok(false) };
    if let Some(id) = head.lease {
        state.unlink(id, key)?;
        if let Some(old) = state.lease(id)? {
            let new = Lease { keys: old.keys.saturating_sub(1), ..old };
            state.set_lease(id, Some(old), Some(new))?;
        }
    }
    Ok(true)
}

fn end_lease(
    state: &mut impl State,
    id: LeaseId,
    events: &mut Vec<Event>,
) -> Result<(), StoreError> {
    let Some(lease) = state.lease(id)? else { return Ok(()) };
    for key in state.linked(id)? {
        state.unlink(id, &key)?;
        state.remove(&key)?;
        events.push(Event::Removed(key));
    }
    state.set_lease(id, Some(lease), None)
}

/// An expired lease is over at once, even before [`expire`] has cleared it away.
fn live_lease(state: &impl State, now_ms: u64, id: LeaseId) -> Result<Option<Lease>, StoreError> {
    Ok(state.lease(id)?.filter(|l| l.expires_ms > now_ms))
}

fn live_head(state: &impl State, now_ms: u64, key: &Key) -> Result<Option<Head>, StoreError> {
    let Some(head) = state.head(key)? else { return Ok(None) };
    match head.lease {
        Some(id) if live_lease(state, now_ms, id)?.is_none() => Ok(None),
        _ => Ok(Some(head)),
    }
}
