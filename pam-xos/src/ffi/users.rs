//! What libc says of a name: the host's own view, in the order of `/etc/nsswitch.conf`; and who
//! runs this process.

use libc::c_char;
use std::ffi::CString;
use std::mem::MaybeUninit;
use std::{io, ptr};

/// The first buffer for an entry, in bytes; most fit.
const BUFFER_BYTES: usize = 1024;
/// The largest.
const BUFFER_BYTES_MAX: usize = 1 << 20;

/// The real uid of this process: of a set-user-id program, as `sudo`, that of who started it.
pub(crate) fn real_uid() -> u32 {
    // SAFETY: it takes nothing and always succeeds (getuid(2)).
    unsafe { libc::getuid() }
}

/// The uid of an account; `None` when nobody has the name.
///
/// # Errors
/// When libc lacks something, so that it cannot tell.
pub(crate) fn uid_of(name: &str) -> io::Result<Option<u32>> {
    let name = CString::new(name)?;
    let mut buffer: Vec<c_char> = vec![0; BUFFER_BYTES];
    loop {
        let mut entry = MaybeUninit::<libc::passwd>::uninit();
        let mut found = ptr::null_mut();
        // SAFETY: a C string, room for an entry and for its texts, and a place for the answer.
        let code = unsafe {
            libc::getpwnam_r(
                name.as_ptr(),
                entry.as_mut_ptr(),
                buffer.as_mut_ptr(),
                buffer.len(),
                &mut found,
            )
        };
        // SAFETY: null, or `entry`, which libc filled then.
        if let Some(found) = unsafe { found.as_ref() } {
            return Ok(Some(found.pw_uid));
        }
        match code {
            libc::ERANGE if buffer.len() < BUFFER_BYTES_MAX => buffer.resize(buffer.len() * 2, 0),
            libc::ERANGE
            | libc::EMFILE
            | libc::ENFILE
            | libc::ENOMEM
            | libc::EAGAIN
            | libc::EINTR => return Err(io::Error::from_raw_os_error(code)),
            // Whatever else a service may lack, it does not know the name: others decide.
            _ => return Ok(None),
        }
    }
}
