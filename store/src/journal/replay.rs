//! Reading back what was journalled.

use std::{
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    path::PathBuf,
    vec,
};

use bytes::Bytes;

use super::{
    JournalError, RECORD_BYTES_MAX, Seq,
    format::{self, RECORD_HEAD, SEGMENT_HEAD, SegmentHead},
};

/// One journalled record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place.
    pub seq: Seq,
    /// What was appended.
    pub bytes: Bytes,
}

/// The newest snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The last record whose effect it contains.
    pub upto: Seq,
    /// What was stored.
    pub state: Bytes,
}

/// What a journal held when it was opened: first take the snapshot, then iterate over the records
/// after it. Reading blocks.
#[derive(Debug)]
pub struct Replay {
    parts: vec::IntoIter<Part>,
    current: Option<Reading>,
    upto: Seq,
    snapshot: Option<Snapshot>,
}

/// A checked segment.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) path: PathBuf,
    pub(super) head: SegmentHead,
    pub(super) len: u64,
}

#[derive(Debug)]
struct Reading {
    part: Part,
    file: BufReader<File>,
    at: u64,
}

impl Replay {
    pub(super) fn new(parts: Vec<Part>, upto: Seq, snapshot: Option<Snapshot>) -> Self {
        Self { parts: parts.into_iter(), current: None, upto, snapshot }
    }

    /// The newest snapshot, once.
    pub fn take_snapshot(&mut self) -> Option<Snapshot> {
        self.snapshot.take()
    }
}

impl Iterator for Replay {
    type Item = Result<Record, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(reading) = &mut self.current
                && reading.at < reading.part.len
            {
                match reading.record() {
                    Ok(record) if record.seq <= self.upto => continue,
                    Ok(record) => return Some(Ok(record)),
                    Err(error) => {
                        self.stop();
                        return Some(Err(error));
                    }
                }
            }
            match Reading::open(self.parts.next()?) {
                Ok(reading) => self.current = Some(reading),
                Err(error) => {
                    self.stop();
                    return Some(Err(error));
                }
            }
        }
    }
}

impl Replay {
    /// After an error nothing more comes: what follows would be without what it builds on.
    fn stop(&mut self) {
        self.current = None;
        self.parts = Vec::new().into_iter();
    }
}

impl Reading {
    fn open(part: Part) -> Result<Self, JournalError> {
        let io = |source| JournalError::io(&part.path, source);
        let mut file = File::open(&part.path).map_err(io)?;
        file.seek(SeekFrom::Start(SEGMENT_HEAD as u64)).map_err(io)?;
        Ok(Self { part, file: BufReader::new(file), at: SEGMENT_HEAD as u64 })
    }

    fn record(&mut self) -> Result<Record, JournalError> {
        let io = |source| JournalError::io(&self.part.path, source);
        let mut bytes = vec![0; RECORD_HEAD];
        self.file.read_exact(&mut bytes).map_err(io)?;
        let len = format::u32_at(&bytes, 0).and_then(|len| usize::try_from(len).ok());
        let len = len.unwrap_or(usize::MAX).min(RECORD_BYTES_MAX);
        bytes.resize(RECORD_HEAD + len, 0);
        self.file.read_exact(&mut bytes[RECORD_HEAD..]).map_err(io)?;
        let Some(found) = format::record_at(&bytes, self.part.head.salt) else {
            return Err(JournalError::Corrupt {
                segment: self.part.path.clone(),
                offset: self.at,
                detail: "a record changed after the journal was opened".into(),
            });
        };
        let seq = found.seq;
        self.at += found.len() as u64;
        Ok(Record { seq, bytes: Bytes::from(bytes).slice(RECORD_HEAD..) })
    }
}
