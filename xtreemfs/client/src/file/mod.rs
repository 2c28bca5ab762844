//! Open files: reading, writing behind, sizes.

mod ahead;
mod commit;
pub(crate) mod extents;
mod handle;
pub(crate) mod inode;
mod piece;
mod reader;
mod report;
pub(crate) mod rights;
pub(crate) mod unsynced;
mod writer;

pub use handle::File;
