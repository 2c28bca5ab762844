//! What a ghost and the relay at the other end say, through the agents between them.
//!
//! Each frame is four bytes of length, little endian, one of kind, and a body: for control JSON;
//! for data one byte of stream, one that says whether the stream ends after it, eight of offset,
//! little endian, then the bytes. Both ends say [`Control::Hello`] first.

use super::relay::Offsets;
use crate::cell::proto::Exit;
use serde::{Deserialize, Serialize};
use std::io::{self, ErrorKind};

/// The version of this protocol.
pub const VERSION: u32 = 1;
/// Longest frame, without its length.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of a stream in one frame.
pub const DATA_BYTES_MAX: usize = 32 * 1024;
/// Set in a byte of [`Stream::Signals`] when the kernel sent the signal, hence to the whole process
/// group: a key was pressed, or the terminal hung up.
pub const GROUP_BIT: u8 = 0x80;

const CONTROL: u8 = 0;
const DATA: u8 = 1;
/// Bytes of a data frame's body before the data.
const DATA_HEAD_BYTES: usize = 10;

/// What flows between the two. All are counted in bytes, and none is lost or doubled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Stream {
    /// Standard input, to the tree.
    Input = 0,
    /// Signals to the tree, one byte each: the number, and [`GROUP_BIT`].
    Signals = 1,
    /// Standard output, from the tree; with a terminal all that it shows.
    Output = 2,
    /// Standard error, from the tree.
    Error = 3,
}

const STREAMS: [Stream; 4] = [Stream::Input, Stream::Signals, Stream::Output, Stream::Error];

/// The size of a terminal: characters, and pixels where they are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in each.
    pub columns: u16,
    /// Width in pixels, or 0.
    pub width_px: u16,
    /// Height in pixels, or 0.
    pub height_px: u16,
}

/// All but data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Control {
    /// First on each connection.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// The tree's number.
        tree: u64,
        /// The highest epoch that this end knows.
        epoch: u64,
        /// How much it has of the two streams that flow to it, in their order, bytes.
        received: [u64; 2],
        /// How much of that it passed on; it takes a window's bytes from there.
        passed: [u64; 2],
        /// Which of the two nobody reads any more.
        refused: [bool; 2],
        /// Whether there is a terminal at this end.
        terminal: bool,
        /// Who attaches to a spool; absent at a relay, and at a ghost that its agent started.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ghost: Option<GhostId>,
    },
    /// From who sends the stream: what is before the offset is not to be had any more.
    Begins {
        /// Of which stream.
        stream: Stream,
        /// Where it goes on.
        offset: u64,
    },
    /// So much was passed on; the sender need not keep it.
    Passed {
        /// Of which stream.
        stream: Stream,
        /// Up to which offset.
        offset: u64,
    },
    /// Nobody reads the stream any more.
    Refused {
        /// Which.
        stream: Stream,
    },
    /// From the ghost: its terminal has this size.
    Size(Size),
    /// From the relay: the tree's first process was stopped.
    Stopped {
        /// By which signal.
        signal: i32,
    },
    /// From the relay: the tree is over. The ghost ends when it has passed on all before these
    /// offsets.
    Exit {
        /// How.
        exit: Exit,
        /// Where output and error end.
        ends: [u64; 2],
    },
    /// From the ghost: it ends now.
    ExitTaken,
    /// From an agent: the tree is lost and does not come back.
    Lost {
        /// Why, for the person.
        why: String,
    },
    /// From a spool: another ghost attached, and is the one that is heard. The tree goes on.
    Replaced,
}

/// A ghost that attaches to a tree's spool from elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GhostId {
    /// Chosen by chance: the same on each connection of this ghost, and no other's.
    pub number: u64,
    /// Whether it was attached before: its offsets are the tree's.
    pub again: bool,
    /// Whether it wants only what the tree writes from now on.
    pub late: bool,
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Part of a stream.
    Data {
        /// Which.
        stream: Stream,
        /// Where the first byte lies.
        offset: u64,
        /// Whether the stream ends after it.
        end: bool,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Anything else.
    Control(Control),
}

