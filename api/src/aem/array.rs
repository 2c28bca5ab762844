//! The indices of an array of units, written as Slurm writes them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Greatest index.
pub const INDEX_MAX: u32 = 9_999_999;
/// Most ranges in one array.
pub const RANGES_MAX: usize = 1024;
/// Longest text, in bytes.
pub const TEXT_MAX: usize = 16 * 1024;

/// Indices from `first` to at most `last`, `step` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Range {
    first: u32,
    last: u32,
    step: u32,
}

impl Range {
    fn len(self) -> u32 {
        (self.last - self.first) / self.step + 1
    }
}

/// Which indices an array has: `0-15`, `1,3,7`, `0-20:5`, and with `%` how many units may run at
/// once: `0-99%4`. On the wire this text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Array {
    ranges: Vec<Range>,
    at_once: Option<u32>,
    len: u32,
}

/// Why a text is no array.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no list of array indices: {why}; write for example 0-15, 1,3,7 or 0-99%4")]
pub struct ArrayError {
    /// The text, cut to 64 characters.
    pub text: String,
    /// What is wrong.
    pub why: &'static str,
}

impl Array {
    /// The one index 0: a task that is no array.
    pub fn single() -> Array {
        Array { ranges: vec![Range { first: 0, last: 0, step: 1 }], at_once: None, len: 1 }
    }

    /// The indices 0 to `count` - 1; `None` when there are none, or more than a job may have.
    pub fn count(count: u32) -> Option<Array> {
        (1..=super::UNITS_MAX).contains(&count).then(|| Array {
            ranges: vec![Range { first: 0, last: count - 1, step: 1 }],
            at_once: None,
            len: count,
        })
    }

    /// How many indices there are. Never 0.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether it is the array of a task that is none: only index 0, no limit.
    pub fn is_single(&self) -> bool {
        *self == Array::single()
    }

    /// The index at `place` (from 0), in the order written.
    pub fn index(&self, place: u32) -> Option<u32> {
        let mut left = place;
        for r in &self.ranges {
            if left < r.len() {
                return Some(r.first + left * r.step);
            }
            left -= r.len();
        }
        None
    }

    /// The memory that it takes besides its own size, in bytes.
    pub fn bytes(&self) -> usize {
        self.ranges.len() * size_of::<Range>()
    }

    /// How many units may run at once, when limited.
    pub fn at_once(&self) -> Option<u32> {
        self.at_once
    }

    /// All indices, in the order written.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.ranges.iter().flat_map(|r| (r.first..=r.last).step_by(r.step as usize))
    }
}

impl Default for Array {
    fn default() -> Array {
        Array::single()
    }
}

fn number(s: &str) -> Result<u32, &'static str> {
    if s.is_empty() || s.len() > 8 || !s.bytes().all(|b| b.is_ascii_digit()) {
        return Err("an index is a number from 0 to 9999999");
    }
    s.parse().ok().filter(|n| *n <= INDEX_MAX).ok_or("an index is a number from 0 to 9999999")
}

fn range(s: &str) -> Result<Range, &'static str> {
    let (body, step) = match s.split_once(':') {
        Some((b, step)) if b.contains('-') => (b, number(step)?),
        Some(_) => return Err("a step belongs to a range, as in 0-20:5"),
        None => (s, 1),
    };
    let (first, last) = match body.split_once('-') {
        Some((a, b)) => (number(a)?, number(b)?),
        None => (number(body)?, number(body)?),
    };
    if step == 0 {
        return Err("a step is at least 1");
    }
    if last < first {
        return Err("a range goes upwards");
    }
    Ok(Range { first, last, step })
}

fn parse(s: &str) -> Result<Array, &'static str> {
    if s.len() > TEXT_MAX {
        return Err("it is too long");
    }
    let (list, at_once) = match s.split_once('%') {
        Some((list, n)) => {
            let n = number(n).map_err(|_| "after % stands how many may run at once")?;
            (list, Some(if n == 0 { return Err("at least one must run at once") } else { n }))
        }
        None => (s, None),
    };
    let mut ranges = Vec::new();
    let mut len: u32 = 0;
    for part in list.split(',') {
        if ranges.len() == RANGES_MAX {
            return Err("it has too many ranges");
        }
        let r = range(part)?;
        len = len.saturating_add(r.len());
        ranges.push(r);
    }
    if len > super::UNITS_MAX {
        return Err("a job has at most 100000 units");
    }
    let array = Array { ranges, at_once, len };
    let mut seen: Vec<u32> = array.iter().collect();
    seen.sort_unstable();
    if seen.windows(2).any(|w| w[0] == w[1]) {
        return Err("an index stands in it twice");
    }
    Ok(array)
}

impl FromStr for Array {
    type Err = ArrayError;
    fn from_str(s: &str) -> Result<Array, ArrayError> {
        parse(s).map_err(|why| ArrayError { text: s.chars().take(64).collect(), why })
    }
}

impl TryFrom<String> for Array {
    type Error = ArrayError;
    fn try_from(s: String) -> Result<Array, ArrayError> {
        s.parse()
    }
}

impl fmt::Display for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.ranges.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            match (r.first == r.last, r.step) {
                (true, _) => write!(f, "{comma}{}", r.first)?,
                (false, 1) => write!(f, "{comma}{}-{}", r.first, r.last)?,
                (false, step) => write!(f, "{comma}{}-{}:{step}", r.first, r.last)?,
            }
        }
        match self.at_once {
            Some(n) => write!(f, "%{n}"),
            None => Ok(()),
        }
    }
}

impl From<Array> for String {
    fn from(a: Array) -> String {
        a.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_those_that_slurm_would_give() {
        let a: Array = "0-15".parse().unwrap();
        assert_eq!((a.len(), a.index(15), a.index(16)), (16, Some(15), None));
        let a: Array = "1,3,7".parse().unwrap();
        assert_eq!(a.iter().collect::<Vec<_>>(), [1, 3, 7]);
        assert_eq!(a.index(2), Some(7));
        let a: Array = "0-20:5,100%4".parse().unwrap();
        assert_eq!(a.iter().collect::<Vec<_>>(), [0, 5, 10, 15, 20, 100]);
        assert_eq!(a.at_once(), Some(4));
        assert_eq!(a.to_string(), "0-20:5,100%4");
        assert!("0".parse::<Array>().unwrap().is_single());
    }

    #[test]
    fn what_is_no_array_is_refused() {
        for s in [
            "", ",", "1,", "-", "1-", "-1", "3-1", "a", "1 ", "0-9%0", "0-9%", "0-9%x", "1:2",
            "0-9:0", "1,1", "0-5,3", "0-100000", "10000000", "0-9%1%2", "+1", "１",
        ] {
            assert!(s.parse::<Array>().is_err(), "{s:?} was taken for an array");
        }
        let long = vec!["1"; 20_000].join(",");
        let e = long.parse::<Array>().unwrap_err();
        assert!(e.to_string().len() < 250, "{e}");
    }
}
