//! Whose ticket it is, and what the site makes of it: pure.

use xos_base::{Error, PersonId, SiteId};
use xos_net::identity::{hex, sha256};

/// Longest name that is shown, in characters.
const NAME_MAX: usize = 64;

/// A principal of a person: `alice@RENNES.EXAMPLE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Principal {
    /// As Kerberos writes it.
    text: String,
    /// Where in it the `@` stands.
    at: usize,
}

/// A principal as far as it can be shown.
fn shown(text: &str) -> String {
    let plain = |c: char| if c.is_control() { '?' } else { c };
    text.chars().map(plain).take(NAME_MAX).collect()
}

impl Principal {
    /// Reads what Kerberos writes (`krb5_unparse_name`): parts with `/` between them, `@`, realm,
    /// and `\` before each such sign that is part of a name.
    ///
    /// # Errors
    /// [`xos_base::Kind::Denied`] when it is no person's of `realms`.
    pub(crate) fn read(text: &str, realms: &[String]) -> Result<Principal, Error> {
        let denied =
            |why: &str| Error::denied(format!("the Kerberos principal {:?} {why}", shown(text)));
        let foreign = || {
            denied("is not of a realm whose people sign in here")
                .hint("sign in at your own site, or ask a site administrator")
        };
        let (name, realm) = text.split_once('@').ok_or_else(foreign)?;
        // A sign that was escaped could make one name look like another.
        if text.contains('\\') || !realms.iter().any(|r| r == realm) {
            return Err(foreign());
        }
        if name.contains('/') {
            let plain = name.split('/').next().unwrap_or_default();
            return Err(denied("is an instance, not a person")
                .hint(format!("get a ticket as {:?}", shown(&format!("{plain}@{realm}")))));
        }
        Ok(Principal { text: text.to_owned(), at: name.len() })
    }

    /// Names the principal among a person's accounts, for ever.
    pub(crate) fn key(&self) -> String {
        hex(&sha256(format!("kerberos\n{}", self.text).as_bytes()))
    }

    /// The principal as far as it can be shown.
    pub(crate) fn name(&self) -> String {
        shown(&self.text)
    }

    /// The person that it stands for: the name in small letters. Nothing is cut off; where two
    /// principals give one name, the first has it.
    ///
    /// # Errors
    /// [`xos_base::Kind::Denied`] when it can be no person's name.
    pub(crate) fn person(&self, site: &SiteId) -> Result<PersonId, Error> {
        let name = self.text[..self.at].to_ascii_lowercase();
        site.person(&name).map_err(|_| {
            let name = shown(&name);
            Error::denied(format!("the name {name:?} of your Kerberos principal is no name here"))
                .hint(
                    "a name is 1 to 32 of a-z, 0-9, '-' and '_', beginning with a letter; ask a \
                     site administrator for an account, and link your principal to it",
                )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Principal, Error> {
        Principal::read(text, &["RENNES.TEST".to_owned(), "LAB.TEST".to_owned()])
    }

    fn rennes() -> SiteId {
        "rennes".parse().unwrap()
    }

    /// If it failed, people of realms that the site does not know would come in, or services and
    /// administrators' instances as the person of that name.
    #[test]
    fn only_people_of_the_realms_are_taken() {
        let alice = read("Alice@RENNES.TEST").unwrap();
        assert_eq!(alice.person(&rennes()).unwrap().as_str(), "alice@rennes");
        assert_eq!(alice.name(), "Alice@RENNES.TEST");
        assert!(read("alice@LAB.TEST").is_ok());
        for (bad, why) in [
            ("alice/admin@RENNES.TEST", "instance"),
            ("HTTP/core.example@RENNES.TEST", "instance"),
            ("alice/@RENNES.TEST", "instance"),
            ("alice@LYON.TEST", "realm"),
            ("alice@rennes.test", "realm"),
            ("alice@RENNES.TEST.LYON.TEST", "realm"),
            ("alice@RENNES.TEST@LYON.TEST", "realm"),
            ("alice\\@RENNES.TEST@RENNES.TEST", "realm"),
            ("alice\\/admin@RENNES.TEST", "realm"),
            ("WELLKNOWN/ANONYMOUS@WELLKNOWN:ANONYMOUS", "realm"),
            ("alice", "realm"),
            ("", "realm"),
        ] {
            let e = read(bad).unwrap_err();
            assert!(e.message.contains(why), "{bad}: {e}");
        }
    }

    /// If it failed, one principal could be taken for another, of the same or another realm.
    #[test]
    fn each_principal_has_its_own_key() {
        let key = |text| read(text).unwrap().key();
        assert_eq!(key("alice@RENNES.TEST"), key("alice@RENNES.TEST"));
        assert_eq!(key("alice@RENNES.TEST").len(), 64);
        assert_ne!(key("alice@RENNES.TEST"), key("Alice@RENNES.TEST"));
        assert_ne!(key("alice@RENNES.TEST"), key("alice@LAB.TEST"));
    }

    proptest! {
        /// If it failed, who may choose a name in a realm could become somebody else here.
        #[test]
        fn a_name_stands_for_itself_or_for_nobody(name in ".{0,40}", realm in "(RENNES|LAB|X)\\.TEST") {
            match read(&format!("{name}@{realm}")) {
                Ok(principal) => match principal.person(&rennes()) {
                    Ok(person) => prop_assert_eq!(person.name(), name.to_ascii_lowercase()),
                    Err(e) => prop_assert!(!e.message.contains('\n')),
                },
                Err(e) => prop_assert!(!e.message.contains('\n')),
            }
        }
    }
}
