//! Questions to the person: passwords without echo, yes or no.

use super::output::Failure;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, IsTerminal, Read, Write};
use std::path::Path;
use xos_api::cda::{PASSWORD_MAX, Password};
use xos_base::Error;

/// Longest answer to a question, in bytes.
const ANSWER_MAX: u64 = 1024;

/// The password in `file` (its first line; `-` is standard input), or asked for on the terminal.
///
/// # Errors
/// [`xos_base::Kind::Invalid`] when there is none, or no terminal to ask on.
pub fn password(prompt: &str, file: Option<&Path>) -> Result<Password, Error> {
    match file {
        Some(path) => from_file(path),
        None => prompt_hidden(prompt),
    }
}

/// As [`password`], asking twice: what is typed blindly must not be a slip.
///
/// # Errors
/// As [`password`], and when the two differ.
pub fn new_password(prompt: &str, file: Option<&Path>) -> Result<Password, Error> {
    let first = password(prompt, file)?;
    if file.is_none() && prompt_hidden("The same again: ")? != first {
        return Err(Error::invalid("the two passwords differ; nothing was changed"));
    }
    Ok(first)
}

fn from_file(path: &Path) -> Result<Password, Error> {
    let limit = PASSWORD_MAX as u64 + 2;
    let mut line = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(limit).read_until(b'\n', &mut line)
    } else {
        File::open(path)
            .and_then(|f| std::io::BufReader::new(f.take(limit)).read_until(b'\n', &mut line))
    };
    let shown = path.display();
    read.map_err(|e| Error::invalid(format!("cannot read the password file {shown}: {e}")))?;
    password_of(line).ok_or_else(|| {
        Error::invalid(format!("the first line of {shown} is no password"))
            .hint(format!("a password is text of at most {PASSWORD_MAX} bytes"))
    })
}

fn password_of(line: Vec<u8>) -> Option<Password> {
    let text = String::from_utf8(line).ok()?;
    let text = text.trim_end_matches(['\n', '\r']);
    (!text.is_empty() && text.len() <= PASSWORD_MAX).then(|| Password(text.to_owned()))
}

/// The terminal, with echo, line editing and signals off; as it was when dropped.
struct Hidden {
    tty: File,
    before: Termios,
}

impl Hidden {
    fn open() -> Option<Hidden> {
        let tty = OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
        let before = tcgetattr(&tty).ok()?;
        let mut hidden = before.clone();
        // Ctrl-C arrives as a byte, so that echo is on again before anything ends.
        hidden.local_flags.remove(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG);
        tcsetattr(&tty, SetArg::TCSAFLUSH, &hidden).ok()?;
        Some(Hidden { tty, before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Err(e) = tcsetattr(&self.tty, SetArg::TCSAFLUSH, &self.before) {
            tracing::debug!(error = %e, "the terminal's settings could not be restored");
        }
    }
}

fn prompt_hidden(prompt: &str) -> Result<Password, Error> {
    let Some(mut hidden) = Hidden::open() else {
        return Err(Error::invalid("a password is needed, and there is no terminal to ask on")
            .hint("name a file that holds it: --password-file FILE (- for standard input)"));
    };
    let fail = |e: std::io::Error| Error::unavailable(format!("the terminal failed: {e}"));
    hidden.tty.write_all(prompt.as_bytes()).map_err(fail)?;
    let mut line = Vec::new();
    let mut byte = [0_u8];
    let ended = loop {
        if hidden.tty.read(&mut byte).map_err(fail)? == 0 {
            break false;
        }
        match edit(&mut line, byte[0]) {
            Some(ended) => break ended,
            None => continue,
        }
    };
    hidden.tty.write_all(b"\n").map_err(fail)?;
    drop(hidden);
    if !ended {
        return Err(Error::invalid("no password was given"));
    }
    password_of(line).ok_or_else(|| Error::invalid("no password was given"))
}

/// Takes one key: `Some(true)` at the line's end, `Some(false)` when the person gives up.
fn edit(line: &mut Vec<u8>, key: u8) -> Option<bool> {
    match key {
        b'\n' | b'\r' => return Some(true),
        // Ctrl-C, and Ctrl-D on an empty line.
        3 => return Some(false),
        4 if line.is_empty() => return Some(false),
        // Backspace takes a whole character of UTF-8.
        8 | 127 => while line.pop().is_some_and(|b| b & 0xc0 == 0x80) {},
        21 => line.clear(),
        _ if line.len() <= PASSWORD_MAX => line.push(key),
        _ => {}
    }
    None
}

/// Goes on only when the person says yes to a question; `left` is what else does not happen.
///
/// # Errors
/// As [`confirm`]; [`Failure::Declined`] when the answer is no.
pub fn consent(question: &str, instead: &str, left: &str) -> Result<(), Failure> {
    match confirm(question, instead)? {
        true => Ok(()),
        false => Err(Failure::Declined(left.to_owned())),
    }
}

/// Asks a question on the terminal; no is the answer to everything but yes.
///
/// # Errors
/// [`xos_base::Kind::Invalid`] with `instead` as hint when there is no terminal to ask on.
pub fn confirm(question: &str, instead: &str) -> Result<bool, Error> {
    answer(&format!("{question} [y/N] "), instead).map(|line| is_yes(&line))
}

fn answer(question: &str, instead: &str) -> Result<String, Error> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Error::invalid("this needs your consent, and there is no terminal to ask on")
            .hint(instead));
    }
    let fail = |e: std::io::Error| Error::unavailable(format!("the terminal failed: {e}"));
    let mut err = std::io::stderr().lock();
    write!(err, "{question}").and_then(|()| err.flush()).map_err(fail)?;
    let mut line = String::new();
    std::io::stdin().lock().take(ANSWER_MAX).read_line(&mut line).map_err(fail)?;
    Ok(line)
}

/// Asks for a word on the terminal, for what cannot be undone: whether it was typed.
///
/// # Errors
/// As [`confirm`].
pub fn typed(question: &str, word: &str, instead: &str) -> Result<bool, Error> {
    answer(question, instead).map(|line| line.trim() == word)
}

/// Whether an answer says yes.
pub fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_password() {
        // A line end inside a password would lock its person out.
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "correct horse \r\nmore\n").unwrap();
        assert_eq!(password("", Some(file.path())).unwrap().0, "correct horse ");
        for bad in ["".to_owned(), "\n".into(), "a".repeat(PASSWORD_MAX + 1)] {
            std::fs::write(file.path(), bad).unwrap();
            assert!(password("", Some(file.path())).is_err());
        }
        assert!(password("", Some(Path::new("/nonexistent"))).is_err());
    }

    #[test]
    fn keys_edit_the_line() {
        let mut line = Vec::new();
        let typed = "äb\x7f\x7fxy\x15pass";
        assert!(typed.bytes().all(|k| edit(&mut line, k).is_none()));
        assert_eq!(line, b"pass");
        assert_eq!(edit(&mut line, b'\r'), Some(true));
        assert_eq!(edit(&mut line, 3), Some(false));
    }

    #[test]
    fn only_yes_is_yes() {
        assert!(is_yes("Yes\n") && is_yes("y"));
        assert!(!is_yes("") && !is_yes("yeah no") && !is_yes("n"));
    }
}
