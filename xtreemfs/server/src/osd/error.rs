//! Why the disk did not do as asked, and what of it a client is told.

use std::io;
use std::path::{Path, PathBuf};

use xtreemfs_proto::{Errno, RpcError};

/// Why the disk did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// The file system failed: the operator must look.
    #[error("{path}: {source}")]
    File {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The disk is full, up to the reserve.
    #[error("no space left for objects in {0}")]
    Full(PathBuf),
    /// What was written may be lost, and no later sync can tell.
    #[error(
        "{0}: syncing failed, so what was written since the last good sync may be lost: look at \
         the disk and the kernel's log, then restart the object server"
    )]
    NotSynced(PathBuf),
    /// The folder is empty or another one than it was.
    #[error(
        "{root} is not the folder in which {id} kept objects before (it has no .osd-id): is its \
         disk mounted, is the path right?"
    )]
    Missing {
        /// The folder.
        root: PathBuf,
        /// Id of this OSD.
        id: String,
    },
    /// The folder is another OSD's.
    #[error("{root} holds the objects of {found:?}, not of {id}: is the right disk mounted there?")]
    Foreign {
        /// The folder.
        root: PathBuf,
        /// Id of this OSD.
        id: String,
        /// Id of the OSD that it belongs to.
        found: String,
    },
}

impl ObjectsError {
    /// What the client is told; paths stay here.
    pub fn to_rpc(&self) -> RpcError {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        let errno = match self {
            Self::Full(_) => Errno::ENOSPC,
            Self::NotSynced(_) | Self::Missing { .. } | Self::Foreign { .. } => Errno::EIO,
            Self::File { source, .. } => match source.kind() {
                StorageFull => Errno::ENOSPC,
                QuotaExceeded => Errno::EDQUOT,
                FileTooLarge => Errno::EFBIG,
                _ => Errno::EIO,
            },
        };
        if errno == Errno::EIO {
            tracing::error!(error = %self, "objects");
        }
        let text = match self {
            Self::NotSynced(_) => "what was written may be lost: write it anew to another file",
            _ => errno.text(),
        };
        RpcError::errno(errno, format!("object server: {text}"))
    }
}

/// Adds the path to an error.
pub(super) fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, ObjectsError> {
    result.map_err(|source| ObjectsError::File { path: path.to_owned(), source })
}

pub(super) fn failed(path: PathBuf, source: io::Error) -> ObjectsError {
    ObjectsError::File { path, source }
}
