//! The XtreemFS servers: DIR, MRC, OSD.
