//! Why a unit's process did not become its program.

use crate::spec::{Account, UnitSpec};
use nix::errno::Errno;
use std::path::Path;
use xos_ssi::program::search_path;

/// Longest name from a unit that stands in a message, in characters.
const NAME_CHARS_MAX: usize = 200;

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::shim) enum Stage {
    Setup = 1,
    Spool,
    Rlimit,
    Identity,
    Cwd,
    Stdin,
    Stdout,
    Stderr,
    Exec,
    MakeCwd,
}

const STAGES: [Stage; 10] = [
    Stage::Setup,
    Stage::Spool,
    Stage::Rlimit,
    Stage::Identity,
    Stage::Cwd,
    Stage::Stdin,
    Stage::Stdout,
    Stage::Stderr,
    Stage::Exec,
    Stage::MakeCwd,
];

pub(in crate::shim) type Failure = (Stage, Errno);

/// A failure as one word, never 0.
pub(in crate::shim) fn pack((stage, errno): Failure) -> u64 {
    (stage as u64) << 32 | u64::from(errno as u32)
}

/// What [`pack`] made; `None` for 0, which stands for no failure.
pub(in crate::shim) fn unpack(word: u64) -> Option<(Stage, Errno)> {
    let stage = STAGES.into_iter().find(|s| *s as u64 == word >> 32)?;
    Some((stage, Errno::from_raw(word as u32 as i32)))
}

/// The failure in words, for the person.
pub(in crate::shim) fn reason(
    (stage, errno): Failure,
    unit: &UnitSpec,
    account: &Account,
) -> String {
    let why = errno.desc();
    let short = |s: &str| s.chars().take(NAME_CHARS_MAX).collect::<String>();
    let path =
        |p: Option<&Path>| format!("{:?}", short(&p.unwrap_or(&account.home).to_string_lossy()));
    let program = short(unit.argv.first().map_or("", String::as_str));
    let as_user = format!("as {}", account.name);
    match stage {
        Stage::Setup => format!("cannot prepare the unit's process: {why}"),
        Stage::Spool => format!("cannot make a file for the unit's output on this node: {why}"),
        Stage::Rlimit => format!("cannot set a resource limit that the unit asks for: {why}"),
        Stage::Identity => format!("cannot become {}: {why}", account.name),
        Stage::Cwd => format!(
            "cannot enter the working directory {} of this node {as_user}: {why}",
            path(unit.cwd.as_deref())
        ),
        Stage::MakeCwd => format!(
            "the working directory {} is not on this node and cannot be made {as_user}: {why}",
            path(unit.cwd.as_deref())
        ),
        Stage::Stdin => {
            format!(
                "cannot read standard input from {} {as_user}: {why}",
                path(unit.stdin.as_deref())
            )
        }
        Stage::Stdout => {
            format!(
                "cannot write standard output to {} {as_user}: {why}",
                path(unit.stdout.as_deref())
            )
        }
        Stage::Stderr => {
            format!(
                "cannot write standard error to {} {as_user}: {why}",
                path(unit.stderr.as_deref())
            )
        }
        Stage::Exec if errno == Errno::ENOEXEC => {
            format!(
                "cannot run {program:?}: not a program for this machine, nor a script that begins with #!"
            )
        }
        Stage::Exec if errno == Errno::ENOENT && !program.contains('/') => {
            format!("cannot run {program:?}: not found in PATH={:?}", short(search_path(&unit.env)))
        }
        Stage::Exec => format!("cannot run {program:?} {as_user}: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_survive_the_shared_word() {
        // wrong: a unit that could not start would be reported as "exit 127"
        assert_eq!(unpack(0), None);
        for stage in STAGES {
            assert_eq!(unpack(pack((stage, Errno::ENOENT))), Some((stage, Errno::ENOENT)));
        }
    }

    #[test]
    fn reasons_are_bounded_and_name_the_thing() {
        // wrong: a 100 kB program name would make a log line that no reader accepts
        let unit: UnitSpec = serde_json::from_value(serde_json::json!({
            "key": "1.a:0", "argv": ["x".repeat(100_000)], "env": [["PATH", "/p".repeat(9000)]],
        }))
        .unwrap();
        let account = Account {
            uid: 70000,
            gid: 70000,
            groups: vec![],
            name: "ann.demo".into(),
            home: "/home/ann".into(),
        };
        let text = reason((Stage::Exec, Errno::ENOENT), &unit, &account);
        assert!(text.len() < 1000 && text.contains("PATH="), "{text}");
        let text = reason((Stage::Cwd, Errno::EACCES), &unit, &account);
        assert!(text.contains("/home/ann") && text.contains("Permission denied"), "{text}");
        // wrong: who mistypes -D is told of a folder of theirs, or of none
        let unit = UnitSpec { cwd: Some("/nonexist".into()), ..unit };
        let told = "the working directory \"/nonexist\" is not on this node and cannot be made as \
                    ann.demo: Permission denied";
        assert_eq!(reason((Stage::MakeCwd, Errno::EACCES), &unit, &account), told);
    }
}
