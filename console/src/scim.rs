//! The members and groups of a VO as SCIM 2.0 gives them (RFC 7643, RFC 7644): for services that
//! keep accounts. Read only. Nothing is decided here: it asks the API as whoever the bearer token
//! names, and shows what that answers.
//!
//! Who may: the VO's administrators and owners, the administrators of its home site, and services
//! to which one of them gives a token of the VO with the role `admin` (`xos_api::cda::IssueToken`).
//! No cookie counts, so that no page of another site can ask for a person.

mod answers;
mod filter;
mod read;
mod resources;

use self::answers::{Refused, Shown};
use self::read::{Asking, Wanted};
use crate::fields::Fields;
use crate::{Inner, guard};
use actix_web::HttpRequest;
use actix_web::http::Method;
use actix_web::http::header::{AUTHORIZATION, IF_NONE_MATCH};
use actix_web::web::{self, ServiceConfig};
use std::sync::Arc;
use xos_base::membership::{ROLE_ADMIN, ROLE_OWNER};
use xos_base::{Error, VoId};
use xos_net::{Caller, Principal};

/// Where everything of SCIM lies; a VO's id follows.
pub(crate) const ROOT: &str = "/scim/v2";

/// Adds it to a worker.
pub(crate) fn configure(console: &Arc<Inner>, config: &mut ServiceConfig) {
    let console = console.clone();
    let serve = move |request: HttpRequest| {
        let console = console.clone();
        async move {
            let mut response = match answer(&console, &request).await {
                Ok(shown) => shown.response(request.headers().get(IF_NONE_MATCH)),
                Err(refused) => refused.response(),
            };
            guard::protect(response.headers_mut(), guard::host(&request));
            response
        }
    };
    config.route(&format!("{ROOT}/{{vo}}/{{tail:.*}}"), web::route().to(serve));
}

async fn answer(console: &Arc<Inner>, request: &HttpRequest) -> Result<Shown, Refused> {
    if *request.method() != Method::GET {
        return Err(Refused::read_only());
    }
    let vo: VoId = request.match_info().get("vo").unwrap_or_default().parse()?;
    let caller = caller(console, request)?;
    may_read(&caller, &vo)?;
    let base = format!("https://{}{ROOT}/{vo}", guard::host(request));
    let tail = request.match_info().get("tail").unwrap_or_default().to_owned();
    let wanted = Wanted::parse(&Fields::parse(request.query_string().as_bytes())?)?;
    let asking = Asking { grid: console.grid.clone(), caller, vo, base };
    let reading = async move { asking.answer(&tail, &wanted).await };
    match console.runtime.spawn(reading).await {
        Ok(answer) => answer,
        Err(e) => {
            tracing::error!(error = %e, "an answer of SCIM failed");
            Err(Error::internal("a fault in this core").into())
        }
    }
}

fn caller(console: &Inner, request: &HttpRequest) -> Result<Caller, Error> {
    let header = request.headers().get(AUTHORIZATION).and_then(|h| h.to_str().ok());
    let token = header.and_then(|h| {
        let (scheme, token) = h.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let token = token.ok_or_else(|| {
        Error::unauthenticated("Authorization: Bearer with a token of the VO is needed")
    })?;
    console.verifier.token(token, request.peer_addr().map(|a| a.ip()))
}

/// Allowed because the caller administers the VO, or its home site.
fn may_read(caller: &Caller, vo: &VoId) -> Result<(), Error> {
    let administers = match caller.principal() {
        Principal::Member(m) => m.vo == *vo && (m.has_role(ROLE_ADMIN) || m.has_role(ROLE_OWNER)),
        _ => caller.site_admin(),
    };
    if administers {
        return Ok(());
    }
    Err(Error::denied(format!("{} does not administer {vo}", caller.describe()))
        .hint("it takes a token of the VO with the role admin"))
}

/// What is served here, as paths of the API's document (OpenAPI 3.1).
pub(crate) fn described() -> serde_json::Value {
    answers::described()
}
