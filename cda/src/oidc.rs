//! Sign-in by OpenID Connect providers, for which this core is a client (relying party).
//!
//! The requests are served in `ops`; here is what they need: the providers, and the flows that are
//! under way.

mod claims;
mod config;
mod flows;
pub(crate) mod known;
mod provider;
mod redirect;
mod secret;
pub(crate) mod token;
mod web;

pub use config::{Accounts, Provider, Wanted};

pub(crate) use claims::{Claims, account_key, check, name, person};
pub(crate) use flows::{CodeFlow, Flows, Turn};
pub(crate) use provider::Polled;

use crate::config::Config;
use redirect::Redirects;
use xos_api::cda::SignInProvider;
use xos_base::{Error, ProviderId};

/// The providers of the configuration, and the sign-ins under way.
pub(crate) struct Oidc {
    providers: Vec<provider::Provider>,
    redirects: Redirects,
    pub(crate) flows: Flows,
}

impl Oidc {
    /// As the configuration, which was checked, has it. Blocks on the disk.
    ///
    /// # Errors
    /// [`xos_base::Kind::Invalid`] when a file that a provider names cannot be used.
    pub(crate) fn open(config: &Config) -> Result<Oidc, Error> {
        let providers =
            config.providers.iter().map(provider::Provider::open).collect::<Result<_, _>>()?;
        let redirects = Redirects::of(config);
        Ok(Oidc { providers, redirects, flows: Flows::default() })
    }

    /// What people may choose from.
    pub(crate) fn choice(&self) -> Vec<SignInProvider> {
        let one = |p: &provider::Provider| SignInProvider {
            id: p.config.id.clone(),
            title: p.config.title().to_owned(),
        };
        self.providers.iter().map(one).collect()
    }

    /// Whether people can sign in by this one.
    pub(crate) fn has(&self, id: &ProviderId) -> bool {
        self.providers.iter().any(|p| p.config.id == *id)
    }

    /// A provider.
    ///
    /// # Errors
    /// [`xos_base::Kind::NotFound`].
    pub(crate) fn provider(&self, id: &ProviderId) -> Result<&provider::Provider, Error> {
        self.providers.iter().find(|p| p.config.id == *id).ok_or_else(|| {
            let known: Vec<&str> = self.providers.iter().map(|p| p.config.id.as_str()).collect();
            let hint = match known.as_slice() {
                [] => "sign in by your name and password".to_owned(),
                known => format!("this site has: {}", known.join(", ")),
            };
            Error::not_found(format!("this site has no identity provider {id}")).hint(hint)
        })
    }

    /// Refuses a place to which no browser may be sent back.
    ///
    /// # Errors
    /// [`xos_base::Kind::Invalid`].
    pub(crate) fn check_redirect(&self, text: &str, provider: &ProviderId) -> Result<(), Error> {
        self.redirects.check(text, provider)
    }
}
