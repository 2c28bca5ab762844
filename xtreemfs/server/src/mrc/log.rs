//! The log's bytes: records of changes, each with a CRC.
//!
//! A file starts with eight bytes of magic, eight of salt, and the CRC-32 of both. A record is
//! `u32` length of the payload, `u32` CRC-32 over salt, length, place, synced and payload, `u64`
//! place (of the record in the file), `u64` synced, and the payload: the changes of one
//! transaction. `synced` is how much of the file was on the disk when the record was written. The
//! salt keeps names that people give from containing what would pass for a record. Numbers are
//! little endian. Checkpoints consist of the same records, with an end mark.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read};

use crate::mrc::index::Change;

/// First bytes of a log file.
pub const LOG_MAGIC: &[u8; 8] = b"XMRCLOG2";
/// First bytes of a checkpoint file.
pub const CHECKPOINT_MAGIC: &[u8; 8] = b"XMRCCKP2";
/// Longest payload of a record, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 4 << 20;
/// Bytes in front of the records.
pub const HEAD_BYTES: usize = 20;
/// Bytes in front of a payload.
const RECORD_HEAD_BYTES: usize = 24;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const DELETE_PREFIX: u8 = 3;
const END: u8 = 4;

/// What a record holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// One transaction.
    Changes(Vec<Change>),
    /// End of a checkpoint with this many entries.
    End(u64),
}

/// Why a record cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("transaction of {0} bytes is too large for the log")]
pub struct TooLong(usize);

/// The payload of a record.
///
/// # Errors
/// [`TooLong`].
pub fn encode(payload: &Payload) -> Result<Vec<u8>, TooLong> {
    let mut buf = Vec::new();
    match payload {
        Payload::Changes(changes) => {
            changes.iter().for_each(|change| put_change(&mut buf, change));
        }
        Payload::End(count) => {
            buf.push(END);
            buf.extend_from_slice(&count.to_le_bytes());
        }
    }
    if buf.len() > PAYLOAD_BYTES_MAX { Err(TooLong(buf.len())) } else { Ok(buf) }
}

/// The salt of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Salt([u8; 8]);

impl Salt {
    /// A random one.
    pub fn random() -> Self {
        Self(RandomState::new().build_hasher().finish().to_le_bytes())
    }

    /// The first bytes of a file.
    pub fn head(self, magic: &[u8; 8]) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        head[..8].copy_from_slice(magic);
        head[8..16].copy_from_slice(&self.0);
        let crc = crc32fast::hash(&head[..16]);
        head[16..].copy_from_slice(&crc.to_le_bytes());
        head
    }

    /// Appends a record to `buf`, which begins at `start` of the file and is written when all
    /// before `start` is on the disk.
    pub fn frame(self, buf: &mut Vec<u8>, start: u64, payload: &[u8]) {
        // `encode` makes no longer ones.
        let length = (payload.len() as u32).to_le_bytes();
        let place = (start + buf.len() as u64).to_le_bytes();
        let synced = start.to_le_bytes();
        buf.extend_from_slice(&length);
        buf.extend_from_slice(&self.checksum(length, place, synced, payload).to_le_bytes());
        buf.extend_from_slice(&place);
        buf.extend_from_slice(&synced);
        buf.extend_from_slice(payload);
    }

    fn checksum(self, length: [u8; 4], place: [u8; 8], synced: [u8; 8], payload: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.0);
        hasher.update(&length);
        hasher.update(&place);
        hasher.update(&synced);
        hasher.update(payload);
        hasher.finalize()
    }
}

/// The head of a record.
#[derive(Debug, Clone, Copy)]
struct RecordHead {
    length: [u8; 4],
    crc: [u8; 4],
    place: [u8; 8],
    synced: [u8; 8],
}

