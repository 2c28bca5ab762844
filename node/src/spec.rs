//! What an envelope and a unit are asked to be.

mod envelope;
mod key;
mod unit;

use std::path::Path;

pub(crate) use envelope::check_limits;
pub use envelope::{
    Account, CPU_MILLIS_MIN, Carries, EnvelopeSpec, GROUPS_MAX, Limits, MEMORY_BYTES_MIN,
    PIDS_DEFAULT, PIDS_MIN, REST_AFTER_MS_DEFAULT, SLOTS_MAX, SPOOL_BYTES_DEFAULT,
    SPOOL_TOTAL_BYTES_DEFAULT,
};
pub use key::{EnvelopeId, KEY_MAX, UnitKey};
pub use unit::{ARG_BYTES_MAX, ARGS_BYTES_MAX, RLIMITS_MAX, Rlimit, RlimitKind, UnitSpec};

/// Why a specification is refused; the caller changes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A name that becomes part of a path has a character or length that it may not have.
    #[error(
        "{0:?} is not an id: 1 to 96 of a-z, A-Z, 0-9, '.', ':', '@', '_', '-', first a letter or digit"
    )]
    Key(String),
    /// A unit without a program.
    #[error("the unit has no program to run: give at least one argument")]
    NoProgram,
    /// A string for the kernel holds a NUL byte, or an environment name an equals sign.
    #[error("{0} holds a character that the kernel does not take: remove it")]
    Character(&'static str),
    /// Something is larger than its stated limit.
    #[error("{what} is {is}, the most is {max}: make it smaller")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        is: u64,
        /// The limit.
        max: u64,
    },
    /// Something is smaller than can work.
    #[error("{what} is {is}, the least is {min}: ask for more")]
    TooSmall {
        /// What is too small.
        what: &'static str,
        /// How small it is.
        is: u64,
        /// The limit.
        min: u64,
    },
    /// An account that units must never run as.
    #[error("uid {uid} gid {gid} may not run units: it belongs to the system")]
    SystemAccount {
        /// The account's uid.
        uid: u32,
        /// The account's gid, or the group that is the system's.
        gid: u32,
    },
    /// A path that must be absolute is not.
    #[error("{0} must be an absolute path")]
    NotAbsolute(&'static str),
}

fn absolute(what: &'static str, path: &Path) -> Result<(), SpecError> {
    if path.is_absolute() { Ok(()) } else { Err(SpecError::NotAbsolute(what)) }
}

fn at_most(what: &'static str, is: u64, max: u64) -> Result<(), SpecError> {
    if is <= max { Ok(()) } else { Err(SpecError::TooLarge { what, is, max }) }
}

fn at_least(what: &'static str, is: Option<u64>, min: u64) -> Result<(), SpecError> {
    match is {
        Some(is) if is < min => Err(SpecError::TooSmall { what, is, min }),
        _ => Ok(()),
    }
}
