//! The C ABI of Linux-PAM: the module's entries, and safe words for what they call. Every entry is
//! one line around a phase; nothing unwinds into the host.

mod conversation;
mod handle;
mod keyring;
mod users;

#[cfg(test)]
mod tests;

pub(crate) use conversation::{Mute, Style};
pub(crate) use handle::{Handle, Item, Priority};
pub(crate) use keyring::{KeyringError, keep_membership};
pub(crate) use users::{real_uid, uid_of};

use crate::call::{Call, GridUser};
use crate::codes::Code;
use crate::{account, auth, password, session};
use handle::RawHandle;
use libc::{c_char, c_int};
use std::ffi::CStr;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// `PAM_SILENT`: the host wants no messages.
const PAM_SILENT: c_int = 0x8000;

macro_rules! entries {
    ($($(#[$doc:meta])* $name:ident => $act:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// As libpam calls it: `pamh` is its handle, `argv` has `argc` C strings.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            pamh: *mut RawHandle,
            flags: c_int,
            argc: c_int,
            argv: *const *const c_char,
        ) -> c_int {
            // SAFETY: passed on from the caller.
            unsafe { enter(pamh, flags, argc, argv, $act) }
        }
    )*};
}

entries! {
    /// Proves who somebody is.
    pam_sm_authenticate => auth::prove;
    /// Credentials come with the session: nothing is done here.
    pam_sm_setcred => |_, _| Code::Success;
    /// Says whether an account may sign in.
    pam_sm_acct_mgmt => account::may_login;
    /// Begins a session.
    pam_sm_open_session => session::open;
    /// Ends a session.
    pam_sm_close_session => session::close;
    /// Refuses to change a password.
    pam_sm_chauthtok => password::refuse;
}

/// Runs a phase for a grid account, and steps aside for everybody else.
///
/// # Safety
/// `pamh` must be null or libpam's handle; `argv` null or hold `argc` pointers, null or C strings.
/// All must live until this returns.
unsafe fn enter(
    pamh: *mut RawHandle,
    flags: c_int,
    argc: c_int,
    argv: *const *const c_char,
    act: impl FnOnce(&Call, &GridUser) -> Code,
) -> c_int {
    let code = contained(|| {
        // SAFETY: by this function's contract.
        let Some(pam) = (unsafe { Handle::new(pamh) }) else { return Code::SystemErr };
        // SAFETY: by this function's contract.
        let words = unsafe { words(argc, argv) };
        let call = Call::new(pam, flags & PAM_SILENT != 0, words);
        match call.grid_user() {
            Ok(Some(user)) => act(&call, &user),
            Ok(None) => Code::Ignore,
            Err(code) => code,
        }
    });
    let code = code.unwrap_or_else(|| {
        // SAFETY: by this function's contract.
        if let Some(pam) = unsafe { Handle::new(pamh) } {
            pam.log(Priority::Error, "a fault in pam_xos: the call is refused; report it");
        }
        Code::SystemErr
    });
    code.number()
}

/// Keeps a panic out of C. What it says goes where the host's errors go.
fn contained(act: impl FnOnce() -> Code) -> Option<Code> {
    catch_unwind(AssertUnwindSafe(act)).ok()
}

/// The words of the module's line.
///
/// # Safety
/// `argv` must be null or hold `argc` pointers, each null or to a C string that lives for `'a`.
unsafe fn words<'a>(argc: c_int, argv: *const *const c_char) -> Vec<&'a CStr> {
    let count = if argv.is_null() { 0 } else { usize::try_from(argc).unwrap_or(0) };
    // SAFETY: `at` is below the count of pointers, by this function's contract.
    let all = (0..count).map(|at| unsafe { *argv.add(at) });
    // SAFETY: not null, so C strings by this function's contract.
    all.filter(|word| !word.is_null()).map(|word| unsafe { CStr::from_ptr(word) }).collect()
}
