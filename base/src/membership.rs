//! Membership: what one credential says about one person in one VO, and its one encoding.
//!
//! The same DER bytes stand in the X.509 extension 1.34.5.0.14.100, in the SSH certificate's
//! extension and in tickets, so that a right cannot differ between them.

use crate::ids::{Epoch, GroupName, GroupNumber, MemberNumber, PersonId, RoleName, VoId};
use crate::when::Millis;
use der::asn1::Utf8StringRef;
use der::{Decode, Encode, Sequence};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The object identifier of our certificate extension.
pub const EXTENSION_OID: &[u64] = &[1, 34, 5, 0, 14, 100];
/// The encoding's version that this code writes.
pub const VERSION: u32 = 1;
/// Most groups or roles in one membership.
pub const LIST_MAX: usize = 256;
/// Longest encoding, in bytes.
pub const DER_MAX: usize = 16 * 1024;

/// The role whose holders administer the VO.
pub const ROLE_ADMIN: &str = "admin";
/// The role of the VO's founder; an owner is an administrator too.
pub const ROLE_OWNER: &str = "owner";

/// A group of a VO, by name and by number.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its name in the VO.
    pub name: GroupName,
    /// Its number, from which the local gid follows.
    pub number: GroupNumber,
}

/// A person's place in one VO.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// The VO.
    pub vo: VoId,
    /// The person.
    pub person: PersonId,
    /// The person's number in the VO.
    pub number: MemberNumber,
    /// What was signed under a smaller epoch is void.
    pub epoch: Epoch,
    /// The member's groups; the first is the primary one. Never empty: every VO has the group
    /// `members`.
    pub groups: Vec<Group>,
    /// The member's roles.
    pub roles: Vec<RoleName>,
    /// When the membership ends by itself.
    pub expires: Option<Millis>,
}

impl Membership {
    /// Whether the member holds the role.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|r| r.as_str() == role)
    }

    /// The encoding that stands in every credential.
    ///
    /// # Errors
    /// [`EncodingError`] when a list or the whole is over its limit.
    pub fn to_der(&self) -> Result<Vec<u8>, EncodingError> {
        if self.groups.len() > LIST_MAX || self.roles.len() > LIST_MAX {
            return Err(EncodingError::TooLarge);
        }
        let groups: Result<Vec<_>, der::Error> = self
            .groups
            .iter()
            .map(|g| {
                Ok(GroupDer { name: Utf8StringRef::new(g.name.as_str())?, number: g.number.0 })
            })
            .collect();
        let roles: Result<Vec<_>, der::Error> =
            self.roles.iter().map(|r| Utf8StringRef::new(r.as_str())).collect();
        let der = MembershipDer {
            version: VERSION,
            vo: Utf8StringRef::new(self.vo.as_str())?,
            person: Utf8StringRef::new(self.person.as_str())?,
            number: self.number.0,
            epoch: self.epoch.0,
            groups: groups?,
            roles: roles?,
            expires: self.expires.map_or(0, |t| t.0),
        }
        .to_der()?;
        if der.len() > DER_MAX { Err(EncodingError::TooLarge) } else { Ok(der) }
    }

    /// Reads the encoding.
    ///
    /// # Errors
    /// [`EncodingError`] when it is not exactly one well-formed membership of a known version.
    pub fn from_der(bytes: &[u8]) -> Result<Membership, EncodingError> {
        if bytes.len() > DER_MAX {
            return Err(EncodingError::TooLarge);
        }
        let m = MembershipDer::from_der(bytes)?;
        if m.version != VERSION {
            return Err(EncodingError::Version(m.version));
        }
        if m.groups.len() > LIST_MAX || m.roles.len() > LIST_MAX || m.groups.is_empty() {
            return Err(EncodingError::TooLarge);
        }
        let id = |e: crate::ids::IdError| EncodingError::Id(e.to_string());
        let groups: Result<Vec<_>, EncodingError> = m
            .groups
            .iter()
            .map(|g| {
                Ok(Group {
                    name: g.name.as_str().parse().map_err(id)?,
                    number: GroupNumber(g.number),
                })
            })
            .collect();
        let roles: Result<Vec<_>, EncodingError> =
            m.roles.iter().map(|r| r.as_str().parse().map_err(id)).collect();
        Ok(Membership {
            vo: m.vo.as_str().parse().map_err(id)?,
            person: m.person.as_str().parse().map_err(id)?,
            number: MemberNumber(m.number),
            epoch: Epoch(m.epoch),
            groups: groups?,
            roles: roles?,
            expires: (m.expires != 0).then_some(Millis(m.expires)),
        })
    }
}

