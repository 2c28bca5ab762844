//! Entries for `fuzz/`: decoders of what comes from outside, each alone. No part of the interface.

use xos_base::Millis;

/// The record of when somebody was let in before; `None` when it is none.
pub fn seen_file(bytes: &[u8]) -> Option<Millis> {
    crate::seen::parse(bytes)
}
