//! Signing in at an identity provider: to it, back from it, and in.
//!
//! A browser that comes back from another site sends no cookie of ours (they are
//! `SameSite=Strict`). So the page it comes back to decides nothing: it leads on to a page of ours,
//! and there the cookie shows that the sign-in was begun in this browser. Nobody can so finish in a
//! person's browser what they began in their own.

use super::passkeys::stepped;
use super::sign_in::sign_in_page;
use crate::guard::own_path;
use crate::session::{Session, is_secret};
use crate::view::{Frame, page_with};
use crate::visit::{Guest, Reply, Shown, Stop, Visit};
use askama::Template;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::sync::Arc;
use xos_api::cda::{
    Answer, BeginSignIn, Code, FirstProof, FirstStep, Flow, LinkIdentity, callback_path,
};
use xos_base::{Error, ProviderId};

#[derive(Template)]
#[template(path = "provider.html")]
struct View {
    frame: Frame,
    /// Where the browser goes by itself.
    to: String,
}

/// What a sign-in at a provider is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A session.
    SignIn,
    /// To link the account to whoever is signed in.
    Link,
}

impl Purpose {
    fn as_str(self) -> &'static str {
        match self {
            Purpose::SignIn => "in",
            Purpose::Link => "link",
        }
    }
}

/// What the cookie of a sign-in at a provider says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    purpose: Purpose,
    provider: ProviderId,
    flow: Flow,
    /// Where to go afterwards.
    pub(crate) next: String,
}

impl Begun {
    fn write(&self) -> String {
        let next = URL_SAFE_NO_PAD.encode(&self.next);
        format!("{}.{}.{}.{next}", self.purpose.as_str(), self.provider, self.flow.0)
    }

    pub(crate) fn read(text: &str) -> Option<Begun> {
        let mut parts = text.splitn(4, '.');
        let purpose = match parts.next()? {
            "in" => Purpose::SignIn,
            "link" => Purpose::Link,
            _ => return None,
        };
        let provider = parts.next()?.parse().ok()?;
        let flow = parts.next().filter(|f| is_secret(f))?.to_owned();
        let next = URL_SAFE_NO_PAD.decode(parts.next()?).ok()?;
        let next = own_path(&String::from_utf8(next).ok()?);
        Some(Begun { purpose, provider, flow: Flow(flow), next })
    }
}

/// Goes to a provider, to sign in.
pub(crate) async fn begin(guest: Guest) -> Shown {
    let next = own_path(guest.form.text("next"));
    match leave(&guest, Purpose::SignIn, next.clone()).await {
        Err(Stop::Failed(e)) => sign_in_page(&guest, "", next, Some(e), false).await,
        other => other,
    }
}

/// The page that leads to the provider that the path names.
pub(crate) async fn leave(guest: &Guest, purpose: Purpose, next: String) -> Shown {
    let provider: ProviderId = guest.place("provider")?;
    let redirect = format!("https://{}{}", guest.host, callback_path(&provider));
    let ask = BeginSignIn { provider: provider.clone(), redirect };
    let begun = guest.console.grid.local_public(guest.peer, ask).await?;
    let cookie = Begun { purpose, provider, flow: begun.flow, next };
    match on_the_way(guest, begun.authorize_url)? {
        Reply::Page { html, .. } => Ok(Reply::Leave { html, flow_cookie: cookie.write() }),
        other => Ok(other),
    }
}

/// A page that leads to `to` by itself.
pub(super) fn on_the_way(guest: &Guest, to: String) -> Shown {
    let frame = Frame::bare(&guest.console, "One moment", "sign-in");
    page_with(200, &View { frame, to })
}

