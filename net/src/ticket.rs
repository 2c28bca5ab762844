//! Tickets and mandates: the checks of those who receive them.
//!
//! Both are signed by the home site of the VO they speak of, and by no other.

use crate::caller::CLOCK_SKEW_S;
use crate::sign::{JWS_MAX, Kind};
use crate::trust::Trust;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::de::DeserializeOwned;
use std::time::Duration;
use xos_api::cda::{Mandate, TICKET_LIFE_MAX_S, TicketClaims, Work};
use xos_base::{Error, Membership, Millis, NodeId};

/// Verifies a ticket: signed by its VO's home, in force now.
///
/// The membership is the credential's; what the VO's snapshot here says of it (`Standing`) is for
/// the caller of this function to apply.
///
/// # Errors
/// [`xos_base::Kind::Unauthenticated`] with the reason.
pub fn verify_ticket(
    trust: &Trust,
    jws: &str,
    now: Millis,
) -> Result<(Membership, TicketClaims), Error> {
    let home = membership(&unverified::<TicketClaims>(jws)?.membership)?.vo.site();
    let claims: TicketClaims = trust.verify(Kind::Ticket, jws, &home)?;
    let m = membership(&claims.membership)?;
    if m.vo.site() != home {
        return Err(bad("its signer is not the VO's home"));
    }
    let life = claims.expires.since(claims.issued);
    if claims.expires <= now {
        return Err(bad("it has lapsed"));
    }
    if life > Duration::from_secs(TICKET_LIFE_MAX_S) {
        return Err(bad("it lives too long"));
    }
    not_from_future(claims.issued, now)?;
    Ok((m, claims))
}

/// As [`verify_ticket`], for a ticket that the node `node` shows, which proved to hold the key
/// with the fingerprint `key`.
///
/// # Errors
/// As [`verify_ticket`], also when the ticket was given to another node or key.
pub fn verify_ticket_of(
    trust: &Trust,
    jws: &str,
    (node, key): (&NodeId, &str),
    now: Millis,
) -> Result<(Membership, TicketClaims), Error> {
    let (m, claims) = verify_ticket(trust, jws, now)?;
    if claims.node != *node || claims.key != key {
        return Err(bad("it was given to another node or key"));
    }
    Ok((m, claims))
}

/// Verifies a mandate: signed by its VO's home, in force now, the job owned by the owner.
///
/// # Errors
/// [`xos_base::Kind::Unauthenticated`] with the reason.
pub fn verify_mandate(trust: &Trust, jws: &str, now: Millis) -> Result<Mandate, Error> {
    let home = unverified::<Mandate>(jws)?.membership.vo.site();
    let mandate: Mandate = trust.verify(Kind::Mandate, jws, &home)?;
    let fits = match &mandate.work {
        Work::Job { job, owner, .. } => job.site == *owner,
        Work::Login { .. } | Work::Cluster { .. } => true,
    };
    if mandate.membership.vo.site() != home || !fits {
        return Err(bad("it does not fit together"));
    }
    if mandate.until <= now {
        return Err(bad("it has ended"));
    }
    not_from_future(mandate.issued, now)?;
    Ok(mandate)
}

fn bad(why: &str) -> Error {
    Error::unauthenticated(format!("a ticket or mandate is refused: {why}"))
}

fn not_from_future(issued: Millis, now: Millis) -> Result<(), Error> {
    if issued > now.plus(Duration::from_secs(CLOCK_SKEW_S)) {
        return Err(bad("it is from the future"));
    }
    Ok(())
}

fn membership(text: &str) -> Result<Membership, Error> {
    let der = STANDARD.decode(text).map_err(|_| bad("its membership is malformed"))?;
    Membership::from_der(&der).map_err(|e| bad(&e.to_string()))
}

/// The content of a statement that nobody verified, only to choose whose key must fit.
fn unverified<T: DeserializeOwned>(jws: &str) -> Result<T, Error> {
    if jws.len() > JWS_MAX {
        return Err(Error::too_large(format!("a ticket or mandate is over {JWS_MAX} bytes")));
    }
    jws.split('.')
        .nth(1)
        .and_then(|payload| URL_SAFE_NO_PAD.decode(payload).ok())
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .ok_or_else(|| bad("it is malformed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// A panic here would let a stranger end a node or a core.
        #[test]
        fn garbage_is_refused(a in ".{0,200}", b in proptest::collection::vec(any::<u8>(), 0..200)) {
            let jws = format!("x.{}.y", URL_SAFE_NO_PAD.encode(&b));
            for text in [a.as_str(), jws.as_str()] {
                prop_assert!(verify_ticket(&Trust::new(), text, Millis(0)).is_err());
                prop_assert!(verify_mandate(&Trust::new(), text, Millis(0)).is_err());
            }
        }
    }
}
