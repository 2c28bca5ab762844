//! What the services of one site ask about the VOs it serves.

use super::{Terms, VoState};
use crate::request;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xos_base::{Millis, SiteId, VoId};

/// The VO as known here: for the own core (aem, xtreemfs).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VoView {
    /// The VO.
    pub vo: VoId,
}
request!(VoView => VoSnapshot, Get "/v1/vos/{vo}/view");

/// A VO without its members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VoSnapshot {
    /// The VO.
    pub vo: VoId,
    /// The number of the last log entry that it shows.
    pub number: u64,
    /// When the home was last heard; at the home, now.
    pub heard: Millis,
    /// Whether the VO works.
    pub state: VoState,
    /// Its volumes.
    pub volumes: Vec<String>,
    /// The sites that serve it now.
    pub sites: Vec<ServingSite>,
    /// This site's own side, when it has offered a share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<ServedVo>,
}

/// A site that serves a VO.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServingSite {
    /// The site.
    pub site: SiteId,
    /// What it gives.
    pub terms: Terms,
}

/// The sites that serve a VO now. For members and the own core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WhoServes {
    /// The VO.
    pub vo: VoId,
}
request!(WhoServes => Vec<ServingSite>, Get "/v1/vos/{vo}/sites");

/// The VOs to which this site has offered a share. For its administrator and its core.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServedVos {}
request!(ServedVos => Vec<ServedVo>, Get "/v1/served");

/// This site's side of one share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServedVo {
    /// The VO.
    pub vo: VoId,
    /// A member's local uid is this plus the member's number, a gid this plus the group's.
    pub base: u32,
    /// How many uids and gids from `base` on belong to the VO here; numbers not below it have no
    /// account at this site.
    pub size: u32,
    /// The limits in force; absent until the VO accepts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Terms>,
    /// The offer that the VO has not answered yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered: Option<Terms>,
    /// Whether work of the VO may start here now.
    pub serving: bool,
    /// Why not, or what is wrong with the view of the VO here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}
