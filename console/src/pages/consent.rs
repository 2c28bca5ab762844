//! A service sends a person here to sign in: what it wants, and yes or no.
//!
//! The browser comes from the service's page and sends no cookie of ours, as in
//! [`super::provider`]: so the page that it comes to leads on to one of ours, which asks. The way
//! back to the service is a page of ours too, since a form's answer must not lead elsewhere.

use super::provider::on_the_way;
use crate::guard::own_path;
use crate::view::{Frame, page};
use crate::visit::{Guest, Reply, Shown, Stop, Visit};
use askama::Template;
use xos_api::cda::{
    Authorization, Consent, DecideAuthorization, Scope, ShowAuthorization, Shown as Ask, VoChoice,
};
use xos_base::{Error, VoId};

/// What a client may send with a browser.
const NAMES: [&str; 11] = [
    "response_type",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
    "response_mode",
    "prompt",
    "max_age",
];

/// The page that asks, also for another device's code.
#[derive(Template)]
#[template(path = "consent.html")]
struct View {
    frame: Frame,
    client: String,
    back: Option<String>,
    /// What it learns, in a person's words.
    learns: Vec<&'static str>,
    vos: Vec<VoChoice>,
    /// Where the answer goes, and what goes with it.
    action: &'static str,
    hidden: Vec<(&'static str, String)>,
}

/// The page before a newer sign-in, which a service wants.
#[derive(Template)]
#[template(path = "sign_in_again.html")]
struct AgainView {
    frame: Frame,
    client: String,
    hidden: Vec<(&'static str, String)>,
}

/// What a scope means, in a person's words.
pub(super) fn words(scope: Scope) -> &'static str {
    match scope {
        Scope::OpenId => "who you are: your id at this site",
        Scope::Profile => "your name at this site",
        Scope::WlcgGroups => "the VO that you choose, and your groups in it",
        Scope::Entitlement => "the VO that you choose, your groups and your roles in it",
        Scope::OfflineAccess => "all this also while you are away, for up to seven days",
    }
}

/// The page that asks a person.
pub(super) async fn ask(
    visit: &Visit,
    consent: Consent,
    action: &'static str,
    hidden: Vec<(&'static str, String)>,
) -> Shown {
    let frame = Frame::of(visit, "Sign in to a service?", "consent").await;
    let learns = consent.scopes.into_iter().map(words).collect();
    let Consent { client, back, vos, .. } = consent;
    page(&View { frame, client, back, learns, vos, action, hidden })
}

/// What the person answered: yes or no, and as whose member.
pub(super) fn answer(visit: &Visit) -> Result<(bool, Option<VoId>), Stop> {
    let allow = match visit.form.text("answer") {
        "yes" => true,
        "no" => false,
        _ => return Err(Error::invalid("yes or no?").into()),
    };
    Ok((allow, visit.form.id_if("vo")?))
}

/// What the client sent, as far as it is known, from whoever has it.
pub(crate) fn sent<'a>(text: impl Fn(&'static str) -> &'a str) -> Vec<(&'static str, String)> {
    let all = NAMES.map(|name| (name, text(name).to_owned()));
    all.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

/// The request that a client sent.
pub(crate) fn request(sent: &[(&'static str, String)]) -> Authorization {
    let of = |name: &str| {
        let found = sent.iter().find(|(n, _)| *n == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    Authorization {
        response_type: of("response_type"),
        client_id: of("client_id"),
        redirect_uri: of("redirect_uri"),
        scope: of("scope"),
        state: of("state"),
        nonce: of("nonce"),
        code_challenge: of("code_challenge"),
        code_challenge_method: of("code_challenge_method"),
        response_mode: of("response_mode"),
        prompt: of("prompt"),
        max_age: of("max_age"),
    }
}

/// From the service's page: on to [`show`].
pub(crate) async fn arrive(guest: Guest) -> Shown {
    if guest.query.has_repeated() {
        return Err(Error::invalid("the service sent the same thing twice with you")
            .hint("tell whoever runs the service that sent you here")
            .into());
    }
    on_the_way(&guest, asking(&sent(|name| guest.query.raw(name)))?)
}

/// Where a person is asked about what a client sent.
fn asking(sent: &[(&'static str, String)]) -> Result<String, Error> {
    let query = serde_urlencoded::to_string(sent)
        .map_err(|e| Error::invalid(format!("what the service sent is malformed: {e}")))?;
    // The one character that is not encoded there and that `own_path` does not take.
    Ok(format!("/oauth/consent?{}", query.replace('*', "%2A")))
}

/// Asks the person.
pub(crate) async fn show(visit: Visit) -> Shown {
    let hidden = sent(|name| visit.query.raw(name));
    match visit.ask(ShowAuthorization { request: request(&hidden) }).await? {
        Ask::Ask(consent) => ask(&visit, consent, "/oauth/consent", hidden).await,
        Ask::Back(to) => on_the_way(&visit, to.0),
        Ask::SignInAgain { client } => {
            let frame = Frame::of(&visit, "Sign in again?", "consent").await;
            page(&AgainView { frame, client, hidden })
        }
    }
}

/// The person goes on to a newer sign-in. Only this form of ours ends the session: a link to
/// [`show`] does not.
pub(crate) async fn sign_in_again(visit: Visit) -> Shown {
    let path = own_path(&asking(&sent(|name| visit.form.raw(name)))?);
    let next = serde_urlencoded::to_string([("next", path)])
        .map_err(|e| Error::internal(format!("a path cannot be written: {e}")))?;
    visit.console.sessions.end(&visit.session);
    Ok(Reply::End(format!("/sign-in?{next}")))
}

/// The person answered: back to the service.
pub(crate) async fn decide(visit: Visit) -> Shown {
    let (allow, vo) = answer(&visit)?;
    let request = request(&sent(|name| visit.form.raw(name)));
    let to = visit.ask(DecideAuthorization { request, allow, vo }).await?;
    on_the_way(&visit, to.0)
}
