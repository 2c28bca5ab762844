//! The program `spect`: see `spect --help`.

mod cli;
mod commands;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use spect::files::FileError;
use spect::merge::MergeError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Histograms that do not belong together.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// A number on the command line.
    #[error("{0}")]
    Argument(spect::codec::Fault),
    /// Standard output went away.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    /// The picture could not be encoded.
    #[error("cannot make the picture: {0}")]
    Picture(#[from] png::EncodingError),
    /// The reconstruction is not good enough.
    #[error("the correlation {found:.4} is below {least}, the least that was asked for")]
    Correlation {
        /// What was reached.
        found: f64,
        /// What was asked for.
        least: f64,
    },
}

impl Failure {
    /// The exit code; documented in `spect --help`.
    fn code(&self) -> u8 {
        match self {
            Failure::File(FileError::Bad { .. } | FileError::TooMany { .. }) => 2,
            Failure::Merge(_) | Failure::Argument(_) => 2,
            Failure::File(FileError::Read { .. } | FileError::Write { .. }) => 1,
            Failure::Output(_) | Failure::Picture(_) => 1,
            Failure::Correlation { .. } => 3,
        }
    }
}

fn main() -> ExitCode {
    match commands::run(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let code = ExitCode::from(failure.code());
            match writeln!(io::stderr().lock(), "spect: {failure}") {
                Ok(()) => code,
                // Nobody reads the text; the exit code still tells.
                Err(_) => code,
            }
        }
    }
}
