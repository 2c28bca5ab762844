//! Entries for `fuzz/`: decoders of what comes from outside, each alone. No part of the interface.

use super::gridmap::{self, Dn};
use super::people;

/// A legacy grid-mapfile.
pub fn gridmap(text: &str) {
    for line in gridmap::parse(text) {
        if let Ok(mapping) = line.what {
            // What is shown and compared is the subject itself, however it was written.
            let again = Dn::parse(&mapping.dn.to_string());
            assert_eq!(again.as_ref(), Some(&mapping.dn), "another subject when read again");
        }
    }
}

/// The file that says who is behind its subjects.
pub fn people(text: &str) {
    // Whether it is refused does not matter, only that it is answered.
    people::parse(text).ok();
}
