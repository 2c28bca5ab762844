//! A user's groups, all in one lookup.

use std::path::Path;

use libc::{c_long, gid_t};
use xos_base::accounts::AccountsFile;

use crate::status::Failure;

/// glibc's growing list of group ids.
pub(super) struct List {
    start: *mut c_long,
    size: *mut c_long,
    groups: *mut *mut gid_t,
    limit: c_long,
}

/// Adds the groups of `user`; `primary` is in the list already.
pub(super) fn add_groups<P: AsRef<Path>>(
    file: &AccountsFile<P>,
    user: &str,
    primary: gid_t,
    mut list: List,
) -> Result<(), Failure> {
    let mapped = file.current()?;
    let gids = mapped.view().groups_of(user)?.ok_or(Failure::NotFound)?;
    for gid in gids {
        let gid = gid?;
        if gid != primary && !list.push(gid)? {
            break;
        }
    }
    Ok(())
}

impl List {
    /// # Safety
    /// The pointers must be valid for reading and writing; `*groups` must come from `malloc`, have
    /// room for `*size` ids and hold `*start`.
    pub(super) unsafe fn new(
        start: *mut c_long,
        size: *mut c_long,
        groups: *mut *mut gid_t,
        limit: c_long,
    ) -> Self {
        Self { start, size, groups, limit }
    }

    /// Whether there was room within the caller's limit.
    fn push(&mut self, gid: gid_t) -> Result<bool, Failure> {
        // SAFETY: valid by the contract of `new`.
        let (start, size) = unsafe { (*self.start, *self.size) };
        if start >= size && !self.grow(size)? {
            return Ok(false);
        }
        let at = usize::try_from(start).map_err(|_| Failure::TryAgain(libc::ENOMEM))?;
        // SAFETY: `start` is below the size, which `grow` may have raised.
        unsafe {
            (*self.groups).add(at).write(gid);
            *self.start = start + 1;
        }
        Ok(true)
    }

    fn grow(&mut self, size: c_long) -> Result<bool, Failure> {
        if self.limit > 0 && size >= self.limit {
            return Ok(false);
        }
        let doubled = size.max(8).saturating_mul(2);
        let larger = if self.limit > 0 { doubled.min(self.limit) } else { doubled };
        let no_memory = Failure::TryAgain(libc::ENOMEM);
        let bytes = usize::try_from(larger)
            .ok()
            .and_then(|count| count.checked_mul(size_of::<gid_t>()))
            .ok_or(no_memory)?;
        // SAFETY: the list came from `malloc` or our last `realloc`, by the contract of `new`.
        let moved = unsafe { libc::realloc((*self.groups).cast(), bytes) };
        if moved.is_null() {
            return Err(no_memory);
        }
        // SAFETY: valid by the contract of `new`; the list now has room for `larger` ids.
        unsafe {
            *self.groups = moved.cast();
            *self.size = larger;
        }
        Ok(true)
    }
}
