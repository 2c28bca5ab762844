//! `xos login --kerberos`, `xos account link kerberos`: the Kerberos ticket that the person holds.

use super::oidc::{check_person, site_of};
use super::session::Session;
use super::values::PersonArg;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use xos_api::cda::{
    Identity, KerberosToken, LinkKerberos, SignInKerberos, SignInOptions, SignedIn,
};
use xos_base::{Error, SiteId};
use xos_gssapi::{GssError, Initiator};
use xos_net::Client;
use xos_net::client::Far;
use xos_net::identity::end_point;

/// How to sign in by a ticket.
#[derive(Debug, clap::Args)]
pub struct KerberosArgs {
    /// Sign in by the Kerberos ticket that you hold (kinit).
    #[arg(long, conflicts_with_all = ["password_file", "provider"])]
    kerberos: bool,
    /// The core's service in Kerberos [default: HTTP@ and the host at which it is reached].
    #[arg(long, value_name = "NAME", requires = "kerberos", value_parser = service)]
    kerberos_service: Option<String>,
}

/// Reads the name of a service. Only that of a web server is asked for: whoever runs a core could
/// otherwise have people show it a ticket for something else.
///
/// # Errors
/// What to write instead.
pub fn service(text: &str) -> Result<String, String> {
    let host = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    match text.strip_prefix("HTTP@") {
        Some(rest) if !rest.is_empty() && rest.bytes().all(host) => Ok(text.to_owned()),
        _ => Err("write HTTP@ and a host, for example HTTP@core.rennes.example".into()),
    }
}

/// Signs in by a ticket, if that is asked for.
///
/// # Errors
/// What the site says; [`xos_base::Kind::Unauthenticated`] when the person holds no ticket, or the
/// core does not prove that it is the service, or it is somebody else than `user` who signed in.
pub async fn sign_in(
    s: &Session,
    args: &KerberosArgs,
    user: Option<&PersonArg>,
) -> Result<Option<SignedIn>, Error> {
    if !args.kerberos {
        return Ok(None);
    }
    let site = site_of(s, user)?;
    let client = s.anonymous(&site)?;
    check(&client, &site).await?;
    let signed_in = by_ticket(&client, &site, args.kerberos_service.clone()).await?;
    check_person(&signed_in, user, &site)?;
    Ok(Some(signed_in))
}

/// Links the principal of the ticket to the person whose `client` it is.
///
/// # Errors
/// As [`sign_in`]; the core proves itself by its certificate alone.
pub async fn link(
    client: &Client,
    site: &SiteId,
    service: Option<String>,
) -> Result<Identity, Error> {
    check(client, site).await?;
    let make = async |far: Far| {
        let (_, token) = ticket(far, service).await?;
        Ok::<_, Error>(LinkKerberos { token })
    };
    client.call_bound(make).await
}

async fn check(client: &Client, site: &SiteId) -> Result<(), Error> {
    if client.call(SignInOptions {}).await?.kerberos {
        return Ok(());
    }
    Err(Error::not_found(format!("{site} takes no Kerberos tickets"))
        .hint(format!("sign in by name and password: xos login NAME@{site}")))
}

/// A token that the person's ticket gives for the core at the far end of a connection.
async fn ticket(far: Far, service: Option<String>) -> Result<(Initiator, KerberosToken), Error> {
    // The host is that of the connection, not what the core says of itself.
    let service = service.unwrap_or_else(|| format!("HTTP@{}", far.host));
    let binding = end_point(&far.certificate);
    let asking = tokio::task::spawn_blocking(move || {
        Initiator::begin(&service, Some(&binding)).map_err(|e| no_ticket(&e, &service))
    });
    let (initiator, token) =
        asking.await.map_err(|e| Error::internal(format!("asking for a ticket failed: {e}")))??;
    Ok((initiator, KerberosToken(STANDARD.encode(token))))
}

async fn by_ticket(
    client: &Client,
    site: &SiteId,
    service: Option<String>,
) -> Result<SignedIn, Error> {
    let mut begun = None;
    let make = async |far: Far| {
        let (initiator, token) = ticket(far, service).await?;
        begun = Some(initiator);
        Ok::<_, Error>(SignInKerberos { token, audience: None, memberships: true })
    };
    let answer = client.call_bound(make).await?;
    let unproved = |why: &str| {
        Error::unauthenticated(format!("{site} did not prove its own ticket: {why}"))
            .hint("ask the site's administrator; nobody is signed in")
    };
    let token = STANDARD.decode(&answer.token.0).map_err(|e| unproved(&e.to_string()))?;
    let initiator = begun.ok_or_else(|| Error::internal("an answer without a ticket"))?;
    initiator.finish(&token).map_err(|e| unproved(&e.to_string()))?;
    Ok(answer.signed_in)
}

/// Why there is no ticket for the core, and what to do.
fn no_ticket(e: &GssError, service: &str) -> Error {
    match e {
        GssError::Library(_) => Error::unsupported(e.to_string())
            .hint("install it: apt-get install krb5-user; or sign in by name and password"),
        _ => Error::unauthenticated(format!("no Kerberos ticket for {service}: {e}")).hint(
            "get one with kinit and try again; if the service is not known, ask the site's \
             administrator for its name: --kerberos-service HTTP@HOST",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a person could be talked into showing a core their ticket for a file server.
    #[test]
    fn only_services_of_the_web_are_named() {
        assert!(service("HTTP@core.rennes.example").is_ok());
        for bad in ["HTTP@", "HTTP", "host@core", "http@core", "HTTP@a/b", "HTTP@a@B", ""] {
            assert!(service(bad).is_err(), "{bad}");
        }
    }
}
