//! Handles of the library, each given back when its owner goes. Giving back what is ours cannot
//! fail, so that those statuses say nothing.

use super::raw::{
    Api, COMPLETE, HOSTBASED_SERVICE, INDEFINITE, KERBEROS, KeyValues, Oid, OidSet, RawBuffer,
    RawContext, RawCredential, RawName, SPNEGO,
};
use super::{api, refused};
use crate::GssError;
use std::ffi::c_int;
use std::ptr;

/// Bytes that the library wrote.
pub(super) struct Buffer {
    api: &'static Api,
    raw: RawBuffer,
}

impl Buffer {
    pub(super) fn none(api: &'static Api) -> Buffer {
        Buffer { api, raw: RawBuffer::EMPTY }
    }

    /// For the library to write to, once.
    pub(super) fn raw_mut(&mut self) -> *mut RawBuffer {
        &raw mut self.raw
    }

    pub(super) fn bytes(&self) -> &[u8] {
        if self.raw.value.is_null() || self.raw.length == 0 {
            return &[];
        }
        // SAFETY: the library wrote so many bytes there, and they stay until the drop.
        unsafe { std::slice::from_raw_parts(self.raw.value.cast(), self.raw.length) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut minor = 0;
        // SAFETY: empty, or the library's own, and not used again.
        unsafe { (self.api.gss_release_buffer)(&raw mut minor, &raw mut self.raw) };
    }
}

/// A name.
pub(super) struct Name {
    api: &'static Api,
    raw: *mut RawName,
}

impl Name {
    pub(super) fn none(api: &'static Api) -> Name {
        Name { api, raw: ptr::null_mut() }
    }

    /// A service of a host: `HTTP@core.example.org`. May ask the DNS, if krb5.conf says so.
    pub(super) fn of_service(api: &'static Api, service: &str) -> Result<Name, GssError> {
        let (mut minor, mut name) = (0, Name::none(api));
        let (text, kind) = (RawBuffer::reading(service.as_bytes()), Oid::of(HOSTBASED_SERVICE));
        // SAFETY: each pointer is to a value of ours of the right type, which outlives the call.
        let major = unsafe {
            (api.gss_import_name)(
                &raw mut minor,
                &raw const text,
                &raw const kind,
                &raw mut name.raw,
            )
        };
        if major != COMPLETE {
            return Err(refused(api, "the name of the service", major, minor));
        }
        Ok(name)
    }

    pub(super) fn raw(&self) -> *mut RawName {
        self.raw
    }

    pub(super) fn raw_mut(&mut self) -> *mut *mut RawName {
        &raw mut self.raw
    }

    /// Its text, and the bytes of its type's OID.
    pub(super) fn text(&self) -> Result<(String, Vec<u8>), GssError> {
        let (mut minor, mut text) = (0, Buffer::none(self.api));
        let mut kind: *const Oid = ptr::null();
        if self.raw.is_null() {
            return Err(GssError::NoPrincipal);
        }
        // SAFETY: the name is the library's own; each pointer is to a value of ours of the right
        // type, which outlives the call.
        let major = unsafe {
            (self.api.gss_display_name)(&raw mut minor, self.raw, text.raw_mut(), &raw mut kind)
        };
        if major != COMPLETE {
            return Err(refused(self.api, "a name", major, minor));
        }
        // SAFETY: null, or the OID inside the name, which lives as long as that.
        let kind = match unsafe { kind.as_ref() } {
            // SAFETY: an OID has so many bytes there.
            Some(oid) if !oid.elements.is_null() => unsafe {
                std::slice::from_raw_parts(oid.elements.cast::<u8>(), oid.length as usize).to_vec()
            },
            _ => Vec::new(),
        };
        let text = std::str::from_utf8(text.bytes()).map_err(|_| GssError::NoPrincipal)?;
        Ok((text.to_owned(), kind))
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if self.raw.is_null() {
            return;
        }
        let mut minor = 0;
        // SAFETY: the library's own, and not used again.
        unsafe { (self.api.gss_release_name)(&raw mut minor, &raw mut self.raw) };
    }
}

/// What a side proves itself by.
pub(super) struct Credential {
    pub(super) api: &'static Api,
    raw: *mut RawCredential,
}

// SAFETY: a credential is not tied to the thread that acquired it.
unsafe impl Send for Credential {}
// SAFETY: it is changed by nothing after it was acquired but the library itself, which locks it
// while it is used (MIT Kerberos, lib/gssapi/krb5/acquire_cred.c, `kg_cred_resolve`).
unsafe impl Sync for Credential {}

impl Credential {
    /// The credential of `mechanism`, for `name` or whoever is the default, from `store`.
    pub(super) fn acquire(
        mechanism: &'static [u8],
        name: Option<&Name>,
        usage: c_int,
        store: Option<&KeyValues>,
    ) -> Result<Credential, GssError> {
        let api = api()?;
        let (mut minor, mut credential) = (0, Credential { api, raw: ptr::null_mut() });
        let oid = Oid::of(mechanism);
        let mechanisms = OidSet { count: 1, elements: &raw const oid };
        // SAFETY: each pointer is null where that is allowed, or to a value of ours of the right
        // type, which outlives the call; the library copies what it keeps.
        let major = unsafe {
            (api.gss_acquire_cred_from)(
                &raw mut minor,
                name.map_or(ptr::null_mut(), Name::raw),
                INDEFINITE,
                &raw const mechanisms,
                usage,
                store.map_or(ptr::null(), ptr::from_ref),
                &raw mut credential.raw,
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
        if major != COMPLETE {
            return Err(refused(api, "Kerberos' credentials", major, minor));
        }
        if mechanism == SPNEGO {
            credential.negotiate_kerberos_only()?;
        }
        Ok(credential)
    }

    /// Whatever other mechanisms the machine has, such as passwords of Windows domains.
    fn negotiate_kerberos_only(&mut self) -> Result<(), GssError> {
        let (mut minor, oid) = (0, Oid::of(KERBEROS));
        let mechanisms = OidSet { count: 1, elements: &raw const oid };
        // SAFETY: the credential is the library's own, and nobody else has it yet; the other
        // pointers are to values of ours, which outlive the call, and the library copies them.
        let major = unsafe {
            (self.api.gss_set_neg_mechs)(&raw mut minor, self.raw, &raw const mechanisms)
        };
        if major != COMPLETE {
            return Err(refused(self.api, "the choice of Kerberos", major, minor));
        }
        Ok(())
    }

    pub(super) fn raw(&self) -> *mut RawCredential {
        self.raw
    }
}

impl Drop for Credential {
    fn drop(&mut self) {
        if self.raw.is_null() {
            return;
        }
        let mut minor = 0;
        // SAFETY: the library's own, and not used again.
        unsafe { (self.api.gss_release_cred)(&raw mut minor, &raw mut self.raw) };
    }
}

/// An exchange.
pub(super) struct Context {
    api: &'static Api,
    raw: *mut RawContext,
}

impl Context {
    pub(super) fn none(api: &'static Api) -> Context {
        Context { api, raw: ptr::null_mut() }
    }

    pub(super) fn raw_mut(&mut self) -> *mut *mut RawContext {
        &raw mut self.raw
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if self.raw.is_null() {
            return;
        }
        let mut minor = 0;
        // SAFETY: the library's own, and not used again; no token is wanted of its end.
        unsafe {
            (self.api.gss_delete_sec_context)(&raw mut minor, &raw mut self.raw, ptr::null_mut())
        };
    }
}
