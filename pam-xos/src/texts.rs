//! Texts as a conversation and a log can take them.

use std::ffi::CString;

/// Longest message of a conversation, in bytes: `PAM_MAX_MSG_SIZE` is 512.
pub(crate) const MESSAGE_BYTES_MAX: usize = 500;

/// A text in messages: cut at ends of lines where there are any, so that a picture in rows stays
/// one, and else between characters. Control characters of far sites do not reach the terminal.
pub(crate) fn pieces(text: &str) -> Vec<String> {
    let text = printable(text, |c| c == '\n');
    let mut pieces = Vec::new();
    let mut rest = text.as_str();
    while rest.len() > MESSAGE_BYTES_MAX {
        let (piece, after) = cut(rest);
        pieces.push(piece.to_owned());
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(rest.to_owned());
    }
    pieces
}

/// The first message of a longer text, and what comes after it. An end of line between them goes,
/// since each message begins a line.
fn cut(text: &str) -> (&str, &str) {
    let end = (1..=MESSAGE_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at));
    let (window, after) = text.split_at(end.unwrap_or(text.len()));
    if let Some(after) = after.strip_prefix('\n') {
        return (window, after);
    }
    match window.rfind('\n') {
        Some(at) if at > 0 => (&text[..at], &text[at + 1..]),
        _ => (window, after),
    }
}

/// One line for the log: nobody makes two of it.
pub(crate) fn log_line(text: &str) -> CString {
    c_text(&printable(text, |_| false))
}

/// As C wants it. A NUL, which would end it early, becomes the mark of what cannot be shown.
pub(crate) fn c_text(text: &str) -> CString {
    let bytes = text.replace('\0', "\u{fffd}").into_bytes();
    CString::new(bytes).unwrap_or_default()
}

fn printable(text: &str, keep: impl Fn(char) -> bool) -> String {
    let shown = |c: char| if c.is_control() && !keep(c) { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().map(shown).collect()
}

#[cfg(test)]
#[path = "texts_tests.rs"]
mod tests;
