//! Records: how a call or an answer lies on a stream.
//!
//! Twelve bytes of marker (three big-endian `u32`: length of header, message and data), then the
//! three parts. Every length has a limit that is checked before memory is set aside for it, and
//! memory for the data tail grows with the bytes that arrive, not with the length that was claimed.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::rpc::RpcHeader;

/// Bytes of the marker that starts each record.
pub const MARKER_BYTES: usize = 12;
/// Longest encoded [`RpcHeader`] that is accepted, in bytes.
pub const HEADER_BYTES_MAX: usize = 64 << 10;
/// Longest message that is accepted, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Longest data tail that is accepted, in bytes.
pub const DATA_BYTES_MAX: usize = 8 << 20;
/// Memory set aside for a data tail before its bytes have arrived, in bytes.
const DATA_START_BYTES: usize = 1 << 20;
/// Free room kept in the receive buffer for markers, headers and small messages, in bytes.
const READ_CHUNK_BYTES: usize = 16 << 10;
/// A data tail up to this size is copied next to its header, which saves a separate write.
const COPY_BYTES_MAX: usize = 4 << 10;

/// Why a record could not be read or written. After any of these the stream is unusable.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The peer broke the framing: it must be mended, the stream must be closed.
    #[error("record with a {part} of {length} bytes refused: the limit is {limit}")]
    TooLong {
        /// `header`, `message` or `data`.
        part: &'static str,
        /// The length that was claimed.
        length: usize,
        /// The longest one accepted.
        limit: usize,
    },
    /// The peer sent a record without header.
    #[error("record without header refused")]
    NoHeader,
    /// The header is not an `RPCHeader`.
    #[error("record header refused: {0}")]
    BadHeader(#[source] prost::DecodeError),
    /// The stream ended inside a record.
    #[error("stream ended inside a record")]
    Truncated,
    /// The stream failed.
    #[error("stream failed: {0}")]
    Io(#[from] std::io::Error),
}

/// The three lengths of a record, within their limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    /// Bytes of the encoded [`RpcHeader`]; at least 1.
    pub header: usize,
    /// Bytes of the message.
    pub message: usize,
    /// Bytes of the data tail.
    pub data: usize,
}

impl Marker {
    /// Checks the three lengths.
    ///
    /// # Errors
    /// [`RecordError::TooLong`] or [`RecordError::NoHeader`].
    pub fn new(header: usize, message: usize, data: usize) -> Result<Self, RecordError> {
        let check = |part, length, limit| {
            if length > limit {
                return Err(RecordError::TooLong { part, length, limit });
            }
            Ok(())
        };
        check("header", header, HEADER_BYTES_MAX)?;
        check("message", message, MESSAGE_BYTES_MAX)?;
        check("data", data, DATA_BYTES_MAX)?;
        if header == 0 {
            return Err(RecordError::NoHeader);
        }
        Ok(Self { header, message, data })
    }

    /// Parses the first twelve bytes of a record.
    ///
    /// # Errors
    /// [`RecordError::TooLong`] or [`RecordError::NoHeader`].
    pub fn parse(bytes: &[u8; MARKER_BYTES]) -> Result<Self, RecordError> {
        let mut buf = &bytes[..];
        let (header, message, data) = (buf.get_u32(), buf.get_u32(), buf.get_u32());
        Self::new(header as usize, message as usize, data as usize)
    }

    /// Bytes of the three parts together.
    pub fn bytes(self) -> usize {
        self.header + self.message + self.data
    }

    /// Checks the data tail against what a service takes, before any of it is read.
    ///
    /// # Errors
    /// [`RecordError::TooLong`].
    pub fn check_data(self, limit: usize) -> Result<(), RecordError> {
        if self.data > limit {
            return Err(RecordError::TooLong { part: "data", length: self.data, limit });
        }
        Ok(())
    }

    /// Appends the marker. The lengths fit because of their limits.
    fn put(self, buf: &mut BytesMut) {
        buf.put_u32(self.header as u32);
        buf.put_u32(self.message as u32);
        buf.put_u32(self.data as u32);
    }
}

/// One record, its header decoded, its message not yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Who calls what, or what became of the call.
    pub header: RpcHeader,
    /// The encoded request or reply.
    pub message: Bytes,
    /// Raw file data.
    pub data: Bytes,
}

