//! A command line into words, with a shell's quotes. No shell runs: what only a shell could do is
//! refused instead of being passed on as a puzzling argument.

use crate::view::cut;
use xos_base::Error;

/// Reads words: blanks part them; `'…'` keeps everything, `"…"` everything but `\`, and `\` the
/// next character. Newlines part words too, as nobody types two commands into one job.
pub(crate) fn words(line: &str) -> Result<Vec<String>, Error> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' => quoted(&mut chars, word.get_or_insert_default())?,
            '"' => double_quoted(&mut chars, word.get_or_insert_default())?,
            '\\' => match chars.next() {
                // A line that goes on in the next one.
                Some('\n') => {}
                Some(c) => word.get_or_insert_default().push(c),
                None => return Err(open("a backslash ends the command line")),
            },
            c if c.is_ascii_whitespace() => words.extend(word.take()),
            '|' | '&' | ';' | '<' | '>' | '(' | ')' | '`' | '*' | '?' => return Err(shell(c)),
            '$' if begins_variable(chars.peek()) => return Err(shell(c)),
            '~' if word.is_none() => return Err(shell(c)),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if words.first().is_none_or(String::is_empty) {
        return Err(Error::invalid("the command line names no program")
            .hint("write for example: /bin/echo hello"));
    }
    Ok(words)
}

/// Words as one would type them, cut after `max` characters.
pub(crate) fn typed(words: &[String], max: usize) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    let mut line = String::new();
    for word in words {
        if !line.is_empty() {
            line.push(' ');
        }
        if !word.is_empty() && word.chars().all(plain) {
            line.push_str(word);
        } else {
            line.push_str(&format!("'{}'", word.replace('\'', r"'\''")));
        }
        // A character has at most 4 bytes: what follows would not be seen.
        if line.len() > max.saturating_mul(4) {
            break;
        }
    }
    cut(&line, max)
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn quoted(chars: &mut Chars<'_>, word: &mut String) -> Result<(), Error> {
    for c in chars {
        if c == '\'' {
            return Ok(());
        }
        word.push(c);
    }
    Err(open("a single quote is not closed"))
}

fn double_quoted(chars: &mut Chars<'_>, word: &mut String) -> Result<(), Error> {
    while let Some(c) = chars.next() {
        match c {
            '"' => return Ok(()),
            '\\' => match chars.next() {
                Some(c @ ('"' | '\\' | '$' | '`')) => word.push(c),
                Some('\n') => {}
                Some(c) => word.extend(['\\', c]),
                None => break,
            },
            '`' => return Err(shell(c)),
            '$' if begins_variable(chars.peek()) => return Err(shell(c)),
            c => word.push(c),
        }
    }
    Err(open("a double quote is not closed"))
}

fn begins_variable(next: Option<&char>) -> bool {
    next.is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '{' | '('))
}

fn open(what: &str) -> Error {
    Error::invalid(what).hint("close it, or put a backslash before it")
}

fn shell(c: char) -> Error {
    Error::invalid(format!("{c} means something to a shell only, and no shell runs here"))
        .hint("put it between single quotes, or run a shell: sh -c '…'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_a_shells_words() {
        let cases: &[(&str, &[&str])] = &[
            ("/bin/echo hello", &["/bin/echo", "hello"]),
            ("  a\t b\nc ", &["a", "b", "c"]),
            ("a 'b c' \"d  e\"", &["a", "b c", "d  e"]),
            ("a '' \"\"", &["a", "", ""]),
            (r#"a b\ c \"x "\"q\" \n""#, &["a", "b c", "\"x", "\"q\" \\n"]),
            ("sh -c 'echo $HOME | wc > x; rm *'", &["sh", "-c", "echo $HOME | wc > x; rm *"]),
            ("a x'y'\"z\"", &["a", "xyz"]),
            ("a 5$ \"5$\" a~b", &["a", "5$", "5$", "a~b"]),
            ("a \\\n b", &["a", "b"]),
            ("a 'é\"' #x", &["a", "é\"", "#x"]),
        ];
        for (line, want) in cases {
            assert_eq!(words(line).unwrap(), *want, "{line}");
        }
    }

    /// If it failed, a shown command would be another one than what runs.
    #[test]
    fn a_shown_command_reads_back_as_the_same_words() {
        let argv = ["sh", "-c", "echo 'a b' | wc", "", "it's", "$HOME", "é"].map(String::from);
        assert_eq!(words(&typed(&argv, 2000)).unwrap(), argv);
        assert_eq!(typed(&["x".repeat(9000), "y".into()], 9), "xxxxxxxxx…");
        assert_eq!(typed(&[], 9), "");
    }

    #[test]
    fn what_needs_a_shell_or_is_not_closed_is_refused() {
        for line in [
            "",
            "  ",
            "''",
            "a | b",
            "a > f",
            "a; b",
            "a && b",
            "a $HOME",
            "a \"$HOME\"",
            "a `b`",
            "a $(b)",
            "a *.txt",
            "ls ~/x",
            "a 'b",
            "a \"b",
            "a \\",
            "a \"b\\",
        ] {
            assert!(words(line).is_err(), "{line:?} was taken");
        }
    }
}
