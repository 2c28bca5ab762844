//! What in a text would deceive who reads it on a terminal or a page.

/// Whether a character moves the cursor, breaks the line, or turns the direction of writing.
pub fn moves(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether a character is not shown by itself: one that [`moves`], or one without a width, by which
/// two names that differ look the same. Names have none; texts of many lines may need them, as
/// some scripts do.
pub fn hidden(c: char) -> bool {
    moves(c)
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a name could show other letters than it has, or none.
    #[test]
    fn what_deceives_is_told_from_what_people_write() {
        for c in ['\n', '\u{1b}', '\u{85}', '\u{2028}', '\u{202e}', '\u{2066}', '\u{2069}'] {
            assert!(moves(c) && hidden(c), "{c:?}");
        }
        for c in ['\u{ad}', '\u{61c}', '\u{200b}', '\u{200d}', '\u{200f}', '\u{2060}', '\u{feff}'] {
            assert!(!moves(c) && hidden(c), "{c:?}");
        }
        assert!(hidden('\u{e0041}'));
        for c in "aZ9 -_.äßéжλ日本한עברית\u{301}🙂".chars() {
            assert!(!hidden(c), "{c:?}");
        }
    }
}
