//! Programs that the scheduler places: `xos-ghost run -- PROGRAM ARGUMENTS`, and `xos-sh -c TEXT`,
//! which is what make(1) can have for a shell.
//!
//! One question and one answer over the socket of the node's agent; frames as those of a cell
//! ([`crate::cell`]). Who asks is known to the agent by the socket (SO_PEERCRED in unix(7)): as
//! whom the program runs, and the pid, which the program keeps.

use super::{Connect, complain, run};
use crate::cell::frame::Peer;
use crate::cell::proto::Tree;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind, IsTerminal};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// The variable that names the socket of the node's agent.
pub const SOCKET_VARIABLE: &str = "XOS_CLUSTER_SOCKET";
/// The name by which `xos-ghost` is a shell.
pub const SHELL_NAME: &str = "xos-sh";
/// Most arguments, and most variables, of a program that is placed.
pub const TEXTS_MAX: usize = 65_536;
/// Most bytes of all of them; one that has more runs here.
pub const TEXTS_BYTES_MAX: usize = 1 << 20;
/// The shell itself.
const SHELL: &str = "/bin/sh";
/// As a shell has it: what is to run is not there, is no program, or was refused.
const NOT_FOUND_CODE: u8 = 127;
const NOT_RUN_CODE: u8 = 126;

/// Where is this program to run?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlaceAsk {
    /// The program and its arguments. A name without a slash is looked for in `PATH`.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// The working directory, from the root.
    pub cwd: PathBuf,
    /// The file mode creation mask.
    pub umask: u32,
    /// Whether it is to have a terminal.
    pub terminal: bool,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PlaceAnswer {
    /// On this node: who asked becomes it.
    Here,
    /// On another one: who asked stands for it from now on, as its ghost, and the connection is
    /// that of the ghost. When it ends before the program does, the program is killed.
    Elsewhere {
        /// What it is there.
        tree: Tree,
    },
    /// Nowhere.
    Refused {
        /// Why, for the person.
        why: String,
    },
}

impl PlaceAsk {
    /// Whether it can be run and is not too large. For the agent: anybody may send anything.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        if self.argv.first().is_none_or(String::is_empty) {
            return Err("no program is named".to_owned());
        }
        if !self.cwd.is_absolute() {
            return Err("its folder is not named from the root".to_owned());
        }
        if self.umask > 0o777 {
            return Err(format!("{:o} is no file mode creation mask", self.umask));
        }
        if self.argv.len() > TEXTS_MAX || self.env.len() > TEXTS_MAX {
            return Err(format!("more than {TEXTS_MAX} arguments or variables"));
        }
        let variables = self.env.iter().flat_map(|(name, value)| [name, value]);
        let mut bytes = 0_usize;
        for text in self.argv.iter().chain(variables) {
            bytes = bytes.saturating_add(text.len());
            if text.contains('\0') {
                return Err("an argument or a variable contains a zero byte".to_owned());
            }
        }
        if bytes > TEXTS_BYTES_MAX {
            return Err(format!("more than {TEXTS_BYTES_MAX} bytes of arguments and variables"));
        }
        Ok(())
    }

    /// What this process would run; `None` when it is not text, or too much, so that it cannot be
    /// sent.
    fn of_this_process(argv: &[OsString], terminal: bool) -> Option<PlaceAsk> {
        let text = |text: &OsStr| text.to_str().map(str::to_owned);
        let ask = PlaceAsk {
            argv: argv.iter().map(|word| text(word)).collect::<Option<_>>()?,
            env: std::env::vars_os()
                .map(|(name, value)| Some((text(&name)?, text(&value)?)))
                .collect::<Option<_>>()?,
            cwd: std::env::current_dir().ok()?,
            umask: umask(),
            terminal,
        };
        ask.cwd.to_str()?;
        ask.check().is_ok().then_some(ask)
    }
}

/// The agent's side: the question that comes over a new connection, within so long.
///
/// # Errors
/// The socket's; `InvalidData` for what is no question or too large, `TimedOut`: the connection is
/// to be dropped.
pub fn hear(socket: UnixStream, within: Duration) -> io::Result<(PlaceAsk, Asked)> {
    socket.set_read_timeout(Some(within))?;
    socket.set_write_timeout(Some(within))?;
    let kept = socket.try_clone()?;
    let mut peer = Peer::new(socket);
    let ask: PlaceAsk = next(&mut peer, Some(Instant::now() + within))?;
    ask.check().map_err(|why| io::Error::new(ErrorKind::InvalidData, why))?;
    Ok((ask, Asked { peer, socket: kept }))
}

/// A question that waits for its answer.
pub struct Asked {
    peer: Peer,
    socket: UnixStream,
}

impl Asked {
    /// Answers it. The connection: after [`PlaceAnswer::Elsewhere`] it is that of a ghost.
    ///
    /// # Errors
    /// The socket's: who asked is gone.
    pub fn answer(mut self, answer: &PlaceAnswer) -> io::Result<UnixStream> {
        self.peer.send(answer, &[])?;
        Ok(self.socket)
    }
}

