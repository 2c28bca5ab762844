//! How a lookup ends, in glibc's words (`nss.h`).

use libc::c_int;
use xos_base::accounts::AccountsError;

/// `NSS_STATUS_SUCCESS`.
pub(crate) const SUCCESS: c_int = 1;
const NOT_FOUND: c_int = 0;
const UNAVAILABLE: c_int = -1;
const TRY_AGAIN: c_int = -2;

/// Why a lookup has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The file is sound and has no such entry: glibc asks the next service.
    NotFound,
    /// The caller's buffer is too small: glibc comes back with a larger one.
    SmallBuffer,
    /// There is no file to ask, or it cannot be used: glibc asks the next service.
    Unavailable(c_int),
    /// The process lacks something for now.
    TryAgain(c_int),
}

impl Failure {
    /// The status and the errno that say so.
    pub(crate) fn codes(self) -> (c_int, c_int) {
        match self {
            Self::NotFound => (NOT_FOUND, libc::ENOENT),
            Self::SmallBuffer => (TRY_AGAIN, libc::ERANGE),
            Self::Unavailable(errno) => (UNAVAILABLE, errno),
            Self::TryAgain(errno) => (TRY_AGAIN, errno),
        }
    }
}

impl From<AccountsError> for Failure {
    fn from(error: AccountsError) -> Self {
        match error {
            AccountsError::Missing { .. } => Self::Unavailable(libc::ENOENT),
            AccountsError::NotTrusted { .. } => Self::Unavailable(libc::EPERM),
            AccountsError::Io { source, .. } => match source.raw_os_error() {
                Some(errno @ (libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EAGAIN)) => {
                    Self::TryAgain(errno)
                }
                // ERANGE would send glibc for ever larger buffers.
                Some(errno) if errno != libc::ERANGE => Self::Unavailable(errno),
                _ => Self::Unavailable(libc::EIO),
            },
            _ => Self::Unavailable(libc::EIO),
        }
    }
}
