//! How HTTP says no: status, header fields, and an error as JSON, whatever was wrong.

use super::RETRY_AFTER_S;
use crate::router::Unserved;
use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER,
};
use xos_base::{Error, Kind};

/// Why a request is not run, with what only HTTP says of it.
#[derive(Debug)]
pub(super) struct Refusal {
    error: Error,
    status: StatusCode,
    allow: Option<String>,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal { status: status(&error), error, allow: None }
    }
}

/// A path that other methods serve names them (RFC 9110, 15.5.6).
impl From<Unserved> for Refusal {
    fn from(unserved: Unserved) -> Refusal {
        let Unserved { error, methods } = unserved;
        if methods.is_empty() {
            return error.into();
        }
        let names: Vec<&str> = methods.iter().map(|m| m.as_str()).collect();
        let allow = Some(names.join(", "));
        Refusal { error, status: StatusCode::METHOD_NOT_ALLOWED, allow }
    }
}

impl Refusal {
    /// The response.
    pub(super) fn answer(&self) -> HttpResponse {
        response(self.status, &self.error, self.allow.as_deref())
    }
}

/// Where a browser says what made it send a request (Fetch Metadata).
const FETCHED: &str = "sec-fetch-site";

/// Refuses what a browser sends for a page of somebody else. Allowed because it says that the page
/// is ours, or that no page made it, or says nothing: what is no browser does not.
///
/// # Errors
/// [`Kind::Denied`].
pub(super) fn no_foreign_page(headers: &HeaderMap) -> Result<(), Error> {
    let own = |said: &HeaderValue| said == "same-origin" || said == "none";
    if headers.get_all(FETCHED).all(own) {
        return Ok(());
    }
    Err(Error::denied("a page of another site made your browser send this request")
        .hint("use the console, or the tool xos"))
}

/// Takes bodies that say they are JSON. A page of another site can make a browser send any other
/// kind without asking first (Fetch, "CORS-safelisted request-header"), with the certificate that
/// the browser holds.
///
/// # Errors
/// The refusal with status 415 (RFC 9110, 15.5.16).
pub(super) fn json_only(headers: &HeaderMap) -> Result<(), Refusal> {
    let said = headers.get(CONTENT_TYPE).and_then(|t| t.to_str().ok()).unwrap_or_default();
    let kind = said.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let error = Error::invalid("the body of this request is JSON, and was not said to be")
        .hint("send the header Content-Type: application/json");
    Err(Refusal { error, status: StatusCode::UNSUPPORTED_MEDIA_TYPE, allow: None })
}

fn status(error: &Error) -> StatusCode {
    StatusCode::from_u16(error.kind.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// An error as HTTP response.
pub(super) fn failure(error: &Error) -> HttpResponse {
    response(status(error), error, None)
}

fn response(status: StatusCode, error: &Error, allow: Option<&str>) -> HttpResponse {
    let mut response = HttpResponse::build(status);
    response.insert_header((CACHE_CONTROL, "no-store"));
    if error.kind == Kind::Unavailable {
        response.insert_header((RETRY_AFTER, RETRY_AFTER_S));
    }
    if let Some(allow) = allow {
        response.insert_header((ALLOW, allow));
    }
    response.json(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::HeaderName;
    use xos_api::Method;

    /// If it failed, a form on a hostile page could act with the certificate of who looks at it.
    #[test]
    fn only_json_is_taken() {
        let says = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(text));
            json_only(&headers).map_err(|r| r.answer().status().as_u16())
        };
        assert_eq!(says("application/json"), Ok(()));
        assert_eq!(says("Application/JSON; charset=utf-8"), Ok(()));
        for other in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""] {
            assert_eq!(says(other), Err(415), "{other:?}");
        }
        assert!(json_only(&HeaderMap::new()).is_err(), "no word is taken for JSON");
    }

    /// If it failed, a page of a neighbour in the same domain could act by the browser's
    /// certificate, or the tool, which says nothing, would be shut out.
    #[test]
    fn a_browser_acts_for_our_own_pages_alone() {
        let says = |sites: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for site in sites {
                headers.append(HeaderName::from_static(FETCHED), HeaderValue::from_static(site));
            }
            no_foreign_page(&headers).map_err(|e| e.kind)
        };
        for own in [&["none"][..], &["same-origin"], &[]] {
            assert_eq!(says(own), Ok(()), "{own:?}");
        }
        for other in [&["cross-site"][..], &["same-site"], &["?"], &["none", "cross-site"]] {
            assert_eq!(says(other), Err(Kind::Denied), "{other:?}");
        }
    }

    #[test]
    fn a_wrong_method_is_told_the_right_ones() {
        let error = Error::invalid("/v1/x is not served by that method here");
        let methods = vec![Method::Get, Method::Post];
        let answer = Refusal::from(Unserved { error, methods }).answer();
        assert_eq!(answer.status().as_u16(), 405);
        assert_eq!(answer.headers().get(ALLOW).unwrap(), "GET, POST");
        let none = Unserved { error: Error::not_found("x"), methods: vec![] };
        assert_eq!(Refusal::from(none).answer().status().as_u16(), 404);
    }
}
