//! Answers as C wants them: a struct of pointers into the caller's buffer.

use std::ptr;

use libc::{c_char, group, passwd, size_t};
use xos_base::accounts::{Group, User};

use crate::status::Failure;

/// A group with more members is answered without any: `ls -l` would otherwise copy megabytes for
/// one name. Whether somebody is in it is not decided here but by `initgroups`, which is exact.
pub(super) const MEMBERS_LISTED_MAX: usize = 4096;

/// No password opens these accounts, `pam_unix` looks for no shadow entry (as it would for "x"),
/// and an sshd without PAM takes the account for locked by the "!" and refuses keys too.
const NO_PASSWORD: &str = "!*";

/// Where an answer goes.
pub(super) struct Answer<T> {
    result: *mut T,
    buffer: Buffer,
}

impl<T> Answer<T> {
    /// # Safety
    /// `result` must be valid for writing, `buffer` for writing `length` bytes, until the answer
    /// was given.
    pub(super) unsafe fn new(result: *mut T, buffer: *mut c_char, length: size_t) -> Self {
        let left = if buffer.is_null() { 0 } else { length };
        Self { result, buffer: Buffer { next: buffer.cast(), left } }
    }
}

impl Answer<passwd> {
    pub(super) fn user(mut self, user: &User<'_>) -> Result<(), Failure> {
        let row = passwd {
            pw_name: self.buffer.text(user.name)?,
            pw_passwd: self.buffer.text(NO_PASSWORD)?,
            pw_uid: user.uid,
            pw_gid: user.gid,
            pw_gecos: self.buffer.text(user.gecos)?,
            pw_dir: self.buffer.text(user.home)?,
            pw_shell: self.buffer.text(user.shell)?,
        };
        // SAFETY: `result` is valid for writing by the contract of `new`.
        unsafe { self.result.write(row) };
        Ok(())
    }
}

impl Answer<group> {
    pub(super) fn group(mut self, found: &Group<'_>) -> Result<(), Failure> {
        let listed = found.members.len() <= MEMBERS_LISTED_MAX;
        let count = if listed { found.members.len() } else { 0 };
        let table = self.buffer.pointers(count + 1)?;
        for (at, member) in found.members.take(count).enumerate() {
            let member = self.buffer.text(member?)?;
            // SAFETY: `table` has `count` + 1 places, and `at` < `count`.
            unsafe { table.add(at).write(member) };
        }
        // SAFETY: the last of the `count` + 1 places.
        unsafe { table.add(count).write(ptr::null_mut()) };
        let row = group {
            gr_name: self.buffer.text(found.name)?,
            gr_passwd: self.buffer.text(NO_PASSWORD)?,
            gr_gid: found.gid,
            gr_mem: table,
        };
        // SAFETY: `result` is valid for writing by the contract of `new`.
        unsafe { self.result.write(row) };
        Ok(())
    }
}

/// The unused rest of the caller's buffer.
struct Buffer {
    next: *mut u8,
    left: usize,
}

impl Buffer {
    /// Copies a text, which holds no NUL, with one behind it.
    fn text(&mut self, text: &str) -> Result<*mut c_char, Failure> {
        let start = self.take(text.len() + 1)?;
        // SAFETY: `take` gave room for the text and one byte more, inside the caller's buffer.
        unsafe {
            ptr::copy_nonoverlapping(text.as_ptr(), start, text.len());
            start.add(text.len()).write(0);
        }
        Ok(start.cast())
    }

    /// Room for `count` pointers, aligned.
    fn pointers(&mut self, count: usize) -> Result<*mut *mut c_char, Failure> {
        let gap = self.next.align_offset(align_of::<*mut c_char>());
        self.take(gap)?;
        let bytes = count.checked_mul(size_of::<*mut c_char>()).ok_or(Failure::SmallBuffer)?;
        self.take(bytes).map(<*mut u8>::cast)
    }

    fn take(&mut self, bytes: usize) -> Result<*mut u8, Failure> {
        let left = self.left.checked_sub(bytes).ok_or(Failure::SmallBuffer)?;
        let start = self.next;
        self.left = left;
        // SAFETY: `bytes` were left in the buffer, so this is inside it or just behind its end.
        self.next = unsafe { start.add(bytes) };
        Ok(start)
    }
}
