//! What a program asks a mounted volume by an ioctl on an open file or folder.
//!
//! Both ways a buffer of [`BUFFER_BYTES`] travels: two bytes of length, little endian, then the
//! message.

use prost::Message;

use crate::mrc::{ExplainReply, FolderReply, Pin, Way};

/// Bytes of the buffer.
pub const BUFFER_BYTES: usize = 8192;
/// Number of the ioctl: reads and writes a buffer, type 0xf7, number 1 (`_IOWR`).
pub const COMMAND: u32 = (3 << 30) | ((BUFFER_BYTES as u32) << 16) | (0xf7 << 8) | 1;
/// Bytes in front of the message.
const LENGTH_BYTES: usize = 2;

/// What is asked. With nothing set: only shown.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ControlRequest {
    /// Close the folder, or open it.
    #[prost(bool, optional, tag = "1")]
    pub closed: Option<bool>,
    /// Pin the folder.
    #[prost(message, optional, tag = "2")]
    pub pin: Option<Pin>,
    /// Say why the person may use what lies on this way from the folder on, or may not. Then
    /// nothing else is looked at.
    #[prost(message, optional, tag = "3")]
    pub explain: Option<Way>,
}

/// The answer.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ControlReply {
    /// Linux error number; 0: done.
    #[prost(int32, tag = "1")]
    pub errno: i32,
    /// Why not.
    #[prost(string, tag = "2")]
    pub message: String,
    /// How it is now, unless it was refused. Members are local uids in it.
    #[prost(message, optional, tag = "3")]
    pub folder: Option<FolderReply>,
    /// Why, when that was asked. Members and groups are local ids in it.
    #[prost(message, optional, tag = "4")]
    pub explained: Option<ExplainReply>,
}

/// The buffer that holds a message; `None` if it is too long.
pub fn pack(message: &impl Message) -> Option<Vec<u8>> {
    let length = message.encoded_len();
    if LENGTH_BYTES + length > BUFFER_BYTES {
        return None;
    }
    let mut buffer = u16::try_from(length).ok()?.to_le_bytes().to_vec();
    message.encode(&mut buffer).ok()?;
    buffer.resize(BUFFER_BYTES, 0);
    Some(buffer)
}

/// The message in a buffer; `None` if there is none.
pub fn unpack<T: Message + Default>(buffer: &[u8]) -> Option<T> {
    let (length, rest) = buffer.split_first_chunk::<LENGTH_BYTES>()?;
    let message = rest.get(..usize::from(u16::from_le_bytes(*length)))?;
    T::decode(message).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, the tool and the mount would not understand one another, or a length that lies
    /// would be read past the end.
    #[test]
    fn a_message_comes_out_as_it_went_in() {
        let request = ControlRequest { closed: Some(true), ..ControlRequest::default() };
        let buffer = pack(&request).unwrap();
        assert_eq!(buffer.len(), BUFFER_BYTES);
        assert_eq!(unpack::<ControlRequest>(&buffer), Some(request));
        let long = ControlReply { message: "x".repeat(BUFFER_BYTES), ..ControlReply::default() };
        assert_eq!(pack(&long), None);
        assert_eq!(unpack::<ControlRequest>(&[0xff, 0xff, 0]), None);
        assert_eq!(unpack::<ControlRequest>(&[0]), None);
    }
}
