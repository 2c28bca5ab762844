//! The XtreemFS FUSE mount.
