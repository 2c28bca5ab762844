//! The core as an OpenID provider: registered clients, and what people allow them.
//!
//! Clients speak HTTP forms (OAuth 2.0, RFC 6749), which the console translates into requests
//! ([`super::GetTokens`] and its like). A person allows a client in the console: by its redirect
//! (OpenID Connect Core, code with PKCE, RFC 7636), or by a code that another device shows
//! (RFC 8628).

use super::logins::NodeLogin;
use super::oidc::hidden;
use crate::{Done, request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use xos_base::ids::IdError;
use xos_base::{Millis, VoId};

/// Where a client sends a person's browser.
pub const AUTHORIZE_PATH: &str = "/oauth/authorize";
/// Where a client gets tokens.
pub const TOKEN_PATH: &str = "/oauth/token";
/// Where a client begins a sign-in by another device.
pub const DEVICE_GRANT_PATH: &str = "/oauth/device";
/// Where a client learns about the person.
pub const USERINFO_PATH: &str = "/oauth/userinfo";
/// Where a service asks about an access token (RFC 7662).
pub const INTROSPECT_PATH: &str = "/oauth/introspect";
/// Where a client gives tokens back (RFC 7009).
pub const REVOKE_PATH: &str = "/oauth/revoke";
/// Where a person types the code that another device shows.
pub const DEVICE_PATH: &str = "/device";
/// The grant type of RFC 8628.
pub const DEVICE_GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";

hidden!(
    /// A client's secret, a code or a token. Its `Debug` shows nothing.
    Secret
);

/// What a client may learn or do.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Scope {
    /// Who the person is: an ID token.
    #[serde(rename = "openid")]
    OpenId,
    /// The person's name at this site.
    #[serde(rename = "profile")]
    Profile,
    /// The VO that the person chose, and their groups in it, as WLCG writes them.
    #[serde(rename = "wlcg.groups")]
    WlcgGroups,
    /// The same with roles, as AARC-G069 writes them.
    #[serde(rename = "eduperson_entitlement")]
    Entitlement,
    /// Goes on when the person is away: a refresh token.
    #[serde(rename = "offline_access")]
    OfflineAccess,
}

impl Scope {
    /// All there are.
    pub const ALL: [Scope; 5] = [
        Scope::OpenId,
        Scope::Profile,
        Scope::WlcgGroups,
        Scope::Entitlement,
        Scope::OfflineAccess,
    ];

    /// As it stands in requests.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::OpenId => "openid",
            Scope::Profile => "profile",
            Scope::WlcgGroups => "wlcg.groups",
            Scope::Entitlement => "eduperson_entitlement",
            Scope::OfflineAccess => "offline_access",
        }
    }

    /// Whether it speaks of a VO.
    pub fn is_of_vo(self) -> bool {
        matches!(self, Scope::WlcgGroups | Scope::Entitlement)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Scope, IdError> {
        Scope::ALL.into_iter().find(|s| s.as_str() == text).ok_or_else(|| IdError {
            text: text.chars().take(64).collect(),
            what: "scope",
            want: "openid, profile, wlcg.groups, eduperson_entitlement or offline_access",
        })
    }
}

/// A program or service to which people of this site may sign in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// Its `client_id`.
    pub id: String,
    /// What people read when they are asked.
    pub name: String,
    /// It has a secret.
    pub confidential: bool,
    /// Where browsers are sent back to; with none, no browser is sent to this site by it.
    pub redirects: Vec<String>,
    /// It may sign in people by another device.
    pub device: bool,
    /// What it may ask for.
    pub scopes: Vec<Scope>,
    /// The `aud` of its access tokens: the service that they are for.
    pub audience: String,
    /// It may ask about access tokens for its audience.
    pub introspect: bool,
    /// Since when it is known.
    pub created: Millis,
}

/// Registers a client. For the site's administrators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateClient {
    /// What people read when they are asked: 1 to 60 characters.
    pub name: String,
    /// Where browsers may be sent back to, compared letter for letter: `https`, `http` on the
    /// person's own machine with any port (RFC 8252, 7.3), and for a client without a secret
    /// schemes of its own with a dot in them (7.1).
    #[serde(default)]
    pub redirects: Vec<String>,
    /// It keeps a secret; else it is a program on people's machines.
    #[serde(default)]
    pub confidential: bool,
    /// It may sign in people by another device.
    #[serde(default)]
    pub device: bool,
    /// What it may ask for.
    #[serde(default)]
    pub scopes: Vec<Scope>,
    /// As [`Client::audience`]; absent: its own id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// As [`Client::introspect`]; takes a secret.
    #[serde(default)]
    pub introspect: bool,
}
request!(CreateClient => CreatedClient, Post "/v1/provider/clients");

