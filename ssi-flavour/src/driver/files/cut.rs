//! Cutting files back, and keeping what is cut from them.

use super::look::{Identity, is_again, is_plain, plain, stat};
use super::{FilesError, Plan, told};
use crate::sys;
use rustix::fs::{
    AtFlags, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, fsync, ftruncate, futimens, openat,
    unlinkat,
};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Longest name of a file, in bytes.
const NAME_MAX: usize = 255;
/// Names that are tried.
const NAMES_MAX: u32 = 16;

/// What was cut from a file, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The file.
    pub path: PathBuf,
    /// The one that holds what was behind its end.
    pub kept: PathBuf,
    /// So much of it.
    pub bytes: u64,
}

/// What is to be cut, and was copied.
struct Copied<'a> {
    plan: &'a Plan,
    file: File,
    folder: OwnedFd,
    kept: PathBuf,
}

impl Copied<'_> {
    /// Removes the copy.
    fn forget(&self) {
        let name = self.kept.file_name().unwrap_or_default();
        if let Err(error) = unlinkat(&self.folder, name, AtFlags::empty()) {
            tracing::warn!(kept = %self.kept.display(), %error, "a copy that is not needed stays");
        }
    }
}

/// Cuts files, as the person who this thread is for files: first all that is cut is on the disk
/// beside them, then they are cut. On an error none is, unless one is written to, or the system
/// refuses, in the moment between two of them; then what was cut stays kept.
pub(super) fn cut(plans: &[Plan], mark: &str) -> std::result::Result<Vec<Cut>, FilesError> {
    let mut copies = Vec::with_capacity(plans.len());
    let copied = plans.iter().try_for_each(|plan| copy(plan, mark).map(|one| copies.push(one)));
    // Who went on writing meanwhile is another program.
    let still = || copies.iter().try_for_each(|one| as_planned(&one.file, one.plan));
    if let Err(error) = copied.and_then(|()| still()) {
        copies.iter().for_each(Copied::forget);
        return Err(error);
    }
    let mut shortened = Vec::with_capacity(copies.len());
    let mut left = copies.into_iter();
    while let Some(one) = left.next() {
        // What waits for the disk comes last: what is written to a file meanwhile would be cut.
        if let Err(error) = shorten(&one.file, one.plan) {
            one.forget();
            left.for_each(|one| one.forget());
            return Err(error);
        }
        shortened.push(one);
    }
    let mut done = Vec::with_capacity(shortened.len());
    for one in shortened {
        fsync(&one.file).map_err(Error::from)?;
        let bytes = one.plan.size.1 - one.plan.size.0;
        done.push(Cut { path: one.plan.path.clone(), kept: one.kept, bytes });
    }
    Ok(done)
}

/// Copies what is to be cut from a file.
fn copy<'a>(plan: &'a Plan, mark: &str) -> std::result::Result<Copied<'a>, FilesError> {
    let file = match plain(&plan.path, OFlags::RDWR) {
        Ok(file) => File::from(file),
        Err(e) => return Err(refused(plan, "it cannot be opened for cutting it back", e.into())),
    };
    // As long as the file is open here, others who open it wait. That somebody has it open keeps it
    // from being so, also who only reads; who writes was looked for.
    if let Err(error) = sys::lease(&file) {
        tracing::debug!(path = %plan.path.display(), %error, "it may be opened meanwhile");
    }
    as_planned(&file, plan)?;
    let kept = |e: Error| refused(plan, "what would be cut from it cannot be kept beside it", e);
    let (folder, path, copy) = create(&plan.path, mark).map_err(kept)?;
    let one = Copied { plan, file, folder, kept: path };
    match fill(&one.file, &copy, plan.size) {
        Ok(()) => Ok(one),
        Err(e) => {
            one.forget();
            Err(kept(e))
        }
    }
}