impl RecordHead {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (length, bytes) = bytes.split_first_chunk()?;
        let (crc, bytes) = bytes.split_first_chunk()?;
        let (place, bytes) = bytes.split_first_chunk()?;
        let (synced, _) = bytes.split_first_chunk()?;
        Some(Self { length: *length, crc: *crc, place: *place, synced: *synced })
    }

    /// Length of the payload, if this can be the record at `place`.
    fn length(&self, place: u64) -> Option<usize> {
        let length = u32::from_le_bytes(self.length) as usize;
        let fits = (1..=PAYLOAD_BYTES_MAX).contains(&length);
        (fits && u64::from_le_bytes(self.place) == place).then_some(length)
    }

    fn is_of(&self, salt: Salt, payload: &[u8]) -> bool {
        let crc = salt.checksum(self.length, self.place, self.synced, payload);
        crc == u32::from_le_bytes(self.crc)
    }
}

/// Looks in `tail`, which begins with a bad record at `start` of the file, for proof that this was
/// on the disk once: a later record that was written after it was synced. Without proof it is the
/// torn end of what was being written.
pub fn proves_synced(tail: &[u8], salt: Salt, start: u64) -> bool {
    (1..tail.len()).any(|skipped| {
        let here = &tail[skipped..];
        // The cheap tests first: this runs at every byte of the tail.
        RecordHead::parse(here).is_some_and(|head| {
            u64::from_le_bytes(head.synced) > start
                && head
                    .length(start + skipped as u64)
                    .and_then(|length| here.get(RECORD_HEAD_BYTES..RECORD_HEAD_BYTES + length))
                    .is_some_and(|payload| head.is_of(salt, payload))
        })
    })
}

