//! The writer of an envelope's log.

use crate::event::{Entry, Event, encode};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use xos_base::Millis;

/// Records, numbered, and what of them is not on file yet.
pub(super) struct Log {
    file: File,
    len: u64,
    seq: u64,
    pending: Vec<u8>,
    trouble: Option<String>,
}

impl Log {
    /// A new log.
    ///
    /// # Errors
    /// `AlreadyExists` when the envelope was used before: its records must not be mixed.
    pub(super) fn create(path: &Path) -> io::Result<Log> {
        let mut how = File::options();
        let file = how.append(true).create_new(true).mode(0o600).open(path)?;
        Ok(Log { file, len: 0, seq: 0, pending: Vec::new(), trouble: None })
    }

    /// Goes on with a log of `len` bytes, whose last numbered record has `seq`.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn resume(path: &Path, len: u64, seq: u64) -> io::Result<Log> {
        let file = File::options().append(true).open(path)?;
        Ok(Log { file, len, seq, pending: Vec::new(), trouble: None })
    }

    /// Brings what is on file to the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Numbers a record; it is on file after the next successful [`Log::flush`].
    pub(super) fn record(&mut self, at: Millis, event: Event) -> io::Result<()> {
        let seq = self.seq + u64::from(event.is_numbered());
        encode(&Entry { seq, at, event }, &mut self.pending)?;
        self.seq = seq;
        Ok(())
    }

    /// Writes what is pending. `false`: not possible now; nothing is lost, try again later.
    pub(super) fn flush(&mut self) -> bool {
        if self.pending.is_empty() {
            return true;
        }
        match self.file.write_all(&self.pending) {
            Ok(()) => {
                self.len += self.pending.len() as u64;
                self.pending.clear();
                self.trouble = None;
                true
            }
            Err(e) => {
                // A full disk may have taken half a line.
                let cut = self.file.set_len(self.len);
                self.trouble = Some(match cut {
                    Ok(()) => format!("cannot write the envelope's log: {e}"),
                    Err(c) => format!("cannot write the envelope's log: {e}; nor cut it: {c}"),
                });
                false
            }
        }
    }

    /// Bytes on file.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Why the last flush failed.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_loses_and_doubles_nothing() {
        // wrong: an end would be lost, or half a line would spoil the next one
        let mut log = Log {
            file: File::options().append(true).open("/dev/full").unwrap(),
            len: 0,
            seq: 0,
            pending: Vec::new(),
            trouble: None,
        };
        let unit = || Event::Starting { unit: "1.a:0".parse().unwrap() };
        log.record(Millis(1), unit()).unwrap();
        assert!(!log.flush());
        assert!(log.trouble().unwrap().contains("space"), "{:?}", log.trouble());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        log.file = Log::create(&path).unwrap().file;
        log.record(Millis(2), unit()).unwrap();
        assert!(log.flush() && log.trouble().is_none());
        let chunk = crate::event::decode(&std::fs::read(&path).unwrap(), Default::default());
        assert_eq!(chunk.entries.iter().map(|(e, _)| e.seq).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(chunk.cursor.offset, log.len());
        assert!(Log::create(&path).is_err(), "a used envelope must not start over");
    }
}
