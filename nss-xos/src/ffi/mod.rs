//! The C ABI of glibc's NSS. Every entry is a few lines around a function that can be tested with
//! any file; nothing unwinds into C.

mod buffer;
mod groups;
mod lookup;
mod shadow;

#[cfg(test)]
mod tests;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
};

use libc::{c_char, c_int, c_long, gid_t, group, passwd, size_t, uid_t};
use xos_base::{
    accounts::{AccountsFile, DEFAULT_PATH, Mapped, Owner},
    local::SOCKET,
};

use crate::{
    asking::Node,
    status::{Failure, SUCCESS},
};
use buffer::Answer;

static FILE: AccountsFile<&'static str> = AccountsFile::seldom(DEFAULT_PATH, Owner::Root);
static NODE: Node<&'static str> = Node::new(SOCKET);
static USERS: Cursor = Cursor::new();
static GROUPS: Cursor = Cursor::new();

/// How often the enumeration's lock is tried; glibc holds its own around us, so once is the rule.
const LOCK_TRIES: u32 = 100;

/// Looks up a user by name.
///
/// # Safety
/// As glibc calls it: `name` is a C string, the other pointers are valid for writing, `buffer` for
/// `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _nss_xos_getpwnam_r(
    name: *const c_char,
    result: *mut passwd,
    buffer: *mut c_char,
    length: size_t,
    errnop: *mut c_int,
) -> c_int {
    // SAFETY: passed on from the caller.
    let answer = unsafe { Answer::new(result, buffer, length) };
    // SAFETY: `name` and `errnop` are passed on from the caller.
    unsafe { finish(errnop, || lookup::user_by_name(&FILE, &NODE, lookup::text(name)?, answer)) }
}

/// Looks up a user by id.
///
/// # Safety
/// As [`_nss_xos_getpwnam_r`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _nss_xos_getpwuid_r(
    uid: uid_t,
    result: *mut passwd,
    buffer: *mut c_char,
    length: size_t,
    errnop: *mut c_int,
) -> c_int {
    // SAFETY: passed on from the caller.
    let answer = unsafe { Answer::new(result, buffer, length) };
    // SAFETY: `errnop` is passed on from the caller.
    unsafe { finish(errnop, || lookup::user_by_uid(&FILE, &NODE, uid, answer)) }
}

/// Begins an enumeration of users.
#[unsafe(no_mangle)]
pub extern "C" fn _nss_xos_setpwent(_stay_open: c_int) -> c_int {
    finish_plain(|| USERS.begin(&FILE))
}

/// Gives the next user.
///
/// # Safety
/// As [`_nss_xos_getpwnam_r`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _nss_xos_getpwent_r(
    result: *mut passwd,
    buffer: *mut c_char,
    length: size_t,
    errnop: *mut c_int,
) -> c_int {
    // SAFETY: passed on from the caller.
    let answer = unsafe { Answer::new(result, buffer, length) };
    // SAFETY: `errnop` is passed on from the caller.
    unsafe { finish(errnop, || lookup::next_user(&FILE, &USERS, answer)) }
}

/// Ends an enumeration of users.
#[unsafe(no_mangle)]
pub extern "C" fn _nss_xos_endpwent() -> c_int {
    finish_plain(|| USERS.end())
}

/// Looks up a group by name.
///
/// # Safety
/// As [`_nss_xos_getpwnam_r`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _nss_xos_getgrnam_r(
    name: *const c_char,
    result: *mut group,
    buffer: *mut c_char,
    length: size_t,
    errnop: *mut c_int,
) -> c_int {
    // SAFETY: passed on from the caller.
    let answer = unsafe { Answer::new(result, buffer, length) };
    // SAFETY: `name` and `errnop` are passed on from the caller.
    unsafe { finish(errnop, || lookup::group_by_name(&FILE, lookup::text(name)?, answer)) }
}

/// Looks up a group by id.
///
/// # Safety
/// As [`_nss_xos_getpwnam_r`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _nss_xos_getgrgid_r(
    gid: gid_t,
    result: *mut group,
    buffer: *mut c_char,
    length: size_t,
    errnop: *mut c_int,
) -> c_int {
    // SAFETY: passed on from the caller.
    let answer = unsafe { Answer::new(result, buffer, length) };
    // SAFETY: `errnop` is passed on from the caller.
    unsafe { finish(errnop, || lookup::group_by_gid(&FILE, gid, answer)) }
}

