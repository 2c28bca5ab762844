//! A module of NSS, called as glibc calls it (`nss/nss_module.c`, `pwd/getpwnam_r.c` there), and by
//! nobody else.
#![allow(unsafe_code)]

use crate::Result;
use crate::bench::failed;
use libloading::Library;
use nix::libc::{c_char, c_int, passwd, size_t, uid_t};
use std::ffi::CString;
use std::mem::MaybeUninit;

/// `NSS_STATUS_SUCCESS` of `nss.h`.
const SUCCESS: c_int = 1;
/// What glibc begins with (`NSS_BUFLEN_PASSWD`).
const BUFFER_BYTES: usize = 1024;

type ByName =
    unsafe extern "C" fn(*const c_char, *mut passwd, *mut c_char, size_t, *mut c_int) -> c_int;
type ByUid = unsafe extern "C" fn(uid_t, *mut passwd, *mut c_char, size_t, *mut c_int) -> c_int;

/// The file of a module, as glibc names it.
pub(super) fn library(module: &str) -> String {
    format!("libnss_{module}.so.2")
}

/// A module that was loaded.
pub(super) struct Module {
    by_name: ByName,
    by_uid: ByUid,
    buffer: [c_char; BUFFER_BYTES],
    /// Its functions are called as long as it is loaded.
    _library: Library,
}

impl Module {
    /// Loads the module `xos`, `extrausers`, ... from where the loader looks for libraries.
    ///
    /// # Errors
    /// When it is not there, or lacks the two functions.
    pub(super) fn load(module: &str) -> Result<Module> {
        let fail = |e: libloading::Error| failed("loading a module of NSS", e);
        let (by_name, by_uid) =
            (format!("_nss_{module}_getpwnam_r"), format!("_nss_{module}_getpwuid_r"));
        // SAFETY: a module of NSS may be loaded into any process: that is what it is for.
        let library = unsafe { Library::new(library(module)) }.map_err(fail)?;
        // SAFETY: the type is that of the interface between glibc and its modules.
        let by_name = *unsafe { library.get::<ByName>(by_name.as_bytes()) }.map_err(fail)?;
        // SAFETY: as above.
        let by_uid = *unsafe { library.get::<ByUid>(by_uid.as_bytes()) }.map_err(fail)?;
        Ok(Module { by_name, by_uid, buffer: [0; BUFFER_BYTES], _library: library })
    }

    /// Whether it knows an account of this name.
    ///
    /// # Errors
    /// When the name has a NUL.
    pub(super) fn has_name(&mut self, name: &str) -> Result<bool> {
        let name = CString::new(name).map_err(|e| failed("a look-up", e))?;
        let (mut found, mut errno) = (MaybeUninit::uninit(), 0);
        let buffer = self.buffer.as_mut_ptr();
        // SAFETY: all are locals or own fields, as long as the call says.
        let status = unsafe {
            (self.by_name)(name.as_ptr(), found.as_mut_ptr(), buffer, BUFFER_BYTES, &mut errno)
        };
        Ok(status == SUCCESS)
    }

    /// Whether it knows an account of this uid.
    pub(super) fn has_uid(&mut self, uid: u32) -> bool {
        let (mut found, mut errno) = (MaybeUninit::uninit(), 0);
        let buffer = self.buffer.as_mut_ptr();
        // SAFETY: as above.
        let status =
            unsafe { (self.by_uid)(uid, found.as_mut_ptr(), buffer, BUFFER_BYTES, &mut errno) };
        status == SUCCESS
    }
}
