//! One call with everything that may go wrong on its way: connecting, showing the ticket, a lost
//! connection. What may be repeated is repeated within a deadline; what may not is never sent
//! twice.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;
use xtreemfs_proto::rpc::ErrorType;
use xtreemfs_proto::{CallError, Errno, Procedure, RpcError, osd};

use crate::limits::{ANSWER_DEADLINE, PROOFS_MAX, TROUBLES_MAX};
use crate::link::{Link, LinkError, Links, SlotError};
use crate::retry::Patience;
use crate::{Error, Member, Peer, Result};

/// Whether a call may take effect twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Twice is as good as once: repeated after a lost connection.
    Always,
    /// It is not: after a lost connection the outcome is unknown, which the caller must settle.
    Never,
}

/// What to do after a failed attempt.
enum Next {
    GiveUp(Error),
    /// After a pause.
    Again(Error),
    /// At once, with a new proof of identity.
    Prove(Error),
}

/// Whether it matters when a call is carried out. It does not for reading, of which callers give up
/// much.
fn changes<P: Procedure>() -> bool {
    (P::INTERFACE, P::PROC) != (osd::Read::INTERFACE, osd::Read::PROC)
}

/// Everything that stays the same over the attempts of one call.
struct Call<'a> {
    links: &'a Links,
    operation: &'static str,
    peer: &'a Peer,
    who: Option<Member>,
    repeat: Repeat,
}

impl Links {
    /// Calls `P` at `peer`, for a person if the service wants to know for whom.
    pub(crate) async fn call<P: Procedure>(
        &self,
        peer: &Peer,
        who: Option<Member>,
        request: &P::Request,
        data: Bytes,
        repeat: Repeat,
    ) -> Result<(P::Reply, Bytes)> {
        let call = Call { links: self, operation: P::NAME, peer, who, repeat };
        let mut patience = Patience::new(self.deadline);
        let (mut proofs, mut troubles) = (0, 0);
        loop {
            match call.attempt::<P>(request, data.clone(), patience.until()).await {
                Ok(answer) => {
                    self.answered(peer);
                    return Ok(answer);
                }
                Err(Next::GiveUp(error)) => {
                    if matches!(error, Error::Refused { .. }) {
                        self.answered(peer);
                    }
                    return Err(error);
                }
                Err(Next::Prove(error)) => {
                    proofs += 1;
                    if proofs >= PROOFS_MAX {
                        return Err(error);
                    }
                }
                Err(Next::Again(error)) => {
                    let hopeless = match &error {
                        // The service itself says that it will pass.
                        Error::Refused { errno, .. } if *errno == Errno::EAGAIN.0 => false,
                        Error::Refused { .. } => {
                            troubles += 1;
                            troubles >= TROUBLES_MAX
                        }
                        _ => self.is_dead(peer),
                    };
                    if hopeless || !patience.again().await {
                        return Err(error);
                    }
                }
            }
        }
    }
}

impl Call<'_> {
    async fn attempt<P: Procedure>(
        &self,
        request: &P::Request,
        data: Bytes,
        until: Instant,
    ) -> std::result::Result<(P::Reply, Bytes), Next> {
        let link = self.links.link(self.peer).await.map_err(|error| match error {
            LinkError::Later(cause) => Next::Again(self.unreachable(&cause)),
            LinkError::Never(cause) => Next::GiveUp(self.unreachable(&cause)),
        })?;
        let slot = match self.who {
            Some(member) => Some(self.slot(&link, member).await?),
            None => None,
        };
        let left = until.saturating_duration_since(Instant::now()).min(ANSWER_DEADLINE);
        let waiting = changes::<P>().then(|| link.waiting());
        let called = link.channel.call::<P>(slot, request, data, left).await;
        if let Some(waiting) = waiting {
            waiting.ended();
        }
        match called {
            Ok(answer) => Ok(answer),
            Err(CallError::Refused(error)) if error.wants_authentication() => {
                let refused = self.refused(error);
                let (Some(member), Some(slot)) = (self.who, slot) else {
                    return Err(Next::GiveUp(refused));
                };
                link.forget(member, slot).await;
                self.links.tickets.refused(member);
                Err(Next::Prove(refused))
            }
            Err(error) => Err(self.failed(&link, error, self.repeat).await),
        }
    }

    async fn slot(&self, link: &Arc<Link>, member: Member) -> std::result::Result<u32, Next> {
        let ticket = self.links.tickets.ticket(member).await.map_err(|reason| {
            Next::GiveUp(Error::NoTicket { member, reason: reason.to_string() })
        })?;
        match link.slot(member, &ticket).await {
            Ok(slot) => Ok(slot),
            Err(SlotError::Full) => {
                self.links.discard(self.peer, link).await;
                Err(Next::Again(self.unreachable("a new connection is needed for more people")))
            }
            Err(SlotError::Call(CallError::Refused(error))) if error.errno == Errno::EAGAIN => {
                Err(Next::Again(self.refused(error)))
            }
            // As on a new connection, after a change of the membership: there may be a newer one.
            Err(SlotError::Call(CallError::Refused(error))) if error.wants_authentication() => {
                self.links.tickets.refused(member);
                Err(Next::Prove(self.refused(error)))
            }
            Err(SlotError::Call(CallError::Refused(error))) => {
                Err(Next::GiveUp(self.refused(error)))
            }
            // The request itself was not sent, so that it may be tried again in any case.
            Err(SlotError::Call(error)) => Err(self.failed(link, error, Repeat::Always).await),
        }
    }

    /// Judges a failure that is not about identity.
    async fn failed(&self, link: &Arc<Link>, error: CallError, repeat: Repeat) -> Next {
        match error {
            CallError::Refused(error) if error.kind == ErrorType::InternalServerError => {
                match repeat {
                    Repeat::Always => Next::Again(self.refused(error)),
                    Repeat::Never => Next::GiveUp(self.refused(error)),
                }
            }
            // By the service's clock this connection is older than by ours, as after this machine
            // stood still: a new one begins anew for both. Nothing was done.
            CallError::Refused(error) if error.errno == Errno::ETIMEDOUT => {
                self.links.discard(self.peer, link).await;
                Next::Again(self.refused(error))
            }
            // Said before anything was done.
            CallError::Refused(error) if error.errno == Errno::EAGAIN => {
                Next::Again(self.refused(error))
            }
            CallError::Refused(error) => Next::GiveUp(self.refused(error)),
            CallError::Closed(_) | CallError::Deadline(_) => {
                self.links.discard(self.peer, link).await;
                let cause = error.to_string();
                match repeat {
                    Repeat::Always => Next::Again(self.unreachable(&cause)),
                    Repeat::Never => Next::GiveUp(Error::OutcomeUnknown {
                        operation: self.operation,
                        peer: self.peer.clone(),
                        cause,
                    }),
                }
            }
            CallError::TooLong(error) => {
                Next::GiveUp(Error::local(libc::EINVAL, format!("{}: {error}", self.operation)))
            }
            CallError::BadReply(error) => Next::GiveUp(Error::Protocol {
                operation: self.operation,
                peer: self.peer.clone(),
                detail: error.to_string(),
            }),
        }
    }

    fn refused(&self, error: RpcError) -> Error {
        Error::Refused {
            operation: self.operation,
            peer: self.peer.clone(),
            errno: error.errno.0,
            message: error.message,
        }
    }

    fn unreachable(&self, cause: &str) -> Error {
        Error::Unreachable {
            operation: self.operation,
            peer: self.peer.clone(),
            cause: cause.to_owned(),
        }
    }
}