/// A client that was registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreatedClient {
    /// The client.
    pub client: Client,
    /// Its secret, which nobody can show again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
}

/// Lists the clients. For the site's administrators.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListClients {}
request!(ListClients => Vec<Client>, Get "/v1/provider/clients");

/// Takes a client away: nothing is issued to it any more. For the site's administrators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveClient {
    /// Its `client_id`.
    pub id: String,
}
request!(RemoveClient => Done, Delete "/v1/provider/clients/{id}");

/// What a client wants, as a person's browser brings it (OpenID Connect Core, 3.1.2.1).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Authorization {
    /// `code`.
    pub response_type: String,
    /// The client.
    pub client_id: String,
    /// Where the browser goes back to.
    pub redirect_uri: String,
    /// Scopes, parted by blanks.
    pub scope: String,
    /// Given back as it is.
    pub state: String,
    /// Comes to stand in the ID token.
    pub nonce: String,
    /// Of PKCE.
    pub code_challenge: String,
    /// `S256`.
    pub code_challenge_method: String,
    /// `query` or nothing.
    pub response_mode: String,
    /// `none`, `login`, ...
    pub prompt: String,
    /// How old the sign-in may be, in seconds.
    pub max_age: String,
}

/// What to show a person who comes with an [`Authorization`]. For a person of this site.
///
/// Refused as Invalid when the client or the place to go back to is not registered: then the
/// browser is sent nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShowAuthorization {
    /// The request.
    pub request: Authorization,
}
request!(ShowAuthorization => Shown, Post "/v1/provider/authorization");

/// The answer to [`ShowAuthorization`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Shown {
    /// Ask the person.
    Ask(Consent),
    /// The client wants a newer sign-in.
    SignInAgain {
        /// The client's name.
        client: String,
    },
    /// Nothing can be asked: send the browser back with the error.
    Back(Secret),
}

/// What a person is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Consent {
    /// The client's name.
    pub client: String,
    /// Where the browser goes back to, without its query; absent for another device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back: Option<String>,
    /// What it wants, as far as it may.
    pub scopes: Vec<Scope>,
    /// The VOs as whose member the person may sign in; empty when no scope speaks of a VO.
    pub vos: Vec<VoChoice>,
}

/// A VO at home here that the person is a member of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VoChoice {
    /// The VO.
    pub vo: VoId,
    /// What it is called.
    pub title: String,
}

/// What the person decided. For a person of this site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DecideAuthorization {
    /// The request, as it was shown.
    pub request: Authorization,
    /// Yes or no.
    pub allow: bool,
    /// As whose member; absent: the scopes that speak of a VO fall away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vo: Option<VoId>,
}
request!(DecideAuthorization => Secret, Post "/v1/provider/authorization/decide");

/// What to show a person who typed a code that another device shows. For a person of this site;
/// wrong codes are counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShowDevice {
    /// The code; case, blanks and hyphens do not matter.
    pub user_code: String,
}
request!(ShowDevice => DeviceWish, Post "/v1/provider/device");

/// What waits for a code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeviceWish {
    /// A client.
    Client(Consent),
    /// A login of this person to a machine.
    Login(NodeLogin),
}

/// What the person decided. For a person of this site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DecideDevice {
    /// The code.
    pub user_code: String,
    /// Yes or no.
    pub allow: bool,
    /// As [`DecideAuthorization::vo`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vo: Option<VoId>,
}
request!(DecideDevice => Done, Post "/v1/provider/device/decide");

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a client's configuration would mean something else than it says.
    #[test]
    fn scopes_read_as_they_are_written() {
        for scope in Scope::ALL {
            assert_eq!(scope.as_str().parse::<Scope>().unwrap(), scope);
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.as_str());
        }
        assert!("admin".parse::<Scope>().is_err());
    }
}
