//! The XtreemFS client.
