//! The registered clients, and how they prove themselves.

use super::refused::Refused;
use super::{digest, name, redirects, same, secret};
use crate::registry::{self, Found};
use crate::{Inner, jwt};
use serde::{Deserialize, Serialize};
use xos_api::Done;
use xos_api::cda::{
    ANY_AUDIENCE, Client, ClientProof, CreateClient, CreatedClient, ListClients, OAuthError,
    RemoveClient, Secret,
};
use xos_base::Error;
use xos_base::text::hidden;
use xos_net::Caller;
use xos_store::{Guard, Op};

/// Most clients of a site.
const CLIENTS_MAX: usize = 1000;
/// Longest name, in characters.
const NAME_MAX: usize = 60;
/// Most places of one client to send browsers back to.
const REDIRECTS_MAX: usize = 16;

/// `cda/client/<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ClientRecord {
    pub(super) client: Client,
    /// The digest of its secret.
    secret: Option<String>,
}

/// Whether a text has the form of a `client_id`.
fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn check(r: &CreateClient) -> Result<(), Error> {
    let name = r.name.trim();
    if name.is_empty() || r.name.chars().count() > NAME_MAX || r.name.chars().any(hidden) {
        return Err(Error::invalid(format!(
            "the name of a client has 1 to {NAME_MAX} characters, no control characters and none \
             that is not shown or turns the direction of writing"
        )));
    }
    if r.redirects.len() > REDIRECTS_MAX {
        return Err(Error::invalid(format!("a client has at most {REDIRECTS_MAX} addresses")));
    }
    r.redirects.iter().try_for_each(|to| redirects::check(to, r.confidential))?;
    if r.redirects.is_empty() && !r.device && !r.introspect {
        return Err(Error::invalid("such a client could do nothing").hint(
            "name an address to send browsers back to, or let it sign people in by another device",
        ));
    }
    if r.introspect && !r.confidential {
        return Err(Error::invalid("who asks about tokens needs a secret")
            .hint("register it as confidential"));
    }
    if let Some(audience) = &r.audience {
        jwt::check_audience(audience).map_err(|e| Error::invalid(format!("audience: {e}")))?;
        if is_id(audience) {
            return Err(Error::invalid("audience: that is the id of a client")
                .hint("leave it out; then tokens are for the client itself"));
        }
    }
    Ok(())
}

impl Inner {
    pub(crate) async fn create_client(
        &self,
        caller: Caller,
        r: CreateClient,
    ) -> Result<CreatedClient, Error> {
        let grant = self.administrator(&caller).await?;
        check(&r)?;
        if self.registry.all::<ClientRecord>("client").await?.len() >= CLIENTS_MAX {
            return Err(Error::invalid(format!("there are {CLIENTS_MAX} clients already"))
                .hint("remove one that is not used"));
        }
        let mut scopes = r.scopes;
        scopes.sort_unstable();
        scopes.dedup();
        let id = name()?;
        let client = Client {
            name: r.name,
            confidential: r.confidential,
            redirects: r.redirects,
            device: r.device,
            scopes,
            audience: r.audience.unwrap_or_else(|| id.clone()),
            introspect: r.introspect,
            created: self.now(),
            id,
        };
        let secret = client.confidential.then(secret).transpose()?;
        let record = ClientRecord { client: client.clone(), secret: secret.as_deref().map(digest) };
        let key = registry::key("client", &client.id)?;
        let guards = vec![grant.guard, Guard::Absent(key.clone())];
        let op = registry::put(key, &record)?;
        self.registry.apply(guards, vec![op], "the client").await?;
        Ok(CreatedClient { client, secret: secret.map(Secret) })
    }

    pub(crate) async fn list_clients(
        &self,
        caller: Caller,
        _: ListClients,
    ) -> Result<Vec<Client>, Error> {
        self.administrator(&caller).await?;
        let all = self.registry.all::<ClientRecord>("client").await?;
        Ok(all.into_iter().map(|(_, record)| record.client).collect())
    }

    pub(crate) async fn remove_client(
        &self,
        caller: Caller,
        r: RemoveClient,
    ) -> Result<Done, Error> {
        let grant = self.administrator(&caller).await?;
        let found = self.client_found(&r.id).await?.ok_or_else(|| {
            Error::not_found("there is no such client").hint("`xos site client list` shows all")
        })?;
        let guards = vec![grant.guard, found.guard()];
        let what = found.value.client.name;
        self.registry.apply(guards, vec![Op::Del(found.key)], &what).await?;
        Ok(Done {})
    }

    async fn client_found(&self, id: &str) -> Result<Option<Found<ClientRecord>>, Error> {
        if !is_id(id) {
            return Ok(None);
        }
        self.registry.read(&registry::key("client", id)?).await
    }

    /// A client that is registered.
    pub(super) async fn client(&self, id: &str) -> Result<Option<Client>, Error> {
        Ok(self.client_found(id).await?.map(|found| found.value.client))
    }

    /// Refuses a JWT for what clients get tokens for: there it would pass for one, without the
    /// person's yes and without the sign-in that the client wants. Ids are refused whether or not
    /// somebody has them; the profile's word for any service is no client's.
    pub(crate) async fn check_no_client(&self, audience: &str) -> Result<(), Error> {
        if audience == ANY_AUDIENCE {
            return Ok(());
        }
        let mut taken = is_id(audience);
        if !taken {
            let all = self.registry.all::<ClientRecord>("client").await?;
            taken = all.iter().any(|(_, record)| record.client.audience == audience);
        }
        if !taken {
            return Ok(());
        }
        Err(Error::denied(format!("jwt_audience: tokens for {audience} come by signing in there"))
            .hint("sign in to the service itself: it is a client of this site's sign-in"))
    }

    /// A client that proved itself. One answer for an unknown client and a wrong secret.
    pub(super) async fn proved_client(&self, proof: &ClientProof) -> Result<Client, Refused> {
        let wrong = || Refused::new(OAuthError::InvalidClient, "unknown client or wrong secret");
        let found = self.client_found(&proof.id).await?.ok_or_else(wrong)?.value;
        let right = match (&found.secret, &proof.secret) {
            (Some(kept), Some(sent)) => same(kept, &digest(&sent.0)),
            (None, None) => true,
            _ => false,
        };
        if right { Ok(found.client) } else { Err(wrong()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, the page that asks for a person's yes would show another name than the client
    /// has, or two clients with the same.
    #[test]
    fn a_name_shows_what_it_is() {
        let named = |name: &str| {
            check(&CreateClient {
                name: name.to_owned(),
                redirects: Vec::new(),
                confidential: false,
                device: true,
                scopes: Vec::new(),
                audience: None,
                introspect: false,
            })
        };
        assert_eq!(named("Électre 日本"), Ok(()));
        for bad in ["", " ", "a\nb", "a\u{202e}b", "a\u{2066}b", "a\u{200b}b", "a\u{ad}b"] {
            assert!(named(bad).is_err(), "{bad:?} was taken");
        }
    }
}
