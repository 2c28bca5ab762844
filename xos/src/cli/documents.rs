//! The command lines that documents and help texts show, as tests read them.

use super::Cli;
use super::line::{NAMES, arguments};
use crate::daemon::args::Args;
use clap::Parser;
use std::ffi::OsString;
use std::path::Path;

/// The documents from which people take commands.
const DOCUMENTS: [&str; 5] =
    ["README.md", "docs/user.md", "docs/site-admin.md", "docs/vo-admin.md", "docs/cluster.md"];
/// So many commands at least are in each; fewer mean that they are not found.
const LEAST: usize = 8;

/// Words with '...' and "..." kept together, up to a comment, a pipe, a redirection or another
/// command.
pub fn shell_words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in line.trim().chars() {
        match (c, quote) {
            ('|' | '<' | '>' | '&', None) => break,
            ('#', None) if words.last().is_some_and(String::is_empty) => break,
            (c, Some(q)) if c == q => quote = None,
            ('\'' | '"', None) => quote = Some(c),
            (' ', None) => words.push(String::new()),
            (c, _) => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|w| !w.is_empty());
    words
}

/// The calls of our programs in a document's blocks of shell commands.
fn commands(text: &str) -> Vec<Vec<String>> {
    let ours =
        |word: &str| matches!(word, "xos" | "xosd") || NAMES.iter().any(|(name, _)| *name == word);
    let mut found = Vec::new();
    for block in text.split("\n```").skip(1).step_by(2) {
        let Some(shell) = block.strip_prefix("sh\n") else { continue };
        for line in shell.replace("\\\n", " ").lines() {
            let mut words = shell_words(line);
            // The demo's scripts run what follows their name.
            if words.first().is_some_and(|word| word.starts_with("target/demo/")) {
                words.remove(0);
            }
            if words.first().is_some_and(|word| ours(word)) {
                found.push(words);
            }
        }
    }
    found
}

/// Whether the program takes these arguments.
fn understood(words: &[String]) -> Result<(), clap::Error> {
    // What stands for a fingerprint of the reader's own.
    let digits = format!("sha256:{}", "0".repeat(64));
    let filled = words.iter().map(|word| OsString::from(word.replace("sha256:...", &digits)));
    match words[0].as_str() {
        "xosd" => Args::try_parse_from(filled).map(drop),
        _ => Cli::try_parse_from(arguments(filled)).map(drop),
    }
}

/// If it failed, whoever pastes a command from a document would be told that it is wrong.
#[test]
fn the_documents_show_commands_that_are_understood() {
    for document in DOCUMENTS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document);
        let found = commands(&std::fs::read_to_string(path).unwrap());
        assert!(found.len() >= LEAST, "{document}: only {} commands are found", found.len());
        for words in found {
            if let Err(e) = understood(&words) {
                panic!("{document}: {words:?}: {e}");
            }
        }
    }
    for wrong in ["xos vo list --sites pisa", "xwait --till 3 1.rennes", "xosd start"] {
        assert!(understood(&shell_words(wrong)).is_err(), "{wrong:?} is taken");
    }
}
