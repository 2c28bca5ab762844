//! The section `[cda]`.

use crate::kerberos::Kerberos;
use crate::keys::Pkcs11;
use crate::oidc::Provider;
use crate::passkeys::{self, PasskeyConfig};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;
use xos_api::cda::{KERBEROS_PROVIDER, TICKET_LIFE_MAX_S};
use xos_api::site::DESCRIPTOR_LIST_MAX;
use xos_api::vom::RENEWAL_S_MAX;
use xos_base::{Error, SiteId};

/// Longest address or name in the configuration, in bytes (RFC 1035, with a port).
pub const ADDRESS_MAX: usize = 261;

/// Longest time between two fetches of a trusted site's descriptor, in seconds.
pub(crate) const REFRESH_MAX_S: u64 = 24 * 3600;

/// Most identity providers.
const PROVIDERS_MAX: usize = 32;

/// Who may make a person known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Registration {
    /// Site administrators.
    #[default]
    Admin,
    /// Anybody, for themselves.
    Open,
}

/// The section `[cda]`. A life is given in seconds.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where other sites, nodes and people reach this core: `host:port`, tried in order; at least
    /// one, at most 16.
    pub addresses: Vec<String>,
    /// More host names and IP addresses for the core's certificate, so that browsers accept it.
    /// Default: `localhost`, `127.0.0.1` and `::1`.
    #[serde(default = "default_names")]
    pub names: Vec<String>,
    /// `admin` (default): site administrators make people known. `open`: anybody may register.
    #[serde(default)]
    pub registration: Registration,
    /// Whether people may sign in by name and password. Default true; false needs a provider or
    /// Kerberos.
    #[serde(default = "default_passwords")]
    pub passwords: bool,
    /// Identity providers by which people may sign in too, at most 32.
    #[serde(default)]
    pub providers: Vec<Provider>,
    /// Life of a token. Default 900, at most 900.
    #[serde(default = "default_token_s")]
    pub token_s: u64,
    /// How long after signing in a token can be renewed. Default 43200 (12 hours).
    #[serde(default = "default_session_s")]
    pub session_s: u64,
    /// Life of a membership's certificate. Default 43200 (12 hours).
    #[serde(default = "default_session_s")]
    pub certificate_s: u64,
    /// How long after signing in a certificate can be renewed, where the VO does not say less: as
    /// `xos vo renewal` set it, or 7 days. Default 604800 (7 days), at most 604800.
    #[serde(default = "default_renewal_s")]
    pub renewal_s: u64,
    /// How long a mandate holds: a job's; and a login's, which also ends with the person's
    /// certificate. Default 2592000 (30 days).
    #[serde(default = "default_mandate_s")]
    pub mandate_s: u64,
    /// Life of a node's certificate. Default 2592000 (30 days).
    #[serde(default = "default_mandate_s")]
    pub machine_s: u64,
    /// How often the descriptors of trusted sites are fetched anew. Default 600.
    #[serde(default = "default_refresh_s")]
    pub refresh_s: u64,
    /// How many passwords are hashed at the same time, 19 MiB of memory each. Default 2.
    #[serde(default = "default_hashers")]
    pub hashers: usize,
    /// The name under which this site issues JWTs to services outside XOS, which fetch its keys
    /// below it: `https://host` or `https://host:port`, reaching this core. Default: `https://` and
    /// the first of the addresses.
    #[serde(default)]
    pub issuer: Option<String>,
    /// The URN (RFC 8141) before the groups in these JWTs (AARC-G069), for a site that has one of
    /// its own. Default: `urn:xos:` and the site's name.
    #[serde(default)]
    pub entitlement_namespace: Option<String>,
    /// Passkeys in the console.
    #[serde(default)]
    pub passkeys: PasskeyConfig,
    /// Sign-in by Kerberos tickets. Default: none.
    #[serde(default)]
    pub kerberos: Option<Kerberos>,
    /// A token in which the site's keys are made. Default: they lie in files. Keys that lie in
    /// files stay there until they are replaced: `xosd keys roll`.
    #[serde(default)]
    pub pkcs11: Option<Pkcs11>,
}

fn default_names() -> Vec<String> {
    ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec()
}

fn default_passwords() -> bool {
    true
}

fn default_token_s() -> u64 {
    900
}

fn default_session_s() -> u64 {
    12 * 3600
}

fn default_renewal_s() -> u64 {
    RENEWAL_S_MAX
}

fn default_mandate_s() -> u64 {
    30 * 24 * 3600
}

fn default_refresh_s() -> u64 {
    600
}

fn default_hashers() -> usize {
    2
}

const YEAR_S: u64 = 365 * 24 * 3600;

