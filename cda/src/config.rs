//! The section `[cda]`.

use crate::oidc::Provider;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::time::Duration;
use xos_api::cda::TICKET_LIFE_MAX_S;
use xos_api::site::DESCRIPTOR_LIST_MAX;
use xos_base::Error;

/// Longest address or name in the configuration, in bytes (RFC 1035, with a port).
pub const ADDRESS_MAX: usize = 261;

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
    /// Whether people may sign in by name and password. Default true; false needs a provider.
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
    /// How long after signing in a certificate can be renewed. Default 604800 (7 days).
    #[serde(default = "default_renewal_s")]
    pub renewal_s: u64,
    /// How long a job's mandate holds. Default 2592000 (30 days).
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
    7 * 24 * 3600
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
        self.check_providers()?;
        let ranges = [
            ("token_s", self.token_s, 30, TICKET_LIFE_MAX_S),
            ("session_s", self.session_s, 60, YEAR_S),
            ("certificate_s", self.certificate_s, 60, 30 * 24 * 3600),
            ("renewal_s", self.renewal_s, 60, YEAR_S),
            ("mandate_s", self.mandate_s, 60, YEAR_S),
            ("machine_s", self.machine_s, 3600, YEAR_S),
            ("refresh_s", self.refresh_s, 1, 24 * 3600),
            ("hashers", self.hashers as u64, 1, 64),
        ];
        for (key, value, min, max) in ranges {
            if value < min || value > max {
                return Err(Error::invalid(format!("[cda] {key}: {value} is not {min} to {max}")));
            }
        }
        Ok(())
    }

    fn check_providers(&self) -> Result<(), Error> {
        if self.providers.len() > PROVIDERS_MAX {
            return Err(Error::invalid(format!("[cda] providers: at most {PROVIDERS_MAX}")));
        }
        if !self.passwords && self.providers.is_empty() {
            return Err(Error::invalid("[cda] passwords: false, and there is no provider")
                .hint("nobody could sign in; name a provider in [[cda.providers]]"));
        }
        let mut ids = BTreeSet::new();
        for provider in &self.providers {
            provider.check()?;
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
        assert!(refused(|c| c.addresses.clear()).contains("addresses"));
        assert!(refused(|c| c.addresses = vec!["a".into()]).contains("host:port"));
        assert!(xos_base::config::parse::<Config>("x", "colour = 1").is_err());
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
