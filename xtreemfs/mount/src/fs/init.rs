//! What the kernel is asked for when it begins to send requests.

use std::io;

use fuser::{InitFlags, KernelConfig};
use tracing::warn;

use crate::serve::REQUESTS_MAX;

/// The largest write request, in bytes.
const WRITE_BYTES_MAX: u32 = 1 << 20;

/// Requests the kernel may have under way in the background (read-ahead, asynchronous I/O), for all
/// people together: more than one person may have, or hers would keep it from reading for others.
const BACKGROUND_MAX: u16 = 4 * REQUESTS_MAX as u16;

/// Settles with the kernel what it sends and how much.
pub(super) fn agree(config: &mut KernelConfig) -> io::Result<()> {
    // Locks are asked of us so that they can be refused: kept by the kernel alone they would
    // seem to work and yet not exclude another machine.
    let wanted = [
        InitFlags::FUSE_ATOMIC_O_TRUNC,
        InitFlags::FUSE_PARALLEL_DIROPS,
        InitFlags::FUSE_ASYNC_DIO,
        InitFlags::FUSE_AUTO_INVAL_DATA,
        InitFlags::FUSE_HANDLE_KILLPRIV,
        InitFlags::FUSE_POSIX_LOCKS,
        InitFlags::FUSE_FLOCK_LOCKS,
    ];
    for flag in wanted {
        if config.add_capabilities(flag).is_err() {
            warn!(?flag, "this kernel's FUSE lacks a capability");
        }
    }
    let limit = |nearest: u32| io::Error::other(format!("the kernel allows {nearest} at most"));
    config.set_max_write(WRITE_BYTES_MAX).map_err(limit)?;
    config.set_max_background(BACKGROUND_MAX).map_err(|n| limit(n.into()))?;
    Ok(())
}
