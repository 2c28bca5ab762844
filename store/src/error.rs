//! What can go wrong with the registry, split by who must act.

use std::{io, path::PathBuf, time::Duration};

use thiserror::Error;

use crate::{
    Key, LeaseId,
    txn::{GUARDS_MAX, LEASE_KEYS_MAX, LEASE_TTL_MAX, OPS_MAX, VALUE_BYTES_MAX},
    watch::WATCHERS_MAX,
};

/// Why the registry did not do what was asked. Except for [`StoreError::Unknown`] nothing happened.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The caller must store less under one key.
    #[error("value of {bytes} bytes for {key} is too large; at most {VALUE_BYTES_MAX} are stored")]
    ValueTooLarge {
        /// Where it should have gone.
        key: Key,
        /// Its size.
        bytes: usize,
    },
    /// The caller must split the transaction.
    #[error("transaction with {ops} changes; at most {OPS_MAX} are taken: split it")]
    TooManyOps {
        /// How many there were.
        ops: usize,
    },
    /// The caller must split the transaction.
    #[error("transaction with {guards} guards; at most {GUARDS_MAX} are taken: split it")]
    TooManyGuards {
        /// How many there were.
        guards: usize,
    },
    /// The caller must decide what the key shall hold.
    #[error("transaction changes {key} twice; each key may be changed once")]
    DuplicateKey {
        /// The key named twice.
        key: Key,
    },
    /// The caller must ask for a sensible time.
    #[error("lease of {ttl:?} refused; it must last between 1 ms and {LEASE_TTL_MAX:?}")]
    BadTtl {
        /// What was asked for.
        ttl: Duration,
    },
    /// The caller must take a new lease and put its keys again.
    #[error("lease {lease} does not exist or has expired; take a new one and write its keys again")]
    UnknownLease {
        /// The lease named.
        lease: LeaseId,
    },
    /// The caller must spread its keys over more leases.
    #[error("lease {lease} already carries {LEASE_KEYS_MAX} keys; use another lease")]
    LeaseFull {
        /// The lease named.
        lease: LeaseId,
    },
    /// The caller must share watches.
    #[error("{WATCHERS_MAX} watches are open on this registry; close some or share one")]
    TooManyWatchers,
    /// The transaction may or may not have happened; the caller must read before trying again.
    #[error("outcome of the registry transaction is unknown ({cause}); read before trying again")]
    Unknown {
        /// What hid the outcome.
        cause: String,
    },
    /// The site's administrator must free space; what was stored before is intact.
    #[error("no space left for the registry {}; nothing was changed: free space and retry", path.display())]
    Full {
        /// The registry's file.
        path: PathBuf,
    },
    /// The site's administrator must look at the disk.
    #[error("registry {} failed: {source}; check the disk, then restart the core", path.display())]
    Io {
        /// The registry's file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The site's administrator must restore the file.
    #[error(
        "registry {} is damaged ({detail}); stop the core, keep a copy of the file, \
         and restore it from a backup",
        path.display()
    )]
    Corrupt {
        /// The registry's file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The site's administrator must stop the other process.
    #[error("registry {} is in use by another process; stop that one first", path.display())]
    InUse {
        /// The registry's file.
        path: PathBuf,
    },
    /// The registry is being reopened after a disk error; the caller may try again.
    #[error("registry {} is being reopened after a disk error; try again", path.display())]
    Reopening {
        /// The registry's file.
        path: PathBuf,
    },
    /// The engine has been shut down; the process is ending.
    #[error("the registry is closed; the service is shutting down")]
    Closed,
}

impl StoreError {
    /// As the caller of a service hears it: what to do, without paths and what the disk said.
    /// The log has the rest.
    pub fn told(self) -> xos_base::Error {
        use xos_base::Error;
        tracing::error!(error = %self, "registry");
        match self {
            Self::Full { .. } => Error::unavailable("the site's registry is full; nothing changed")
                .hint("the site's administrator frees space"),
            Self::Reopening { .. } => {
                Error::unavailable("the site's registry is being opened anew; nothing changed")
                    .hint("try again in a moment")
            }
            Self::Unknown { .. } | Self::Closed => {
                Error::unavailable("it is not known whether the change was stored")
                    .hint("look whether it is there, then try again")
            }
            _ => Error::internal("the site's registry failed")
                .hint("the site's administrator looks into the log of xosd"),
        }
    }

    /// The same fault once more, for each of the callers it concerns.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Full { path } => Self::Full { path: path.clone() },
            Self::Corrupt { path, detail } => {
                Self::Corrupt { path: path.clone(), detail: detail.clone() }
            }
            Self::InUse { path } => Self::InUse { path: path.clone() },
            Self::Reopening { path } => Self::Reopening { path: path.clone() },
            Self::Closed => Self::Closed,
            Self::Io { path, source } => {
                let source = match source.raw_os_error() {
                    Some(code) => io::Error::from_raw_os_error(code),
                    None => io::Error::new(source.kind(), source.to_string()),
                };
                Self::Io { path: path.clone(), source }
            }
            other => Self::Unknown { cause: other.to_string() },
        }
    }

    /// Whether only the request at hand is at fault and the engine is well.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::ValueTooLarge { .. }
                | Self::TooManyOps { .. }
                | Self::TooManyGuards { .. }
                | Self::DuplicateKey { .. }
                | Self::BadTtl { .. }
                | Self::UnknownLease { .. }
                | Self::LeaseFull { .. }
                | Self::TooManyWatchers
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_base::Kind;

    /// If it failed, anybody who may ask would learn where a core keeps what, or get no advice.
    #[test]
    fn callers_hear_what_to_do_and_no_paths() {
        let path = || PathBuf::from("/var/lib/xos/registry.redb");
        let detail = || "page 7 of /dev/sda1".to_owned();
        for (error, kind) in [
            (StoreError::Full { path: path() }, Kind::Unavailable),
            (StoreError::Reopening { path: path() }, Kind::Unavailable),
            (StoreError::Unknown { cause: detail() }, Kind::Unavailable),
            (StoreError::Closed, Kind::Unavailable),
            (StoreError::Io { path: path(), source: io::Error::other(detail()) }, Kind::Internal),
            (StoreError::Corrupt { path: path(), detail: detail() }, Kind::Internal),
            (StoreError::InUse { path: path() }, Kind::Internal),
        ] {
            let logged = error.to_string();
            let told = error.told();
            assert_eq!(told.kind, kind, "{logged}");
            assert!(!told.to_string().contains('/') && told.hint.is_some(), "{told}");
        }
    }
}