fn put_change(buf: &mut Vec<u8>, change: &Change) {
    let (tag, key, value) = match change {
        Change::Put { key, value } => (PUT, key, Some(value)),
        Change::Delete { key } => (DELETE, key, None),
        Change::DeletePrefix { prefix } => (DELETE_PREFIX, prefix, None),
    };
    buf.push(tag);
    for bytes in [Some(key), value].into_iter().flatten() {
        // Longer ones are refused with the whole payload.
        buf.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        buf.extend_from_slice(bytes);
    }
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

fn take_bytes(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let (length, left) = rest.split_first_chunk::<4>()?;
    *rest = left;
    take(rest, u32::from_le_bytes(*length) as usize).map(<[u8]>::to_vec)
}

fn decode(mut rest: &[u8]) -> Option<Payload> {
    let mut changes = Vec::new();
    while let Some((&tag, left)) = rest.split_first() {
        rest = left;
        changes.push(match tag {
            PUT => Change::Put { key: take_bytes(&mut rest)?, value: take_bytes(&mut rest)? },
            DELETE => Change::Delete { key: take_bytes(&mut rest)? },
            DELETE_PREFIX => Change::DeletePrefix { prefix: take_bytes(&mut rest)? },
            END if changes.is_empty() => {
                let count = rest.try_into().ok()?;
                return Some(Payload::End(u64::from_le_bytes(count)));
            }
            _ => return None,
        });
    }
    Some(Payload::Changes(changes))
}

/// Reads the records of a file one by one.
#[derive(Debug)]
pub struct Records<R> {
    inner: R,
    salt: Salt,
    left: u64,
    good: u64,
}

impl<R: Read> Records<R> {
    /// A reader over a file of `length` bytes; `None` if it does not start with a good head.
    ///
    /// # Errors
    /// Those of reading.
    pub fn open(mut inner: R, length: u64, magic: &[u8; 8]) -> io::Result<Option<Self>> {
        let Some(left) = length.checked_sub(HEAD_BYTES as u64) else { return Ok(None) };
        let mut found = [0; HEAD_BYTES];
        inner.read_exact(&mut found)?;
        let [_, _, _, _, _, _, _, _, salt @ .., _, _, _, _] = found;
        let salt = Salt(salt);
        let good = HEAD_BYTES as u64;
        Ok((found == salt.head(magic)).then_some(Self { inner, salt, left, good }))
    }

    /// The file's salt.
    pub fn salt(&self) -> Salt {
        self.salt
    }

    /// End of the last good record, in bytes from the start of the file.
    pub fn good(&self) -> u64 {
        self.good
    }

    /// Bytes of the file after the last good record.
    pub fn rest(&self) -> u64 {
        self.left
    }

    /// The next record; `None` where no good record begins.
    ///
    /// # Errors
    /// Those of reading.
    pub fn next_record(&mut self) -> io::Result<Option<Payload>> {
        if self.left < RECORD_HEAD_BYTES as u64 {
            return Ok(None);
        }
        let mut head = [0; RECORD_HEAD_BYTES];
        self.inner.read_exact(&mut head)?;
        let head = RecordHead::parse(&head);
        let Some((head, length)) = head.and_then(|head| Some((head, head.length(self.good)?)))
        else {
            return Ok(None);
        };
        let whole = (RECORD_HEAD_BYTES + length) as u64;
        if whole > self.left {
            return Ok(None);
        }
        let mut payload = vec![0; length];
        self.inner.read_exact(&mut payload)?;
        if !head.is_of(self.salt, &payload) {
            return Ok(None);
        }
        let Some(payload) = decode(&payload) else { return Ok(None) };
        self.left -= whole;
        self.good += whole;
        Ok(Some(payload))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn change() -> impl Strategy<Value = Change> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
        prop_oneof![
            (bytes(), bytes()).prop_map(|(key, value)| Change::Put { key, value }),
            bytes().prop_map(|key| Change::Delete { key }),
            bytes().prop_map(|prefix| Change::DeletePrefix { prefix }),
        ]
    }

    proptest! {
        /// A log cut or damaged anywhere must give the transactions before that place, whole, and
        /// nothing made up after it.
        #[test]
        fn a_damaged_log_gives_a_true_beginning(
            transactions in proptest::collection::vec(proptest::collection::vec(change(), 1..4), 0..8),
            place in any::<prop::sample::Index>(),
            cut in any::<bool>(),
        ) {
            let salt = Salt([9; 8]);
            let mut file = salt.head(LOG_MAGIC).to_vec();
            for changes in &transactions {
                let payload = encode(&Payload::Changes(changes.clone())).unwrap();
                salt.frame(&mut file, 0, &payload);
            }
            let place = place.index(file.len());
            if cut { file.truncate(place) } else { file[place] ^= 0x40 }
            let Some(mut records) = Records::open(&file[..], file.len() as u64, LOG_MAGIC).unwrap()
            else { prop_assert!(place < HEAD_BYTES); return Ok(()) };
            let mut read = 0;
            while let Some(payload) = records.next_record().unwrap() {
                prop_assert_eq!(payload, Payload::Changes(transactions[read].clone()));
                read += 1;
            }
            prop_assert!(records.good() as usize <= place);
        }
    }

    /// A bad record with a later one behind it was on the disk once: cutting there would lose what
    /// was acknowledged. Of records that were being written together the first may be torn alone.
    #[test]
    fn only_what_was_written_after_a_sync_proves_damage() {
        let salt = Salt([9; 8]);
        let payload = |byte: u8| {
            let change = Change::Delete { key: vec![byte; 20] };
            encode(&Payload::Changes(vec![change])).unwrap()
        };
        let start = HEAD_BYTES as u64;
        let mut together = Vec::new();
        (1..4).for_each(|byte| salt.frame(&mut together, start, &payload(byte)));
        together[RECORD_HEAD_BYTES] ^= 1;
        assert!(!proves_synced(&together, salt, start), "one append, torn");
        let mut later = Vec::new();
        salt.frame(&mut later, start + together.len() as u64, &payload(4));
        let tail = [together, later].concat();
        assert!(proves_synced(&tail, salt, start));
        assert!(!proves_synced(&tail, Salt([8; 8]), start), "another file's records");
        assert!(!proves_synced(&tail[..tail.len() - 1], salt, start), "torn as well");
    }
}
