//! The person's side.

use super::held::{Buffer, Context, Credential, Name};
use super::raw::{
    Bindings, COMPLETE, CONTINUE_NEEDED, INTEGRITY, KERBEROS, MUTUAL, Number, Oid, RawBuffer,
    SPNEGO, TO_INITIATE,
};
use super::{api, refused};
use crate::GssError;
use std::ptr;

/// An exchange that was begun: the service's answer is awaited.
pub struct Initiator {
    context: Context,
    credential: Credential,
    target: Name,
    binding: Option<Vec<u8>>,
}

// SAFETY: neither context nor name is tied to the thread that made it, and each is used by whoever
// owns this value alone.
unsafe impl Send for Initiator {}

impl Initiator {
    /// Begins, with the tickets that the person holds, to sign in at `service`, as
    /// `HTTP@core.example.org`; gives the token for it. With `binding` the token is good only for
    /// the channel that this names (RFC 5056). Blocks: it asks the person's KDC for a ticket.
    ///
    /// # Errors
    /// [`GssError::Refused`] when the person holds no ticket, or gets none for the service.
    pub fn begin(service: &str, binding: Option<&[u8]>) -> Result<(Initiator, Vec<u8>), GssError> {
        let api = api()?;
        let mut exchange = Initiator {
            context: Context::none(api),
            credential: Credential::acquire(KERBEROS, None, TO_INITIATE, None)?,
            target: Name::of_service(api, service)?,
            binding: binding.map(<[u8]>::to_vec),
        };
        match exchange.step(None)? {
            // It awaits what the service proves itself by.
            (CONTINUE_NEEDED, _, token) if !token.is_empty() => Ok((exchange, token)),
            _ => Err(GssError::NotMutual),
        }
    }

    /// Takes the service's answer, which proves that it has the key.
    ///
    /// # Errors
    /// [`GssError::Refused`] when it does not hold, [`GssError::MoreSteps`] when it is not the
    /// last, [`GssError::NotMutual`] when it proves nothing.
    pub fn finish(mut self, token: &[u8]) -> Result<(), GssError> {
        match self.step(Some(token))? {
            (COMPLETE, flags, _) if flags & MUTUAL != 0 => Ok(()),
            (COMPLETE, ..) => Err(GssError::NotMutual),
            _ => Err(GssError::MoreSteps),
        }
    }

    /// Major status, flags, and the token for the service.
    fn step(&mut self, token: Option<&[u8]>) -> Result<(Number, Number, Vec<u8>), GssError> {
        let api = self.credential.api;
        let mechanism = Oid::of(SPNEGO);
        let input = token.map(RawBuffer::reading);
        let bindings = self.binding.as_deref().map(Bindings::reading);
        let (mut minor, mut flags, mut output) = (0, 0, Buffer::none(api));
        // SAFETY: credential, name and context are the library's own; each other pointer is null
        // where that is allowed, or to a value of ours of the right type, which outlives the call.
        // What the library writes is given back by the drop of context and output.
        let major = unsafe {
            (api.gss_init_sec_context)(
                &raw mut minor,
                self.credential.raw(),
                self.context.raw_mut(),
                self.target.raw(),
                &raw const mechanism,
                MUTUAL | INTEGRITY,
                0,
                bindings.as_ref().map_or(ptr::null(), ptr::from_ref),
                input.as_ref().map_or(ptr::null(), ptr::from_ref),
                ptr::null_mut(),
                output.raw_mut(),
                &raw mut flags,
                ptr::null_mut(),
            )
        };
        match major {
            COMPLETE | CONTINUE_NEEDED => Ok((major, flags, output.bytes().to_vec())),
            major => Err(refused(api, "a ticket for the service", major, minor)),
        }
    }
}
