//! What a helper process tells the process that started it: lines on a pipe.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::time::Instant;

use crate::error::Context as _;
use crate::identity::wait_readable;
use crate::{Error, Result};

/// Longest line; a longer one is a defect of the helper.
const LINE_LENGTH_MAX: usize = 64 * 1024;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// The pid, as seen from the machine, of the process this is about.
    Pid(i32),
    /// Set up, or running.
    Ready,
    /// The program ended with this status.
    Exit(i32),
    /// The program was killed by this signal.
    Signal(i32),
    /// It could not be done.
    Error(String),
}

impl Message {
    fn encode(&self) -> String {
        match self {
            Message::Pid(pid) => format!("pid {pid}\n"),
            Message::Ready => "ready\n".to_owned(),
            Message::Exit(code) => format!("exit {code}\n"),
            Message::Signal(number) => format!("signal {number}\n"),
            Message::Error(text) => format!("error {}\n", text.replace('\n', " ")),
        }
    }

    fn decode(line: &str) -> Option<Message> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        Some(match word {
            "pid" => Message::Pid(rest.parse().ok()?),
            "ready" => Message::Ready,
            "exit" => Message::Exit(rest.parse().ok()?),
            "signal" => Message::Signal(rest.parse().ok()?),
            "error" => Message::Error(rest.to_owned()),
            _ => return None,
        })
    }
}

/// The helper's end. Its reader may be gone: then nobody wants to know.
#[derive(Debug)]
pub(crate) struct StatusWriter(File);

impl StatusWriter {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        StatusWriter(File::from(fd))
    }

    pub(crate) fn send(&mut self, message: &Message) -> io::Result<()> {
        match self.0.write_all(message.encode().as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }
}

/// The starter's end.
#[derive(Debug)]
pub(crate) struct StatusReader {
    pipe: File,
    pending: Vec<u8>,
}

impl StatusReader {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        StatusReader { pipe: File::from(fd), pending: Vec::new() }
    }

    /// The next message; `Ok(None)` at the deadline.
    pub(crate) fn next(&mut self, deadline: Option<Instant>) -> Result<Option<Message>> {
        let bad = |why: &str| Error::Start {
            what: "reading a helper's answer".to_owned(),
            reason: why.to_owned(),
        };
        loop {
            if let Some(end) = self.pending.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                let text = String::from_utf8_lossy(&line[..end]).into_owned();
                return Message::decode(&text).map(Some).ok_or_else(|| bad(&text));
            }
            if self.pending.len() > LINE_LENGTH_MAX {
                return Err(bad("it is too long"));
            }
            if !wait_readable(&self.pipe, deadline)? {
                return Ok(None);
            }
            let mut buffer = [0; 4096];
            let read = match self.pipe.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other.context(|| "reading a helper's answer".to_owned())?,
            };
            if read == 0 {
                return Err(bad("it ended without one; its words are in logs/testbed.log"));
            }
            self.pending.extend_from_slice(&buffer[..read]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a helper's answer would be misread; one with a newline would become two.
    #[test]
    fn messages_survive_the_pipe() {
        let (read, write) = io::pipe().unwrap();
        let mut writer = StatusWriter::new(write.into());
        let mut reader = StatusReader::new(read.into());
        let sent = [Message::Pid(7), Message::Ready, Message::Exit(3), Message::Signal(9)];
        for message in &sent {
            writer.send(message).unwrap();
        }
        writer.send(&Message::Error("two\nlines".to_owned())).unwrap();
        for message in sent {
            assert_eq!(reader.next(None).unwrap(), Some(message));
        }
        assert_eq!(reader.next(None).unwrap(), Some(Message::Error("two lines".to_owned())));
        assert_eq!(reader.next(Some(Instant::now())).unwrap(), None);
        drop(writer);
        assert!(reader.next(None).is_err());
    }
}
