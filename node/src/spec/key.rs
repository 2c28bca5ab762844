//! Ids that become parts of paths.

use super::SpecError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use xos_base::UnitId;

/// Longest [`EnvelopeId`] or [`UnitKey`], in bytes.
pub const KEY_MAX: usize = 96;

macro_rules! key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// The id as text; safe as one component of a path.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = SpecError;
            fn from_str(s: &str) -> Result<Self, SpecError> {
                let ok = |b: &u8| b.is_ascii_alphanumeric() || b".:@_-".contains(b);
                let first = s.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
                if first && s.len() <= KEY_MAX && s.as_bytes().iter().all(ok) {
                    Ok($name(s.into()))
                } else {
                    Err(SpecError::Key(s.chars().take(KEY_MAX).collect()))
                }
            }
        }
        impl TryFrom<String> for $name {
            type Error = SpecError;
            fn try_from(s: String) -> Result<Self, SpecError> {
                s.parse()
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.into()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

key!(
    /// An envelope on this node, such as `1234.rennes`. Names a folder and a cgroup.
    EnvelopeId
);
key!(
    /// One run of a unit in its envelope: `1234.rennes:7`, or `1234.rennes:7@2` where a second
    /// attempt is allowed. What was recorded under a key never runs again under it.
    UnitKey
);

impl From<&UnitId> for UnitKey {
    fn from(id: &UnitId) -> UnitKey {
        UnitKey(id.to_string().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_cannot_leave_their_folder() {
        // wrong: a key that is a path would let a request write outside the envelope's folder
        for bad in ["", ".", "..", "a/b", "/a", ".a", "a\n", "a b", "é", &"a".repeat(97)] {
            assert!(bad.parse::<UnitKey>().is_err(), "{bad:?}");
        }
        assert_eq!("12.rennes:7@2".parse::<UnitKey>().unwrap().as_str(), "12.rennes:7@2");
    }
}
