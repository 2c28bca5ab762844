//! Room on the disk of the audit: before it is full, lines that matter least are left out.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use xos_api::audit::{Event, Outcome};

/// With less free space, in bytes, than this only what matters is noted. Default of
/// [`super::Options::reserve_bytes`].
pub const RESERVE_BYTES: u64 = 1 << 30;

/// How many bytes are free for others than root where `dir` lies.
///
/// # Errors
/// Those of the system.
pub fn free_bytes(dir: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(dir)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Whether room has become scarce, and what was left out since.
#[derive(Debug)]
pub(super) struct Space {
    reserve_bytes: u64,
    low: AtomicBool,
    left_out: AtomicU64,
    /// The last minute in which a line was let through.
    minute: AtomicU64,
}

impl Space {
    pub(super) fn new(reserve_bytes: u64) -> Space {
        let (low, left_out) = (AtomicBool::new(false), AtomicU64::new(0));
        Space { reserve_bytes, low, left_out, minute: AtomicU64::new(0) }
    }

    /// Whether an event is left out. One a minute is not: so the writer looks again.
    pub(super) fn leaves_out(&self, event: &Event) -> bool {
        if !self.low.load(Ordering::Relaxed) || !optional(event) {
            return false;
        }
        let minute = event.time.secs() / 60;
        if self.minute.swap(minute, Ordering::Relaxed) != minute {
            return false;
        }
        self.left_out.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// What is to be noted now that so much is free: the name of the event, and why.
    pub(super) fn turn(&self, free_bytes: u64) -> Option<(&'static str, String)> {
        let low = free_bytes < self.reserve_bytes;
        match (self.low.swap(low, Ordering::Relaxed), low) {
            (false, true) => Some((
                "audit_space_low",
                format!(
                    "less than {} bytes are free: refusals of strangers, and starts and ends of \
                     units, are not noted until there is room",
                    self.reserve_bytes
                ),
            )),
            (true, false) => {
                let count = self.left_out.swap(0, Ordering::Relaxed);
                Some(("audit_space_enough", format!("{count} lines were left out meanwhile")))
            }
            _ => None,
        }
    }

    /// What was to be noted could not be.
    pub(super) fn untold(&self) {
        self.low.store(false, Ordering::Relaxed);
    }
}

/// What may be left out: what anybody can have noted, and what comes most often and stands in the
/// journal of jobs as well.
fn optional(event: &Event) -> bool {
    let stranger = event.outcome == Outcome::Refused && event.who.is_empty();
    stranger || ["start_units", "end_units"].contains(&event.what.as_str())
}
