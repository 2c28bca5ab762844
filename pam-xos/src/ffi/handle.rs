//! libpam's handle.
//!
//! The library is linked under the name that every Linux with PAM has it by, so that building needs
//! no package for developers; and it is linked at all, not left to be found in the host, because a
//! host may have loaded it out of sight of its modules.

use crate::codes::Code;
use crate::texts;
use libc::{c_char, c_int, c_void};
use std::ffi::{CStr, CString};
use std::ptr::{self, NonNull};
use xos_base::local::Typed;
use zeroize::Zeroizing;

/// `PAM_AUTHTOK`, the item: the password that modules leave to one another. libpam wipes it.
const PAM_AUTHTOK: c_int = 6;

/// The name under which the session's name is kept.
const SESSION_KEY: &CStr = c"xos_session";

/// `pam_handle_t`, which is libpam's own.
#[repr(C)]
pub struct RawHandle {
    _opaque: [u8; 0],
}

type Cleanup = unsafe extern "C" fn(*mut RawHandle, *mut c_void, c_int);

#[link(name = "libpam.so.0", kind = "dylib", modifiers = "+verbatim")]
unsafe extern "C" {
    fn pam_get_user(pamh: *mut RawHandle, user: *mut *const c_char, prompt: *const c_char)
    -> c_int;
    fn pam_get_item(pamh: *const RawHandle, item: c_int, value: *mut *const c_void) -> c_int;
    fn pam_set_item(pamh: *mut RawHandle, item: c_int, value: *const c_void) -> c_int;
    fn pam_getenv(pamh: *mut RawHandle, name: *const c_char) -> *const c_char;
    fn pam_putenv(pamh: *mut RawHandle, name_value: *const c_char) -> c_int;
    fn pam_set_data(
        pamh: *mut RawHandle,
        name: *const c_char,
        data: *mut c_void,
        cleanup: Option<Cleanup>,
    ) -> c_int;
    fn pam_get_data(pamh: *const RawHandle, name: *const c_char, data: *mut *const c_void)
    -> c_int;
    fn pam_syslog(pamh: *const RawHandle, priority: c_int, format: *const c_char, ...);
}

/// What the host told libpam, of what is a text (`_pam_types.h`).
#[repr(i32)]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Item {
    /// The service: the file in `/etc/pam.d`.
    Service = 1,
    /// The terminal.
    Tty = 3,
    /// From which host.
    Rhost = 4,
}

/// How much a line of the log matters.
#[repr(i32)]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Priority {
    /// Somebody has to look.
    Error = libc::LOG_ERR,
    /// Somebody was refused, or something is missing.
    Warning = libc::LOG_WARNING,
    /// Worth knowing.
    Notice = libc::LOG_NOTICE,
    /// For whoever searches a fault.
    Debug = libc::LOG_DEBUG,
}

/// The handle, for the time of one call into the module.
pub(crate) struct Handle(NonNull<RawHandle>);

impl Handle {
    /// Of libpam's pointer, if it is one.
    ///
    /// # Safety
    /// `raw` must be null or libpam's handle, valid as long as this value lives, and used by this
    /// thread only.
    pub(super) unsafe fn new(raw: *mut RawHandle) -> Option<Handle> {
        NonNull::new(raw).map(Handle)
    }

    fn raw(&self) -> *mut RawHandle {
        self.0.as_ptr()
    }

    /// Whom this is about. Asks the person when the host does not know yet; `None` when nobody was
    /// named, or nobody whose name is a text.
    pub(crate) fn user(&self) -> Option<String> {
        let mut user = ptr::null();
        // SAFETY: the handle is valid by `new`'s contract, and `user` can be written to.
        let code = unsafe { pam_get_user(self.raw(), &mut user, ptr::null()) };
        if code != Code::Success.number() {
            return None;
        }
        // SAFETY: libpam gives null or a C string, which lives until the item is changed.
        unsafe { text(user) }?.to_str().ok().map(str::to_owned)
    }

    /// One item, if it is there and not empty.
    pub(crate) fn item(&self, item: Item) -> Option<String> {
        // SAFETY: these items are null or C strings.
        let value = unsafe { text(self.item_pointer(item as c_int).cast()) }?;
        Some(value.to_string_lossy().into_owned()).filter(|value| !value.is_empty())
    }

    /// The password that a module before this one asked for, if one did.
    pub(crate) fn password(&self) -> Option<Typed> {
        // SAFETY: this item is null or a C string.
        let token = unsafe { text(self.item_pointer(PAM_AUTHTOK).cast()) }?;
        let token = token.to_str().ok().filter(|token| !token.is_empty())?;
        Some(Typed(token.to_owned()))
    }

