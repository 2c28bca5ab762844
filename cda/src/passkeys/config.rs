//! The section `[cda.passkeys]`.

use crate::config::{ADDRESS_MAX, Config, is_host};
use serde::Deserialize;
use std::net::IpAddr;
use webauthn_rs::prelude::Url;
use xos_base::Error;

/// Most addresses of the console.
const ORIGINS_MAX: usize = 16;
/// A person's own machine, to which ports of others are forwarded.
const LOCALHOST: &str = "localhost";

/// Whether one other way in, such as a password, is enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecondFactor {
    /// As each person wants it.
    #[default]
    Optional,
    /// It never is.
    Required,
}

/// The section `[cda.passkeys]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Passkeys {
    /// The host name for which passkeys are made (WebAuthn's RP ID). They work at this name and
    /// below it, and never again after it was changed. Default: the first host name, not an IP
    /// address, of the core's `addresses`, else of its `names`; without one there are no passkeys.
    #[serde(default)]
    pub host: Option<String>,
    /// Where the console is opened, `https://host` or `https://host:port`, at most 16. Default:
    /// `host` with the port of the address with this name, else of the first. At `localhost` any
    /// port will do.
    #[serde(default)]
    pub origins: Vec<String>,
    /// `optional` (default): each person chooses whether a passkey is wanted after a password, a
    /// provider or a Kerberos ticket. `required`: it is, and who has none yet makes one at the next
    /// sign-in.
    #[serde(default)]
    pub second_factor: SecondFactor,
}

/// Where passkeys work.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) host: String,
    pub(crate) first: Url,
    pub(crate) others: Vec<Url>,
}

impl Place {
    /// Whether pages at any port may use them.
    pub(crate) fn any_port(&self) -> bool {
        self.host == LOCALHOST
    }
}

/// Where passkeys work, if anywhere.
///
/// # Errors
/// [`xos_base::Kind::Invalid`] that names the key.
pub(crate) fn place(config: &Config) -> Result<Option<Place>, Error> {
    let own = &config.passkeys;
    let Some(host) = host(config)? else {
        if !own.origins.is_empty() || own.second_factor == SecondFactor::Required {
            return Err(Error::invalid("[cda.passkeys] host: the core has no host name")
                .hint("name one, by which people open the console"));
        }
        return Ok(None);
    };
    if own.origins.len() > ORIGINS_MAX {
        return Err(Error::invalid(format!("[cda.passkeys] origins: at most {ORIGINS_MAX}")));
    }
    let parts = || config.addresses.iter().filter_map(|a| a.rsplit_once(':'));
    let same = parts().find(|(h, _)| h.eq_ignore_ascii_case(&host));
    let port = same.or_else(|| parts().next()).map_or("443", |(_, port)| port);
    let texts = match own.origins.as_slice() {
        [] => vec![format!("https://{host}:{port}")],
        texts => texts.to_vec(),
    };
    let mut origins = Vec::new();
    for text in &texts {
        origins.push(origin(text, &host).ok_or_else(|| {
            Error::invalid(format!(
                "[cda.passkeys] origins: {text:?} is not https://host or https://host:port at or \
                 below {host}"
            ))
        })?);
    }
    let mut origins = origins.into_iter();
    Ok(origins.next().map(|first| Place { host, first, others: origins.collect() }))
}

/// The host name that is configured, or the first that the core has.
fn host(config: &Config) -> Result<Option<String>, Error> {
    if let Some(host) = &config.passkeys.host {
        let host = host.to_ascii_lowercase();
        if is_name(&host) {
            return Ok(Some(host));
        }
        return Err(Error::invalid(format!("[cda.passkeys] host: {host:?} is no host name")));
    }
    let addresses = config.addresses.iter().filter_map(|a| a.rsplit_once(':').map(|(h, _)| h));
    let all = addresses.chain(config.names.iter().map(String::as_str));
    Ok(all.map(str::to_ascii_lowercase).find(|h| is_name(h)))
}

/// Whether browsers take a text for a host name and not for an IP address.
fn is_name(host: &str) -> bool {
    is_host(host)
        && host.parse::<IpAddr>().is_err()
        && Url::parse(&format!("https://{host}/")).is_ok_and(|u| u.domain() == Some(host))
}

fn origin(text: &str, host: &str) -> Option<Url> {
    let url = Url::parse(text).ok().filter(|_| text.len() <= ADDRESS_MAX)?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let nobody = url.username().is_empty() && url.password().is_none();
    let domain = url.domain()?;
    let below = domain.strip_suffix(host).is_some_and(|d| d.is_empty() || d.ends_with('.'));
    (url.scheme() == "https" && bare && nobody && below).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(
        addresses: &[&str],
        change: impl FnOnce(&mut Config),
    ) -> Result<Option<Place>, Error> {
        let mut config = Config::new(addresses.iter().map(|&a| a.to_owned()).collect());
        change(&mut config);
        place(&config)
    }

    /// If it failed, passkeys would be made for a name at which nobody opens the console.
    #[test]
    fn the_first_host_name_is_taken() {
        let place =
            placed(&["10.0.0.1:7443", "Core.Rennes.example:7444"], |_| {}).unwrap().unwrap();
        assert_eq!(place.host, "core.rennes.example");
        assert_eq!(place.first.as_str(), "https://core.rennes.example:7444/");
        assert!(!place.any_port());
        let place = placed(&["10.0.0.1:7443"], |_| {}).unwrap().unwrap();
        assert!(place.host == "localhost" && place.any_port());
        let none = placed(&["[::1]:7443"], |c| c.names = vec!["10.0.0.1".into()]).unwrap();
        assert!(none.is_none(), "an IP address was taken for a host name");
    }

    /// If it failed, another site's pages could use the passkeys of this one.
    #[test]
    fn only_addresses_at_or_below_the_host_are_taken() {
        let with = |origins: &[&str]| {
            placed(&["core.example:7443"], |c| {
                c.passkeys.host = Some("example.org".into());
                c.passkeys.origins = origins.iter().map(|&o| o.to_owned()).collect();
            })
        };
        let place =
            with(&["https://core.example.org:7443", "https://example.org"]).unwrap().unwrap();
        assert_eq!((place.host.as_str(), place.others.len()), ("example.org", 1));
        for bad in [
            "http://example.org",
            "https://evilexample.org",
            "https://example.org.evil.example",
            "https://example.org/path",
            "https://user@example.org",
            "https://10.0.0.1",
            "example.org",
            "",
        ] {
            assert!(with(&[bad]).is_err(), "{bad}");
        }
        for bad in ["10.0.0.1", "", "a b", "https://example.org", "1234"] {
            let bad_host = |c: &mut Config| c.passkeys.host = Some(bad.into());
            assert!(placed(&["core.example:7443"], bad_host).is_err(), "{bad}");
        }
        let required = |c: &mut Config| {
            c.names.clear();
            c.passkeys.second_factor = SecondFactor::Required;
        };
        assert!(placed(&["10.0.0.1:7443"], required).is_err(), "nobody could ever sign in");
    }
}
