//! `xos account`: what a person signs in by, and the services that they allowed.

use super::ask;
use super::job::INTERRUPTED;
use super::kept::KeptToken;
use super::kerberos;
use super::oidc::{self, Way};
use super::output::{Outcome, Table, clean, list, when};
use super::session::Session;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::time::Duration;
use xos_api::cda::{
    EndGrants, Identities, KERBEROS_PROVIDER, LINK_AGE_MAX_S, ListGrants, ListIdentities,
    ServiceGrant, UnlinkIdentity,
};
use xos_base::{Error, Millis, PersonId, ProviderId};
use xos_net::Client;
use xos_net::caller::TokenClaims;

/// `xos account …`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show by what you can sign in.
    #[command(after_help = "Examples:\n  xos account list\n  xos account list --json")]
    List,
    /// Link another account to you, so that you can sign in by it too.
    Link(Link),
    /// Take an account away from you, and sign out everywhere.
    Unlink(Unlink),
    /// Show the services that you allowed to learn about you.
    #[command(after_help = "Examples:\n  xos account services\n  xos account services --json")]
    Services,
    /// Take back what you allowed a service.
    #[command(after_help = "Example:\n  xos account revoke 0123456789abcdef0123456789abcdef")]
    Revoke {
        /// Its id, as `xos account services` shows it.
        client: String,
    },
}

/// `xos account link`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos account link uni                 in a browser on this computer
  xos account link uni --device        in a browser on another device
  xos account link kerberos            the principal of the Kerberos ticket that you hold

You prove both in one go: who you are here, by a sign-in of the last five minutes, and the \
account, by signing in there now.")]
pub struct Link {
    /// The identity provider of your site, or kerberos.
    provider: ProviderId,
    /// Show an address and a code for a browser on another device [default without a desktop].
    #[arg(long)]
    device: bool,
    /// Open a browser on this computer [default on a desktop].
    #[arg(long, conflicts_with = "device")]
    browser: bool,
    /// The core's service in Kerberos [default: HTTP@ and the host at which it is reached].
    #[arg(long, value_name = "NAME", value_parser = kerberos::service)]
    kerberos_service: Option<String>,
}

/// `xos account unlink`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos account unlink uni
  xos account unlink uni 2f7a...       when you have linked several there