/// Back from a provider: on to [`finish`], with what it said.
pub(crate) async fn come_back(guest: Guest) -> Shown {
    let provider: ProviderId = guest.place("provider")?;
    let said = ["state", "code", "iss", "error"].map(|name| (name, guest.query.raw(name)));
    let said: Vec<_> = said.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    let query = serde_urlencoded::to_string(said)
        .map_err(|e| Error::invalid(format!("the provider's answer is malformed: {e}")))?;
    on_the_way(&guest, format!("/sign-in/finish/{provider}?{query}"))
}

/// Finishes what was begun in this browser.
pub(crate) async fn finish(guest: Guest) -> Shown {
    let provider: ProviderId = guest.place("provider")?;
    let begun = guest.flow_cookie.as_deref().and_then(Begun::read);
    let Some(begun) = begun.filter(|b| b.provider == provider) else {
        let e = Error::denied("this sign-in was not begun in this browser, or took too long")
            .hint("begin again");
        return sign_in_page(&guest, "", "/".into(), Some(e), false).await;
    };
    let answer = answer(&guest, provider);
    match (begun.purpose, guest.session.clone()) {
        (Purpose::SignIn, _) => sign_in(guest, begun, answer).await,
        (Purpose::Link, Some(session)) => link(guest, session, begun, answer).await,
        (Purpose::Link, None) => {
            let e = Error::unauthenticated("you are signed out, so nothing was linked");
            sign_in_page(&guest, "", begun.next, Some(e), false).await
        }
    }
}

/// What the provider said.
fn answer(guest: &Guest, provider: ProviderId) -> Result<Answer, Error> {
    let said = |name| guest.query.raw(name);
    match said("error") {
        "" => Ok(Answer {
            provider,
            state: Code(said("state").to_owned()),
            code: Code(said("code").to_owned()),
            iss: Some(said("iss").to_owned()).filter(|iss| !iss.is_empty()),
        }),
        "access_denied" => Err(Error::denied("you did not sign in there, so you are not in here")),
        // What it writes is a stranger's text.
        _ => Err(Error::unavailable("the identity provider could not sign you in")
            .hint("try again; if it stays so, tell a site administrator")),
    }
}

async fn sign_in(guest: Guest, begun: Begun, answer: Result<Answer, Error>) -> Shown {
    let finished = match answer {
        Ok(answer) => {
            let proof = FirstProof::Provider { flow: begun.flow, answer };
            let ask = FirstStep { proof, audience: None, memberships: false };
            guest.console.grid.local_public(guest.peer, ask).await
        }
        Err(e) => Err(e),
    };
    stepped(&guest, finished, "", begun.next).await
}

async fn link(
    guest: Guest,
    session: Arc<Session>,
    begun: Begun,
    answer: Result<Answer, Error>,
) -> Shown {
    let visit = Visit::new(guest, session);
    let ask = LinkIdentity { flow: begun.flow, answer: Some(answer?) };
    let linked = visit.ask(ask).await?;
    let name = linked.identity.map(|i| i.name).unwrap_or_default();
    let notice = format!("The account {name} at {} is linked.", begun.provider);
    crate::visit::done(&visit, begun.next, notice)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a cookie could lead a person to another site, or be taken for another flow.
    #[test]
    fn the_cookie_of_a_flow_is_read_whole_or_not_at_all() {
        let begun = Begun {
            purpose: Purpose::Link,
            provider: "uni".parse().unwrap(),
            flow: Flow("0123456789abcdef0123456789abcdef".into()),
            next: "/vo/demo.rennes?a=b,c".into(),
        };
        let text = begun.write();
        assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)), "{text}");
        assert_eq!(Begun::read(&text), Some(begun));
        let evil = URL_SAFE_NO_PAD.encode("https://evil.example/");
        let text = format!("in.uni.0123456789abcdef0123456789abcdef.{evil}");
        assert_eq!(Begun::read(&text).unwrap().next, "/");
        for bad in ["", "in", "in.uni", "in.uni.x.Lw", "other.uni.0123.Lw", "in.U.0.Lw"] {
            assert_eq!(Begun::read(bad), None, "{bad}");
        }
    }
}
