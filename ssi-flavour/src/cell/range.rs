//! Keeping a cell's pids within its node's range.
//!
//! The kernel gives out pids upwards from the one that it gave out last (`ns_last_pid`), and at the
//! end (`pid_max`) goes back to 300, which is no node's. Init moves it back to the range's start
//! before that happens, and looks often enough that no burst of new processes gets there first.
//! A process that is restored with the pid of a node with a higher number needs the end moved up
//! meanwhile, as the kernel gives no pid beyond it even to who asks for one (clone3(2)).

use std::fs::File;
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt;

/// Where the kernel says which pid it gave out last, and takes another.
const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";
/// The first number that is no pid any more.
const PID_MAX: &str = "/proc/sys/kernel/pid_max";
const RELEASE: &str = "/proc/sys/kernel/osrelease";
/// From this kernel on each pid namespace has a `pid_max` of its own.
const OWN_PID_MAX_SINCE: (u32, u32) = (6, 14);
/// The highest `pid_max` of 64-bit Linux.
const PID_MAX_LIMIT: i32 = 1 << 22;
/// At how many percent of the range the kernel is moved back.
const RESET_AT_PERCENT: i32 = 90;
/// More processes than any machine makes in a millisecond.
const BIRTHS_PER_MS_MAX: i32 = 200;

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// Go back to the range's start.
    pub back: bool,
    /// Whether pids out of the range were given out.
    pub strayed: bool,
    /// When to look again at the latest, milliseconds: no burst gets to the end before.
    pub again_ms: u64,
}

/// What is to be done when `last` was given out last.
pub(super) fn turn(range: &RangeInclusive<i32>, last: i32) -> Turn {
    let (first, end) = (*range.start(), *range.end());
    let strayed = last < first - 1 || last > end;
    let turn_at = first + (end - first) / 100 * RESET_AT_PERCENT;
    let back = strayed || last >= turn_at;
    let from = if back { first - 1 } else { last };
    let again_ms = u64::try_from((end - from) / BIRTHS_PER_MS_MAX).unwrap_or(0).max(1);
    Turn { back, strayed, again_ms }
}

/// The pids of the namespace that this process is in.
pub(super) struct Pids {
    range: RangeInclusive<i32>,
    last: File,
    /// Where each namespace has a limit of its own.
    max: Option<File>,
}

impl Pids {
    /// Limits the namespace to the range, as far as the kernel can, and begins at its start.
    ///
    /// # Errors
    /// What the kernel lacks, and how to get it.
    pub(super) fn take(range: RangeInclusive<i32>) -> Result<Pids, String> {
        let release =
            std::fs::read_to_string(RELEASE).map_err(|e| format!("read {RELEASE}: {e}"))?;
        let max = open(PID_MAX)?;
        let end = *range.end();
        let own = has_own_pid_max(&release);
        if !own && number(&max, PID_MAX)? <= end {
            return Err(format!(
                "this machine's pids end before those of the cell, which go up to {end}: set \
                 kernel.pid_max to {PID_MAX_LIMIT} (sysctl)"
            ));
        }
        let last = open(LAST_PID)
            .map_err(|e| format!("{e} (a kernel with CONFIG_CHECKPOINT_RESTORE has it)"))?;
        let pids = Pids { range, last, max: own.then_some(max) };
        pids.widen(false)?;
        pids.go_back()?;
        Ok(pids)
    }

    /// The range.
    pub(super) fn range(&self) -> &RangeInclusive<i32> {
        &self.range
    }

    /// The pid that was given out last.
    ///
    /// # Errors
    /// That the kernel does not say.
    pub(super) fn last(&self) -> Result<i32, String> {
        number(&self.last, LAST_PID)
    }

    /// Has the next process born at the range's start, or at the first free pid after it.
    ///
    /// # Errors
    /// That the kernel refused.
    pub(super) fn go_back(&self) -> Result<(), String> {
        write(&self.last, LAST_PID, self.range.start() - 1)
    }

    /// Lets processes have pids above the range, which are other nodes', or no longer. A pid that
    /// the kernel chooses is in the range either way, unless a burst passes its end while wide.
    ///
    /// # Errors
    /// That the kernel refused.
    pub(super) fn widen(&self, on: bool) -> Result<(), String> {
        let limit = if on { PID_MAX_LIMIT } else { self.range.end() + 1 };
        self.max.as_ref().map_or(Ok(()), |max| write(max, PID_MAX, limit))
    }
}

fn has_own_pid_max(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else { return false };
    (major, minor) >= OWN_PID_MAX_SINCE
}

fn open(path: &str) -> Result<File, String> {
    let file = File::options().read(true).write(true).open(path);
    file.map_err(|e| format!("open {path}: {e}"))
}

/// Reads through a descriptor kept open: it must not depend on there being a free one.
fn number(file: &File, path: &str) -> Result<i32, String> {
    let mut buf = [0; 32];
    let n = file.read_at(&mut buf, 0).map_err(|e| format!("read {path}: {e}"))?;
    let text = String::from_utf8_lossy(&buf[..n]);
    text.trim().parse().map_err(|_| format!("{path} holds no number: {text:?}"))
}

fn write(file: &File, path: &str, number: i32) -> Result<(), String> {
    let written = file.write_at(number.to_string().as_bytes(), 0);
    written.map(drop).map_err(|e| format!("write {number} to {path}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pids::NodeNumber;
    use proptest::prelude::*;

    #[test]
    fn the_kernel_is_moved_back_before_the_end() {
        // wrong: a person's process would be born with another node's pid
        let range = NodeNumber::try_from(2).unwrap().pids();
        let t = |last| turn(&range, last);
        assert_eq!((t(65_535).back, t(65_536).back, t(80_000).back), (false, false, false));
        assert!(!t(65_535).strayed && t(65_535).again_ms > 100);
        assert!(t(98_000).back && t(98_303).back && !t(98_303).strayed);
        for out in [1, 300, 65_534, 98_304] {
            assert!(t(out).back && t(out).strayed, "{out}");
        }
    }

    proptest! {
        #[test]
        fn no_burst_gets_to_the_end_between_two_looks(number in 1u8..=127, at in 0i32..32_768) {
            // wrong: a fork bomb would get pids that are no node's
            let range = NodeNumber::try_from(number).unwrap().pids();
            let last = range.start() - 1 + at;
            let t = turn(&range, last);
            let from = if t.back { range.start() - 1 } else { last };
            let births = i64::try_from(t.again_ms).unwrap() * i64::from(BIRTHS_PER_MS_MAX);
            prop_assert!(i64::from(from) + births <= i64::from(*range.end()));
        }
    }

    #[test]
    fn only_a_kernel_with_a_limit_per_namespace_is_given_one() {
        // wrong: an old kernel would give the whole machine the cell's few pids
        for (release, own) in [
            ("6.18.44-fc-v857\n", true),
            ("6.14.0", true),
            ("7.0.0-rc1", true),
            ("6.13.12", false),
            ("5.15.0-100-generic", false),
            ("", false),
            ("x.y", false),
        ] {
            assert_eq!(has_own_pid_max(release), own, "{release}");
        }
    }
}
