//! Reading a TOML configuration file into one typed struct, with line and column in every error.
//!
//! Each service defines the struct of its own section (with `deny_unknown_fields`); `xosd` puts
//! them together. A section that is present means that the service runs.

use crate::error::Error;
use serde::de::DeserializeOwned;

/// Parses `text`, read from `path`, which is only named in errors.
///
/// # Errors
/// [`crate::Kind::Invalid`] with `path:line:column` and what is wrong there.
pub fn parse<T: DeserializeOwned>(path: &str, text: &str) -> Result<T, Error> {
    toml::from_str(text).map_err(|e| {
        let (line, column) = place(text, e.span().map_or(0, |s| s.start));
        Error::invalid(format!("{path}:{line}:{column}: {}", e.message().trim()))
            .hint("docs/config.md lists every section and key")
    })
}

/// Line and column of the byte `at` of a text, both from 1; a column counts bytes.
pub fn place(text: &str, at: usize) -> (usize, usize) {
    let at = at.min(text.len());
    let before = &text.as_bytes()[..at];
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let column = at - before.iter().rposition(|b| *b == b'\n').map_or(0, |p| p + 1) + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Demo {
        #[allow(dead_code)]
        name: String,
    }

    #[test]
    fn unknown_key_is_refused_with_line_and_column() {
        let e = parse::<Demo>("xosd.toml", "name = \"a\"\ncolour = 3\n").unwrap_err();
        assert!(e.message.starts_with("xosd.toml:2:1: unknown field `colour`"), "{e}");
    }

    #[test]
    fn syntax_error_is_placed() {
        let e = parse::<Demo>("x", "name = \n").unwrap_err();
        assert!(e.message.starts_with("x:1:"), "{e}");
    }
}