impl Config {
    /// The defaults, for a core reached at `addresses`.
    pub fn new(addresses: Vec<String>) -> Config {
        Config {
            addresses,
            names: default_names(),
            registration: Registration::Admin,
            passwords: default_passwords(),
            providers: Vec::new(),
            token_s: default_token_s(),
            session_s: default_session_s(),
            certificate_s: default_session_s(),
            renewal_s: default_renewal_s(),
            mandate_s: default_mandate_s(),
            machine_s: default_mandate_s(),
            refresh_s: default_refresh_s(),
            hashers: default_hashers(),
            issuer: None,
            entitlement_namespace: None,
            passkeys: PasskeyConfig::default(),
            kerberos: None,
            pkcs11: None,
        }
    }

    /// Refuses values out of their ranges.
    ///
    /// # Errors
    /// [`xos_base::Kind::Invalid`] that names the key and its range.
    pub fn check(&self) -> Result<(), Error> {
        if self.addresses.is_empty() {
            return Err(Error::invalid("[cda] addresses: at least one host:port is needed"));
        }
        for list in [&self.addresses, &self.names] {
            if list.len() > DESCRIPTOR_LIST_MAX || list.iter().any(|a| a.len() > ADDRESS_MAX) {
                return Err(Error::invalid(format!(
                    "[cda] addresses, names: at most {DESCRIPTOR_LIST_MAX} of {ADDRESS_MAX} bytes"
                )));
            }
        }
        if let Some(bad) = self.addresses.iter().find(|a| !is_host_port(a)) {
            return Err(Error::invalid(format!("[cda] addresses: {bad:?} is not host:port")));
        }
        if let Some(bad) = self.issuer.as_ref().filter(|i| !is_issuer(i)) {
            return Err(Error::invalid(format!(
                "[cda] issuer: {bad:?} is not https://host or https://host:port"
            )));
        }
        if let Some(bad) = self.entitlement_namespace.as_ref().filter(|n| !is_namespace(n)) {
            return Err(Error::invalid(format!(
                "[cda] entitlement_namespace: {bad:?} is no URN like urn:example:grid, or has a part \
                 `group`"
            )));
        }
        self.check_providers()?;
        passkeys::place(self)?;
        let ranges = [
            ("token_s", self.token_s, 30, TICKET_LIFE_MAX_S),
            ("session_s", self.session_s, 60, YEAR_S),
            ("certificate_s", self.certificate_s, 60, 30 * 24 * 3600),
            ("renewal_s", self.renewal_s, 60, RENEWAL_S_MAX),
            ("mandate_s", self.mandate_s, 60, YEAR_S),
            ("machine_s", self.machine_s, 3600, YEAR_S),
            ("refresh_s", self.refresh_s, 1, REFRESH_MAX_S),
            ("hashers", self.hashers as u64, 1, 64),
        ];
        for (key, value, min, max) in ranges {
            if value < min || value > max {
                return Err(Error::invalid(format!("[cda] {key}: {value} is not {min} to {max}")));
            }
        }
        Ok(())
    }

    /// The host names in the addresses, in lower case, without IP addresses.
    pub(crate) fn host_names(&self) -> impl Iterator<Item = String> + '_ {
        let hosts = self.addresses.iter().filter_map(|a| a.rsplit_once(':')).map(|(host, _)| host);
        let is_name = |host: &&str| is_host(host) && host.parse::<Ipv4Addr>().is_err();
        hosts.filter(is_name).map(str::to_ascii_lowercase)
    }

    /// The `iss` of this site's JWTs.
    pub(crate) fn issuer(&self) -> String {
        let first = || self.addresses.first().map(String::as_str).unwrap_or_default();
        self.issuer.clone().unwrap_or_else(|| format!("https://{}", first()))
    }

    /// What stands before the groups in them.
    pub(crate) fn namespace(&self, site: &SiteId) -> String {
        self.entitlement_namespace.clone().unwrap_or_else(|| format!("urn:xos:{site}"))
    }

    fn check_providers(&self) -> Result<(), Error> {
        if self.providers.len() > PROVIDERS_MAX {
            return Err(Error::invalid(format!("[cda] providers: at most {PROVIDERS_MAX}")));
        }
        if let Some(kerberos) = &self.kerberos {
            kerberos.check(&self.addresses)?;
        }
        if !self.passwords && self.providers.is_empty() && self.kerberos.is_none() {
            return Err(Error::invalid("[cda] passwords: false, and there is no provider")
                .hint("nobody could sign in; name a provider in [[cda.providers]]"));
        }
        let mut ids = BTreeSet::new();
        for provider in &self.providers {
            provider.check()?;
            if provider.id.as_str() == KERBEROS_PROVIDER {
                return Err(Error::invalid(format!(
                    "[[cda.providers]] id: {KERBEROS_PROVIDER} stands for Kerberos"
                ))
                .hint("give the provider another id"));
            }
            if !ids.insert(&provider.id) {
                return Err(Error::invalid(format!(
                    "[[cda.providers]] id: {} stands there twice",
                    provider.id
                )));
            }
        }
        Ok(())
    }

    pub(crate) fn session(&self) -> Duration {
        Duration::from_secs(self.session_s)
    }

    pub(crate) fn renewal(&self) -> Duration {
        Duration::from_secs(self.renewal_s)
    }
}

