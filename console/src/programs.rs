//! What clients of the core as an OpenID provider ask as programs: OAuth's forms in, its JSON out.
//! No cookie counts here, so that no page of another site can act for a person.

use crate::fields::Fields;
use crate::respond::read_form;
use crate::{Inner, guard};
use actix_web::http::StatusCode;
use actix_web::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, PRAGMA, WWW_AUTHENTICATE,
};
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use std::sync::Arc;
use xos_api::Request;
use xos_api::cda::{
    BeginDeviceGrant, ClientProof, DEVICE_GRANT_PATH, DEVICE_GRANT_TYPE, GetTokens, GetUserInfo,
    INTROSPECT_PATH, IntrospectToken, OAuth, OAuthError, OAuthRefusal, REVOKE_PATH, RevokeToken,
    Secret, TOKEN_PATH, TokenGrant, USERINFO_PATH,
};
use xos_base::{Error, Kind};
use xos_net::Peer;

/// The type of the forms.
const FORM: &str = "application/x-www-form-urlencoded";

macro_rules! forms {
    ($console:ident, $config:ident: $($path:ident $read:path;)*) => {$({
        let console = $console.clone();
        $config.route($path, web::post().to(move |request: HttpRequest, body: web::Payload| {
            let console = console.clone();
            async move {
                let asked = match form(&request, body).await {
                    Ok((client, form)) => $read(client, &form),
                    Err(refusal) => Err(refusal),
                };
                ask(&console, &request, asked).await
            }
        }));
    })*};
}

/// Adds them to a worker.
pub(crate) fn configure(console: &Arc<Inner>, config: &mut ServiceConfig) {
    forms! { console, config:
        TOKEN_PATH tokens;
        DEVICE_GRANT_PATH device;
        INTROSPECT_PATH introspect;
        REVOKE_PATH revoke;
    }
    for method in [web::get, web::post] {
        let console = console.clone();
        config.route(
            USERINFO_PATH,
            method().to(move |request: HttpRequest| {
                let console = console.clone();
                async move { ask(&console, &request, user_info(&request)).await }
            }),
        );
    }
}

fn refusal(error: OAuthError, text: &str) -> OAuthRefusal {
    OAuthRefusal { error, error_description: text.to_owned() }
}

fn bad(text: &str) -> OAuthRefusal {
    refusal(OAuthError::InvalidRequest, text)
}

/// The client and the form of a request.
async fn form(
    request: &HttpRequest,
    body: web::Payload,
) -> Result<(ClientProof, Fields), OAuthRefusal> {
    let said = request.headers().get(CONTENT_TYPE).and_then(|t| t.to_str().ok());
    let kind = said.and_then(|t| t.split(';').next()).unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case(FORM) {
        return Err(bad("Content-Type: application/x-www-form-urlencoded is needed"));
    }
    let form = read_form(body).await.map_err(|_| bad("the form is malformed"))?;
    if form.has_repeated() {
        return Err(bad("a parameter stands there twice"));
    }
    let client = client(request.headers().get(AUTHORIZATION), &form)?;
    Ok((client, form))
}

/// How the client proves itself: by one way (RFC 6749, 2.3). Ids and secrets of ours have no
/// character that its encoding would change.
pub(crate) fn client(
    header: Option<&HeaderValue>,
    form: &Fields,
) -> Result<ClientProof, OAuthRefusal> {
    let named = form.raw("client_id");
    let secret = Some(form.raw("client_secret")).filter(|s| !s.is_empty());
    let Some(header) = header else {
        let secret = secret.map(|s| Secret(s.to_owned()));
        return Ok(ClientProof { id: named.to_owned(), secret });
    };
    let read = || {
        let text = header.to_str().ok()?.trim();
        let (scheme, encoded) = text.split_once(' ')?;
        let encoded = scheme.eq_ignore_ascii_case("basic").then_some(encoded.trim())?;
        let pair = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
        let (id, secret) = pair.split_once(':')?;
        Some((id.to_owned(), secret.to_owned()))
    };
    let (id, basic) = read().ok_or_else(|| bad("Authorization: only Basic is taken here"))?;
    if secret.is_some() || !(named.is_empty() || named == id) {
        return Err(bad("the client proves itself in two ways"));
    }
    // A public client may name itself so, with an empty secret.
    let secret = Some(basic).filter(|s| !s.is_empty()).map(Secret);
    Ok(ClientProof { id, secret })
}

fn needed(form: &Fields, name: &str) -> Result<String, OAuthRefusal> {
    match form.raw(name) {
        "" => Err(bad(&format!("{name} is missing"))),
        text => Ok(text.to_owned()),
    }
}

