//! The frame that both file formats share: magic, version, little-endian fields, CRC-32 at the end.

/// Why a file is not what it claims to be. The person must supply another file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The first eight bytes are those of another kind of file.
    #[error("it does not begin with the mark of such a file")]
    Magic,
    /// Written by another version of the program.
    #[error("it has format version {found}, this program reads version {known}")]
    Version {
        /// The version in the file.
        found: u32,
        /// The version that this program reads.
        known: u32,
    },
    /// The file's length does not fit its header.
    #[error("it is {found} bytes long where its header asks for {expected}: cut short or padded")]
    Length {
        /// Bytes in the file.
        found: u64,
        /// Bytes that the header asks for, or the least length of such a file.
        expected: u64,
    },
    /// The file is larger than any valid one.
    #[error("it is larger than {limit} bytes, the most such a file can have")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The check sum differs.
    #[error("its check sum is wrong: the file was damaged, write or copy it again")]
    Checksum,
    /// A field holds a value that the format does not allow.
    #[error("the field `{field}` holds {found}, allowed is {allowed}")]
    Field {
        /// Name of the field as in the README.
        field: &'static str,
        /// What stands there.
        found: String,
        /// What may stand there.
        allowed: &'static str,
    },
}

impl Fault {
    /// A [`Fault::Field`] from any printable value.
    pub fn field(field: &'static str, found: impl ToString, allowed: &'static str) -> Self {
        Fault::Field { field, found: found.to_string(), allowed }
    }
}

const CRC_BYTES: usize = 4;

/// FNV-1a, 64 bits: tells one phantom from another. It shows a mix-up, it does not stop malice.
pub fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Builds a file in memory.
#[derive(Debug)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// Begins with the magic and the version.
    pub fn new(magic: &[u8; 8], version: u32) -> Self {
        let mut bytes = magic.to_vec();
        bytes.extend_from_slice(&version.to_le_bytes());
        Writer(bytes)
    }

    /// Appends a `u32`.
    pub fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Appends a `u64`.
    pub fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Appends an `f32`.
    pub fn f32(&mut self, value: f32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Appends the check sum over everything before and returns the file.
    pub fn finish(mut self) -> Vec<u8> {
        let crc = crc32fast::hash(&self.0);
        self.u32(crc);
        self.0
    }
}

/// Reads a file from memory; every read is checked against the end.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    total: usize,
    /// Set when a read went past the end; the values since then are zero.
    short: bool,
}

impl<'a> Reader<'a> {
    /// Checks magic, version and check sum, in this order, so that the error names the likely
    /// cause.
    ///
    /// # Errors
    /// [`Fault::Magic`], [`Fault::Length`], [`Fault::Version`] or [`Fault::Checksum`].
    pub fn open(bytes: &'a [u8], magic: &[u8; 8], version: u32) -> Result<Self, Fault> {
        if bytes.get(..magic.len()) != Some(magic.as_slice()) {
            return Err(Fault::Magic);
        }
        let least = magic.len() + 4 + CRC_BYTES;
        let short = || Fault::Length { found: bytes.len() as u64, expected: least as u64 };
        let split = bytes.len().checked_sub(CRC_BYTES).ok_or_else(short)?;
        let (body, crc) = bytes.split_at(split);
        let mut reader = Reader {
            rest: body.get(magic.len()..).ok_or_else(short)?,
            total: bytes.len(),
            short: false,
        };
        let found = reader.u32();
        if reader.short {
            return Err(short());
        }
        if found != version {
            return Err(Fault::Version { found, known: version });
        }
        if crc32fast::hash(body).to_le_bytes() != crc {
            return Err(Fault::Checksum);
        }
        Ok(reader)
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.rest.split_first_chunk::<N>() {
            Some((head, rest)) => {
                self.rest = rest;
                *head
            }
            None => {
                self.rest = &[];
                self.short = true;
                [0; N]
            }
        }
    }

    /// The next `u32`; 0 past the end, which [`Reader::body`] reports.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    /// The next `u64`; 0 past the end, which [`Reader::body`] reports.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    /// The next `f32`; 0 past the end, which [`Reader::body`] reports.
    pub fn f32(&mut self) -> f32 {
        f32::from_le_bytes(self.take())
    }

    /// The rest as 4-byte words, which must be exactly `words` many.
    ///
    /// # Errors
    /// [`Fault::Length`] when the rest is longer or shorter, or an earlier read was past the end.
    pub fn body(&self, words: usize) -> Result<&'a [[u8; 4]], Fault> {
        let (chunks, odd) = self.rest.as_chunks::<4>();
        if self.short || chunks.len() != words || !odd.is_empty() {
            let header = self.total - self.rest.len() - CRC_BYTES;
            let expected = (header + CRC_BYTES) as u64 + words as u64 * 4;
            return Err(Fault::Length { found: self.total as u64, expected });
        }
        Ok(chunks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digest is part of the histogram format: another function would refuse old files.
    #[test]
    fn digest_is_fnv1a() {
        assert_eq!(digest(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(digest(b"a"), 0xaf63_dc4c_8601_ec8c);
    }

    /// The order of checks decides what the person is told.
    #[test]
    fn faults_name_the_cause() {
        let open = |bytes: &[u8]| Reader::open(bytes, b"12345678", 1).map(|_| ());
        let good = {
            let mut writer = Writer::new(b"12345678", 1);
            writer.u32(5);
            writer.finish()
        };
        assert_eq!(open(&good), Ok(()));
        assert_eq!(open(b""), Err(Fault::Magic));
        assert_eq!(open(b"12345678"), Err(Fault::Length { found: 8, expected: 16 }));
        assert_eq!(
            open(&Writer::new(b"12345678", 2).finish()),
            Err(Fault::Version { found: 2, known: 1 })
        );
        let mut bad = good.clone();
        bad[13] ^= 1;
        assert_eq!(open(&bad), Err(Fault::Checksum));
        let mut reader = Reader::open(&good, b"12345678", 1).unwrap();
        assert_eq!(reader.u32(), 5);
        assert_eq!(reader.body(1), Err(Fault::Length { found: 20, expected: 24 }));
        assert_eq!(reader.body(0).unwrap().len(), 0);
        assert_eq!(reader.u64(), 0);
        assert!(reader.body(0).is_err());
    }
}