/// Why bytes are no membership, or a membership cannot be encoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodingError {
    /// Not the ASN.1 that is expected.
    #[error("the membership is not well-formed DER: {0}")]
    Der(der::Error),
    /// An id inside is malformed.
    #[error("the membership holds a bad id: {0}")]
    Id(String),
    /// Written by a version that this one does not know.
    #[error("the membership has version {0}, and this program knows version {VERSION}")]
    Version(u32),
    /// A list or the whole is over (or, for groups, under) its limit.
    #[error("the membership has no group, or more than {LIST_MAX} groups or roles")]
    TooLarge,
}

impl From<der::Error> for EncodingError {
    fn from(e: der::Error) -> EncodingError {
        EncodingError::Der(e)
    }
}

/// ```asn1
/// Group ::= SEQUENCE { name UTF8String, number INTEGER }
/// ```
#[derive(Sequence)]
struct GroupDer<'a> {
    name: Utf8StringRef<'a>,
    number: u32,
}

/// ```asn1
/// Membership ::= SEQUENCE {
///   version INTEGER, vo UTF8String, person UTF8String, number INTEGER, epoch INTEGER,
///   groups SEQUENCE OF Group, roles SEQUENCE OF UTF8String,
///   expires INTEGER  -- ms since 1970, 0: never
/// }
/// ```
#[derive(Sequence)]
struct MembershipDer<'a> {
    version: u32,
    vo: Utf8StringRef<'a>,
    person: Utf8StringRef<'a>,
    number: u32,
    epoch: u64,
    groups: Vec<GroupDer<'a>>,
    roles: Vec<Utf8StringRef<'a>>,
    expires: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A membership for tests.
    fn sample() -> Membership {
        Membership {
            vo: "demo.rennes".parse().unwrap(),
            person: "alice@pisa".parse().unwrap(),
            number: MemberNumber(7),
            epoch: Epoch(3),
            groups: vec![Group { name: "members".parse().unwrap(), number: GroupNumber(1) }],
            roles: vec!["admin".parse().unwrap()],
            expires: Some(Millis(1_800_000_000_000)),
        }
    }

    #[test]
    fn round_trip() {
        let m = sample();
        assert_eq!(Membership::from_der(&m.to_der().unwrap()).unwrap(), m);
        assert!(m.has_role(ROLE_ADMIN) && !m.has_role(ROLE_OWNER));
    }

    #[test]
    fn no_groups_and_too_many_are_refused() {
        let mut m = sample();
        m.groups.clear();
        assert!(Membership::from_der(&m.to_der().unwrap()).is_err());
        m.groups = vec![sample().groups[0].clone(); LIST_MAX + 1];
        assert_eq!(m.to_der(), Err(EncodingError::TooLarge));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(Membership::from_der(&bytes).is_err() || bytes.len() > 20);
        }

        #[test]
        fn any_change_of_one_byte_is_refused_or_differs(i in 0usize..80, x in 1u8..) {
            let m = sample();
            let mut b = m.to_der().unwrap();
            let i = i % b.len();
            b[i] ^= x;
            if let Ok(other) = Membership::from_der(&b) {
                prop_assert_ne!(other, m);
            }
        }
    }
}
