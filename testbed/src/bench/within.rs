//! The part that runs inside a host, so that entering the host costs nothing that is measured.

use super::failed;
use crate::error::Context as _;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Most runs of one measurement.
pub const RUNS_MAX: usize = 1_000_000;
/// Most programs or clients at once.
pub const AT_ONCE_MAX: usize = 256;

/// What the part within a host answers, as JSON on its standard output.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Timing {
    /// How long each run took, in nanoseconds.
    pub each_ns: Vec<u64>,
    /// How long all of them took together, in nanoseconds.
    pub total_ns: u64,
}

/// Starts `argv` `count` times, `at_once` at a time, each waited for; `warm_up` more before that.
///
/// # Errors
/// When it cannot be started or does not end with status 0.
pub fn spawn(argv: &[String], count: usize, warm_up: usize, at_once: usize) -> Result<Timing> {
    let (program, args) = argv.split_first().ok_or_else(|| failed("spawn", "no program"))?;
    let (count, at_once) = (count.min(RUNS_MAX), at_once.clamp(1, AT_ONCE_MAX));
    let once = || -> Result<u64> {
        let begin = Instant::now();
        let mut command = Command::new(program);
        let status = command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).status();
        let status = status.context(|| format!("running {program}"))?;
        let took = nanos(begin);
        if status.success() { Ok(took) } else { Err(failed(&argv.join(" "), status)) }
    };
    for _ in 0..warm_up {
        once()?;
    }
    let (next, all) = (AtomicUsize::new(0), Mutex::new((Vec::with_capacity(count), None)));
    let work = || {
        while next.fetch_add(1, Ordering::Relaxed) < count {
            let took = once();
            let mut all = all.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            match took {
                Ok(took) => all.0.push(took),
                Err(e) => {
                    all.1 = Some(e);
                    return;
                }
            }
        }
    };
    let begin = Instant::now();
    // One at a time stays on this thread: another one would be a wake-up more.
    if at_once == 1 {
        work();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..at_once {
                scope.spawn(work);
            }
        });
    }
    let total_ns = nanos(begin);
    let (each_ns, error): (Vec<u64>, Option<Error>) =
        all.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    match error {
        Some(e) => Err(e),
        None => Ok(Timing { each_ns, total_ns }),
    }
}

pub(super) fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    /// If it failed, a program that does not work would look like a fast one.
    #[test]
    fn runs_are_counted_and_failures_are_told() {
        for at_once in [1, 3] {
            let timing = spawn(&words("true"), 7, 1, at_once).unwrap();
            assert_eq!(timing.each_ns.len(), 7);
            assert!(timing.total_ns > 0);
            assert!(spawn(&words("false"), 2, 0, at_once).is_err());
        }
        assert!(spawn(&words("/no/such/program"), 1, 0, 1).is_err());
        assert!(spawn(&[], 1, 0, 1).is_err());
    }
}
