//! What stands behind `xos ssh`: the stock program's own words, among which the node is found.

use std::ffi::{OsStr, OsString};
use xos_base::{Error, NodeId};

/// The options of ssh that take a value (OpenSSH 10, `ssh.c`).
const VALUED: &[u8] = b"BDEFIJLOPQRSWbceilmopw";

/// The node in the arguments of ssh: the first word that is neither an option nor an option's
/// value; where `--` stood before them (`ended`), the first one, so that no name which a script
/// gives becomes an option.
///
/// # Errors
/// [`xos_base::Kind::Invalid`] when there is none, when it is not a node, and for options that ssh
/// does not have.
pub fn node(arguments: &[OsString], ended: bool) -> Result<NodeId, Error> {
    let mut words = arguments.iter().map(OsString::as_os_str);
    if ended {
        return named(words.next());
    }
    while let Some(word) = words.next() {
        match word.as_encoded_bytes() {
            b"--" => return named(words.next()),
            [b'-', b'-', ..] => {
                return Err(Error::invalid(format!("ssh has no option {}", word.display()))
                    .hint("options of xos stand first: xos ssh --vo VO -t NODE"));
            }
            [b'-', b'J', ..] => {
                return Err(Error::invalid("ssh goes to nodes through their cores, not by -J")
                    .hint("name the node itself: xos ssh n1.rennes"));
            }
            [b'-', letters @ ..] if !letters.is_empty() => {
                let valued = letters.iter().position(|letter| VALUED.contains(letter));
                // The value is the rest of the word, else the next word.
                if valued.is_some_and(|at| at + 1 == letters.len()) {
                    words.next();
                }
            }
            _ => return named(Some(word)),
        }
    }
    named(None)
}

fn named(word: Option<&OsStr>) -> Result<NodeId, Error> {
    let word = word.ok_or_else(|| {
        Error::invalid("no node is named").hint("name it behind the options: xos ssh -t n1.rennes")
    })?;
    Ok(word.to_string_lossy().parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn found(line: &str) -> Result<String, Error> {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        node(&words, false).map(|node| node.to_string())
    }

    /// If it failed, the habits that people have from ssh would end in an error, or the value of an
    /// option would be taken for the machine.
    #[test]
    fn the_node_is_found_behind_options_of_ssh() {
        for line in [
            "n1.rennes",
            "-t n1.rennes",
            "-t n1.rennes -t -- top",
            "-N -L 8080:localhost:80 n1.rennes",
            "-NL 8080:localhost:80 n1.rennes",
            "-L8080:n2.pisa:80 n1.rennes n2.pisa",
            "-o SendEnv=A -vv n1.rennes",
            "-t -- n1.rennes",
        ] {
            assert_eq!(found(line).unwrap(), "n1.rennes", "{line}");
        }
    }

    /// If it failed, whoever errs would be told nothing that helps.
    #[test]
    fn what_names_no_node_is_told() {
        for (line, why) in [
            ("", "no node is named"),
            ("-t", "no node is named"),
            ("-L n1.rennes", "no node is named"),
            ("-t --vo demo.rennes n1.rennes", "options of xos stand first"),
            ("-t rennes", "\"rennes\" is not a"),
            ("-", "\"-\" is not a"),
            ("-J n2.pisa n1.rennes", "not by -J"),
        ] {
            let e = found(line).unwrap_err().to_string();
            assert!(e.contains(why), "{line}: {e}");
        }
        let hostile = ["-F/tmp/mine", "n1.rennes"].map(OsString::from);
        assert!(node(&hostile, true).unwrap_err().to_string().contains("\"-F/tmp/mine\" is not a"));
        assert!(node(&hostile[1..], true).is_ok());
    }

    /// If it failed, the tool would keep ssh's options for itself, or pass on its own.
    #[test]
    fn the_command_line_leaves_the_options_to_ssh() {
        for (line, passed) in [
            ("xos ssh -t n1.rennes", "-t n1.rennes"),
            ("xos ssh --vo demo.rennes -NL 1:a:2 n1.rennes", "-NL 1:a:2 n1.rennes"),
            ("xos ssh n1.rennes -- ls --json", "n1.rennes -- ls --json"),
        ] {
            let cli = crate::cli::Cli::try_parse_from(line.split(' ')).unwrap();
            let crate::cli::Command::Ssh(args) = cli.command else { panic!("{line}") };
            let words = args.arguments.join(OsStr::new(" "));
            assert_eq!(words, OsString::from(passed), "{line}");
        }
    }
}
