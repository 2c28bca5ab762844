//! The lookups, over any account file.

use std::{ffi::CStr, path::Path};

use libc::{c_char, group, passwd};
use xos_base::{
    accounts::{AccountsError, AccountsFile, AccountsView, User},
    local::UserKey,
};

use super::{Cursor, Place, buffer::Answer};
use crate::{
    asking::{self, Node},
    status::Failure,
};

type Done = Result<(), Failure>;

/// The text of a C string; what is no UTF-8 names nobody here.
///
/// # Safety
/// `text` must be null or a C string that lives for `'a`.
pub(super) unsafe fn text<'a>(text: *const c_char) -> Result<&'a str, Failure> {
    if text.is_null() {
        return Err(Failure::NotFound);
    }
    // SAFETY: not null, so a C string by this function's contract.
    unsafe { CStr::from_ptr(text) }.to_str().map_err(|_| Failure::NotFound)
}

pub(super) fn user_by_name<P: AsRef<Path>>(
    file: &AccountsFile<P>,
    node: &Node<P>,
    name: &str,
    answer: Answer<passwd>,
) -> Done {
    user(file, node, |view| view.user_by_name(name), || asking::by_name(name), answer)
}

pub(super) fn user_by_uid<P: AsRef<Path>>(
    file: &AccountsFile<P>,
    node: &Node<P>,
    uid: u32,
    answer: Answer<passwd>,
) -> Done {
    user(file, node, |view| view.user_by_uid(uid), || asking::by_uid(uid), answer)
}

/// A user from the file; when the file cannot say, from the node, if it can be one of the grid's.
fn user<P: AsRef<Path>>(
    file: &AccountsFile<P>,
    node: &Node<P>,
    find: impl for<'v> FnOnce(AccountsView<'v>) -> Result<Option<User<'v>>, AccountsError>,
    key: impl FnOnce() -> Option<UserKey>,
    answer: Answer<passwd>,
) -> Done {
    let failure: Failure = match file.current() {
        Err(error) => error.into(),
        Ok(mapped) => match find(mapped.view()) {
            Ok(Some(user)) => return answer.user(&user),
            Ok(None) => Failure::NotFound,
            Err(error) => error.into(),
        },
    };
    let is_final = matches!(failure, Failure::SmallBuffer | Failure::TryAgain(_));
    let key = if is_final { None } else { key() };
    let found = node.find(key.ok_or(failure)?)?;
    answer.user(&asking::row(&found))
}

pub(super) fn group_by_name<P: AsRef<Path>>(
    file: &AccountsFile<P>,
    name: &str,
    answer: Answer<group>,
) -> Done {
    let mapped = file.current()?;
    answer.group(&mapped.view().group_by_name(name)?.ok_or(Failure::NotFound)?)
}

pub(super) fn group_by_gid<P: AsRef<Path>>(
    file: &AccountsFile<P>,
    gid: u32,
    answer: Answer<group>,
) -> Done {
    let mapped = file.current()?;
    answer.group(&mapped.view().group_by_gid(gid)?.ok_or(Failure::NotFound)?)
}

pub(super) fn next_user<P: AsRef<Path>>(
    file: &AccountsFile<P>,
    cursor: &Cursor,
    answer: Answer<passwd>,
) -> Done {
    advance(file, cursor, |view, at| answer.user(&view.user_at(at)?.ok_or(Failure::NotFound)?))
}

pub(super) fn next_group<P: AsRef<Path>>(
    file: &AccountsFile<P>,
    cursor: &Cursor,
    answer: Answer<group>,
) -> Done {
    advance(file, cursor, |view, at| answer.group(&view.group_at(at)?.ok_or(Failure::NotFound)?))
}

/// Moves on only when the entry was delivered: with too small a buffer glibc asks for it again.
fn advance<P: AsRef<Path>>(
    file: &AccountsFile<P>,
    cursor: &Cursor,
    deliver: impl FnOnce(AccountsView<'_>, u32) -> Done,
) -> Done {
    let mut place = cursor.lock()?;
    if place.is_none() {
        *place = Some(Place { mapped: file.current()?, next: 0 });
    }
    let Some(Place { mapped, next }) = place.as_mut() else { return Err(Failure::NotFound) };
    if !file.can_go_on(mapped) {
        return Err(Failure::Unavailable(libc::EIO));
    }
    deliver(mapped.view(), *next)?;
    *next = next.saturating_add(1);
    Ok(())
}
