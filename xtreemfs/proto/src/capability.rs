//! Capabilities: what the MRC lets a client do with one file at the OSDs.
//!
//! A token is 64 bytes of Ed25519 signature followed by the encoded [`Capability`]; the signature
//! covers [`signing_input`], so every field. Clients pass tokens on as they are; signing and
//! verifying belong to the servers.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use crate::layout::Layout;

/// Bytes of the signature at the start of a token.
pub const SIGNATURE_BYTES: usize = 64;
/// Longest token that is accepted, in bytes.
pub const TOKEN_BYTES_MAX: usize = 16 << 10;
/// Longest time a capability is valid, in milliseconds.
pub const VALID_MS_MAX: u64 = 10 * 60 * 1000;
/// Keeps signatures made for other purposes from counting here.
const DOMAIN: &[u8] = b"xtreemfs capability 1\0";

/// Rights on a file's objects, a set of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Access(pub u32);

impl Access {
    /// Read objects.
    pub const READ: Self = Self(1);
    /// Write objects.
    pub const WRITE: Self = Self(2);
    /// Truncate the file.
    pub const TRUNCATE: Self = Self(4);
    /// Delete the objects.
    pub const DELETE: Self = Self(8);

    /// Whether all bits of `other` are in this set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for Access {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Content of a token.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Capability {
    /// Volume id.
    #[prost(string, tag = "1")]
    pub volume: String,
    /// Inode number within the volume; also the file id at the OSDs.
    #[prost(uint64, tag = "2")]
    pub inode: u64,
    /// Bits of [`Access`].
    #[prost(uint32, tag = "3")]
    pub access: u32,
    /// Member number of the person.
    #[prost(uint32, tag = "4")]
    pub member: u32,
    /// Epoch of the person's membership.
    #[prost(uint64, tag = "5")]
    pub epoch: u64,
    /// VO that the member number belongs to.
    #[prost(string, tag = "6")]
    pub vo: String,
    /// When it was made, milliseconds since 1970.
    #[prost(uint64, tag = "7")]
    pub issued_ms: u64,
    /// When it lapses, milliseconds since 1970.
    #[prost(uint64, tag = "8")]
    pub expires_ms: u64,
    /// Number of the file's newest truncation; they grow, and 0 is none.
    #[prost(uint64, tag = "9")]
    pub truncate_epoch: u64,
    /// Id of the only peer that may use it.
    #[prost(string, tag = "10")]
    pub peer: String,
    /// Where the file's objects lie.
    #[prost(message, optional, tag = "11")]
    pub layout: Option<Layout>,
    /// Whether the person had the volume administrator's right when it was made.
    #[prost(bool, tag = "12")]
    pub admin: bool,
    /// Truncations that some OSD may not have made, oldest first: an OSD makes those that it has
    /// not made, and that are not older than the newest that it has, before it does what is asked.
    #[prost(message, repeated, tag = "13")]
    pub owed: Vec<Cut>,
    /// The volume's barrier when it was made: an OSD that knows a higher one refuses it.
    #[prost(uint64, tag = "14")]
    pub barrier: u64,
    /// Directory that the file lay in when it was made.
    #[prost(uint64, tag = "15")]
    pub parent: u64,
}

/// A truncation.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Cut {
    /// Its truncate epoch.
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    /// The file's size after it, in bytes.
    #[prost(uint64, tag = "2")]
    pub size: u64,
}

impl Capability {
    /// Reads a token's content without checking its signature: for clients, which want to know
    /// when it lapses. `None` if it is not a token.
    pub fn peek(token: &[u8]) -> Option<Self> {
        let (_, body) = split(token)?;
        Self::decode(body).ok()
    }

    /// How long it was made to last, in milliseconds. Clients count this from the moment they got
    /// it, so that a difference between clocks does no harm, and renew well before.
    pub fn valid_ms(&self) -> u64 {
        self.expires_ms.saturating_sub(self.issued_ms)
    }
}

/// The bytes that are signed.
pub fn signing_input(body: &[u8]) -> Vec<u8> {
    [DOMAIN, body].concat()
}

/// Joins signature and encoded capability to a token.
pub fn join(signature: &[u8; SIGNATURE_BYTES], body: &[u8]) -> Bytes {
    let mut token = BytesMut::with_capacity(SIGNATURE_BYTES + body.len());
    token.put_slice(signature);
    token.put_slice(body);
    token.freeze()
}

/// Splits a token into signature and encoded capability; `None` if its length is impossible.
pub fn split(token: &[u8]) -> Option<(&[u8; SIGNATURE_BYTES], &[u8])> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    token.split_first_chunk()
}
