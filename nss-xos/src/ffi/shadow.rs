//! The shadow table: empty.
//!
//! No account of the grid has a password of this machine, and the user table says so by itself: its
//! second field is `!*`, not the `x` that sends `pam_unix` and others here. With that, and without
//! an entry here, stock tools do what is right: `pam_unix` refuses every password and has no
//! objection in its account phase (`unix_chkpwd` is not called), `passwd -S` shows the account as
//! locked, and an sshd without PAM, which would bypass `pam_xos`, takes it for locked and refuses
//! keys too. An entry could only be a second place from which a password might come. The functions
//! are there so that `shadow: files xos` in `/etc/nsswitch.conf` is answered and not an error.

use libc::{c_char, c_int, size_t, spwd};

use super::{finish, finish_plain};
use crate::status::Failure;

/// Looks up a shadow entry by name: there is none.
///
/// # Safety
/// As glibc calls it: `errnop` is null or valid for writing; the rest is not looked at.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _nss_xos_getspnam_r(
    _name: *const c_char,
    _result: *mut spwd,
    _buffer: *mut c_char,
    _length: size_t,
    errnop: *mut c_int,
) -> c_int {
    // SAFETY: `errnop` is passed on from the caller.
    unsafe { finish(errnop, || Err(Failure::NotFound)) }
}

/// Begins an enumeration of nothing.
#[unsafe(no_mangle)]
pub extern "C" fn _nss_xos_setspent(_stay_open: c_int) -> c_int {
    finish_plain(|| Ok(()))
}

/// Gives the next shadow entry: there is none.
///
/// # Safety
/// As [`_nss_xos_getspnam_r`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _nss_xos_getspent_r(
    _result: *mut spwd,
    _buffer: *mut c_char,
    _length: size_t,
    errnop: *mut c_int,
) -> c_int {
    // SAFETY: `errnop` is passed on from the caller.
    unsafe { finish(errnop, || Err(Failure::NotFound)) }
}

/// Ends an enumeration of nothing.
#[unsafe(no_mangle)]
pub extern "C" fn _nss_xos_endspent() -> c_int {
    finish_plain(|| Ok(()))
}
