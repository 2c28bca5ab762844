//! Sites: who they are, and how one comes to trust another.

use crate::request;
use serde::{Deserialize, Serialize};
use xos_base::{NodeId, SiteId};

/// Most addresses or keys in one descriptor.
pub const DESCRIPTOR_LIST_MAX: usize = 16;

/// What a site tells others about itself; public.
///
/// Trust in it comes from how it was received: pinned by fingerprint, or exchanged by two
/// administrators (`xos site offer` and `accept`), afterwards over TLS that the pinned root proves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteDescriptor {
    /// The site.
    pub site: SiteId,
    /// Where its core listens: `host:port`, tried in order.
    pub addresses: Vec<String>,
    /// The site's root certificate, DER in base64.
    pub root: String,
    /// The public Ed25519 keys of the site's services, 32 bytes in base64, newest first. They
    /// sign VO logs, tokens, tickets and mandates.
    pub keys: Vec<String>,
}

/// Asks a core who its site is. Needs no proof of identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetSite {}
request!(GetSite => SiteDescriptor, Get "/v1/site");

/// The site's nodes that are connected to this core now. For the site's administrators.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectedNodes {}
request!(ConnectedNodes => Vec<NodeId>, Get "/v1/nodes/connected");
