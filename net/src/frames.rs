//! The frames of `xos-node/1`: a length (u32, big endian) and one JSON text.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use xos_base::{Error, NodeId};

/// Longest frame, in bytes.
pub const FRAME_MAX: usize = 8 * 1024 * 1024;
/// Longest first frame of a connection, in bytes.
pub const OPENING_MAX: usize = 4096;

/// The first frame of a connection: what it is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Opening {
    /// A node's control stream.
    Control {},
    /// A node dials back for the stream that `token` names.
    Accept {
        /// From [`xos_api::node::DialBack`].
        token: String,
    },
    /// Somebody wants a stream to a node of this site.
    Dial {
        /// The node.
        node: NodeId,
    },
}

/// The answer to an [`Opening`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Opened {
    /// From here on the connection is what was asked for.
    Ok {},
    /// It is not, and ends.
    Error(Error),
}

/// A frame on a control stream.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Frame {
    /// A request, as HTTP would carry it.
    Call {
        /// Chosen by the sender, unique among its open calls.
        id: u64,
        /// The method.
        method: String,
        /// Path and query.
        target: String,
        /// The JSON body.
        body: Option<Box<RawValue>>,
    },
    /// The reply to a call.
    Reply {
        /// The call's.
        id: u64,
        /// What came back.
        body: Box<RawValue>,
    },
    /// A call failed.
    Failed {
        /// The call's.
        id: u64,
        /// Why.
        error: Error,
    },
    /// Nothing to say; the peer is alive.
    Alive {},
}

/// Reads one frame of at most `max` bytes; `None` at a clean end.
///
/// # Errors
/// [`xos_base::Kind::Unavailable`] when the stream breaks, [`xos_base::Kind::Invalid`] when the
/// frame is malformed or too long.
pub async fn read<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
    max: usize,
) -> Result<Option<T>, Error> {
    let mut head = [0; 4];
    match stream.read_exact(&mut head).await {
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(Error::unavailable(format!("the stream broke: {e}"))),
    }
    let length = u32::from_be_bytes(head) as usize;
    if length > max {
        return Err(Error::invalid(format!("a frame of {length} bytes is over {max}")));
    }
    // Grows with what arrives, not with what the length claims.
    let mut body = Vec::new();
    let got = stream
        .take(length as u64)
        .read_to_end(&mut body)
        .await
        .map_err(|e| Error::unavailable(format!("the stream broke: {e}")))?;
    if got < length {
        return Err(Error::unavailable("the stream ended inside a frame"));
    }
    serde_json::from_slice(&body)
        .map(Some)
        .map_err(|e| Error::invalid(format!("a frame is malformed: {e}")))
}

/// One frame as bytes.
///
/// # Errors
/// [`xos_base::Kind::TooLarge`] when it is over [`FRAME_MAX`].
pub fn encode<T: Serialize>(frame: &T) -> Result<Vec<u8>, Error> {
    let mut out = vec![0; 4];
    serde_json::to_writer(&mut out, frame)
        .map_err(|e| Error::internal(format!("cannot encode a frame: {e}")))?;
    let length = out.len() - 4;
    if length > FRAME_MAX {
        return Err(Error::too_large(format!("a frame of {length} bytes is over {FRAME_MAX}")));
    }
    let length = u32::try_from(length).map_err(|_| Error::too_large("a frame is too long"))?;
    out[..4].copy_from_slice(&length.to_be_bytes());
    Ok(out)
}

/// Writes one frame and flushes.
///
/// # Errors
/// [`xos_base::Kind::Unavailable`] when the stream breaks.
pub async fn write<T: Serialize>(
    stream: &mut (impl AsyncWrite + Unpin),
    frame: &T,
) -> Result<(), Error> {
    let bytes = encode(frame)?;
    let broke = |e: std::io::Error| Error::unavailable(format!("the stream broke: {e}"));
    stream.write_all(&bytes).await.map_err(broke)?;
    stream.flush().await.map_err(broke)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run<T>(f: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(f)
    }

    #[test]
    fn a_claimed_length_is_not_believed() {
        let mut bytes: &[u8] = &[0, 0x7f, 0xff, 0xff, b'{'];
        let got = run(read::<Frame>(&mut bytes, FRAME_MAX));
        assert!(got.is_err());
        let mut bytes: &[u8] = &[0xff, 0xff, 0xff, 0xff];
        assert_eq!(
            run(read::<Frame>(&mut bytes, FRAME_MAX)).unwrap_err().kind,
            xos_base::Kind::Invalid
        );
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let got = run(read::<Frame>(&mut bytes.as_slice(), FRAME_MAX));
            prop_assert!(!matches!(got, Ok(Some(_))));
        }
    }
}
