//! Ids that become part of keys and paths, checked once.

use std::fmt;
use std::sync::Arc;

/// Longest volume id, in bytes.
pub const VOLUME_ID_BYTES_MAX: usize = 64;

/// Id of a volume: 1 to 64 of `a-z`, `0-9` and `-`, not starting with `-`. Safe as a file name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VolumeId(Arc<str>);

impl VolumeId {
    /// Checks an id; `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=VOLUME_ID_BYTES_MAX).contains(&text.len()) && !text.starts_with('-');
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        (fits && text.bytes().all(plain)).then(|| Self(text.into()))
    }

    /// The id of a new volume, from 16 random bytes.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(format!("{:032x}", u128::from_be_bytes(bytes)).into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Longest name of a VO, in bytes.
pub const VO_NAME_BYTES_MAX: usize = 128;

/// Name of a VO: 1 to 128 of `a-z`, `0-9`, `.`, `_` and `-`, the first a letter or digit. Safe as a
/// file name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VoName(Arc<str>);

impl VoName {
    /// Checks a name; `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let fits = text.len() <= VO_NAME_BYTES_MAX && text.bytes().next().is_some_and(plain);
        let rest = |b: u8| plain(b) || matches!(b, b'.' | b'_' | b'-');
        (fits && text.bytes().all(rest)).then(|| Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A volume id names a directory at the OSD: one that climbs out of it must not parse.
    #[test]
    fn only_plain_names_are_volume_ids() {
        for bad in ["", ".", "..", "a/b", "a.b", "A", "-a", "a\0", "ä", &"a".repeat(65)] {
            assert_eq!(VolumeId::parse(bad), None, "{bad:?}");
        }
        let id = VolumeId::from_random([7; 16]);
        assert_eq!(VolumeId::parse(id.as_str()), Some(id));
    }

    /// A VO's name names the directory of all its objects: one that climbs out of it, or is taken
    /// for the file that says whose objects these are, must not parse.
    #[test]
    fn only_plain_names_are_vo_names() {
        for bad in ["", ".", "..", ".osd-id", "a/b", "A", "-a", "_a", "a\0", "ä", &"a".repeat(129)]
        {
            assert_eq!(VoName::parse(bad), None, "{bad:?}");
        }
        assert_eq!(VoName::parse("demo.rennes").unwrap().as_str(), "demo.rennes");
    }
}
