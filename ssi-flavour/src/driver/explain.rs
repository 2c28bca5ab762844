//! What CRIU's log says, in words for people.

use super::error::{DriverError, Step};
use std::path::PathBuf;

/// Longest part of a log that goes into a message, in characters.
const QUOTED_MAX: usize = 300;

/// Where limits cannot be raised, and where /run is on a disk.
static HARMLESS: [&str; 2] = ["Can't setup RLIMIT_NOFILE", "Can't keep kdat cache"];

/// What a message of CRIU means: a part of it, and what to say and to do.
struct Meaning {
    part: &'static str,
    what: &'static str,
    next: &'static str,
}

/// What to do about files that are not what they were.
const SIZE: &str = "bring the file back to the size that it had";
const MODE: &str = "give the file its rights back";

/// Of CRIU 4.2.1; each was seen, or stands in its source.
static MEANINGS: [Meaning; 16] = [
    Meaning {
        part: "Connected TCP socket",
        what: "it has a connection over the network",
        next: "end the connection, or, when its other end is in a program of yours in the \
               cluster, run both by xos cluster run --net own",
    },
    Meaning {
        part: "In-flight connection",
        what: "a connection to it waits until it accepts it",
        next: "try again when it has done so",
    },
    Meaning {
        part: "Can't dump file",
        what: "it has a device open that stays on its machine",
        next: "close the device",
    },
    Meaning {
        part: "send_fds failed",
        what: "it has a descriptor that cannot be handed on, as of io_uring",
        next: "run the program without io_uring",
    },
    Meaning {
        part: "Can't lookup mount",
        what: "it has a file open that is outside its cell",
        next: "start it by xos cluster run",
    },
    Meaning {
        part: "External socket is used",
        what: "it is connected to a program that does not move with it",
        next: "end that connection",
    },
    Meaning {
        part: "has bad size",
        what: "a file changed since the program was saved",
        next: SIZE,
    },
    Meaning {
        part: "has bad mode",
        what: "the rights of a file changed since the program was saved",
        next: MODE,
    },
    Meaning {
        part: "on restore: Permission denied",
        what: "its person may not open a file that it had open",
        next: "give the person their rights to the file back, or start it anew",
    },
    Meaning {
        part: "Can't open file",
        what: "a file that it had open is not there",
        next: "bring the file back, or restart it where its files are",
    },
    Meaning {
        part: "Build-ID",
        what: "a library or program is of another version than where it was saved",
        next: "choose a node with the same software",
    },
    Meaning {
        part: "Can't get rlimit",
        what: "a process of it has another user than its first, and root lacks CAP_SYS_RESOURCE",
        next: "give the node's root that capability",
    },
    Meaning {
        part: "TCP repair mode",
        what: "it has connections, for which it is given no rights here",
        next: "end the program's connections before it is saved",
    },
    Meaning {
        part: "Unable to drop capability",
        what: "programs that it runs could get more rights than it has (no_new_privs is not set)",
        next: "start it by xos cluster run",
    },
    Meaning {
        part: "unseizable non-zombie",
        what: "something else traces it, as a debugger",
        next: "end the debugger",
    },
    Meaning {
        part: "Timeout reached",
        what: "it does not stand still: a process of it hangs in the kernel",
        next: "wait until its input and output go on, and try again",
    },
];

/// Whether that is what a person can do about files that are not what they were.
pub(super) fn is_of_files(next: &str) -> bool {
    [SIZE, MODE].contains(&next)
}

/// Why a run of CRIU failed, by its log.
pub(super) fn explain(step: Step, pid: i32, text: &str, log: Option<PathBuf>) -> DriverError {
    // The first error is the cause; what follows only reports that one failed.
    let errors = || complaints(text, "Error (");
    if let Some(taken) = errors().find_map(taken) {
        return DriverError::PidTaken { pid: taken };
    }
    let known = |line: &str| MEANINGS.iter().find(|meaning| line.contains(meaning.part));
    let cause = errors().find_map(|line| known(line).map(|meaning| (line, meaning)));
    if let Some((line, meaning)) = cause {
        let what = format!("process {pid}: {} ({})", meaning.what, quoted(line));
        return DriverError::Refused { step, what, next: meaning.next, log };
    }
    let last = || text.lines().map(str::trim).rfind(|line| !line.is_empty());
    let words = errors().next().or_else(last).map_or("CRIU said nothing".into(), quoted);
    let what = format!("process {pid}: {words}");
    DriverError::Refused { step, what, next: "see what CRIU wrote", log }
}

