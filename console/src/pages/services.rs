//! The services that a person allowed to sign them in by this core: the account page's part about
//! them, and taking that back.

use super::consent::words;
use crate::view::When;
use crate::visit::{Shown, Stop, Visit, done};
use xos_api::cda::{EndGrants, ListGrants, ServiceGrant};
use xos_base::VoId;

/// A service in the list.
pub(crate) struct Service {
    pub(crate) client: String,
    pub(crate) name: String,
    /// What it learns, in a person's words.
    pub(crate) learns: Vec<&'static str>,
    pub(crate) vos: Vec<VoId>,
    pub(crate) since: When,
    pub(crate) last_used: When,
    pub(crate) until: When,
}

impl From<ServiceGrant> for Service {
    fn from(g: ServiceGrant) -> Service {
        Service {
            client: g.client,
            name: g.name,
            learns: g.scopes.into_iter().map(words).collect(),
            vos: g.vos,
            since: g.since.into(),
            last_used: g.last_used.into(),
            until: g.until.into(),
        }
    }
}

/// What the visitor allowed.
pub(crate) async fn own(visit: &Visit) -> Result<Vec<Service>, Stop> {
    Ok(visit.ask(ListGrants {}).await?.into_iter().map(Service::from).collect())
}

/// Takes back what the visitor allowed a service.
pub(crate) async fn revoke(visit: Visit) -> Shown {
    let client = visit.places.iter().find(|(k, _)| k == "client").map(|(_, v)| v.clone());
    visit.ask(EndGrants { client: client.ok_or(Stop::NoSuchPage)? }).await?;
    let notice = "The service gets nothing more from this site. What it holds already ends within \
                  20 minutes; it may keep what it has read.";
    done(&visit, "/account".into(), notice)
}