/// The frame that is to come.
fn next<T: DeserializeOwned>(peer: &mut Peer, until: Option<Instant>) -> io::Result<T> {
    loop {
        if let Some(value) = peer.take()? {
            return Ok(value);
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            return Err(ErrorKind::TimedOut.into());
        }
        if !peer.fill()? {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
}

fn umask() -> u32 {
    // It can only be read by setting it; this process has one thread.
    let mask = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    nix::sys::stat::umask(mask);
    mask.bits()
}

/// Runs a program where the cluster has room for it; here when there is no cluster to ask.
pub(super) fn place(argv: &[OsString]) -> ExitCode {
    // With its output elsewhere a terminal would change that.
    ask(argv, io::stdin().is_terminal() && io::stdout().is_terminal())
}

fn ask(argv: &[OsString], terminal: bool) -> ExitCode {
    let Some(socket) = std::env::var_os(SOCKET_VARIABLE).filter(|s| !s.is_empty()) else {
        return become_it(argv);
    };
    let Some(ask) = PlaceAsk::of_this_process(argv, terminal) else { return become_it(argv) };
    let answer = UnixStream::connect(&socket).and_then(|socket| {
        let mut peer = Peer::new(socket.try_clone()?);
        peer.send(&ask, &[])?;
        // However long: the agent has limits. Whoever does not want to wait ends this process.
        Ok((next(&mut peer, None)?, socket))
    });
    match answer {
        Ok((PlaceAnswer::Here, _)) => become_it(argv),
        Ok((PlaceAnswer::Elsewhere { tree }, socket)) => run::run(once(socket), tree),
        Ok((PlaceAnswer::Refused { why }, _)) => {
            complain(&why);
            ExitCode::from(NOT_RUN_CODE)
        }
        Err(e) => {
            // What it may have begun elsewhere is killed: nobody stands for it.
            complain(&format!("the node's agent does not answer, so that it runs here: {e}"));
            become_it(argv)
        }
    }
}

/// A connection that there is only once: when it is over, the agent is, and with it the cell.
fn once(socket: UnixStream) -> Connect {
    let mut socket = Some(socket);
    Box::new(move || socket.take().ok_or_else(|| io::Error::from(ErrorKind::NotConnected)))
}

/// As `sh`: what `-c` names is placed. A shell that reads a file or a terminal is this node's.
pub(super) fn shell(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let argv: Vec<OsString> = std::iter::once(SHELL.into()).chain(arguments).collect();
    // Of the lines that make runs at a time one has its terminal: that is to stay as it is.
    if is_command(&argv) { ask(&argv, false) } else { become_it(&argv) }
}

/// Whether the first argument of a shell has the option `c`, as `-c` or `-ec`.
fn is_command(argv: &[OsString]) -> bool {
    let option = argv.get(1).and_then(|word| word.to_str());
    let letters = option.and_then(|word| word.strip_prefix('-'));
    letters.is_some_and(|l| l.contains('c') && l.chars().all(|c| c.is_ascii_alphabetic()))
}

/// Becomes the program, with all that this process has; returns only when that failed.
fn become_it(argv: &[OsString]) -> ExitCode {
    let Some((program, arguments)) = argv.split_first() else { return ExitCode::from(2) };
    let error = Command::new(program).args(arguments).exec();
    complain(&format!("cannot run {program:?}: {error}"));
    let absent = error.kind() == ErrorKind::NotFound;
    ExitCode::from(if absent { NOT_FOUND_CODE } else { NOT_RUN_CODE })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn ask() -> PlaceAsk {
        PlaceAsk {
            argv: vec!["cc".into(), "-c".into(), "a.c".into()],
            env: vec![("PATH".into(), "/bin".into())],
            cwd: "/xtreemfs/demo".into(),
            umask: 0o22,
            terminal: false,
        }
    }

    #[test]
    fn a_question_is_heard_and_answered() {
        // wrong: what is placed would run with other arguments, or never
        let (a, b) = UnixStream::pair().unwrap();
        let mut peer = Peer::new(a);
        peer.send(&ask(), &[]).unwrap();
        let (heard, asked) = hear(b, Duration::from_secs(60)).unwrap();
        assert_eq!(heard, ask());
        let tree = Tree { id: 7, epoch: 1 };
        let answer = PlaceAnswer::Elsewhere { tree };
        let kept = asked.answer(&answer).unwrap();
        assert_eq!(next::<PlaceAnswer>(&mut peer, None).unwrap(), answer);
        drop(kept);
        let gone = next::<PlaceAnswer>(&mut peer, None).unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_is_no_question_is_refused() {
        // wrong: a member could hold or break the agent of a node by its socket
        type Change = fn(&mut PlaceAsk);
        let bad: [Change; 6] = [
            |a| a.argv.clear(),
            |a| a.argv.push("a\0b".into()),
            |a| a.cwd = "here".into(),
            |a| a.umask = 0o1000,
            |a| a.env = vec![(String::new(), String::new()); TEXTS_MAX + 1],
            |a| a.argv.push("x".repeat(TEXTS_BYTES_MAX)),
        ];
        for change in bad {
            let mut ask = ask();
            change(&mut ask);
            assert!(ask.check().is_err());
        }
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(&[5, 0, 0, 0, b'x']).unwrap();
        assert_eq!(hear(b, Duration::from_millis(50)).err().unwrap().kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn a_shell_places_commands_alone() {
        // wrong: a shell that reads a script or a terminal would be sent away from it
        let is = |words: &[&str]| {
            let argv: Vec<OsString> = words.iter().map(OsString::from).collect();
            is_command(&argv)
        };
        assert!(is(&["sh", "-c", "cc a.c"]) && is(&["sh", "-ec", "cc a.c"]));
        assert!(!is(&["sh"]) && !is(&["sh", "script.sh"]) && !is(&["sh", "-e", "c"]));
        assert!(!is(&["sh", "--rcfile"]));
    }
}
