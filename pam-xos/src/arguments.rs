//! The module's arguments, from its line in `/etc/pam.d`.

use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use xos_base::local::{SEEN_DIR, SOCKET};

/// Longest limit of a call that a line may set, in milliseconds.
const TIMEOUT_MS_MAX: u64 = 60_000;

/// What a line says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// `debug`: the log has every call.
    pub(crate) debug: bool,
    /// `timeout_ms=N`: how long the node may take to answer, in place of each phase's own limit.
    pub(crate) timeout: Option<Duration>,
    /// `socket=PATH`: where the node listens; for tests.
    pub(crate) socket: PathBuf,
    /// `seen=DIR`: in place of [`SEEN_DIR`]; for tests.
    pub(crate) seen: PathBuf,
}

impl Arguments {
    /// Reads them. What is not understood is complained of and ignored: a slip of the pen must not
    /// lock a machine.
    pub(crate) fn parse<'a>(words: impl IntoIterator<Item = &'a CStr>) -> (Self, Vec<String>) {
        let mut all =
            Self { debug: false, timeout: None, socket: SOCKET.into(), seen: SEEN_DIR.into() };
        let mut complaints = Vec::new();
        for word in words {
            if word.to_str().ok().and_then(|word| all.take(word)).is_none() {
                complaints.push(format!(
                    "argument {word:?} is not understood and ignored; there are debug, \
                     try_first_pass, timeout_ms=N (1 to {TIMEOUT_MS_MAX}), socket=PATH and \
                     seen=DIR"
                ));
            }
        }
        (all, complaints)
    }

    /// Takes one, if it is understood.
    fn take(&mut self, word: &str) -> Option<()> {
        if word == "debug" {
            self.debug = true;
            return Some(());
        }
        // As it does anyway: people know the word from other modules.
        if word == "try_first_pass" {
            return Some(());
        }
        match word.split_once('=')? {
            ("timeout_ms", n) => {
                let n = n.parse::<u64>().ok().filter(|n| (1..=TIMEOUT_MS_MAX).contains(n))?;
                self.timeout = Some(Duration::from_millis(n));
            }
            ("socket", path) => self.socket = absolute(path)?,
            ("seen", path) => self.seen = absolute(path)?,
            _ => return None,
        }
        Some(())
    }
}

fn absolute(path: &str) -> Option<PathBuf> {
    Some(Path::new(path)).filter(|p| p.is_absolute()).map(Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a setting of the administrator's would silently not count, or a slip of the
    /// pen would keep everybody out.
    #[test]
    fn what_is_understood_counts_and_the_rest_is_complained_of() {
        let (plain, complaints) = Arguments::parse([]);
        assert_eq!((plain.debug, plain.timeout, complaints.len()), (false, None, 0));
        assert_eq!(plain.socket, Path::new(SOCKET));
        assert_eq!(plain.seen, Path::new(SEEN_DIR));

        let words = [c"debug", c"try_first_pass", c"timeout_ms=7", c"socket=/s", c"seen=/d"];
        let (all, complaints) = Arguments::parse(words);
        assert_eq!((all.debug, all.timeout), (true, Some(Duration::from_millis(7))));
        assert_eq!(all.socket, Path::new("/s"));
        assert_eq!(all.seen, Path::new("/d"));
        assert!(complaints.is_empty(), "{complaints:?}");

        let bad = [
            c"",
            c"=",
            c"Debug",
            c"debug=1",
            c"timeout_ms",
            c"timeout_ms=",
            c"timeout_ms=0",
            c"timeout_ms=-1",
            c"timeout_ms=60001",
            c"timeout_ms=99999999999999999999",
            c"socket=run/node.sock",
            c"seen=",
            c"\xff\xfe",
            c"use_first_pass",
        ];
        let (all, complaints) = Arguments::parse(bad);
        assert_eq!(all, plain);
        assert_eq!(complaints.len(), bad.len(), "{complaints:#?}");
    }
}
