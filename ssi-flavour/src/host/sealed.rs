//! Frames that only who has the key writes and reads: each is sealed with its place in the stream
//! (AES-256-GCM, RFC 5116; the order as in STREAM: Hoang, Reyhanitabar, Rogaway, Vizár, "Online
//! authenticated-encryption and its nonce-reuse misuse-resistance", CRYPTO 2015), so that nothing
//! is changed, left out, doubled or put elsewhere unseen. It costs less than a digest does.
//!
//! A key is of one stream in one direction.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use std::io::{self, ErrorKind, Read, Write};

/// Most bytes in a frame.
pub(super) const CHUNK: usize = 1024 * 1024;
/// The length of what is in it, and its kind: a number of the caller's.
const HEAD: usize = 5;
/// What sealing adds.
const TAG: usize = 16;

/// A key.
pub(super) type Key = [u8; 32];

/// Bytes that nobody guesses.
///
/// # Errors
/// That the system gives none.
pub(super) fn random() -> io::Result<Key> {
    let mut bytes = [0; 32];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| io::Error::other("the system gives no random bytes"))?;
    Ok(bytes)
}

/// What both sides have.
struct Frames {
    key: LessSafeKey,
    count: u64,
    buf: Vec<u8>,
}

impl Frames {
    fn new(key: &Key) -> io::Result<Frames> {
        let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_| io::Error::other("no key"))?;
        Ok(Frames { key: LessSafeKey::new(key), count: 0, buf: vec![0; HEAD + CHUNK + TAG] })
    }

    /// Of each frame another one.
    fn nonce(&mut self) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[..8].copy_from_slice(&self.count.to_le_bytes());
        // A stream of so many frames never ends.
        self.count += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

/// The writing side.
pub(super) struct Sealer<W> {
    frames: Frames,
    to: W,
}

impl<W: Write> Sealer<W> {
    /// Of a stream that has this key.
    pub(super) fn new(to: W, key: &Key) -> io::Result<Sealer<W>> {
        Ok(Sealer { frames: Frames::new(key)?, to })
    }

    /// Writes a frame of what `fill` puts into the room that it is given; how much that is. Nothing
    /// is no frame.
    ///
    /// # Errors
    /// Those of `fill` and of the stream.
    pub(super) fn fill(
        &mut self,
        kind: u8,
        fill: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let n = fill(&mut self.frames.buf[HEAD..HEAD + CHUNK])?;
        if n > 0 {
            self.write(kind, n)?;
        }
        Ok(n)
    }

    /// Writes a frame.
    ///
    /// # Errors
    /// `InvalidInput` for what is over [`CHUNK`]; those of the stream.
    pub(super) fn put(&mut self, kind: u8, bytes: &[u8]) -> io::Result<()> {
        let room = self.frames.buf[HEAD..HEAD + CHUNK].get_mut(..bytes.len());
        room.ok_or(ErrorKind::InvalidInput)?.copy_from_slice(bytes);
        self.write(kind, bytes.len())
    }

    /// Has all sent.
    ///
    /// # Errors
    /// Those of the stream.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    fn write(&mut self, kind: u8, n: usize) -> io::Result<()> {
        let head = head(kind, n)?;
        let nonce = self.frames.nonce();
        let Frames { key, buf, .. } = &mut self.frames;
        let (content, rest) = buf[HEAD..].split_at_mut(n);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(head), content);
        let tag = tag.map_err(|_| io::Error::other("a frame cannot be sealed"))?;
        rest[..TAG].copy_from_slice(tag.as_ref());
        buf[..HEAD].copy_from_slice(&head);
        self.to.write_all(&buf[..HEAD + n + TAG])
    }
}

/// The reading side.
pub(super) struct Opener<R> {
    frames: Frames,
    from: R,
}

impl<R: Read> Opener<R> {
    /// Of a stream that has this key.
    pub(super) fn new(from: R, key: &Key) -> io::Result<Opener<R>> {
        Ok(Opener { frames: Frames::new(key)?, from })
    }

    /// The next frame: its kind, and what is in it.
    ///
    /// # Errors
    /// `InvalidData` for one that is not as it was sealed, or not the next one; those of the stream,
    /// of which its end is one.
    pub(super) fn next(&mut self) -> io::Result<(u8, &[u8])> {
        let mut head = [0; HEAD];
        self.from.read_exact(&mut head)?;
        let [a, b, c, d, kind] = head;
        let altered = |what: &str| io::Error::new(ErrorKind::InvalidData, what.to_owned());
        let n = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if n > CHUNK {
            return Err(altered("a frame over 1 MiB in an image"));
        }
        let nonce = self.frames.nonce();
        let Frames { key, buf, .. } = &mut self.frames;
        let sealed = &mut buf[..n + TAG];
        self.from.read_exact(sealed)?;
        let opened = key.open_in_place(nonce, Aad::from(head), sealed);
        let opened = opened.map_err(|_| altered("something of an image is not as it was sent"))?;
        Ok((kind, &*opened))
    }
}

fn head(kind: u8, n: usize) -> io::Result<[u8; HEAD]> {
    let n = u32::try_from(n).map_err(|_| ErrorKind::InvalidInput)?;
    let [a, b, c, d] = n.to_le_bytes();
    Ok([a, b, c, d, kind])
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = [7; 32];

    fn stream() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut sealer = Sealer::new(&mut bytes, &KEY).unwrap();
        sealer.put(1, b"first").unwrap();
        sealer.put(2, b"").unwrap();
        let filled = sealer.fill(3, |room| {
            room[..6].copy_from_slice(b"second");
            Ok(6)
        });
        assert_eq!(filled.unwrap(), 6);
        assert_eq!(sealer.fill(3, |_| Ok(0)).unwrap(), 0, "no frame");
        bytes
    }

    fn all(bytes: &[u8]) -> io::Result<Vec<(u8, Vec<u8>)>> {
        let mut opener = Opener::new(bytes, &KEY)?;
        (0..3).map(|_| opener.next().map(|(kind, bytes)| (kind, bytes.to_vec()))).collect()
    }

    #[test]
    fn what_was_sealed_comes_as_it_was() {
        let expected = [(1, b"first".to_vec()), (2, Vec::new()), (3, b"second".to_vec())];
        assert_eq!(all(&stream()).unwrap(), expected);
    }

    #[test]
    fn what_is_altered_torn_or_misplaced_is_refused() {
        // wrong: a program would go on with memory that is not its own
        let whole = stream();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            assert!(all(&bytes).is_err(), "byte {at}");
            assert!(all(&whole[..at]).is_err(), "{at} bytes");
        }
        let first = HEAD + 5 + TAG;
        let (a, rest) = whole.split_at(first);
        assert!(all(&[a, a, rest].concat()).is_err(), "doubled");
        assert!(all(rest).is_err(), "left out");
        let mut other = Opener::new(&whole[..], &[8; 32]).unwrap();
        assert!(other.next().is_err(), "another key");
    }

    #[test]
    fn a_frame_has_a_limit() {
        // wrong: five bytes would make a node reserve 4 GB
        let mut sealer = Sealer::new(Vec::new(), &KEY).unwrap();
        assert!(sealer.put(1, &vec![0; CHUNK + 1]).is_err());
        let mut opener = Opener::new(&[0xff; 64][..], &KEY).unwrap();
        assert_eq!(opener.next().unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
