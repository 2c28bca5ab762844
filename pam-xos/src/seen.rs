//! Who was let in before: what counts while the node's `xosd` does not answer
//! ([`xos_base::local::SEEN_DIR`]).

use std::fmt;
use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use xos_base::Millis;

/// Longest record, in bytes: the digits of a `u64` and an end of line.
const BYTES_MAX: u64 = 21;
/// Who else may write to it.
const OTHERS_WRITE: u32 = 0o022;

/// Why an account counts as not seen.
#[derive(Debug)]
pub(crate) enum NotSeen {
    /// There is no record.
    Never,
    /// It has ended.
    Ended(Millis),
    /// Somebody else than root could have made it, or it is no such record.
    NotTrusted(&'static str),
    /// The system refused.
    Io(io::Error),
}

impl fmt::Display for NotSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotSeen::Never => f.write_str("it never let you in before"),
            NotSeen::Ended(at) => write!(f, "what it said before counted until {at}"),
            NotSeen::NotTrusted(why) => write!(f, "its record of you is not believed: {why}"),
            NotSeen::Io(e) => write!(f, "its record of you cannot be read: {e}"),
        }
    }
}

impl From<io::Error> for NotSeen {
    fn from(e: io::Error) -> NotSeen {
        match e.raw_os_error() {
            Some(libc::ENOENT) => NotSeen::Never,
            // What O_NOFOLLOW answers for a link.
            Some(libc::ELOOP) => NotSeen::NotTrusted("it is a link"),
            _ => NotSeen::Io(e),
        }
    }
}

/// Until when `uid` may be let in, which is after `now`. Folder and record must be `root`'s, who is
/// uid 0 outside of tests.
pub(crate) fn until(folder: &Path, root: u32, uid: u32, now: Millis) -> Result<Millis, NotSeen> {
    let around = fs::symlink_metadata(folder)?;
    if !around.is_dir() {
        return Err(NotSeen::NotTrusted("its folder is none"));
    }
    check_owner(&around, root)?;
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(folder.join(uid.to_string()))?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(NotSeen::NotTrusted("it is no plain file"));
    }
    check_owner(&metadata, root)?;
    let mut bytes = Vec::new();
    file.by_ref().take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(NotSeen::NotTrusted("it is too long for a time"));
    }
    let until = parse(&bytes).ok_or(NotSeen::NotTrusted("it holds no time"))?;
    if until > now { Ok(until) } else { Err(NotSeen::Ended(until)) }
}

fn check_owner(metadata: &Metadata, root: u32) -> Result<(), NotSeen> {
    if metadata.uid() != root {
        return Err(NotSeen::NotTrusted("it does not belong to root"));
    }
    if metadata.mode() & OTHERS_WRITE != 0 {
        return Err(NotSeen::NotTrusted("others than root may write to it"));
    }
    Ok(())
}

/// A number in decimal digits, and nothing else but one end of line.
pub(crate) fn parse(bytes: &[u8]) -> Option<Millis> {
    let digits = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    // `parse` alone would take a sign.
    let digits = Some(digits).filter(|d| d.iter().all(u8::is_ascii_digit))?;
    std::str::from_utf8(digits).ok()?.parse().ok().map(Millis)
}

#[cfg(test)]
#[path = "seen_tests.rs"]
mod tests;
