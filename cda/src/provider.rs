//! The core as an OpenID provider: services of a site sign people in by the grid's sign-in.
//!
//! OAuth 2.0 (RFC 6749) as RFC 9700 wants it, and OpenID Connect Core 1.0: code with PKCE S256 for
//! every client, another device (RFC 8628), refresh tokens that are good once (`grants`),
//! introspection (RFC 7662), revocation (RFC 7009). The console serves the HTTP of it. Left out:
//! implicit and hybrid answers, requests as JWTs, dynamic registration, consents that are
//! remembered.
//!
//! Everything issued belongs to a *grant*: a person allowed a client some scopes, as the member of
//! at most one VO at home here. When the grant ends, its refresh token is void at once, its access
//! tokens are told to be void, and all of them end within minutes.

mod allowed;
mod clients;
mod codes;
mod consent;
mod device_codes;
mod devices;
pub(crate) mod fuzzing;
mod grants;
mod inspect;
mod issue;
mod logins;
mod redirects;
mod refused;
mod tokens;

pub(crate) use logins::check_login;

use crate::Inner;
use crate::jwt::Outside;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::sync::atomic::{AtomicBool, Ordering};
use xos_api::cda::{
    AUTHORIZE_PATH, DEVICE_GRANT_PATH, DEVICE_GRANT_TYPE, INTROSPECT_PATH, NodeLogin,
    ProviderEndpoints, REVOKE_PATH, Scope, TOKEN_PATH, USERINFO_PATH,
};
use xos_base::Error;
use xos_net::identity::{hex, sha256};

/// Longest text of a client's request that is looked at, in bytes.
const TEXT_MAX: usize = 1024;

/// What the provider keeps in memory.
#[derive(Default)]
pub(crate) struct Provider {
    codes: codes::Codes,
    devices: device_codes::Devices<devices::Wish, grants::Approval>,
    logins: device_codes::Devices<NodeLogin, Option<String>>,
    served: AtomicBool,
}

impl Provider {
    /// The console serves what clients ask by HTTP.
    pub(crate) fn serve(&self) {
        self.served.store(true, Ordering::Relaxed);
    }

    /// Where clients ask what, if they can.
    pub(crate) fn endpoints(&self, outside: &Outside) -> Option<ProviderEndpoints> {
        let at = |path: &str| format!("{}{path}", outside.url());
        let texts = |all: &[&str]| all.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        self.served.load(Ordering::Relaxed).then(|| ProviderEndpoints {
            authorization_endpoint: at(AUTHORIZE_PATH),
            token_endpoint: at(TOKEN_PATH),
            userinfo_endpoint: at(USERINFO_PATH),
            device_authorization_endpoint: at(DEVICE_GRANT_PATH),
            introspection_endpoint: at(INTROSPECT_PATH),
            revocation_endpoint: at(REVOKE_PATH),
            grant_types_supported: texts(&[
                "authorization_code",
                "refresh_token",
                DEVICE_GRANT_TYPE,
            ]),
            response_modes_supported: texts(&["query"]),
            token_endpoint_auth_methods_supported: texts(&[
                "client_secret_basic",
                "client_secret_post",
                "none",
            ]),
            code_challenge_methods_supported: texts(&["S256"]),
            authorization_response_iss_parameter_supported: true,
            request_parameter_supported: false,
            request_uri_parameter_supported: false,
        })
    }
}

/// A text that nobody can guess: 32 bytes in base64url.
fn secret() -> Result<String, Error> {
    Ok(URL_SAFE_NO_PAD.encode(crate::issue::random::<32>()?))
}

/// A name that nobody can guess: 32 hexadecimal digits.
fn name() -> Result<String, Error> {
    Ok(hex(&crate::issue::random::<16>()?))
}

/// What is kept of a secret.
fn digest(secret: &str) -> String {
    hex(&sha256(secret.as_bytes()))
}

fn same(a: &str, b: &str) -> bool {
    verify_slices_are_equal(a.as_bytes(), b.as_bytes()).is_ok()
}

/// Of what a client asks for what it may, each once; what is not known here is left out (OpenID
/// Connect Core, 3.1.2.1).
fn scopes(asked: &str, may: &[Scope]) -> Vec<Scope> {
    let mut out: Vec<Scope> = Vec::new();
    for scope in asked.split(' ').filter_map(|s| s.parse::<Scope>().ok()) {
        if may.contains(&scope) && !out.contains(&scope) {
            out.push(scope);
        }
    }
    out
}

/// Scopes as they stand in answers.
fn written(scopes: &[Scope]) -> String {
    scopes.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(" ")
}

impl Inner {
    /// How people sign in to services of this site, if they can.
    pub(crate) fn provider_endpoints(&self) -> Option<ProviderEndpoints> {
        self.provider.endpoints(&self.outside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a client would get what its administrator did not allow.
    #[test]
    fn a_client_gets_of_what_it_asks_what_it_may() {
        let may = [Scope::OpenId, Scope::WlcgGroups];
        let got = scopes("wlcg.groups admin openid profile  openid", &may);
        assert_eq!(got, [Scope::WlcgGroups, Scope::OpenId]);
        assert_eq!(written(&got), "wlcg.groups openid");
        assert!(scopes("", &may).is_empty() && scopes("openid", &[]).is_empty());
    }
}