fn broken(why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

/// Appends a frame.
///
/// # Errors
/// `InvalidData` when it is over [`FRAME_BYTES_MAX`].
pub fn encode(message: &Message, out: &mut Vec<u8>) -> io::Result<()> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    match message {
        Message::Control(control) => {
            out.push(CONTROL);
            serde_json::to_writer(&mut *out, control)?;
        }
        Message::Data { stream, offset, end, bytes } => {
            out.extend_from_slice(&[DATA, *stream as u8, u8::from(*end)]);
            out.extend_from_slice(&offset.to_le_bytes());
            out.extend_from_slice(bytes);
        }
    }
    let len = out.len() - start - 4;
    if len > FRAME_BYTES_MAX {
        out.truncate(start);
        return Err(broken("a frame over 64 KiB"));
    }
    out[start..start + 4].copy_from_slice(&(len as u32).to_le_bytes());
    Ok(())
}

/// The first frame and how many bytes it took, when it is complete.
///
/// # Errors
/// `InvalidData` for a frame over the limit or of another shape; the peer is to be dropped.
pub fn decode(bytes: &[u8]) -> io::Result<Option<(Message, usize)>> {
    let Some((len, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    let len = u32::from_le_bytes(*len) as usize;
    if len > FRAME_BYTES_MAX {
        return Err(broken("a frame over 64 KiB"));
    }
    let Some(body) = rest.get(..len) else { return Ok(None) };
    let message = match body.split_first() {
        Some((&CONTROL, json)) => Message::Control(serde_json::from_slice(json)?),
        Some((&DATA, data)) => data_of(data).ok_or_else(|| broken("a torn data frame"))?,
        _ => return Err(broken("a frame of no known kind")),
    };
    Ok(Some((message, 4 + len)))
}

fn data_of(data: &[u8]) -> Option<Message> {
    let (head, bytes) = data.split_first_chunk::<DATA_HEAD_BYTES>()?;
    let [stream, end, offset @ ..] = head;
    let stream = *STREAMS.get(usize::from(*stream))?;
    let end = match *end {
        0 => false,
        1 => true,
        _ => return None,
    };
    let offset = u64::from_le_bytes(*offset);
    // No stream is longer than numbers reach, so that sums of offsets are safe.
    offset.checked_add(FRAME_BYTES_MAX as u64)?;
    Some(Message::Data { stream, offset, end, bytes: bytes.to_vec() })
}

/// From the owner of a relay to the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Steer {
    /// The tree's first process ended.
    Exited {
        /// How.
        exit: Exit,
    },
    /// It lives: what is closed it closed itself. Answers [`Steered::Closed`].
    Lives,
    /// It was stopped.
    Stopped {
        /// By which signal.
        signal: i32,
    },
    /// Nothing more is written for now: answered by [`Steered::Read`], then [`Steered::Taken`]. The
    /// one before it is given up.
    Drain {
        /// Chosen by the owner.
        number: u64,
    },
}

/// From a relay to its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Steered {
    /// Signal the tree's first process.
    Signal {
        /// The signal's number.
        signal: i32,
        /// Its whole process group instead.
        group: bool,
    },
    /// The tree's output, or its error output, is closed. Whether it did that itself, or was killed,
    /// the owner knows.
    Closed,
    /// All that the tree had written was read.
    Read {
        /// Which question this answers.
        number: u64,
        /// How far the streams are.
        offsets: Offsets,
    },
    /// The ghost has all of that.
    Taken {
        /// Which question this answers.
        number: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn frames_come_back_as_they_were() {
        // wrong: the other end would write other bytes, or at another place
        let all = [
            Message::Data { stream: Stream::Error, offset: 1 << 40, end: true, bytes: vec![0; 99] },
            Message::Data { stream: Stream::Input, offset: 0, end: false, bytes: vec![] },
            Message::Control(Control::Exit { exit: Exit::Signal(9), ends: [3, 4] }),
            Message::Control(Control::ExitTaken),
            Message::Control(Control::Replaced),
            Message::Control(Control::Begins { stream: Stream::Output, offset: 9 }),
        ];
        let mut bytes = Vec::new();
        all.iter().for_each(|m| encode(m, &mut bytes).unwrap());
        let mut rest = &bytes[..];
        for message in &all {
            assert_eq!(decode(&rest[..rest.len().min(8)]).unwrap(), None);
            let (got, n) = decode(rest).unwrap().unwrap();
            assert_eq!(got, *message);
            rest = &rest[n..];
        }
        assert!(rest.is_empty());
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            // wrong: a broken agent would bring down every ghost of its node
            let mut framed = (bytes.len() as u32).to_le_bytes().to_vec();
            framed.extend_from_slice(&bytes);
            for input in [&bytes, &framed] {
                if let Ok(Some((_, n))) = decode(input) {
                    prop_assert!(n <= input.len());
                }
            }
        }
    }
}
