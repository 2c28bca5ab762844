//! Texts that people write and others read on a terminal or a page.

use std::fmt;
use xos_base::text::moves;

/// What a text must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextFault {
    /// Longer than so many characters.
    TooLong(usize),
    /// It holds a control character or one that reverses the reading direction.
    Control,
    /// There is none.
    Empty,
}

impl fmt::Display for TextFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TextFault::TooLong(max) => write!(f, "is longer than {max} characters"),
            TextFault::Control => f.write_str("holds a control character"),
            TextFault::Empty => f.write_str("is empty"),
        }
    }
}

/// A text of one line, not empty.
///
/// # Errors
/// [`TextFault`].
pub fn line(text: &str, max: usize) -> Result<(), TextFault> {
    if text.trim().is_empty() {
        return Err(TextFault::Empty);
    }
    check(text, max, false)
}

/// A text that may be empty and may hold line breaks.
///
/// # Errors
/// [`TextFault`].
pub fn lines(text: &str, max: usize) -> Result<(), TextFault> {
    check(text, max, true)
}

fn check(text: &str, max: usize, breaks: bool) -> Result<(), TextFault> {
    // A character is at most 4 bytes: cheap refusal before counting.
    if text.len() > max.saturating_mul(4) || text.chars().count() > max {
        return Err(TextFault::TooLong(max));
    }
    if text.chars().any(|c| moves(c) && !(breaks && c == '\n')) {
        return Err(TextFault::Control);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_deceive_a_reader_is_refused() {
        assert_eq!(line("a\nb", 9), Err(TextFault::Control));
        assert_eq!(lines("a\x1b[2Jb", 9), Err(TextFault::Control));
        assert_eq!(lines("a\u{202e}b", 9), Err(TextFault::Control));
        assert_eq!(line("  ", 9), Err(TextFault::Empty));
        assert_eq!(lines("äöü", 2), Err(TextFault::TooLong(2)));
        assert_eq!(lines("ä\nü", 3), Ok(()));
    }
}
