//! Trust between sites: one administrator offers, the other accepts.

use crate::site::SiteDescriptor;
use crate::{Done, request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xos_base::{Millis, SiteId};

/// Invites a site to exchange trust. For this site's administrators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfferTrust {
    /// The invited site.
    pub site: SiteId,
    /// The fingerprint of its root, when known: then no other root is accepted for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}
request!(OfferTrust => TrustOffer, Post "/v1/sites/offer");

/// An invitation, to be sent to the other site's administrator by a way that others do not read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrustOffer {
    /// The text to send.
    pub offer: String,
    /// The fingerprint of this site's root: to be told by another way, and compared.
    pub fingerprint: String,
    /// Until when it can be accepted.
    pub expires: Millis,
}

/// What an invitation says, before it is accepted. For the invited site's administrators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadOffer {
    /// The text that came.
    pub offer: String,
}
request!(ReadOffer => OfferView, Post "/v1/sites/read-offer");

/// An invitation as its reader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfferView {
    /// Who invites.
    pub site: SiteId,
    /// Where its core listens.
    pub addresses: Vec<String>,
    /// The fingerprint of its root, to be compared with what its administrator tells.
    pub fingerprint: String,
    /// Until when it can be accepted.
    pub expires: Millis,
}

/// Accepts an invitation: both sites trust each other afterwards. For the invited site's
/// administrators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptTrust {
    /// The text that came.
    pub offer: String,
    /// The fingerprint of the inviting site's root, as its administrator told it.
    pub fingerprint: String,
}
request!(AcceptTrust => TrustedSite, Post "/v1/sites/accept");

/// The invited core tells the inviting one that it was accepted. Needs no proof but the
/// invitation's secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CompleteTrust {
    /// The invited site.
    pub site: SiteId,
    /// Its [`SiteStatement`], JWS signed by itself.
    pub statement: String,
    /// HMAC-SHA-256 of `statement` under the invitation's secret, 64 hexadecimal digits.
    pub proof: String,
}
request!(CompleteTrust => Done, Post "/v1/sites/complete");

/// What a site says about itself to another (JWS `xos-site-offer+jws`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SiteStatement {
    /// Who speaks.
    pub from: SiteDescriptor,
    /// To whom.
    pub to: SiteId,
    /// The invitation's secret, 64 hexadecimal digits; only in the inviting site's statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Until when it holds.
    pub expires: Millis,
}

/// The sites trusted here, this one included. For every caller that proves who they are: nodes and
/// people's tools reach VOs of other sites by it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListSites {}
request!(ListSites => Vec<TrustedSite>, Get "/v1/sites");

/// A site that is trusted here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrustedSite {
    /// What it says about itself.
    pub descriptor: SiteDescriptor,
    /// The fingerprint of its root.
    pub fingerprint: String,
    /// Since when; absent for this site itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Millis>,
}

/// Trusts a site no longer. For this site's administrators; the other site is not asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForgetSite {
    /// The site.
    pub site: SiteId,
}
request!(ForgetSite => Done, Delete "/v1/sites/{site}");
