//! Passkeys: the page on which the browser asks its person for one, and what comes of it.
//!
//! Every exchange is two forms of ours. The first leads to a page that holds what the core wants of
//! the browser; that page's script asks the device, and sends the answer by the second form.

use super::sign_in::{begin as begin_session, form_token, sign_in_page, with_cookie};
use crate::guard::own_path;
use crate::view::{Frame, When, page, page_with};
use crate::visit::{Guest, Reply, Shown, Stop, Visit, done};
use askama::Template;
use xos_api::cda::{
    BeginPasskey, BeginPasskeySignIn, Ceremony, CreateSignInCode, EnrolPasskey, FinishPasskey,
    FinishPasskeySignIn, Flow, ListPasskeys, PASSKEY_NAME_MAX, Passkey, RemovePasskey,
    SetSecondFactor, SignedIn, Stepped, WebAuthn,
};
use xos_base::Error;

/// Where the answer goes, and what the page says.
struct Ask {
    /// What the script does: `create` or `get`.
    what: &'static str,
    action: &'static str,
    heading: &'static str,
    explain: &'static str,
    button: &'static str,
    /// Where to go instead.
    back: &'static str,
}

const SIGN_IN: Ask = Ask {
    what: "get",
    action: "/sign-in/passkey/finish",
    heading: "Your passkey",
    explain: "Your browser asks for it; your device checks that it is you.",
    button: "Use my passkey",
    back: "/sign-in",
};
const ENROL: Ask = Ask {
    what: "create",
    action: "/sign-in/passkey/enrol",
    heading: "Make a passkey",
    explain: "It is a key that your device keeps and gives to nobody; you come in by your finger, \
        face or PIN. This site wants one of you, or an administrator let you make one.",
    button: "Make it and sign in",
    back: "/sign-in",
};
const ADD: Ask = Ask {
    what: "create",
    action: "/account/passkeys/finish",
    heading: "Add a passkey",
    explain: "It is a key that your device keeps and gives to nobody; you come in by your finger, \
        face or PIN.",
    button: "Make it",
    back: "/account",
};

#[derive(Template)]
#[template(path = "passkey.html")]
struct View {
    frame: Frame,
    ask: &'static Ask,
    /// What the browser is to do, as JSON.
    options: String,
    flow: String,
    next: String,
    name_max: usize,
}

#[derive(Template)]
#[template(path = "passkey_remove.html")]
struct RemoveView {
    frame: Frame,
    key: String,
    name: String,
}

#[derive(Template)]
#[template(path = "sign_in_code.html")]
struct CodeView {
    frame: Frame,
    person: String,
    code: String,
    until: When,
}

/// A passkey in the list.
pub(crate) struct Row {
    pub(crate) key: String,
    pub(crate) name: String,
    pub(crate) created: When,
    pub(crate) last_used: Option<When>,
}

/// The account page's part about passkeys.
pub(crate) struct Own {
    pub(crate) rows: Vec<Row>,
    pub(crate) second_factor: bool,
    pub(crate) required: bool,
}

/// What the visitor has of them, where this page's host can use the site's passkeys.
pub(crate) async fn own(visit: &Visit, host: Option<&str>) -> Result<Option<Own>, Stop> {
    if !usable(&visit.host, host) {
        return Ok(None);
    }
    let list = visit.ask(ListPasskeys {}).await?;
    let row = |p: Passkey| Row {
        key: p.key,
        name: p.name,
        created: p.created.into(),
        last_used: p.last_used.map(When::from),
    };
    let rows = list.passkeys.into_iter().map(row).collect();
    Ok(Some(Own { rows, second_factor: list.second_factor, required: list.required }))
}

