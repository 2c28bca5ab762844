//! The log's bytes: records of changes, each with a CRC.
//!
//! A file starts with eight bytes of magic. A record is `u32` length of the payload, `u32` CRC-32
//! over that length and the payload, and the payload: the changes of one transaction. Numbers are
//! little endian. Checkpoints consist of the same records, with an end mark.

use std::io::{self, Read};

use crate::mrc::index::Change;

/// First bytes of a log file.
pub const LOG_MAGIC: &[u8; 8] = b"XMRCLOG1";
/// First bytes of a checkpoint file.
pub const CHECKPOINT_MAGIC: &[u8; 8] = b"XMRCCKP1";
/// Longest payload of a record, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 4 << 20;
/// Bytes in front of a payload.
const HEAD_BYTES: usize = 8;

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

/// Appends a record to `buf`.
///
/// # Errors
/// [`TooLong`]; `buf` is unchanged then.
pub fn encode(payload: &Payload, buf: &mut Vec<u8>) -> Result<(), TooLong> {
    let start = buf.len();
    buf.extend_from_slice(&[0; HEAD_BYTES]);
    match payload {
        Payload::Changes(changes) => changes.iter().for_each(|change| put_change(buf, change)),
        Payload::End(count) => {
            buf.push(END);
            buf.extend_from_slice(&count.to_le_bytes());
        }
    }
    let length = buf.len() - start - HEAD_BYTES;
    if length > PAYLOAD_BYTES_MAX {
        buf.truncate(start);
        return Err(TooLong(length));
    }
    let head = (length as u32).to_le_bytes();
    let crc = checksum(head, &buf[start + HEAD_BYTES..]);
    buf[start..start + 4].copy_from_slice(&head);
    buf[start + 4..start + HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

fn checksum(length: [u8; 4], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(payload);
    hasher.finalize()
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
    left: u64,
    good: u64,
}

impl<R: Read> Records<R> {
    /// A reader over a file of `length` bytes; `None` if it does not start with `magic`.
    ///
    /// # Errors
    /// Those of reading.
    pub fn open(mut inner: R, length: u64, magic: &[u8; 8]) -> io::Result<Option<Self>> {
        let mut found = [0; 8];
        if length < 8 {
            return Ok(None);
        }
        inner.read_exact(&mut found)?;
        Ok((found == *magic).then_some(Self { inner, left: length - 8, good: 8 }))
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
        if self.left < HEAD_BYTES as u64 {
            return Ok(None);
        }
        let mut head = [0; HEAD_BYTES];
        self.inner.read_exact(&mut head)?;
        let [l0, l1, l2, l3, crc @ ..] = head;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let whole = (HEAD_BYTES + length) as u64;
        if length == 0 || length > PAYLOAD_BYTES_MAX || whole > self.left {
            return Ok(None);
        }
        let mut payload = vec![0; length];
        self.inner.read_exact(&mut payload)?;
        if checksum([l0, l1, l2, l3], &payload) != u32::from_le_bytes(crc) {
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
            let mut file = LOG_MAGIC.to_vec();
            for changes in &transactions {
                encode(&Payload::Changes(changes.clone()), &mut file).unwrap();
            }
            let place = place.index(file.len());
            if cut { file.truncate(place) } else { file[place] ^= 0x40 }
            let Some(mut records) = Records::open(&file[..], file.len() as u64, LOG_MAGIC).unwrap()
            else { prop_assert!(place < 8); return Ok(()) };
            let mut read = 0;
            while let Some(payload) = records.next_record().unwrap() {
                prop_assert_eq!(payload, Payload::Changes(transactions[read].clone()));
                read += 1;
            }
            prop_assert!(records.good() as usize <= place);
        }
    }
}
