//! Benchmarks: figures, never a pass or a failure. For the program `xos-bench` only.
//!
//! A figure is the median of several repetitions in one run. Ours and those of peers are taken on
//! the same machine, in the same run, each in hosts of a testbed.

mod figure;
mod grid;
mod load;
mod login;
mod machine;
mod memory;
mod peers;
mod samples;
mod ssi;
mod suite;
mod vo;
mod within;
mod world;

pub use figure::{Figure, Reach, table};
pub use grid::{Options, Part, run as grid};
pub use load::{LoadArgs, issue, issue_sets, member_token, submit};
pub use login::{LoginOptions, LoginPart, look_up, run as login, write_accounts};
pub use machine::{Machine, favor_moves};
pub use ssi::{SsiOptions, SsiPart, Starts, hog, run as ssi, sources, starts, still};
pub use suite::Run;
pub use vo::{VoOptions, VoPart, run as vo};
pub use within::{Timing, spawn};

use crate::error::Context as _;
use crate::{Error, Result};
use std::path::Path;
use tempfile::TempDir;

/// Where a run tells how far it is.
pub type Progress<'a> = &'a mut dyn FnMut(&str);

/// An error of a benchmark that is none of the testbed's.
fn failed(what: &str, reason: impl ToString) -> Error {
    Error::Start { what: what.to_owned(), reason: reason.to_string() }
}

/// A folder in `dir` for one run, removed with the value.
fn scratch(dir: &Path) -> Result<TempDir> {
    std::fs::create_dir_all(dir).context(|| format!("making {}", dir.display()))?;
    let new = tempfile::Builder::new().prefix("bench-").tempdir_in(dir);
    new.context(|| format!("making a folder in {}", dir.display()))
}
