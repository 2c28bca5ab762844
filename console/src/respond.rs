//! From a browser's HTTP request to a page's function, and from its reply to HTTP.

use crate::Inner;
use crate::fields::{FORM_MAX, Fields};
use crate::guard::{self, FLOW_COOKIE, FORM_COOKIE, FORM_FIELD, SESSION_COOKIE};
use crate::pages::trouble;
use crate::session::Session;
use crate::visit::{Guest, Reply, Shown, Stop, Visit};
use actix_web::http::StatusCode;
use actix_web::http::header::{
    ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue, LOCATION,
    SET_COOKIE, WWW_AUTHENTICATE,
};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::BytesMut;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use xos_base::Error;
use xos_net::Peer;

/// How long a browser may take to send a form.
const FORM_TIMEOUT: Duration = Duration::from_secs(30);
/// Marks what the page's own script asks for by itself: such a request does not keep a session
/// from being idle, and is told when the session is over instead of being sent to sign in.
const LIVE_HEADER: &str = "x-xos-live";

/// The scheme by which browsers show a Kerberos ticket (RFC 4559).
const NEGOTIATE: &str = "Negotiate";

/// A page for anybody.
pub(crate) type GuestPage = fn(Guest) -> BoxFuture<'static, Shown>;
/// A page for those who signed in.
pub(crate) type VisitPage = fn(Visit) -> BoxFuture<'static, Shown>;

/// Which function makes the page.
#[derive(Clone, Copy)]
pub(crate) enum Page {
    /// For anybody.
    Guest(GuestPage),
    /// For those who signed in.
    Visit(VisitPage),
}

/// Serves one request of a browser.
pub(crate) async fn serve(
    console: Arc<Inner>,
    request: HttpRequest,
    body: web::Payload,
    page: Page,
) -> HttpResponse {
    let host = guard::host(&request).to_owned();
    let reply = match guest(&console, &request, body, page).await {
        Ok(guest) => run(guest, page).await,
        Err((session, stop)) => trouble::reply(&console, session.as_deref(), &stop),
    };
    let mut response = response(reply);
    guard::protect(response.headers_mut(), &host);
    response
}

/// The page about a request that was refused before it came to one; `None` for programs, which get
/// the API's own answer.
pub(crate) fn refused(
    console: &Inner,
    request: &HttpRequest,
    error: &Error,
) -> Option<HttpResponse> {
    let accepts = request.headers().get(ACCEPT).and_then(|a| a.to_str().ok());
    if !accepts.is_some_and(|a| a.contains("text/html")) {
        return None;
    }
    let mut response = response(trouble::reply(console, None, &Stop::Failed(error.clone())));
    guard::protect(response.headers_mut(), guard::host(request));
    Some(response)
}

type Refused = (Option<Arc<Session>>, Stop);

/// Reads the request; a form is refused unless this browser got it from us.
async fn guest(
    console: &Arc<Inner>,
    request: &HttpRequest,
    body: web::Payload,
    page: Page,
) -> Result<Guest, Refused> {
    let cookie = |name| request.cookie(name).map(|c| c.value().to_owned());
    let live = request.headers().contains_key(LIVE_HEADER);
    let session = cookie(SESSION_COOKIE).and_then(|id| console.sessions.find(&id, !live));
    let (form_cookie, flow_cookie) = (cookie(FORM_COOKIE), cookie(FLOW_COOKIE));
    let refuse = |e: Error| (session.clone(), Stop::Failed(e));
    let query = Fields::parse(request.query_string().as_bytes()).map_err(refuse)?;
    let form = if request.method() == actix_web::http::Method::POST {
        guard::same_origin(request).map_err(refuse)?;
        if session.is_none() && matches!(page, Page::Visit(_)) {
            return Err((None, Stop::SignedOut));
        }
        let form = read_form(body).await.map_err(refuse)?;
        let expected = match (page, &session) {
            (Page::Visit(_), Some(s)) => Some(s.form_token.as_str()),
            _ => form_cookie.as_deref(),
        };
        guard::form_token(expected, form.raw(FORM_FIELD)).map_err(refuse)?;
        form
    } else {
        Fields::default()
    };
    let places = request.match_info().iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    Ok(Guest {
        console: console.clone(),
        peer: Peer { address: request.peer_addr().map(|a| a.ip()) },
        host: guard::host(request).to_owned(),
        path: request.uri().path_and_query().map_or("/", |p| p.as_str()).to_owned(),
        places,
        query,
        form,
        session,
        live,
        form_cookie,
        flow_cookie,
        negotiated: negotiated(request),
    })
}