    /// Leaves a password to the modules after this one.
    ///
    /// # Errors
    /// libpam's code.
    pub(crate) fn leave_password(&self, password: &Typed) -> Result<(), c_int> {
        let mut token = Zeroizing::new(Vec::<u8>::with_capacity(password.0.len() + 1));
        token.extend_from_slice(password.0.as_bytes());
        token.push(0);
        // SAFETY: the handle is valid by `new`'s contract; libpam copies the text, which ends by
        // a zero byte.
        let code = unsafe { pam_set_item(self.raw(), PAM_AUTHTOK, token.as_ptr().cast()) };
        if code == Code::Success.number() { Ok(()) } else { Err(code) }
    }

    /// One item as it lies in libpam; null when it is not there.
    pub(super) fn item_pointer(&self, item: c_int) -> *const c_void {
        let mut value = ptr::null();
        // SAFETY: the handle is valid by `new`'s contract, and `value` can be written to.
        let code = unsafe { pam_get_item(self.raw(), item, &mut value) };
        if code == Code::Success.number() { value } else { ptr::null() }
    }

    /// A variable of the session's environment.
    pub(crate) fn env(&self, name: &CStr) -> Option<String> {
        // SAFETY: the handle is valid by `new`'s contract, `name` is a C string.
        let value = unsafe { pam_getenv(self.raw(), name.as_ptr()) };
        // SAFETY: libpam gives null or a C string, which lives until the variable is changed.
        Some(unsafe { text(value) }?.to_string_lossy().into_owned())
    }

    /// Sets a variable of the session's environment.
    ///
    /// # Errors
    /// Why it cannot be.
    pub(crate) fn put_env(&self, name: &str, value: &str) -> Result<(), &'static str> {
        // Without the sign libpam would remove a variable.
        if name.is_empty() || name.contains('=') {
            return Err("its name is empty or holds a =");
        }
        let both = CString::new(format!("{name}={value}")).map_err(|_| "it holds a NUL")?;
        // SAFETY: the handle is valid by `new`'s contract; libpam copies the text.
        let code = unsafe { pam_putenv(self.raw(), both.as_ptr()) };
        if code == Code::Success.number() { Ok(()) } else { Err("libpam refuses it") }
    }

    /// Keeps the session's name until the session is closed.
    ///
    /// # Errors
    /// libpam's code.
    pub(crate) fn keep(&self, session: String) -> Result<(), c_int> {
        let data = Box::into_raw(Box::new(session));
        // SAFETY: the handle is valid by `new`'s contract; libpam keeps `data` for `forget`.
        let code =
            unsafe { pam_set_data(self.raw(), SESSION_KEY.as_ptr(), data.cast(), Some(forget)) };
        if code == Code::Success.number() {
            return Ok(());
        }
        // SAFETY: libpam did not take it, so it is still ours, and it came from `Box::into_raw`.
        drop(unsafe { Box::from_raw(data) });
        Err(code)
    }

    /// The session's name, if one was kept.
    pub(crate) fn kept(&self) -> Option<String> {
        let mut data = ptr::null();
        // SAFETY: the handle is valid by `new`'s contract, and `data` can be written to.
        let code = unsafe { pam_get_data(self.raw(), SESSION_KEY.as_ptr(), &mut data) };
        if code != Code::Success.number() {
            return None;
        }
        // SAFETY: null, or what `keep` put under this name: libpam frees it by `forget` only.
        unsafe { data.cast::<String>().as_ref() }.cloned()
    }

    /// Writes a line to the log, where libpam adds module, service and phase.
    pub(crate) fn log(&self, priority: Priority, line: &str) {
        let line = texts::log_line(line);
        // SAFETY: the handle is valid by `new`'s contract; the format takes one C string.
        unsafe { pam_syslog(self.raw(), priority as c_int, c"%s".as_ptr(), line.as_ptr()) };
    }
}

/// Frees what [`Handle::keep`] gave to libpam.
unsafe extern "C" fn forget(_pamh: *mut RawHandle, data: *mut c_void, _status: c_int) {
    if !data.is_null() {
        // SAFETY: libpam calls this once, with what `keep` gave it: it is from `Box::into_raw`.
        drop(unsafe { Box::from_raw(data.cast::<String>()) });
    }
}

/// A C string, if it is one.
///
/// # Safety
/// `text` must be null or a C string that lives for `'a`.
unsafe fn text<'a>(text: *const c_char) -> Option<&'a CStr> {
    // SAFETY: not null, so a C string by this function's contract.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })
}
