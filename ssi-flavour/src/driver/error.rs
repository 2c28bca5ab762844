//! Why something was not saved, started or compared.

use super::explain;
use super::images::ImageError;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use xos_base::{Error, Kind};

/// What a driver was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Looking what it can do.
    Probe,
    /// Saving a tree.
    Dump,
    /// Writing down what the images are.
    Seal,
    /// Starting a tree again.
    Restore,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Probe => "finding out what CRIU can do here",
            Step::Dump => "saving the program",
            Step::Seal => "writing down what the images are",
            Step::Restore => "starting the program from its images",
        })
    }
}

/// Why a driver did not do something.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// This machine can neither save nor start trees.
    #[error("programs can neither move nor be saved here: {why}")]
    Unable {
        /// The reason.
        why: String,
    },
    /// There is no such process.
    #[error("process {pid} is gone")]
    Gone {
        /// As the driver sees it.
        pid: i32,
    },
    /// Something has the pid in the cell where a tree would get it.
    #[error("pid {pid} is taken where the program would go on")]
    PidTaken {
        /// In the cell.
        pid: i32,
    },
    /// CRIU refused. After [`Step::Dump`] the tree goes on; after [`Step::Restore`] nothing runs.
    #[error("{step} failed: {what}")]
    Refused {
        /// What it did.
        step: Step,
        /// What happened, to which process.
        what: String,
        /// What the person can do.
        next: &'static str,
        /// The whole log, where it was kept.
        log: Option<PathBuf>,
    },
    /// It took too long and was ended. A tree that was being saved may have been hurt by that.
    #[error("{step} was broken off after {} s", .limit.as_secs_f64())]
    TimedOut {
        /// What it did.
        step: Step,
        /// How long it was given.
        limit: Duration,
    },
    /// CRIU did not go on, as something had stopped it, and was ended. A tree that was being saved may
    /// have been hurt by that.
    #[error("{step} was broken off: CRIU was stopped (SIGSTOP) for {} s", .after.as_secs_f64())]
    Halted {
        /// What it did.
        step: Step,
        /// For how long.
        after: Duration,
    },
    /// What was started is not what was saved, or has more than its person may have. It was ended.
    #[error("process {pid} did not come back as it was, so that its program was ended: {what}")]
    Strange {
        /// As the driver sees it.
        pid: i32,
        /// What it has.
        what: String,
    },
    /// The images are not used.
    #[error(transparent)]
    Images(#[from] ImageError),
    /// The system refused something.
    #[error("cannot {doing}: {source}")]
    System {
        /// What.
        doing: String,
        /// Why.
        source: std::io::Error,
    },
}

impl DriverError {
    /// Whether a tree was not started for its files, which somebody has to put back.
    pub fn is_of_files(&self) -> bool {
        match self {
            DriverError::Refused { step: Step::Restore, next, .. } => explain::is_of_files(next),
            _ => false,
        }
    }

    /// For `map_err`: cannot `doing`.
    pub(super) fn system(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> DriverError {
        let doing = doing.into();
        move |source| DriverError::System { doing, source }
    }
}

/// The error of a dump into a folder that has something in it.
pub(super) fn not_empty(folder: &Path) -> DriverError {
    let doing = format!("save a program in {}", folder.display());
    DriverError::system(doing)(std::io::ErrorKind::DirectoryNotEmpty.into())
}

impl From<DriverError> for Error {
    fn from(error: DriverError) -> Error {
        let text = error.to_string();
        let with = |kind, next: &str| Error::new(kind, text.clone()).hint(next);
        match &error {
            DriverError::Unable { .. } => {
                with(Kind::Unsupported, "install CRIU 4.2 or later, as make deps-criu does")
            }
            DriverError::Gone { .. } => Error::new(Kind::NotFound, text),
            DriverError::PidTaken { .. } => with(Kind::Conflict, "try again, or another node"),
            DriverError::Refused { next, log: Some(log), .. } => {
                with(Kind::Unsatisfiable, &format!("{next}; the log is {}", log.display()))
            }
            DriverError::Refused { next, log: None, .. } => with(Kind::Unsatisfiable, next),
            DriverError::TimedOut { step: Step::Dump, .. }
            | DriverError::Halted { step: Step::Dump, .. } => {
                with(Kind::Unavailable, "look whether the program still goes on")
            }
            DriverError::Halted { .. } => {
                with(Kind::Unavailable, "end the person's program that stops it, and try again")
            }
            DriverError::TimedOut { .. } => with(Kind::Unavailable, "try again"),
            DriverError::Strange { .. } => {
                with(Kind::Conflict, "put back the files that it had open, or start it anew")
            }
            DriverError::Images(_) => with(Kind::Conflict, "take an older checkpoint"),
            DriverError::System { .. } => {
                with(Kind::Internal, "check the disk's space and the folder's rights")
            }
        }
    }
}
