//! Shares: what sites give to a VO.

use crate::{Done, request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xos_base::{Millis, SiteId, VoId};

/// What a site gives to a VO, and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// Processors, in thousandths of one.
    pub cpu_milli: u64,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Storage for the VO's volumes, in bytes.
    pub storage_bytes: u64,
    /// When the share ends by itself; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Millis>,
    /// Which offer of the site this is, from 1.
    pub version: u32,
}

/// Where a share stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ShareState {
    /// Waits for the VO's administrator.
    Offered,
    /// In force; a newer offer may wait.
    Accepted,
    /// The VO did not want it.
    Refused,
    /// The site or the VO ended it.
    Withdrawn,
}

/// A share as members and the site's administrator see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShareInfo {
    /// The giving site.
    pub site: SiteId,
    /// Where it stands.
    pub state: ShareState,
    /// The terms in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Terms>,
    /// The terms that wait for the VO's administrator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered: Option<Terms>,
    /// Why it was refused or ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Offers a share of this site to a VO. For this site's administrator, at this site's core.
///
/// A new offer while one is in force replaces it once the VO accepts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfferShare {
    /// The VO.
    pub vo: VoId,
    /// Processors, in thousandths of one.
    pub cpu_milli: u64,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Storage for the VO's volumes, in bytes.
    #[serde(default)]
    pub storage_bytes: u64,
    /// When the share ends by itself; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Millis>,
    /// First local uid and gid for the VO at this site, within [`xos_base::accounts::ID_RANGE`] as
    /// all that follow; absent: chosen. Cannot change later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<u32>,
}
request!(OfferShare => super::ServedVo, Post "/v1/vos/{vo}/offer");

/// Ends this site's share, at once here, and tells the VO's home as soon as it answers. For this
/// site's administrator, at this site's core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WithdrawShare {
    /// The VO.
    pub vo: VoId,
    /// Why, at most [`super::REASON_MAX`] characters.
    #[serde(default)]
    pub reason: String,
}
request!(WithdrawShare => Done, Delete "/v1/vos/{vo}/offer");

/// A site's core brings its offer to the VO's home. The same offer again changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecordOffer {
    /// The VO.
    pub vo: VoId,
    /// What is offered.
    pub terms: Terms,
}
request!(RecordOffer => Done, Post "/v1/vos/{vo}/shares");

/// A site's core tells the VO's home that its share has ended. Telling it again changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecordWithdrawal {
    /// The VO.
    pub vo: VoId,
    /// The version of the last offer that this ends.
    pub version: u32,
    /// Why.
    pub reason: String,
}
request!(RecordWithdrawal => Done, Post "/v1/vos/{vo}/shares/withdraw");

/// The shares of a VO, by site. For members, and for cores of sites that gave one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListShares {
    /// The VO.
    pub vo: VoId,
}
request!(ListShares => Vec<ShareInfo>, Get "/v1/vos/{vo}/shares");

/// Accepts an offer. For the VO's administrators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptShare {
    /// The VO.
    pub vo: VoId,
    /// The site.
    pub site: SiteId,
    /// Which of its offers: the one that was looked at.
    pub version: u32,
}
request!(AcceptShare => ShareInfo, Post "/v1/vos/{vo}/shares/{site}/accept");

/// Refuses an offer. For the VO's administrators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RefuseShare {
    /// The VO.
    pub vo: VoId,
    /// The site.
    pub site: SiteId,
    /// Which of its offers.
    pub version: u32,
    /// Why, at most [`super::REASON_MAX`] characters.
    #[serde(default)]
    pub reason: String,
}
request!(RefuseShare => Done, Post "/v1/vos/{vo}/shares/{site}/refuse");

/// Ends a share from the VO's side. For the VO's administrators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndShare {
    /// The VO.
    pub vo: VoId,
    /// The site.
    pub site: SiteId,
    /// Why, at most [`super::REASON_MAX`] characters.
    #[serde(default)]
    pub reason: String,
}
request!(EndShare => Done, Delete "/v1/vos/{vo}/shares/{site}");
