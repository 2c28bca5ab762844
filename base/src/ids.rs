//! Ids. Each is parsed once, where it enters; a value that exists is well formed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Longest site or VO label, in bytes.
pub const LABEL_MAX: usize = 24;
/// Longest person or group name, in bytes.
pub const NAME_MAX: usize = 32;
/// Most units of one job.
pub const UNITS_MAX: u32 = 100_000;

/// Why a text is not an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {what}: {want}")]
pub struct IdError {
    /// The text, cut to 64 characters.
    pub text: String,
    /// What was expected, as a noun.
    pub what: &'static str,
    /// The rule it breaks.
    pub want: &'static str,
}

fn refuse(text: &str, what: &'static str, want: &'static str) -> IdError {
    IdError { text: text.chars().take(64).collect(), what, want }
}

fn is_label(s: &str, max: usize, more: &[u8]) -> bool {
    let b = s.as_bytes();
    !b.is_empty()
        && b.len() <= max
        && b[0].is_ascii_lowercase()
        && b[b.len() - 1] != b'-'
        && b.iter()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == b'-' || more.contains(c))
}

const LABEL_RULE: &str = "a label is 1 to 24 of a-z, 0-9 and '-', beginning with a letter";
const NAME_RULE: &str = "a name is 1 to 32 of a-z, 0-9, '-' and '_', beginning with a letter";

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $want:expr, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(s: &str) -> Result<Self, IdError> {
                let check: fn(&str) -> bool = $check;
                if check(s) { Ok($name(s.to_owned())) } else { Err(refuse(s, $what, $want)) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(s: String) -> Result<Self, IdError> {
                s.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

fn two_parts(s: &str, sep: char) -> Option<(&str, &str)> {
    s.split_once(sep).filter(|(_, b)| !b.contains(sep))
}

text_id!(
    /// An administrative domain: `rennes`.
    SiteId, "site", LABEL_RULE, |s| is_label(s, LABEL_MAX, b"")
);

text_id!(
    /// An identity provider of a site, as that site's configuration names it: `uni`.
    ProviderId, "provider", LABEL_RULE, |s| is_label(s, LABEL_MAX, b"")
);

text_id!(
    /// A virtual organization with its home site: `demo.rennes`.
    VoId,
    "VO",
    "a VO is <vo>.<site>, each a label of 1 to 24 of a-z, 0-9 and '-'",
    |s| two_parts(s, '.')
        .is_some_and(|(a, b)| is_label(a, LABEL_MAX, b"") && is_label(b, LABEL_MAX, b""))
);

text_id!(
    /// A person and the site whose sign-in vouches for them: `alice@rennes`.
    PersonId,
    "person",
    "a person is <name>@<site>, the name of a-z, 0-9, '-' and '_'",
    |s| two_parts(s, '@')
        .is_some_and(|(a, b)| is_label(a, NAME_MAX, b"_") && is_label(b, LABEL_MAX, b""))
);

text_id!(
    /// A node and its site: `n1.rennes`.
    NodeId,
    "node",
    "a node is <node>.<site>, each a label of 1 to 24 of a-z, 0-9 and '-'",
    |s| two_parts(s, '.')
        .is_some_and(|(a, b)| is_label(a, LABEL_MAX, b"") && is_label(b, LABEL_MAX, b""))
);

text_id!(
    /// A cluster and its site: `c1.rennes`.
    ClusterId,
    "cluster",
    "a cluster is <cluster>.<site>, each a label of 1 to 24 of a-z, 0-9 and '-'",
    |s| two_parts(s, '.')
        .is_some_and(|(a, b)| is_label(a, LABEL_MAX, b"") && is_label(b, LABEL_MAX, b""))
);

text_id!(
    /// The name of a group inside one VO: `physics`.
    GroupName, "group", NAME_RULE, |s| is_label(s, NAME_MAX, b"_")
);

text_id!(
    /// The name of a role inside one VO: `admin`.
    RoleName, "role", NAME_RULE, |s| is_label(s, NAME_MAX, b"_")
);

impl SiteId {
    /// The id of this site's node called `label`.
    ///
    /// # Errors
    /// [`IdError`] when `label` is no label.
    pub fn node(&self, label: &str) -> Result<NodeId, IdError> {
        format!("{label}.{self}").parse()
    }

    /// The person called `name` whom this site vouches for.
    ///
    /// # Errors
    /// [`IdError`] when `name` is no name.
    pub fn person(&self, name: &str) -> Result<PersonId, IdError> {
        format!("{name}@{self}").parse()
    }
}

macro_rules! halves {
    ($t:ident, $sep:literal, $first:ident, $firstdoc:literal) => {
        impl $t {
            #[doc = $firstdoc]
            pub fn $first(&self) -> &str {
                self.0.split_once($sep).map_or("", |(a, _)| a)
            }

            /// The site part of the id.
            pub fn site(&self) -> SiteId {
                SiteId(self.0.split_once($sep).map_or("", |(_, b)| b).to_owned())
            }
        }
    };
}

halves!(VoId, '.', label, "The VO's own label, without its home site.");
halves!(NodeId, '.', label, "The node's own label, without its site.");
halves!(ClusterId, '.', label, "The cluster's own label, without its site.");
halves!(PersonId, '@', name, "The person's name at their site.");

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($t:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize,
            Deserialize, JsonSchema,
        )]
        #[serde(transparent)]
        pub struct $name(pub $t);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id!(
    /// A person's number in one VO, given by its VOM and never reused. The local uid is the
    /// site's base for that VO plus this.
    MemberNumber(u32)
);
number_id!(
    /// A group's number in one VO, never reused. The local gid is the site's base for that VO
    /// plus this.
    GroupNumber(u32)
);
number_id!(
    /// How often a membership was narrowed. What was signed under a smaller epoch is void.
    Epoch(u64)
);
number_id!(
    /// The place of a unit in its job, from 0.
    UnitIndex(u32)
);

/// A job: a number given by the core that owns it, and that core's site. `1234.rennes`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobId {
    /// The owner's site.
    pub site: SiteId,
    /// The number there, from 1, never reused.
    pub number: u64,
}

/// One unit of a job. `1234.rennes:7`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UnitId {
    /// The job.
    pub job: JobId,
    /// The unit's place in it.
    pub index: UnitIndex,
}

