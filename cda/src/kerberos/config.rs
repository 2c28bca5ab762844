//! The section `[cda.kerberos]`.

use crate::config::is_host;
use crate::oidc::Accounts;
use serde::Deserialize;
use std::path::PathBuf;
use xos_base::Error;

/// Most realms.
const REALMS_MAX: usize = 32;
/// Longest realm, in bytes.
const REALM_MAX: usize = 255;

/// The section `[cda.kerberos]`: people sign in by a Kerberos ticket.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kerberos {
    /// The file with the keys of the service, which root alone may read.
    pub keytab: PathBuf,
    /// The service for which people get tickets, `HTTP@` and a host. Browsers and `xos login` ask
    /// for `HTTP@` and the host by which they reach the core. Default: that of the first address.
    #[serde(default)]
    pub service: Option<String>,
    /// The realms whose principals are people of this site, exactly as Kerberos writes them; at
    /// least one, at most 32. Everybody of any other realm is refused, whatever realms trust one
    /// another.
    pub realms: Vec<String>,
    /// `known` (default): whose principal was linked before. `create`: everybody of the realms; a
    /// person is made at the first sign-in, with the principal's name in small letters, unless that
    /// name is taken.
    #[serde(default)]
    pub accounts: Accounts,
    /// Whether a ticket must be bound to the connection by which it comes. `xos login` binds it;
    /// false lets in browsers that do not, such as Firefox. Default true.
    #[serde(default = "default_require_binding")]
    pub require_binding: bool,
}

fn default_require_binding() -> bool {
    true
}

/// Whether a text can be a realm here: one that Kerberos writes without `\`.
fn is_realm(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_graphic() && !b"@/\\".contains(&b);
    !text.is_empty() && text.len() <= REALM_MAX && text.bytes().all(plain)
}

impl Kerberos {
    /// The service, of a core reached at `addresses`.
    pub(crate) fn service(&self, addresses: &[String]) -> String {
        let host = || {
            let first = addresses.first().map(String::as_str).unwrap_or_default();
            first.rsplit_once(':').map_or(first, |(host, _)| host)
        };
        self.service.clone().unwrap_or_else(|| format!("HTTP@{}", host()))
    }

    /// Refuses values out of their ranges.
    ///
    /// # Errors
    /// [`xos_base::Kind::Invalid`] that names the key.
    pub(crate) fn check(&self, addresses: &[String]) -> Result<(), Error> {
        let bad =
            |key: &str, why: &str| Err(Error::invalid(format!("[cda.kerberos] {key}: {why}")));
        if self.realms.is_empty() || self.realms.len() > REALMS_MAX {
            return bad("realms", "1 to 32 are needed");
        }
        if let Some(realm) = self.realms.iter().find(|r| !is_realm(r)) {
            return bad("realms", &format!("{realm:?} is no realm, such as RENNES.EXAMPLE"));
        }
        let service = self.service(addresses);
        if !service.strip_prefix("HTTP@").is_some_and(is_host) {
            let why = format!("{service:?} is not HTTP@ and a host, as HTTP@core.rennes.example");
            return bad("service", &why);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(more: &str) -> Result<Kerberos, Error> {
        let text = format!("keytab = \"/etc/xos/core.keytab\"\n{more}");
        let kerberos: Kerberos = xos_base::config::parse("x", &text)?;
        kerberos.check(&["core.rennes.example:7443".to_owned()]).map(|()| kerberos)
    }

    /// If it failed, an administrator would find out by people who cannot sign in, or by people
    /// who can and should not.
    #[test]
    fn values_out_of_range_are_named() {
        let good = with("realms = [\"RENNES.EXAMPLE\"]").unwrap();
        assert_eq!(good.service(&["core.rennes.example:7443".into()]), "HTTP@core.rennes.example");
        assert_eq!((good.accounts, good.require_binding), (Accounts::Known, true));
        assert!(with("").is_err(), "no realm");
        for (bad, key) in [
            ("realms = []", "realms"),
            ("realms = [\"\"]", "realms"),
            ("realms = [\"A@B\"]", "realms"),
            ("realms = [\"A/B\"]", "realms"),
            ("realms = [\"A\\\\B\"]", "realms"),
            ("realms = [\"A\"]\nservice = \"host@core\"", "service"),
            ("realms = [\"A\"]\nservice = \"HTTP\"", "service"),
            ("realms = [\"A\"]\nservice = \"HTTP@a/b\"", "service"),
            ("realms = [\"A\"]\ncolour = 1", "colour"),
        ] {
            let e = with(bad).unwrap_err();
            assert!(e.message.contains(key), "{bad}: {e}");
        }
    }

    /// If it failed, a core that people know by a number would ask for keys of a name that is none.
    #[test]
    fn an_address_that_is_no_name_needs_the_service() {
        let text = "keytab = \"/k\"\nrealms = [\"A\"]";
        let kerberos: Kerberos = xos_base::config::parse("x", text).unwrap();
        assert!(kerberos.check(&["[::1]:7443".to_owned()]).is_err());
    }
}
