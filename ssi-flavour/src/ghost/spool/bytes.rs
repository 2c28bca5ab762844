//! One stream of a tree on the disk, in parts, so that its oldest bytes can go.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A file.
#[derive(Debug)]
struct Part {
    name: String,
    /// Where in the stream it begins.
    begins: u64,
    bytes: u64,
    file: File,
}

/// What is kept of a stream. Its first part is a file by the stream's name; that of a later one
/// says where it begins, so that nothing else needs to.
#[derive(Debug)]
pub(super) struct Bytes {
    folder: PathBuf,
    stream: &'static str,
    /// All but the last.
    before: VecDeque<Part>,
    last: Part,
}

/// The parts of a stream in a folder: where each begins, and its name. The first one that ever was
/// begins at `from`.
pub(super) fn parts(folder: &Path, stream: &str, from: u64) -> io::Result<Vec<(u64, String)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(stream)) else { continue };
        let begins = match rest.strip_prefix('.') {
            Some(number) => number.parse::<u64>().ok(),
            None => rest.is_empty().then_some(from),
        };
        found.extend(begins.map(|begins| (begins, format!("{stream}{rest}"))));
    }
    found.sort();
    Ok(found)
}

impl Part {
    fn open(folder: &Path, name: String, begins: u64) -> io::Result<Part> {
        let mut how = OpenOptions::new();
        how.read(true).append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let file = how.open(folder.join(&name))?;
        let bytes = file.metadata()?.len();
        Ok(Part { name, begins, bytes, file })
    }

    fn end(&self) -> u64 {
        self.begins.saturating_add(self.bytes)
    }
}

impl Bytes {
    /// Opens what there is of a stream, or begins it at an offset.
    pub fn open(folder: &Path, stream: &'static str, from: u64) -> io::Result<Bytes> {
        let mut before: VecDeque<Part> = VecDeque::new();
        for (begins, name) in parts(folder, stream, from)? {
            // A loss of power may have taken the end of a part that is not the last.
            if before.back().is_some_and(|part| part.end() != begins) {
                for part in before.drain(..) {
                    remove(folder, &part.name)?;
                }
            }
            before.push_back(Part::open(folder, name, begins)?);
        }
        let last = match before.pop_back() {
            Some(part) => part,
            None => Part::open(folder, stream.to_owned(), from)?,
        };
        Ok(Bytes { folder: folder.to_owned(), stream, before, last })
    }

    /// The first byte that is here.
    pub fn begins(&self) -> u64 {
        self.before.front().unwrap_or(&self.last).begins
    }

    /// Where the next one goes.
    pub fn end(&self) -> u64 {
        self.last.end()
    }

    /// How many are here.
    pub fn count(&self) -> u64 {
        self.end().saturating_sub(self.begins())
    }

    /// How many the last part has.
    pub fn last(&self) -> u64 {
        self.last.bytes
    }

    /// How many parts there are.
    pub fn parts(&self) -> usize {
        self.before.len() + 1
    }

    /// Where the oldest part ends.
    pub fn oldest_ends(&self) -> u64 {
        self.before.front().unwrap_or(&self.last).end()
    }

    /// Adds some of these to the last part; how many.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.last.file.write(bytes)?;
        if n == 0 {
            return Err(ErrorKind::WriteZero.into());
        }
        self.last.bytes += n as u64;
        Ok(n)
    }

    /// Begins another part, unless the last one is empty.
    pub fn split(&mut self) -> io::Result<()> {
        if self.last.bytes > 0 {
            let end = self.end();
            let next = Part::open(&self.folder, format!("{}.{end}", self.stream), end)?;
            self.before.push_back(std::mem::replace(&mut self.last, next));
        }
        Ok(())
    }

    /// Removes the oldest part, unless it is the last; how many bytes that were.
    pub fn drop_oldest(&mut self) -> io::Result<u64> {
        let Some(part) = self.before.pop_front() else { return Ok(0) };
        remove(&self.folder, &part.name)?;
        Ok(part.bytes)
    }

    /// Removes what is from an offset on; how many bytes that were.
    pub fn cut(&mut self, to: u64) -> io::Result<u64> {
        let before = self.count();
        while self.last.begins > to
            && let Some(part) = self.before.pop_back()
        {
            let gone = std::mem::replace(&mut self.last, part);
            remove(&self.folder, &gone.name)?;
        }
        if self.end() > to {
            self.last.bytes = to.saturating_sub(self.last.begins);
            self.last.file.set_len(self.last.bytes)?;
        }
        Ok(before.saturating_sub(self.count()))
    }

    /// Has all of it written to the disk.
    pub fn sync(&self) -> io::Result<()> {
        for part in self.before.iter().chain([&self.last]) {
            part.file.sync_data()?;
        }
        File::open(&self.folder)?.sync_all()
    }

    /// Some of what is there from an offset on; how much. None at the end.
    pub fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        let mut newest_first = std::iter::once(&self.last).chain(self.before.iter().rev());
        let part = newest_first.find(|part| part.begins <= at);
        let part = part.ok_or_else(|| io::Error::other("it is not kept any more"))?;
        part.file.read_at(buf, at - part.begins)
    }
}

fn remove(folder: &Path, name: &str) -> io::Result<()> {
    match std::fs::remove_file(folder.join(name)) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What can be read from an offset on.
    fn text(bytes: &Bytes, mut at: u64) -> String {
        let (mut out, mut buf) = (Vec::new(), [0; 4]);
        loop {
            let n = bytes.read_at(&mut buf, at).unwrap();
            if n == 0 {
                return String::from_utf8(out).unwrap();
            }
            out.extend_from_slice(&buf[..n]);
            at += n as u64;
        }
    }

    #[test]
    fn what_is_left_is_where_it_was() {
        // wrong: who reads on after the oldest bytes went would get others than were written there
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = Bytes::open(dir.path(), "out", 5).unwrap();
        for text in ["abcde", "fghij", "klm"] {
            bytes.split().unwrap();
            assert_eq!(bytes.append(text.as_bytes()).unwrap(), text.len());
        }
        assert_eq!((bytes.begins(), bytes.end(), bytes.parts()), (5, 18, 3));
        assert_eq!(text(&bytes, 7), "cdefghijklm");
        assert_eq!(bytes.oldest_ends(), 10);
        assert_eq!(bytes.drop_oldest().unwrap(), 5);
        assert_eq!((bytes.begins(), text(&bytes, 12).as_str()), (10, "hijklm"));
        bytes.read_at(&mut [0; 4], 9).unwrap_err();
        assert_eq!(bytes.cut(16).unwrap(), 2);
        assert_eq!((text(&bytes, 12).as_str(), bytes.end()), ("hijk", 16));
        assert_eq!(bytes.append(b"lm").unwrap(), 2);
        // The node's program is started anew.
        let again = Bytes::open(dir.path(), "out", 5).unwrap();
        assert_eq!((again.begins(), again.end(), again.parts()), (10, 18, 2));
        // A power cut took the end of the older part: what is left has no hole.
        let older = OpenOptions::new().write(true).open(dir.path().join("out.10")).unwrap();
        older.set_len(2).unwrap();
        let mut again = Bytes::open(dir.path(), "out", 5).unwrap();
        assert_eq!((again.begins(), text(&again, 15).as_str()), (15, "klm"));
        assert_eq!(again.drop_oldest().unwrap(), 0, "the last one stays");
        assert_eq!((again.cut(3).unwrap(), again.end(), again.count()), (3, 15, 0));
    }
}