impl JobId {
    /// The unit of this job with the given index.
    pub fn unit(&self, index: u32) -> UnitId {
        UnitId { job: self.clone(), index: UnitIndex(index) }
    }
}

fn plain_number<T: FromStr>(s: &str) -> Option<T> {
    let canonical = !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    (canonical && (s == "0" || !s.starts_with('0'))).then(|| s.parse().ok()).flatten()
}

impl FromStr for JobId {
    type Err = IdError;
    fn from_str(s: &str) -> Result<JobId, IdError> {
        two_parts(s, '.')
            .and_then(|(n, site)| {
                Some(JobId { number: plain_number(n)?, site: site.parse().ok()? })
            })
            .ok_or_else(|| refuse(s, "job", "a job is <number>.<site>, as xsub prints it"))
    }
}

impl FromStr for UnitId {
    type Err = IdError;
    fn from_str(s: &str) -> Result<UnitId, IdError> {
        two_parts(s, ':')
            .and_then(|(job, i)| {
                let index = plain_number(i).filter(|i| *i < UNITS_MAX)?;
                Some(UnitId { job: job.parse().ok()?, index: UnitIndex(index) })
            })
            .ok_or_else(|| refuse(s, "unit", "a unit is <number>.<site>:<index>"))
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.number, self.site)
    }
}

impl fmt::Display for UnitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.job, self.index)
    }
}

macro_rules! as_text {
    ($($t:ident),*) => {$(
        impl TryFrom<String> for $t {
            type Error = IdError;
            fn try_from(s: String) -> Result<Self, IdError> { s.parse() }
        }
        impl From<$t> for String {
            fn from(id: $t) -> String { id.to_string() }
        }
    )*};
}
as_text!(JobId, UnitId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_formed_ids_round_trip() {
        assert_eq!("demo.rennes".parse::<VoId>().unwrap().site().as_str(), "rennes");
        assert_eq!("alice@rennes".parse::<PersonId>().unwrap().name(), "alice");
        let u: UnitId = "12.rennes:7".parse().unwrap();
        assert_eq!(u.to_string(), "12.rennes:7");
        assert_eq!(u.job.number, 12);
    }

    #[test]
    fn bad_ids_are_no_values() {
        for s in ["", "a.b.c", "A.b", "a..b", "a.b\n", ".b", "a.", "a b.c", "é.b", "1.b", "a-.b"] {
            assert!(s.parse::<VoId>().is_err(), "{s:?} was taken for a VO");
        }
        let long = "a".repeat(300);
        assert!(long.parse::<SiteId>().is_err());
        assert!(long.parse::<SiteId>().unwrap_err().to_string().len() < 200);
        for s in ["01.rennes", "+1.rennes", "1", "1.rennes:0", "99999999999999999999999.rennes"] {
            assert!(s.parse::<JobId>().is_err(), "{s:?} was taken for a job");
        }
        assert!("1.rennes:100000".parse::<UnitId>().is_err());
    }

    #[test]
    fn deserialization_validates() {
        assert!(serde_json::from_str::<SiteId>("\"x/../y\"").is_err());
    }
}
