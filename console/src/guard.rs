//! What keeps other sites' pages, and other people's browsers, from acting for a person.

use crate::session::is_secret;
use actix_web::HttpRequest;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use xos_base::Error;

/// The cookie that holds a session's id. The prefix binds it to this host, all paths and TLS
/// (RFC 6265bis, 4.1.3.2).
pub(crate) const SESSION_COOKIE: &str = "__Host-xos";
/// The cookie that ties sign-in forms to a browser before there is a session.
pub(crate) const FORM_COOKIE: &str = "__Host-xos-form";
/// The cookie that ties a sign-in at a provider to the browser in which it was begun.
pub(crate) const FLOW_COOKIE: &str = "__Host-xos-flow";
/// How long a browser keeps it, in seconds: as long as the core keeps the flow.
const FLOW_COOKIE_S: u32 = 600;
/// Longest path to go to after signing in, in bytes: what a service sends with a browser fits.
const OWN_PATH_MAX: usize = 2048;
/// The form field that repeats the form token.
pub(crate) const FORM_FIELD: &str = "csrf";

/// No script or style but the console's own files; nothing in or around a frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; \
    connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const HEADERS: &[(&str, &str)] = &[
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
];

/// The headers that every answer of the console carries.
pub(crate) fn protect(headers: &mut HeaderMap, host: &str) {
    for (name, value) in HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    // The promise holds for every port of a host: for `localhost` it would break whatever else
    // the person develops there.
    if host.split(':').next() != Some("localhost") {
        headers.insert(
            HeaderName::from_static("strict-transport-security"),
            HeaderValue::from_static("max-age=31536000"),
        );
    }
}

/// A cookie's header value.
pub(crate) fn cookie(name: &str, value: &str) -> String {
    format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Strict")
}

/// The header value of [`FLOW_COOKIE`].
pub(crate) fn flow_cookie(value: &str) -> String {
    format!("{}; Max-Age={FLOW_COOKIE_S}", cookie(FLOW_COOKIE, value))
}

/// What makes a browser forget a cookie.
pub(crate) fn no_cookie(name: &str) -> String {
    format!("{}; Max-Age=0", cookie(name, ""))
}

/// The host that a request names.
pub(crate) fn host(request: &HttpRequest) -> &str {
    match request.uri().authority() {
        Some(authority) => authority.as_str(),
        None => request.headers().get("host").and_then(|h| h.to_str().ok()).unwrap_or_default(),
    }
}

/// Refuses what another site's page made the browser send.
///
/// `Sec-Fetch-Site` decides where the browser sends it; `Origin` must be ours when it names
/// anything. Browsers write `Origin: null` for the forms of pages that send no referrer, as ours,
/// so that alone proves nothing.
pub(crate) fn same_origin(request: &HttpRequest) -> Result<(), Error> {
    let header = |name: &str| request.headers().get(name).map(|v| v.to_str().unwrap_or("?"));
    let own = format!("https://{}", host(request));
    let fetched = header("sec-fetch-site");
    let origin = header("origin").filter(|o| *o != "null");
    let ok = match (fetched, origin) {
        (Some("same-origin"), None) => true,
        (Some("same-origin") | None, Some(origin)) => origin.eq_ignore_ascii_case(&own),
        _ => false,
    };
    if ok {
        return Ok(());
    }
    Err(Error::denied("this form was not sent by a page of this console")
        .hint("open the console itself and try again; use a browser of the last few years"))
}

/// Refuses a form without the token that stands in this browser's forms.
pub(crate) fn form_token(expected: Option<&str>, sent: &str) -> Result<(), Error> {
    let expected = expected.filter(|t| is_secret(t));
    let same = |e: &str| verify_slices_are_equal(e.as_bytes(), sent.as_bytes()).is_ok();
    if expected.is_some_and(same) {
        return Ok(());
    }
    Err(Error::denied("this form is not from your present session, so nothing was done")
        .hint("open the page again and repeat what you wanted"))
}

/// A path of this console to go to after signing in; anything else becomes the first page.
pub(crate) fn own_path(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-_.~:@?=&%+,".contains(&b);
    let inside = path.starts_with('/') && !path.starts_with("//");
    if inside && path.len() <= OWN_PATH_MAX && path.bytes().all(plain) {
        path.into()
    } else {
        "/".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn refused(headers: &[(&'static str, &'static str)]) -> bool {
        let mut request = TestRequest::post().insert_header(("host", "core.example:7443"));
        for h in headers {
            request = request.insert_header(*h);
        }
        same_origin(&request.to_http_request()).is_err()
    }

    #[test]
    fn only_our_own_pages_send_forms() {
        let own = ("origin", "https://core.example:7443");
        let same = ("sec-fetch-site", "same-origin");
        assert!(!refused(&[own, same]));
        assert!(!refused(&[own]), "a browser without fetch metadata");
        assert!(!refused(&[("origin", "null"), same]), "what Chromium sends from our pages");
        assert!(refused(&[]));
        assert!(refused(&[("origin", "null")]), "a sandboxed frame of another site");
        assert!(refused(&[own, ("sec-fetch-site", "cross-site")]));
        assert!(refused(&[("sec-fetch-site", "same-site")]));
        assert!(refused(&[("sec-fetch-site", "none")]));
        for other in [
            "https://evil.example",
            "http://core.example:7443",
            "https://core.example",
            "https://core.example:7443.evil.example",
        ] {
            assert!(refused(&[("origin", other)]), "{other}");
            assert!(refused(&[("origin", other), same]), "{other}");
        }
    }

    #[test]
    fn form_tokens_are_compared_whole() {
        let token = "0123456789abcdef0123456789abcdef";
        assert!(form_token(Some(token), token).is_ok());
        for (expected, sent) in [
            (None, ""),
            (None, token),
            (Some(""), ""),
            (Some(token), ""),
            (Some(token), "0123456789abcdef0123456789abcdee"),
            (Some("short"), "short"),
        ] {
            assert!(form_token(expected, sent).is_err(), "{expected:?} {sent:?}");
        }
    }

    #[test]
    fn after_signing_in_one_stays_here() {
        assert_eq!(
            own_path("/vo/demo.rennes/job/1.rennes?a=b"),
            "/vo/demo.rennes/job/1.rennes?a=b"
        );
        for bad in [
            "",
            "x",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "/a\r\nb",
            "/a b",
            "/\u{2f}\tx",
            "javascript:alert(1)",
        ] {
            assert_eq!(own_path(bad), "/", "{bad:?}");
        }
        assert_eq!(own_path(&format!("/{}", "a".repeat(OWN_PATH_MAX))), "/");
    }
}
