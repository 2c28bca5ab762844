//! The wire protocol from outside: bytes, hostile bytes, and calls over a stream.

mod calls;
mod records;
