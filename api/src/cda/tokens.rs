//! What registered clients ask the core for as programs: tokens, and what they say (OAuth 2.0).

use super::provider::Secret;
use crate::{Done, request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How a client proves itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientProof {
    /// Its `client_id`.
    pub id: String,
    /// Its secret, when it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
}

/// What tokens are asked for by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TokenGrant {
    /// A code that a browser brought.
    Code {
        /// The code.
        code: Secret,
        /// Where it was brought to.
        redirect_uri: String,
        /// Of PKCE.
        verifier: Secret,
    },
    /// A sign-in by another device.
    Device {
        /// What the client got when it began.
        device_code: Secret,
    },
    /// A refresh token, which is good once.
    Refresh {
        /// The token.
        refresh_token: Secret,
        /// Only these scopes; absent: all.
        scope: Option<String>,
    },
}

/// A client asks for tokens. Needs no proof but the client's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetTokens {
    /// The client.
    pub client: ClientProof,
    /// By what.
    pub grant: TokenGrant,
}
request!(GetTokens => OAuth<Tokens>, Post "/v1/provider/token");

/// Tokens (RFC 6749, 5.1; OpenID Connect Core, 3.1.3.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tokens {
    /// A JWT (RFC 9068) with WLCG claims; no core takes it for a proof.
    pub access_token: Secret,
    /// `Bearer`.
    pub token_type: String,
    /// How long it is good, in seconds.
    pub expires_in: u64,
    /// What was granted.
    pub scope: String,
    /// For the next tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<Secret>,
    /// Who the person is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_token: Option<Secret>,
}

/// A client begins a sign-in by another device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BeginDeviceGrant {
    /// The client.
    pub client: ClientProof,
    /// Scopes, parted by blanks.
    pub scope: String,
}
request!(BeginDeviceGrant => OAuth<DeviceCodes>, Post "/v1/provider/device/begin");

/// The answer to [`BeginDeviceGrant`] (RFC 8628, 3.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceCodes {
    /// For the client.
    pub device_code: Secret,
    /// For the person.
    pub user_code: String,
    /// Where the person goes.
    pub verification_uri: String,
    /// The same with the code in it.
    pub verification_uri_complete: String,
    /// How long they are good, in seconds.
    pub expires_in: u64,
    /// How long to wait before each question, in seconds.
    pub interval: u64,
}

/// A client asks about the person, with an access token (OpenID Connect Core, 5.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetUserInfo {
    /// The token.
    pub token: Secret,
}
request!(GetUserInfo => OAuth<Map<String, Value>>, Post "/v1/provider/userinfo");

/// A service asks whether an access token is good (RFC 7662).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IntrospectToken {
    /// The service.
    pub client: ClientProof,
    /// The token.
    pub token: Secret,
}
request!(IntrospectToken => OAuth<Map<String, Value>>, Post "/v1/provider/introspect");

/// A client gives a token back: all that was issued by the same grant ends (RFC 7009).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeToken {
    /// The client.
    pub client: ClientProof,
    /// A refresh or access token.
    pub token: Secret,
}
request!(RevokeToken => OAuth<Done>, Post "/v1/provider/revoke");

/// An answer in OAuth's own words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "OAuthOf{T}")]
pub enum OAuth<T> {
    /// It went well.
    Granted(T),
    /// It did not.
    Refused(OAuthRefusal),
}

/// An error (RFC 6749, 5.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OAuthRefusal {
    /// For the program.
    pub error: OAuthError,
    /// For who looks after it.
    pub error_description: String,
}

macro_rules! oauth_errors {
    ($($(#[$doc:meta])* $name:ident => $text:literal,)*) => {
        /// The errors of OAuth and OpenID Connect that are answered.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        pub enum OAuthError {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl OAuthError {
            /// As it stands in answers.
            pub fn as_str(self) -> &'static str {
                match self { $(OAuthError::$name => $text,)* }
            }
        }
    };
}

oauth_errors! {
    /// RFC 6749, 4.1.2.1 and 5.2.
    InvalidRequest => "invalid_request",
    /// RFC 6749, 5.2.
    InvalidClient => "invalid_client",
    /// RFC 6749, 5.2.
    InvalidGrant => "invalid_grant",
    /// RFC 6749, 4.1.2.1 and 5.2.
    UnauthorizedClient => "unauthorized_client",
    /// RFC 6749, 5.2.
    UnsupportedGrantType => "unsupported_grant_type",
    /// RFC 6749, 4.1.2.1.
    UnsupportedResponseType => "unsupported_response_type",
    /// RFC 6749, 4.1.2.1 and 5.2.
    InvalidScope => "invalid_scope",
    /// RFC 6749, 4.1.2.1.
    AccessDenied => "access_denied",
    /// RFC 6749, 4.1.2.1.
    ServerError => "server_error",
    /// RFC 6749, 4.1.2.1.
    TemporarilyUnavailable => "temporarily_unavailable",
    /// OpenID Connect Core, 3.1.2.6.
    ConsentRequired => "consent_required",
    /// RFC 8628, 3.5.
    AuthorizationPending => "authorization_pending",
    /// RFC 8628, 3.5.
    SlowDown => "slow_down",
    /// RFC 8628, 3.5.
    ExpiredToken => "expired_token",
    /// RFC 6750, 3.1.
    InvalidToken => "invalid_token",
    /// RFC 6750, 3.1.
    InsufficientScope => "insufficient_scope",
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, who reads a log could act as a client or a person.
    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let secret = || Secret("the-secret".into());
        let client = ClientProof { id: "c".into(), secret: Some(secret()) };
        let grant = TokenGrant::Code {
            code: secret(),
            redirect_uri: "https://a.example".into(),
            verifier: secret(),
        };
        let shown = format!("{:?}", GetTokens { client, grant });
        assert!(!shown.contains("the-secret"), "{shown}");
    }
}
