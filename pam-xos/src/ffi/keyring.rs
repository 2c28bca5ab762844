//! The kernel's keyring of a session, where its programs find whose membership they run under.

use libc::{c_long, c_void, uid_t};
use std::ffi::CStr;
use std::io;

/// The kind of the entry: a text that the kernel does not look at.
const KIND: &CStr = c"user";
/// The entry's name.
const NAME: &CStr = c"xos:membership";
/// How the kernel names a keyring that all sessions of a user share.
const SHARED_PREFIX: &[u8] = b"_uid_ses.";
/// The longest description of a keyring that is looked at, in bytes.
const DESCRIPTION_BYTES_MAX: usize = 512;
/// "As it is", for ids of users and groups.
const SAME: uid_t = uid_t::MAX;

const SESSION: c_long = libc::KEY_SPEC_SESSION_KEYRING as c_long;
const USER: c_long = libc::KEY_SPEC_USER_KEYRING as c_long;

/// Why there is no entry.
#[derive(Debug)]
pub(crate) enum KeyringError {
    /// The kernel has no keyrings, or gives none. The session goes on without.
    Refused(io::Error),
    /// The process could not become itself again: it must not go on.
    Stuck(io::Error),
}

/// Puts what a session's membership is into its keyring, as the account's own.
///
/// A session keyring of this account's is used, as `pam_keyinit` makes one. Any other is left as
/// it is, for those who use it, and this process and its children get a new one: so `su` puts
/// nothing into the keyring of whoever called it.
///
/// # Errors
/// [`KeyringError`].
pub(crate) fn keep_membership(uid: u32, content: &str) -> Result<(), KeyringError> {
    // A new keyring, and "the user's", are those of the real uid; so pam_keyinit does it too.
    let old = real_uid().map_err(KeyringError::Refused)?;
    become_real(uid).map_err(KeyringError::Refused)?;
    let added = join_own(uid).and_then(|()| add(content.as_bytes()));
    become_real(old).map_err(KeyringError::Stuck)?;
    let key = added.map_err(KeyringError::Refused)?;
    // SAFETY: only numbers are passed.
    unsafe { keyctl(libc::KEYCTL_CHOWN, key, uid as c_long, SAME as c_long) }
        .map(drop)
        .map_err(KeyringError::Refused)
}

fn real_uid() -> io::Result<uid_t> {
    let (mut real, mut effective, mut saved) = (0, 0, 0);
    // SAFETY: three places to write to.
    let code = unsafe { libc::getresuid(&mut real, &mut effective, &mut saved) };
    if code == 0 { Ok(real) } else { Err(io::Error::last_os_error()) }
}

/// Changes the real uid only: what the process may do goes by the effective one.
fn become_real(uid: uid_t) -> io::Result<()> {
    // SAFETY: only numbers are passed.
    let code = unsafe { libc::setresuid(uid, SAME, SAME) };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sees to it that the session keyring is the account's own.
fn join_own(uid: u32) -> io::Result<()> {
    let mut described = [0_u8; DESCRIPTION_BYTES_MAX];
    let (start, room) = (described.as_mut_ptr(), described.len() as c_long);
    // SAFETY: `start` has room for so many bytes.
    let length = unsafe { keyctl(libc::KEYCTL_DESCRIBE, SESSION, start as c_long, room) };
    // A keyring that was revoked or is not to be looked at is not this account's either.
    let length = length.ok().and_then(|length| usize::try_from(length).ok());
    if length.and_then(|length| described.get(..length)).is_some_and(|text| is_own(text, uid)) {
        return Ok(());
    }
    // SAFETY: the kernel takes null for a keyring without a name.
    unsafe { keyctl(libc::KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0) }?;
    // SAFETY: only numbers are passed.
    unsafe { keyctl(libc::KEYCTL_LINK, USER, SESSION, 0) }.map(drop)
}

/// Whether a description (`keyring;<uid>;<gid>;<rights>;<name>`, as `KEYCTL_DESCRIBE` gives it) is
/// that of a session keyring of this user's own.
fn is_own(description: &[u8], uid: u32) -> bool {
    let mut fields = description.splitn(5, |byte| *byte == b';');
    let owner = fields.nth(1);
    let name = fields.nth(2);
    owner == Some(uid.to_string().as_bytes())
        && name.is_some_and(|name| !name.starts_with(SHARED_PREFIX))
}

/// Adds the entry, or replaces what it holds.
fn add(content: &[u8]) -> io::Result<c_long> {
    // SAFETY: two C strings, so many bytes, and a number.
    let key = unsafe {
        libc::syscall(
            libc::SYS_add_key,
            KIND.as_ptr(),
            NAME.as_ptr(),
            content.as_ptr().cast::<c_void>(),
            content.len(),
            SESSION,
        )
    };
    if key < 0 { Err(io::Error::last_os_error()) } else { Ok(key) }
}

/// One operation of `keyctl(2)`.
///
/// # Safety
/// The arguments must be what the operation takes.
unsafe fn keyctl(operation: u32, a: c_long, b: c_long, c: c_long) -> io::Result<c_long> {
    // SAFETY: by this function's contract; an operation that takes less ignores the rest.
    let done = unsafe { libc::syscall(libc::SYS_keyctl, operation as c_long, a, b, c) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, `su` would write into its caller's keyring, or a session would lose the one
    /// that it has.
    #[test]
    fn only_an_accounts_own_keyring_of_one_session_is_used() {
        for (description, own) in [
            ("keyring;1879048202;0;3f130000;_ses", true),
            ("keyring;1879048202;0;3f130000;name;with;signs", true),
            ("keyring;1879048202;-1;1f3f0000;_uid_ses.1879048202", false),
            ("keyring;0;0;3f130000;_ses", false),
            ("keyring;18790482020;0;3f130000;_ses", false),
            ("keyring;1879048202;0;3f130000", false),
            ("", false),
        ] {
            assert_eq!(is_own(description.as_bytes(), 1_879_048_202), own, "{description}");
        }
    }
}
