//! A person looks at what they allowed services, and takes it back.

use super::grants::{GrantRecord, is_final};
use crate::Inner;
use crate::policy::PersonGrant;
use xos_api::Done;
use xos_api::cda::{Client, EndGrants, ListGrants, ServiceGrant};
use xos_base::{Error, PersonId};
use xos_net::Caller;

fn view(client: Client, g: &GrantRecord) -> ServiceGrant {
    let (since, last_used) = g.fetched();
    ServiceGrant {
        client: client.id,
        name: client.name,
        scopes: g.scopes.clone(),
        vos: g.vo().cloned().into_iter().collect(),
        since,
        last_used,
        until: g.until,
    }
}

/// Adds another grant of the same client.
fn add(to: &mut ServiceGrant, g: &GrantRecord) {
    let (since, last_used) = g.fetched();
    to.scopes.extend_from_slice(&g.scopes);
    to.scopes.sort_unstable();
    to.scopes.dedup();
    if let Some(vo) = g.vo().filter(|vo| !to.vos.contains(vo)) {
        to.vos.push(vo.clone());
    }
    to.since = to.since.min(since);
    to.last_used = to.last_used.max(last_used);
    to.until = to.until.max(g.until);
}

impl Inner {
    /// Whether the sign-in under a grant was not ended since. What became of its membership is
    /// asked when its client comes.
    async fn session_stands(&self, person: &PersonId, g: &GrantRecord) -> Result<bool, Error> {
        let who = PersonGrant { person: person.clone(), signed_in: g.signed_in, until: g.until };
        match self.enabled(&who).await {
            Ok(_) => Ok(true),
            Err(e) if is_final(e.kind) => Ok(false),
            Err(e) => Err(e),
        }
    }

    pub(crate) async fn list_grants(
        &self,
        caller: Caller,
        _: ListGrants,
    ) -> Result<Vec<ServiceGrant>, Error> {
        let who = self.deciding(&caller).await?;
        let mut all: Vec<ServiceGrant> = Vec::new();
        for grant in self.grants(&who.person).await? {
            if !self.session_stands(&who.person, &grant).await? {
                continue;
            }
            match all.iter().position(|known| known.client == grant.client) {
                Some(at) => add(&mut all[at], &grant),
                // A client that was taken away can do nothing by it.
                None => all.extend(self.client(&grant.client).await?.map(|c| view(c, &grant))),
            }
        }
        Ok(all)
    }

    pub(crate) async fn end_grants(&self, caller: Caller, r: EndGrants) -> Result<Done, Error> {
        let who = self.deciding(&caller).await?;
        let (person, now) = (&who.person, self.now());
        // First what can still become a grant.
        let code = self.provider.codes.forget(person, &r.client, now);
        let device = self
            .provider
            .devices
            .take_back(|wish, allowed| wish.client == r.client && allowed.person == *person, now);
        let grant = self.end_grants_of(person, &r.client).await?;
        if code || device || grant {
            return Ok(Done {});
        }
        Err(Error::not_found("nothing that you allowed this service stands any more")
            .hint("look again at the services that you allowed"))
    }
}