impl Record {
    /// Appends marker, header and message to `buf`; the data tail is to be written after it.
    ///
    /// # Errors
    /// [`RecordError::TooLong`]; `buf` is unchanged then.
    pub fn encode_head(&self, buf: &mut BytesMut) -> Result<(), RecordError> {
        let header = self.header.encoded_len();
        let marker = Marker::new(header, self.message.len(), self.data.len())?;
        buf.reserve(MARKER_BYTES + header + self.message.len());
        marker.put(buf);
        self.header.encode_raw(buf);
        buf.extend_from_slice(&self.message);
        Ok(())
    }

    /// The whole record as one run of bytes (for tests and datagrams).
    ///
    /// # Errors
    /// [`RecordError::TooLong`].
    pub fn to_bytes(&self) -> Result<Bytes, RecordError> {
        let mut buf = BytesMut::new();
        self.encode_head(&mut buf)?;
        buf.extend_from_slice(&self.data);
        Ok(buf.freeze())
    }

    /// Takes one record from the front of `buf`; `None` if it is not complete yet.
    ///
    /// # Errors
    /// [`RecordError::TooLong`], [`RecordError::NoHeader`] or [`RecordError::BadHeader`].
    pub fn decode(buf: &mut BytesMut) -> Result<Option<Self>, RecordError> {
        let Some(marker) = buf.first_chunk::<MARKER_BYTES>() else { return Ok(None) };
        let marker = Marker::parse(marker)?;
        if buf.len() < MARKER_BYTES + marker.header + marker.message + marker.data {
            return Ok(None);
        }
        buf.advance(MARKER_BYTES);
        let (header, message) = take_head(buf, marker)?;
        let data = buf.split_to(marker.data).freeze();
        Ok(Some(Self { header, message, data }))
    }
}

/// Takes header and message, which must be there, from `buf`.
fn take_head(buf: &mut BytesMut, marker: Marker) -> Result<(RpcHeader, Bytes), RecordError> {
    let header = buf.split_to(marker.header).freeze();
    let message = buf.split_to(marker.message).freeze();
    Ok((RpcHeader::decode(header).map_err(RecordError::BadHeader)?, message))
}

/// Reads records from a stream. Not safe to cancel inside [`RecordReader::read`].
#[derive(Debug)]
pub struct RecordReader<R> {
    inner: R,
    buf: BytesMut,
    stall: Option<Duration>,
}

impl<R: AsyncRead + Unpin> RecordReader<R> {
    /// A reader over `inner`.
    pub fn new(inner: R) -> Self {
        Self { inner, buf: BytesMut::new(), stall: None }
    }

    /// One that takes a peer for gone which stops for so long inside a record.
    pub fn with_stall(self, stall: Duration) -> Self {
        Self { stall: Some(stall), ..self }
    }

    /// Waits until the next record has begun; `false` if the stream ended between records.
    /// May be cancelled.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub async fn begun(&mut self) -> Result<bool, RecordError> {
        if !self.buf.is_empty() {
            return Ok(true);
        }
        self.buf.reserve(READ_CHUNK_BYTES);
        Ok(self.inner.read_buf(&mut self.buf).await? > 0)
    }

    /// The next record; `None` if the stream ended between records.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub async fn read(&mut self) -> Result<Option<Record>, RecordError> {
        match self.marker().await? {
            Some(marker) => self.rest(marker).await.map(Some),
            None => Ok(None),
        }
    }

    /// The lengths of the next record, before the rest of it is waited for; `None` if the stream
    /// ended between records. What follows it is [`RecordReader::rest`].
    ///
    /// # Errors
    /// See [`RecordError`].
    pub async fn marker(&mut self) -> Result<Option<Marker>, RecordError> {
        if !self.begun().await? {
            return Ok(None);
        }
        self.fill(MARKER_BYTES).await?;
        let Some(marker) = self.buf.first_chunk::<MARKER_BYTES>() else {
            return Err(RecordError::Truncated);
        };
        let marker = Marker::parse(marker)?;
        self.buf.advance(MARKER_BYTES);
        Ok(Some(marker))
    }

    /// The record that `marker`, which was read just before, begins.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub async fn rest(&mut self, marker: Marker) -> Result<Record, RecordError> {
        self.fill(marker.header + marker.message).await?;
        let (header, message) = take_head(&mut self.buf, marker)?;
        let data = self.data(marker.data).await?;
        Ok(Record { header, message, data })
    }

    /// Makes the buffer hold at least `want` bytes.
    async fn fill(&mut self, want: usize) -> Result<(), RecordError> {
        while self.buf.len() < want {
            self.buf.reserve(READ_CHUNK_BYTES);
            more(&mut self.inner, &mut self.buf, self.stall).await?;
        }
        Ok(())
    }

    /// The data tail, read past the buffer straight into memory of its own.
    async fn data(&mut self, length: usize) -> Result<Bytes, RecordError> {
        if self.buf.len() >= length {
            return Ok(self.buf.split_to(length).freeze());
        }
        let mut data = BytesMut::with_capacity(room(0, length));
        data.extend_from_slice(&self.buf.split());
        while data.len() < length {
            if data.len() == data.capacity() {
                data.reserve(room(data.len(), length) - data.len());
            }
            let rest = length - data.len();
            more(&mut self.inner, &mut (&mut data).limit(rest), self.stall).await?;
        }
        Ok(data.freeze())
    }
}