/// Whether a file is still the one, and as long, as it was judged.
fn as_planned(file: &File, plan: &Plan) -> std::result::Result<(), FilesError> {
    let now = stat(file)?;
    let same = is_plain(&now) && Identity::of(&now) == plan.is && !is_again(&now);
    if same && now.stx_size == plan.size.1 {
        return Ok(());
    }
    let what = "something writes to it now, gave it another name, or put another file in its place";
    Err(told(&[format!("{}: {what}", plan.path.display())]))
}

/// What a person can do something about stays; else trying again may help.
fn refused(plan: &Plan, what: &str, error: Error) -> FilesError {
    const THEIRS: [Errno; 7] = [
        Errno::ACCESS,
        Errno::PERM,
        Errno::ROFS,
        Errno::NOSPC,
        Errno::DQUOT,
        Errno::FBIG,
        Errno::EXIST,
    ];
    let number = error.raw_os_error();
    if THEIRS.iter().any(|one| number == Some(one.raw_os_error())) {
        return told(&[format!("{}: {what}: {error}", plan.path.display())]);
    }
    FilesError::System(error)
}

/// A new file beside another one, for its person alone; its folder, its path and itself.
fn create(beside: &Path, mark: &str) -> Result<(OwnedFd, PathBuf, File)> {
    let none = || Error::from(ErrorKind::InvalidInput);
    let (folder, name) = beside.parent().zip(beside.file_name()).ok_or_else(none)?;
    let opened = plain(folder, OFlags::PATH | OFlags::DIRECTORY)?;
    let how = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for number in 0..NAMES_MAX {
        let name = name_of(name, mark, number);
        match openat(&opened, &name, how, Mode::RUSR | Mode::WUSR) {
            Ok(file) => return Ok((opened, folder.join(name), File::from(file))),
            // Of an attempt that came to nothing.
            Err(Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(Errno::EXIST.into())
}

/// The name of what was cut from a file.
fn name_of(name: &OsStr, mark: &str, number: u32) -> OsString {
    let end = match number {
        0 => format!(".xos-cut-{mark}"),
        more => format!(".xos-cut-{mark}.{more}"),
    };
    let room = NAME_MAX.saturating_sub(end.len());
    let mut bytes = name.as_bytes().iter().copied().take(room).collect::<Vec<u8>>();
    bytes.extend(end.as_bytes());
    OsString::from_vec(bytes)
}

/// Copies what a file has between two places, and brings it to the disk.
fn fill(mut file: &File, mut copy: &File, (from, to): (u64, u64)) -> Result<()> {
    file.seek(SeekFrom::Start(from))?;
    let copied = std::io::copy(&mut file.take(to - from), &mut copy)?;
    if copied != to - from {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    copy.sync_all()
}

/// Cuts a file that is as it was planned. It was modified when it was before, so that the next look
/// finds it as it was.
fn shorten(file: &File, plan: &Plan) -> std::result::Result<(), FilesError> {
    as_planned(file, plan)?;
    ftruncate(file, plan.size.0).map_err(Error::from)?;
    let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let (tv_sec, tv_nsec) = (plan.modified.seconds, plan.modified.nanoseconds.into());
    let times = Timestamps { last_access: omit, last_modification: Timespec { tv_sec, tv_nsec } };
    if let Err(error) = futimens(file, &times) {
        // It is known by its content as well.
        tracing::debug!(path = %plan.path.display(), %error, "its time stays that of the cut");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_make_room_for_the_mark() {
        // wrong: of a file with a long name nothing could be kept, so that it is never cut back
        let long = OsString::from("x".repeat(NAME_MAX));
        let name = name_of(&long, "7-3", 2);
        assert_eq!(name.len(), NAME_MAX);
        assert!(name.to_str().unwrap().ends_with("x.xos-cut-7-3.2"));
        assert_eq!(name_of(OsStr::new("log"), "7-3", 0), "log.xos-cut-7-3");
    }
}
