//! Names held once, and small numbers for them where there are many.

use std::collections::HashMap;
use std::hash::Hash;

/// Most names of one kind. What comes later is number [`NONE`]: a hostile site that invents names
/// without end costs no memory.
pub const NAMES_MAX: usize = 60_000;

/// The number that stands for no name.
pub const NONE: u16 = u16::MAX;

/// A table of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names<T: Eq + Hash> {
    list: Vec<T>,
    numbers: HashMap<T, u16>,
}

impl<T: Eq + Hash> Default for Names<T> {
    fn default() -> Self {
        Names { list: Vec::new(), numbers: HashMap::new() }
    }
}

impl<T: Clone + Eq + Hash> Names<T> {
    /// A table with these names, in the order of their numbers.
    pub fn of(list: Vec<T>) -> Names<T> {
        let mut names = Names::default();
        for name in &list {
            names.number(name);
        }
        names
    }

    /// All names, in the order of their numbers.
    pub fn all(&self) -> &[T] {
        &self.list
    }

    /// The number of `name`, given now if it has none; [`NONE`] when the table is full.
    pub fn number(&mut self, name: &T) -> u16 {
        if let Some(n) = self.numbers.get(name) {
            return *n;
        }
        match u16::try_from(self.list.len()) {
            Ok(n) if self.list.len() < NAMES_MAX => {
                self.list.push(name.clone());
                self.numbers.insert(name.clone(), n);
                n
            }
            _ => NONE,
        }
    }

    /// The number of `name`, when it has one.
    pub fn known(&self, name: &T) -> Option<u16> {
        self.numbers.get(name).copied()
    }

    /// The name with this number.
    pub fn name(&self, number: u16) -> Option<&T> {
        self.list.get(usize::from(number))
    }
}
