//! Keys and prefixes: what every engine, however odd its alphabet, can store and order alike.

use std::{borrow::Borrow, fmt, str::FromStr};

use thiserror::Error;

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 512;

/// The name of one registry entry: segments of visible ASCII joined by `/`, at most
/// [`KEY_BYTES_MAX`] bytes, no segment empty. Ordered by bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

/// The entries strictly below a path of whole segments: `vo/demo` covers `vo/demo/x` but neither
/// `vo/demo` itself nor `vo/demo2`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Prefix(String);

/// Why a text or a list of segments is no [`Key`] or [`Prefix`]. The caller must change it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyError {
    /// No segment, an empty one, or a `/` at an end.
    #[error("registry key {key:?} has an empty segment; name every part between the slashes")]
    EmptySegment {
        /// The offending key, as far as it was built.
        key: String,
    },
    /// Longer than [`KEY_BYTES_MAX`].
    #[error("registry key of {bytes} bytes is too long; at most {KEY_BYTES_MAX} are stored")]
    TooLong {
        /// Its length once encoded.
        bytes: usize,
    },
    /// A byte outside visible ASCII.
    #[error(
        "registry key {key:?} holds byte {byte:#04x}; build it from segments, which encodes it"
    )]
    BadByte {
        /// The offending key.
        key: String,
        /// The first bad byte.
        byte: u8,
    },
    /// A `%` that is not followed by two hexadecimal digits.
    #[error("registry key segment {segment:?} has a broken % escape; it was not built by XOS")]
    BadEscape {
        /// The offending segment.
        segment: String,
    },
}

impl Key {
    /// Joins segments of any bytes; what is not `[A-Za-z0-9._~@:+=,-]` becomes `%XX`.
    pub fn of<S: AsRef<[u8]>>(segments: impl IntoIterator<Item = S>) -> Result<Self, KeyError> {
        let mut key = String::new();
        for segment in segments {
            if !key.is_empty() {
                key.push('/');
            }
            push_encoded(&mut key, segment.as_ref())?;
        }
        key.parse()
    }

    /// The key as stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The segments as stored, still encoded.
    pub fn raw_segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// The segments as they were given to [`Key::of`].
    pub fn segments(&self) -> Result<Vec<Vec<u8>>, KeyError> {
        self.raw_segments().map(decode).collect()
    }

    /// The last segment as it was given to [`Key::of`].
    pub fn last_segment(&self) -> Result<Vec<u8>, KeyError> {
        decode(self.0.rsplit('/').next().unwrap_or_default())
    }
}

impl Prefix {
    /// Every key.
    pub fn all() -> Self {
        Self(String::new())
    }

    /// The keys below these segments, encoded as in [`Key::of`].
    pub fn of<S: AsRef<[u8]>>(segments: impl IntoIterator<Item = S>) -> Result<Self, KeyError> {
        Ok(Self::below(&Key::of(segments)?))
    }

    /// The keys below `key`, which itself is not among them.
    pub fn below(key: &Key) -> Self {
        Self(format!("{key}/"))
    }

    /// Whether `key` is below this prefix.
    pub fn covers(&self, key: &Key) -> bool {
        key.0.starts_with(&self.0)
    }

    /// The text that every covered key starts with: empty, or ending in `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        if text.len() > KEY_BYTES_MAX {
            return Err(KeyError::TooLong { bytes: text.len() });
        }
        if let Some(byte) = text.bytes().find(|b| !b.is_ascii_graphic()) {
            return Err(KeyError::BadByte { key: text.to_owned(), byte });
        }
        if text.split('/').any(str::is_empty) {
            return Err(KeyError::EmptySegment { key: text.to_owned() });
        }
        Ok(Self(text.to_owned()))
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}*", self.0)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prefix({}*)", self.0)
    }
}

fn push_encoded(key: &mut String, segment: &[u8]) -> Result<(), KeyError> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    if segment.is_empty() {
        return Err(KeyError::EmptySegment { key: key.clone() });
    }
    if key.len() + segment.len() > KEY_BYTES_MAX {
        return Err(KeyError::TooLong { bytes: key.len() + segment.len() });
    }
    for &byte in segment {
        if byte.is_ascii_alphanumeric() || b"._~@:+=,-".contains(&byte) {
            key.push(char::from(byte));
        } else {
            key.push('%');
            key.push(char::from(HEX[usize::from(byte >> 4)]));
            key.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    Ok(())
}

fn decode(segment: &str) -> Result<Vec<u8>, KeyError> {
    let broken = || KeyError::BadEscape { segment: segment.to_owned() };
    let nibble = |b: Option<u8>| {
        b.and_then(|b| char::from(b).to_digit(16)).and_then(|d| u8::try_from(d).ok())
    };
    let mut bytes = segment.bytes();
    let mut out = Vec::with_capacity(segment.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let high = nibble(bytes.next()).ok_or_else(broken)?;
        let low = nibble(bytes.next()).ok_or_else(broken)?;
        out.push(high << 4 | low);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_what_some_engine_could_not_store() {
        let long = "a".repeat(KEY_BYTES_MAX + 1);
        assert_eq!(long.parse::<Key>(), Err(KeyError::TooLong { bytes: KEY_BYTES_MAX + 1 }));
        for bad in ["", "/", "a/", "/a", "a//b"] {
            assert!(matches!(bad.parse::<Key>(), Err(KeyError::EmptySegment { .. })), "{bad:?}");
        }
        for bad in ["a b", "a\n", "a\0", "é"] {
            assert!(matches!(bad.parse::<Key>(), Err(KeyError::BadByte { .. })), "{bad:?}");
        }
        assert!(matches!(Key::of(["vo", ""]), Err(KeyError::EmptySegment { .. })));
        assert!(matches!(Key::of([[0u8; 300]]), Err(KeyError::TooLong { .. })));
    }

    #[test]
    fn a_prefix_ends_at_a_segment() {
        // Were it a plain text prefix, the members of `demo2` would be listed among `demo`'s.
        let prefix = Prefix::of(["vo", "demo"]).unwrap();
        assert!(prefix.covers(&Key::of(["vo", "demo", "x"]).unwrap()));
        assert!(!prefix.covers(&Key::of(["vo", "demo"]).unwrap()));
        assert!(!prefix.covers(&Key::of(["vo", "demo2", "x"]).unwrap()));
        assert!(Prefix::all().covers(&Key::of(["x"]).unwrap()));
    }

    proptest! {
        /// A slash or a percent sign in a name must not let one name reach another's entry.
        #[test]
        fn any_bytes_come_back(segments in prop::collection::vec(
            prop::collection::vec(any::<u8>(), 1..20), 1..6)) {
            let key = Key::of(&segments).unwrap();
            prop_assert_eq!(key.segments().unwrap(), segments.clone());
            prop_assert_eq!(&key.last_segment().unwrap(), segments.last().unwrap());
            prop_assert_eq!(key.as_str().parse::<Key>().unwrap(), key);
        }

        /// Text from a foreign hand must be refused or kept, never panic.
        #[test]
        fn any_text_parses_or_is_refused(text in ".{0,40}") {
            if let Ok(key) = text.parse::<Key>() {
                prop_assert_eq!(key.as_str(), text);
                key.segments().ok();
            }
        }
    }
}
