//! The service's side.

use super::held::{Buffer, Context, Credential, Name};
use super::raw::{
    Bindings, CHANNEL_BOUND, COMPLETE, CONTINUE_NEEDED, KERBEROS, KeyValue, KeyValues,
    PRINCIPAL_NAME, RawBuffer, SPNEGO, TO_ACCEPT,
};
use super::{api, refused};
use crate::GssError;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

/// Takes tickets for one service, whose keys are in a keytab.
pub struct Acceptor {
    credential: Credential,
}

/// Somebody whose ticket holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The principal as Kerberos writes it: `alice@RENNES.EXAMPLE`, with `\` before signs that
    /// would mean something else.
    pub principal: String,
    /// The ticket was bound to a channel, and that channel is ours.
    pub bound: bool,
    /// By which the service proves itself in turn; may be empty.
    pub token: Vec<u8>,
}

impl Acceptor {
    /// For `service`, as `HTTP@core.example.org`, by the keys in the file `keytab`. Blocks on the
    /// disk, and on the DNS if krb5.conf says so. Keys that the file gets later are found too.
    ///
    /// # Errors
    /// [`GssError::Refused`] when the file has no key of that service.
    pub fn new(service: &str, keytab: &Path) -> Result<Acceptor, GssError> {
        let api = api()?;
        let path = [b"FILE:", keytab.as_os_str().as_bytes()].concat();
        let path = CString::new(path).map_err(|_| GssError::Text(keytab.display().to_string()))?;
        let element = KeyValue { key: c"keytab".as_ptr(), value: path.as_ptr() };
        let store = KeyValues { count: 1, elements: &raw const element };
        let name = Name::of_service(api, service)?;
        // Of SPNEGO alone one would not hear which key is missing.
        Credential::acquire(KERBEROS, Some(&name), TO_ACCEPT, Some(&store))?;
        let credential = Credential::acquire(SPNEGO, Some(&name), TO_ACCEPT, Some(&store))?;
        Ok(Acceptor { credential })
    }

    /// Whose ticket `token` brings, for a channel that `binding` names (RFC 5056). A token counts
    /// once: the library's replay cache remembers it. Blocks on the disk.
    ///
    /// # Errors
    /// [`GssError::Refused`] when it does not hold, or is bound to another channel;
    /// [`GssError::MoreSteps`] when one token does not do.
    pub fn accept(&self, token: &[u8], binding: &[u8]) -> Result<Accepted, GssError> {
        let api = self.credential.api;
        let (input, bindings) = (RawBuffer::reading(token), Bindings::reading(binding));
        let (mut context, mut who) = (Context::none(api), Name::none(api));
        let (mut minor, mut flags, mut output) = (0, 0, Buffer::none(api));
        // SAFETY: the credential is the library's own; each pointer is null where that is allowed,
        // or to a value of ours of the right type, which outlives the call. What the library
        // writes is given back by the drop of context, name and output. Of credentials that
        // somebody delegates none is taken.
        let major = unsafe {
            (api.gss_accept_sec_context)(
                &raw mut minor,
                context.raw_mut(),
                self.credential.raw(),
                &raw const input,
                &raw const bindings,
                who.raw_mut(),
                ptr::null_mut(),
                output.raw_mut(),
                &raw mut flags,
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
        match major {
            COMPLETE => {}
            CONTINUE_NEEDED => return Err(GssError::MoreSteps),
            major => return Err(refused(api, "a ticket", major, minor)),
        }
        let (principal, kind) = who.text()?;
        if kind != PRINCIPAL_NAME {
            return Err(GssError::NoPrincipal);
        }
        let bound = flags & CHANNEL_BOUND != 0;
        Ok(Accepted { principal, bound, token: output.bytes().to_vec() })
    }
}
