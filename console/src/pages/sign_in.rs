//! Signing in and out, and registering where the site allows it.

use super::passkeys::{stepped, usable};
use crate::guard::own_path;
use crate::session::is_secret;
use crate::view::{Frame, When, page_with, sentence};
use crate::visit::{Guest, Reply, Shown, Visit};
use askama::Template;
use xos_api::cda::{
    FirstProof, FirstStep, PASSWORD_MIN, Password, Register, SignInOptions, SignInProvider,
    SignInRules, SignedIn, Stepped,
};
use xos_base::{Error, Kind};

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInView {
    frame: Frame,
    user: String,
    next: String,
    open: bool,
    passwords: bool,
    passkeys: bool,
    providers: Vec<SignInProvider>,
    /// Where the browser is asked for a ticket.
    kerberos: Option<String>,
    trouble: Option<String>,
    ended: bool,
    recovered: bool,
}

#[derive(Template)]
#[template(path = "register.html")]
struct RegisterView {
    frame: Frame,
    name: String,
    password_min: usize,
    trouble: Option<String>,
}

/// The sign-in page.
pub(crate) async fn show(guest: Guest) -> Shown {
    let next = own_path(guest.query.text("next"));
    if guest.session.is_some() {
        return Ok(Reply::Elsewhere(next));
    }
    let ended = !guest.query.text("ended").is_empty();
    sign_in_page(&guest, "", next, None, ended).await
}

/// Signs in. Whatever session the browser had ends, and the new one has a new id.
pub(crate) async fn sign_in(guest: Guest) -> Shown {
    let user = guest.form.text("user").to_owned();
    let next = own_path(guest.form.text("next"));
    let step = by_password(&guest, &user, guest.form.raw("password")).await;
    stepped(&guest, step, &user, next).await
}

async fn by_password(guest: &Guest, user: &str, password: &str) -> Result<Stepped, Error> {
    let (user, password) = (user.to_owned(), Password(password.to_owned()));
    let proof = FirstProof::Password { user, password };
    let request = FirstStep { proof, audience: None, memberships: false };
    guest.console.grid.local_public(guest.peer, request).await
}

/// Begins a session. Whatever session the browser had ends.
pub(crate) fn begin(guest: &Guest, signed_in: SignedIn, to: String) -> Shown {
    if let Some(old) = &guest.session {
        guest.console.sessions.end(old);
    }
    let recovered = signed_in.recovered.clone();
    let (id, session) = guest.console.sessions.open(signed_in)?;
    if let Some(recovered) = recovered {
        let at = When::from(recovered.at).text;
        session.leave_notice(format!(
            "{} made a way to sign in as you at {at}. If you did not ask for it, tell the \
             administrators of this site.",
            recovered.by
        ));
    }
    tracing::info!(person = %session.person, address = ?guest.peer.address, "signed in");
    Ok(Reply::Begin { id, to })
}

/// Ends the session.
pub(crate) async fn sign_out(visit: Visit) -> Shown {
    visit.console.sessions.end(&visit.session);
    tracing::info!(person = %visit.session.person, "signed out");
    Ok(Reply::End("/sign-in".into()))
}

/// The page to register.
pub(crate) async fn show_register(guest: Guest) -> Shown {
    if !rules(&guest).await.open_registration {
        let e = Error::denied("this site does not let people register themselves")
            .hint("ask a site administrator for an account");
        return Err(e.into());
    }
    register_page(&guest, "", None)
}

/// Registers, and signs in at once.
pub(crate) async fn register(guest: Guest) -> Shown {
    let name = guest.form.text("name").to_owned();
    let password = guest.form.raw("password").to_owned();
    if password != guest.form.raw("again") {
        return register_page(&guest, &name, Some(Error::invalid("the two passwords differ")));
    }
    let request = Register { name: name.clone(), password: Password(password.clone()) };
    let grid = &guest.console.grid;
    if let Err(e) = grid.local_public(guest.peer, request).await {
        return register_page(&guest, &name, Some(e));
    }
    let step = by_password(&guest, &name, &password).await;
    stepped(&guest, step, &name, "/".into()).await
}

/// How people come to this site; by name and password, when nobody can say.
pub(crate) async fn rules(guest: &Guest) -> SignInRules {
    match guest.console.grid.local_public(guest.peer, SignInOptions {}).await {
        Ok(rules) => rules,
        Err(e) => {
            tracing::warn!(error = %e, "how people come to this site is not known");
            SignInRules {
                site: guest.console.grid.site().clone(),
                open_registration: false,
                passwords: true,
                providers: Vec::new(),
                passkeys: None,
                kerberos: false,
            }
        }
    }
}

/// The token that ties a form to this browser: the one it has, or a new one.
pub(crate) fn form_token(guest: &Guest) -> Result<String, Error> {
    match &guest.form_cookie {
        Some(token) if is_secret(token) => Ok(token.clone()),
        _ => guest.console.sessions.secret(),
    }
}

pub(crate) fn with_cookie(shown: Shown, form_cookie: String) -> Shown {
    match shown? {
        Reply::Page { status, html } => Ok(Reply::SignInPage { status, html, form_cookie }),
        other => Ok(other),
    }
}

/// The sign-in page, with what went wrong.
pub(crate) async fn sign_in_page(
    guest: &Guest,
    user: &str,
    next: String,
    trouble: Option<Error>,
    ended: bool,
) -> Shown {
    let token = form_token(guest)?;
    let status = trouble.as_ref().map_or(200, |e| e.kind.http_status());
    let rules = rules(guest).await;
    let query = serde_urlencoded::to_string([("next", &next)])
        .map_err(|e| Error::internal(format!("cannot write a query: {e}")))?;
    let by_ticket = format!("/sign-in/kerberos?{query}");
    let view = SignInView {
        frame: Frame::guest(guest, "Sign in", &token),
        user: user.to_owned(),
        next,
        open: rules.open_registration,
        passwords: rules.passwords,
        passkeys: usable(&guest.host, rules.passkeys.as_deref()),
        providers: rules.providers,
        kerberos: rules.kerberos.then_some(by_ticket),
        trouble: trouble.as_ref().map(kindly),
        ended,
        recovered: !guest.query.text("recovered").is_empty(),
    };
    with_cookie(page_with(status, &view), token)
}

fn register_page(guest: &Guest, name: &str, trouble: Option<Error>) -> Shown {
    let token = form_token(guest)?;
    let status = trouble.as_ref().map_or(200, |e| e.kind.http_status());
    let view = RegisterView {
        frame: Frame::guest(guest, "Register", &token),
        name: name.to_owned(),
        password_min: PASSWORD_MIN,
        trouble: trouble.as_ref().map(kindly),
    };
    with_cookie(page_with(status, &view), token)
}

/// An error beside the form that it is about.
pub(crate) fn kindly(e: &Error) -> String {
    let hint = e.hint.as_deref().map(sentence).unwrap_or_default();
    let before = if e.kind == Kind::Limited { "Please wait a little. " } else { "" };
    format!("{before}{} {hint}", sentence(&e.message)).trim().to_owned()
}