/// Reads some bytes inside a record; a peer that sends none for so long is not waited for.
async fn more<R, B>(inner: &mut R, buf: &mut B, stall: Option<Duration>) -> Result<(), RecordError>
where
    R: AsyncRead + Unpin,
    B: BufMut,
{
    let reading = inner.read_buf(buf);
    let read = match stall {
        Some(stall) => tokio::time::timeout(stall, reading)
            .await
            .map_err(|_| RecordError::Io(std::io::ErrorKind::TimedOut.into()))??,
        None => reading.await?,
    };
    if read == 0 { Err(RecordError::Truncated) } else { Ok(()) }
}

/// How much memory a data tail of `claimed` bytes gets when `have` have arrived: at most twice
/// that, beyond a start.
fn room(have: usize, claimed: usize) -> usize {
    claimed.min((2 * have).max(DATA_START_BYTES))
}

/// Writes records to a stream, several in one write where they are small.
#[derive(Debug)]
pub struct RecordWriter<W> {
    inner: W,
    buf: BytesMut,
}

impl<W: AsyncWrite + Unpin> RecordWriter<W> {
    /// A writer over `inner`.
    pub fn new(inner: W) -> Self {
        Self { inner, buf: BytesMut::new() }
    }

    /// Takes a record; it is on its way only after [`RecordWriter::flush`].
    ///
    /// # Errors
    /// [`RecordError::TooLong`] (the stream is still usable) or [`RecordError::Io`].
    pub async fn feed(&mut self, record: &Record) -> Result<(), RecordError> {
        record.encode_head(&mut self.buf)?;
        if record.data.len() <= COPY_BYTES_MAX {
            self.buf.extend_from_slice(&record.data);
        } else {
            let mut both = self.buf.split().chain(record.data.clone());
            self.inner.write_all_buf(&mut both).await?;
        }
        if self.buf.len() >= READ_CHUNK_BYTES {
            self.inner.write_all_buf(&mut self.buf.split()).await?;
        }
        Ok(())
    }

    /// Sends what was fed.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub async fn flush(&mut self) -> Result<(), RecordError> {
        self.inner.write_all_buf(&mut self.buf.split()).await?;
        Ok(self.inner.flush().await?)
    }

    /// Sends what was fed and ends this direction of the stream.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub async fn shutdown(&mut self) -> Result<(), RecordError> {
        self.flush().await?;
        Ok(self.inner.shutdown().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that claims eight megabytes and sends none must not get eight megabytes of memory.
    #[test]
    fn memory_follows_what_arrived() {
        assert_eq!(room(0, DATA_BYTES_MAX), DATA_START_BYTES);
        assert_eq!(room(DATA_START_BYTES, DATA_BYTES_MAX), 2 * DATA_START_BYTES);
        assert_eq!(room(0, 10), 10);
        let mut have = 0;
        while have < DATA_BYTES_MAX {
            assert!(room(have, DATA_BYTES_MAX) > have, "reading would not go on");
            have = room(have, DATA_BYTES_MAX);
        }
    }

    /// Each length has its own limit, and the whole stays below the original's 32 MiB.
    #[test]
    fn lengths_are_limited() {
        let most = Marker::new(HEADER_BYTES_MAX, MESSAGE_BYTES_MAX, DATA_BYTES_MAX).unwrap();
        assert!(MARKER_BYTES + most.header + most.message + most.data < 32 << 20);
        for (header, message, data) in [
            (HEADER_BYTES_MAX + 1, 0, 0),
            (1, MESSAGE_BYTES_MAX + 1, 0),
            (1, 0, DATA_BYTES_MAX + 1),
            (0, 0, 0),
        ] {
            assert!(Marker::new(header, message, data).is_err(), "{header} {message} {data}");
        }
    }
}
