//! What a person signs in by: passkeys, and the accounts at identity providers that are linked to
//! them; and the services to which they signed in by this site.

use super::passkeys::{Own, own};
use super::provider::{Purpose, leave};
use super::services::{self, Service};
use crate::view::{Frame, When, page};
use crate::visit::{Reply, Shown, Visit};
use askama::Template;
use xos_api::cda::{
    Identity, KERBEROS_PROVIDER, ListIdentities, SignInOptions, SignInProvider, UnlinkIdentity,
};
use xos_base::{Error, ProviderId};

/// An account in the list.
struct Account {
    provider: ProviderId,
    title: String,
    key: String,
    name: String,
    since: When,
}

#[derive(Template)]
#[template(path = "account.html")]
struct View {
    frame: Frame,
    password: bool,
    accounts: Vec<Account>,
    providers: Vec<SignInProvider>,
    /// Absent where this page's host cannot use them.
    passkeys: Option<Own>,
    kerberos: bool,
    services: Vec<Service>,
}

/// The list, and what can be linked.
pub(crate) async fn show(visit: Visit) -> Shown {
    let ways = visit.ask(ListIdentities {}).await?;
    let rules = visit.console.grid.local_public(visit.peer, SignInOptions {}).await?;
    let title = |id: &ProviderId| {
        if rules.kerberos && id.as_str() == KERBEROS_PROVIDER {
            return "Kerberos".to_owned();
        }
        let known = rules.providers.iter().find(|p| p.id == *id);
        known.map_or_else(|| format!("{id} (no longer in use)"), |p| p.title.clone())
    };
    let account = |i: Identity| Account {
        title: title(&i.provider),
        provider: i.provider,
        key: i.key,
        name: i.name,
        since: i.since.into(),
    };
    let accounts = ways.identities.into_iter().map(account).collect();
    let passkeys = own(&visit, rules.passkeys.as_deref()).await?;
    let services = services::own(&visit).await?;
    let frame = Frame::of(&visit, "Ways to sign in", "account").await;
    let (password, kerberos, providers) = (ways.password, rules.kerberos, rules.providers);
    page(&View { frame, password, accounts, providers, passkeys, kerberos, services })
}

/// Goes to a provider, to link the account there.
pub(crate) async fn link(visit: Visit) -> Shown {
    leave(&visit, Purpose::Link, "/account".into()).await
}

/// Takes a link away. All sessions of the person end, this one too.
pub(crate) async fn unlink(visit: Visit) -> Shown {
    let provider: ProviderId = visit.place("provider")?;
    let key = visit.places.iter().find(|(k, _)| k == "key").map(|(_, v)| v.clone());
    let key = key.ok_or_else(|| Error::invalid("which account?"))?;
    visit.ask(UnlinkIdentity { provider, key }).await?;
    visit.console.sessions.end(&visit.session);
    Ok(Reply::End("/sign-in".into()))
}
