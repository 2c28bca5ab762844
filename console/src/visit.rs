//! One request of a browser, and what a page answers. Neither holds anything of actix-web, so
//! that pages run on the main runtime.

use crate::Inner;
use crate::fields::Fields;
use crate::session::Session;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use std::str::FromStr;
use std::sync::Arc;
use xos_base::ids::IdError;
use xos_base::{Error, VoId};
use xos_net::Peer;

/// A request of anybody.
pub(crate) struct Guest {
    pub(crate) console: Arc<Inner>,
    /// Where it came from.
    pub(crate) peer: Peer,
    /// The host, with its port, that the browser thinks it talks to.
    pub(crate) host: String,
    /// The path and the query.
    pub(crate) path: String,
    /// What stands at the variable places of the path.
    pub(crate) places: Vec<(String, String)>,
    pub(crate) query: Fields,
    /// Empty unless the request is a POST.
    pub(crate) form: Fields,
    /// The session, when the browser has one.
    pub(crate) session: Option<Arc<Session>>,
    /// The page's own script asks, not the person.
    pub(crate) live: bool,
    /// What ties sign-in forms to this browser ([`crate::guard::FORM_COOKIE`]).
    pub(crate) form_cookie: Option<String>,
    /// The sign-in at a provider that was begun in this browser ([`crate::guard::FLOW_COOKIE`]).
    pub(crate) flow_cookie: Option<String>,
    /// What the browser's Kerberos ticket gave, in base64 (`Authorization: Negotiate`).
    pub(crate) negotiated: Option<String>,
}

/// A request of somebody who signed in.
pub(crate) struct Visit {
    guest: Guest,
    pub(crate) session: Arc<Session>,
}

impl std::ops::Deref for Visit {
    type Target = Guest;
    fn deref(&self) -> &Guest {
        &self.guest
    }
}

impl Visit {
    pub(crate) fn new(guest: Guest, session: Arc<Session>) -> Visit {
        Visit { guest, session }
    }
}

impl Guest {
    /// An id at a variable place of the path. What is no id names nothing.
    pub(crate) fn place<T: FromStr<Err = IdError>>(&self, name: &str) -> Result<T, Stop> {
        let place = self.places.iter().find(|(k, _)| k == name);
        place.and_then(|(_, v)| v.parse().ok()).ok_or(Stop::NoSuchPage)
    }

    /// What stands at a variable place of the path, as it is.
    pub(crate) fn place_text(&self, name: &str) -> Result<&str, Stop> {
        let place = self.places.iter().find(|(k, _)| k == name);
        place.map(|(_, v)| v.as_str()).ok_or(Stop::NoSuchPage)
    }

    /// The VO that the path names.
    pub(crate) fn vo(&self) -> Result<VoId, Stop> {
        self.place("vo")
    }
}

/// Why a page cannot be shown.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The session is over: to the sign-in page.
    SignedOut,
    /// The path names nothing.
    NoSuchPage,
    /// What the API answered, or what is wrong with the request.
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(e: Error) -> Stop {
        Stop::Failed(e)
    }
}

impl From<IdError> for Stop {
    fn from(e: IdError) -> Stop {
        Stop::Failed(e.into())
    }
}

/// What goes back to the browser.
pub(crate) enum Reply {
    /// A page.
    Page {
        /// The HTTP status.
        status: u16,
        /// HTML.
        html: String,
    },
    /// The sign-in page, with the cookie that ties its form to this browser.
    SignInPage {
        /// The HTTP status.
        status: u16,
        /// HTML.
        html: String,
        /// The cookie's value.
        form_cookie: String,
    },
    /// A page that leads to a provider, with the cookie that ties the sign-in there to this
    /// browser.
    Leave {
        /// HTML.
        html: String,
        /// The cookie's value.
        flow_cookie: String,
    },
    /// A page for browsers that hold no Kerberos ticket; others ask again with one.
    Negotiate {
        /// HTML.
        html: String,
        /// The value of the cookie that ties its form to this browser, when it has one.
        form_cookie: Option<String>,
    },
    /// Go there, by GET.
    Elsewhere(String),
    /// A session began: here is its cookie, go there.
    Begin {
        /// The session's id.
        id: String,
        /// Where to go.
        to: String,
    },
    /// The session ended: forget the cookie, go there.
    End(String),
    /// A file to keep, always as plain text.
    File {
        /// The name that the browser proposes.
        name: String,
        /// The content.
        body: BoxStream<'static, Result<Bytes, Error>>,
    },
    /// JSON texts, a line each.
    Lines(BoxStream<'static, Result<Bytes, Error>>),
}

/// A page's result.
pub(crate) type Shown = Result<Reply, Stop>;

/// Goes to `to` and leaves `notice` for the page there.
pub(crate) fn done(visit: &Visit, to: String, notice: impl Into<String>) -> Shown {
    visit.session.leave_notice(notice.into());
    Ok(Reply::Elsewhere(to))
}
