//! The XtreemFS wire protocol: record framing and messages.
