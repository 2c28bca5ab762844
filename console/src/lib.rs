//! The web console: pages for people beside the API, on the core's one port.
//!
//! It is a client of the same API, in process: each browser session holds short-lived tokens of
//! its person, and every operation is asked for with a [`xos_net::Caller`] made from one of them.
//! The console decides nothing about rights; it shows what the API answers.

mod backend;
mod chart;
mod command_line;
mod described;
mod fields;
#[doc(hidden)]
pub mod fuzzing;
mod guard;
mod live;
mod pages;
mod programs;
mod respond;
mod routes;
mod scim;
mod session;
mod tokens;
mod view;
mod visit;

use actix_web::HttpRequest;
use serde::Deserialize;
use session::Sessions;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use xos_base::Error;
use xos_base::when::Clock;
use xos_net::http::Pages;
use xos_net::{Grid, Verifier};

pub use described::described;
pub use session::{IDLE_MAX, LIFE_MAX, PER_PERSON_MAX, SESSIONS_MAX};

/// How often tokens are looked over and sessions that ended are dropped.
pub const KEEP_INTERVAL: Duration = Duration::from_secs(10);
/// Longest title of a site, in characters.
pub const TITLE_MAX: usize = 60;

/// The section `[console]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What the site is called at the top of each page, at most 60 characters. Default: its id.
    #[serde(default)]
    pub title: Option<String>,
}

/// Fills the buffer with random bytes that nobody can guess, or fails.
pub type Random = Arc<dyn Fn(&mut [u8]) -> Result<(), Error> + Send + Sync>;

/// The system's randomness.
pub fn system_random() -> Random {
    Arc::new(|buffer| {
        aws_lc_rs::rand::fill(buffer).map_err(|_| Error::internal("the system has no randomness"))
    })
}

/// What the console works with.
pub struct Deps {
    /// Where operations are called.
    pub grid: Grid,
    /// Who turns a session's token into a caller.
    pub verifier: Verifier,
    /// The runtime on which operations run; HTTP workers have one thread each.
    pub runtime: Handle,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where session ids come from.
    pub random: Random,
}

/// The console of one core. Cheap to clone.
#[derive(Clone)]
pub struct Console {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) title: String,
    pub(crate) grid: Grid,
    pub(crate) verifier: Verifier,
    pub(crate) runtime: Handle,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) sessions: Sessions,
}

impl Console {
    /// A console with no sessions, which keeps their tokens fresh until it is dropped.
    ///
    /// # Errors
    /// [`xos_base::Kind::Invalid`] when the configuration is out of its limits.
    pub fn start(config: Config, deps: Deps) -> Result<Console, Error> {
        let title = config.title.unwrap_or_else(|| deps.grid.site().to_string());
        if title.trim().is_empty()
            || title.chars().count() > TITLE_MAX
            || title.chars().any(xos_base::text::hidden)
        {
            return Err(Error::invalid(format!(
                "[console] title: 1 to {TITLE_MAX} characters, no control characters"
            )));
        }
        let sessions = Sessions::new(deps.clock.clone(), deps.random);
        let inner = Arc::new(Inner {
            title,
            grid: deps.grid,
            verifier: deps.verifier,
            runtime: deps.runtime,
            clock: deps.clock,
            sessions,
        });
        let weak = Arc::downgrade(&inner);
        inner.runtime.spawn(keep_always(weak));
        Ok(Console { inner })
    }

    /// The pages, for the HTTP workers.
    pub fn pages(&self) -> Pages {
        let (inner, refusing) = (self.inner.clone(), self.inner.clone());
        Pages {
            configure: Arc::new(move |config| routes::configure(&inner, config)),
            refused: Arc::new(move |request: &HttpRequest, error: &Error| {
                respond::refused(&refusing, request, error)
            }),
        }
    }

    /// Drops sessions that ended and renews the tokens of the others before they expire. Called
    /// every [`KEEP_INTERVAL`] by itself.
    pub async fn keep(&self) {
        self.inner.keep().await;
    }
}

impl Inner {
    async fn keep(&self) {
        self.sessions.sweep();
        for session in self.sessions.all() {
            self.renew(&session).await;
        }
    }
}

async fn keep_always(console: Weak<Inner>) {
    let mut ticks = tokio::time::interval(KEEP_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match console.upgrade() {
            Some(inner) => inner.keep().await,
            None => return,
        }
    }
}