/// The lines of a level, without those that CRIU has in good runs too.
fn complaints<'a>(text: &'a str, level: &'a str) -> impl Iterator<Item = &'a str> {
    let harmless = |line: &str| HARMLESS.iter().any(|part| line.contains(part));
    text.lines().filter(move |line| line.contains(level) && !harmless(line))
}

/// The first complaint in what CRIU said.
pub(super) fn reason(text: &str) -> String {
    let warnings = complaints(text, "Warn  (");
    let complaint = complaints(text, "Error (").chain(warnings).next();
    complaint.or(text.lines().next()).map_or_else(|| "CRIU does not say why".into(), quoted)
}

/// The pid that CRIU could not give.
fn taken(line: &str) -> Option<i32> {
    let rest = line.split_once("Can't fork for ")?.1;
    let (pid, why) = rest.split_once(": ")?;
    pid.parse().ok().filter(|_| why.contains("File exists"))
}

/// A line without where in CRIU's source it comes from.
fn quoted(line: &str) -> String {
    let from = |part: &&str| line.contains(*part);
    let level = ["Error (", "Warn  ("].into_iter().find(from);
    let rest = level.and_then(|level| Some(line.split_once(level)?.1.split_once("): ")?.1));
    let said = rest.unwrap_or(line).trim();
    said.chars().filter(|c| !c.is_control()).take(QUOTED_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As CRIU 4.2.1 wrote it, where the limit of open files cannot be raised.
    const TCP: &str = "Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n\
        Error (criu/sk-inet.c:200): inet: Connected TCP socket, consider using --tcp-established option.\n\
        Error (criu/cr-dump.c:1545): Dump files (pid: 33417) failed with -1\n\
        Error (criu/cr-dump.c:1975): Dumping FAILED.\n";

    #[test]
    fn the_cause_is_told_and_not_what_follows_from_it() {
        let DriverError::Refused { what, next, .. } = explain(Step::Dump, 33_417, TCP, None) else {
            panic!("another error");
        };
        assert!(what.starts_with("process 33417: it has a connection over the network"), "{what}");
        assert!(what.contains("(inet: Connected TCP socket"), "{what}");
        assert!(next.contains("--net own"), "{next}");
    }

    #[test]
    fn files_that_changed_are_told_from_other_failures() {
        // wrong: what nobody can restart until somebody does something would be tried until it is
        // lost, or what passes by itself wait for somebody
        let of = |text: &str| explain(Step::Restore, 7, text, None).is_of_files();
        assert!(of("Error (criu/files-reg.c:2118): File vo/log has bad size 827 (expect 380)\n"));
        assert!(of("Error (criu/files-reg.c:2130): File vo/log has bad mode 0100600\n"));
        // Another node may have it.
        assert!(!of("Error (criu/files-reg.c:2200): Can't open file vo/log on restore: No such\n"));
        assert!(!of("Error (criu/cr-restore.c:1219): Can't fork for 32770: File exists\n"));
        assert!(!of(TCP));
        assert!(!explain(Step::Dump, 7, "Error (x): has bad size\n", None).is_of_files());
    }

    #[test]
    fn a_pid_that_is_taken_is_known() {
        // wrong: nobody would try again, where a second try helps
        let text = "Error (criu/cr-restore.c:1219): Can't fork for 32770: File exists\n";
        let error = explain(Step::Restore, 32_769, text, None);
        assert!(matches!(error, DriverError::PidTaken { pid: 32_770 }), "{error}");
    }

    #[test]
    fn what_is_not_known_is_quoted() {
        let told = |text: &str| explain(Step::Dump, 7, text, None).to_string();
        let text = "Error (criu/x.c:1): new: no \u{1b}[2Juch\nError (criu/cr-dump.c:1): FAILED\n";
        assert_eq!(told(text), "saving the program failed: process 7: new: no [2Juch");
        assert!(
            told("nsenter: no such program\n").ends_with("process 7: nsenter: no such program")
        );
        assert!(told("").contains("said nothing"));
        let features = "Warn  (criu/kerndat.c:1290): Can't keep kdat cache on non-tempfs\n\
            Warn  (criu/cr-check.c:824): It is OFF.\n";
        assert_eq!(reason(features), "It is OFF.");
        assert!(told(&"x".repeat(10_000)).len() < 500);
    }
}
