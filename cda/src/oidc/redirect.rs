//! Where a provider may send browsers back to: this core's console, or a program on the person's
//! own machine (RFC 8252, 7.3). Codes go nowhere else.

use crate::config::Config;
use openidconnect::url::Url;
use std::collections::BTreeSet;
use xos_api::cda::callback_path;
use xos_base::{Error, ProviderId};

/// The places of this core's console.
pub(crate) struct Redirects {
    /// Host and port.
    console: BTreeSet<(String, u16)>,
}

/// A host as it stands in addresses.
fn host_of(name: &str) -> String {
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<std::net::Ipv6Addr>() {
        Ok(v6) => format!("[{v6}]"),
        Err(_) => name.to_ascii_lowercase(),
    }
}

impl Redirects {
    /// Those at the addresses of the configuration; its further names, on the same ports.
    pub(crate) fn of(config: &Config) -> Redirects {
        let parts = config.addresses.iter().filter_map(|a| a.rsplit_once(':'));
        let addresses: Vec<(String, u16)> =
            parts.filter_map(|(host, port)| Some((host_of(host), port.parse().ok()?))).collect();
        let names = config.names.iter().flat_map(|name| {
            let host = host_of(name);
            addresses.iter().map(move |(_, port)| (host.clone(), *port))
        });
        Redirects { console: names.chain(addresses.iter().cloned()).collect() }
    }

    /// Refuses every other place.
    ///
    /// # Errors
    /// [`xos_base::Kind::Invalid`] that says where a browser may come back to.
    pub(crate) fn check(&self, text: &str, provider: &ProviderId) -> Result<(), Error> {
        let place = || {
            let url = Url::parse(text).ok()?;
            // What is compared is what the provider gets, letter for letter.
            let exact = url.as_str() == text;
            let plain = url.path() == callback_path(provider)
                && url.query().is_none()
                && url.fragment().is_none()
                && url.username().is_empty()
                && url.password().is_none();
            let host = url.host_str()?;
            let known = match url.scheme() {
                "https" => self.console.contains(&(host.to_owned(), url.port_or_known_default()?)),
                "http" => host == "127.0.0.1" && url.port().is_some(),
                _ => false,
            };
            (exact && plain && known).then_some(())
        };
        place().ok_or_else(|| {
            let shown: String = text.chars().take(200).collect();
            Error::invalid(format!("a sign-in cannot come back to {shown:?}"))
                .hint("open the console at an address that [cda] addresses or names has")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a page of somebody else could have the codes of people sent to itself.
    #[test]
    fn codes_come_to_this_console_or_to_the_persons_own_machine_only() {
        let mut config = Config::new(vec!["core.example:7443".into(), "[2001:db8::1]:443".into()]);
        config.names = vec!["www.example".into(), "::1".into()];
        let redirects = Redirects::of(&config);
        let uni: ProviderId = "uni".parse().unwrap();
        for good in [
            "https://core.example:7443/sign-in/callback/uni",
            "https://www.example:7443/sign-in/callback/uni",
            "https://www.example/sign-in/callback/uni",
            "https://[::1]:7443/sign-in/callback/uni",
            "https://[2001:db8::1]/sign-in/callback/uni",
            "http://127.0.0.1:40000/sign-in/callback/uni",
        ] {
            redirects.check(good, &uni).unwrap_or_else(|e| panic!("{good}: {e}"));
        }
        for bad in [
            "https://evil.example:7443/sign-in/callback/uni",
            "https://core.example:7444/sign-in/callback/uni",
            "https://core.example:7443/sign-in/callback/other",
            "https://core.example:7443/sign-in/callback/uni?x=y",
            "https://core.example:7443/sign-in/callback/uni#x",
            "https://core.example:7443/sign-in/callback/../callback/uni",
            "https://core.example:7443@evil.example/sign-in/callback/uni",
            "https://core.example:7443.evil.example/sign-in/callback/uni",
            "http://core.example:7443/sign-in/callback/uni",
            "http://127.0.0.1/sign-in/callback/uni",
            "http://127.0.0.1.evil.example:4000/sign-in/callback/uni",
            "http://localhost:4000/sign-in/callback/uni",
            "http://0x7f000001:4000/sign-in/callback/uni",
            "HTTPS://core.example:7443/sign-in/callback/uni",
            "javascript:alert(1)",
            "xos://callback/uni",
            "",
        ] {
            assert!(redirects.check(bad, &uni).is_err(), "{bad}");
        }
    }
}
