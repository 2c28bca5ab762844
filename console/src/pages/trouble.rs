//! What is shown when something did not work: what happened, and what to do next.

use crate::Inner;
use crate::session::Session;
use crate::view::{Frame, page_with, sentence};
use crate::visit::{Reply, Shown, Stop};
use askama::Template;
use xos_base::{Error, Kind};

#[derive(Template)]
#[template(path = "trouble.html")]
struct Trouble {
    frame: Frame,
    heading: &'static str,
    message: String,
    hint: Option<String>,
}

/// The path names nothing.
pub(crate) fn no_such_page() -> Shown {
    Err(Stop::NoSuchPage)
}

/// The page for what stopped another.
pub(crate) fn reply(console: &Inner, session: Option<&Session>, stop: &Stop) -> Reply {
    let error = match stop {
        Stop::SignedOut => return Reply::Elsewhere("/sign-in?ended=1".into()),
        Stop::NoSuchPage => Error::not_found("there is no such page here")
            .hint("check the address, or begin at the first page"),
        Stop::Failed(e) => e.clone(),
    };
    let heading = heading(error.kind);
    let mut frame = Frame::bare(console, heading, "");
    if let Some(session) = session {
        frame.person = Some(session.person.to_string());
        frame.site_admin = session.site_admin();
        frame.token.clone_from(&session.form_token);
    }
    let trouble = Trouble {
        frame,
        heading,
        message: sentence(&error.message),
        hint: error.hint.as_deref().map(sentence),
    };
    match page_with(error.kind.http_status(), &trouble) {
        Ok(reply) => reply,
        Err(_) => Reply::Page { status: 500, html: "a fault in this core".into() },
    }
}

/// The kind of an error as a heading.
pub(crate) fn heading(kind: Kind) -> &'static str {
    match kind {
        Kind::Invalid => "That did not fit",
        Kind::Unauthenticated => "Please sign in again",
        Kind::Denied => "You may not do this",
        Kind::NotFound => "Nothing is here",
        Kind::Conflict => "It changed meanwhile",
        Kind::TooLarge => "That is too large",
        Kind::Limited => "Please wait a moment",
        Kind::Unsatisfiable => "No site can do this",
        Kind::Unavailable => "Not available just now",
        Kind::Unsupported => "Not possible yet",
        Kind::Internal => "A fault on our side",
    }
}