/// What a client wants tokens for.
pub(crate) fn tokens(client: ClientProof, form: &Fields) -> Result<GetTokens, OAuthRefusal> {
    let needed = |name| needed(form, name);
    let grant = match form.raw("grant_type") {
        "authorization_code" => TokenGrant::Code {
            code: Secret(needed("code")?),
            redirect_uri: needed("redirect_uri")?,
            verifier: Secret(needed("code_verifier")?),
        },
        "refresh_token" => TokenGrant::Refresh {
            refresh_token: Secret(needed("refresh_token")?),
            scope: Some(form.raw("scope").to_owned()).filter(|s| !s.is_empty()),
        },
        DEVICE_GRANT_TYPE => TokenGrant::Device { device_code: Secret(needed("device_code")?) },
        "" => return Err(bad("grant_type is missing")),
        _ => return Err(refusal(OAuthError::UnsupportedGrantType, "grant_type is not done here")),
    };
    Ok(GetTokens { client, grant })
}

/// What a client wants of another device's person.
pub(crate) fn device(client: ClientProof, form: &Fields) -> Result<BeginDeviceGrant, OAuthRefusal> {
    Ok(BeginDeviceGrant { client, scope: needed(form, "scope")? })
}

/// The token that a service asks about.
pub(crate) fn introspect(
    client: ClientProof,
    form: &Fields,
) -> Result<IntrospectToken, OAuthRefusal> {
    Ok(IntrospectToken { client, token: Secret(needed(form, "token")?) })
}

/// The token that a client gives back.
pub(crate) fn revoke(client: ClientProof, form: &Fields) -> Result<RevokeToken, OAuthRefusal> {
    Ok(RevokeToken { client, token: Secret(needed(form, "token")?) })
}

fn user_info(request: &HttpRequest) -> Result<GetUserInfo, OAuthRefusal> {
    let header = request.headers().get(AUTHORIZATION).and_then(|h| h.to_str().ok());
    let token = header.and_then(|h| {
        let (scheme, token) = h.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    });
    let token = token.ok_or_else(|| {
        refusal(OAuthError::InvalidToken, "Authorization: Bearer with an access token is needed")
    })?;
    Ok(GetUserInfo { token: Secret(token) })
}

/// Asks the core, and answers.
async fn ask<R, T>(
    console: &Arc<Inner>,
    request: &HttpRequest,
    asked: Result<R, OAuthRefusal>,
) -> HttpResponse
where
    R: Request<Reply = OAuth<T>>,
    T: Serialize + Send + 'static,
{
    let answer = match asked {
        Ok(r) => {
            let peer = Peer { address: request.peer_addr().map(|a| a.ip()) };
            let grid = console.grid.clone();
            let asking = async move { grid.local_public(peer, r).await };
            match console.runtime.spawn(asking).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(e)) => OAuth::Refused(in_other_words(&e)),
                Err(e) => {
                    tracing::error!(error = %e, "an answer to a client failed");
                    OAuth::Refused(refusal(OAuthError::ServerError, "a fault in this core"))
                }
            }
        }
        Err(why) => OAuth::Refused(why),
    };
    let mut response = match answer {
        OAuth::Granted(answer) => HttpResponse::Ok().json(answer),
        OAuth::Refused(why) => refused(&why),
    };
    guard::protect(response.headers_mut(), guard::host(request));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

fn in_other_words(e: &Error) -> OAuthRefusal {
    match e.kind {
        Kind::Unavailable | Kind::Limited => {
            refusal(OAuthError::TemporarilyUnavailable, "try again in a moment")
        }
        _ => {
            tracing::warn!(error = %e, "a client got no answer");
            refusal(OAuthError::ServerError, "a fault in this core")
        }
    }
}

/// RFC 6749, 5.2; RFC 6750, 3.
fn refused(why: &OAuthRefusal) -> HttpResponse {
    let (status, proof) = match why.error {
        OAuthError::InvalidClient => (StatusCode::UNAUTHORIZED, Some("Basic realm=\"xos\"")),
        OAuthError::InvalidToken => {
            (StatusCode::UNAUTHORIZED, Some("Bearer realm=\"xos\", error=\"invalid_token\""))
        }
        OAuthError::InsufficientScope => {
            (StatusCode::FORBIDDEN, Some("Bearer realm=\"xos\", error=\"insufficient_scope\""))
        }
        OAuthError::ServerError => (StatusCode::INTERNAL_SERVER_ERROR, None),
        OAuthError::TemporarilyUnavailable => (StatusCode::SERVICE_UNAVAILABLE, None),
        _ => (StatusCode::BAD_REQUEST, None),
    };
    let mut response = HttpResponse::build(status);
    if let Some(proof) = proof {
        response.insert_header((WWW_AUTHENTICATE, proof));
    }
    response.json(why)
}
