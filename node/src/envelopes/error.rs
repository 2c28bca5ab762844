//! What can go wrong with an envelope.

use super::client::CallError;
use crate::cgroup::CgroupError;
use crate::proto::Refusal;
use crate::shim::launch::LaunchError;
use crate::spec::{EnvelopeId, SpecError};
use std::io;
use std::path::{Path, PathBuf};

/// Why something with an envelope failed.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// What was asked for is impossible; the caller changes it.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The id was used; the caller attaches to it, or forgets it first.
    #[error("envelope {0} exists on this node")]
    Exists(EnvelopeId),
    /// There is none.
    #[error("no envelope {0} on this node")]
    NotFound(EnvelopeId),
    /// The machine stopped under it: what was started in it is not known for certain.
    #[error(
        "envelope {0} ran when this node stopped without order: it cannot be opened again, since \
         records of what was started may be missing"
    )]
    Torn(EnvelopeId),
    /// It is not over; the caller ends it first.
    #[error("envelope {0} is not over: end it first")]
    Alive(EnvelopeId),
    /// No shim came up.
    #[error("cannot start an envelope on this node: {0}")]
    Start(String),
    /// Its plan is not readable.
    #[error(transparent)]
    Plan(#[from] LaunchError),
    /// The control group refused.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The shim refused or is gone.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A file or folder refused.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A record could not be encoded.
    #[error("cannot encode a record: {0}")]
    Encode(serde_json::Error),
    /// A worker of this process died.
    #[error("a task of xosd ended early: {0}")]
    Task(tokio::task::JoinError),
}

impl From<EnvelopeError> for xos_base::Error {
    fn from(e: EnvelopeError) -> xos_base::Error {
        use xos_base::Kind;
        let kind = match &e {
            EnvelopeError::Spec(_) => Kind::Invalid,
            EnvelopeError::Exists(_) | EnvelopeError::Alive(_) => Kind::Conflict,
            EnvelopeError::NotFound(_) => Kind::NotFound,
            EnvelopeError::Torn(_) => Kind::Unsatisfiable,
            EnvelopeError::Cgroup(CgroupError::NoController(_)) => Kind::Unsatisfiable,
            EnvelopeError::Call(CallError::Refused(Refusal::Invalid(_))) => Kind::Invalid,
            EnvelopeError::Call(CallError::Refused(Refusal::NoSuchUnit(_))) => Kind::NotFound,
            EnvelopeError::Call(CallError::Refused(Refusal::Full(_))) => Kind::Limited,
            EnvelopeError::Call(CallError::Refused(Refusal::Ending)) => Kind::Conflict,
            EnvelopeError::Call(_) => Kind::Unavailable,
            _ => Kind::Internal,
        };
        xos_base::Error::new(kind, e.to_string())
    }
}

impl EnvelopeError {
    pub(super) fn at(
        doing: &'static str,
        path: &Path,
    ) -> impl FnOnce(io::Error) -> EnvelopeError + use<> {
        let path = path.to_owned();
        move |source| EnvelopeError::Io { doing, path, source }
    }
}
