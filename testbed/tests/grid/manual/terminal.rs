//! A person at a terminal types a line and answers what is asked.

use std::fs::OpenOptions;
use std::io::{PipeReader, Read, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use xos_testbed::{Cmd, Exit, Host, Stdio};

use crate::tool::Said;
use crate::world::COMMAND_MAX;

/// Where, in the host, the keys that are pressed come from.
const KEYS: &str = "/tmp/keys";
/// Programs ask for passwords at a terminal only: script(1) makes one. It reads from a FIFO that
/// never ends, so that the terminal stays until the program ends.
const TERMINAL: &str = "exec 2>&1; rm -f \"$KEYS\" && mkfifo -m 600 \"$KEYS\" && \
                        exec script -qefc \"$RUN\" /dev/null <>\"$KEYS\"";
const SHELL: &str = "exec bash -c \"$LINE\"";

/// Who types, and where.
pub struct Typist<'a> {
    /// The machine.
    pub host: &'a Host,
    /// Its root folder, as seen from here.
    pub root: &'a Path,
    /// An account of the machine; root without one.
    pub user: Option<&'a str>,
    /// The folder in which they are.
    pub cwd: &'a str,
}

impl Typist<'_> {
    /// Types `line`. Each of `answers` is a prompt and what is typed when it appears.
    pub fn types(&self, line: &str, answers: &[(String, String)]) -> Said {
        let mut process = self.host.spawn(&self.command(line)).unwrap();
        let shown = reader(process.stdout.take().expect("a pipe"));
        let (mut out, mut from) = (String::new(), 0);
        for (prompt, answer) in answers {
            let at = loop {
                if let Some(at) = out[from..].find(prompt) {
                    break from + at + prompt.len();
                }
                match shown.recv_timeout(COMMAND_MAX) {
                    Ok(more) => out.push_str(&more),
                    Err(_) => panic!("`{line}` does not ask {prompt:?}: {out}"),
                }
            };
            from = at;
            self.press(answer);
        }
        loop {
            match shown.recv_timeout(COMMAND_MAX) {
                Ok(more) => out.push_str(&more),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("`{line}` does not end: {out}"),
            }
        }
        match process.wait(COMMAND_MAX).unwrap() {
            Exit::Code(code) => {
                let (line, out) = (line.to_owned(), out.replace('\r', ""));
                Said { line, code, out, err: String::new() }
            }
            Exit::Signal(number) => panic!("`{line}` was ended by signal {number}: {out}"),
        }
    }

    fn command(&self, line: &str) -> Cmd {
        let user = self.user.unwrap_or("root");
        let (home, run) = match self.user {
            None => ("/root".to_owned(), SHELL.to_owned()),
            Some(user) => {
                let become_them = format!("setpriv --reuid {user} --regid {user} --init-groups");
                (format!("/home/{user}"), SHELL.replacen("exec", &format!("exec {become_them}"), 1))
            }
        };
        let vars = [("KEYS", KEYS), ("RUN", run.as_str()), ("LINE", line), ("HOME", home.as_str())];
        // Without colours: what is shown is compared.
        let more = [("USER", user), ("LOGNAME", user), ("TERM", "dumb"), ("NO_COLOR", "1")];
        let cmd = Cmd::shell(TERMINAL).cwd(self.cwd).stdio(Stdio::Piped);
        vars.into_iter().chain(more).fold(cmd, |cmd, (name, value)| cmd.env(name, value))
    }

    fn press(&self, keys: &str) {
        let path = self.root.join(KEYS.trim_start_matches('/'));
        let mut fifo = OpenOptions::new().write(true).open(path).unwrap();
        fifo.write_all(format!("{keys}\n").as_bytes()).unwrap();
    }
}

/// What a program prints, as it comes.
pub fn reader(mut from: PipeReader) -> Receiver<String> {
    let (to, shown) = channel();
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(n @ 1..) = from.read(&mut bytes) {
            if to.send(String::from_utf8_lossy(&bytes[..n]).into_owned()).is_err() {
                return;
            }
        }
    });
    shown
}