/// Whether pages at `host`, which may name a port, can use passkeys that were made for `made_for`.
pub(crate) fn usable(host: &str, made_for: Option<&str>) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).to_ascii_lowercase();
    made_for.is_some_and(|made_for| {
        name.strip_suffix(made_for).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

fn view(frame: Frame, ask: &'static Ask, ceremony: Ceremony, next: String) -> View {
    let (options, flow) = (ceremony.options.0.to_string(), ceremony.flow.0);
    View { frame, ask, options, flow, next, name_max: PASSKEY_NAME_MAX }
}

/// The page for somebody who is not in yet.
fn guest_page(guest: &Guest, ask: &'static Ask, ceremony: Ceremony, next: String) -> Shown {
    let token = form_token(guest)?;
    let frame = Frame::guest(guest, ask.heading, &token);
    with_cookie(page_with(200, &view(frame, ask, ceremony, next)), token)
}

/// What the browser answered.
fn answered(guest: &Guest) -> Result<(Flow, WebAuthn), Error> {
    let text = guest.form.raw("credential");
    if text.is_empty() {
        return Err(Error::invalid("your browser sent no passkey")
            .hint("passkeys need scripts, and a browser of the last few years"));
    }
    let credential = serde_json::from_str(text)
        .map_err(|e| Error::invalid(format!("your browser's answer is no passkey's: {e}")))?;
    Ok((Flow(guest.form.raw("flow").to_owned()), WebAuthn(credential)))
}

/// Goes on from a first step: in, or to the page for the second.
pub(crate) async fn stepped(
    guest: &Guest,
    step: Result<Stepped, Error>,
    user: &str,
    next: String,
) -> Shown {
    match step {
        Ok(Stepped::In(signed_in)) => begin_session(guest, *signed_in, next),
        Ok(Stepped::Prove(ceremony)) => guest_page(guest, &SIGN_IN, ceremony, next),
        Ok(Stepped::Enrol(ceremony)) => guest_page(guest, &ENROL, ceremony, next),
        Err(e) => sign_in_page(guest, user, next, Some(e), false).await,
    }
}

/// The page to make a passkey by a recovery code.
pub(crate) fn recovering(guest: &Guest, ceremony: Ceremony) -> Shown {
    guest_page(guest, &ENROL, ceremony, "/".into())
}

/// The page to sign in by a passkey alone.
pub(crate) async fn begin(guest: Guest) -> Shown {
    let next = own_path(guest.form.text("next"));
    match guest.console.grid.local_public(guest.peer, BeginPasskeySignIn {}).await {
        Ok(ceremony) => guest_page(&guest, &SIGN_IN, ceremony, next),
        Err(e) => sign_in_page(&guest, "", next, Some(e), false).await,
    }
}

async fn finished(guest: &Guest, signed_in: Result<SignedIn, Error>) -> Shown {
    let next = own_path(guest.form.text("next"));
    match signed_in {
        Ok(signed_in) => begin_session(guest, signed_in, next),
        Err(e) => sign_in_page(guest, "", next, Some(e), false).await,
    }
}

/// Signs in by what the browser answered.
pub(crate) async fn finish(guest: Guest) -> Shown {
    let signed_in = match answered(&guest) {
        Ok((flow, credential)) => {
            let ask = FinishPasskeySignIn { flow, credential, audience: None, memberships: false };
            guest.console.grid.local_public(guest.peer, ask).await
        }
        Err(e) => Err(e),
    };
    finished(&guest, signed_in).await
}

/// Adds the passkey that was made on the way in, and signs in.
pub(crate) async fn enrol(guest: Guest) -> Shown {
    let signed_in = match answered(&guest) {
        Ok((flow, credential)) => {
            let name = guest.form.text("name").to_owned();
            let ask = EnrolPasskey { flow, name, credential, audience: None, memberships: false };
            guest.console.grid.local_public(guest.peer, ask).await
        }
        Err(e) => Err(e),
    };
    finished(&guest, signed_in).await
}

/// The page to add a passkey.
pub(crate) async fn add(visit: Visit) -> Shown {
    let ceremony = visit.ask(BeginPasskey {}).await?;
    let frame = Frame::of(&visit, ADD.heading, "account").await;
    page(&view(frame, &ADD, ceremony, "/account".into()))
}

/// Adds the passkey that was made.
pub(crate) async fn added(visit: Visit) -> Shown {
    let (flow, credential) = answered(&visit)?;
    let name = visit.form.text("name").to_owned();
    let passkey = visit.ask(FinishPasskey { flow, name, credential }).await?;
    let notice = format!("The passkey {} is added: you can sign in by it.", passkey.name);
    done(&visit, "/account".into(), notice)
}

fn key(visit: &Visit) -> Result<String, Stop> {
    let key = visit.places.iter().find(|(k, _)| k == "key").map(|(_, v)| v.clone());
    key.ok_or(Stop::NoSuchPage)
}

/// Asks before a passkey goes.
pub(crate) async fn confirm_remove(visit: Visit) -> Shown {
    let key = key(&visit)?;
    let list = visit.ask(ListPasskeys {}).await?;
    let found = list.passkeys.into_iter().find(|p| p.key == key);
    let name = found.map(|p| p.name).ok_or(Stop::NoSuchPage)?;
    let frame = Frame::of(&visit, "Remove a passkey", "account").await;
    page(&RemoveView { frame, key, name })
}

/// Removes a passkey. All sessions of the person end, this one too.
pub(crate) async fn remove(visit: Visit) -> Shown {
    let key = key(&visit)?;
    visit.ask(RemovePasskey { key }).await?;
    visit.console.sessions.end(&visit.session);
    Ok(Reply::End("/sign-in".into()))
}

/// Switches the second step on or off. All sessions of the person end, this one too.
pub(crate) async fn second_factor(visit: Visit) -> Shown {
    let on = match visit.form.text("on") {
        "yes" => true,
        "no" => false,
        _ => return Err(Error::invalid("on or off?").into()),
    };
    visit.ask(SetSecondFactor { on }).await?;
    visit.console.sessions.end(&visit.session);
    Ok(Reply::End("/sign-in".into()))
}

/// Shows a code for a program without a browser.
pub(crate) async fn code(visit: Visit) -> Shown {
    let made = visit.ask(CreateSignInCode {}).await?;
    let frame = Frame::of(&visit, "A code for xos", "account").await;
    let person = visit.session.person.to_string();
    page(&CodeView { frame, person, code: made.code.0, until: made.expires.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, people would be offered passkeys where their browser refuses them.
    #[test]
    fn passkeys_are_offered_at_and_below_their_host() {
        let at = Some("example.org");
        for good in ["example.org", "example.org:7443", "Core.Example.org:7443"] {
            assert!(usable(good, at), "{good}");
        }
        for bad in ["evilexample.org", "example.org.evil:1", "10.0.0.1:7443", "[::1]:7443", ""] {
            assert!(!usable(bad, at), "{bad}");
        }
        assert!(!usable("example.org", None));
    }
}
