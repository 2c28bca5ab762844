//! The command line as it comes: the short names of the tool, and what is wrong with arguments.

use super::output::CLOSED_STATUS;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use xos_base::{Error, Kind};

/// The names under which the tool is called, and what they stand for.
pub const NAMES: [(&str, &[&str]); 9] = [
    ("xsub", &["job", "submit"]),
    ("xps", &["job", "list"]),
    ("xwait", &["job", "wait"]),
    ("xkill", &["job", "cancel"]),
    ("xout", &["job", "output"]),
    ("krgadm", &["krg"]),
    ("migrate", &["krg", "migrate"]),
    ("checkpoint", &["krg", "checkpoint"]),
    ("restart", &["krg", "restart"]),
];

/// The command line with a short name written out: `xsub X` is `xos job submit X`.
pub fn arguments(raw: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut raw: Vec<OsString> = raw.collect();
    let called = raw.first().and_then(|a| Path::new(a).file_name()).and_then(|n| n.to_str());
    if let Some((_, words)) = NAMES.iter().find(|(name, _)| called == Some(name)) {
        let words = std::iter::once(&"xos").chain(*words).map(OsString::from);
        raw.splice(0..1, words);
    }
    raw
}

/// Prints what clap has to say, help or what is wrong with the arguments; the exit status.
pub fn usage(e: &clap::Error) -> ExitCode {
    let printed = e.print().is_ok();
    match e.use_stderr() {
        true => ExitCode::from(Kind::Invalid.exit_code()),
        false if printed => ExitCode::SUCCESS,
        false => ExitCode::from(CLOSED_STATUS),
    }
}

/// Whether the caller reads JSON, as far as arguments show that could not be understood: what
/// follows `--` is for a job's program.
pub fn wants_json(arguments: &[OsString]) -> bool {
    arguments.iter().take_while(|a| a.as_os_str() != "--").any(|a| a.as_os_str() == "--json")
}

/// What clap finds wrong with the arguments, as any other error is told.
pub fn misused(e: &clap::Error) -> Error {
    let text = e.render().to_string();
    let mut parts = text
        .split("\n\n")
        .map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|part| !part.is_empty() && !part.starts_with("For more information"));
    let message = parts.next().unwrap_or_default();
    let error = Error::invalid(message.strip_prefix("error: ").unwrap_or(&message));
    let more = parts.collect::<Vec<_>>().join("; ");
    if more.is_empty() { error } else { error.hint(more) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    #[test]
    fn short_names_stand_for_commands() {
        let args = |s: &str| -> Vec<OsString> { arguments(s.split(' ').map(OsString::from)) };
        let words = |s: &str| s.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert_eq!(args("/usr/bin/xsub -n a -- ls -l"), words("xos job submit -n a -- ls -l"));
        assert_eq!(args("xos id"), words("xos id"));
        assert_eq!(args("krgadm nodes status"), words("xos krg nodes status"));
        assert_eq!(args("/usr/local/bin/migrate 7 n2"), words("xos krg migrate 7 n2"));
        for (name, _) in NAMES {
            let mut args = arguments([OsString::from(name), "--help".into()].into_iter());
            let e = Cli::try_parse_from(args.drain(..)).unwrap_err();
            assert_eq!(e.kind(), clap::error::ErrorKind::DisplayHelp, "{name}");
        }
    }
}