/// Whether a text is `host:port` or `[v6]:port`.
pub fn is_host_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let host_ok = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_host(host),
    };
    host_ok && text.len() <= ADDRESS_MAX && port.parse::<u16>().is_ok_and(|p| p > 0)
}

/// Whether a text can be a host name (RFC 1123, letters, digits, '-' and '.').
pub(crate) fn is_host(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= ADDRESS_MAX
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
}

/// Whether a text is `https://host` or `https://host:port`.
fn is_issuer(text: &str) -> bool {
    text.strip_prefix("https://").is_some_and(|rest| is_host(rest) || is_host_port(rest))
}

/// Whether a text can stand before `:group:`: a URN without part `group`, of the characters that
/// need no encoding (RFC 8141, section 2).
fn is_namespace(text: &str) -> bool {
    let mut parts = text.split(':');
    let is_urn = parts.next() == Some("urn");
    let identifier = parts.next().unwrap_or_default();
    let is_identifier = (2..=32).contains(&identifier.len())
        && identifier.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !identifier.starts_with('-')
        && !identifier.ends_with('-');
    let rest: Vec<&str> = parts.collect();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    let is_part = |p: &&str| !p.is_empty() && *p != "group" && p.bytes().all(plain);
    is_urn
        && is_identifier
        && !rest.is_empty()
        && rest.iter().all(is_part)
        && text.len() <= ADDRESS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_hold_and_bad_values_are_named() {
        let config: Config =
            xos_base::config::parse("x", "addresses = [\"a.example:7443\"]").unwrap();
        assert_eq!(config, Config::new(vec!["a.example:7443".into()]));
        config.check().unwrap();
        let refused = |change: fn(&mut Config)| {
            let mut c = config.clone();
            change(&mut c);
            c.check().unwrap_err().message
        };
        assert!(refused(|c| c.token_s = 1201).contains("token_s"));
        assert!(refused(|c| c.renewal_s = 7 * 24 * 3600 + 1).contains("renewal_s"));
        assert!(refused(|c| c.addresses.clear()).contains("addresses"));
        assert!(refused(|c| c.addresses = vec!["a".into()]).contains("host:port"));
        assert!(refused(|c| c.issuer = Some("http://a.example".into())).contains("issuer"));
        assert!(refused(|c| c.entitlement_namespace = Some("x".into())).contains("URN"));
        assert!(xos_base::config::parse::<Config>("x", "colour = 1").is_err());
    }

    /// If it failed, services outside would look for keys where there are none, or take one part of
    /// an entitlement for another.
    #[test]
    fn issuers_and_namespaces_have_one_form() {
        let config = Config::new(vec!["a.example:7443".into()]);
        assert_eq!(config.issuer(), "https://a.example:7443");
        assert!(is_issuer(&config.issuer()));
        assert!(is_namespace(&config.namespace(&"rennes".parse().unwrap())));
        for good in ["https://a.example", "https://[::1]:7443", "https://10.0.0.1:1"] {
            assert!(is_issuer(good), "{good}");
        }
        for bad in ["", "https://", "http://a", "https://a/b", "https://a:0", "https://a@b", "a"] {
            assert!(!is_issuer(bad), "{bad}");
        }
        for good in ["urn:geant:example.org:grid", "urn:x-grid:a"] {
            assert!(is_namespace(good), "{good}");
        }
        for bad in ["", "urn", "urn:a:b", "urn:xos:", "urn:xos:group", "urn:xos:a#b", "urn:-a:b"] {
            assert!(!is_namespace(bad), "{bad}");
        }
    }

    #[test]
    fn addresses_of_other_forms_are_refused() {
        for good in ["a:1", "10.0.0.1:7443", "[::1]:7443", "core.example.org:65535"] {
            assert!(is_host_port(good), "{good}");
        }
        for bad in ["", "a", "a:0", "a:65536", ":1", "::1:1", "[x]:1", "a b:1", "a/b:1"] {
            assert!(!is_host_port(bad), "{bad}");
        }
    }
}