/// Begins an enumeration of groups.
#[unsafe(no_mangle)]
pub extern "C" fn _nss_xos_setgrent(_stay_open: c_int) -> c_int {
    finish_plain(|| GROUPS.begin(&FILE))
}

/// Gives the next group.
///
/// # Safety
/// As [`_nss_xos_getpwnam_r`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _nss_xos_getgrent_r(
    result: *mut group,
    buffer: *mut c_char,
    length: size_t,
    errnop: *mut c_int,
) -> c_int {
    // SAFETY: passed on from the caller.
    let answer = unsafe { Answer::new(result, buffer, length) };
    // SAFETY: `errnop` is passed on from the caller.
    unsafe { finish(errnop, || lookup::next_group(&FILE, &GROUPS, answer)) }
}

/// Ends an enumeration of groups.
#[unsafe(no_mangle)]
pub extern "C" fn _nss_xos_endgrent() -> c_int {
    finish_plain(|| GROUPS.end())
}

/// Adds a user's groups, except `primary`, to a list that glibc and we grow by `realloc`.
///
/// # Safety
/// As glibc calls it: `user` is a C string; `*groups` has room for `*size` ids, `*start` of them
/// set, and comes from `malloc`; `errnop` is valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _nss_xos_initgroups_dyn(
    user: *const c_char,
    primary: gid_t,
    start: *mut c_long,
    size: *mut c_long,
    groups: *mut *mut gid_t,
    limit: c_long,
    errnop: *mut c_int,
) -> c_int {
    // SAFETY: passed on from the caller.
    let list = unsafe { groups::List::new(start, size, groups, limit) };
    // SAFETY: `user` and `errnop` are passed on from the caller.
    unsafe { finish(errnop, || groups::add_groups(&FILE, lookup::text(user)?, primary, list)) }
}

/// Runs `act`, keeps a panic out of C, and tells glibc how it ended.
///
/// # Safety
/// `errnop` must be null or valid for writing.
unsafe fn finish(errnop: *mut c_int, act: impl FnOnce() -> Result<(), Failure>) -> c_int {
    let Err(failure) = guarded(act) else { return SUCCESS };
    let (status, errno) = failure.codes();
    if !errnop.is_null() {
        // SAFETY: not null, so valid by this function's contract.
        unsafe { *errnop = errno };
    }
    status
}

fn finish_plain(act: impl FnOnce() -> Result<(), Failure>) -> c_int {
    guarded(act).map_or_else(|failure| failure.codes().0, |()| SUCCESS)
}

fn guarded(act: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or(Err(Failure::Unavailable(libc::EIO)))
}

/// Where an enumeration stands: it goes on in the file it began with, even if that was replaced.
struct Cursor(Mutex<Option<Place>>);

/// The file, and the entry to give next.
struct Place {
    mapped: Arc<Mapped>,
    next: u32,
}

impl Cursor {
    const fn new() -> Self {
        Self(Mutex::new(None))
    }

    fn begin<P: AsRef<std::path::Path>>(&self, file: &AccountsFile<P>) -> Result<(), Failure> {
        let mut place = self.lock()?;
        *place = None;
        *place = Some(Place { mapped: file.current()?, next: 0 });
        Ok(())
    }

    fn end(&self) -> Result<(), Failure> {
        *self.lock()? = None;
        Ok(())
    }

    /// Waits only a moment: after a fork the lock may be held for ever by a thread that is not
    /// here.
    fn lock(&self) -> Result<MutexGuard<'_, Option<Place>>, Failure> {
        for _ in 0..LOCK_TRIES {
            match self.0.try_lock() {
                Ok(place) => return Ok(place),
                Err(TryLockError::Poisoned(place)) => return Ok(PoisonError::into_inner(place)),
                Err(TryLockError::WouldBlock) => std::hint::spin_loop(),
            }
        }
        Err(Failure::TryAgain(libc::EAGAIN))
    }
}
