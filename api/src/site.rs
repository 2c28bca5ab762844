//! Sites: who they are, and how one comes to trust another.

use crate::{Done, request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xos_base::{Millis, NodeId, SiteId};

/// Most addresses or keys in one descriptor.
pub const DESCRIPTOR_LIST_MAX: usize = 16;
/// Most withdrawn keys that one descriptor tells of.
pub const WITHDRAWN_MAX: usize = 1000;
/// Most former signing keys of which entries of VO logs still count.
pub const LOG_KEYS_MAX: usize = 64;

/// What a site tells others about itself; public.
///
/// Trust in the root comes from how it was received: pinned by fingerprint, or exchanged by two
/// administrators (`xos site offer` and `accept`). The keys hold because the root signed them, and
/// what was withdrawn because such a key signed it; the addresses, because whoever answers there
/// must prove to be the site's core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SiteDescriptor {
    /// The site.
    pub site: SiteId,
    /// Where its core listens: `host:port`, tried in order.
    pub addresses: Vec<String>,
    /// The site's root certificate, DER in base64.
    pub root: String,
    /// [`SiteKeys`], JWS `xos-site-keys+jws` (ES256) by the root's key.
    pub keys: String,
    /// [`WithdrawnKeys`], JWS `xos-withdrawn+jws` by the first of the keys; absent where it does
    /// not matter, or when nothing was ever withdrawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<String>,
}

/// The keys by which a site's services sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SiteKeys {
    /// The site.
    pub site: SiteId,
    /// The public Ed25519 keys, 32 bytes in base64, newest first. They sign VO logs, tokens,
    /// tickets and mandates. The newest may be known before it signs.
    pub keys: Vec<String>,
    /// The public Ed25519 keys that sign SSH certificates of people, 32 bytes in base64, newest
    /// first. Good for members of VOs homed at the site only.
    pub ssh_people: Vec<String>,
    /// Those that sign SSH certificates of the site's machines.
    pub ssh_machines: Vec<String>,
    /// Former signing keys, at most [`LOG_KEYS_MAX`]: only entries of VO logs still count under
    /// them, since a site that comes to serve a VO reads its log from the beginning.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<String>,
    /// Authorities below the root that sign certificates no more, and whose certificates are
    /// refused: fingerprints of their keys, SHA-256 over the SubjectPublicKeyInfo, hex.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
    /// When this was said; a later word counts instead of an earlier one.
    pub issued: Millis,
}

impl SiteKeys {
    /// A word on signing keys alone.
    pub fn signing(site: &SiteId, keys: Vec<String>, issued: Millis) -> SiteKeys {
        let none = Vec::new;
        SiteKeys {
            site: site.clone(),
            keys,
            ssh_people: none(),
            ssh_machines: none(),
            logs: none(),
            refused: none(),
            issued,
        }
    }
}

/// The keys of a site's nodes that were withdrawn before their certificates expired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WithdrawnKeys {
    /// The site. It withdraws keys of its own nodes only.
    pub site: SiteId,
    /// The keys, at most [`WITHDRAWN_MAX`].
    pub keys: Vec<WithdrawnKey>,
    /// When this was said; a later word counts instead of an earlier one.
    pub issued: Millis,
}

/// A withdrawn key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WithdrawnKey {
    /// Its fingerprint: SHA-256 over the SubjectPublicKeyInfo, hex.
    pub key: String,
    /// When the last certificate for it expires.
    pub until: Millis,
}

/// Asks a core who its site is. Needs no proof of identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetSite {}
request!(GetSite => SiteDescriptor, Get "/v1/site");

/// A core tells another that its descriptor has changed: the called core fetches it soon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SiteChanged {}
request!(SiteChanged => Done, Post "/v1/sites/changed");

/// The site's nodes that are connected to this core now. For the site's administrators.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectedNodes {}
request!(ConnectedNodes => Vec<NodeId>, Get "/v1/nodes/connected");