fn negotiated(request: &HttpRequest) -> Option<String> {
    let sent = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = sent.split_once(' ')?;
    scheme.eq_ignore_ascii_case(NEGOTIATE).then(|| token.trim().to_owned())
}

/// Reads a form, for as long as a browser may take.
pub(crate) async fn read_form(mut body: web::Payload) -> Result<Fields, Error> {
    let whole = async {
        let mut bytes = BytesMut::new();
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|e| Error::invalid(format!("the form broke off: {e}")))?;
            if bytes.len() + chunk.len() > FORM_MAX {
                return Err(Error::too_large(format!("a form may have {FORM_MAX} bytes"))
                    .hint("put large data on the VO's volume and name its path"));
            }
            bytes.extend_from_slice(&chunk);
        }
        Fields::parse(&bytes)
    };
    match actix_web::rt::time::timeout(FORM_TIMEOUT, whole).await {
        Ok(form) => form,
        Err(_) => Err(Error::invalid("the form did not arrive in time").hint("send it again")),
    }
}

/// Runs the page on the main runtime.
async fn run(guest: Guest, page: Page) -> Reply {
    let live = guest.live;
    let console = guest.console.clone();
    let (session, path) = (guest.session.clone(), guest.path.clone());
    let shown = match (page, session.clone()) {
        (Page::Guest(f), _) => f(guest),
        (Page::Visit(f), Some(session)) => f(Visit::new(guest, session)),
        (Page::Visit(_), None) => return signed_out(&path, live),
    };
    let stop = match console.runtime.spawn(shown).await {
        Ok(Ok(reply)) => return reply,
        Ok(Err(Stop::SignedOut)) => return signed_out(&path, live),
        Ok(Err(stop)) => stop,
        Err(e) => {
            tracing::error!(error = %e, "a page failed");
            Stop::Failed(Error::internal("a fault in this core").hint("its log says more"))
        }
    };
    trouble::reply(&console, session.as_deref(), &stop)
}

/// To the sign-in page, and from there back; a script gets the bare status.
fn signed_out(path: &str, live: bool) -> Reply {
    if live {
        return Reply::Page { status: 401, html: String::new() };
    }
    match serde_urlencoded::to_string([("next", guard::own_path(path))]) {
        Ok(query) => Reply::Elsewhere(format!("/sign-in?{query}")),
        Err(_) => Reply::Elsewhere("/sign-in".into()),
    }
}

fn response(reply: Reply) -> HttpResponse {
    let mut response = match reply {
        Reply::Page { status, html } => page(status, html),
        Reply::SignInPage { status, html, form_cookie } => {
            let mut response = page(status, html);
            set_cookie(&mut response, &guard::cookie(FORM_COOKIE, &form_cookie));
            response
        }
        Reply::Leave { html, flow_cookie } => {
            let mut response = page(200, html);
            set_cookie(&mut response, &guard::flow_cookie(&flow_cookie));
            response
        }
        Reply::Negotiate { html, form_cookie } => {
            let mut response = page(401, html);
            let scheme = HeaderValue::from_static(NEGOTIATE);
            response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
            if let Some(value) = form_cookie {
                set_cookie(&mut response, &guard::cookie(FORM_COOKIE, &value));
            }
            response
        }
        Reply::Elsewhere(to) => redirect(&to),
        Reply::Begin { id, to } => {
            let mut response = redirect(&to);
            set_cookie(&mut response, &guard::cookie(SESSION_COOKIE, &id));
            set_cookie(&mut response, &guard::no_cookie(FORM_COOKIE));
            set_cookie(&mut response, &guard::no_cookie(FLOW_COOKIE));
            response
        }
        Reply::End(to) => {
            let mut response = redirect(&to);
            set_cookie(&mut response, &guard::no_cookie(SESSION_COOKIE));
            response
        }
        Reply::File { name, body } => HttpResponse::Ok()
            .insert_header((CONTENT_TYPE, "text/plain; charset=utf-8"))
            .insert_header((CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")))
            .streaming(body),
        Reply::Lines(body) => {
            HttpResponse::Ok().insert_header((CONTENT_TYPE, "application/x-ndjson")).streaming(body)
        }
    };
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn page(status: u16, html: String) -> HttpResponse {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    HttpResponse::build(status).insert_header((CONTENT_TYPE, "text/html; charset=utf-8")).body(html)
}

fn redirect(to: &str) -> HttpResponse {
    HttpResponse::SeeOther().insert_header((LOCATION, to)).finish()
}

fn set_cookie(response: &mut HttpResponse, cookie: &str) {
    // Ours are plain ASCII.
    if let Ok(value) = HeaderValue::from_str(cookie) {
        response.headers_mut().append(SET_COOKIE, value);
    }
}
