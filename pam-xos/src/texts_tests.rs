use super::*;
use proptest::prelude::*;

/// If it failed, a person could not read the code that they have to type elsewhere.
#[test]
fn short_texts_stay_whole() {
    assert_eq!(pieces("Open https://x.example/device"), ["Open https://x.example/device"]);
    let full = "a".repeat(MESSAGE_BYTES_MAX);
    assert_eq!(pieces(&full), [full.as_str()]);
    assert!(pieces("").is_empty());
}

/// If it failed, the picture of a code would be torn, and no camera would read it.
#[test]
fn a_picture_is_cut_between_its_rows() {
    let row = "\u{2588}\u{2580}".repeat(25);
    let picture = vec![row.as_str(); 27].join("\n");
    let pieces = pieces(&picture);
    assert_eq!(pieces.len(), 9);
    for piece in &pieces {
        assert!(piece.len() <= MESSAGE_BYTES_MAX && piece.lines().all(|line| line == row));
    }
    assert_eq!(pieces.join("\n"), picture);
}

/// If it failed, a far site could write over the terminal, or put lines of its own into the log.
#[test]
fn control_characters_stay_out() {
    assert_eq!(pieces("a\x1b[2Jb\r\n\0c"), ["a\u{fffd}[2Jb\u{fffd}\n\u{fffd}c"]);
    assert_eq!(log_line("alice\nroot: let in\0").to_str(), Ok("alice\u{fffd}root: let in\u{fffd}"));
    assert_eq!(c_text("a\0b").to_str(), Ok("a\u{fffd}b"));
}

proptest! {
    /// If it failed, a text could crash the host, lose a part, or be too long for PAM.
    #[test]
    fn nothing_is_lost_and_nothing_is_too_long(
        text in prop_oneof![
            "(?s).{0,2000}",
            prop::collection::vec("[a\u{e9}\u{2588}\u{1f600}]{0,200}", 0..40)
                .prop_map(|lines| lines.join("\n")),
        ],
    ) {
        let pieces = pieces(&text);
        for piece in &pieces {
            prop_assert!((1..=MESSAGE_BYTES_MAX).contains(&piece.len()));
            prop_assert!(!piece.chars().any(|c| c.is_control() && c != '\n'));
        }
        let flat = |text: &str| text.replace('\n', "");
        let shown = printable(&text, |c| c == '\n');
        prop_assert_eq!(flat(&pieces.concat()), flat(&shown));
        prop_assert!(log_line(&text).to_str().is_ok_and(|l| !l.chars().any(char::is_control)));
    }
}