It takes a sign-in of the last five minutes. The last way to sign in stays.")]
pub struct Unlink {
    /// The identity provider, or kerberos.
    provider: ProviderId,
    /// Which account there, as `xos account list` shows it [default: the only one].
    account: Option<String>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

/// Runs a command of this group.
///
/// # Errors
/// What the person's own core says.
pub async fn run(s: &Session, command: Command) -> Outcome {
    let person = s.signed_in()?.person;
    let client = s.person(&person.site()).await?;
    match command {
        Command::List => show(s, &client).await,
        Command::Link(args) => link(s, &client, &person, args).await,
        Command::Unlink(args) => unlink(s, &client, &person, args).await,
        Command::Services => services(s, &client).await,
        Command::Revoke { client: service } => revoke(s, &client, service).await,
    }
}

async fn show(s: &Session, client: &Client) -> Outcome {
    let ways: Identities = client.call(ListIdentities {}).await?;
    let now = s.now();
    s.out.show(&ways, || {
        let mut table = Table::new(&["BY", "NAME THERE", "SINCE", "ACCOUNT"]);
        if ways.password {
            table.row(["password".into(), String::new(), String::new(), String::new()]);
        }
        for i in &ways.identities {
            let (by, since) = (i.provider.to_string(), when(i.since, now));
            table.row([by, clean(&i.name), since, clean(&i.key)]);
        }
        table.text("Neither a password nor an account. Passkeys stand in the console.")
    })?;
    Ok(0)
}

/// How long ago the person signed in when the token came, and since, as far as the token says: by
/// the core's clock, whatever this computer's shows.
fn signed_in_ago(kept: &KeptToken, now: Millis) -> Option<Duration> {
    let claims = URL_SAFE_NO_PAD.decode(kept.token.token.split('.').nth(1)?).ok()?;
    let claims: TokenClaims = serde_json::from_slice(&claims).ok()?;
    let before = Duration::from_secs(claims.iat.saturating_sub(claims.auth_time?));
    Some(now.since(kept.issued).saturating_add(before))
}

/// Refuses what the core would refuse later, after the person signed in somewhere for nothing.
fn check_fresh(s: &Session, person: &PersonId) -> Result<(), Error> {
    let (login, now) = (s.signed_in()?, s.now());
    let ago = login.token(&person.site(), now).and_then(|kept| signed_in_ago(kept, now));
    if ago.is_none_or(|ago| ago <= Duration::from_secs(LINK_AGE_MAX_S)) {
        return Ok(());
    }
    Err(Error::unauthenticated("for this you must have signed in within the last five minutes")
        .hint(format!("sign in again, then do it at once: xos login {person}")))
}

async fn link(s: &Session, client: &Client, person: &PersonId, args: Link) -> Outcome {
    check_fresh(s, person)?;
    let site = person.site();
    let identity = if args.provider.as_str() == KERBEROS_PROVIDER {
        kerberos::link(client, &site, args.kerberos_service).await?
    } else {
        let way = Way::of(args.browser, args.device);
        let Some(identity) = oidc::link(s, client, &site, &args.provider, way).await? else {
            s.out.note("Nothing is linked.")?;
            return Ok(INTERRUPTED);
        };
        identity
    };
    s.out.show(&identity, || {
        let (name, provider) = (clean(&identity.name), &identity.provider);
        format!("The account {name} at {provider} is linked: {person} can sign in by it.")
    })?;
    Ok(0)
}

/// The account that is meant where none is named.
fn only(ways: &Identities, provider: &ProviderId) -> Result<String, Error> {
    let there: Vec<&str> =
        ways.identities.iter().filter(|i| i.provider == *provider).map(|i| &*i.key).collect();
    match there.as_slice() {
        [key] => Ok((*key).to_owned()),
        [] => Err(Error::not_found(format!("no account at {provider} is linked to you"))
            .hint("`xos account list` shows what is")),
        _ => Err(Error::invalid(format!("several accounts at {provider} are linked to you"))
            .hint("say which, as `xos account list` shows it")),
    }
}

async fn unlink(s: &Session, client: &Client, person: &PersonId, args: Unlink) -> Outcome {
    check_fresh(s, person)?;
    let provider = args.provider;
    let key = match args.account {
        Some(key) => key,
        None => only(&client.call(ListIdentities {}).await?, &provider)?,
    };
    if !args.yes {
        let question = format!(
            "You cannot sign in by this account at {provider} any more, and are signed out \
             everywhere. Unlink it?"
        );
        ask::consent(&question, "add --yes", "nothing was changed")?;
    }
    let ask = UnlinkIdentity { provider: provider.clone(), key };
    let done = client.call(ask).await?;
    // The sign-in that it was done with has ended.
    s.end_login()?;
    s.out.show(&done, || {
        format!("The account at {provider} is unlinked. Sign in again: xos login {person}")
    })?;
    Ok(0)
}

async fn services(s: &Session, client: &Client) -> Outcome {
    let services: Vec<ServiceGrant> = client.call(ListGrants {}).await?;
    let now = s.now();
    s.out.show(&services, || {
        let mut table =
            Table::new(&["SERVICE", "LEARNS", "AS MEMBER OF", "SINCE", "USED", "ENDS", "CLIENT"]);
        for g in &services {
            table.row([
                clean(&g.name),
                list(&g.scopes),
                list(&g.vos),
                when(g.since, now),
                when(g.last_used, now),
                when(g.until, now),
                clean(&g.client),
            ]);
        }
        table.text("No service can learn about you now.")
    })?;
    Ok(0)
}

async fn revoke(s: &Session, client: &Client, service: String) -> Outcome {
    let done = client.call(EndGrants { client: service }).await?;
    s.out.show(&done, || {
        "It gets nothing more from your site. What it holds already ends within 20 minutes."
            .to_owned()
    })?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_api::cda::{Identity, Token};

    fn kept(claims: &str, issued: u64) -> KeptToken {
        let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        let audience = "rennes".parse().unwrap();
        let token = Token { token, audience, expires: Millis(9_000_000) };
        KeptToken { token, issued: Millis(issued) }
    }

    /// If it failed, a person would prove an account for nothing, or, on a computer whose clock is
    /// wrong, could link none.
    #[test]
    fn the_age_of_a_sign_in_is_told_by_the_cores_clock() {
        let claims = |iat: u64, auth_time: &str| {
            format!(
                "{{\"iss\":\"rennes\",\"sub\":\"alice@rennes\",\"aud\":\"rennes\",\"iat\":{iat},\
                 \"exp\":99,\"jti\":\"j\"{auth_time}}}"
            )
        };
        // The core's clock is far ahead of this computer's.
        let token = kept(&claims(1_000_200, ",\"auth_time\":1000000"), 5_000);
        let ago = signed_in_ago(&token, Millis(35_000));
        assert_eq!(ago, Some(Duration::from_secs(230)));
        assert_eq!(signed_in_ago(&kept(&claims(1, ""), 0), Millis(0)), None);
        assert_eq!(signed_in_ago(&kept("no claims", 0), Millis(0)), None);
    }

    /// If it failed, another account than the one that is meant would be taken away.
    #[test]
    fn an_account_is_not_guessed() {
        let one = |provider: &str, key: &str| Identity {
            provider: provider.parse().unwrap(),
            key: key.into(),
            name: "n".into(),
            since: Millis(1),
        };
        let identities = vec![one("uni", "a"), one("lab", "b"), one("lab", "c")];
        let ways = Identities { password: true, identities };
        let only = |provider: &str| only(&ways, &provider.parse().unwrap());
        assert_eq!(only("uni").unwrap(), "a");
        assert_eq!(only("lab").unwrap_err().kind, xos_base::Kind::Invalid);
        assert_eq!(only("kerberos").unwrap_err().kind, xos_base::Kind::NotFound);
    }
}
