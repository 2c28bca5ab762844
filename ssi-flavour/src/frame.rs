//! Length-framed JSON over local sockets: four bytes of length, little endian, then the value.
//! What agents, cells, shims and inits say to one another.

use serde::{Serialize, de::DeserializeOwned};
use std::io::{self, ErrorKind, Read, Write};

/// Longest frame, in bytes, without its length.
pub const FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How much is read at a time.
const READ_BYTES: usize = 16 * 1024;

/// Appends a frame.
///
/// # Errors
/// `InvalidData` when the value is over [`FRAME_BYTES_MAX`].
pub fn push<T: Serialize>(value: &T, out: &mut Vec<u8>) -> io::Result<()> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    serde_json::to_writer(&mut *out, value)?;
    let len = out.len() - start - 4;
    if len > FRAME_BYTES_MAX {
        out.truncate(start);
        return Err(io::Error::new(ErrorKind::InvalidData, "the message is over 4 MiB"));
    }
    out[start..start + 4].copy_from_slice(&(len as u32).to_le_bytes());
    Ok(())
}

/// Collects bytes and gives whole frames.
#[derive(Default)]
pub struct Frames {
    buf: Vec<u8>,
    at: usize,
}

impl Frames {
    /// The next frame, when it is complete.
    ///
    /// # Errors
    /// `InvalidData` for a frame over the limit or of another shape; the peer is to be dropped.
    #[allow(clippy::should_implement_trait)] // not an iterator: it ends and goes on
    pub fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let rest = &self.buf[self.at..];
        let Some((len, body)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let len = u32::from_le_bytes(*len) as usize;
        if len > FRAME_BYTES_MAX {
            return Err(io::Error::new(ErrorKind::InvalidData, "a frame over 4 MiB"));
        }
        let Some(body) = body.get(..len) else { return Ok(None) };
        let value = serde_json::from_slice(body)?;
        self.at += 4 + len;
        if self.at == self.buf.len() {
            // A large batch must not stay in memory for the life of a shim.
            self.buf.clear();
            self.buf.shrink_to(READ_BYTES);
            self.at = 0;
        }
        Ok(Some(value))
    }

    /// Takes bytes that arrived.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.at > 0 {
            self.buf.drain(..self.at);
            self.at = 0;
        }
        self.buf.extend_from_slice(bytes);
    }

    /// Reads once from a socket. `false`: the peer closed it.
    ///
    /// # Errors
    /// The socket's error; "would block" and "interrupted" are none.
    pub fn fill(&mut self, from: &mut impl Read) -> io::Result<bool> {
        let mut buf = [0; READ_BYTES];
        match from.read(&mut buf) {
            Ok(0) => Ok(false),
            Ok(n) => {
                self.feed(&buf[..n]);
                Ok(true)
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                Ok(true)
            }
            Err(e) => Err(e),
        }
    }
}

/// Bytes waiting to be written to a socket that does not block.
#[derive(Default)]
pub struct Outbox {
    buf: Vec<u8>,
    at: usize,
}

impl Outbox {
    /// Adds a frame.
    ///
    /// # Errors
    /// As [`push`].
    pub fn push<T: Serialize>(&mut self, value: &T) -> io::Result<()> {
        if self.at > self.buf.len() / 2 {
            // A peer that never reads all must not have what it read kept.
            self.buf.drain(..self.at);
            self.at = 0;
        }
        push(value, &mut self.buf)
    }

    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.buf.len() - self.at
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What waits, for a caller that writes by itself; see [`Outbox::written`].
    pub fn waiting(&self) -> &[u8] {
        &self.buf[self.at..]
    }

    /// So many bytes of what waits are written.
    pub fn written(&mut self, bytes: usize) {
        self.at = self.buf.len().min(self.at + bytes);
    }

    /// Writes what the socket takes now.
    ///
    /// # Errors
    /// The socket's error; "would block" is none.
    pub fn flush(&mut self, to: &mut impl Write) -> io::Result<()> {
        while !self.is_empty() {
            match to.write(&self.buf[self.at..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => self.at += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        self.buf.clear();
        self.buf.shrink_to(READ_BYTES);
        self.at = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        // wrong: a request split over two reads would be lost or misread
        let mut bytes = Vec::new();
        for v in ["a", "", "ccc"] {
            push(&v, &mut bytes).unwrap();
        }
        let mut frames = Frames::default();
        let mut got: Vec<String> = Vec::new();
        for b in bytes {
            frames.feed(&[b]);
            while let Some(v) = frames.next().unwrap() {
                got.push(v);
            }
        }
        assert_eq!(got, ["a", "", "ccc"]);
    }

    #[test]
    fn what_a_slow_peer_read_is_not_kept() {
        // wrong: who always leaves something unread would have a shim or an init grow without end
        let mut outbox = Outbox::default();
        let text = "x".repeat(1000);
        outbox.push(&text).unwrap();
        let frame = outbox.len();
        for _ in 0..1000 {
            outbox.push(&text).unwrap();
            outbox.written(frame);
        }
        assert_eq!(outbox.len(), frame);
        assert!(outbox.buf.len() <= 4 * frame, "{}", outbox.buf.len());
        let mut frames = Frames::default();
        frames.feed(outbox.waiting());
        assert_eq!(frames.next::<String>().unwrap().as_ref(), Some(&text));
    }

    #[test]
    fn an_oversized_or_foreign_frame_is_an_error() {
        // wrong: four bytes would make a shim or a cell's init reserve 4 GB
        let mut frames = Frames::default();
        frames.feed(&u32::MAX.to_le_bytes());
        assert!(frames.next::<String>().is_err());
        let mut frames = Frames::default();
        frames.feed(&[1, 0, 0, 0, b'x']);
        assert!(frames.next::<String>().is_err());
        assert!(push(&"x".repeat(FRAME_BYTES_MAX), &mut Vec::new()).is_err());
    }
}
