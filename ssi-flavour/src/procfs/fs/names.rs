//! Numbers for names of the real `/proc`'s files: the kernel has a few hundred.

use super::super::inode::NAMES_MAX;
use fuser::Errno;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// The names that were seen.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    by_number: Vec<String>,
    numbers: HashMap<String, u16>,
}

impl Names {
    /// The number of a name.
    ///
    /// # Errors
    /// `ENFILE` when there are too many.
    pub(super) fn number(&self, name: &str) -> Result<u16, Errno> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = known.numbers.get(name) {
            return Ok(*number);
        }
        let number = known.by_number.len();
        let number = u16::try_from(number).ok().filter(|_| number < NAMES_MAX);
        let number = number.ok_or(Errno::ENFILE)?;
        known.by_number.push(name.to_owned());
        known.numbers.insert(name.to_owned(), number);
        Ok(number)
    }

    /// The name that has a number.
    pub(super) fn name(&self, number: u16) -> Option<String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.by_number.get(usize::from(number)).cloned()
    }
}
