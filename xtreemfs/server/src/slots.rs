//! The identities that one connection has presented tickets for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xtreemfs_proto::rpc::{AuthenticateReply, AuthenticateRequest};
use xtreemfs_proto::{Errno, RpcError};

use crate::identity::{AuthError, Authenticator, Epochs, Identity, NO_MEMBER, Peer};

/// Most identities of one connection.
pub const SLOTS_MAX: usize = 4096;
/// Longest ticket that is looked at, in bytes.
pub const TICKET_BYTES_MAX: usize = 64 << 10;

#[derive(Debug, Default)]
struct Table {
    slots: HashMap<u32, Arc<Identity>>,
    next: u32,
}

/// Slots of one connection.
#[derive(Debug, Default)]
pub struct Slots(Mutex<Table>);

impl Slots {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks a ticket and gives it a slot.
    ///
    /// # Errors
    /// `AUTH_FAILED` with `EACCES`; `EAGAIN` if it cannot be checked now or the table is full.
    pub async fn authenticate(
        &self,
        request: &AuthenticateRequest,
        authenticator: &dyn Authenticator,
        peer: &Peer,
        now_ms: u64,
    ) -> Result<AuthenticateReply, RpcError> {
        if request.ticket.len() > TICKET_BYTES_MAX {
            return Err(RpcError::authenticate(Errno::EACCES, "ticket refused: too long"));
        }
        let identity = authenticator.authenticate(&request.ticket, peer).await;
        let identity = identity.map_err(|error| match error {
            AuthError::Refused(_) => RpcError::authenticate(Errno::EACCES, error.to_string()),
            AuthError::Unavailable(_) => RpcError::errno(Errno::EAGAIN, error.to_string()),
        })?;
        if identity.member == NO_MEMBER {
            let text = "ticket refused: its member number is nobody's";
            return Err(RpcError::authenticate(Errno::EACCES, text));
        }
        if identity.expires_ms <= now_ms {
            return Err(expired());
        }
        let expires_ms = identity.expires_ms;
        let slot = self.insert(identity, request.replace, now_ms)?;
        Ok(AuthenticateReply { slot, expires_ms, valid_ms: expires_ms - now_ms })
    }

    /// Puts an identity into `replace`, if that slot holds the same person, else into a new slot.
    fn insert(
        &self,
        identity: Identity,
        replace: Option<u32>,
        now_ms: u64,
    ) -> Result<u32, RpcError> {
        let mut table = self.lock();
        let same = |old: &Arc<Identity>| old.vo == identity.vo && old.member == identity.member;
        if let Some(slot) = replace
            && table.slots.get(&slot).is_some_and(same)
        {
            table.slots.insert(slot, Arc::new(identity));
            return Ok(slot);
        }
        if table.slots.len() >= SLOTS_MAX {
            table.slots.retain(|_, identity| identity.expires_ms > now_ms);
        }
        if table.slots.len() >= SLOTS_MAX {
            let text = format!("this connection already speaks for {SLOTS_MAX} people");
            return Err(RpcError::errno(Errno::EAGAIN, text));
        }
        // Fewer than SLOTS_MAX numbers are taken, so this ends.
        while table.slots.contains_key(&table.next) {
            table.next = table.next.wrapping_add(1);
        }
        let slot = table.next;
        table.next = slot.wrapping_add(1);
        table.slots.insert(slot, Arc::new(identity));
        Ok(slot)
    }

    /// The identity in a slot.
    ///
    /// # Errors
    /// `AUTH_FAILED` with `EACCES` (no such slot), `EKEYEXPIRED` or `EKEYREVOKED`.
    pub fn identity(
        &self,
        slot: Option<u32>,
        epochs: &dyn Epochs,
        now_ms: u64,
    ) -> Result<Arc<Identity>, RpcError> {
        let identity = slot.and_then(|slot| self.lock().slots.get(&slot).cloned());
        let Some(identity) = identity else {
            let text = "no identity: authenticate on this connection first";
            return Err(RpcError::authenticate(Errno::EACCES, text));
        };
        if identity.expires_ms <= now_ms {
            return Err(expired());
        }
        if !epochs.is_valid(&identity.vo, identity.member, identity.epoch) {
            let text = "the membership changed: authenticate with a new ticket";
            return Err(RpcError::authenticate(Errno::EKEYREVOKED, text));
        }
        Ok(identity)
    }
}

fn expired() -> RpcError {
    RpcError::authenticate(Errno::EKEYEXPIRED, "the ticket has lapsed: authenticate with a new one")
}
