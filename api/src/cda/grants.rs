//! What a person allowed services to which they signed in by this core, and taking it back.

use super::provider::Scope;
use crate::{Done, request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xos_base::{Millis, VoId};

/// Lists what the caller allowed services, as far as it stands. For a person of this site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListGrants {}
request!(ListGrants => Vec<ServiceGrant>, Get "/v1/provider/grants");

/// What a person allowed a service, all sign-ins to it together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceGrant {
    /// The `client_id`.
    pub client: String,
    /// What the service is called.
    pub name: String,
    /// What it may learn or do.
    pub scopes: Vec<Scope>,
    /// As whose member the person signed in to it.
    pub vos: Vec<VoId>,
    /// Since when it stands.
    pub since: Millis,
    /// When the service got tokens last.
    pub last_used: Millis,
    /// When it ends by itself.
    pub until: Millis,
}

/// Takes back all that the caller allowed a service: its refresh tokens are void at once, its
/// access tokens are told to be void, and what was allowed and not fetched yet is gone too. For a
/// person of this site. Refused as NotFound when nothing stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndGrants {
    /// [`ServiceGrant::client`].
    pub client: String,
}
request!(EndGrants => Done, Delete "/v1/provider/grants/{client}");
