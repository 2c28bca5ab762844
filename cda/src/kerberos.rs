//! Sign-in by Kerberos: people bring a ticket for this core (SPNEGO).
//!
//! The requests are served in `ops`; here is what they need: which tickets are taken, and whose.

mod config;
mod keytab;
pub(crate) mod principal;

pub use config::Kerberos;

use crate::config::Config;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use principal::Principal;
use rustls_pki_types::CertificateDer;
use std::sync::Arc;
use tokio::sync::Semaphore;
use xos_api::cda::{KERBEROS_TOKEN_MAX, KerberosToken};
use xos_base::Error;
use xos_gssapi::{Accepted, Acceptor, GssError};
use xos_net::identity::end_point;

/// Most tickets that are looked at at the same time; each may wait for the disk.
const AT_ONCE: usize = 4;

/// Kerberos as the configuration has it.
pub(crate) struct Tickets {
    pub(crate) config: Kerberos,
    acceptor: Arc<Acceptor>,
    turns: Semaphore,
}

/// One answer for every ticket that does not hold; the log says why.
fn not_taken() -> Error {
    Error::unauthenticated("your Kerberos ticket does not sign you in here")
        .hint("get a new one (kinit) and try again, or ask a site administrator")
}

impl Tickets {
    /// As the configuration, which was checked, has it; none when it has none. Blocks on the disk.
    ///
    /// # Errors
    /// [`xos_base::Kind::Invalid`] when the keytab cannot be used, or Kerberos is not installed.
    pub(crate) fn open(config: &Config) -> Result<Option<Tickets>, Error> {
        let Some(kerberos) = config.kerberos.clone() else { return Ok(None) };
        keytab::check(&kerberos.keytab)?;
        let service = kerberos.service(&config.addresses);
        let acceptor = Acceptor::new(&service, &kerberos.keytab).map_err(|e| {
            let hint = match &e {
                GssError::Library(_) => "install it: apt-get install libgssapi-krb5-2".to_owned(),
                _ => format!(
                    "`klist -k {}` shows what the keytab holds; it needs a key of {service}",
                    kerberos.keytab.display()
                ),
            };
            Error::invalid(format!("[cda.kerberos] {service}: {e}")).hint(hint)
        })?;
        let turns = Semaphore::new(AT_ONCE);
        Ok(Some(Tickets { config: kerberos, acceptor: Arc::new(acceptor), turns }))
    }

    /// Whose ticket it is, and the answer to it; for a connection at which the core showed `leaf`.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unauthenticated`] when it does not hold here, [`xos_base::Kind::Denied`]
    /// when its principal may not sign in, [`xos_base::Kind::Unsupported`] when one token does
    /// not do.
    pub(crate) async fn take(
        &self,
        token: &KerberosToken,
        leaf: &CertificateDer<'_>,
    ) -> Result<(Principal, KerberosToken), Error> {
        if token.0.len() > KERBEROS_TOKEN_MAX {
            return Err(Error::too_large(format!(
                "a Kerberos token has at most {KERBEROS_TOKEN_MAX} bytes"
            )));
        }
        let bytes = STANDARD.decode(&token.0).map_err(|_| not_taken())?;
        let (acceptor, binding) = (self.acceptor.clone(), end_point(leaf));
        let stopped = |_| Error::unavailable("this core is being stopped");
        let turn = self.turns.acquire().await.map_err(stopped)?;
        let accepted = tokio::task::spawn_blocking(move || acceptor.accept(&bytes, &binding)).await;
        drop(turn);
        let accepted =
            accepted.map_err(|e| Error::internal(format!("looking at a ticket failed: {e}")))?;
        self.judge(accepted)
    }

    fn judge(
        &self,
        accepted: Result<Accepted, GssError>,
    ) -> Result<(Principal, KerberosToken), Error> {
        let accepted = accepted.map_err(|e| {
            tracing::info!(error = %e, "a Kerberos ticket is refused");
            match e {
                GssError::MoreSteps => Error::unsupported(
                    "your side wants to sign in by Kerberos in several steps, which is not done here",
                )
                .hint("get a ticket (kinit), then sign in by `xos login --kerberos`"),
                _ => not_taken(),
            }
        })?;
        let principal = Principal::read(&accepted.principal, &self.config.realms)?;
        if self.config.require_binding && !accepted.bound {
            return Err(Error::denied(
                "your ticket is not bound to this connection, so that somebody in between could \
                 have sent it",
            )
            .hint("sign in by `xos login --kerberos`, or by a browser that binds it"));
        }
        Ok((principal, KerberosToken(STANDARD.encode(accepted.token))))
    }
}
