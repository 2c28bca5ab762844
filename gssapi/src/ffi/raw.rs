//! The C interface, of `gssapi/gssapi.h` and `gssapi/gssapi_ext.h` of MIT Kerberos 1.19.

use crate::LIBRARY;
use libloading::Library;
use std::ffi::{c_char, c_int, c_void};
use std::ptr;

/// `OM_uint32`.
pub(super) type Number = u32;

/// `GSS_S_COMPLETE`.
pub(super) const COMPLETE: Number = 0;
/// `GSS_S_CONTINUE_NEEDED`.
pub(super) const CONTINUE_NEEDED: Number = 1;
/// `GSS_S_FAILURE`: the minor status says more.
pub(super) const FAILURE: Number = 13 << 16;
/// `GSS_C_GSS_CODE` and `GSS_C_MECH_CODE`.
pub(super) const OF_GSS: c_int = 1;
pub(super) const OF_MECHANISM: c_int = 2;
/// `GSS_C_INITIATE` and `GSS_C_ACCEPT`.
pub(super) const TO_INITIATE: c_int = 1;
pub(super) const TO_ACCEPT: c_int = 2;
/// `GSS_C_INDEFINITE`.
pub(super) const INDEFINITE: Number = Number::MAX;
/// `GSS_C_MUTUAL_FLAG`, `GSS_C_INTEG_FLAG`.
pub(super) const MUTUAL: Number = 2;
pub(super) const INTEGRITY: Number = 32;
/// `GSS_C_CHANNEL_BOUND_FLAG`: the initiator bound its token to a channel, and it is ours.
pub(super) const CHANNEL_BOUND: Number = 2048;

/// SPNEGO, 1.3.6.1.5.5.2 (RFC 4178, appendix A).
pub(super) const SPNEGO: &[u8] = &[0x2b, 6, 1, 5, 5, 2];
/// Kerberos, 1.2.840.113554.1.2.2 (RFC 1964).
pub(super) const KERBEROS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x12, 1, 2, 2];
/// `GSS_C_NT_HOSTBASED_SERVICE`, 1.2.840.113554.1.2.1.4.
pub(super) const HOSTBASED_SERVICE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x12, 1, 2, 1, 4];
/// `GSS_KRB5_NT_PRINCIPAL_NAME`, 1.2.840.113554.1.2.2.1.
pub(super) const PRINCIPAL_NAME: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x12, 1, 2, 2, 1];

/// What a `gss_name_t` points to.
#[repr(C)]
pub(super) struct RawName([u8; 0]);
/// What a `gss_cred_id_t` points to.
#[repr(C)]
pub(super) struct RawCredential([u8; 0]);
/// What a `gss_ctx_id_t` points to.
#[repr(C)]
pub(super) struct RawContext([u8; 0]);

/// `gss_OID_desc`.
#[repr(C)]
pub(super) struct Oid {
    pub(super) length: Number,
    pub(super) elements: *const c_void,
}

impl Oid {
    /// One of the constants above.
    pub(super) fn of(bytes: &'static [u8]) -> Oid {
        // They are a few bytes long.
        Oid { length: bytes.len() as Number, elements: bytes.as_ptr().cast() }
    }
}

/// `gss_OID_set_desc`.
#[repr(C)]
pub(super) struct OidSet {
    pub(super) count: usize,
    pub(super) elements: *const Oid,
}

/// `gss_buffer_desc`.
#[repr(C)]
pub(super) struct RawBuffer {
    pub(super) length: usize,
    pub(super) value: *mut c_void,
}

impl RawBuffer {
    pub(super) const EMPTY: RawBuffer = RawBuffer { length: 0, value: ptr::null_mut() };

    /// For the library to read, as long as `bytes` live.
    pub(super) fn reading(bytes: &[u8]) -> RawBuffer {
        RawBuffer { length: bytes.len(), value: bytes.as_ptr().cast_mut().cast() }
    }
}

/// `struct gss_channel_bindings_struct`. Addresses stay empty (`GSS_C_AF_UNSPEC`).
#[repr(C)]
pub(super) struct Bindings {
    initiator_type: Number,
    initiator_address: RawBuffer,
    acceptor_type: Number,
    acceptor_address: RawBuffer,
    application_data: RawBuffer,
}

impl Bindings {
    /// For the library to read, as long as `bytes` live.
    pub(super) fn reading(bytes: &[u8]) -> Bindings {
        Bindings {
            initiator_type: 0,
            initiator_address: RawBuffer::EMPTY,
            acceptor_type: 0,
            acceptor_address: RawBuffer::EMPTY,
            application_data: RawBuffer::reading(bytes),
        }
    }
}

/// `gss_key_value_element_desc`.
#[repr(C)]
pub(super) struct KeyValue {
    pub(super) key: *const c_char,
    pub(super) value: *const c_char,
}

/// `gss_key_value_set_desc`.
#[repr(C)]
pub(super) struct KeyValues {
    pub(super) count: Number,
    pub(super) elements: *const KeyValue,
}

macro_rules! functions {
    ($($name:ident($($argument:ty),* $(,)?);)*) => {
        /// The functions in use.
        pub(super) struct Api {
            $(pub(super) $name: unsafe extern "C" fn($($argument),*) -> Number,)*
            /// Holds them in memory.
            _library: Library,
        }

        impl Api {
            pub(super) fn load() -> Result<Api, libloading::Error> {
                // SAFETY: loading it runs the constructors of MIT Kerberos, which any program may.
                let library = unsafe { Library::new(LIBRARY) }?;
                Ok(Api {
                    $($name: {
                        type Function = unsafe extern "C" fn($($argument),*) -> Number;
                        let name = concat!(stringify!($name), "\0").as_bytes();
                        // SAFETY: the type is that of the function in the library's headers, whose
                        // interface stays the same as long as the name of the library does.
                        *unsafe { library.get::<Function>(name) }?
                    },)*
                    _library: library,
                })
            }
        }
    };
}

functions! {
    gss_import_name(*mut Number, *const RawBuffer, *const Oid, *mut *mut RawName);
    gss_display_name(*mut Number, *mut RawName, *mut RawBuffer, *mut *const Oid);
    gss_release_name(*mut Number, *mut *mut RawName);
    gss_acquire_cred_from(
        *mut Number,
        *mut RawName,
        Number,
        *const OidSet,
        c_int,
        *const KeyValues,
        *mut *mut RawCredential,
        *mut *mut OidSet,
        *mut Number,
    );
    gss_set_neg_mechs(*mut Number, *mut RawCredential, *const OidSet);
    gss_release_cred(*mut Number, *mut *mut RawCredential);
    gss_accept_sec_context(
        *mut Number,
        *mut *mut RawContext,
        *mut RawCredential,
        *const RawBuffer,
        *const Bindings,
        *mut *mut RawName,
        *mut *const Oid,
        *mut RawBuffer,
        *mut Number,
        *mut Number,
        *mut *mut RawCredential,
    );
    gss_init_sec_context(
        *mut Number,
        *mut RawCredential,
        *mut *mut RawContext,
        *mut RawName,
        *const Oid,
        Number,
        Number,
        *const Bindings,
        *const RawBuffer,
        *mut *const Oid,
        *mut RawBuffer,
        *mut Number,
        *mut Number,
    );
    gss_delete_sec_context(*mut Number, *mut *mut RawContext, *mut RawBuffer);
    gss_release_buffer(*mut Number, *mut RawBuffer);
    gss_display_status(
        *mut Number,
        Number,
        c_int,
        *const Oid,
        *mut Number,
        *mut RawBuffer,
    );
}
